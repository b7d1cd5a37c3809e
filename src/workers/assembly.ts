/**
 * Builds the stages of an engine, and gives each stage its slots and ring ends (placement.ts). A packet
 * thread builds its stages here. A test builds the stage under test, and takes the slots and ring ends of the
 * stages that it replaces.
 */
import type { Doorbell } from '../ring/doorbell.ts';
import type { ControlViews, Layout } from '../ring/layout.ts';
import { FramePool, Ownership, SlotStack } from '../ring/pool.ts';
import { CheckedRingProducer, RingConsumer, RingProducer } from '../ring/spsc.ts';
import { EPOLLET, EPOLLIN } from '../sys/constants.ts';
import { addressOf } from '../sys/memory.ts';
import type { EnginePlan, SplicePlan, TapEnginePlan } from './engine-plan.ts';
import type { FlowSource } from './flow/flow-report.ts';
import { HostIo, type HostIoOptions } from './host-io/host-io.ts';
import { Owner } from './link/slot-owner.ts';
import { LinkRing, type SlotShares, slotShares, type ThreadPlan, threadPlan } from './placement.ts';
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
}

type ReaderParts = Pick<
  TapReaderOptions,
  'pool' | 'ownership' | 'smallSlots' | 'largeSlots' | 'toShards' | 'freed'
>;
type ShardParts = Pick<
  ShardOptions,
  'pool' | 'ownership' | 'scratchSlot' | 'dnsSlots' | 'fromReader' | 'toReader' | 'fromHost' | 'toHost'
>;
type HostParts = Pick<
  HostIoOptions,
  'pool' | 'ownership' | 'smallSlots' | 'largeSlots' | 'toShards' | 'fromShards' | 'toReader'
>;

/** Call each method at most once per stage: slots and ring ends have one owner. */
export class Assembly {
  readonly plan: EnginePlan;
  readonly threads: ThreadPlan;
  readonly pool: FramePool;
  readonly ownership: Ownership;
  readonly shares: SlotShares;
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
    this.shares = options.shares ?? slotShares(smallSlots, largeSlots, this.threads.shards);
  }

  readerParts(): ReaderParts {
    const { pool, ownership, shares, threads } = this;
    ownership.assign(...shares.readerSmall, Owner.reader);
    ownership.assign(...shares.readerLarge, Owner.reader);
    return {
      pool,
      ownership,
      smallSlots: new SlotStack(...shares.readerSmall),
      largeSlots: new SlotStack(...shares.readerLarge),
      toShards: this.#perShard((s) => this.#to(LinkRing.readerToShard(s), threads.shardThread(s))),
      freed: [
        ...this.#perShard((s) => this.#from(LinkRing.shardToReader(s), threads.shardThread(s))),
        this.#from(LinkRing.hostToReader(threads.shards), threads.hostThread),
      ],
    };
  }

  shardParts(s: number): ShardParts {
    const { pool, ownership, shares, threads } = this;
    return {
      pool,
      ownership,
      scratchSlot: shares.scratchLarge[0] + s,
      dnsSlots: [shares.dnsLarge + s * shares.dnsEach, shares.dnsEach],
      fromReader: this.#from(LinkRing.readerToShard(s), threads.readerThread),
      toReader: this.#to(LinkRing.shardToReader(s), threads.readerThread),
      fromHost: this.#from(LinkRing.hostToShard(s), threads.hostThread),
      toHost: this.#to(LinkRing.shardToHost(s), threads.hostThread),
    };
  }

  hostParts(): HostParts {
    const { pool, ownership, shares, threads } = this;
    ownership.assign(...shares.hostSmall, Owner.hostIo);
    ownership.assign(...shares.hostLarge, Owner.hostIo);
    return {
      pool,
      ownership,
      smallSlots: new SlotStack(...shares.hostSmall),
      largeSlots: new SlotStack(...shares.hostLarge),
      toShards: this.#perShard((s) => this.#to(LinkRing.hostToShard(s), threads.shardThread(s))),
      fromShards: this.#perShard((s) => this.#from(LinkRing.shardToHost(s), threads.shardThread(s))),
      toReader: this.#to(LinkRing.hostToReader(threads.shards), threads.readerThread),
    };
  }

  // Object literals without spread: V8 stores their fields, which stages read per packet, in the object
  // itself.

  reader(rest: Omit<TapReaderOptions, keyof ReaderParts | 'plan'>): TapReader {
    const { pool, ownership, smallSlots, largeSlots, toShards, freed } = this.readerParts();
    const { counters, pcap, notices, onFatal } = rest;
    return new TapReader({
      plan: this.#withTap(),
      pool,
      ownership,
      counters,
      smallSlots,
      largeSlots,
      toShards,
      freed,
      pcap,
      notices,
      onFatal,
    });
  }

  shard(s: number, rest: Omit<ShardOptions, keyof ShardParts | 'plan' | 'shard'>): Shard {
    const { pool, ownership, scratchSlot, dnsSlots, fromReader, toReader, fromHost, toHost } =
      this.shardParts(s);
    const { counters, guestMac, seen, pcap, notices } = rest;
    return new Shard({
      shard: s,
      plan: this.#withTap(),
      pool,
      ownership,
      counters,
      scratchSlot,
      dnsSlots,
      guestMac,
      seen,
      fromReader,
      toReader,
      fromHost,
      toHost,
      pcap,
      notices,
    });
  }

  hostIo(rest: Omit<HostIoOptions, keyof HostParts | 'plan'>): HostIo {
    const { pool, ownership, smallSlots, largeSlots, toShards, fromShards, toReader } = this.hostParts();
    const { counters, seen, loopback, datagramPorts, watch, notices } = rest;
    return new HostIo({
      plan: this.plan,
      pool,
      ownership,
      counters,
      smallSlots,
      largeSlots,
      toShards,
      fromShards,
      toReader,
      loopback,
      seen,
      datagramPorts,
      watch,
      notices,
    });
  }

  #withTap(): TapEnginePlan {
    if (this.#tapPlan === undefined) throw new Error('a plan without a TAP has neither reader nor shards');
    return this.#tapPlan;
  }

  #perShard<T>(make: (shard: number) => T): T[] {
    return Array.from({ length: this.threads.shards }, (_, s) => make(s));
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

