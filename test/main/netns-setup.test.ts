// @vitest: beside
/** The set-up of a namespace in which the TAP has several queues: one for each lane. */
import { expect, it } from 'vitest';
import type { LinkInfo } from '../../src/sys/netlink-messages.ts';
import type { TapPlan } from '../../src/workers/engine-plan.ts';
import { describeNeeding, tapNeeds } from '../support/require.ts';
import { runInNamespaces } from '../sys/in-namespaces.ts';

interface Report {
  readonly error?: string;
  readonly notes: readonly string[];
  /** Descriptors of TAPs that stay open. */
  readonly opened: number;
  readonly tap?: TapPlan;
  readonly cloexec: readonly number[];
  readonly link?: LinkInfo;
  /** Frames that each queue held when all were full; and when they had been read and filled again. */
  readonly frames: readonly (readonly number[])[];
}

const ADDRESS = ['--address', '192.0.2.15/24', '--gateway', '192.0.2.1', '--ipv4-only'];
const setUp = (queues: number, mode: 'new' | 'attach' | 'attach-auto', ...options: string[]): Report =>
  runInNamespaces<Report>(
    '../../main/fixtures/netns-queues.ts',
    String(queues),
    mode,
    ...ADDRESS,
    ...options,
  );

describeNeeding('the queues of the TAP', tapNeeds, () => {
  it('three: one interface, three descriptors that programs do not inherit, 4096 frames each, and again', () => {
    const { error, notes, opened, tap, cloexec, link, frames } = setUp(3, 'new');
    expect(error).toBeUndefined();
    expect(notes).toEqual([]);
    expect(opened).toBe(3);
    expect(new Set([tap!.fd, ...tap!.moreQueues!]).size).toBe(3);
    expect(tap).toMatchObject({ vnetHdrBytes: 12 });
    expect(cloexec).toEqual([1, 1, 1]);
    expect(link).toMatchObject({ name: 'tap0', up: true, tunQueues: 3, txQueueLen: 4096 });
    expect(frames).toEqual([
      [4096, 4096, 4096],
      [4096, 4096, 4096],
    ]);
  });

  it('one: no multi-queue interface', () => {
    const { opened, tap, link, frames } = setUp(1, 'new');
    expect(opened).toBe(1);
    expect(tap!.moreQueues).toBeUndefined();
    expect(link!.tunQueues).toBeUndefined();
    // The queueing discipline has not kept any.
    expect(frames).toEqual([[4096], [4096]]);
  });

  it('--no-configure: several queues too', () => {
    const { opened, link } = setUp(2, 'new', '--no-configure');
    expect(opened).toBe(2);
    expect(link).toMatchObject({ up: false, tunQueues: 2, txQueueLen: 4096 });
  });

  it('attach: an unused TAP with several queues is opened', () => {
    const { error, opened, link } = setUp(2, 'attach', '--interface-name', 'free0');
    expect(error).toBeUndefined();
    expect(opened).toBe(2);
    expect(link).toMatchObject({ name: 'free0', tunQueues: 2 });
  });

  it('attach, --threads auto: an interface that exists is opened with its one queue', () => {
    const { error, opened, tap } = setUp(2, 'attach-auto', '--interface-name', 'single0');
    expect(error).toBeUndefined();
    expect(opened).toBe(1);
    expect(tap!.moreQueues).toBeUndefined();
  });

  it('attach, --threads auto: a new interface has several', () => {
    const { error, opened, link } = setUp(2, 'attach-auto', '--interface-name', 'other0');
    expect(error).toBeUndefined();
    expect(opened).toBe(2);
    expect(link).toMatchObject({ name: 'other0', tunQueues: 2 });
  });

  it.each([
    ['single0', /^--threads lanes=1-2: the namespace has an interface "single0" with a single queue; /],
    ['shared0', /"shared0".*EBUSY.*write --interface-name NAME/],
  ])('attach, %s: one line, and no descriptor stays open', (name, message) => {
    const { error, opened } = setUp(2, 'attach', '--threads', 'lanes=1-2', '--interface-name', name);
    expect(error).toMatch(message);
    expect(error).not.toContain('\n');
    expect(opened).toBe(0);
  });
});
