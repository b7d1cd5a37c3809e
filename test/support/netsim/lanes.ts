/**
 * Several lanes on virtual time, whose flows move: readers, shards and flow movers are the real ones, each lane
 * has a fake host-io stage, and a socket pair in place of its queue of the TAP.
 *
 *   fromGuest(frame) ─▶ any queue ─▶ TapReader ─▶ Shard ─▶ FakeHost
 *   onFrame(frame) ◀──── any queue ◀───────────────┘           FlowMover, at random times
 *
 * A lane's round may come any time after the event that causes it, as that of a thread of its own. Lanes have
 * clocks of their own, which differ.
 */
import { COUNTER_WORDS, Counter } from '../../../src/ring/counters.ts';
import { BUCKETS, PORTS, ROOM_WORDS } from '../../../src/ring/layout.ts';
import type { SlotStack } from '../../../src/ring/pool.ts';
import {
  AF_UNIX,
  SO_SNDBUF,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_SEQPACKET,
  SOL_SOCKET,
} from '../../../src/sys/constants.ts';
import { close, read, write } from '../../../src/sys/io.ts';
import { NativeBuffer } from '../../../src/sys/memory.ts';
import { setsockoptInt, socketpair } from '../../../src/sys/socket.ts';
import { Assembly } from '../../../src/workers/assembly.ts';
import { engineMemory } from '../../../src/workers/engine-memory.ts';
import type { TapEnginePlan } from '../../../src/workers/engine-plan.ts';
import { divideBuckets } from '../../../src/workers/flow/flow-owner.ts';
import { FLOW_FIELDS, FlowField, flowPage } from '../../../src/workers/flow/flow-report.ts';
import { FlowMover } from '../../../src/workers/flow-mover.ts';
import { TapReader } from '../../../src/workers/tap/tap-reader.ts';
import { Notices } from '../../../src/workers/thread/notices.ts';
import type { Shard } from '../../../src/workers/translator/shard.ts';
import { ADDRESSES, RIG_POLICY, type SimOptions, type Simulated } from './engine.ts';
import { FakeHost, type FakeSocket } from './fake-host.ts';
import type { Prng } from './prng.ts';
import { ETH, VNET } from './wire.ts';

const FRAME_MAX_BYTES = 300_000;

export interface LaneOptions {
  readonly lanes: number;
  readonly prng: Prng;
  /** About how often a lane is asked to give its flows away; 0: never. */
  readonly moveMs: number;
  /** Probability that a lane is asked for half of its traffic, for which it is measured first. */
  readonly spread?: number;
  /** Descriptors of each ring, a power of two: few, so that rings are full at times. */
  readonly ringDescriptors?: number;
  /** Probability that a frame of the guest comes by any queue, not by the one that its flow has. */
  readonly otherQueue?: number;
}

interface Lane {
  readonly reader: TapReader;
  readonly shard: Shard;
  readonly host: FakeHost;
  readonly mover: FlowMover;
  /** Added to the time of the simulation. */
  readonly aheadMs: number;
  planned: boolean;
  timerAt: number;
  requests: number;
}

interface Slots {
  readonly smallSlots: SlotStack;
  readonly largeSlots: SlotStack;
}

/** @returns the two ends of a pair that carries one frame per message */
function queuePair(): readonly [engine: number, guest: number] {
  const pair = new NativeBuffer(8);
  const r = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair.address);
  if (r < 0) throw new Error(`socketpair: errno ${-r}`);
  for (const fd of [pair.i32[0]!, pair.i32[1]!]) setsockoptInt(fd, SOL_SOCKET, SO_SNDBUF, 4 << 20);
  return [pair.i32[0]!, pair.i32[1]!];
}

export class SimLanes implements Simulated {
  readonly counters = new Float64Array(COUNTER_WORDS);
  /** Requests that a mover has carried out. */
  given = 0;
  readonly #o: SimOptions;
  readonly #lane: LaneOptions;
  readonly #lanes: Lane[];
  readonly #fds: readonly (readonly [engine: number, guest: number])[];
  readonly #readerSlots: readonly Slots[];
  readonly #hostSlots: readonly Slots[];
  /** Sockets on their way from lane to lane. */
  readonly #moved = new Map<number, FakeSocket>();
  readonly #out = new NativeBuffer(FRAME_MAX_BYTES);
  readonly #in = new NativeBuffer(FRAME_MAX_BYTES);
  readonly #keep: unknown;
  /** By port of the guest: the queue by which the flow's last frame to the guest came (the kernel's tun_flow_update). */
  readonly #queues = new Map<number, number>();
  #closed = false;

