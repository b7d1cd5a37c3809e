// @vitest: beside
/**
 * TCP flows that move to another lane: states that arrive from two lanes at a time, a table that is full, and
 * what comes between two steps of a move.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { COUNTER_WORDS, Counter } from '../../src/ring/counters.ts';
import { BUCKETS, PORTS, ROOM_WORDS } from '../../src/ring/layout.ts';
import { close } from '../../src/sys/io.ts';
import { Assembly } from '../../src/workers/assembly.ts';
import { engineMemory } from '../../src/workers/engine-memory.ts';
import type { TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { divideBuckets } from '../../src/workers/flow/flow-owner.ts';
import { FlowState } from '../../src/workers/flow/flow-state.ts';
import { FlowMover } from '../../src/workers/flow-mover.ts';
import type { HostIo } from '../../src/workers/host-io/host-io.ts';
import { acceptedWrite, movedFlowWrite } from '../../src/workers/link/to-shard.ts';
import { Notices } from '../../src/workers/thread/notices.ts';
import { TcpControlBlocks } from '../../src/workers/translator/tcp/control-blocks.ts';
import { tapPair } from '../hostile/path.ts';
import { addressWords } from '../support/packets.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const LANES = 3;
const FLOWS = 64;
const MSS = 1460;
/** Numbers of a flow's state behind its key: bytes each way, age. Then come control block and receive buffer. */
const NUMBERS = 3;
const KEEPALIVE_IDLE_MS = 7_200_000;

let fds: number[] = [];
afterEach(() => {
  for (const fd of fds) close(fd);
  fds = [];
});

/** Lanes of which the test plays all but the last one's shard. */
function rig() {
  const pairs = Array.from({ length: LANES }, tapPair);
  fds = pairs.flat();
  const [tap, ...moreQueues] = pairs.map(([engine]) => engine);
  const plan: TapEnginePlan = {
    ...TEST_PLAN,
    threads: { kind: 'lanes', lanes: LANES },
    pool: { smallSlots: 1024 * LANES, largeSlots: 256 * LANES, flows: FLOWS },
    tap: { fd: tap!, moreQueues, vnetHdrBytes: 12, uso: false },
  };
  const { sab, layout } = engineMemory(plan, { ringDescriptors: 1024, logBytes: 256 });
  const ownerTables = {
    laneOf: new Uint16Array(BUCKETS + 1),
    publishedUdp: new Uint16Array(PORTS),
    room: new Int32Array(ROOM_WORDS),
  };
  divideBuckets(ownerTables.laneOf, LANES);
  const assembly = new Assembly({ plan, sab, layout, ownerTables });
  const counters = new Float64Array(COUNTER_WORDS);
  const last = LANES - 1;
  const shard = assembly.shard(last, {
    counters,
    guestMac: new Uint8Array(6),
    notices: new Notices(() => {}),
    reader: undefined,
    seen: undefined,
  });
  const from = [0, 1].map((lane) => assembly.readerParts(lane).toShards[last]!);
  const { toShards } = assembly.readerParts(last);
  const host = assembly.hostParts(last);
  const accepted = assembly.hostParts(0).acceptedTo[last]!;
  return { shard, from, counters, owners: assembly.owners, host, accepted, toShards, last };
}

/** A bucket of the last lane, and hashes in it. */
const BUCKET = BUCKETS - 1;
const hashIn = (i: number): number => (0xffff_0000 + i) >>> 0;

/** The last lane has a connection, and is asked to give everything to the first one. */
function moving(hostIo: Partial<HostIo>, room = 1) {
  const r = rig();
  const done: number[] = [];
  const mover = new FlowMover({
    ...{ lane: r.last, shard: r.shard, owners: r.owners, toShards: r.toShards },
    hostIo: { poll: () => 0, isBehind: false, release: () => true, ...hostIo } as HostIo,
    onDone: (_, left) => void done.push(left),
  });
  r.owners.setRoom(0, room);
  expect(r.owners.reserveRoom(r.last, 1)).toBe(true);
  movedFlowWrite(r.from[0]!, stateOf(1001, 91, hashIn(1)).words);
  r.from[0]!.flush();
  r.shard.poll(1);
  expect(r.shard.flows.count).toBe(1);
  return { ...r, mover, done };
}

/** The state of a connection from a port of the guest. @param fd  its socket */
function stateOf(port: number, fd: number, hash = port * 0x10001, idleMs = 0): FlowState {
  const state = new FlowState();
  state.begin();
  state.words[0] = fd;
  state.put(hash);
  state.put((port << 16) >>> 0);
  for (const word of [...addressWords('10.0.2.15'), ...addressWords('198.51.100.7')]) state.put(word);
  for (let i = 0; i < NUMBERS; i++) state.putNumber(0);
  const tcb = new TcpControlBlocks(1);
  tcb.mss[0] = MSS;
  tcb.lastSeen[0] = -idleMs;
  tcb.save(0, state, 0);
  return state;
}

