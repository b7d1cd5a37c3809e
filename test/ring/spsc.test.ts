// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Counter, countersView } from '../../src/ring/counters.ts';
import { DESC_WORDS, planLayout } from '../../src/ring/layout.ts';
import { RingConsumer, RingProducer, startRingAt } from '../../src/ring/spsc.ts';
import { EFD_CLOEXEC, EFD_NONBLOCK } from '../../src/sys/constants.ts';
import { close, eventfd } from '../../src/sys/io.ts';
import { runPair } from './ring-pair.ts';

const request = { smallSlots: 0, largeSlots: 0, rings: 2, counterBlocks: 2, logBytes: 256 };

function makeRing(ringDescriptors: number, startIndex = 0) {
  const layout = planLayout({ ...request, ringDescriptors });
  const sab = new SharedArrayBuffer(layout.totalBytes);
  startRingAt(sab, layout, 1, startIndex);
  return { producer: new RingProducer(sab, layout, 1, null), consumer: new RingConsumer(sab, layout, 1) };
}

function send(producer: RingProducer, value: number): void {
  const at = producer.reserve();
  for (let i = 0; i < DESC_WORDS; i++) producer.words[at + i] = value * DESC_WORDS + i;
  producer.commit();
}

function receive(consumer: RingConsumer, limit: number): number[] {
  const n = Math.min(limit, consumer.available());
  const values: number[] = [];
  for (let i = 0; i < n; i++) {
    const at = consumer.at(i);
    for (let word = 1; word < DESC_WORDS; word++) {
      expect(consumer.words[at + word]).toBe(consumer.words[at]! + word);
    }
    values.push(consumer.words[at]! / DESC_WORDS);
  }
  consumer.release(n);
  return values;
}

const stepArb = fc.oneof(
  fc.record({ kind: fc.constant('send' as const), n: fc.nat(12) }),
  fc.record({ kind: fc.constant('flush' as const), n: fc.constant(0) }),
  fc.record({ kind: fc.constant('receive' as const), n: fc.nat(12) }),
);

describe('ring on one thread', () => {
  it('counters: batches and descriptors when published, overflow when moved to the ring', () => {
    const layout = planLayout({ ...request, ringDescriptors: 4 });
    const sab = new SharedArrayBuffer(layout.totalBytes);
    const counters = countersView(sab, layout, 0);
    const producer = new RingProducer(sab, layout, 1, null, counters);
    const consumer = new RingConsumer(sab, layout, 1);
    const counted = (): number[] => [counters[Counter.linkBatches]!, counters[Counter.linkDescriptors]!];
    for (let i = 0; i < 6; i++) send(producer, i);
    producer.flush();
    expect(counted()).toEqual([1, 4]);
    producer.flush(); // nothing has been read: nothing new to publish
    expect(counted()).toEqual([1, 4]);
    receive(consumer, 4);
    producer.flush();
    expect(counted()).toEqual([2, 6]);
  });

  it.each([0, 2 ** 31 - 3, 2 ** 32 - 3])(
    'indexes start at %d: behaves as a queue, for any steps',
    (startIndex) => {
      fc.assert(
        fc.property(fc.constantFrom(2, 4, 8), fc.array(stepArb, { maxLength: 80 }), (size, steps) => {
          const { producer, consumer } = makeRing(size, startIndex);
          let next = 0;
          let expected = 0;
          let visible = 0; // flushed into the ring
          let maxOverflow = 0;
          for (const { kind, n } of steps) {
            if (kind === 'send') for (let i = 0; i < n; i++) send(producer, next++);
            else if (kind === 'receive') {
              const values = receive(consumer, n);
              for (const value of values) expect(value).toBe(expected++);
              expect(expected).toBeLessThanOrEqual(visible);
            } else {
              const before = visible;
              const movable = producer.movable;
              const overflowed = producer.overflowed;
              const published = producer.flush();
              expect(movable).toBe(producer.overflowed < overflowed);
              visible = next - producer.pending;
              expect(producer.pending).toBe(producer.overflowed); // all that fits is in the ring
              expect(published).toBe(visible > before);
              expect(visible - expected).toBe(Math.min(size, next - expected));
            }
            expect(producer.pending).toBe(next - visible);
            maxOverflow = Math.max(maxOverflow, producer.overflowed);
            expect(producer.maxOverflow).toBe(maxOverflow);
          }
          while (expected < next) {
            producer.flush();
            for (const value of receive(consumer, 100)) expect(value).toBe(expected++);
          }
          expect(producer.flush()).toBe(false);
          expect(consumer.available()).toBe(0);
        }),
        { numRuns: 300 },
      );
    },
  );

  it('full ring: descriptors committed meanwhile arrive in order once there is room', () => {
    const { producer, consumer } = makeRing(4);
    for (let value = 0; value < 1000; value++) send(producer, value);
    expect(producer.flush()).toBe(true);
    expect(producer.overflowed).toBe(996);
    expect(producer.maxOverflow).toBe(996);
    let expected = 0;
    let sent = 1000;
    while (expected < sent) {
      for (const value of receive(consumer, 3)) expect(value).toBe(expected++);
      if (sent < 1100) send(producer, sent++); // after the overflow, although the ring has room
      producer.flush();
    }
    expect(expected).toBe(1100);
  });

  it('overflow: grows by doubling, shrinks after a time without use', () => {
    const { producer, consumer } = makeRing(2);
    const least = producer.overflowCapacity;
    for (let value = 0; value < 5000; value++) send(producer, value);
    expect(producer.overflowCapacity).toBe(8192);
    while (producer.pending > 0) {
      producer.flush();
      receive(consumer, 2);
    }
    expect(producer.overflowCapacity).toBe(8192);
    for (let i = 0; i < 10_000; i++) producer.flush();
    expect(producer.overflowCapacity).toBe(least);
    send(producer, 5000);
    producer.flush();
    expect(receive(consumer, 2)).toEqual([5000]);
  });

  it('overflow that never empties: does not grow with time', () => {
    const { producer, consumer } = makeRing(2);
    for (let value = 0; value < 20; value++) send(producer, value);
    let expected = 0;
    for (let value = 20; value < 5000; value++) {
      send(producer, value);
      producer.flush();
      for (const got of receive(consumer, 1)) expect(got).toBe(expected++);
    }
    expect(producer.overflowCapacity).toBeLessThanOrEqual(128);
  });

  it('not flushed: not visible', () => {
    const { producer, consumer } = makeRing(4);
    send(producer, 1);
    expect(consumer.available()).toBe(0);
    expect(producer.pending).toBe(1);
    producer.flush();
    expect(consumer.available()).toBe(1);
  });
});

