// bundle: boot
/**
 * Threads, and ports between them, on Bun: the web's Worker and MessageChannel, which are built in.
 * node:worker_threads is JavaScript on top of them that takes each thread 3 ms to load. A pool is made of
 * plain threads: piscina needs node:worker_threads.
 */
import type { HeldProgram, Port, Thread, ThreadOptions, ThreadPool } from '../node/threads.ts';

export type { HeldProgram, Port, Thread, ThreadOptions, ThreadPool };

/** What these modules use of the web's interfaces, which the types for Node lack. */
interface Web {
  readonly Worker: new (program: string, options: { readonly name?: string }) => WebWorker;
  readonly Bun: { readonly isMainThread: boolean };
  onmessage: ((event: { readonly data: never }) => void) | null;
  postMessage(message: unknown, ports?: readonly Port[]): void;
}
interface WebWorker {
  postMessage(message: unknown, ports?: readonly Port[]): void;
  // biome-ignore lint/suspicious/noExplicitAny: of several types
  addEventListener(type: 'message' | 'error' | 'close', listener: (event: any) => void): void;
  terminate(): void;
}
interface WebPort {
  addEventListener(type: 'message' | 'close', listener: (event: { readonly data: never }) => void): void;
  start(): void;
}
const web = globalThis as unknown as Web;

/** What a thread posts when its `run` fails: Bun's own event has no more than a text for a terminal. */
interface Failure {
  readonly threadFailed: {
    readonly message: string;
    readonly name: string;
    readonly stack: string | undefined;
    readonly code: string | undefined;
  };
}

const isFailure = (message: unknown): message is Failure =>
  typeof message === 'object' && message !== null && 'threadFailed' in message;

/** Start a thread. `youngGenerationMib` is for V8: JavaScriptCore has no such limit. */
export function startThread(program: URL, { name }: ThreadOptions = {}): Thread {
  const worker = new web.Worker(program.href, name === undefined ? {} : { name });
  const ended = Promise.withResolvers<void>();
  worker.addEventListener('close', () => ended.resolve());
  const onMessage = (listener: (message: unknown) => void): void =>
    worker.addEventListener('message', (event: { readonly data: unknown }) => listener(event.data));
  return {
    post: (message, ports = []) => worker.postMessage(message, ports),
    onMessage: (listener) =>
      onMessage((message) => {
        if (!isFailure(message)) listener(message as never);
      }),
    onError: (listener) => {
      onMessage((message) => {
        if (isFailure(message)) listener(errorOfRun(message));
      });
      worker.addEventListener('error', (event: { readonly message: string }) =>
        listener(errorOfText(event.message, program)),
      );
    },
    onExit: (listener) =>
      worker.addEventListener('close', (event: { code?: number }) => listener(event.code ?? 0)),
    terminate: () => {
      worker.terminate();
      return ended.promise;
    },
  };
}

/** The error that a thread posted, with its own name and stack. */
function errorOfRun({ threadFailed: { message, name, stack, code } }: Failure): Error {
  const error = Object.assign(new Error(message), code !== undefined && { code });
  for (const [key, value] of [
    ['name', name],
    ['stack', stack],
  ] as const)
    Object.defineProperty(error, key, { value, configurable: true, writable: true });
  return error;
}

/**
 * The error in a text that Bun would print: lines of the source, a line with a caret, the error, its stack.
 * Without a place in the source, the text is the error.
 */
function errorOfText(text: string, program: URL): Error {
  const excerpt = /^ *\d+ \|[\s\S]*?\n *\^\n(.*)/.exec(text);
  const line = (excerpt?.[1] ?? text.replace(/\s*\n\s*/g, ' ')).trim();
  const missing = /^BuildMessage: ModuleNotFound resolving "(.*)"/.exec(line)?.[1];
  if (missing !== undefined) return new Error(`Cannot find module '${missing}'`);
  const message = line.replace(/^(error|Error|[A-Z]\w*Error): */, '') || line;
  return new Error(line.startsWith('SyntaxError:') ? `${program.pathname}: ${message}` : message);
}

/**
 * Prepare a program for startHeldProgram(). Nothing needs to be opened: programs are in the executable.
 * Without an executable, the program can be started only where paths resolve.
 */
export const holdProgram = (program: URL, youngGenerationMib: number): HeldProgram => ({
  ...{ program: program.href, youngGenerationMib, fd: -1, addon: undefined },
});

/** Threads of startHeldProgram(). The garbage collector must not end them. */
const heldThreads: WebWorker[] = [];

