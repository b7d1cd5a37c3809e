/**
 * The codec of the links (src/workers/link/): descriptors are written and their words read again, on one
 * thread,
 * 64 per publication.
 *
 *   frame, words  ToShard.frame written and read by word index: cost of the ring without the codec
 *   frame         the same with the codec's writer and accessors
 *   send, words   ToHost.send by word index
 *   send          the same with the codec
 *
 * Each case has a loop of its own: one loop with functions as parameters would measure calls that V8 cannot
 * inline.
 */
import Benchmark from 'benchmark';
import { VnetGso } from '../src/proto/vnethdr.ts';
import { allocateShared } from '../src/ring/layout.ts';
import { NO_SLOT } from '../src/ring/pool.ts';
import { RingConsumer, RingProducer } from '../src/ring/spsc.ts';
import { addressOf } from '../src/sys/memory.ts';
import {
  linkBytes,
  linkFlow,
  linkOp,
  linkSlotA,
  linkSlotB,
  linkSlotOffset,
} from '../src/workers/link/descriptor.ts';
import { sendMark, sendWrite, ToHost } from '../src/workers/link/to-host.ts';
import { frameGsoSize, frameHash, frameOffload, frameWrite, ToShard } from '../src/workers/link/to-shard.ts';
import { ops, sink } from './ops.ts';

const BATCH = 64;
const ROUNDS = 100;
const FRAME_AT = 12;

interface Ends {
  readonly out: RingProducer;
  readonly link: RingConsumer;
}

function frameWords({ out, link }: Ends): void {
  for (let i = 0; i < BATCH; i++) {
    const at = out.reserve();
    const w = out.words;
    w[at] = ToShard.frame;
    w[at + 1] = 0;
    w[at + 2] = i;
    w[at + 3] = NO_SLOT;
    w[at + 4] = FRAME_AT;
    w[at + 5] = 100 + i;
    w[at + 6] = i;
    w[at + 7] = VnetGso.none;
    w[at + 8] = 0;
    out.commit();
  }
  out.flush();
  const n = link.available();
  const w = link.words;
  let x = 0;
  for (let i = 0; i < n; i++) {
    const at = link.at(i);
    x ^= w[at]! ^ w[at + 2]! ^ w[at + 3]! ^ w[at + 4]! ^ w[at + 5]! ^ w[at + 6]! ^ w[at + 7]! ^ w[at + 8]!;
  }
  sink.value ^= x;
  link.release(n);
}

function frames({ out, link }: Ends): void {
  for (let i = 0; i < BATCH; i++) frameWrite(out, i, NO_SLOT, FRAME_AT, 100 + i, i, VnetGso.none, 0, 0);
  out.flush();
  const n = link.available();
  const w = link.words;
  let x = 0;
  for (let i = 0; i < n; i++) {
    const at = link.at(i);
    x ^= linkOp(w, at) ^ linkSlotA(w, at) ^ linkSlotB(w, at) ^ linkSlotOffset(w, at) ^ linkBytes(w, at);
    x ^= frameHash(w, at) ^ frameOffload(w, at) ^ frameGsoSize(w, at);
  }
  sink.value ^= x;
  link.release(n);
}

function sendWords({ out, link }: Ends): void {
  for (let i = 0; i < BATCH; i++) {
    const at = out.reserve();
    const w = out.words;
    w[at] = ToHost.send;
    w[at + 1] = 7;
    w[at + 2] = i;
    w[at + 3] = NO_SLOT;
    w[at + 4] = FRAME_AT;
    w[at + 5] = 100 + i;
    w[at + 6] = 0;
    out.commit();
  }
  out.flush();
  const n = link.available();
  const w = link.words;
  let x = 0;
  for (let i = 0; i < n; i++) {
    const at = link.at(i);
    x ^= w[at]! ^ w[at + 1]! ^ w[at + 2]! ^ w[at + 3]! ^ w[at + 4]! ^ w[at + 5]! ^ w[at + 6]!;
  }
  sink.value ^= x;
  link.release(n);
}

function sends({ out, link }: Ends): void {
  for (let i = 0; i < BATCH; i++) sendWrite(out, 7, i, NO_SLOT, FRAME_AT, 100 + i, 0);
  out.flush();
  const n = link.available();
  const w = link.words;
  let x = 0;
  for (let i = 0; i < n; i++) {
    const at = link.at(i);
    x ^= linkOp(w, at) ^ linkFlow(w, at) ^ linkSlotA(w, at) ^ linkSlotB(w, at);
    x ^= linkSlotOffset(w, at) ^ linkBytes(w, at) ^ sendMark(w, at);
  }
  sink.value ^= x;
  link.release(n);
}

export function build(): Benchmark.Suite {
  const request = { smallSlots: 0, largeSlots: 0, rings: 1, ringDescriptors: 1024, counterBlocks: 1 };
  const { sab, layout } = allocateShared({ ...request, logBytes: 256 }, addressOf);
  const ends: Ends = { out: new RingProducer(sab, layout, 0, null), link: new RingConsumer(sab, layout, 0) };
  const rounds = (batch: (ends: Ends) => void) => () => {
    for (let round = 0; round < ROUNDS; round++) batch(ends);
  };
  const count = ops(BATCH * ROUNDS);
  return new Benchmark.Suite()
    .add('frame, words', rounds(frameWords), count)
    .add('frame', rounds(frames), count)
    .add('send, words', rounds(sendWords), count)
    .add('send', rounds(sends), count);
}
