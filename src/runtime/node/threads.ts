// bundle: boot
/** Threads, and ports between them, on Node: node:worker_threads, and piscina for a pool. */
import {
  isMainThread,
  MessageChannel,
  type MessagePort,
  parentPort,
  receiveMessageOnPort,
  SHARE_ENV,
  Worker,
  workerData,
} from 'node:worker_threads';

/** One end of a channel. The other end may be in another thread. */
export type Port = Pick<MessagePort, 'postMessage' | 'close'>;

/** A thread with a program of its own, as its creator sees it. */
export interface Thread {
  /** @param ports  ports in `message` that go to the thread */
  post(message: unknown, ports?: readonly Port[]): void;
  onMessage(listener: (message: never) => void): void;
  /** The thread ended because of an exception, or its program could not be loaded. */
  onError(listener: (error: Error) => void): void;
  onExit(listener: (code: number) => void): void;
  terminate(): Promise<unknown>;
}

export interface ThreadOptions {
  readonly name?: string;
  /**
   * Limit of V8's young generation in MiB. Without a limit it grows to 96 MiB when many objects survive a
   * collection, and V8 never returns that memory while a packet thread runs. Reaching the limit is no error:
   * objects that survive move to the old generation (decision 115).
   */
  readonly youngGenerationMib?: number;
}

/** As node:events declares it. */
type Listener = (message: unknown) => void;

/** Marks workerData of our own threads: piscina's have other data. */
const OURS = 'bucatini';

/** Start a thread. */
export function startThread(program: URL, options: ThreadOptions = {}): Thread {
  const { name, youngGenerationMib } = options;
  const worker = new Worker(program, {
    workerData: OURS,
    env: SHARE_ENV, // a copy of the environment could not be overwritten later
    ...(name !== undefined && { name }),
    ...(youngGenerationMib !== undefined && {
      resourceLimits: { maxYoungGenerationSizeMb: youngGenerationMib },
    }),
  });
  return {
    post: (message, ports) => worker.postMessage(message, ports as never),
    onMessage: (listener) => void worker.on('message', listener as Listener),
    onError: (listener) => void worker.on('error', (thrown) => listener(errorOf(thrown, program))),
    onExit: (listener) => void worker.on('exit', listener),
    terminate: () => worker.terminate(),
  };
}

/** A thread may throw anything, and V8's messages of syntax errors do not name the file. */
function errorOf(thrown: unknown, program: URL): Error {
  if (!(thrown instanceof Error)) return new Error(String(thrown));
  return thrown instanceof SyntaxError
    ? new SyntaxError(`${program.pathname}: ${thrown.message}`, { cause: thrown })
    : thrown;
}

/** In the program of a thread: `run` gets the first message. Does nothing elsewhere. */
export function onFirstMessage(run: (message: never) => unknown): void {
  if (!isMainThread && workerData === OURS) parentPort!.once('message', run as Listener);
}

/** In the program of a thread: send a message to its creator. */
export const postToCreator = (message: unknown): void => parentPort!.postMessage(message);

/** A channel. Each of its ports may be sent to a thread. */
export const channel = (): { readonly port1: Port; readonly port2: Port } => new MessageChannel();

/**
 * Call `listener` for each message that comes to the port. Only on Node does this keep the process running.
 */
export function listenOn(port: Port, listener: (message: never) => void): void {
  (port as MessagePort).on('message', listener as Listener);
}

/** The next message that has come to the port, without the event loop. undefined: there is none. */
export const receive = (port: Port): { readonly message: unknown } | undefined =>
  receiveMessageOnPort(port as MessagePort);

/** Threads that run one long task each: the default export of their program. */
export interface ThreadPool {
  /**
   * Resolves when the task ends; rejects when it fails, when its thread could not load the program, and when
   * the pool is destroyed.
   * @param ports  ports in `task` that go to the thread
   */
  run(task: unknown, ports: readonly Port[]): Promise<void>;
  /** Resolves when a thread fails before it has a task: its program cannot be loaded. */
  readonly failed: Promise<Error>;
  /** End all threads, whatever they run. */
  destroy(): Promise<void>;
}

/** Start a pool. Imports piscina here: an engine without a pool starts faster. */
export async function startPool(program: URL, threads: number): Promise<ThreadPool> {
  const { Piscina } = await import('piscina');
  const pool = new Piscina({
    filename: program.href,
    minThreads: threads,
    maxThreads: threads,
    concurrentTasksPerWorker: 1,
    idleTimeout: Number.POSITIVE_INFINITY,
    env: SHARE_ENV,
  });
  const failed = new Promise<Error>((resolve) => {
    pool.on('error', (thrown) => resolve(errorOf(thrown, program)));
  });
  return {
    run: async (task, ports) => {
      const refused = failed.then((error) => Promise.reject(error));
      await Promise.race([pool.run(task, { transferList: [...ports] as never }), refused]);
    },
    failed,
    destroy: () => pool.destroy(),
  };
}
