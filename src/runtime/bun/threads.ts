// bundle: boot
/**
 * Threads, and ports between them, on Bun: the web's Worker and MessageChannel, which are built in.
 * node:worker_threads is JavaScript on top of them that takes each thread 3 ms to load. A pool is made of
 * plain threads: piscina needs node:worker_threads.
 */
import type { Port, Thread, ThreadOptions, ThreadPool } from '../node/threads.ts';

export type { Port, Thread, ThreadOptions, ThreadPool };

/** What these modules use of the web's interfaces, which the types for Node lack. */
interface Web {
  readonly Worker: new (
    program: string,
    options: { readonly name?: string; readonly type?: 'module' },
  ) => WebWorker;
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
const web = globalThis as unknown as Web;

/** Start a thread. JavaScriptCore has no young generation of its own size: that option is for V8. */
export function startThread(program: URL, { name }: ThreadOptions = {}): Thread {
  const worker = new web.Worker(program.href, name === undefined ? {} : { name });
  const ended = Promise.withResolvers<void>();
  worker.addEventListener('close', () => ended.resolve());
  return {
    post: (message, ports = []) => worker.postMessage(message, ports),
    onMessage: (listener) =>
      worker.addEventListener('message', (event: { data: never }) => listener(event.data)),
    onError: (listener) =>
      worker.addEventListener('error', (event: { error?: Error; message: string }) =>
        listener(event.error ?? new Error(event.message)),
      ),
    onExit: (listener) =>
      worker.addEventListener('close', (event: { code?: number }) => listener(event.code ?? 0)),
    terminate: () => {
      worker.terminate();
      return ended.promise;
    },
  };
}

/** In the program of a thread: `run` gets the first message. Does nothing elsewhere. */
export function onFirstMessage(run: (message: never) => unknown): void {
  if (web.Bun.isMainThread) return;
  web.onmessage = (event) => {
    web.onmessage = null;
    run(event.data);
  };
}

/** In the program of a thread: send a message to its creator. */
export const postToCreator = (message: unknown): void => web.postMessage(message);

/** A channel. Each of its ports may be sent to a thread. */
export const channel = (): { readonly port1: Port; readonly port2: Port } => new MessageChannel() as never;

/** Call `listener` for each message that comes to the port. */
export function listenOn(port: Port, listener: (message: never) => void): void {
  (port as unknown as Pick<Web, 'onmessage'>).onmessage = (event) => listener(event.data);
}

let receiveMessageOnPort: ((port: Port) => { readonly message: unknown } | undefined) | undefined;

/** The next message that has come to the port, without the event loop. undefined: there is none. */
export function receive(port: Port): { readonly message: unknown } | undefined {
  // Loaded for the first message, which most engines never get. It is in Bun's executable, so this works in
  // the sandbox.
  receiveMessageOnPort ??= process.getBuiltinModule('node:worker_threads').receiveMessageOnPort as never;
  return receiveMessageOnPort!(port);
}

/** Start a pool of plain threads. The program gets its task as its first message. */
export async function startPool(program: URL, threads: number): Promise<ThreadPool> {
  const idle = Array.from({ length: threads }, (_, i) => startThread(program, { name: `pool thread ${i}` }));
  const all = [...idle];
  const failed = new Promise<Error>((resolve) => {
    for (const thread of all) thread.onError(resolve);
  });
  return {
    failed,
    run: (task, ports) => {
      const thread = idle.pop();
      if (thread === undefined) throw new Error(`no idle thread of ${threads}`);
      return new Promise<void>((resolve, reject) => {
        thread.onError(reject);
        thread.onExit(() => resolve());
        thread.post(task, ports);
      });
    },
    destroy: async () => {
      await Promise.all(all.map((thread) => thread.terminate()));
    },
  };
}
