/**
 * A hop between threads: one descriptor (ToShard.frame) to a second thread and one back, through SPSC rings
 * with doorbells as the pipeline has them (an eventfd in an epoll set). One operation is one hop, half a
 * round trip.
 *
 *   awake     both ends look at their rings without sleeping: what a descriptor costs between two busy threads
 *   sleeping  both ends sleep in epoll_wait between any two descriptors: what a lone packet pays for each thread it crosses
 *   batch     64 descriptors a publication to an end that sleeps: the same wake-up, shared
 */
import { Worker } from 'node:worker_threads';
import Benchmark from 'benchmark';
import { VnetGso } from '../src/proto/vnethdr.ts';
import { Doorbell } from '../src/ring/doorbell.ts';
import { allocateShared, type Layout, requestStop, sleepingAt } from '../src/ring/layout.ts';
import { NO_SLOT } from '../src/ring/pool.ts';
import { RingConsumer, RingProducer } from '../src/ring/spsc.ts';
import { EFD_CLOEXEC, EFD_NONBLOCK, EPOLLET, EPOLLIN } from '../src/sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollWait } from '../src/sys/epoll.ts';
import { close, eventfd, eventfdDrain, eventfdWrite } from '../src/sys/io.ts';
import { addressOf } from '../src/sys/memory.ts';
import { linkBytes, linkOp, linkSlotA, linkSlotB, linkSlotOffset } from '../src/workers/link/descriptor.ts';
import { frameGsoSize, frameHash, frameOffload, frameWrite } from '../src/workers/link/to-shard.ts';
import { ops, sink } from './ops.ts';

/** Both ends: what they are made from. */
export interface HopShared {
  readonly sab: SharedArrayBuffer;
  readonly layout: Layout;
  readonly fds: readonly [number, number];
  /** int32: 1 = do not sleep. */
  readonly mode: SharedArrayBuffer;
}

/** Behind a vnet header. */
const FRAME_AT = 12;
const WAIT_MS = 1000;
const ROUND_TRIPS = 16;

/** One end of the pair of rings: 0 sends on ring 0, 1 on ring 1. */
export class HopEnd {
  readonly out: RingProducer;
  readonly inward: RingConsumer;
  readonly #own: Doorbell;
  readonly #ownFd: number;
  readonly #ep: number;
  readonly #events = new EpollEvents(4);
  readonly #mode: Int32Array;
  readonly #stop: () => boolean;

  constructor(shared: HopShared, end: 0 | 1, stop: () => boolean) {
    const { sab, layout, fds } = shared;
    const i32 = new Int32Array(sab, 0, Math.floor(sab.byteLength / 4));
    const bell = (i: number): Doorbell =>
      new Doorbell(i32, sleepingAt(layout, i) >>> 2, fds[i]!, eventfdWrite);
    this.#own = bell(end);
    this.#ownFd = fds[end];
    this.out = new RingProducer(sab, layout, end, bell(1 - end));
    this.inward = new RingConsumer(sab, layout, 1 - end);
    this.#ep = epollCreate();
    this.#mode = new Int32Array(shared.mode);
    this.#stop = stop;
    if (this.#ep < 0 || epollAdd(this.#ep, this.#ownFd, EPOLLIN | EPOLLET, 0, 0) < 0) {
      throw new Error('hop benchmark: no epoll set');
    }
  }

  send(count: number): void {
    for (let i = 0; i < count; i++) {
      frameWrite(this.out, i, NO_SLOT, FRAME_AT, 100 + i, i, VnetGso.none, 0);
    }
    this.out.flush();
  }

  /** Wait for descriptors and take all there are. @returns how many; 0 when asked to stop */
  receive(): number {
    for (;;) {
      const n = this.inward.available();
      if (n > 0) return this.#take(n);
      if (this.#stop()) return 0;
      // Acquire of a word that changes between benchmarks only.
      if (Atomics.load(this.#mode, 0) === 1) continue;
      this.#own.prepareSleep();
      if (this.inward.available() === 0 && epollWait(this.#ep, this.#events, WAIT_MS) > 0) {
        eventfdDrain(this.#ownFd);
      }
      this.#own.wake();
    }
  }

  /**
   * Apart from the loop that waits: V8 would optimise that before it knows what is done with a descriptor.
   */
  #take(n: number): number {
    const w = this.inward.words;
    let x = 0;
    for (let i = 0; i < n; i++) {
      const at = this.inward.at(i);
      x ^= linkOp(w, at) ^ linkSlotA(w, at) ^ linkSlotB(w, at) ^ linkSlotOffset(w, at) ^ linkBytes(w, at);
      x ^= frameHash(w, at) ^ frameOffload(w, at) ^ frameGsoSize(w, at);
    }
    sink.value ^= x;
    this.inward.release(n);
    return n;
  }

  close(): void {
    close(this.#ep);
  }
}

let shared: HopShared | null = null;
let near: HopEnd | null = null;

export function build(): Benchmark.Suite {
  const request = { smallSlots: 0, largeSlots: 0, ringDescriptors: 1024, counterBlocks: 2, logBytes: 256 };
  const flags = EFD_NONBLOCK | EFD_CLOEXEC;
  const fds = [eventfd(0, flags), eventfd(0, flags)] as const;
  if (fds[0] < 0 || fds[1] < 0) throw new Error('hop benchmark: no eventfd');
  const made: HopShared = {
    ...allocateShared({ ...request, rings: 2 }, addressOf),
    fds,
    mode: new SharedArrayBuffer(4),
  };
  shared = made;
  const mode = new Int32Array(made.mode);
  new Worker(new URL('./hop.worker.ts', import.meta.url), { workerData: made });
  const end = new HopEnd(made, 0, () => false);
  near = end;
  const roundTrips = (descriptors: number, awake: boolean) => () => {
    Atomics.store(mode, 0, awake ? 1 : 0);
    for (let i = 0; i < ROUND_TRIPS; i++) {
      end.send(descriptors);
      for (let back = 0; back < descriptors; ) back += end.receive();
    }
    Atomics.store(mode, 0, 0);
  };
  return new Benchmark.Suite()
    .add('a hop, both awake', roundTrips(1, true), ops(2 * ROUND_TRIPS))
    .add('a hop, both sleeping', roundTrips(1, false), ops(2 * ROUND_TRIPS))
    .add('a batch of 64, both awake', roundTrips(64, true), ops(2 * ROUND_TRIPS))
    .add('a batch of 64, both sleeping', roundTrips(64, false), ops(2 * ROUND_TRIPS));
}

export function finish(): void {
  if (shared === null) return;
  requestStop(new Int32Array(shared.sab), shared.layout);
  eventfdWrite(shared.fds[1]);
  near?.close();
}
