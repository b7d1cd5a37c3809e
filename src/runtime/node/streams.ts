// bundle: boot
/** process.stdout and process.stderr on Node. */
import type { Writable } from 'node:stream';

/**
 * Make process.stdout and process.stderr write by `put`. Otherwise Node makes streams of descriptors 1 and 2
 * when a worker starts, to connect the worker's streams to them, and the stream of a pipe or socket sets
 * O_NONBLOCK on the caller's open file. Call it before the first worker starts.
 */
export function replaceStreams(put: (fd: 1 | 2, text: string) => void): void {
  for (const [name, fd] of [
    ['stdout', 1],
    ['stderr', 2],
  ] as const) {
    let stream: Writable | undefined;
    const get = (): Writable => {
      stream ??= Object.assign(
        new (process.getBuiltinModule('node:stream').Writable)({
          write: (chunk, _encoding, done) => {
            put(fd, String(chunk));
            done();
          },
        }),
        { fd },
      );
      return stream;
    };
    Object.defineProperty(process, name, { configurable: true, enumerable: true, get });
  }
}
