/**
 * Thread plans: which stages run on which packet thread, and which links connect them (drawn in
 * docs/architecture.md).
 *
 *   fused        thread 0: reader, shard 0, host-io
 *   pipeline=N   thread 0: reader    threads 1..N: shard 0..N-1    thread N+1: host-io
 *   lanes=N      thread i: reader i (queue i of the TAP), shard i, host-io i
 *
 * A shard's sockets are those of one host-io stage, its own in a lane. Any reader may read a frame of any
 * shard, and any shard or host-io stage may hold slots of any reader. Published ports belong to the first
 * host-io stage; it passes accepted connections to all shards.
 */
import type { PoolPlan, TapPlan, ThreadsPlan } from './engine-plan.ts';

export interface ThreadPlan {
  readonly shards: number;
  readonly threads: number;
  readonly rings: number;
  /** Number of readers, and of host-io stages. */
  readonly readers: number;
  readonly hosts: number;
  /** Thread of the first host-io stage, which has the published ports. */
  readonly hostThread: number;
  readerThread(reader: number): number;
  shardThread(shard: number): number;
  hostIoThread(host: number): number;
  /** The host-io stage that has the sockets of a shard. */
  hostOfShard(shard: number): number;
  /** Name of the thread for reports: the stages that it runs. */
  threadName(thread: number): string;
  readonly ring: LinkRings;
}

/** Ring number of each link. */
export interface LinkRings {
  readerToShard(reader: number, shard: number): number;
  shardToReader(shard: number, reader: number): number;
  shardToHost(shard: number): number;
  /** From the host-io stage that has the shard's sockets. */
  hostToShard(shard: number): number;
  /** From the first host-io stage to a shard whose sockets another one has: accepted connections. */
  acceptedToShard(shard: number): number;
  hostToReader(host: number, reader: number): number;
}

/** Number of shards of a plan. */
export function shardCount(threads: ThreadsPlan): number {
  if (threads.kind === 'fused') return 1;
  return threads.kind === 'lanes' ? threads.lanes : threads.shards;
}

/** Number of lanes of a plan: each has a queue of the TAP and a part of the pool. */
export const laneCount = (threads: ThreadsPlan): number => (threads.kind === 'lanes' ? threads.lanes : 1);

/** Number of packet threads that start with the engine. */
export function startedThreads(threads: ThreadsPlan): number {
  return threads.kind === 'lanes' ? (threads.first ?? threads.lanes) : threadPlan(threads).threads;
}

/** Compute the thread of each stage, and the number of rings. */
export function threadPlan(threads: ThreadsPlan): ThreadPlan {
  const shards = shardCount(threads);
  if (threads.kind === 'pipeline') {
    return {
      ...{ shards, threads: shards + 2, readers: 1, hosts: 1, hostThread: shards + 1 },
      ...linkRings(shards, 1, 1),
      readerThread: () => 0,
      shardThread: (shard) => shard + 1,
      hostIoThread: () => shards + 1,
      hostOfShard: () => 0,
      threadName: (thread) =>
        thread === 0 ? 'reader' : thread <= shards ? `shard ${thread - 1}` : 'host-io',
    };
  }
  return {
    ...{ shards, threads: shards, readers: shards, hosts: shards, hostThread: 0 },
    ...linkRings(shards, shards, shards),
    readerThread: (reader) => reader,
    shardThread: (shard) => shard,
    hostIoThread: (host) => host,
    hostOfShard: (shard) => shard,
    threadName: (thread) => (threads.kind === 'fused' ? 'packets' : `lane ${thread}`),
  };
}

function linkRings(shards: number, readers: number, hosts: number): { ring: LinkRings; rings: number } {
  const pairs = readers * shards;
  const shardToReader = pairs;
  const shardToHost = shardToReader + pairs;
  const hostToShard = shardToHost + shards;
  const accepted = hostToShard + shards;
  const hostToReader = accepted + (hosts > 1 ? shards : 0);
  return {
    ring: {
      readerToShard: (reader, shard) => reader * shards + shard,
      shardToReader: (shard, reader) => shardToReader + reader * shards + shard,
      shardToHost: (shard) => shardToHost + shard,
      hostToShard: (shard) => hostToShard + shard,
      acceptedToShard: (shard) => accepted + shard,
      hostToReader: (host, reader) => hostToReader + host * readers + reader,
    },
    rings: hostToReader + hosts * readers,
  };
}

