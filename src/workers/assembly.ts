/**
 * Builds the stages of an engine, and gives each stage its slots and ring ends (placement.ts). A packet
 * thread builds its stages here. A test builds the stage under test, and takes the slots and ring ends of the
 * stages that it replaces.
 */
import { IpProtocol } from '../proto/ipv4.ts';
import type { Doorbell } from '../ring/doorbell.ts';
import { BUCKETS, type ControlViews, type Layout, PORTS, ROOM_WORDS } from '../ring/layout.ts';
import { FramePool, Ownership, SlotStack } from '../ring/pool.ts';
import { CheckedRingProducer, RingConsumer, RingProducer } from '../ring/spsc.ts';
import { EPOLLET, EPOLLIN } from '../sys/constants.ts';
import { addressOf } from '../sys/memory.ts';
import type { EnginePlan, SplicePlan, TapEnginePlan } from './engine-plan.ts';
import { divideBuckets, FlowOwners, type OwnerTables } from './flow/flow-owner.ts';
import { FlowField, type FlowSource } from './flow/flow-report.ts';
import { FlowMover, type GiveRequest } from './flow-mover.ts';
import { HostIo, type HostIoOptions } from './host-io/host-io.ts';
import { ReaderReturns } from './link/reader-returns.ts';
import { Owner } from './link/slot-owner.ts';
import { queueFd, type SlotShares, slotShares, type ThreadPlan, threadPlan } from './placement.ts';
import { LineToGuest } from './shaping/line-to-guest.ts';
import type { Lines } from './shaping/lines.ts';
import { Splice } from './splice/splice.ts';
import { TapReader, type TapReaderOptions } from './tap/tap-reader.ts';
import type { Reactor } from './thread/reactor.ts';
import type { Stage } from './thread/stage.ts';
import { Shard, type ShardOptions } from './translator/shard.ts';

export interface AssemblyOptions {
  readonly plan: EnginePlan;
  readonly sab: SharedArrayBuffer;
  readonly layout: Layout;
  /** Counters of the calling thread, for its links. */
  readonly counters?: Float64Array | undefined;
  /** The doorbell that wakes a thread; null for the calling thread. Absent: one thread runs all stages. */
  bellOf?(thread: number): Doorbell | null;
  /** Absent: slotShares() of the plan's pool. */
  readonly shares?: SlotShares;
  /** Parts of ControlViews; absent: lanes have equal parts, and nothing is published. */
  readonly ownerTables?: OwnerTables | undefined;
}

type ReaderParts = Pick<
  TapReaderOptions,
  'reader' | 'tapFd' | 'owners' | 'pool' | 'ownership' | 'smallSlots' | 'largeSlots' | 'toShards' | 'freed'
>;
type ShardParts = Pick<
  ShardOptions,
  | 'tapFd'
  | 'owners'
  | 'pool'
  | 'ownership'
  | 'scratchSlot'
  | 'dnsSlots'
  | 'fromReaders'
  | 'toReaders'
  | 'fromHosts'
  | 'toHost'
>;
type HostParts = Pick<
  HostIoOptions,
  | 'owners'
  | 'listens'
  | 'pool'
  | 'ownership'
  | 'smallSlots'
  | 'largeSlots'
  | 'toShards'
  | 'fromShards'
  | 'acceptedTo'
  | 'toReaders'
>;

/** Call each method at most once per stage: slots and ring ends have one owner. */
export class Assembly {
  readonly plan: EnginePlan;
  readonly threads: ThreadPlan;
  readonly pool: FramePool;
  readonly ownership: Ownership;
  readonly shares: SlotShares;
  readonly owners: FlowOwners;
  readonly #o: AssemblyOptions;
  readonly #tapPlan: TapEnginePlan | undefined;

  constructor(options: AssemblyOptions) {
    const { plan, sab, layout } = options;
    this.#o = options;
    this.plan = plan;
    this.#tapPlan = plan.tap && { ...plan, tap: plan.tap };
    this.threads = threadPlan(plan.threads);
    this.pool = new FramePool(sab, layout, addressOf(new Uint8Array(sab)));
    this.ownership = new Ownership(sab, layout, plan.debugOwnership === true);
    const { smallSlots, largeSlots } = plan.pool;
    const { shards, readers } = this.threads;
    this.shares = options.shares ?? slotShares(smallSlots, largeSlots, shards, readers);
    this.owners = new FlowOwners(plan.threads, plan.hashKey, options.ownerTables ?? equalTables(shards));
  }

