/**
 * Opens connections and keeps them open: `tcp-idle.ts ADDRESS PORT COUNT`. Prints "ready" when all are
 * connected.
 */
import { once } from 'node:events';
import net from 'node:net';

const [host = '', ...numbers] = process.argv.slice(2);
const [port = 0, count = 0] = numbers.map(Number);
for (let opened = 0; opened < count; opened += 50) {
  const batch = Array.from({ length: Math.min(50, count - opened) }, () => net.connect({ host, port }));
  await Promise.all(batch.map((socket) => once(socket, 'connect')));
}
console.log('ready');
