/**
 * One TcpTranslator on virtual time, between a socket pair in place of the TAP and a fake host-io stage.
 *
 *   fromGuest(frame) ─▶ slots ─▶ TcpTranslator ─▶ toHost ring ─▶ FakeHost
 *   onFrame(frame) ◀─ socketpair ◀─ GuestLink ◀──┘   ◀── toShard ring ◀┘
 *
 * Pool, rings, flow table, timer wheel and GuestLink are the real ones, and slot ownership is checked. A
 * round has the order of the fused plan: frames, messages, timers, flush.
 */

import { addressParse, isV4Mapped } from '../../../src/proto/address.ts';
import { COUNTER_WORDS, Counter, DROP_BASE } from '../../../src/ring/counters.ts';
import { NEIGHBOUR_WORDS } from '../../../src/ring/layout.ts';
import {
  type FramePool,
  NO_SLOT,
  type Ownership,
  type SlotStack,
  SMALL_SLOT_BYTES,
} from '../../../src/ring/pool.ts';
import type { RingConsumer, RingProducer } from '../../../src/ring/spsc.ts';
import {
  AF_UNIX,
  SO_SNDBUF,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOL_SOCKET,
} from '../../../src/sys/constants.ts';
import { close, read } from '../../../src/sys/io.ts';
import { NativeBuffer } from '../../../src/sys/memory.ts';
import { setsockoptInt, socketpair } from '../../../src/sys/socket.ts';
import { Assembly } from '../../../src/workers/assembly.ts';
import { engineMemory } from '../../../src/workers/engine-memory.ts';
import { DEFAULT_POLICY, type EnginePlan, type ServicePolicy } from '../../../src/workers/engine-plan.ts';
import { Addressing } from '../../../src/workers/flow/addressing.ts';
import { Egress } from '../../../src/workers/flow/egress.ts';
import { flowHash } from '../../../src/workers/flow/flow-hash.ts';
import { quotedFlow } from '../../../src/workers/flow/quoted-flow.ts';
import { ShardFlows } from '../../../src/workers/flow/shard-flows.ts';
import { TimerWheel } from '../../../src/workers/flow/timer-wheel.ts';
import { linkOp, linkSlotA, linkSlotB } from '../../../src/workers/link/descriptor.ts';
import type { ReaderReturns } from '../../../src/workers/link/reader-returns.ts';
import { Owner } from '../../../src/workers/link/slot-owner.ts';
import { freeHostSlotsWrite } from '../../../src/workers/link/to-host.ts';
import { ToShard } from '../../../src/workers/link/to-shard.ts';
import type { SlotShares } from '../../../src/workers/placement.ts';
import type { EgressFrame } from '../../../src/workers/tap/egress-frame.ts';
import { GuestLink } from '../../../src/workers/tap/guest-link.ts';
import { GuestNeighbours } from '../../../src/workers/tap/guest-neighbours.ts';
import { Notices } from '../../../src/workers/thread/notices.ts';
import { type ShardContext, TIMER_KINDS } from '../../../src/workers/translator/context.ts';
import type { Packet } from '../../../src/workers/translator/packet.ts';
import { ResolverChoice } from '../../../src/workers/translator/resolvers.ts';
import { TcpTranslator } from '../../../src/workers/translator/tcp.ts';
import type { Clock } from './clock.ts';
import { FakeHost, type FakeSocket } from './fake-host.ts';
import { ETH, VNET } from './wire.ts';

const FRAMES_PER_ROUND = 64;
/** More than four pieces and headers. */
const FRAME_MAX_BYTES = 300_000;

/**
 * Of rigs with a simulated or replaced end: short time-outs, and no frames that the test has not asked for.
 */
export const RIG_POLICY: ServicePolicy = {
  ...DEFAULT_POLICY,
  udpTimeoutMs: 1000,
  udpStreamTimeoutMs: 1000,
  pingTimeoutMs: 1000,
  dhcp: false,
  ra: false,
  connectFailure: 'honest',
};

