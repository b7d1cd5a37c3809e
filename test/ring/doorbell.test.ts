// @vitest: beside
import { describe, expect, it } from 'vitest';
import { Doorbell } from '../../src/ring/doorbell.ts';
import { DESC_WORDS, planLayout, sleepingAt } from '../../src/ring/layout.ts';
import { RingConsumer, RingProducer } from '../../src/ring/spsc.ts';

const layout = planLayout({
  smallSlots: 0,
  largeSlots: 0,
  rings: 1,
  ringDescriptors: 2,
  counterBlocks: 2,
  logBytes: 256,
});

/** All interleavings of two sequences of steps. */
function* interleavings(left: readonly string[], right: readonly string[]): Generator<string[]> {
  if (left.length === 0 || right.length === 0) yield [...left, ...right];
  else {
    for (const rest of interleavings(left.slice(1), right)) yield [left[0]!, ...rest];
    for (const rest of interleavings(left, right.slice(1))) yield [right[0]!, ...rest];
  }
}

describe('Doorbell', () => {
  it('awake: not rung; asleep: rung once, however many producers publish', () => {
    const i32 = new Int32Array(new SharedArrayBuffer(64));
    const rung: number[] = [];
    const bell = new Doorbell(i32, 3, 42, (fd) => rung.push(fd));
    const other = new Doorbell(i32, 3, 42, (fd) => rung.push(fd));
    expect(bell.ringIfAsleep()).toBe(false);
    bell.prepareSleep();
    expect(other.ringIfAsleep()).toBe(true);
    expect(bell.ringIfAsleep()).toBe(false);
    expect(rung).toEqual([42]);
    bell.prepareSleep();
    bell.wake();
    expect(bell.ringIfAsleep()).toBe(false);
    bell.ring();
    expect(rung).toEqual([42, 42]);
    expect([bell.rings, other.rings]).toEqual([1, 1]);
  });

  it.each(
    [...interleavings(['announce', 'look'], ['publish'])].map((order) => [order.join(', '), order] as const),
  )('consumer against producer, %s: it either sees the descriptor or is rung', (_name, order) => {
    const sab = new SharedArrayBuffer(layout.totalBytes);
    let rung = 0;
    const bell = new Doorbell(new Int32Array(sab), sleepingAt(layout, 1) >>> 2, 0, () => rung++);
    const producer = new RingProducer(sab, layout, 0, bell);
    const consumer = new RingConsumer(sab, layout, 0);
    let seen = 0;
    for (const step of order) {
      if (step === 'announce') bell.prepareSleep();
      else if (step === 'look') seen = consumer.available();
      else {
        producer.reserve();
        producer.commit();
        producer.flush();
      }
    }
    expect(seen + rung).toBeGreaterThan(0);
  });

  it.each(
    [...interleavings(['flush', 'announce', 'look'], ['release'])].map(
      (order) => [order.join(', '), order] as const,
    ),
  )('producer with a full ring against consumer, %s: it either gets on or is rung', (_name, order) => {
    const sab = new SharedArrayBuffer(layout.totalBytes);
    let rung = 0;
    const bell = new Doorbell(new Int32Array(sab), sleepingAt(layout, 0) >>> 2, 0, () => rung++);
    const producer = new RingProducer(sab, layout, 0, null);
    const consumer = new RingConsumer(sab, layout, 0, bell);
    const commit = (value: number): void => {
      const at = producer.reserve();
      producer.words[at] = value;
      producer.commit();
    };
    commit(1);
    commit(2);
    producer.flush();
    commit(3); // into the overflow: the ring holds two
    expect(producer.overflowed).toBe(1);
    let movable = false;
    for (const step of order) {
      if (step === 'announce') bell.prepareSleep();
      else if (step === 'release') {
        expect(consumer.available()).toBe(2);
        consumer.release(2);
      } else if (step === 'flush') producer.flush();
      else movable = producer.movable;
    }
    expect(producer.overflowed === 0 || movable || rung === 1).toBe(true);
    producer.flush();
    expect(consumer.available()).toBe(1);
    expect(consumer.words[consumer.at(0)]).toBe(3);
    expect(consumer.words.length).toBe(2 * DESC_WORDS);
  });
});
