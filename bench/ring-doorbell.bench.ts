/**
 * Cost of the doorbell to a publication while the consumer is awake, and cost of ownership checks, enabled
 * and disabled.
 */
import Benchmark from 'benchmark';
import { Doorbell } from '../src/ring/doorbell.ts';
import { planLayout, sleepingAt } from '../src/ring/layout.ts';
import { Ownership, SlotStack } from '../src/ring/pool.ts';
import { ops, sink } from './ops.ts';

const OPS = 1024;

export function build(): Benchmark.Suite {
  const layout = planLayout({
    smallSlots: OPS,
    largeSlots: 0,
    rings: 1,
    ringDescriptors: 64,
    counterBlocks: 1,
    logBytes: 256,
  });
  const sab = new SharedArrayBuffer(layout.totalBytes);
  const i32 = new Int32Array(sab);
  const bell = new Doorbell(i32, sleepingAt(layout, 0) >>> 2, 0, () => {
    sink.value++;
  });
  const stack = new SlotStack(0, OPS);
  const off = new Ownership(sab, layout, false);
  const on = new Ownership(sab, layout, true);
  on.assign(0, OPS, 1);
  const each = (f: (i: number) => void) => () => {
    for (let i = 0; i < OPS; i++) f(i);
  };
  return new Benchmark.Suite()
    .add(
      'Atomics.store alone',
      each((i) => {
        Atomics.store(i32, layout.stopAt >>> 2, i);
      }),
      ops(OPS),
    )
    .add(
      'Atomics.store and ringIfAsleep, consumer awake',
      each((i) => {
        Atomics.store(i32, layout.stopAt >>> 2, i);
        bell.ringIfAsleep();
      }),
      ops(OPS),
    )
    .add(
      'prepareSleep and wake',
      each(() => {
        bell.prepareSleep();
        bell.wake();
      }),
      ops(OPS),
    )
    .add(
      'SlotStack pop and push',
      each(() => stack.push(stack.pop())),
      ops(OPS),
    )
    .add(
      'Ownership.claim off',
      each((i) => off.claim(i, 1, 1)),
      ops(OPS),
    )
    .add(
      'Ownership.claim on',
      each((i) => on.claim(i, 1, 1)),
      ops(OPS),
    );
}