/** Objects that all stages of a packet thread share. */
export interface ThreadParts {
  readonly thread: number;
  readonly reactor: Reactor;
  readonly counters: Float64Array;
  readonly control: ControlViews;
  readonly notices: TapReaderOptions['notices'];
  readonly pcap: TapReaderOptions['pcap'];
  /** eventfd that wakes this thread. */
  readonly bellFd: number;
  /** As TapReaderOptions.onFatal. */
  onFatal(text: string): void;
}

export interface ThreadStages {
  readonly stages: readonly Stage[];
  /** The stages in the order in which a round polls them; one may be listed twice. */
  readonly order: readonly Stage[];
  readonly shards: readonly Shard[];
  readonly hostIo: HostIo | null;
  /** The thread's flows, by section number of flow-report.ts. */
  readonly flowSources: ReadonlyMap<number, FlowSource>;
}

/**
 * Build the stages that the plan assigns to a packet thread, and register their descriptors with its reactor.
 */
export function threadStages(assembly: Assembly, parts: ThreadParts): ThreadStages {
  const { plan, threads } = assembly;
  const { thread, reactor, counters, control, notices, pcap, onFatal } = parts;
  const { guestMac, seen, datagramPorts } = control;
  const stages: Stage[] = [];
  const shards: Shard[] = [];
  const flowSources = new Map<number, FlowSource>();
  let hostIo: HostIo | null = null;

  if (plan.tap !== undefined && thread === threads.readerThread) {
    const reader = assembly.reader({ counters, pcap, notices, onFatal });
    stages.push(reader);
    const onFrames = reactor.handler(() => reader.onReadable());
    reactor.watch(onFrames, plan.tap.fd, EPOLLIN | EPOLLET, 0);
  }
  for (let s = 0; s < threads.shards; s++) {
    if (plan.tap === undefined || threads.shardThread(s) !== thread) continue;
    const shard = assembly.shard(s, { counters, guestMac, seen, pcap, notices });
    shards.push(shard);
    flowSources.set(s, shard);
    stages.push(shard);
  }
  if (thread === threads.hostThread) {
    const loopback = plan.splice === undefined ? undefined : spliceStage(plan, plan.splice, parts);
    const onSocket = reactor.handler((gid, events) => host.onEvents(gid, events));
    const watch = (fd: number, gid: number, events: number): number =>
      reactor.watch(onSocket, fd, events, gid);
    const host: HostIo = assembly.hostIo({ counters, seen, loopback, datagramPorts, watch, notices });
    hostIo = host;
    stages.push(host);
    if (loopback !== undefined) {
      stages.push(loopback);
      loopback.flowSources.forEach((source, i) => {
        flowSources.set(threads.shards + i, source);
      });
    }
  }
  const order = [...stages];
  // The shard again, after host-io: what sockets received goes to the guest in the same round, not after
  // another read of the TAP.
  if (plan.threads.kind === 'fused' && plan.tap !== undefined) order.push(shards[0]!);
  return { stages, order, shards, hostIo, flowSources };
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