/**
 * Start a thread in the sandbox, from a thread that may never return to its event loop. The new thread has
 * the namespaces, the capabilities and the filter of the calling one. Nobody gets its events: its program has
 * to report over a port in `first`. The owner of the other end learns of the thread's end by onClose(), but
 * not with Bun if the program cannot be loaded. So the owner should wait for the first report with a limit.
 */
export function startHeldProgram(
  held: HeldProgram,
  name: string,
  first: unknown,
  ports: readonly Port[],
): void {
  const worker = new web.Worker(held.program, { name });
  heldThreads.push(worker);
  worker.postMessage(first, ports);
}

/** In the program of a thread: `run` gets the first message. Does nothing elsewhere. */
export function onFirstMessage(run: (message: never) => unknown): void {
  if (web.Bun.isMainThread) return;
  web.onmessage = (event) => {
    web.onmessage = null;
    void runAndReport(run, event.data);
  };
}

/** Run a thread's program. If it throws, post the error and end the thread. */
async function runAndReport(run: (message: never) => unknown, first: never): Promise<void> {
  try {
    await run(first);
  } catch (thrown) {
    const { message, name, stack, code } = (
      thrown instanceof Error ? thrown : new Error(String(thrown))
    ) as NodeJS.ErrnoException;
    web.postMessage({ threadFailed: { message, name, stack, code } } satisfies Failure);
    process.exit(1); // ends this thread
  }
}

/** In the program of a thread: send a message to its creator. */
export const postToCreator = (message: unknown): void => web.postMessage(message);

/** A channel. Each of its ports may be sent to a thread. */
export const channel = (): { readonly port1: Port; readonly port2: Port } => new MessageChannel() as never;

/** Call `listener` for each message that comes to the port. */
export function listenOn(port: Port, listener: (message: never) => void): void {
  const { addEventListener, start } = port as unknown as WebPort;
  addEventListener.call(port, 'message', (event) => listener(event.data));
  start.call(port);
}

/** Call `listener` once the other end of the port is closed, as by the end of the thread that has it. */
export function onClose(port: Port, listener: () => void): void {
  (port as unknown as WebPort).addEventListener('close', listener);
}

let receiveMessageOnPort: ((port: Port) => { readonly message: unknown } | undefined) | undefined;

/** The next message that has come to the port, without the event loop. undefined: there is none. */
export function receive(port: Port): { readonly message: unknown } | undefined {
  // Loaded for the first message, which most engines never get. It is in Bun's executable, so this works in
  // the sandbox.
  receiveMessageOnPort ??= process.getBuiltinModule('node:worker_threads').receiveMessageOnPort as never;
  return receiveMessageOnPort!(port);
}

/**
 * Start a pool of plain threads. The program gets its task as its first message; a thread ends with its task.
 */
export async function startPool(program: URL, threads: number): Promise<ThreadPool> {
  const all = Array.from({ length: threads }, (_, i) => new PoolThread(program, `pool thread ${i}`));
  const idle = [...all];
  return {
    failed: Promise.race(all.map((thread) => thread.failed)),
    run: async (task, ports) => {
      const thread = idle.pop();
      if (thread === undefined) throw new Error(`no idle thread of ${threads}`);
      await thread.run(task, ports);
    },
    destroy: async () => {
      await Promise.all(all.map((thread) => thread.terminate()));
    },
  };
}

/** A thread of a pool, from its boot to the end of its one task. */
class PoolThread {
  readonly #thread: Thread;
  /** Resolves when the thread fails, before its task or in it. */
  readonly failed: Promise<Error>;
  /** Resolves when the thread ends after its task; rejects when it fails or is terminated. */
  readonly #ended = Promise.withResolvers<void>();

  constructor(program: URL, name: string) {
    this.#thread = startThread(program, { name });
    this.#ended.promise.catch(() => {}); // the thread may fail before it has a task
    this.failed = new Promise((resolve) => this.#thread.onError(resolve));
    void this.failed.then(this.#ended.reject);
    this.#thread.onExit((code) => {
      if (code === 0) this.#ended.resolve();
      else this.#ended.reject(new Error(`${name} ended with code ${code}`));
    });
  }

  run(task: unknown, ports: readonly Port[]): Promise<void> {
    this.#thread.post(task, ports);
    return this.#ended.promise;
  }

  async terminate(): Promise<void> {
    this.#ended.reject(new Error('the pool has been destroyed'));
    await this.#thread.terminate();
  }
}
