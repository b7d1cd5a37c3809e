// @vitest: beside
/**
 * Readers of several lanes: frames of flows of another lane, fragments, and slots that come back.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { ETH_BYTES } from '../../src/proto/ethernet.ts';
import { IpProtocol } from '../../src/proto/ipv4.ts';
import { COUNTER_WORDS, Counter } from '../../src/ring/counters.ts';
import { BUCKETS, PORTS, ROOM_WORDS } from '../../src/ring/layout.ts';
import { NO_SLOT } from '../../src/ring/pool.ts';
import { RingConsumer } from '../../src/ring/spsc.ts';
import { close, write } from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import { Assembly } from '../../src/workers/assembly.ts';
import { engineMemory } from '../../src/workers/engine-memory.ts';
import type { TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { flowHash } from '../../src/workers/flow/flow-hash.ts';
import { divideBuckets } from '../../src/workers/flow/flow-owner.ts';
import { linkBytes, linkSlotA, linkSlotB, linkSlotOffset } from '../../src/workers/link/descriptor.ts';
import {
  frameBucket,
  frameHash,
  frameOffload,
  frameSetForwarded,
  offloadIsForwarded,
  offloadIsFragment,
  offloadIsReassembled,
} from '../../src/workers/link/to-shard.ts';
import { foreignLimit } from '../../src/workers/tap/tap-reader.ts';
import { Notices } from '../../src/workers/thread/notices.ts';
import { tapPair } from '../hostile/path.ts';
import { Prng } from '../support/netsim/prng.ts';
import { addressWords, ipPacket, pattern, udpPacket } from '../support/packets.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const GUEST = '10.0.2.15';
const REMOTE = '198.51.100.7';
const SMALL_FRAME = 100;
const LARGE_FRAME = 4000;
const MORE_FRAGMENTS = 0x2000;

let fds: number[] = [];
afterEach(() => {
  for (const fd of fds) close(fd);
  fds = [];
});

/** Readers on socket pairs; a test takes the place of the shards and host-io stages. */
function rig(lanes = 2) {
  const pairs = Array.from({ length: lanes }, tapPair);
  fds = pairs.flat();
  const [tap, ...moreQueues] = pairs.map(([engine]) => engine);
  const plan: TapEnginePlan = {
    ...TEST_PLAN,
    threads: { kind: 'lanes', lanes },
    pool: { smallSlots: 1024 * lanes, largeSlots: 256 * lanes, flows: 64 },
    tap: { fd: tap!, moreQueues, vnetHdrBytes: 0, uso: false },
  };
  const { sab, layout } = engineMemory(plan, { ringDescriptors: 1024, logBytes: 256 });
  const ownerTables = {
    laneOf: new Uint16Array(BUCKETS + 1),
    publishedUdp: new Uint16Array(PORTS),
    room: new Int32Array(ROOM_WORDS),
  };
  divideBuckets(ownerTables.laneOf, lanes);
  const assembly = new Assembly({ plan, sab, layout, ownerTables });
  const { owners, pool, shares } = assembly;
  const counters = new Float64Array(COUNTER_WORDS);
  const onFatal = (text: string): never => {
    throw new Error(text);
  };
  const readers = pairs.map((_, r) =>
    assembly.reader(r, { counters, notices: new Notices(() => {}), onFatal }),
  );
  const shards = pairs.map((_, s) => assembly.shardParts(s));
  const hosts = pairs.map((_, h) => assembly.hostParts(h));
  const out = new NativeBuffer(65_536);
  const send = (queue: number, ip: Uint8Array, bytes = ETH_BYTES + ip.length): void => {
    out.u8.fill(0, 0, bytes);
    out.u8.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], 0);
    out.u8.set(ip, ETH_BYTES);
    expect(write(pairs[queue]![1], out.address, bytes)).toBe(bytes);
    readers[queue]!.onReadable();
  };
  /** All readers read all frames. */
  const poll = (now = 0): void => {
    for (const reader of readers) while (reader.poll(now) > 0) reader.onReadable();
  };
  /** Made anew, it sees all descriptors that are not released. */
  const ringOf = (shard: number, reader: number): RingConsumer =>
    new RingConsumer(sab, layout, assembly.threads.ring.readerToShard(reader, shard));
  const frames = (shard: number, reader: number) => {
    const ring = ringOf(shard, reader);
    return Array.from({ length: ring.available() }, (_, i) => {
      const at = ring.at(i);
      const slotA = linkSlotA(ring.words, at);
      const from = pool.slotAt(slotA) + linkSlotOffset(ring.words, at);
      const bytes = linkBytes(ring.words, at);
      return {
        ...{ slotA, slotB: linkSlotB(ring.words, at), bytes, at, words: ring.words },
        ip: pool.u8.slice(from + ETH_BYTES, from + Math.min(bytes, 2000)),
        hash: frameHash(ring.words, at),
        bucket: frameBucket(ring.words, at),
        offload: frameOffload(ring.words, at),
      };
    });
  };
  /** Free the frames that a shard has of a reader, from the shard or from host-io. */
  const giveBack = (
    shard: number,
    reader: number,
    most = Infinity,
    from: 'shard' | 'host' = 'shard',
  ): void => {
    const ring = ringOf(shard, reader);
    const returns = from === 'shard' ? shards[shard]!.toReaders : hosts[shard]!.toReaders;
    const count = Math.min(most, ring.available());
    for (let i = 0; i < count; i++)
      returns.free(linkSlotA(ring.words, ring.at(i)), linkSlotB(ring.words, ring.at(i)));
    ring.release(count);
    returns.flush();
  };
  const handed = (): number[] => [counters[Counter.handedOver]!, counters[Counter.handOverFull]!];
  const limit = foreignLimit(shares.readerSmall[0]![1], shares.readerLarge[0]![1]);
  /** A UDP port of the guest whose flows a lane owns. */
  const portOf = (lane: number): number => {
    const ports = Array.from({ length: 1000 }, (_, i) => 20_000 + i);
    return ports.filter((port) => owners.of(0, IpProtocol.udp, port << 16) === lane)[0]!;
  };
  const udp = (lane: number, bytes = 20): Uint8Array =>
    udpPacket(GUEST, portOf(lane), REMOTE, 9, pattern(bytes));
  return {
    ...{ readers, shards, hosts, owners, ownerTables, pool, shares, counters, send, poll, frames },
    ...{ giveBack, handed, limit, portOf, udp, ringOf },
  };
}

