/**
 * Many TCP connections: `tcp-crowd.ts ADDRESS PORT TOTAL AT_ONCE BYTES HOLD`.
 *
 * Each sends BYTES of the pattern (its own piece) to an echo server and compares what returns. HOLD 1: every
 * connection stays open until all have their answer (AT_ONCE = TOTAL), HOLD 0: each ends when the server
 * closes, and the next one starts. Prints {ok, failed: {cause: count}, ms, peakOpen}.
 */
import net from 'node:net';
import { patternSlice } from '../pattern.ts';

const [address = '', ...numbers] = process.argv.slice(2);
const [port = 0, total = 0, atOnce = 1, bytes = 0, hold = 0] = numbers.map(Number);
const CONNECTION_TIMEOUT_MS = 60_000;

const failed: Record<string, number> = {};
let ok = 0;
let open = 0;
let peakOpen = 0;
let answered = 0;
let releaseAll = (): void => {};
const allAnswered = new Promise<void>((resolve) => {
  releaseAll = resolve;
});

function one(index: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const want = patternSlice((index * 7919) % 4_000_000, bytes);
    const socket = net.connect({ host: address, port, noDelay: true });
    let got = 0;
    let same = true;
    let isOpen = false;
    const end = (cause?: string): void => {
      if (isOpen) open--;
      isOpen = false;
      socket.destroy();
      resolve(cause);
    };
    socket.setTimeout(CONNECTION_TIMEOUT_MS, () => end(`timeout after ${got} bytes`));
    socket.on('error', (e: NodeJS.ErrnoException) => end(e.code ?? e.message));
    socket.on('connect', () => {
      isOpen = true;
      if (++open > peakOpen) peakOpen = open;
      socket.write(want);
    });
    socket.on('data', (chunk: Buffer) => {
      same &&= chunk.equals(want.subarray(got, got + chunk.length));
      got += chunk.length;
      if (hold === 1 && got === bytes) {
        if (++answered === total) releaseAll();
        allAnswered.then(() => socket.end());
      }
    });
    socket.on('end', () => end(!same ? 'wrong data' : got !== bytes ? `only ${got} bytes` : undefined));
  });
}

const startedAt = performance.now();
let next = 0;
await Promise.all(
  Array.from({ length: atOnce }, async () => {
    while (next < total) {
      const cause = await one(next++);
      if (cause === undefined) ok++;
      else {
        failed[cause] = (failed[cause] ?? 0) + 1;
        // A failed connection will not answer: the others do not wait for it.
        if (hold === 1 && ++answered === total) releaseAll();
      }
    }
  }),
);
console.log(JSON.stringify({ ok, failed, ms: Math.round(performance.now() - startedAt), peakOpen }));