/** Addresses of guest and gateway, from the documentation ranges of RFC 5737 and RFC 3849. */
export const ADDRESSES: EnginePlan['addresses'] = {
  mtu: 1500,
  mac: '9a:55:9a:55:9a:55',
  ipv4: {
    guest: '192.0.2.15',
    prefixLen: 24,
    gateway: '192.0.2.1',
    hostLoopback: '192.0.2.2',
    dns: '192.0.2.3',
  },
  ipv6: {
    guest: '2001:db8::15',
    prefixLen: 64,
    gateway: '2001:db8::1',
    linkLocal: 'fe80::1',
    hostLoopback: '2001:db8::2',
    dns: '2001:db8::3',
  },
  resolvers: ['198.51.100.53', '198.51.100.54'],
  offeredDns: [],
  searchDomains: [],
};

export interface SimOptions {
  readonly clock: Clock;
  /** The TAP has vnet headers. Default true. */
  readonly vnet?: boolean;
  /** The guest accepts TCP frames beyond 64 KiB. Default false. */
  readonly bigTcp?: boolean;
  /**
   * Approximate limit of the socket in place of the TAP, by its send buffer: writes of larger frames fail
   * with -EMSGSIZE.
   */
  readonly tapTakesBytes?: number;
  /** Hop limit of the guest's packets. Default 64. */
  readonly guestTtl?: number;
  readonly mtu?: number;
  readonly smallSlots?: number;
  readonly largeSlots?: number;
  readonly flows?: number;
  /** Delay from an event to the round that handles it: events in between belong to the same batch. */
  readonly roundMs?: number;
  /** Delay of messages between the stages, as between two threads. */
  readonly linkMs?: number;
  readonly isnKey?: readonly [number, number, number, number];
  readonly policy?: Partial<EnginePlan['policy']>;
  readonly addresses?: Partial<EnginePlan['addresses']>;
  onFrame(frame: Uint8Array): void;
  onOpen(socket: FakeSocket): void;
}

/** What a transfer needs of a simulated engine (transfer.ts). */
export interface Simulated {
  readonly counters: Float64Array;
  /** A frame arrives in the TAP's queue. */
  fromGuest(frame: Uint8Array): void;
  readonly openSockets: number;
  readonly liveFlows: number;
  /** Resources in use; NOTHING_LEFT when every slot, flow and timer is free. */
  leftovers(): Record<string, number>;
  close(): void;
}

/** All small slots belong to the reader; the first large one is the shard's scratch slot. */
function simShares(smallSlots: number, largeSlots: number): SlotShares {
  const host = (largeSlots - 1) >>> 1;
  const reader = largeSlots - 1 - host;
  const at = smallSlots + 1;
  return {
    ...{ readerSmall: [[0, smallSlots]], hostSmall: [[smallSlots, 0]], scratchLarge: smallSlots },
    ...{ readerLarge: [[at, reader]], hostLarge: [[at + reader, host]] },
    ...{ dnsEach: 0, dnsLarge: at },
  };
}

class CapturingLink extends GuestLink {
  readonly #peerFd: number;
  readonly #buffer = new NativeBuffer(FRAME_MAX_BYTES);
  readonly #onFrame: (frame: Uint8Array) => void;

  constructor(
    options: ConstructorParameters<typeof GuestLink>[0],
    peerFd: number,
    onFrame: (frame: Uint8Array) => void,
  ) {
    super(options);
    this.#peerFd = peerFd;
    this.#onFrame = onFrame;
  }

  override send(f: EgressFrame): number {
    const r = super.send(f);
    // The TAP may refuse a frame of several pieces.
    return r < 0 && f.moreBytes > 0 ? r : this.#captured(r);
  }