type Rig = ReturnType<typeof rig>;

/** A TCP segment without a valid checksum: readers do not look at it. */
const tcp = (port: number): Uint8Array =>
  ipPacket(GUEST, REMOTE, 6, [port >> 8, port & 255, 0, 80, ...new Array<number>(16).fill(0)]);
const tcpHash = (port: number): number =>
  flowHash(
    TEST_PLAN.hashKey,
    addressWords(GUEST),
    0,
    addressWords(REMOTE),
    0,
    ((port << 16) | 80) >>> 0,
    IpProtocol.tcp,
  );

describe('a frame is passed to the lane that owns its flow', () => {
  it('TCP: by the hash, whichever queue it came by', () => {
    const { send, poll, frames, owners, handed } = rig();
    let wrong = 0;
    for (let i = 0; i < 100; i++) {
      const queue = i & 1;
      const port = 1000 + (i >> 1);
      send(queue, tcp(port));
      if (owners.ofHash(tcpHash(port)) !== queue) wrong++;
    }
    poll();
    for (const shard of [0, 1])
      for (const reader of [0, 1])
        for (const { hash, ip, bucket } of frames(shard, reader)) {
          const port = (ip[20]! << 8) | ip[21]!;
          expect([hash, owners.ofHash(hash)]).toEqual([tcpHash(port), shard]);
          expect(bucket).toBe(owners.bucketOfHash(hash));
        }
    expect(frames(0, 1).length + frames(1, 0).length).toBe(wrong);
    expect(handed()).toEqual([wrong, 0]);
    expect(wrong).toBe(50); // each flow came by both queues
  });

  it('UDP: by the port of the guest, whatever the peer', () => {
    const { send, poll, frames, portOf } = rig();
    for (let peer = 1; peer <= 20; peer++)
      send(0, udpPacket(GUEST, portOf(1), `198.51.100.${peer}`, peer, [1, 2]));
    poll();
    expect(frames(0, 0).length).toBe(0);
    expect(frames(1, 0).length).toBe(20);
    expect(new Set(frames(1, 0).map(({ hash }) => hash)).size).toBe(20);
    expect(new Set(frames(1, 0).map(({ bucket }) => bucket)).size).toBe(1);
  });

  it('UDP from a published port: the first lane', () => {
    const { send, poll, frames, udp, portOf, ownerTables } = rig();
    const datagram = udp(1);
    ownerTables.publishedUdp[portOf(1)] = 1;
    send(1, datagram);
    poll();
    expect(frames(0, 1).length).toBe(1);
  });

  it('what has no flow: the first lane', () => {
    const { send, poll, frames } = rig();
    send(1, ipPacket(GUEST, REMOTE, 99, [1, 2, 3]));
    send(1, ipPacket(GUEST, REMOTE, 2, [0x11, 0, 0, 0, 0, 0, 0, 0]));
    poll();
    expect(frames(0, 1).map(({ hash }) => hash)).toEqual([0, 0]);
  });

  it.each([0, 1])('an ICMP error about a UDP flow of lane %i: that lane', (lane) => {
    const { send, poll, frames, portOf } = rig();
    const quoted = udpPacket(REMOTE, 9, GUEST, portOf(lane), [1, 2, 3, 4]);
    for (const queue of [0, 1]) send(queue, ipPacket(GUEST, REMOTE, 1, [3, 3, 0, 0, 0, 0, 0, 0, ...quoted]));
    poll();
    expect([frames(lane, 0).length, frames(lane, 1).length]).toEqual([1, 1]);
    const hash = flowHash(
      TEST_PLAN.hashKey,
      addressWords(GUEST),
      0,
      addressWords(REMOTE),
      0,
      ((portOf(lane) << 16) | 9) >>> 0,
      IpProtocol.udp,
    );
    expect(frames(lane, 0)[0]!.hash).toBe(hash);
  });

  it('an ICMP error about a TCP flow: the lane of its hash', () => {
    const { send, poll, frames, owners } = rig();
    for (let port = 5000; port < 5020; port++) {
      const header = [0, 80, port >> 8, port & 255, 0, 0, 0, 1, ...new Array<number>(12).fill(0)];
      const quoted = ipPacket(REMOTE, GUEST, 6, header);
      send(0, ipPacket(GUEST, REMOTE, 1, [3, 4, 0, 0, 0, 0, 4, 0, ...quoted]));
    }
    poll();
    const ports = (shard: number): number[] =>
      frames(shard, 0).map(({ ip }) => (ip[20 + 8 + 20 + 2]! << 8) | ip[20 + 8 + 20 + 3]!);
    const all = Array.from({ length: 20 }, (_, i) => 5000 + i);
    const of = (lane: number) => all.filter((port) => owners.ofHash(tcpHash(port)) === lane);
    expect([ports(0), ports(1)]).toEqual([of(0), of(1)]);
  });
});