  /** @param r  number of the reader */
  readerParts(r = 0): ReaderParts {
    const { pool, ownership, owners, shares, threads } = this;
    const { ring } = threads;
    ownership.assign(...shares.readerSmall[r]!, Owner.reader);
    ownership.assign(...shares.readerLarge[r]!, Owner.reader);
    return {
      reader: r,
      tapFd: this.#queue(r),
      owners,
      pool,
      ownership,
      smallSlots: new SlotStack(...shares.readerSmall[r]!),
      largeSlots: new SlotStack(...shares.readerLarge[r]!),
      toShards: count(threads.shards, (s) => this.#to(ring.readerToShard(r, s), threads.shardThread(s))),
      freed: [
        ...count(threads.shards, (s) => this.#from(ring.shardToReader(s, r), threads.shardThread(s))),
        ...count(threads.hosts, (h) => this.#from(ring.hostToReader(h, r), threads.hostIoThread(h))),
      ],
    };
  }

  /** @param s  number of the shard */
  shardParts(s: number): ShardParts {
    const { pool, ownership, owners, shares, threads } = this;
    const { ring, readers, hosts, hostThread } = threads;
    const host = threads.hostIoThread(threads.hostOfShard(s));
    const fromHosts = [this.#from(ring.hostToShard(s), host)];
    if (hosts > 1 && s !== 0) fromHosts.push(this.#from(ring.acceptedToShard(s), hostThread));
    const toReaders = count(readers, (r) => this.#to(ring.shardToReader(s, r), threads.readerThread(r)));
    return {
      tapFd: this.#queue(readers > 1 ? s : 0),
      owners,
      pool,
      ownership,
      scratchSlot: shares.scratchLarge + s,
      dnsSlots: [shares.dnsLarge + s * shares.dnsEach, shares.dnsEach],
      fromReaders: count(readers, (r) => this.#from(ring.readerToShard(r, s), threads.readerThread(r))),
      toReaders: new ReaderReturns(toReaders, pool, shares),
      fromHosts,
      toHost: this.#to(ring.shardToHost(s), host),
    };
  }

  /** @param h  number of the host-io stage */
  hostParts(h = 0): HostParts {
    const { pool, ownership, owners, shares, threads } = this;
    const { ring, readers, shards, hosts } = threads;
    ownership.assign(...shares.hostSmall[h]!, Owner.hostIo);
    ownership.assign(...shares.hostLarge[h]!, Owner.hostIo);
    const mine = count(shards, (s) => s).filter((s) => threads.hostOfShard(s) === h);
    const toShards = mine.map((s) => this.#to(ring.hostToShard(s), threads.shardThread(s)));
    const others = (s: number): RingProducer => this.#to(ring.acceptedToShard(s), threads.shardThread(s));
    const toReaders = count(readers, (r) => this.#to(ring.hostToReader(h, r), threads.readerThread(r)));
    return {
      owners,
      listens: h === 0,
      pool,
      ownership,
      smallSlots: new SlotStack(...shares.hostSmall[h]!),
      largeSlots: new SlotStack(...shares.hostLarge[h]!),
      toShards,
      fromShards: mine.map((s) => this.#from(ring.shardToHost(s), threads.shardThread(s))),
      acceptedTo:
        hosts === 1 ? toShards : h > 0 ? [] : count(shards, (s) => (s === 0 ? toShards[0]! : others(s))),
      toReaders: new ReaderReturns(toReaders, pool, shares),
    };
  }

  /** Descriptor of a queue of the TAP; -1 without a TAP. */
  #queue(i: number): number {
    const { tap } = this.plan;
    return tap === undefined ? -1 : queueFd(tap, i);
  }

  // Object literals without spread: V8 stores their fields, which stages read per packet, in the object
  // itself.

  reader(r: number, rest: Omit<TapReaderOptions, keyof ReaderParts | 'plan'>): TapReader {
    const { tapFd, owners, pool, ownership, smallSlots, largeSlots, toShards, freed } = this.readerParts(r);
    const { counters, notices, onFatal } = rest;
    return new TapReader({
      plan: this.#withTap(),
      reader: r,
      tapFd,
      owners,
      pool,
      ownership,
      counters,
      smallSlots,
      largeSlots,
      toShards,
      freed,
      notices,
      onFatal,
    });
  }

  shard(s: number, rest: Omit<ShardOptions, keyof ShardParts | 'plan' | 'shard'>): Shard {
    const parts = this.shardParts(s);
    const { pool, ownership, scratchSlot, dnsSlots, fromReaders, toReaders, fromHosts, toHost } = parts;
    const { counters, guestMac, neighbours, seen, reader, lines, notices } = rest;
    return new Shard({
      shard: s,
      plan: this.#withTap(),
      pool,
      ownership,
      counters,
      scratchSlot,
      dnsSlots,
      guestMac,
      neighbours,
      seen,
      tapFd: parts.tapFd,
      owners: parts.owners,
      fromReaders,
      toReaders,
      fromHosts,
      toHost,
      reader,
      lines,
      notices,
    });
  }

  hostIo(h: number, rest: Omit<HostIoOptions, keyof HostParts | 'plan'>): HostIo {
    const parts = this.hostParts(h);
    const { pool, ownership, smallSlots, largeSlots, toShards, fromShards, acceptedTo, toReaders } = parts;
    const { counters, seen, loopback, datagramPorts, publishedUdp, watch, unwatch, notices } = rest;
    return new HostIo({
      plan: this.plan,
      pool,
      ownership,
      counters,
      smallSlots,
      largeSlots,
      toShards,
      fromShards,
      acceptedTo,
      toReaders,
      owners: parts.owners,
      listens: parts.listens,
      loopback,
      seen,
      datagramPorts,
      publishedUdp,
      watch,
      unwatch,
      notices,
    });
  }

  #withTap(): TapEnginePlan {
    if (this.#tapPlan === undefined) throw new Error('a plan without a TAP has neither reader nor shards');
    return this.#tapPlan;
  }

  #to(ring: number, thread: number): RingProducer {
    const { sab, layout, counters } = this.#o;
    const Producer = this.ownership.on ? CheckedRingProducer : RingProducer;
    return new Producer(sab, layout, ring, this.#bellOf(thread), counters);
  }

  #from(ring: number, thread: number): RingConsumer {
    const { sab, layout } = this.#o;
    return new RingConsumer(sab, layout, ring, this.#bellOf(thread));
  }

  #bellOf(thread: number): Doorbell | null {
    return this.#o.bellOf?.(thread) ?? null;
  }
}

/**
 * The flows of a shard, with what the kernel says about their sockets.
 * @param host has the shard's gids from 0 on
 */
const withSockets = (shard: Shard, host: HostIo): FlowSource => ({
  placeCount: shard.placeCount,
  describeFlow: (place, rows, at) => {
    if (!shard.describeFlow(place, rows, at)) return false;
    if (rows[at + FlowField.proto] === IpProtocol.tcp) host.describe(place, rows, at);
    return true;
  },
});

function equalTables(lanes: number): OwnerTables {
  const laneOf = new Uint16Array(BUCKETS + 1);
  divideBuckets(laneOf, lanes);
  return { laneOf, publishedUdp: new Uint16Array(PORTS), room: new Int32Array(ROOM_WORDS) };
}

function count<T>(n: number, make: (i: number) => T): T[] {
  return Array.from({ length: n }, (_, i) => make(i));
}

/** Objects that all stages of a packet thread share. */
export interface ThreadParts {
  readonly thread: number;
  readonly reactor: Reactor;
  readonly counters: Float64Array;
  readonly control: ControlViews;
  readonly notices: TapReaderOptions['notices'];
  /** eventfd that wakes this thread. */
  readonly bellFd: number;
  /** As TapReaderOptions.onFatal. */
  onFatal(text: string): void;
  /** As FlowMoverOptions.onDone. */
  onGiven(request: GiveRequest, left: number): void;
}

export interface ThreadStages {
  readonly stages: readonly Stage[];
  /** The stages in the order in which a round polls them; one may be listed twice. */
  readonly order: readonly Stage[];
  readonly reader: TapReader | null;
  readonly shards: readonly Shard[];
  readonly hostIo: HostIo | null;
  /** Of a lane. */
  readonly mover: FlowMover | null;
  readonly splice: Splice | null;
  /** Emulated lines of both directions; empty: there are none. */
  readonly lines: readonly Lines[];
  /** The thread's flows, by section number of flow-report.ts. */
  readonly flowSources: ReadonlyMap<number, FlowSource>;
}

/**
 * Build the stages that the plan assigns to a packet thread, and register their descriptors with its reactor.
 */
export function threadStages(assembly: Assembly, parts: ThreadParts): ThreadStages {
  const { plan, threads } = assembly;
  const { thread, reactor, counters, control, notices, onFatal } = parts;
  const { guestMac, neighbours, seen, datagramPorts, publishedUdp } = control;
  const stages: Stage[] = [];
  const shards: Shard[] = [];
  const flowSources = new Map<number, FlowSource>();
  let hostIo: HostIo | null = null;
  let splice: Splice | null = null;
  let tapReader: TapReader | null = null;
  const toGuest =
    plan.shaping && plan.tap
      ? new LineToGuest(plan.shaping, queueFd(plan.tap, 0), plan.tap.vnetHdrBytes, counters)
      : null;

  for (let r = 0; r < threads.readers; r++) {
    if (plan.tap === undefined || threads.readerThread(r) !== thread) continue;
    const reader = assembly.reader(r, { counters, notices, onFatal });
    stages.push(reader);
    const onFrames = reactor.handler(() => reader.onReadable());
    reactor.watch(onFrames, queueFd(plan.tap, r), EPOLLIN | EPOLLET, 0);
    tapReader = reader;
  }
  for (let s = 0; s < threads.shards; s++) {
    if (plan.tap === undefined || threads.shardThread(s) !== thread) continue;
    const reader = assembly.owners.areLanes ? (tapReader ?? undefined) : undefined;
    const lines = toGuest?.lines;
    const shard = assembly.shard(s, { counters, guestMac, neighbours, seen, reader, lines, notices });
    shards.push(shard);
    flowSources.set(s, shard);
    stages.push(shard);
  }
  for (let h = 0; h < threads.hosts; h++) {
    if (threads.hostIoThread(h) !== thread) continue;
    const listens = thread === threads.hostThread;
    const loopback =
      plan.splice === undefined || !listens ? undefined : spliceStage(plan, plan.splice, parts);
    const onSocket = reactor.handler((gid, events) => host.onEvents(gid, events));
    const watch = (fd: number, gid: number, events: number): number =>
      reactor.watch(onSocket, fd, events, gid);
    const shared = { counters, seen, datagramPorts, publishedUdp };
    const unwatch = (fd: number): number => reactor.unwatch(fd);
    const host: HostIo = assembly.hostIo(h, { ...shared, loopback, watch, unwatch, notices });
    hostIo = host;
    stages.push(host);
    // The flows of this thread's own shard: its host-io has their sockets.
    if (plan.threads.kind !== 'pipeline' && shards[0] !== undefined)
      flowSources.set(h, withSockets(shards[0], host));
    if (loopback !== undefined) {
      stages.push(loopback);
      splice = loopback;
      loopback.flowSources.forEach((source, i) => {
        flowSources.set(threads.shards + i, source);
      });
    }
  }
  let mover: FlowMover | null = null;
  if (assembly.owners.areLanes && hostIo !== null && tapReader !== null) {
    const { owners } = assembly;
    const [shard, toShards] = [shards[0]!, tapReader.toShards];
    mover = new FlowMover({ lane: thread, shard, hostIo, owners, toShards, onDone: parts.onGiven });
    stages.push(mover);
  }
  const order = [...stages];
  // The shard again, after host-io: what sockets received goes to the guest in the same round, not after
  // another read of the TAP.
  if (plan.threads.kind !== 'pipeline' && plan.tap !== undefined) order.push(shards[0]!);
  const lines: Lines[] = [];
  if (toGuest !== null) {
    stages.push(toGuest);
    order.push(toGuest); // last: what the others put on the line without a delay leaves in the same round
    lines.push(tapReader!.lines!, toGuest.lines);
    toGuest.alsoWakeFor(tapReader!);
  }
  return { stages, order, reader: tapReader, shards, hostIo, splice, mover, lines, flowSources };
}

function spliceStage(plan: EnginePlan, splice: SplicePlan, parts: ThreadParts): Splice {
  const { reactor, counters, control, bellFd, notices } = parts;
  const streams = reactor.handler((token, events) => stage.onStream(token, events));
  const flows = reactor.handler((token) => stage.onFlow(token));
  const listeners = reactor.handler((token) => stage.onListener(token));
  const stage: Splice = new Splice({
    plan,
    splice,
    seen: control.seen,
    counters,
    bellFd,
    watchStream: (fd, token, events) => reactor.watch(streams, fd, events, token),
    watchFlow: (fd, token, events) => reactor.watch(flows, fd, events, token),
    watchListener: (fd, token, events) => reactor.watch(listeners, fd, events, token),
    notices,
  });
  return stage;
}
