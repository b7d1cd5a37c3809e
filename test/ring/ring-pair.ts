/**
 * Runs a producer thread and a consumer thread (ring-end.worker.ts) on a pair of rings and collects their
 * results.
 */
import { Worker } from 'node:worker_threads';
import { type Layout, planLayout } from '../../src/ring/layout.ts';
import { startRingAt } from '../../src/ring/spsc.ts';

export interface PairOptions {
  readonly count: number;
  readonly ringDescriptors: number;
  readonly startIndex?: number;
  /** The consumer takes a few descriptors at a time and pauses between. */
  readonly slowConsumer?: boolean;
  /** Every descriptor is sent back before the next is sent. */
  readonly pingPong?: boolean;
  /** Two eventfds (producer's, consumer's) to ring by; absent: Atomics.wait and notify. */
  readonly eventFds?: readonly [number, number];
}

export interface EndData {
  readonly role: 'producer' | 'consumer';
  readonly sab: SharedArrayBuffer;
  readonly layout: Layout;
  /** Rings so far by thread, waited on where there are no eventfds. */
  readonly bells: SharedArrayBuffer;
  readonly options: PairOptions;
}

export interface EndReport {
  readonly received: number;
  /** Descriptors out of order or torn. */
  readonly broken: number;
  /** Sleeps that ended by the time limit although there was work. */
  readonly lostWakeUps: number;
  readonly sleeps: number;
  readonly maxOverflow: number;
}

/** Thread 0 is the producer (ring 0 to thread 1), thread 1 the consumer (ring 1 back). */
export async function runPair(options: PairOptions): Promise<{ producer: EndReport; consumer: EndReport }> {
  const layout = planLayout({
    smallSlots: 0,
    largeSlots: 0,
    rings: 2,
    ringDescriptors: options.ringDescriptors,
    counterBlocks: 2,
    logBytes: 256,
  });
  const sab = new SharedArrayBuffer(layout.totalBytes);
  const bells = new SharedArrayBuffer(256);
  for (const ring of [0, 1]) startRingAt(sab, layout, ring, options.startIndex ?? 0);
  const run = (role: EndData['role']): Promise<EndReport> =>
    new Promise((resolve, reject) => {
      const workerData: EndData = { role, sab, layout, bells, options };
      const worker = new Worker(new URL('./ring-end.worker.ts', import.meta.url), { workerData });
      worker.once('message', resolve);
      worker.once('error', reject);
    });
  const [producer, consumer] = await Promise.all([run('producer'), run('consumer')]);
  return { producer, consumer };
}
