import { afterEach, describe, expect, it } from 'vitest';
import { ETH_BYTES } from '../../src/proto/ethernet.ts';
import { COUNTER_WORDS, Counter } from '../../src/ring/counters.ts';
import { allocateShared } from '../../src/ring/layout.ts';
import { FramePool, Ownership, SlotStack } from '../../src/ring/pool.ts';
import { RingConsumer, RingProducer } from '../../src/ring/spsc.ts';
import { close, write } from '../../src/sys/io.ts';
import { addressOf, NativeBuffer } from '../../src/sys/memory.ts';
import { W } from '../../src/workers/messages.ts';
import { Notices } from '../../src/workers/notices.ts';
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
function rig(largeSlots = LARGE_SLOTS) {
  const logs: string[] = [];
  const [engine, guest] = tapPair();
  fds = [engine, guest];
  const request = {
    smallSlots: SMALL_SLOTS,
    largeSlots,
    rings: 2,
    ringDescriptors: 256,
    counterBlocks: 1,
    logBytes: 256,
  };
  const { sab, layout, baseAddress } = allocateShared(request, addressOf);
  const counters = new Float64Array(COUNTER_WORDS);
  const reader = new TapReader({
    notices: new Notices((_level, text) => logs.push(text)),
    plan: { ...TEST_PLAN, tap: { fd: engine, vnetHdrBytes: 0, uso: false } },
    pool: new FramePool(sab, layout, baseAddress),
    ownership: new Ownership(sab, layout, false),
    counters,
    smallSlots: new SlotStack(0, SMALL_SLOTS),
    largeSlots: new SlotStack(SMALL_SLOTS, largeSlots),
    toShards: [new RingProducer(sab, layout, FRAMES, null)],
    freed: [new RingConsumer(sab, layout, FREED, null)],
    onFatal: (text) => {
      throw new Error(text);
    },
  });
  const out = new NativeBuffer(65_536);
  /** @param port  makes it a TCP segment of a flow of its own; 0: a frame of no flow */
  const send = (bytes: number, port = 0): void => {
    if (port !== 0) out.u8.set(segment);
    out.u8[ETH_BYTES + 21] = port;
    expect(write(guest, out.address, bytes)).toBe(bytes);
  };
  const frames = new RingConsumer(sab, layout, FRAMES, null);
  const back = new RingProducer(sab, layout, FREED, null);
  /** The shard is done with all frames that it has. */
  const giveBack = (): void => {
    for (let i = 0, n = frames.available(); i < n; i++) {
      const from = frames.at(i);
      const at = back.reserve();
      back.words[at + W.slotA] = frames.words[from + W.slotA]!;
      back.words[at + W.slotB] = frames.words[from + W.slotB]!;
      back.commit();
    }
    frames.release(frames.available());
    back.flush();
  };
  return { reader, send, frames, counters, logs, giveBack };
}

/** Ethernet, IPv4 and the ports of a TCP segment of 65,536 bytes; the second byte of its source port is the flow. */
// biome-ignore format: a line a header
const segment = [
  2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00,
  0x45, 0, 0xff, 0xf2, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 198, 51, 100, 7,
  0x40, 0, 0, 80,
];

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

  it('of 64 KiB ones of several flows in turn two megabytes: each flow has some to send together', () => {
    const { reader, send, frames } = rig();
    for (let i = 0; i < 45; i++) send(65_536, 1 + ((i >> 1) & 7));
    expect(reader.poll(0)).toBe(32);
    frames.release(frames.available());
    expect(reader.poll(0)).toBe(13);
  });

  it('of four flows in turn a megabyte, as of one', () => {
    const { reader, send } = rig();
    for (let i = 0; i < 30; i++) send(65_536, 1 + ((i >> 1) & 3));
    expect(reader.poll(0)).toBe(16);
  });
});

describe('large slots are out', () => {
  /** The one large slot is with the shard. */
  const short = () => {
    const r = rig(1);
    r.send(4000);
    expect(r.reader.poll(0)).toBe(1);
    return r;
  };

  it('reads small frames into small slots alone after a moment, and counts long ones that it loses', () => {
    const { reader, send, frames, counters } = short();
    send(100);
    expect(reader.poll(1)).toBe(0);
    expect(reader.sleepMs(1)).toBeLessThanOrEqual(5);
    send(4000);
    send(200);
    reader.poll(7);
    expect(frames.available()).toBe(3);
    expect([1, 2].map((i) => frames.words[frames.at(i) + W.len])).toEqual([100, 200]);
    expect(counters[Counter.tapCutShort]).toBe(1);
    expect(counters[Counter.tapSmallReads]).toBe(3);
  });

  it('goes on after a full round, of which no edge tells', () => {
    const { reader, send } = short();
    for (let i = 0; i < 70; i++) send(100);
    reader.poll(1);
    expect(reader.poll(7)).toBe(64);
    expect(reader.hasInput()).toBe(true);
    expect(reader.poll(7)).toBe(6);
    expect(reader.hasInput()).toBe(false);
  });

  it('one line when that has lasted for a second, one when it is over', () => {
    const { reader, send, logs, giveBack } = short();
    for (const now of [1, 500, 1001, 1500, 3000]) {
      send(100);
      reader.onReadable();
      reader.poll(now);
      expect(logs.length).toBe(now > 1000 ? 1 : 0);
    }
    giveBack();
    send(4000);
    reader.onReadable();
    expect(reader.poll(3001)).toBe(1);
    expect(logs.length).toBe(2);
    send(100);
    reader.onReadable();
    reader.poll(3002);
    expect(logs.length).toBe(2);
  });
});
