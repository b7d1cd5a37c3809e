// @vitest: beside
/**
 * Threads that a thread starts which never returns to its event loop. What is different in the sandbox is
 * tested in test/main/thread-in-sandbox.test.ts, and with Bun's executable in end-to-end tests.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import {
  channel,
  type HeldProgram,
  holdProgram,
  listenOn,
  onClose,
  startThread,
  type Thread,
} from '#runtime/threads';
import { eventually } from '../support/process.ts';
import { ON_BUN } from '../support/runtime.ts';
import type { StartOrder } from './starter.worker.ts';

const dir = mkdtempSync(`${tmpdir()}/held-`);
afterAll(() => rmSync(dir, { recursive: true }));

const started: Thread[] = [];
afterEach(async () => {
  await Promise.all(started.splice(0).map((thread) => thread.terminate()));
});

/** Written without imports of other files, as the build makes programs of threads. */
const PROGRAM = `
const { readFileSync } = process.getBuiltinModule('node:fs');
const run = ({ port, what }) => {
  port.postMessage(['started', readFileSync('/proc/thread-self/comm', 'utf8').trim(), Object.keys(process.env)]);
  if (what === 'exit') process.exit(0);
  if (what === 'throw') throw new Error('thrown');
  for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
};
if (process.versions.bun) self.onmessage = (event) => run(event.data);
else process.getBuiltinModule('node:worker_threads').parentPort.once('message', run);
`;

function held(name: string, source = PROGRAM): HeldProgram {
  const file = `${dir}/${name}.js`;
  writeFileSync(file, source);
  const program = holdProgram(pathToFileURL(file), 6);
  if (!ON_BUN) rmSync(file); // on Node the program is not looked for again
  return program;
}

/** A thread that does not return to its event loop, which starts other threads. */
class Starter {
  readonly #thread = startThread(new URL('./starter.worker.ts', import.meta.url));
  readonly #orders = channel();
  readonly #count = new Int32Array(new SharedArrayBuffer(4));

  constructor() {
    started.push(this.#thread);
    const { port2 } = this.#orders;
    this.#thread.post({ port: port2, count: this.#count.buffer }, [port2]);
  }

  /** @returns what the new thread says, and whether it has ended */
  start(program: HeldProgram, name: string, what: string): { messages: unknown[]; closed: boolean } {
    const { port1, port2 } = channel();
    const seen = { messages: [] as unknown[], closed: false };
    listenOn(port1, (message) => seen.messages.push(message));
    onClose(port1, () => {
      seen.closed = true;
    });
    const order: StartOrder = { program, name, first: { port: port2, what }, port: port2 };
    this.#orders.port1.postMessage(order, [port2] as never);
    Atomics.add(this.#count, 0, 1);
    Atomics.notify(this.#count, 0);
    return seen;
  }
}

describe('a thread started by a thread that never returns to its event loop', () => {
  it('runs, has its name, and nothing of the environment on Node', async () => {
    const seen = new Starter().start(held('runs'), 'a late thread', 'wait');
    const message = (await eventually('a message', 10_000, () => seen.messages[0])) as unknown[];
    expect(message.slice(0, 2)).toEqual(['started', 'a late thread']);
    if (!ON_BUN) expect(message[2]).toEqual([]);
    expect(seen.closed).toBe(false);
  });

  it('one after another from the same program', async () => {
    const starter = new Starter();
    const program = held('several');
    const all = ['a', 'b', 'c'].map((name) => starter.start(program, name, 'wait'));
    await eventually('3 messages', 10_000, () => all.every(({ messages }) => messages.length === 1));
    expect(all.map(({ messages }) => (messages[0] as string[])[1])).toEqual(['a', 'b', 'c']);
  });

  it.each(['exit', 'throw'])('%s: the other end of its port is closed', async (what) => {
    const seen = new Starter().start(held(what), 'ends', what);
    await eventually('the end', 10_000, () => seen.closed);
    expect(seen.messages).toHaveLength(1);
  });

  // Bun keeps the port in the message that the thread never gets.
  it.skipIf(ON_BUN)('a program that cannot be loaded: the other end of its port is closed', async () => {
    const seen = new Starter().start(held('broken', 'throw new Error("at the top");'), 'broken', '');
    await eventually('the end', 10_000, () => seen.closed);
    expect(seen.messages).toEqual([]);
  });
});

it('onClose(): the other end of a port is closed in the same thread', async () => {
  const { port1, port2 } = channel();
  let closed = false;
  onClose(port1, () => {
    closed = true;
  });
  listenOn(port1, () => {});
  port2.close();
  await eventually('the close', 5000, () => closed);
});
