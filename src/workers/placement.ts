/**
 * Thread plans: which stages run on which packet thread, and which links connect them (drawn in
 * docs/architecture.md).
 *
 *   fused        thread 0: reader, shard 0, host-io
 *   pipeline=N   thread 0: reader    threads 1..N: shard 0..N-1    thread N+1: host-io
 *
 * Links, by ring number: four per shard, then one from host-io to the reader.
 */
import type { EnginePlan } from './engine-plan.ts';

export interface ThreadPlan {
  readonly shards: number;
  readonly threads: number;
  readonly rings: number;
  readonly readerThread: number;
  readonly hostThread: number;
  shardThread(shard: number): number;
  /** Name of the thread for reports: the stages that it runs. */
  threadName(thread: number): string;
}

/** Compute the thread of each stage, and the number of rings. */
export function threadPlan(threads: EnginePlan['threads']): ThreadPlan {
  const fused = threads.kind === 'fused';
  const shards = fused ? 1 : threads.shards;
  return {
    shards,
    threads: fused ? 1 : shards + 2,
    rings: shards * RINGS_PER_SHARD + 1,
    readerThread: 0,
    hostThread: fused ? 0 : shards + 1,
    shardThread: (shard) => (fused ? 0 : shard + 1),
    threadName: (thread) => {
      if (fused) return 'packets';
      return thread === 0 ? 'reader' : thread <= shards ? `shard ${thread - 1}` : 'host-io';
    },
  };
}

const RINGS_PER_SHARD = 4;

/** Ring number of each link. */
export const LinkRing = {
  readerToShard: (shard: number): number => shard * RINGS_PER_SHARD,
  shardToReader: (shard: number): number => shard * RINGS_PER_SHARD + 1,
  shardToHost: (shard: number): number => shard * RINGS_PER_SHARD + 2,
  hostToShard: (shard: number): number => shard * RINGS_PER_SHARD + 3,
  hostToReader: (shards: number): number => shards * RINGS_PER_SHARD,
} as const;

/** Which slots each stage gets at the start, as ranges of slot numbers. */
export interface SlotShares {
  readonly readerSmall: readonly [first: number, count: number];
  readonly hostSmall: readonly [first: number, count: number];
  readonly readerLarge: readonly [first: number, count: number];
  readonly hostLarge: readonly [first: number, count: number];
  /** One large slot per shard, in which it builds frames. */
  readonly scratchLarge: readonly [first: number, count: number];
  /** Number of large slots per shard in which DNS queries wait, and the first slot of shard 0. */
  readonly dnsEach: number;
  readonly dnsLarge: number;
}

/** Most large slots per shard in which DNS queries wait: room for 1,360 queries. */
const MAX_DNS_SLOTS = 10;

/**
 * Divide the slots: host-io gets a quarter of the small ones (datagrams) and half of the large ones, the
 * reader gets the rest.
 * @throws RangeError when there are too few
 */
export function slotShares(smallSlots: number, largeSlots: number, shards: number): SlotShares {
  const hostSmall = smallSlots >>> 2;
  const readerSmall = smallSlots - hostSmall;
  const dnsEach = Math.max(1, Math.min(MAX_DNS_SLOTS, largeSlots >>> 6));
  const large = largeSlots - shards * (1 + dnsEach);
  const largeAt = smallSlots + shards * (1 + dnsEach);
  const hostLarge = large >>> 1;
  const readerLarge = large - hostLarge;
  if (hostSmall < 32 || hostLarge < 4) {
    throw new RangeError(`frame pool: ${smallSlots} small and ${largeSlots} large slots are too few`);
  }
  return {
    readerSmall: [0, readerSmall],
    hostSmall: [readerSmall, hostSmall],
    scratchLarge: [smallSlots, shards],
    dnsEach,
    dnsLarge: smallSlots + shards,
    readerLarge: [largeAt, readerLarge],
    hostLarge: [largeAt + readerLarge, hostLarge],
  };
}

/**
 * The thread plan `auto`: on one or two cores hops between threads cost more than they save (decision 003).
 * @param parallelism  number of processors
 */
export function autoThreads(parallelism: number): EnginePlan['threads'] {
  return parallelism <= 2
    ? { kind: 'fused' }
    : { kind: 'pipeline', shards: Math.max(1, Math.min(8, parallelism - 2)) };
}
