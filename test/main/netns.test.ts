// @vitest: beside
/** What the thread in the namespace reports when it fails, before and after its last step. */
import { describe, expect, it, vi } from 'vitest';
import type * as Threads from '#runtime/threads';
import { NetnsHere, type NetnsStep, NetnsThread, type SocketsInside } from '../../src/main/host/netns.ts';
import { makeSocketSource, stopSockets } from '../../src/workers/splice/socket-source.ts';
import type { FakeJob } from './fixtures/netns-thread.ts';

/** Not a whole number of words: who serves it throws. */
const unusable = (): SharedArrayBuffer => new SharedArrayBuffer(3);

const started: Threads.Thread[] = [];
vi.mock('#runtime/threads', async (importOriginal) => {
  const threads = await importOriginal<typeof Threads>();
  const startThread: typeof threads.startThread = (...args) => {
    const thread = threads.startThread(...args);
    started.push(thread);
    return thread;
  };
  return { ...threads, startThread };
});

/** `ended` resolves to the thread's exit code. */
function bootThread(): { netns: NetnsThread<FakeJob, string>; ended: Promise<number> } {
  const netns = new NetnsThread<FakeJob, string>('../../test/main/fixtures/netns-thread');
  const thread = started.pop()!;
  return { netns, ended: new Promise((resolve) => thread.onExit(resolve)) };
}

/** @returns null: it has not failed */
const failure = (netns: { readonly failed: Promise<Error> }): Promise<Error | null> =>
  Promise.race([netns.failed, new Promise<null>((resolve) => setImmediate(resolve, null))]);

describe('the namespace thread', () => {
  it('ended before its last step: that step rejects', async () => {
    const { netns } = bootThread();
    netns.start({ exit: { code: 0, configured: false } });
    await expect(netns.configured).rejects.toThrow('the namespace thread ended with code 0');
    expect(await failure(netns)).toBeNull();
  });

  it('done, without sockets to open: ends, which is no failure', async () => {
    const { netns, ended } = bootThread();
    netns.start({});
    expect(await ended).toBe(0);
    expect(await netns.configured).toEqual([]);
    expect(await failure(netns)).toBeNull();
  });

  it('opens sockets, is asked to stop: ends, which is no failure', async () => {
    const { netns, ended } = bootThread();
    const sockets = makeSocketSource();
    netns.start({ sockets });
    await netns.configured;
    stopSockets(sockets);
    expect(await ended).toBe(0);
    expect(await failure(netns)).toBeNull();
  });

  it('opens sockets, throws: failed says so', async () => {
    const { netns } = bootThread();
    netns.start({ sockets: unusable() });
    expect((await netns.failed).message).toMatch(
      /^the thread that opens sockets in the namespace failed: .*(Int32Array|ArrayBuffer)/,
    );
    expect(await netns.configured).toEqual([]);
  });

  it('ended with an exit code after its last step: failed says so', async () => {
    const { netns } = bootThread();
    netns.start({ exit: { code: 3, configured: true } });
    expect((await netns.failed).message).toBe(
      'the thread that opens sockets in the namespace failed: the namespace thread ended with code 3',
    );
  });
});

it('the main thread opens sockets in the namespace, throws: failed says so', async () => {
  const netns = new NetnsHere<SocketsInside, string>(
    async () =>
      function* (): Generator<NetnsStep<string>> {
        yield { kind: 'configured', notes: [] };
      },
  );
  netns.start({ sockets: unusable() });
  expect((await netns.failed).message).toMatch(
    /^the thread that opens sockets in the namespace failed: .*(Int32Array|ArrayBuffer)/,
  );
});
