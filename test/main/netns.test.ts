// @vitest: beside
/** What the thread in the namespace reports when it fails, before and after its last step. */
import { once } from 'node:events';
import type { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { NetnsHere, type NetnsStep, NetnsThread, type SocketsInside } from '../../src/main/host/netns.ts';
import { makeSocketSource, stopSockets } from '../../src/workers/splice/socket-source.ts';
import type { FakeJob } from './fixtures/netns-thread.ts';

/** Not a whole number of words: who serves it throws. */
const unusable = (): SharedArrayBuffer => new SharedArrayBuffer(3);

async function bootThread(): Promise<{ netns: NetnsThread<FakeJob, string>; worker: Worker }> {
  const made = once(process, 'worker');
  const netns = new NetnsThread<FakeJob, string>('../../test/main/fixtures/netns-thread');
  const [worker] = (await made) as [Worker];
  return { netns, worker };
}

/** @returns null: it has not failed */
const failure = (netns: { readonly failed: Promise<Error> }): Promise<Error | null> =>
  Promise.race([netns.failed, new Promise<null>((resolve) => setImmediate(resolve, null))]);

describe('the namespace thread', () => {
  it('ended before its last step: that step rejects', async () => {
    const { netns } = await bootThread();
    netns.start({ exit: { code: 0, configured: false } });
    await expect(netns.configured).rejects.toThrow('the namespace thread ended with code 0');
    expect(await failure(netns)).toBeNull();
  });

  it('done, without sockets to open: ends, which is no failure', async () => {
    const { netns, worker } = await bootThread();
    netns.start({});
    await once(worker, 'exit');
    expect(await netns.configured).toEqual([]);
    expect(await failure(netns)).toBeNull();
  });

  it('opens sockets, is asked to stop: ends, which is no failure', async () => {
    const { netns, worker } = await bootThread();
    const sockets = makeSocketSource();
    netns.start({ sockets });
    await netns.configured;
    stopSockets(sockets);
    await once(worker, 'exit');
    expect(await failure(netns)).toBeNull();
  });

  it('opens sockets, throws: failed says so', async () => {
    const { netns } = await bootThread();
    netns.start({ sockets: unusable() });
    expect((await netns.failed).message).toMatch(
      /^the thread that opens sockets in the namespace failed: .*Int32Array/,
    );
    expect(await netns.configured).toEqual([]);
  });

  it('ended with an exit code after its last step: failed says so', async () => {
    const { netns } = await bootThread();
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
    /^the thread that opens sockets in the namespace failed: .*Int32Array/,
  );
});
