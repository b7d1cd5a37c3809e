// bundle: boot
/** Threads, and ports between them, on Node: node:worker_threads, and piscina for a pool. */
import { fstatSync, openSync, readSync } from 'node:fs';
import { createRequire } from 'node:module';
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

/** workerData of our own threads; piscina's have other data. */
interface OwnData {
  readonly owner: typeof OURS;
  /** As in HeldProgram, for loadKoffi() in ffi.ts. */
  readonly addon?: string;
}
const OURS = 'bucatini';

/** Start a thread. */
export function startThread(program: URL, options: ThreadOptions = {}): Thread {
  const { name, youngGenerationMib } = options;
  const worker = new Worker(program, {
    workerData: { owner: OURS } satisfies OwnData,
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

/**
 * A program of a thread, ready to be started in the sandbox, where no path resolves. Can be sent to a thread:
 * descriptors belong to the process.
 */
export interface HeldProgram {
  readonly program: string;
  readonly youngGenerationMib: number;
  /** The program's file, open for reading. -1: startHeldProgram() opens the program by its URL. */
  readonly fd: number;
  /** Path of the native addon that the process has loaded. undefined: none. */
  readonly addon: string | undefined;
}

/**
 * Prepare a program for startHeldProgram(). To be called before the sandbox is entered, by a thread that has
 * loaded the native addon, if the program uses it. Takes 0.3 ms, and a descriptor until the process ends.
 * @param program             compiled: one file that imports only modules of Node. A program in TypeScript
 *                            can be started only where paths resolve
 * @param youngGenerationMib  as in ThreadOptions
 * @throws as openSync()
 */
export const holdProgram = (program: URL, youngGenerationMib: number): HeldProgram => ({
  ...{ program: program.href, youngGenerationMib },
  fd: program.pathname.endsWith('.ts') ? -1 : openSync(program, 'r'),
  addon: Object.keys(createRequire(import.meta.url).cache).find((path) => path.endsWith('.node')),
});

/**
 * Start a thread in the sandbox, from a thread that may never return to its event loop. The new thread has
 * the namespaces, the capabilities and the filter of the calling one. Nobody gets its events: its program has
 * to report over a port in `first`. The owner of the other end learns of the thread's end by onClose(), but
 * not with Bun if the program cannot be loaded. So the owner should wait for the first report with a limit.
 * A thread that has ended keeps its stack until the calling one ends.
 * @param name   of the thread
 * @param first  its first message
 * @param ports  ports in `first`. When this function throws, they still belong to the calling thread
 * @throws Error when no thread can be made
 */
export function startHeldProgram(
  held: HeldProgram,
  name: string,
  first: unknown,
  ports: readonly Port[],
): void {
  const { program, youngGenerationMib, fd, addon } = held;
  const worker = new Worker(fd < 0 ? new URL(program) : textOf(fd), {
    ...(fd >= 0 && { eval: true, execArgv: ['--input-type=module'] }),
    name,
    workerData: { owner: OURS, ...(addon !== undefined && { addon }) } satisfies OwnData,
    // Empty, above all without NODE_COMPILE_CACHE: where that directory cannot be made, Node 26 tries without
    // end.
    env: {},
    resourceLimits: { maxYoungGenerationSizeMb: youngGenerationMib },
  });
  worker.on('error', () => {}); // should the calling thread return to its event loop
  worker.postMessage(first, ports as never);
}

/** The text of an open file, from its beginning. */
function textOf(fd: number): string {
  const bytes = Buffer.alloc(fstatSync(fd).size);
  return bytes.toString('utf8', 0, readSync(fd, bytes, 0, bytes.length, 0));
}

/** In the program of a thread: `run` gets the first message. Does nothing elsewhere. */
export function onFirstMessage(run: (message: never) => unknown): void {
  if (!isMainThread && (workerData as OwnData | null)?.owner === OURS)
    parentPort!.once('message', run as Listener);
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

/** Call `listener` once the other end of the port is closed, as by the end of the thread that has it. */
export function onClose(port: Port, listener: () => void): void {
  (port as MessagePort).on('close', listener);
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
