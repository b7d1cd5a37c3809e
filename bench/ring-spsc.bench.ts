/**
 * A descriptor through an SPSC ring; 8 of its 16 words are written and read. On one thread (the fused plan)
 * with several batch sizes; and to a second thread that reads, releases and sleeps when the ring is empty
 * (the pipeline plan), in batches of 64.
 */
import { Worker } from 'node:worker_threads';
import Benchmark from 'benchmark';
import { Doorbell } from '../src/ring/doorbell.ts';
import { allocateShared, type Layout, requestStop, sleepingAt, stopRequested } from '../src/ring/layout.ts';
import { RingConsumer, RingProducer } from '../src/ring/spsc.ts';
import { addressOf } from '../src/sys/memory.ts';
import { ops, sink } from './ops.ts';

const OPS = 1024;
const ACROSS_OPS = 8192;

export function send(out: RingProducer, value: number): void {
  const at = out.reserve();
  const w = out.words;
  w[at] = 1;
  w[at + 1] = value;
  w[at + 2] = value;
  w[at + 3] = 0xffffffff;
  w[at + 4] = 128;
  w[at + 5] = 1500;
  w[at + 6] = value;
  w[at + 7] = 0;
  out.commit();
}

export function receiveAll(inward: RingConsumer): number {
  const n = inward.available();
  const w = inward.words;
  let x = 0;
  for (let i = 0; i < n; i++) {
    const at = inward.at(i);
    x ^= w[at]! ^ w[at + 1]! ^ w[at + 2]! ^ w[at + 3]! ^ w[at + 4]! ^ w[at + 5]! ^ w[at + 6]! ^ w[at + 7]!;
  }
  inward.release(n);
  sink.value ^= x;
  return n;
}

const request = {
  smallSlots: 0,
  largeSlots: 0,
  ringDescriptors: 1024,
  counterBlocks: 2,
  logBytes: 256,
  rings: 1,
};
const shared: { sab: SharedArrayBuffer; layout: Layout; worker: Worker }[] = [];

export function build(): Benchmark.Suite {
  const suite = new Benchmark.Suite();
  const { sab, layout } = allocateShared(request, addressOf);
  const out = new RingProducer(sab, layout, 0, null);
  const inward = new RingConsumer(sab, layout, 0);
  for (const batch of [64, 16, 4, 1]) {
    suite.add(
      `one thread, batches of ${batch}`,
      () => {
        for (let i = 0; i < OPS; i += batch) {
          for (let j = 0; j < batch; j++) send(out, i + j);
          out.flush();
          receiveAll(inward);
        }
      },
      ops(OPS),
    );
  }

  const pair = allocateShared(request, addressOf);
  const across = new RingProducer(pair.sab, pair.layout, 0, bellOf(pair.sab, pair.layout));
  const worker = new Worker(new URL('./ring-spsc.worker.ts', import.meta.url), {
    workerData: { sab: pair.sab, layout: pair.layout },
  });
  shared.push({ sab: pair.sab, layout: pair.layout, worker });
  suite.add(
    'to another thread, batches of 64',
    () => {
      for (let i = 0; i < ACROSS_OPS; i++) {
        send(across, i);
        if ((i & 63) === 63) across.flush();
      }
      while (across.pending > 0) across.flush();
    },
    ops(ACROSS_OPS),
  );
  return suite;
}

/** Called by the runner after the last round. */
export function finish(): void {
  for (const { sab, layout } of shared) {
    requestStop(new Int32Array(sab), layout);
    bellOf(sab, layout).ring();
  }
}

/**
 * Doorbell of the reading thread, which sleeps in Atomics.wait. The word it waits on is in a cache line that
 * a layout with a single ring does not use.
 */
function bellOf(sab: SharedArrayBuffer, layout: Layout): Doorbell {
  const i32 = new Int32Array(sab);
  return new Doorbell(i32, sleepingAt(layout, 0) >>> 2, bellWord(layout), (word) => {
    Atomics.add(i32, word, 1);
    Atomics.notify(i32, word);
  });
}

function bellWord(layout: Layout): number {
  return sleepingAt(layout, 1) >>> 2;
}

/** Loop of the second thread: reads until it is asked to stop. */
export function drainUntilStopped(sab: SharedArrayBuffer, layout: Layout): void {
  const inward = new RingConsumer(sab, layout, 0);
  const i32 = new Int32Array(sab);
  const bell = bellOf(sab, layout);
  const word = bellWord(layout);
  while (!stopRequested(i32, layout)) {
    if (receiveAll(inward) > 0) continue;
    const seen = Atomics.load(i32, word);
    bell.prepareSleep();
    if (inward.available() === 0) Atomics.wait(i32, word, seen, 1000);
    bell.wake();
  }
}