describe('ring between two threads', () => {
  it('2 million descriptors, indexes wrap at 2^32: all arrive, in order, whole', async () => {
    const { consumer } = await runPair({
      count: 2_000_000,
      ringDescriptors: 1024,
      startIndex: 2 ** 32 - 1_000_000,
    });
    expect(consumer.received).toBe(2_000_000);
    expect(consumer.broken).toBe(0);
  });

  it('slow consumer on a ring of 8: the overflow takes it, order is kept, the producer sleeps and is woken', async () => {
    const { producer, consumer } = await runPair({
      count: 100_000,
      ringDescriptors: 8,
      startIndex: 2 ** 32 - 50_000,
      slowConsumer: true,
    });
    expect(consumer.received).toBe(100_000);
    expect(consumer.broken).toBe(0);
    expect(producer.maxOverflow).toBeGreaterThan(0);
    expect(producer.lostWakeUps + consumer.lostWakeUps).toBe(0);
  });

  it('ping-pong, both threads sleep between messages: no wake-up is lost', async () => {
    const { producer, consumer } = await runPair({ count: 20_000, ringDescriptors: 4, pingPong: true });
    expect(consumer.received).toBe(20_000);
    expect(producer.received).toBe(20_000);
    expect(producer.sleeps + consumer.sleeps).toBeGreaterThan(0);
    expect(producer.lostWakeUps + consumer.lostWakeUps).toBe(0);
  });

  it('eventfd and epoll as in the engine: no wake-up is lost', async () => {
    const eventFds = [0, 1].map(() => eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) as [number, number];
    try {
      for (const fd of eventFds) expect(fd).toBeGreaterThanOrEqual(0);
      const pingPong = await runPair({ count: 10_000, ringDescriptors: 4, pingPong: true, eventFds });
      expect([pingPong.producer.received, pingPong.consumer.received]).toEqual([10_000, 10_000]);
      expect(pingPong.producer.lostWakeUps + pingPong.consumer.lostWakeUps).toBe(0);
      const slow = await runPair({ count: 50_000, ringDescriptors: 8, slowConsumer: true, eventFds });
      expect([slow.consumer.received, slow.consumer.broken]).toEqual([50_000, 0]);
      expect(slow.producer.lostWakeUps + slow.consumer.lostWakeUps).toBe(0);
      expect(slow.producer.sleeps).toBeGreaterThan(0);
    } finally {
      for (const fd of eventFds) close(fd);
    }
  });
});