/** Lengths of the frames that a shard has of a reader, by which the tests below know them. */
const lengths = (r: Rig, shard: number, reader: number): number[] =>
  r.frames(shard, reader).map(({ bytes }) => bytes);
const FIRST = ETH_BYTES + 28 + 20;
const range = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => from + i);
/** Frames of a lane's flow that are one byte longer each. */
const sendNumbered = (r: Rig, lane: number, count: number, from = 0): void => {
  for (const i of range(count, from)) r.send(0, r.udp(lane, 20 + i));
};
/** How many small frames of its own the first lane's reader takes before it has no slot. One is left unread. */
function ownRoom(r: Rig): number {
  const there = (): number => r.ringOf(0, 0).available();
  const had = there();
  for (let before = -1; before < there(); ) {
    before = there();
    r.send(0, r.udp(0));
    r.poll();
  }
  return there() - had;
}

describe('slots that other lanes have', () => {
  it('small ones: at most so many; further frames wait, own flows go on', () => {
    const r = rig();
    sendNumbered(r, 1, r.limit.small + 30);
    r.poll();
    expect(lengths(r, 1, 0)).toEqual(range(r.limit.small, FIRST));
    for (let i = 0; i < 50; i++) r.send(0, r.udp(0));
    r.poll();
    expect(r.frames(0, 0).length).toBe(50);
    expect(r.handed()).toEqual([r.limit.small + 30, 0]);
  });

  it('large ones: at most so many; small frames behind them wait too', () => {
    const r = rig();
    for (let i = 0; i < r.limit.large + 2; i++) r.send(0, r.udp(1), LARGE_FRAME + i);
    sendNumbered(r, 1, 7);
    r.poll();
    expect(lengths(r, 1, 0)).toEqual(range(r.limit.large, LARGE_FRAME));
    r.giveBack(1, 0, 1);
    r.poll();
    expect(lengths(r, 1, 0)).toEqual(range(r.limit.large, LARGE_FRAME + 1));
    r.giveBack(1, 0, 1);
    r.poll();
    expect(lengths(r, 1, 0)).toEqual([...range(r.limit.large, LARGE_FRAME + 2), ...range(7, FIRST)]);
    expect(r.handed()).toEqual([r.limit.large + 9, 0]);
  });

  it.each(['shard', 'host'] as const)(
    'come back from the %s of that lane: frames that wait go on, in order, and no more than there is room for',
    (from) => {
      const r = rig();
      sendNumbered(r, 1, r.limit.small + 100);
      r.poll();
      for (let back = 1, gone = 0; gone < 100; back += 3) {
        r.giveBack(1, 0, back, from);
        r.poll();
        gone += back;
        const there = Math.min(r.limit.small, r.limit.small + 100 - gone);
        expect(lengths(r, 1, 0)).toEqual(range(there, FIRST + gone));
      }
      expect(r.handed()).toEqual([r.limit.small + 100, 0]);
    },
  );

  it('a frame that comes while others wait is behind them, though there is room', () => {
    const r = rig();
    sendNumbered(r, 1, r.limit.small + 10);
    r.poll();
    // More than wait, in the same round as a further frame.
    r.giveBack(1, 0, 20);
    sendNumbered(r, 1, 5, r.limit.small + 10);
    r.poll();
    expect(lengths(r, 1, 0)).toEqual(range(r.limit.small - 5, FIRST + 20));
    expect(r.handed()).toEqual([r.limit.small + 15, 0]);
  });

  it('none comes back for 100 ms: those that wait are lost, counted, and leave their slots', () => {
    const r = rig();
    const START_MS = 1000;
    r.poll(START_MS);
    sendNumbered(r, 1, r.limit.small + 30);
    r.poll(START_MS);
    const waits = (now: number): number => r.readers[0]!.sleepMs(now);
    expect(waits(START_MS + 40)).toBe(60);
    r.giveBack(1, 0, 1);
    r.poll(START_MS + 50);
    expect(waits(START_MS + 50)).toBe(100);
    r.poll(START_MS + 149.9);
    expect(r.handed()).toEqual([r.limit.small + 30, 0]);
    r.poll(START_MS + 150);
    expect(r.handed()).toEqual([r.limit.small + 30, 29]);
    expect(waits(START_MS + 150)).toBe(Infinity);
    expect(lengths(r, 1, 0)).toEqual(range(r.limit.small, FIRST + 1));
    expect(ownRoom(r)).toBe(r.shares.readerSmall[0]![1] - r.limit.small);
  });

  it('the 100 ms begin anew with the first frame that waits', () => {
    const r = rig();
    sendNumbered(r, 1, r.limit.small + 1);
    r.poll(1000);
    r.poll(1100);
    expect(r.handed()).toEqual([r.limit.small + 1, 1]);
    sendNumbered(r, 1, 1);
    r.poll(1150);
    r.poll(1249);
    expect(r.handed()).toEqual([r.limit.small + 2, 1]);
    r.poll(1250);
    expect(r.handed()).toEqual([r.limit.small + 2, 2]);
  });

  it('half of the small slots are in use: frames that wait are lost until it is less; later ones at once', () => {
    const r = rig();
    const [, small] = r.shares.readerSmall[0]!;
    const half = small >>> 1;
    sendNumbered(r, 1, r.limit.small + 100);
    r.poll();
    expect(r.handed()).toEqual([r.limit.small + 100, 0]);
    // Own frames, which nothing gives back, until three quarters of the slots are in use.
    const own = half + (half >> 1) - r.limit.small - 100;
    for (let i = 0; i < own; i++) {
      r.send(0, r.udp(0));
      if (i % 50 === 49) r.poll();
    }
    r.poll();
    expect(r.frames(0, 0).length).toBe(own);
    const [, lost] = r.handed();
    expect(lost).toBe(100);
    sendNumbered(r, 1, 3);
    r.poll();
    expect(r.handed()).toEqual([r.limit.small + 103, 103]);
    expect(ownRoom(r)).toBe(small - r.limit.small - own);
    // With enough slots again frames wait again.
    r.giveBack(0, 0);
    r.poll();
    sendNumbered(r, 1, 3);
    r.poll();
    expect(r.handed()).toEqual([r.limit.small + 106, 103]);
  });

  it('half of the large slots are in use: as many frames wait as before that', () => {
    const r = rig();
    const [, large] = r.shares.readerLarge[0]!;
    for (let i = 0; i < large; i++) {
      r.send(0, r.udp(1), LARGE_FRAME);
      if (i % 20 === 19) r.poll();
    }
    r.poll();
    const [handed, lost] = r.handed();
    expect(handed).toBe(large);
    expect(large - lost! - r.limit.large).toBeLessThanOrEqual((large + 1) >>> 1);
    expect(r.frames(1, 0).length).toBe(r.limit.large);
    expect(r.counters[Counter.poolDry]).toBe(0);
  });

  it('frames that are lost leave their slots: many times as many as there are slots', () => {
    const { send, poll, frames, udp, limit, shares } = rig();
    const many = 3 * shares.readerSmall[0]![1];
    for (let i = 0; i < many; i++) {
      send(0, udp(1), i % 3 === 0 ? LARGE_FRAME : SMALL_FRAME);
      if (i % 50 === 49) poll(i);
    }
    poll(many);
    expect(frames(1, 0).length).toBeLessThanOrEqual(limit.small);
    send(0, udp(0), LARGE_FRAME);
    poll(many);
    expect(frames(0, 0).length).toBe(1);
  });

  it.each(['shard', 'host'] as const)(
    'come back from the %s of that lane: as many are handed over again',
    (from) => {
      const { send, poll, frames, udp, handed, limit, giveBack } = rig();
      for (let round = 1; round <= 5; round++) {
        for (let i = 0; i < limit.small - limit.large; i++) send(0, udp(1), SMALL_FRAME);
        for (let i = 0; i < limit.large; i++) send(0, udp(1), LARGE_FRAME);
        poll();
        expect(frames(1, 0).length).toBe(limit.small);
        giveBack(1, 0, Infinity, from);
        expect(handed()).toEqual([round * limit.small, 0]);
      }
    },
  );

  it('the slots of one frame come back one by one', () => {
    const r = rig();
    const { limit } = r;
    for (let i = 0; i < limit.large; i++) r.send(0, r.udp(1), LARGE_FRAME);
    r.poll();
    const { toReaders } = r.shards[1]!;
    const before = r.frames(1, 0);
    for (const { slotA } of before) toReaders.free(slotA, NO_SLOT);
    toReaders.flush();
    r.ringOf(1, 0).release(before.length);
    for (let i = 0; i < limit.large; i++) r.send(0, r.udp(1), LARGE_FRAME + 1);
    r.poll();
    expect(r.frames(1, 0).length).toBe(0);
    for (const { slotB } of before) toReaders.free(NO_SLOT, slotB);
    toReaders.flush();
    r.poll();
    expect(lengths(r, 1, 0)).toEqual(new Array<number>(limit.large).fill(LARGE_FRAME + 1));
    expect(r.handed()).toEqual([2 * limit.large, 0]);
  });

  it('slots that come back from the own lane do not count', () => {
    const { send, poll, frames, udp, handed, limit, giveBack } = rig();
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < limit.small; i++) send(0, udp(0));
      poll();
      giveBack(0, 0, Infinity, round & 1 ? 'shard' : 'host');
    }
    for (let i = 0; i < limit.small + 3; i++) send(0, udp(1));
    poll();
    expect(frames(1, 0).length).toBe(limit.small);
    expect(handed()).toEqual([limit.small + 3, 0]);
  });

  it('of three lanes: those that both others have count together', () => {
    const { send, poll, frames, udp, handed, limit, giveBack } = rig(3);
    for (let i = 0; i < limit.small; i++) send(1, udp(i & 1 ? 0 : 2));
    for (let i = 0; i < 4; i++) send(1, udp(0));
    poll();
    const both = (): number[] => [frames(0, 1).length, frames(2, 1).length];
    expect(both()).toEqual([limit.small / 2, limit.small / 2]);
    giveBack(2, 1, 3);
    poll();
    expect(both()).toEqual([limit.small / 2 + 3, limit.small / 2 - 3]);
    expect(handed()).toEqual([limit.small + 4, 0]);
  });
});