  constructor(o: SimOptions, lane: LaneOptions) {
    this.#o = o;
    this.#lane = lane;
    const { lanes, prng } = lane;
    this.#fds = Array.from({ length: lanes }, queuePair);
    const [tap, ...moreQueues] = this.#fds.map(([engine]) => engine);
    const plan: TapEnginePlan = {
      threads: { kind: 'lanes', lanes },
      addresses: { ...ADDRESSES, mtu: o.mtu ?? 1500, ...o.addresses },
      policy: { ...RIG_POLICY, ...o.policy },
      listeners: [],
      pool: {
        smallSlots: lanes * (o.smallSlots ?? 1024),
        largeSlots: lanes * (o.largeSlots ?? 129),
        flows: o.flows ?? 16,
      },
      tap: {
        ...{ fd: tap!, moreQueues, vnetHdrBytes: (o.vnet ?? true) ? 12 : 0, uso: false },
        bigTcp: o.bigTcp ?? false,
      },
      hashKey: [prng.u32(), prng.u32()],
      isnKey: o.isnKey ?? [3, 4, 5, 6],
      debugOwnership: true,
      logLevel: 'debug',
    };
    const { sab, layout } = engineMemory(plan, {
      ringDescriptors: lane.ringDescriptors ?? 256,
      logBytes: 256,
    });
    this.#keep = sab;
    const ownerTables = {
      laneOf: new Uint16Array(BUCKETS + 1),
      publishedUdp: new Uint16Array(PORTS),
      room: new Int32Array(ROOM_WORDS),
    };
    divideBuckets(ownerTables.laneOf, lanes);
    const assembly = new Assembly({ plan, sab, layout, ownerTables });
    const { owners, pool, ownership } = assembly;
    const { counters } = this;
    const guestMac = Uint8Array.of(2, 0, 0, 0, 0, 0x67);
    const notices = new Notices(() => {});
    const moved = this.#moved;
    const numbers = Array.from({ length: lanes }, (_, i) => i);
    const readerParts = numbers.map((i) => assembly.readerParts(i));
    const hostParts = numbers.map((i) => assembly.hostParts(i));
    this.#readerSlots = readerParts;
    this.#hostSlots = hostParts;
    const onFatal = (text: string): never => {
      throw new Error(text);
    };
    this.#lanes = numbers.map((i) => {
      const aheadMs = i === 0 ? 0 : prng.pick([-0.5, 1, -900, 5000]) * prng.unit();
      const reader = new TapReader({ ...readerParts[i]!, plan, counters, notices, onFatal });
      // A shard starts its clock when it is created.
      const clock = performance.now;
      performance.now = () => o.clock.now + aheadMs;
      const shard = assembly.shard(i, { counters, guestMac, notices, reader });
      performance.now = clock;
      const host = new FakeHost({
        ...{ clock: o.clock, pool, ownership, slots: hostParts[i]!.largeSlots, moved },
        fromShard: hostParts[i]!.fromShards[0]!,
        toShard: hostParts[i]!.toShards[0]!,
        toReaders: hostParts[i]!.toReaders,
        onOpen: o.onOpen,
        wake: () => this.#plan(i),
      });
      const mover = new FlowMover({
        ...{ lane: i, shard, owners, toShards: readerParts[i]!.toShards },
        hostIo: {
          poll: () => (host.poll() ? 1 : 0),
          release: (flow, state) => host.release(flow, state),
          get isBehind() {
            return host.isBehind;
          },
        },
        onDone: () => {
          this.given++;
          this.#lanes[i]!.requests--;
        },
      });
      return { reader, shard, host, mover, aheadMs, planned: false, timerAt: Infinity, requests: 0 };
    });
    if (lane.moveMs > 0) this.#planMove();
  }

  get openSockets(): number {
    return this.#lanes.reduce((n, { host }) => n + host.sockets.size, this.#moved.size);
  }

  get liveFlows(): number {
    return this.#lanes.reduce((n, { shard }) => n + shard.flows.count, 0);
  }

  get moved(): number {
    return this.counters[Counter.flowsMoved]!;
  }

  /** @throws Error when two lanes have a flow with the same ports */
  checkFlows(): void {
    const seen = new Set<string>();
    for (const { shard } of this.#lanes) {
      const { rows } = flowPage(shard, 0, shard.flows.maxFlows);
      for (let at = 0; at < rows.length; at += FLOW_FIELDS) {
        const key = rows.subarray(at + FlowField.guestAddress, at + FlowField.remotePort + 1).join(' ');
        if (seen.has(key)) throw new Error(`two lanes have the flow ${key}`);
        seen.add(key);
      }
    }
  }

  fromGuest(frame: Uint8Array): void {
    const { lanes, prng, otherQueue = 0.01 } = this.#lane;
    const learnt = this.#queues.get(this.#port(frame, 0)) ?? 0;
    const queue = prng.chance(otherQueue) ? prng.int(0, lanes - 1) : learnt;
    this.#out.u8.set(frame);
    // EAGAIN: the TAP's queue is full, and the frame is lost.
    write(this.#fds[queue]![1], this.#out.address, frame.length);
    this.#lanes[queue]!.reader.onReadable();
    this.#plan(queue);
  }

  /** Ask a lane for its flows, and again after a while. */
  #planMove(): void {
    const { prng, moveMs, lanes } = this.#lane;
    this.#o.clock.after(moveMs * 2 * prng.unit(), () => {
      if (this.#closed) return;
      const from = prng.int(0, lanes - 1);
      const lane = this.#lanes[from]!;
      const { count } = lane.shard.flows;
      const others = this.#lanes.map((_, i) => i).filter((i) => i !== from);
      // Without flows: seldom, as it costs time.
      if (lane.requests === 0 && (count > 0 || prng.chance(0.01))) {
        lane.requests++;
        lane.mover.give(
          { to: others, share: prng.chance(this.#lane.spread ?? 0.01) ? 0.5 : 1 },
          this.#o.clock.now + lane.aheadMs,
        );
        this.#plan(from);
      }
      this.#planMove();
    });
  }

  #plan(i: number): void {
    const lane = this.#lanes[i]!;
    if (lane.planned || this.#closed) return;
    lane.planned = true;
    this.#o.clock.after((this.#o.roundMs ?? 0.02) * this.#lane.prng.unit(), () => {
      lane.planned = false;
      if (!this.#closed) this.#poll(lane, i);
    });
  }

  #poll(lane: Lane, i: number): void {
    const { reader, shard, host, mover } = lane;
    const now = this.#o.clock.now + lane.aheadMs;
    reader.onReadable();
    let work = reader.poll(now);
    work += shard.poll(now);
    if (host.poll()) work++;
    work += mover.poll(now);
    work += shard.poll(now);
    this.#takeFrames(i);
    if (shard.hasInput() || reader.hasInput()) this.#plan(i);
    // What this lane wrote may be for any other.
    if (work > 0) {
      this.checkFlows();
      for (let other = 0; other < this.#lanes.length; other++) this.#plan(other);
    }
    const ms = Math.min(reader.sleepMs(now), shard.sleepMs(now), mover.sleepMs(now));
    const at = this.#o.clock.now + Math.max(0, ms);
    if (at === Number.POSITIVE_INFINITY) return;
    if (at >= lane.timerAt && lane.timerAt > this.#o.clock.now) return;
    lane.timerAt = at;
    this.#o.clock.after(at - this.#o.clock.now, () => {
      if (lane.timerAt <= this.#o.clock.now) lane.timerAt = Number.POSITIVE_INFINITY;
      this.#plan(i);
    });
  }

  #takeFrames(i: number): void {
    for (;;) {
      const n = read(this.#fds[i]![1], this.#in.address, FRAME_MAX_BYTES);
      if (n <= 0) return;
      const frame = this.#in.u8.slice(0, n);
      this.#queues.set(this.#port(frame, 2), i);
      this.#o.onFrame(frame);
    }
  }

  /** Source port of a TCP frame, or with `skip` 2 the destination port. */
  #port(frame: Uint8Array, skip: 0 | 2): number {
    const ip = ((this.#o.vnet ?? true) ? VNET : 0) + ETH;
    const at = ip + (frame[ip]! >> 4 === 4 ? 20 : 40) + skip;
    return (frame[at]! << 8) | frame[at + 1]!;
  }

  leftovers(): Record<string, number> {
    // The reader keeps a pair of slots for the next read.
    const taken = (all: readonly Slots[], kind: keyof Slots, ready: number): number =>
      all.reduce((n, { [kind]: stack }) => n + Math.max(0, stack.capacity - stack.free - ready), 0);
    return {
      readerSmall: taken(this.#readerSlots, 'smallSlots', 1),
      readerLarge: taken(this.#readerSlots, 'largeSlots', 1),
      hostLarge: taken(this.#hostSlots, 'largeSlots', 0),
      flows: this.liveFlows,
      connections: this.openSockets,
      timers: 0,
      sockets: this.openSockets,
    };
  }

  close(): void {
    this.#closed = true;
    for (const fd of this.#fds.flat()) close(fd);
    void this.#keep;
  }
}
