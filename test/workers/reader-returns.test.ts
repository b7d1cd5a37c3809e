// @vitest: beside
import { describe, expect, it } from 'vitest';
import { NO_SLOT } from '../../src/ring/pool.ts';
import type { RingConsumer } from '../../src/ring/spsc.ts';
import { Assembly } from '../../src/workers/assembly.ts';
import { engineMemory } from '../../src/workers/engine-memory.ts';
import type { TapEnginePlan, ThreadsPlan } from '../../src/workers/engine-plan.ts';
import { linkSlotA, linkSlotB } from '../../src/workers/link/descriptor.ts';
import type { ReaderReturns } from '../../src/workers/link/reader-returns.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const none = NO_SLOT;

/** The links of shard 1, or of the only one, back to the readers. */
function rig(threads: ThreadsPlan, ringDescriptors = 64) {
  const tap = { ...TEST_PLAN.tap, moreQueues: [-1, -1] };
  const plan: TapEnginePlan = {
    ...{ ...TEST_PLAN, threads, tap },
    pool: { smallSlots: 1024, largeSlots: 256, flows: 64 },
  };
  const { sab, layout } = engineMemory(plan, { ringDescriptors, logBytes: 256 });
  const assembly = new Assembly({ plan, sab, layout });
  const { readers, shards } = assembly.threads;
  const shard = Math.min(1, shards - 1);
  const freed = Array.from({ length: readers }, (_, r) => assembly.readerParts(r).freed[shard]!);
  return { returns: assembly.shardParts(shard).toReaders, freed, shares: assembly.shares };
}

/** Flush. @returns pairs of slots that each reader got */
function got(returns: ReaderReturns, freed: readonly RingConsumer[]): [number, number][][] {
  returns.flush();
  return freed.map((ring) => {
    const pairs = Array.from({ length: ring.available() }, (_, i): [number, number] => [
      linkSlotA(ring.words, ring.at(i)),
      linkSlotB(ring.words, ring.at(i)),
    ]);
    ring.release(ring.available());
    return pairs;
  });
}

describe('three lanes', () => {
  const setUp = () => {
    const r = rig({ kind: 'lanes', lanes: 3 });
    const { readerSmall, readerLarge } = r.shares;
    return { ...r, readerSmall, readerLarge };
  };

  it.each([0, 1, 2])('slots at both ends of the shares of reader %i: to that reader alone', (reader) => {
    const { returns, freed, readerSmall, readerLarge } = setUp();
    const [small, smalls] = readerSmall[reader]!;
    const [large, larges] = readerLarge[reader]!;
    const pairs: [number, number][] = [
      [small, none],
      [small + smalls - 1, none],
      [large, none], // a reassembled datagram
      [large + larges - 1, none],
      [none, large],
      [none, large + larges - 1],
      [small, large],
      [small + smalls - 1, large + larges - 1],
    ];
    for (const [a, b] of pairs) returns.free(a, b);
    const expected: [number, number][][] = [[], [], []];
    expected[reader] = pairs;
    expect(got(returns, freed)).toEqual(expected);
  });

  it('slots of two readers, given back together: one message to each', () => {
    const { returns, freed, readerSmall, readerLarge } = setUp();
    const small = readerSmall[2]![0];
    const large = readerLarge[0]![0];
    returns.free(small, large);
    expect(got(returns, freed)).toEqual([[[none, large]], [], [[small, none]]]);
  });

  it('no slot: no message', () => {
    const { returns, freed } = setUp();
    returns.free(none, none);
    expect(got(returns, freed)).toEqual([[], [], []]);
  });

  it('flush: true if any reader sees more than before', () => {
    const { returns, readerSmall } = setUp();
    expect(returns.flush()).toBe(false);
    returns.free(readerSmall[2]![0], none);
    expect(returns.flush()).toBe(true);
    expect(returns.flush()).toBe(false);
  });
});

it('the link to one reader is full: its slots wait, those of the others go', () => {
  const descriptors = 64;
  const { returns, freed, shares } = rig({ kind: 'lanes', lanes: 3 }, descriptors);
  const [first, count] = shares.readerSmall[1]!;
  const slots = Array.from({ length: descriptors + 10 }, (_, i) => first + i);
  expect(slots.length).toBeLessThanOrEqual(count);
  for (const slot of slots) returns.free(slot, none);
  const other = shares.readerSmall[0]![0];
  returns.free(other, none);
  returns.flush();
  expect(returns.movable).toBe(false);
  const before = got(returns, freed);
  expect(before[0]).toEqual([[other, none]]);
  expect(returns.movable).toBe(true);
  const after = got(returns, freed);
  expect(returns.movable).toBe(false);
  expect([...before[1]!, ...after[1]!]).toEqual(slots.map((slot) => [slot, none]));
});

it.each([
  ['fused', { kind: 'fused' }],
  ['pipeline=2', { kind: 'pipeline', shards: 2 }],
] as const)('%s: all slots to the one reader, in pairs as they came', (_name, threads) => {
  const { returns, freed, shares } = rig(threads);
  const small = shares.readerSmall[0]![0];
  const large = shares.readerLarge[0]![0];
  returns.free(small, large);
  returns.free(none, large + 1);
  expect(got(returns, freed)).toEqual([
    [
      [small, large],
      [none, large + 1],
    ],
  ]);
});
