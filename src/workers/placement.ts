/**
 * Thread plans: which stages run on which packet thread, and which links join them. docs/architecture.md
 * draws them.
 *
 *   fused        thread 0: reader, shard 0, host-io
 *   pipeline=N   thread 0: reader    threads 1..N: shard 0..N-1    thread N+1: host-io
 *
 * Links, by ring number: four for each shard, one from host-io to the reader.
 */
import type { EnginePlan } from './engine-plan.ts';

export interface ThreadPlan {
  readonly shards: number;
  readonly threads: number;
  readonly rings: number;
  readonly readerThread: number;
  readonly hostThread: number;
  shardThread(shard: number): number;
  /** For people: what the thread runs. */
  threadName(thread: number): string;
}

/** Which thread runs what, and how many rings join them. */
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

/** Ring numbers. */
export const LinkRing = {
  readerToShard: (shard: number): number => shard * RINGS_PER_SHARD,
  shardToReader: (shard: number): number => shard * RINGS_PER_SHARD + 1,
  shardToHost: (shard: number): number => shard * RINGS_PER_SHARD + 2,
  hostToShard: (shard: number): number => shard * RINGS_PER_SHARD + 3,
  hostToReader: (shards: number): number => shards * RINGS_PER_SHARD,
} as const;

/** Who gets which slots at the start, as ranges of slot numbers. */
export interface SlotShares {
  readonly readerSmall: readonly [first: number, count: number];
  readonly hostSmall: readonly [first: number, count: number];
  readonly readerLarge: readonly [first: number, count: number];
  readonly hostLarge: readonly [first: number, count: number];
  /** One large slot for each shard, in which it builds frames of its own. */
  readonly scratchLarge: readonly [first: number, count: number];
  /**
   * Large slots in which DNS queries wait: how many each shard has, and the first slot of the first shard.
   */
  readonly dnsEach: number;
  readonly dnsLarge: number;
}

/** Large slots of a shard's own in which DNS queries wait: room for 1,360 of them. */
const MAX_DNS_SLOTS = 10;

/** A quarter of the small slots is host-io's (datagrams); large ones are shared half and half. */
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

/** What `auto` means: hops between threads cost more than they save on one or two cores (docs/decisions). */
export function autoThreads(parallelism: number): EnginePlan['threads'] {
  return parallelism <= 2
    ? { kind: 'fused' }
    : { kind: 'pipeline', shards: Math.max(1, Math.min(8, parallelism - 2)) };
}
