/**
 * A hop between threads: one descriptor (ToShard.frame) to a second thread and one back, through SPSC rings
 * with the doorbells of the pipeline plan (an eventfd in an epoll set). One operation is one hop, half a
 * round trip.
 *
 *   awake     both ends poll their rings without sleeping: cost of a descriptor between two busy threads
 *   sleeping  both ends sleep in epoll_wait before each descriptor: cost of a lone packet per thread
 *   batch     64 descriptors per publication: they share one wake-up
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

/** Data from which both threads make their ends. */
export interface HopShared {
  readonly sab: SharedArrayBuffer;
  readonly layout: Layout;
  readonly fds: readonly [number, number];
  /** int32: 1 = do not sleep. */
  readonly mode: SharedArrayBuffer;
}

/** Offset of the frame: behind a virtio-net header. */
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
      frameWrite(this.out, i, NO_SLOT, FRAME_AT, 100 + i, i, VnetGso.none, 0, 0);
    }
    this.out.flush();
  }

  /** Wait for descriptors and read all that are queued. @returns their number; 0 after a request to stop */
  receive(): number {
    for (;;) {
      const n = this.inward.available();
      if (n > 0) return this.#take(n);
      if (this.#stop()) return 0;
      // An acquire load in a loop costs little: the word changes only between benchmarks.
      if (Atomics.load(this.#mode, 0) === 1) continue;
      this.#own.prepareSleep();
      if (this.inward.available() === 0 && epollWait(this.#ep, this.#events, WAIT_MS) > 0) {
        eventfdDrain(this.#ownFd);
      }
      this.#own.wake();
    }
  }

  /**
   * Separate from the waiting loop: V8 would optimise that loop before it has seen how descriptors are read.
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
