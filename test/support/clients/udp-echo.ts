/**
 * UDP echo of the given sizes, one after the other: `udp-echo.ts ADDRESS PORT SIZE...`. Sockets are
 * connected, so ICMP errors come back as errno. Prints [{size, outcome: "same" | "different" | "lost" | errno
 * name, ms}].
 */
import dgram from 'node:dgram';
import { patternSlice } from '../pattern.ts';

const [address = '', port = '', ...sizes] = process.argv.slice(2);
const REPLY_WAIT_MS = 2000;

function echo(size: number): Promise<{ size: number; outcome: string; ms: number }> {
  return new Promise((resolve) => {
    const socket = dgram.createSocket({
      type: address.includes(':') ? 'udp6' : 'udp4',
      recvBufferSize: 1 << 18,
      sendBufferSize: 1 << 18,
    });
    const want = patternSlice(size, size);
    const startedAt = performance.now();
    const end = (outcome: string): void => {
      clearTimeout(timer);
      socket.close();
      resolve({ size, outcome, ms: Math.round(performance.now() - startedAt) });
    };
    const timer = setTimeout(() => end('lost'), REPLY_WAIT_MS);
    socket.on('error', (e: NodeJS.ErrnoException) => end(e.code ?? e.message));
    socket.on('message', (got) => end(got.equals(want) ? 'same' : 'different'));
    socket.connect(Number(port), address, () => socket.send(want));
  });
}

const results = [];
for (const size of sizes) results.push(await echo(Number(size)));
console.log(JSON.stringify(results));