/** Numbers of slots of each kind, not always whole. */
export interface SlotCounts {
  readonly small: number;
  readonly large: number;
}

/** Descriptor of the TAP's queue that a lane has. @throws Error when the TAP has too few */
export function queueFd({ fd, moreQueues = [] }: TapPlan, lane: number): number {
  const found = lane === 0 ? fd : moreQueues[lane - 1];
  if (found === undefined) throw new Error(`the TAP has no queue ${lane}`);
  return found;
}

/** A range of slot numbers. */
export type SlotRange = readonly [first: number, count: number];

/** Which slots each stage gets at the start. */
export interface SlotShares {
  /** By reader. */
  readonly readerSmall: readonly SlotRange[];
  readonly readerLarge: readonly SlotRange[];
  /** By host-io stage. */
  readonly hostSmall: readonly SlotRange[];
  readonly hostLarge: readonly SlotRange[];
  /** First of the large slots, one per shard, in which shards build frames. */
  readonly scratchLarge: number;
  /** Number of large slots per shard in which DNS queries wait, and the first slot of shard 0. */
  readonly dnsEach: number;
  readonly dnsLarge: number;
}

/** Most large slots per shard in which DNS queries wait: room for 1,360 queries. */
const MAX_DNS_SLOTS = 10;

/**
 * Divide the slots: host-io gets a quarter of the small ones (datagrams) and half of the large ones, the
 * reader gets the rest. Several stages of a kind get equal parts of that.
 *
 *   small   | reader 0 ... | host-io 0 ... |
 *   large   | scratch of each shard | DNS of each shard | reader 0 ... | host-io 0 ... |
 *
 * @param stages  number of readers, and of host-io stages
 * @throws RangeError when there are too few
 */
export function slotShares(smallSlots: number, largeSlots: number, shards: number, stages = 1): SlotShares {
  const hostSmall = Math.floor((smallSlots >>> 2) / stages);
  const readerSmall = Math.floor((smallSlots - hostSmall * stages) / stages);
  const dnsEach = Math.max(1, Math.min(MAX_DNS_SLOTS, Math.floor(largeSlots / stages) >>> 6));
  const own = shards * (1 + dnsEach);
  const large = Math.floor((largeSlots - own) / stages);
  const hostLarge = large >>> 1;
  const readerLarge = large - hostLarge;
  if (hostSmall < 32 || hostLarge < 4) {
    throw new RangeError(`frame pool: ${smallSlots} small and ${largeSlots} large slots are too few`);
  }
  const ranges = (from: number, count: number): SlotRange[] =>
    Array.from({ length: stages }, (_, i) => [from + i * count, count] as const);
  const largeAt = smallSlots + own;
  return {
    readerSmall: ranges(0, readerSmall),
    hostSmall: ranges(readerSmall * stages, hostSmall),
    scratchLarge: smallSlots,
    dnsEach,
    dnsLarge: smallSlots + shards,
    readerLarge: ranges(largeAt, readerLarge),
    hostLarge: ranges(largeAt + readerLarge * stages, hostLarge),
  };
}

/**
 * Slots of readers that the flows of one shard may fill: all of its lane's reader, or a part of the one reader.
 */
export function readerSlotsOfShard(pool: PoolPlan, threads: ThreadsPlan): SlotCounts {
  const { shards, readers } = threadPlan(threads);
  const { readerSmall, readerLarge } = slotShares(pool.smallSlots, pool.largeSlots, shards, readers);
  const sharing = shards / readers;
  return { small: readerSmall[0]![1] / sharing, large: readerLarge[0]![1] / sharing };
}

/** Most lanes of the plan `auto`. */
const MAX_AUTO_LANES = 8;

/**
 * The thread plan `auto`: one packet thread, and more lanes when load needs them where there are processors for
 * them. On two, which the programs inside use too, a second lane gains nothing (measured: 0.99 to 1.03 times
 * fused with 16 streams, 0.94 with one).
 * @param parallelism  number of processors
 * @param mostLanes    lanes at the most
 */
export function autoThreads(parallelism: number, mostLanes = MAX_AUTO_LANES): ThreadsPlan {
  const lanes = Math.min(MAX_AUTO_LANES, parallelism, mostLanes);
  return parallelism <= 2 || lanes < 2 ? { kind: 'fused' } : { kind: 'lanes', lanes, first: 1 };
}
