/** One of the threads of ffi.test.ts that fail at the same time. */
import { onFirstMessage, postToCreator } from '#runtime/threads';
import { errnoLoop } from './errno-loop.ts';

onFirstMessage(({ which, calls }: { readonly which: number; readonly calls: number }) => {
  postToCreator(errnoLoop(calls, which));
});
