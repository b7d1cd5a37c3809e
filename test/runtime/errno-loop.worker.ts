/** One of the threads of ffi.test.ts that fail at the same time. */
import { onFirstMessage, postToCreator } from '#runtime/threads';
import { errnoLoop } from './errno-loop.ts';

export interface ErrnoTask {
  readonly which: number;
  readonly calls: number;
  readonly between: boolean;
}

onFirstMessage(({ which, calls, between }: ErrnoTask) => {
  postToCreator(errnoLoop(calls, between, which));
});
