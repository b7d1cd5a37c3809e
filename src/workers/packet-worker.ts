// bundle: boot
/**
 * Boots a packet thread before its task is known. Node and koffi need tens of milliseconds to boot in a new
 * thread, independent of the engine's plan. So the front end boots a thread as soon as it knows that it will
 * need one, and the engine sends the task later (decision 016). This file imports no other module of the
 * engine, to be loaded fast.
 */
import { SHARE_ENV, Worker } from 'node:worker_threads';

/** workerData of a thread that gets its task as its first message. */
export interface TaskFollows {
  readonly taskFollows: true;
}

/**
 * Limit of V8's young generation. Without a limit it grows to 96 MiB when many objects survive a collection,
 * and V8 never returns that memory while a packet thread runs. Reaching the limit is no error: objects that
 * survive move to the old generation (decision 115).
 */
const YOUNG_GENERATION_MIB = 6;

export interface BootedThread {
  readonly worker: Worker;
  /** Resolves when the thread ends, with its error or with one that gives the exit code. */
  readonly failed: Promise<Error>;
}

/** After a thread has ended its reports on its port are still read for so long, before `failed` resolves. */
const REPORT_GRACE_MS = 100;

/** Boot a packet thread. It ends after its task, by `worker.terminate()` or with the process. */
export function bootPacketThread(name: string): BootedThread {
  const file = new URL(
    import.meta.url.endsWith('.ts') ? './packet-thread.ts' : './packet-thread.js',
    import.meta.url,
  );
  const worker = new Worker(file, {
    workerData: { taskFollows: true } satisfies TaskFollows,
    name,
    env: SHARE_ENV, // a copy of the environment could not be overwritten later
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MIB },
  });
  const failed = new Promise<Error>((resolve) => {
    worker.on('error', (error) => resolve(error as Error));
    worker.on('exit', (code) => {
      setTimeout(() => resolve(new Error(`${name} ended with code ${code}`)), REPORT_GRACE_MS);
    });
  });
  return { worker, failed };
}