  #captured(r: number): number {
    if (r < 0) throw new Error(`socket pair: write: errno ${-r}`);
    const n = read(this.#peerFd, this.#buffer.address, FRAME_MAX_BYTES);
    if (n <= 0) throw new Error(`socket pair: read: ${n}`);
    this.#onFrame(this.#buffer.u8.slice(0, n));
    return r;
  }
}

export class SimEngine implements Simulated {
  readonly clock: Clock;
  readonly plan: EnginePlan;
  readonly tcp: TcpTranslator;
  readonly host: FakeHost;
  readonly ctx: ShardContext;
  readonly counters = new Float64Array(COUNTER_WORDS);
  readonly vnet: boolean;
  readonly logs: string[] = [];
  /** Maximum number of the reader's slots in use at one time. */
  maxSlotsInUse = 0;
  /** Frames lost because the TAP queue was full. */
  tapOverflow = 0;
  readonly #pool: FramePool;
  readonly #ownership: Ownership;
  readonly #readerSmall: SlotStack;
  readonly #readerLarge: SlotStack;
  readonly #hostLarge: SlotStack;
  readonly #toHost: RingProducer;
  readonly #fromHost: RingConsumer;
  readonly #toReaders: ReaderReturns;
  readonly #freed: readonly RingConsumer[];
  readonly #tapQueue: Uint8Array[] = [];
  readonly #fds: readonly [number, number];
  readonly #roundMs: number;
  readonly #linkMs: number;
  readonly #keep: unknown;
  #pollPlanned = false;
  #timerPlannedAt = Number.POSITIVE_INFINITY;
  #polling = false;
  #closed = false;
  /** TOS of the guest's segments. */
  set guestTos(tos: number) {
    this.#packet.tos = tos;
  }

