// bundle: boot
/**
 * A packet thread before it has its task. Node and koffi need tens of milliseconds to boot in a new thread,
 * and nothing in that depends on the engine's plan: so the front end boots one as soon as it knows that it
 * will need it, and the engine hands over the task later (decision 016). Light on purpose: importing this
 * loads nothing else of the engine.
 */
import { SHARE_ENV, Worker } from 'node:worker_threads';

/** workerData of a thread that takes its task as its first message. */
export interface TaskFollows {
  readonly taskFollows: true;
}

/**
 * Of V8's young generation; its own choice grows to 96 MiB once much lives when it is collected, and a packet
 * thread has no moment at which V8 would give memory back. No end comes of it: what is still alive moves to
 * the old generation (decision 115).
 */
const YOUNG_GENERATION_MIB = 6;

export interface BootedThread {
  readonly worker: Worker;
  /** Resolves when the thread has died of an error, or ended, at any time in its life. */
  readonly failed: Promise<Error>;
}

/** For what a thread has said on its port before it ended to be read. */
const LAST_WORDS_MS = 100;

/** Boot a packet thread; it ends after its task, with `worker.terminate()` or with the process. */
export function bootPacketThread(name: string): BootedThread {
  const file = new URL(
    import.meta.url.endsWith('.ts') ? './packet-thread.ts' : './packet-thread.js',
    import.meta.url,
  );
  const worker = new Worker(file, {
    workerData: { taskFollows: true } satisfies TaskFollows,
    name,
    env: SHARE_ENV, // a copy could not be overwritten
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MIB },
  });
  const failed = new Promise<Error>((resolve) => {
    worker.on('error', (error) => resolve(error as Error));
    worker.on('exit', (code) => {
      setTimeout(() => resolve(new Error(`${name} ended with code ${code}`)), LAST_WORDS_MS);
    });
  });
  return { worker, failed };
}