describe('a frame that waits while its bucket changes lanes', () => {
  /** The first lane's reader, full towards lane 1, with numbered frames that wait. */
  function full(lanes: number, waiting: number): Rig {
    const r = rig(lanes);
    sendNumbered(r, 1, r.limit.small + waiting);
    r.poll();
    return r;
  }
  const moveAll = (r: Rig, lane: number): void =>
    void (r.ownerTables.laneOf[r.frames(1, 0)[0]!.bucket] = lane);

  it('to this lane: it goes to the own shard, and is not counted as away', () => {
    const r = full(2, 10);
    moveAll(r, 0);
    r.poll();
    expect(lengths(r, 0, 0)).toEqual(range(10, FIRST + r.limit.small));
    expect(r.frames(0, 0).some(({ offload }) => offloadIsForwarded(offload))).toBe(false);
    moveAll(r, 1);
    r.giveBack(1, 0);
    sendNumbered(r, 1, r.limit.small + 5);
    r.poll();
    expect(r.frames(1, 0).length).toBe(r.limit.small);
    expect(r.handed()[1]).toBe(0);
  });

  it('to a third lane: it waits on, and goes there', () => {
    const r = full(3, 10);
    moveAll(r, 2);
    r.poll();
    expect(r.frames(2, 0).length).toBe(0);
    r.giveBack(1, 0, 4);
    r.poll();
    expect(lengths(r, 2, 0)).toEqual(range(4, FIRST + r.limit.small));
    r.giveBack(1, 0);
    r.poll();
    expect(lengths(r, 2, 0)).toEqual(range(10, FIRST + r.limit.small));
  });

  it('on its way to this lane: it still goes to the owner, which passes it on', () => {
    const r = full(2, 10);
    r.owners.beginMove(r.frames(1, 0)[0]!.bucket, 0);
    r.giveBack(1, 0);
    r.poll();
    expect(lengths(r, 1, 0)).toEqual(range(10, FIRST + r.limit.small));
    expect(r.frames(0, 0).length).toBe(0);
  });

  it('the shard had passed it on: back at the own shard it does not count as one that came back', () => {
    const r = rig();
    const count = r.limit.small + 10;
    for (let i = 0; i < count; i++) r.send(0, r.udp(0, 20 + i));
    r.poll();
    const list = r.frames(0, 0);
    const { bucket } = list[0]!;
    r.ownerTables.laneOf[bucket] = 1;
    for (const { words, at } of list) {
      frameSetForwarded(words, at); // as the shard does
      expect(r.readers[0]!.forward(0, words, at)).toBe(true);
    }
    r.ringOf(0, 0).release(count);
    r.ownerTables.laneOf[bucket] = 0;
    r.poll();
    const back = r.frames(0, 0);
    expect(lengths(r, 0, 0)).toEqual(range(10, FIRST + r.limit.small));
    expect(back.filter(({ offload }) => offloadIsForwarded(offload))).toEqual([]);
    expect(r.frames(1, 0).length).toBe(r.limit.small);
    expect(r.handed()).toEqual([count, 0]);
  });

  it('whatever comes and goes: never more than the limit away, none lost, none twice', () => {
    const prng = new Prng(14);
    const r = rig(3);
    const got: number[] = [];
    let sent = 0;
    let most = 0;
    const take = (shard: number, count: number): void => {
      got.push(...lengths(r, shard, 0).slice(0, count));
      r.giveBack(shard, 0, count, prng.pick(['shard', 'host'] as const));
    };
    const bucket = r.owners.bucketOfUdp(r.portOf(1));
    const first = r.udp(1, 20);
    for (let round = 0; round < 400; round++) {
      for (const end = sent + prng.int(0, 12); sent < end; sent++) r.send(0, first, FIRST + (sent % 1400));
      r.poll(round);
      most = Math.max(most, r.frames(1, 0).length + r.frames(2, 0).length);
      if (prng.chance(0.2)) r.ownerTables.laneOf[bucket] = prng.pick([0, 1, 2]);
      for (const shard of [0, 1, 2]) if (prng.chance(0.4)) take(shard, prng.int(0, 20));
    }
    for (let end = 0; end < 200; end++) {
      r.poll(400);
      for (const shard of [0, 1, 2]) take(shard, Infinity);
    }
    expect(most).toBeLessThanOrEqual(r.limit.small);
    expect(most).toBe(r.limit.small);
    expect(r.handed()[1]).toBe(0);
    expect(got.length).toBe(sent);
    // Each frame once: the numbers repeat after 1400 of them.
    const seen = new Map<number, number>();
    for (const bytes of got) seen.set(bytes, (seen.get(bytes) ?? 0) + 1);
    for (const i of range(Math.min(sent, 1400)))
      expect(seen.get(FIRST + i)).toBe(Math.floor((sent - 1 - i) / 1400) + 1);
    expect(ownRoom(r)).toBe(r.shares.readerSmall[0]![1]);
  });
});