  readonly #packet: Packet = {
    slotA: NO_SLOT,
    slotB: NO_SLOT,
    ipAt: 0,
    transportAt: 0,
    transportBytes: 0,
    transportBytesInA: 0,
    family: 4,
    proto: 6,
    ttl: 64,
    tos: 0,
    dontFragment: true,
    hash: 0,
    ports: 0,
    needsCsum: false,
    gsoType: 0,
    gsoSize: 0,
    addr: new Uint32Array(8),
  };

  constructor(o: SimOptions) {
    this.clock = o.clock;
    this.vnet = o.vnet ?? true;
    this.#packet.ttl = o.guestTtl ?? 64;
    this.#roundMs = o.roundMs ?? 0.02;
    this.#linkMs = o.linkMs ?? 0;
    const smallSlots = o.smallSlots ?? 1024;
    const largeSlots = o.largeSlots ?? 65;
    const pair = new NativeBuffer(8);
    const r = socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair.address);
    if (r < 0) throw new Error(`socketpair: errno ${-r}`);
    this.#fds = [pair.i32[0]!, pair.i32[1]!];
    setsockoptInt(this.#fds[0], SOL_SOCKET, SO_SNDBUF, (o.tapTakesBytes ?? 800_000) / 2);
    this.plan = {
      threads: { kind: 'fused' },
      addresses: { ...ADDRESSES, mtu: o.mtu ?? 1500, ...o.addresses },
      policy: { ...RIG_POLICY, ...o.policy },
      listeners: [],
      pool: { smallSlots, largeSlots, flows: o.flows ?? 16 },
      tap: { fd: this.#fds[0], vnetHdrBytes: this.vnet ? 12 : 0, uso: false },
      hashKey: [1, 2],
      isnKey: o.isnKey ?? [3, 4, 5, 6],
      debugOwnership: true,
      logLevel: 'debug',
    };
    const { sab, layout } = engineMemory(this.plan, { ringDescriptors: 256, logBytes: 256 });
    this.#keep = sab;
    const assembly = new Assembly({
      plan: this.plan,
      sab,
      layout,
      shares: simShares(smallSlots, largeSlots),
    });
    const { pool, ownership } = assembly;
    this.#pool = pool;
    this.#ownership = ownership;
    const reader = assembly.readerParts();
    const host = assembly.hostParts();
    const { owners, toHost, fromHosts, toReaders, scratchSlot } = assembly.shardParts(0);
    this.#readerSmall = reader.smallSlots;
    this.#readerLarge = reader.largeSlots;
    this.#hostLarge = host.largeSlots;
    this.#toHost = toHost;
    this.#fromHost = fromHosts[0]!;
    this.#toReaders = toReaders;
    this.#freed = reader.freed;
    const toShard = host.toShards[0]!;
    this.host = new FakeHost({
      clock: o.clock,
      pool,
      ownership,
      slots: this.#hostLarge,
      fromShard: host.fromShards[0]!,
      toShard: this.#linkMs > 0 ? this.#delayed(toShard) : toShard,
      toReaders: host.toReaders,
      onOpen: o.onOpen,
      wake: () => this.#planPoll(),
    });
    const addressing = new Addressing(this.plan.addresses, this.plan.policy);
    const guestMac = Uint8Array.of(2, 0, 0, 0, 0, 0x67);
    const neighbours = new GuestNeighbours(new Uint32Array(NEIGHBOUR_WORDS), guestMac);
    this.ctx = {
      shard: 0,
      plan: this.plan,
      addressing,
      pool,
      u8: pool.u8,
      counters: this.counters,
      flows: new ShardFlows(this.plan.pool.flows, this.counters, () => this.logs.push('full')),
      timers: new TimerWheel(this.plan.pool.flows * TIMER_KINDS, 4, o.clock.now),
      owners,
      groups: null,
      egress: new Egress(this.plan.egress, { isDue: () => true, tell: (text) => this.logs.push(text) }),
      toHost: this.#linkMs > 0 ? this.#delayed(toHost) : toHost,
      guest: new CapturingLink(
        {
          tapFd: this.#fds[0],
          vnetHdrBytes: this.vnet ? 12 : 0,
          uso: false,
          bigTcp: o.bigTcp ?? false,
          pool,
          scratchSlot,
          counters: this.counters,
          mac: addressing.mac,
          guestMac,
          neighbours,
        },
        this.#fds[1],
        o.onFrame,
      ),
      neighbours,
      now: o.clock.now,
      freeReaderSlots: (slotA, slotB) => {
        if (slotA === NO_SLOT && slotB === NO_SLOT) return;
        ownership.check(slotA, Owner.inFlight);
        ownership.check(slotB, Owner.inFlight);
        toReaders.free(slotA, slotB);
      },
      freeHostSlots: (slotA, slotB) => {
        freeHostSlotsWrite(toHost, slotA, slotB);
      },
      drop: (cause) => {
        this.counters[DROP_BASE - cause]!++;
      },
      pref64: [],
      dnsSlots: [0, 0],
      notices: new Notices((_level, text) => this.logs.push(text)),
    };
    this.tcp = new TcpTranslator(this.ctx, new ResolverChoice(this.plan.addresses));
  }

  /** The same ring, but flushed descriptors become visible `linkMs` later. */
  #delayed(ring: RingProducer): RingProducer {
    const flush = ring.flush.bind(ring);
    let planned = false;
    ring.flush = () => {
      if (!planned && ring.pending > 0) {
        planned = true;
        this.clock.after(this.#linkMs, () => {
          planned = false;
          flush();
          this.#planPoll();
        });
      }
      return false;
    };
    return ring;
  }

  /** A frame arrives in the TAP's queue. */
  fromGuest(frame: Uint8Array): void {
    if (this.#tapQueue.length >= 1000) {
      this.tapOverflow++;
      return;
    }
    this.#tapQueue.push(frame);
    this.#planPoll();
  }

  accept(
    peer: string,
    peerPort: number,
    targetPort: number,
    done: (socket: FakeSocket | null) => void,
  ): void {
    const words = new Uint32Array(4);
    addressParse(peer, words, 0);
    const family = isV4Mapped(words, 0) ? 4 : 6;
    const guest = this.ctx.addressing.guest;
    const hash = flowHash(
      this.plan.hashKey,
      guest,
      family === 4 ? 0 : 4,
      words,
      0,
      ((targetPort << 16) | peerPort) >>> 0,
      6,
    );
    const at = family === 4 ? 0 : 4;
    this.host.accept([...words], peerPort, targetPort, family, guest.slice(at, at + 4), hash, done);
  }

  #planPoll(): void {
    if (this.#pollPlanned || this.#polling || this.#closed) return;
    this.#pollPlanned = true;
    this.clock.after(this.#roundMs, () => {
      this.#pollPlanned = false;
      if (!this.#closed) this.#poll();
    });
  }

  #poll(): void {
    const { ctx, tcp } = this;
    this.#polling = true;
    ctx.now = this.clock.now;
    for (let round = 0; ; round++) {
      if (round > 10_000) throw new Error('the engine does not become idle');
      let work = this.#takeFreed();
      for (let i = 0; i < FRAMES_PER_ROUND && this.#takeFrame(); i++) work = true;
      const count = this.#fromHost.available();
      for (let i = 0; i < count; i++) {
        const at = this.#fromHost.at(i);
        const op = linkOp(this.#fromHost.words, at);
        if (op === ToShard.data) this.#ownership.check(linkSlotA(this.#fromHost.words, at), Owner.hostIo);
        tcp.onMessage(op, this.#fromHost.words, at);
      }
      tcp.flushBatch();
      this.#fromHost.release(count);
      ctx.timers.advance(ctx.now, (id) => tcp.onTimer(Math.floor(id / TIMER_KINDS), id % TIMER_KINDS));
      if (tcp.flush() > 0 || count > 0) work = true;
      const used =
        this.#readerSmall.capacity -
        this.#readerSmall.free +
        (this.#readerLarge.capacity - this.#readerLarge.free);
      if (used > this.maxSlotsInUse) this.maxSlotsInUse = used;
      this.#toHost.flush();
      this.#toReaders.flush();
      if (this.host.poll()) work = true;
      if (!work) break;
    }
    this.#polling = false;
    this.#planTimer();
  }

  #planTimer(): void {
    const ms = this.ctx.timers.nextDeadline(this.clock.now);
    if (ms === Number.POSITIVE_INFINITY) return;
    const at = this.clock.now + ms;
    if (at >= this.#timerPlannedAt && this.#timerPlannedAt > this.clock.now) return;
    this.#timerPlannedAt = at;
    this.clock.after(ms, () => {
      if (this.#timerPlannedAt <= this.clock.now) this.#timerPlannedAt = Number.POSITIVE_INFINITY;
      if (!this.#closed) this.#poll();
    });
  }

  #takeFreed(): boolean {
    let work = false;
    for (const ring of this.#freed) {
      const count = ring.available();
      for (let i = 0; i < count; i++) {
        const at = ring.at(i);
        for (const slot of [linkSlotA(ring.words, at), linkSlotB(ring.words, at)]) {
          if (slot === NO_SLOT) continue;
          this.#ownership.claim(slot, Owner.inFlight, Owner.reader);
          // Overwrite the freed slot, so that a later read of it is noticed.
          const from = this.#pool.slotAt(slot);
          this.#pool.u8.fill(0x5a, from, from + 64);
          if (this.#pool.isSmall(slot)) this.#readerSmall.push(slot);
          else this.#readerLarge.push(slot);
        }
      }
      ring.release(count);
      if (count > 0) work = true;
    }
    return work;
  }

  #takeFrame(): boolean {
    const frame = this.#tapQueue[0];
    if (frame === undefined || this.#readerSmall.free === 0 || this.#readerLarge.free === 0) return false;
    this.#tapQueue.shift();
    const pool = this.#pool;
    const vnet = this.vnet ? VNET : 0;
    const slotA = this.#readerSmall.pop();
    const slotB = frame.length > SMALL_SLOT_BYTES ? this.#readerLarge.pop() : NO_SLOT;
    this.#ownership.claim(slotA, Owner.reader, Owner.inFlight);
    this.#ownership.claim(slotB, Owner.reader, Owner.inFlight);
    const at = pool.slotAt(slotA);
    pool.u8.set(frame.subarray(0, SMALL_SLOT_BYTES), at);
    if (slotB !== NO_SLOT) pool.u8.set(frame.subarray(SMALL_SLOT_BYTES), pool.slotAt(slotB));
    const p = this.#packet;
    const v = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
    const v4 = v.getUint16(vnet + 12) === 0x0800;
    const ip = vnet + ETH;
    p.slotA = slotA;
    p.slotB = slotB;
    p.ipAt = at + ip;
    p.family = v4 ? 4 : 6;
    const ipBytes = v4 ? 20 : 40;
    p.transportAt = p.ipAt + ipBytes;
    p.transportBytes = v4 ? v.getUint16(ip + 2) - 20 : v.getUint16(ip + 4);
    p.transportBytesInA = Math.min(p.transportBytes, SMALL_SLOT_BYTES - ip - ipBytes);
    p.needsCsum = this.vnet && (frame[0]! & 1) !== 0;
    p.gsoType = this.vnet ? frame[1]! & 0x7f : 0;
    p.gsoSize = this.vnet ? v.getUint16(4, true) : 0;
    if (v4) {
      p.addr.set([0, 0, 0xffff, v.getUint32(ip + 12), 0, 0, 0xffff, v.getUint32(ip + 16)]);
    } else for (let i = 0; i < 8; i++) p.addr[i] = v.getUint32(ip + 8 + i * 4);
    this.counters[Counter.framesFromGuest]!++;
    if (frame[ip + (v4 ? 9 : 6)] === 6) {
      p.hash = flowHash(this.plan.hashKey, p.addr, 0, p.addr, 4, v.getUint32(ip + ipBytes), 6);
      this.tcp.onPacket(p);
      return true;
    }
    // An ICMP error: dispatch it as reader and shard do.
    const words = new Uint32Array(8);
    const ports = quotedFlow(pool.u8, p.transportAt, p.transportBytesInA, p.family, words);
    p.hash = flowHash(this.plan.hashKey, words, 0, words, 4, Math.max(ports, 0), 6);
    this.tcp.onTooBig(p);
    this.ctx.freeReaderSlots(slotA, slotB);
    return true;
  }

  get openSockets(): number {
    return this.host.sockets.size;
  }

  get liveFlows(): number {
    return this.ctx.flows.count;
  }

  drops(cause: number): number {
    return this.counters[DROP_BASE - cause]!;
  }

  /** Number of armed timers of all flows. */
  get timersArmed(): number {
    let n = 0;
    for (let id = 0; id < this.plan.pool.flows * TIMER_KINDS; id++) if (this.ctx.timers.isArmed(id)) n++;
    return n;
  }

  leftovers(): Record<string, number> {
    return {
      readerSmall: this.#readerSmall.capacity - this.#readerSmall.free,
      readerLarge: this.#readerLarge.capacity - this.#readerLarge.free,
      hostLarge: this.#hostLarge.capacity - this.#hostLarge.free,
      flows: this.ctx.flows.count,
      connections: this.tcp.count,
      timers: this.timersArmed,
      sockets: this.host.sockets.size,
    };
  }

  close(): void {
    this.#closed = true;
    close(this.#fds[0]);
    close(this.#fds[1]);
    void this.#keep;
  }
}

export const NOTHING_LEFT = {
  readerSmall: 0,
  readerLarge: 0,
  hostLarge: 0,
  flows: 0,
  connections: 0,
  timers: 0,
  sockets: 0,
};
