// @vitest: beside
/** Threads, ports and pools behave alike on both runtimes. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import {
  channel,
  listenOn,
  type Port,
  receive,
  startPool,
  startThread,
  type Thread,
  type ThreadPool,
} from '#runtime/threads';
import { eventually } from '../support/process.ts';
import type { Order, Task } from './program.worker.ts';

const PROGRAM = new URL('./program.worker.ts', import.meta.url);
const dir = mkdtempSync(`${tmpdir()}/threads-`);
afterAll(() => rmSync(dir, { recursive: true }));

/** What a thread does, in order. */
type Event = readonly ['message', unknown] | readonly ['error', Error] | readonly ['exit', number];

class Watched {
  readonly thread: Thread;
  readonly events: Event[] = [];
  readonly ended: Promise<number>;

  constructor(program: URL, name?: string) {
    this.thread = startThread(program, name === undefined ? {} : { name });
    this.thread.onMessage((message) => this.events.push(['message', message]));
    this.thread.onError((error) => this.events.push(['error', error]));
    this.ended = new Promise((resolve) => {
      this.thread.onExit((code) => {
        this.events.push(['exit', code]);
        resolve(code);
      });
    });
    running.push(this.thread);
  }

  give(order: Order, ports?: readonly Port[]): this {
    this.thread.post(order, ports);
    return this;
  }

  async firstMessage(): Promise<unknown> {
    return eventually('a message', 5000, () => this.events.find(([kind]) => kind === 'message')?.[1]);
  }
}

const running: Thread[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((thread) => thread.terminate()));
});

const programOf = (name: string, source: string): URL => {
  writeFileSync(`${dir}/${name}.ts`, source);
  return pathToFileURL(`${dir}/${name}.ts`);
};

describe('a thread', () => {
  it('gets its first message; when nothing is left to do, it ends with code 0', async () => {
    const value = { text: 'é', list: [1, undefined, null], bytes: new Uint8Array([1, 2]), big: 5n };
    const watched = new Watched(PROGRAM).give({ do: 'echo', value });
    expect(await watched.ended).toBe(0);
    expect(watched.events).toEqual([
      ['message', value],
      ['exit', 0],
    ]);
  });

  it('has its name in /proc', async () => {
    const watched = new Watched(PROGRAM, 'thread of test').give({ do: 'name' });
    expect(await watched.firstMessage()).toBe('thread of test');
  });

  it('sees memory that its creator shares', async () => {
    const shared = new Int32Array(new SharedArrayBuffer(4));
    const watched = new Watched(PROGRAM).give({ do: 'echo', value: shared });
    const copy = (await watched.firstMessage()) as Int32Array;
    copy[0] = 5;
    expect(shared[0]).toBe(5);
  });

  it('exits with the code of process.exit(), which does not end the process', async () => {
    const watched = new Watched(PROGRAM).give({ do: 'exit', code: 3 });
    expect(await watched.ended).toBe(3);
    expect(watched.events).toEqual([['exit', 3]]);
  });

  it('30 threads one after another: none stays, and no descriptor', async () => {
    const open = (): number => readdirSync('/proc/self/fd').length;
    const threads = (): number => readdirSync('/proc/self/task').length;
    await new Watched(PROGRAM).give({ do: 'exit', code: 0 }).ended;
    const before = { open: open(), threads: threads() };
    for (let i = 0; i < 30; i++)
      expect(await new Watched(PROGRAM).give({ do: 'echo', value: i }).ended).toBe(0);
    await eventually('as before', 5000, () => open() <= before.open + 4 && threads() <= before.threads + 4);
  }, 60_000);
});

describe('an error of a thread: one, then exit code 1', () => {
  const failure = async (program: URL, order: Order): Promise<Error> => {
    const watched = new Watched(program).give(order);
    expect(await watched.ended).toBe(1);
    expect(watched.events.map(([kind]) => kind)).toEqual(['error', 'exit']);
    const [, error] = watched.events[0]!;
    expect(error).toBeInstanceOf(Error);
    return error as Error;
  };
  const echo: Order = { do: 'echo', value: 1 };

  it.each([
    ['throw', 'thrown at once\nits second line'],
    ['reject', 'thrown in a promise'],
  ] as const)('%s in the first message: message, name, code and stack', async (what, message) => {
    const error = await failure(PROGRAM, { do: what });
    expect(error).toMatchObject({ message, name: 'OddError', code: 'EODD' });
    expect(error.stack).toMatch('program.worker.ts');
  });

  it('a text is thrown: it is the message', async () => {
    expect((await failure(PROGRAM, { do: 'throwText' })).message).toBe('a text');
  });

  it('thrown by a timer: its message', async () => {
    expect((await failure(PROGRAM, { do: 'throwLater' })).message).toBe('thrown later: by a timer');
  });

  it('thrown while the program is loaded: its message', async () => {
    const program = programOf('top', "\n\nconst why = 'at the top';\nthrow new RangeError(why);\n");
    expect((await failure(program, echo)).message).toBe('at the top');
  });

  it('a syntax error: one line with the file', async () => {
    const program = programOf('syntax', 'const x = ;\n');
    expect((await failure(program, echo)).message).toMatch(/^\/.*\/syntax\.ts: \w[^\n]*$/);
  });

  it.each([
    ['the program is missing', () => new URL('./no-such-program.ts', PROGRAM), 'no-such-program.ts'],
    [
      'a module of it is missing',
      () => programOf('imports', "import './no-such-module.ts';"),
      'no-such-module.ts',
    ],
  ])('%s: one line that names the file', async (_, program, file) => {
    const { message } = await failure(program(), echo);
    expect(message).toMatch(/^Cannot find module [^\n]*$/);
    expect(message).toContain(file);
  });
});

