/** Threads for tests of src/runtime. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { startThread } from '#runtime/threads';

/** Start a thread of `program` for each task, all at the same time. @returns what each posts first */
export const reportsOf = <Report>(program: URL, tasks: readonly unknown[]): Promise<Report[]> =>
  Promise.all(
    tasks.map(async (task) => {
      const thread = startThread(program);
      try {
        return await new Promise<Report>((resolve, reject) => {
          thread.onMessage(resolve);
          thread.onError(reject);
          thread.onExit((code) => reject(new Error(`the thread ended with code ${code}`)));
          thread.post(task);
        });
      } finally {
        await thread.terminate();
      }
    }),
  );

let collect: (() => void) | undefined;

/** Collect all garbage now. */
export function collectGarbage(): void {
  collect ??= collector();
  collect();
}

function collector(): () => void {
  const { Bun } = globalThis as { readonly Bun?: { gc(wait: boolean): void } };
  if (Bun !== undefined) return () => Bun.gc(true);
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}
