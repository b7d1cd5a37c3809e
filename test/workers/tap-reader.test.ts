import { afterEach, describe, expect, it } from 'vitest';
import { COUNTER_WORDS } from '../../src/ring/counters.ts';
import { allocateShared } from '../../src/ring/layout.ts';
import { FramePool, Ownership, SlotStack } from '../../src/ring/pool.ts';
import { RingConsumer, RingProducer } from '../../src/ring/spsc.ts';
import { close, write } from '../../src/sys/io.ts';
import { addressOf, NativeBuffer } from '../../src/sys/memory.ts';
import { TapReader } from '../../src/workers/tap-reader.ts';
import { tapPair } from '../hostile/path.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const SMALL_SLOTS = 128;
const LARGE_SLOTS = 128;
const FRAMES = 0;
const FREED = 1;

let fds: readonly number[] = [];
afterEach(() => {
  for (const fd of fds) close(fd);
  fds = [];
});

/** A reader of its own on one end of a socket pair. */
function rig() {
  const [engine, guest] = tapPair();
  fds = [engine, guest];
  const request = {
    smallSlots: SMALL_SLOTS,
    largeSlots: LARGE_SLOTS,
    rings: 2,
    ringDescriptors: 256,
    counterBlocks: 1,
    logBytes: 256,
  };
  const { sab, layout, baseAddress } = allocateShared(request, addressOf);
  const reader = new TapReader({
    plan: { ...TEST_PLAN, tap: { fd: engine, vnetHdrBytes: 0, uso: false } },
    pool: new FramePool(sab, layout, baseAddress),
    ownership: new Ownership(sab, layout, false),
    counters: new Float64Array(COUNTER_WORDS),
    smallSlots: new SlotStack(0, SMALL_SLOTS),
    largeSlots: new SlotStack(SMALL_SLOTS, LARGE_SLOTS),
    toShards: [new RingProducer(sab, layout, FRAMES, null)],
    freed: [new RingConsumer(sab, layout, FREED, null)],
    onFatal: (text) => {
      throw new Error(text);
    },
  });
  const out = new NativeBuffer(65_536);
  const send = (bytes: number): void => {
    expect(write(guest, out.address, bytes)).toBe(bytes);
  };
  const frames = new RingConsumer(sab, layout, FRAMES, null);
  return { reader, send, frames };
}

describe('frames a round', () => {
  it('of small ones as many as leave in one UDP_SEGMENT send; the rest in the next round', () => {
    const { reader, send, frames } = rig();
    for (let i = 0; i < 100; i++) send(106);
    expect(reader.poll(0)).toBe(64);
    expect(frames.available()).toBe(64);
    frames.release(64);
    reader.poll(0);
    expect(frames.available()).toBe(36);
  });

  it('of 64 KiB ones no more than a megabyte: the other flows have their turn', () => {
    const { reader, send, frames } = rig();
    for (let i = 0; i < 30; i++) send(65_536);
    expect(reader.poll(0)).toBe(16);
    frames.release(frames.available());
    expect(reader.poll(0)).toBe(14);
  });
});