describe('terminate()', () => {
  it.each(['loop', 'sleep'] as const)(
    'a thread in %s: ends; a second call and later messages do nothing',
    async (what) => {
      const watched = new Watched(PROGRAM).give({ do: what });
      await watched.firstMessage();
      await watched.thread.terminate();
      await watched.ended;
      await watched.thread.terminate();
      watched.thread.post({ do: 'echo', value: 1 });
      expect(watched.events.filter(([kind]) => kind === 'error')).toEqual([]);
    },
  );

  it('right after the start, and after its own end: resolves', async () => {
    await startThread(PROGRAM).terminate();
    const watched = new Watched(PROGRAM).give({ do: 'exit', code: 0 });
    await watched.ended;
    await watched.thread.terminate();
  });
});

describe('ports', () => {
  it('messages in both directions, in order, also before anybody listens; each listener gets all', async () => {
    const { port1, port2 } = channel();
    const got: string[] = [];
    port1.postMessage('early');
    listenOn(port2, (message) => got.push(`a ${message}`));
    listenOn(port2, (message) => got.push(`b ${message}`));
    port1.postMessage('late');
    await eventually('4 messages', 2000, () => got.length === 4);
    expect(got).toEqual(['a early', 'b early', 'a late', 'b late']);
    port1.close();
    port1.postMessage('after the close');
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(got).toHaveLength(4);
  });

  it('receive(): the next message without the event loop, undefined when there is none', () => {
    const { port1, port2 } = channel();
    expect(receive(port2)).toBeUndefined();
    port1.postMessage({ a: 1 });
    port1.postMessage(undefined);
    expect([receive(port2), receive(port2), receive(port2)]).toEqual([
      { message: { a: 1 } },
      { message: undefined },
      undefined,
    ]);
    port1.close();
    port2.close();
  });

  it('a thread that never returns to its event loop: reads by receive() and answers', async () => {
    const { port1, port2 } = channel();
    const answers: unknown[] = [];
    listenOn(port1, (message) => answers.push(message));
    const count = new Int32Array(new SharedArrayBuffer(4));
    const watched = new Watched(PROGRAM).give({ do: 'serve', port: port2, count: count.buffer }, [port2]);
    await eventually('1 messages', 5000, () => answers.length === 1);
    for (let value = 1; value <= 1000; value++) {
      port1.postMessage(value);
      Atomics.add(count, 0, 1);
      Atomics.notify(count, 0);
    }
    await eventually('all answers', 10_000, () => answers.length === 1001);
    expect(answers).toEqual(['ready', ...Array.from({ length: 1000 }, (_, i) => 2 * (i + 1))]);
    port1.postMessage(0);
    Atomics.add(count, 0, 1);
    Atomics.notify(count, 0);
    expect(await watched.ended).toBe(0);
    port1.close();
  });
});

describe('a pool', () => {
  const give = (pool: ThreadPool, task: Task['task'], loads = true) => {
    const { port1, port2 } = channel();
    const said: unknown[] = [];
    listenOn(port1, (message) => said.push(message));
    const ended = pool
      .run({ task, port: port2 } satisfies Task, [port2])
      .then(
        () => 'ended',
        (error: Error) => error.message,
      )
      .finally(() => eventually('its message', 5000, () => said.length > 0 || !loads))
      .finally(() => port1.close());
    return { said, ended };
  };

  it('runs a task on each thread; each ends by itself', async () => {
    const pool = await startPool(PROGRAM, 3);
    const tasks = [give(pool, 1), give(pool, 1), give(pool, 1)];
    expect(await Promise.all(tasks.map(({ ended }) => ended))).toEqual(['ended', 'ended', 'ended']);
    expect(tasks.map(({ said }) => said)).toEqual([['task 1'], ['task 1'], ['task 1']]);
    await pool.destroy();
  });

  it('a task that fails, one that exits: both reject, the others go on', async () => {
    const pool = await startPool(PROGRAM, 3);
    const [fails, exits, stays] = [give(pool, 2), give(pool, 3), give(pool, 4)];
    expect(await fails.ended).toBe('the task failed');
    expect(await exits.ended).toMatch(/7/);
    await eventually('1 messages', 5000, () => stays.said.length === 1);
    await pool.destroy();
    expect(await stays.ended).not.toBe('ended');
  });

  it('the program cannot be loaded: the task rejects with the reason', async () => {
    const pool = await startPool(new URL('./no-such-program.ts', PROGRAM), 1);
    expect(await give(pool, 1, false).ended).toMatch(/^Cannot find module .*no-such-program\.ts/);
    await pool.destroy();
  });

  it('destroyed without any task: resolves', async () => {
    const pool = await startPool(PROGRAM, 2);
    await pool.destroy();
  });
});