describe('the state of a flow', () => {
  it.each([1, 3, 5])('whose parts come before and behind those of another lane (%i before)', (before) => {
    const { shard, from, counters } = rig();
    const [first, second] = from as [(typeof from)[0], (typeof from)[0]];
    // The parts of the first one, one by one: flushed where the round of the shard ends.
    const parts: (readonly number[])[] = [];
    const words = new Uint32Array(16);
    movedFlowWrite(
      { words, reserve: () => 0, commit: () => void parts.push([...words]) } as never,
      stateOf(1001, 91).words,
    );
    const pass = (list: typeof parts): void => {
      for (const part of list) {
        const at = first.reserve();
        first.words.set(part, at);
        first.commit();
      }
      first.flush();
    };
    pass(parts.slice(0, before));
    shard.poll(1);
    movedFlowWrite(second, stateOf(1002, 92).words);
    second.flush();
    shard.poll(2);
    pass(parts.slice(before));
    shard.poll(3);
    expect(counters[Counter.flowsMoved]).toBe(2);
    const ports = Array.from(shard.flows.ports).filter((_, flow) => shard.flows.isLive(flow));
    expect(ports.map((word) => word >>> 16).sort()).toEqual([1001, 1002]);
  });
});

it('a connection that was idle before it moved gets its keep-alive probe when it would have', () => {
  const { from, shard, counters } = rig();
  const leftMs = 5000;
  movedFlowWrite(from[0]!, stateOf(1001, 91, undefined, KEEPALIVE_IDLE_MS - leftMs).words);
  from[0]!.flush();
  const now = performance.now();
  const framesAt = (ms: number): number => {
    shard.poll(now + ms);
    return counters[Counter.framesToGuest]!;
  };
  const first = framesAt(0);
  expect(framesAt(leftMs - 100)).toBe(first);
  expect(framesAt(leftMs + 100)).toBe(first + 1);
});

describe('the room of a lane', () => {
  it('is its table but an eighth; a flow that has come is in the table, and no longer on its way', () => {
    const { from, shard, owners, last } = rig();
    const most = FLOWS - FLOWS / 8;
    expect(owners.reserveRoom(last, most + 1)).toBe(false);
    expect(owners.reserveRoom(last, most)).toBe(true);
    expect(owners.reserveRoom(last, 1)).toBe(false);
    for (let i = 1; i <= most; i++) {
      movedFlowWrite(from[0]!, stateOf(1000 + i, 90 + i).words);
      from[0]!.flush();
      shard.poll(i);
    }
    expect(owners.reserveRoom(last, 1)).toBe(false);
    owners.setRoom(last, 1);
    expect(owners.reserveRoom(last, 1), 'nothing is on its way').toBe(true);
  });
});

describe('a bucket with flows', () => {
  it('moves with them', () => {
    const { mover, shard, owners, last } = moving({});
    mover.give({ to: [0], share: 1 }, 10);
    mover.poll(10);
    expect(shard.flows.count).toBe(0);
    expect([owners.laneOf(BUCKET), owners.nextOf(last, BUCKET)]).toEqual([last, 0]);
  });

  it('stays when a connection is accepted in it while it is about to move', () => {
    let acceptNow = (): undefined => {};
    const { mover, shard, owners, accepted, last } = moving({ poll: () => acceptNow() ?? 0 });
    acceptNow = () => {
      const [guest, peer] = [addressWords('10.0.2.15'), addressWords('198.51.100.9')];
      acceptedWrite(accepted, 92, 4, (40_000 << 16) | 80, hashIn(2), peer, 0, guest, 0);
      accepted.flush();
      acceptNow = () => undefined;
    };
    mover.give({ to: [0], share: 1 }, 10);
    for (let now = 10; now < 600; now += 5) mover.poll(now);
    expect(shard.flows.count).toBe(2);
    expect(owners.keeps(last, BUCKET)).toBe(true);
  });

  it('stays where the other lane has no room for it, until there is some', () => {
    const { mover, shard, owners, last } = moving({}, 0);
    mover.give({ to: [0], share: 1 }, 10);
    mover.poll(10);
    expect([shard.flows.count, owners.keeps(last, BUCKET)]).toEqual([1, true]);
    owners.setRoom(0, 1);
    mover.poll(20);
    expect([shard.flows.count, owners.keeps(last, BUCKET)]).toEqual([0, false]);
    expect(owners.reserveRoom(0, 1), 'the flow has not come yet').toBe(false);
    owners.endReservation(0, 1);
    expect(owners.reserveRoom(0, 1)).toBe(true);
  });

  it('that does not move after all leaves the room that was reserved for it', () => {
    const { mover, shard, owners } = moving({ release: () => false });
    mover.give({ to: [0], share: 1 }, 10);
    for (let now = 10; now < 600; now += 5) mover.poll(now);
    expect(shard.flows.count).toBe(1);
    expect(owners.reserveRoom(0, 1)).toBe(true);
  });

  it('waits while a ring between shard and host-io is full', () => {
    const host = { isBehind: true };
    const { mover, shard } = moving(host);
    mover.give({ to: [0], share: 1 }, 10);
    mover.poll(10);
    expect(shard.flows.count).toBe(1);
  });

  it('a request that comes just before the thread sleeps keeps it awake', () => {
    const { mover } = moving({});
    expect([mover.hasInput(), mover.sleepMs(10)]).toEqual([false, Number.POSITIVE_INFINITY]);
    mover.give({ to: [0], share: 0.5 }, 10);
    expect(mover.hasInput()).toBe(true);
    mover.poll(11);
    expect(mover.hasInput()).toBe(false);
    expect(mover.sleepMs(11)).toBeLessThanOrEqual(50);
  });
});
