/** Memory of the JavaScript engine, on Node. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Collect the garbage of the calling thread's heap, and give free memory back to the kernel. */
export function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}
