// bundle: boot
/**
 * Boots a packet thread before its task is known. A new thread needs milliseconds to boot, tens of them on
 * Node, independent of the engine's plan. So the front end boots a thread as soon as it knows that it will
 * need one, and the engine sends the task later (decision 016). This file imports no other module of the
 * engine, to be loaded fast.
 */
import { programUrl } from '#runtime/program';
import { type HeldProgram, holdProgram, startThread, type Thread } from '#runtime/threads';

/** Limit of V8's young generation (runtime/node/threads.ts). */
const YOUNG_GENERATION_MIB = 6;

export interface BootedThread {
  readonly worker: Thread;
  /** Resolves when the thread ends, with its error or with one that gives the exit code. */
  readonly failed: Promise<Error>;
}

/** After a thread has ended its reports on its port are still read for so long, before `failed` resolves. */
const REPORT_GRACE_MS = 100;

/** URL of the packet thread's program. */
export const packetProgram = (): URL => programUrl('packet-thread', 'workers/packet-thread');

/** Boot a packet thread. It ends after its task, by `worker.terminate()` or with the process. */
export function bootPacketThread(name: string): BootedThread {
  const worker = startThread(packetProgram(), { name, youngGenerationMib: YOUNG_GENERATION_MIB });
  const failed = new Promise<Error>((resolve) => {
    worker.onError(resolve);
    worker.onExit((code) => {
      setTimeout(() => resolve(new Error(`${name} ended with code ${code}`)), REPORT_GRACE_MS);
    });
  });
  return { worker, failed };
}

/**
 * The packet thread's program, for threads that are started in the sandbox (the message `startThread` of
 * packet-thread.ts). To be called before the sandbox is entered, when the engine has been loaded.
 */
export const holdPacketProgram = (): HeldProgram => holdProgram(packetProgram(), YOUNG_GENERATION_MIB);