describe('fragments', () => {
  const PARTS = 4;
  /** A datagram from a port in PARTS fragments. */
  function cut(port: number, ident = 7): { readonly fragments: Uint8Array[]; readonly whole: Uint8Array } {
    const whole = udpPacket(GUEST, port, REMOTE, 9, pattern(PARTS * 800 - 8)).slice(20);
    const fragments = Array.from({ length: PARTS }, (_, i) =>
      ipPacket(GUEST, REMOTE, 17, whole.subarray(i * 800, (i + 1) * 800), {
        ident,
        flagsFrag: (i < PARTS - 1 ? MORE_FRAGMENTS : 0) | (i * 100),
      }),
    );
    return { fragments, whole };
  }
  /** The first lane's shard passes the fragments that it has of another reader to its own. */
  function take(r: Rig, reader: number): void {
    for (const { slotA, slotB, words, at, bytes } of r.frames(0, reader))
      r.readers[0]!.takeFragment(slotA, slotB, linkSlotOffset(words, at), bytes, 0);
    r.giveBack(0, reader);
  }

  it('that another reader reads go to the first shard, marked', () => {
    const r = rig();
    const { fragments } = cut(r.portOf(1));
    for (const fragment of fragments) r.send(1, fragment);
    r.poll();
    const got = r.frames(0, 1);
    expect(got.map(({ ip }) => ip)).toEqual(fragments);
    expect(got.every(({ offload, hash }) => offloadIsFragment(offload) && hash === 0)).toBe(true);
    expect(r.counters[Counter.fragmentsReassembled]).toBe(0);
    expect(r.handed()).toEqual([PARTS, 0]);
  });

  it.each([
    [0, [0, 0, 0, 0]],
    [0, [1, 1, 1, 1]],
    [1, [0, 1, 0, 1]],
    [1, [1, 0, 0, 1]],
    [2, [1, 2, 0, 2]],
  ])('of a datagram of lane %i, read by readers %j: reassembled for that lane', (lane, queues) => {
    const r = rig(3);
    const { fragments, whole } = cut(r.portOf(lane));
    fragments.forEach((fragment, i) => {
      r.send(queues[i]!, fragment);
      r.poll();
      for (const reader of [1, 2]) take(r, reader);
    });
    const got = r.frames(lane, 0);
    expect(got.length).toBe(1);
    expect(offloadIsReassembled(got[0]!.offload)).toBe(true);
    expect(offloadIsFragment(got[0]!.offload)).toBe(false);
    expect(got[0]!.bytes).toBe(ETH_BYTES + 20 + whole.length);
    expect(Buffer.compare(got[0]!.ip.subarray(20), whole.subarray(0, got[0]!.ip.length - 20))).toBe(0);
    expect(r.counters[Counter.fragmentsReassembled]).toBe(1);
  });

  it('too many whole datagrams of another lane: they wait, then are lost, and their slots are free again', () => {
    const r = rig();
    const { large } = r.limit;
    const total = r.shares.readerLarge[0]![1];
    const many = 2 * total;
    for (let ident = 1; ident <= many; ident++) {
      for (const fragment of cut(r.portOf(1), ident).fragments) r.send(0, fragment);
      r.poll();
    }
    expect(r.frames(1, 0).length).toBe(large);
    const waiting = many - large - r.handed()[1]!;
    expect(waiting).toBeGreaterThan(0);
    expect(waiting).toBeLessThanOrEqual(total >>> 1);
    r.poll(100);
    expect(r.handed()).toEqual([many, many - large]);
    expect(r.counters[Counter.fragmentsReassembled]).toBe(many);
    expect(r.counters[Counter.poolDry]).toBe(0);
  });
});

