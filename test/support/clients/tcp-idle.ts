/**
 * Opens connections and keeps them open: `tcp-idle.ts ADDRESS PORT COUNT`. Prints "ready" when all are
 * connected. For each line on standard input, a byte goes through each connection to an echo server and back:
 * then "answered COUNT" is printed, or the causes why not.
 */
import { once } from 'node:events';
import net from 'node:net';
import { createInterface } from 'node:readline';

const [host = '', ...numbers] = process.argv.slice(2);
const [port = 0, count = 0] = numbers.map(Number);
const ANSWER_MS = 10_000;
const all: net.Socket[] = [];
for (let opened = 0; opened < count; opened += 50) {
  const batch = Array.from({ length: Math.min(50, count - opened) }, () => net.connect({ host, port }));
  await Promise.all(batch.map((socket) => once(socket, 'connect')));
  all.push(...batch);
}

async function ask(socket: net.Socket, byte: number): Promise<void> {
  socket.write(Uint8Array.of(byte));
  const [answer] = (await once(socket, 'data', { signal: AbortSignal.timeout(ANSWER_MS) })) as [Buffer];
  if (answer.length !== 1 || answer[0] !== byte) throw new Error(`${answer.length} bytes`);
}

createInterface({ input: process.stdin }).on('line', async () => {
  const results = await Promise.allSettled(all.map((socket, i) => ask(socket, i & 255)));
  const causes = results.flatMap((result) => (result.status === 'rejected' ? [String(result.reason)] : []));
  console.log(causes.length === 0 ? `answered ${all.length}` : causes.join('; '));
});
console.log('ready');
