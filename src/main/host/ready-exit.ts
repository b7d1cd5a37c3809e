/**
 * Descriptors by which a caller and this program tell each other two things: "traffic flows" (--ready-fd) and
 * "end" (--exit-fd), as slirp4netns has them.
 */
import { closeSync, fstatSync, writeSync } from 'node:fs';
import type { EngineHandle } from '../../workers/engine.ts';

/**
 * Call `onEnd` when the other end of a pipe or socket is closed; at once for a descriptor that is not open. A
 * packet thread polls the descriptor: a stream of Node would make it non-blocking for the caller too. Data
 * on the descriptor is ignored.
 */
export function watchHangUp(fd: number, engine: Pick<EngineHandle, 'watchHangUp'>, onEnd: () => void): void {
  let stat: ReturnType<typeof fstatSync>;
  try {
    stat = fstatSync(fd);
  } catch {
    onEnd();
    return;
  }
  if (!stat.isFIFO() && !stat.isSocket()) return; // a file never hangs up
  engine.watchHangUp(fd, onEnd);
}

/** Write the ready byte and close the descriptor. A closed pipe or descriptor is no error. */
export function writeReadyByte(fd: number): void {
  try {
    writeSync(fd, '1');
    closeSync(fd);
  } catch {
    // EBADF, EPIPE
  }
}
