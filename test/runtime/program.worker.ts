/** The thread of threads.test.ts: does what its first message says. */
import { onFirstMessage, type Port, postToCreator, receive } from '#runtime/threads';

export type Order =
  | { readonly do: 'echo'; readonly value: unknown }
  | { readonly do: 'throw' | 'reject' | 'throwText' | 'throwLater' }
  | { readonly do: 'exit'; readonly code: number }
  | { readonly do: 'environment' | 'loop' | 'sleep' | 'name' }
  /** Answer each number on the port with its double until 0 comes, without returning to the event loop. */
  | { readonly do: 'serve'; readonly port: Port; readonly count: SharedArrayBuffer };

/** Thread of a pool: 1 returns, 2 throws, 3 exits with code 7, 4 never ends. */
export interface Task {
  readonly task: 1 | 2 | 3 | 4;
  readonly port: Port;
}

class OddError extends Error {
  override readonly name = 'OddError';
  readonly code = 'EODD';
}

function run(order: Order | Task): unknown {
  if ('task' in order) return runTask(order);
  switch (order.do) {
    case 'echo':
      postToCreator(order.value);
      return undefined;
    case 'throw':
      throw new OddError('thrown at once\nits second line');
    case 'reject':
      return Promise.resolve().then(() => {
        throw new OddError('thrown in a promise');
      });
    case 'throwText':
      throw 'a text';
    case 'throwLater':
      setTimeout(() => {
        throw new TypeError('thrown later: by a timer');
      }, 10);
      return undefined;
    case 'exit':
      return process.exit(order.code);
    case 'environment':
      postToCreator(process.env.BUCATINI_TEST_OF_THREADS);
      return undefined;
    case 'loop':
      postToCreator('ready');
      for (;;);
    case 'sleep':
      postToCreator('ready');
      return new Promise((resolve) => setTimeout(resolve, 1_000_000));
    case 'name':
      postToCreator(comm());
      return undefined;
    case 'serve':
      return serve(order.port, new Int32Array(order.count));
  }
}

const comm = (): string =>
  process.getBuiltinModule('node:fs').readFileSync('/proc/thread-self/comm', 'utf8').trim();

function serve(port: Port, count: Int32Array): void {
  port.postMessage('ready');
  for (let seen = 0; ; ) {
    Atomics.wait(count, 0, seen);
    for (let got = receive(port); got !== undefined; got = receive(port)) {
      seen++;
      const value = got.message as number;
      if (value === 0) return;
      port.postMessage(value * 2);
    }
  }
}

export default function runTask({ task, port }: Task): void {
  port.postMessage(`task ${task}`);
  if (task === 2) throw new OddError('the task failed');
  if (task === 3) process.exit(7);
  if (task === 4) for (;;);
}

onFirstMessage(run);
