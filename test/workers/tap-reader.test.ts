// @vitest: beside
import { afterEach, describe, expect, it } from 'vitest';
import { finishSum, onesSum } from '../../src/proto/checksum.ts';
import { Drop } from '../../src/proto/drop.ts';
import { ETH_BYTES } from '../../src/proto/ethernet.ts';
import { VNET_BYTES, VnetFlag, VnetGso, vnetWrite } from '../../src/proto/vnethdr.ts';
import { COUNTER_WORDS, Counter, DROP_BASE } from '../../src/ring/counters.ts';
import { SMALL_SLOT_BYTES } from '../../src/ring/pool.ts';
import { close, write } from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import { Assembly } from '../../src/workers/assembly.ts';
import { engineMemory } from '../../src/workers/engine-memory.ts';
import type { TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { linkBytes, linkSlotA, linkSlotB, linkSlotOffset } from '../../src/workers/link/descriptor.ts';
import { FrameFlag, frameHash, frameOffload } from '../../src/workers/link/to-shard.ts';
import type { SlotShares } from '../../src/workers/placement.ts';
import { Notices } from '../../src/workers/thread/notices.ts';
import { tapPair } from '../hostile/path.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const SMALL_SLOTS = 128;
const LARGE_SLOTS = 128;

let fds: readonly number[] = [];
afterEach(() => {
  for (const fd of fds) close(fd);
  fds = [];
});

/** All slots belong to the reader. */
const slotsOfReader = (smallSlots: number, largeSlots: number): SlotShares => ({
  ...{ readerSmall: [[0, smallSlots]], readerLarge: [[smallSlots, largeSlots]] },
  ...{ hostSmall: [[0, 0]], hostLarge: [[0, 0]], scratchLarge: 0, dnsEach: 0, dnsLarge: 0 },
});

/** A reader of its own on one end of a socket pair. */
function rig(largeSlots = LARGE_SLOTS, vnetHdrBytes: 0 | 12 = 0) {
  const logs: string[] = [];
  const [engine, guest] = tapPair();
  fds = [engine, guest];
  const plan: TapEnginePlan = {
    ...TEST_PLAN,
    pool: { ...TEST_PLAN.pool, smallSlots: SMALL_SLOTS, largeSlots },
    tap: { fd: engine, vnetHdrBytes, uso: false },
  };
  const { sab, layout } = engineMemory(plan, { ringDescriptors: 256, logBytes: 256 });
  const shares = slotsOfReader(SMALL_SLOTS, largeSlots);
  const assembly = new Assembly({ plan, sab, layout, shares });
  const counters = new Float64Array(COUNTER_WORDS);
  const reader = assembly.reader(0, {
    counters,
    notices: new Notices((_level, text) => logs.push(text)),
    onFatal: (text) => {
      throw new Error(text);
    },
  });
  const { pool, fromReaders, toReaders: back } = assembly.shardParts(0);
  const frames = fromReaders[0]!;
  const out = new NativeBuffer(65_536);
  /** @param port  source port of a TCP segment, one flow per port; 0: a frame without a flow */
  const send = (bytes: number, port = 0): void => {
    if (port !== 0) out.u8.set(segment);
    out.u8[ETH_BYTES + 21] = port;
    expect(write(guest, out.address, bytes)).toBe(bytes);
  };
  /** A raw frame after its virtio-net header. */
  const sendBytes = (bytes: Uint8Array): void => {
    out.u8.set(bytes);
    expect(write(guest, out.address, bytes.length)).toBe(bytes.length);
  };
  /** The frame that the shard gets, with the fields of its descriptor. */
  const received = (i = 0): { bytes: Uint8Array; offload: number; hash: number } => {
    const words = frames.words;
    const at = frames.at(i);
    const slotAt = pool.slotAt(linkSlotA(words, at)) + linkSlotOffset(words, at);
    const length = linkBytes(words, at);
    const inA = Math.min(length, SMALL_SLOT_BYTES - vnetHdrBytes);
    const bytes = new Uint8Array(length);
    bytes.set(pool.u8.subarray(slotAt, slotAt + inA));
    if (length > inA) {
      const moreAt = pool.slotAt(linkSlotB(words, at));
      bytes.set(pool.u8.subarray(moreAt, moreAt + length - inA), inA);
    }
    return { bytes, offload: frameOffload(words, at), hash: frameHash(words, at) };
  };
  /** The shard frees all frames that it has. */
  const giveBack = (): void => {
    for (let i = 0, n = frames.available(); i < n; i++) {
      const from = frames.at(i);
      back.free(linkSlotA(frames.words, from), linkSlotB(frames.words, from));
    }
    frames.release(frames.available());
    back.flush();
  };
  return { reader, send, sendBytes, received, frames, counters, logs, giveBack };
}

/**
 * Ethernet, IPv4 and the ports of a TCP segment of 65,536 bytes; the second byte of its source port is the
 * flow.
 */
// biome-ignore format: a line a header
const segment = [
  2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00,
  0x45, 0, 0xff, 0xf2, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 198, 51, 100, 7,
  0x40, 0, 0, 80,
];

describe('frames per round', () => {
  it('small frames: as many as one UDP_SEGMENT send carries; the rest in the next round', () => {
    const { reader, send, frames } = rig();
    for (let i = 0; i < 100; i++) send(106);
    expect(reader.poll(0)).toBe(64);
    expect(frames.available()).toBe(64);
    frames.release(64);
    reader.poll(0);
    expect(frames.available()).toBe(36);
  });

  it('frames of 64 KiB of one flow: at most a megabyte', () => {
    const { reader, send, frames } = rig();
    for (let i = 0; i < 30; i++) send(65_536);
    expect(reader.poll(0)).toBe(16);
    frames.release(frames.available());
    expect(reader.poll(0)).toBe(14);
  });

  it('frames of 64 KiB of several flows in turn: two megabytes', () => {
    const { reader, send, frames } = rig();
    for (let i = 0; i < 45; i++) send(65_536, 1 + ((i >> 1) & 7));
    expect(reader.poll(0)).toBe(32);
    frames.release(frames.available());
    expect(reader.poll(0)).toBe(13);
  });

  it('frames of four flows in turn: a megabyte, as of one flow', () => {
    const { reader, send } = rig();
    for (let i = 0; i < 30; i++) send(65_536, 1 + ((i >> 1) & 3));
    expect(reader.poll(0)).toBe(16);
  });
});

describe('no large slot is free', () => {
  /** The only large slot is in use by the shard. */
  const short = () => {
    const r = rig(1);
    r.send(4000);
    expect(r.reader.poll(0)).toBe(1);
    return r;
  };

  it('after a moment small frames are read into small slots; long ones are dropped and counted', () => {
    const { reader, send, frames, counters } = short();
    send(100);
    expect(reader.poll(1)).toBe(0);
    expect(reader.sleepMs(1)).toBe(99);
    expect(reader.poll(99)).toBe(0);
    send(4000);
    send(200);
    reader.poll(101);
    expect(frames.available()).toBe(3);
    expect([1, 2].map((i) => linkBytes(frames.words, frames.at(i)))).toEqual([100, 200]);
    expect(counters[Counter.tapCutShort]).toBe(1);
    expect(counters[Counter.tapSmallReads]).toBe(3);
  });

  it('after a full round: reads on, though epoll reports no new edge', () => {
    const { reader, send } = short();
    for (let i = 0; i < 70; i++) send(100);
    reader.poll(1);
    expect(reader.poll(101)).toBe(64);
    expect(reader.hasInput()).toBe(true);
    expect(reader.poll(101)).toBe(6);
    expect(reader.hasInput()).toBe(false);
  });

  it('for more than a second: one log line, and one at the end', () => {
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

describe('a partial checksum', () => {
  const IP_AT = ETH_BYTES;
  const OUTER_AT = IP_AT + 20;
  const INNER_IP_AT = OUTER_AT + 8 + 8 + ETH_BYTES;
  const INNER_AT = INNER_IP_AT + 20;
  const TCP_CHECKSUM = 16;
  const UDP_CHECKSUM = 6;
  /** The folded sum of the pseudo header, which the guest's kernel writes as partial checksum. */
  const PSEUDO = 0x3d7c;

  interface Left {
    readonly start?: number;
    readonly offset?: number;
    readonly gsoType?: number;
    readonly fragment?: boolean;
    readonly etherType?: number;
  }

  /** VXLAN: Ethernet, IPv4, UDP without a checksum, VXLAN, Ethernet, IPv4, TCP with `payload` bytes. */
  function vxlan(payload: number, left: Left = {}): Uint8Array {
    const frame = new Uint8Array(VNET_BYTES + INNER_AT + 20 + payload);
    const gsoType = left.gsoType ?? VnetGso.none;
    const { start = INNER_AT, offset = TCP_CHECKSUM } = left;
    vnetWrite(frame, 0, VnetFlag.needsCsum, gsoType, INNER_AT, gsoType === 0 ? 0 : 100, start, offset);
    const bytes = frame.subarray(VNET_BYTES);
    bytes.set(segment);
    new DataView(bytes.buffer, VNET_BYTES).setUint16(12, left.etherType ?? 0x0800);
    const total = bytes.length - ETH_BYTES;
    bytes.set([total >> 8, total & 0xff], IP_AT + 2);
    if (left.fragment) bytes[IP_AT + 6] = 0x20;
    bytes[IP_AT + 9] = 17;
    bytes.set([0xc0, 0x01, 4789 >> 8, 4789 & 0xff, (total - 20) >> 8, (total - 20) & 0xff, 0, 0], OUTER_AT);
    for (let i = INNER_IP_AT; i < bytes.length; i++) bytes[i] = i * 7 + (i >> 8);
    bytes.set([PSEUDO >> 8, PSEUDO & 0xff], INNER_AT + TCP_CHECKSUM);
    return frame;
  }

  /** The frame that the shard gets, or the number of drops. */
  function through(frame: Uint8Array) {
    const r = rig(LARGE_SLOTS, VNET_BYTES);
    r.sendBytes(frame);
    r.reader.poll(0);
    const drops = r.counters[DROP_BASE - Drop.vnetCsum]!;
    return { drops, got: r.frames.available() === 1 ? r.received() : undefined };
  }

  // 1,400: all in the small slot; the others end or begin in the large one, at an even and at an odd offset.
  it.each([0, 1, 1400, 1947, 1948, 3000, 3001, 60_001])(
    'inside a tunnel, %i bytes of payload: completed, other bytes of the frame unchanged',
    (payload) => {
      const frame = vxlan(payload);
      const { drops, got } = through(frame);
      expect(drops).toBe(0);
      const { bytes, offload } = got!;
      expect(offload).toBe(0);
      // The field held the pseudo header's sum: with the real checksum in its place and that sum added, all
      // is 0.
      expect(finishSum(onesSum(bytes, INNER_AT, bytes.length - INNER_AT, PSEUDO))).toBe(0);
      const before = frame.slice(VNET_BYTES);
      for (const b of [before, bytes]) b.fill(0, INNER_AT + TCP_CHECKSUM, INNER_AT + TCP_CHECKSUM + 2);
      expect(Buffer.compare(bytes, before)).toBe(0);
    },
  );

  it('of the transport header itself: passed on with a flag, not completed', () => {
    const frame = vxlan(1400, { start: OUTER_AT, offset: UDP_CHECKSUM });
    const { got } = through(frame);
    expect(got!.offload).toBe(FrameFlag.needsCsum);
    expect(Buffer.compare(got!.bytes, frame.subarray(VNET_BYTES))).toBe(0);
  });

  it.each([
    ['the Ethernet type', { start: 0, offset: 12 }],
    ['the length in the IP header', { start: IP_AT, offset: 2 }],
    ['the fragment bits, from an odd place', { start: 1, offset: IP_AT + 5 }],
    ['the ports, from before them', { start: OUTER_AT - 1, offset: 1 }],
    ['the ports, from among them', { start: OUTER_AT + 1, offset: 1 }],
    ['the last byte of the UDP header', { start: OUTER_AT + 7, offset: 0 }],
  ] as const)('in a header with the flow key, %s: dropped and counted', (_name, left) => {
    expect(through(vxlan(100, left))).toEqual({ drops: 1, got: undefined });
  });

  it('csumStart at the first byte after the UDP header: accepted', () => {
    const { got } = through(vxlan(100, { start: OUTER_AT + 8, offset: 0 }));
    expect(got!.offload).toBe(0);
    expect(
      Buffer.compare(
        got!.bytes.subarray(0, OUTER_AT + 8),
        vxlan(100).subarray(VNET_BYTES, VNET_BYTES + OUTER_AT + 8),
      ),
    ).toBe(0);
  });

  it.each([
    ['the field is in the large slot', vxlan(3000, { offset: 2000 })],
    [
      'the field is on the border of both slots',
      vxlan(3000, { offset: SMALL_SLOT_BYTES - VNET_BYTES - 1 - INNER_AT }),
    ],
    ['the field is beyond the frame', vxlan(100, { offset: 119 })],
    ['the start is beyond the frame', vxlan(100, { start: 0xffff, offset: 0xffff })],
    ['segments of TCP in a tunnel', vxlan(3000, { gsoType: VnetGso.tcpv4 })],
    ['segments of UDP in a tunnel', vxlan(3000, { gsoType: VnetGso.udpL4 })],
    ['a fragment', vxlan(100, { fragment: true })],
    ['a fragment, in its IP header', vxlan(100, { fragment: true, start: IP_AT, offset: 6 })],
  ])('%s: dropped and counted', (_name, frame) => {
    expect(through(frame)).toEqual({ drops: 1, got: undefined });
  });

  it('the frame is not IP: unchanged', () => {
    const frame = vxlan(100, { etherType: 0x0806, start: 0, offset: 12 });
    const { got } = through(frame);
    expect(Buffer.compare(got!.bytes, frame.subarray(VNET_BYTES))).toBe(0);
    expect(got!.hash).toBe(0);
  });
});