describe('a frame whose bucket was given away on its way', () => {
  const bucketTo = (r: ReturnType<typeof rig>, bucket: number, lane: number): void => {
    r.ownerTables.laneOf[bucket] = lane;
  };

  it('is passed on to the new owner, as it was', () => {
    const r = rig(3);
    r.send(0, r.udp(1));
    r.poll();
    const frame = r.frames(1, 0)[0]!;
    bucketTo(r, frame.bucket, 2);
    expect(r.readers[1]!.forward(0, frame.words, frame.at)).toBe(true);
    const { slotA, slotB, bytes, hash, bucket, offload } = frame;
    expect(r.frames(2, 1)).toMatchObject([{ slotA, slotB, bytes, hash, bucket, offload }]);
    expect(r.handed()).toEqual([1, 0]);
    // Its slots go back to the reader that read it, which counted them once.
    r.giveBack(2, 1);
    for (let i = 0; i < r.limit.small; i++) r.send(0, r.udp(0));
    r.poll();
    expect(r.counters[Counter.handOverFull]).toBe(0);
  });

  it("of the lane's own reader: counted as handed over", () => {
    const r = rig();
    const count = r.limit.small + 4;
    for (let i = 0; i < count; i++) r.send(0, r.udp(0));
    r.poll();
    const list = r.frames(0, 0);
    bucketTo(r, list[0]!.bucket, 1);
    const passed = list.map(({ words, at }) => r.readers[0]!.forward(0, words, at));
    expect(passed).toEqual(list.map(() => true));
    expect(r.handed()).toEqual([count, 0]);
    expect(r.frames(1, 0).length).toBe(r.limit.small);
    r.giveBack(1, 0);
    r.send(0, r.udp(1));
    r.poll();
    expect(r.frames(1, 0).length).toBe(5); // four had waited
    expect(r.handed()).toEqual([count + 1, 0]);
  });

  it('and comes back while the frame waits: its slots are not counted as given back', () => {
    const r = rig();
    const fill = (count: number): void => {
      for (let i = 0; i < count; i++) r.send(0, r.udp(1));
      r.poll();
    };
    r.send(0, r.udp(0));
    r.poll();
    const frame = r.frames(0, 0)[0]!;
    fill(r.limit.small);
    bucketTo(r, frame.bucket, 1);
    frameSetForwarded(frame.words, frame.at);
    expect(r.readers[0]!.forward(0, frame.words, frame.at)).toBe(true);
    r.giveBack(0, 0, 1);
    bucketTo(r, frame.bucket, 0);
    r.poll();
    const [back] = r.frames(0, 0);
    expect(back).toMatchObject({ slotA: frame.slotA });
    expect(offloadIsForwarded(back!.offload)).toBe(false);
  });

  it('to the lane that read it: passed on, and its shard says that the slots came back', () => {
    const r = rig();
    r.send(0, r.udp(1));
    r.poll();
    const frame = r.frames(1, 0)[0]!;
    bucketTo(r, frame.bucket, 0);
    expect(r.readers[1]!.forward(0, frame.words, frame.at)).toBe(true);
    expect(r.frames(0, 1)).toMatchObject([{ slotA: frame.slotA, bytes: frame.bytes }]);
    bucketTo(r, frame.bucket, 1);
    const fill = (count: number): void => {
      for (let i = 0; i < count; i++) r.send(0, r.udp(1));
      r.poll();
    };
    // The first frame is still in the ring of the test's shard.
    fill(r.limit.small);
    expect(r.frames(1, 0).length).toBe(r.limit.small);
    r.readers[0]!.cameBack(frame.slotA, frame.slotB);
    r.giveBack(0, 1);
    r.poll();
    expect(r.frames(1, 0).length).toBe(r.limit.small + 1);
    fill(1);
    expect(r.frames(1, 0).length).toBe(r.limit.small + 1);
  });
});
