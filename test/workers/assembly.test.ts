// @vitest: beside
import { describe, expect, it } from 'vitest';
import { NO_SLOT, type SlotStack } from '../../src/ring/pool.ts';
import type { RingConsumer, RingProducer } from '../../src/ring/spsc.ts';
import { Assembly } from '../../src/workers/assembly.ts';
import { engineMemory } from '../../src/workers/engine-memory.ts';
import type { TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { linkSlotA, linkSlotB } from '../../src/workers/link/descriptor.ts';
import type { ReaderReturns } from '../../src/workers/link/reader-returns.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const POOL = { smallSlots: 1024, largeSlots: 256, flows: 64 };

const PLANS = [
  ['fused', { kind: 'fused' }, 1],
  ['pipeline=2', { kind: 'pipeline', shards: 2 }, 2],
  ['lanes=3', { kind: 'lanes', lanes: 3 }, 3],
] as const;

function assemble(threads: TapEnginePlan['threads']): Assembly {
  const tap = { ...TEST_PLAN.tap, moreQueues: [-1, -1] };
  const plan: TapEnginePlan = { ...TEST_PLAN, threads, pool: POOL, tap, debugOwnership: true };
  const { sab, layout } = engineMemory(plan, { ringDescriptors: 16, logBytes: 256 });
  return new Assembly({ plan, sab, layout });
}

/** Send one descriptor. @returns whether this consumer got it */
function leads(from: RingProducer, to: RingConsumer): boolean {
  from.reserve();
  from.commit();
  from.flush();
  const count = to.available();
  to.release(count);
  return count === 1;
}

/** Give a slot of a reader back. @returns whether the link got it */
function returns(through: ReaderReturns, slots: SlotStack, to: RingConsumer): boolean {
  const slot = slots.pop();
  through.free(slot, NO_SLOT);
  through.flush();
  const count = to.available();
  const got = count === 1 && linkSlotA(to.words, to.at(0)) === slot;
  to.release(count);
  slots.push(slot);
  return got;
}

function slotsOf(stack: SlotStack): number[] {
  return Array.from({ length: stack.free }, () => stack.pop());
}

describe.each(PLANS)('the parts of the stages, %s', (_name, threads, shards) => {
  const partsOf = (assembly: Assembly) => {
    const { readers, hosts } = assembly.threads;
    return {
      readers: Array.from({ length: readers }, (_, r) => assembly.readerParts(r)),
      shards: Array.from({ length: shards }, (_, s) => assembly.shardParts(s)),
      hosts: Array.from({ length: hosts }, (_, h) => assembly.hostParts(h)),
    };
  };

  it('each ring connects the two stages of its name', () => {
    const assembly = assemble(threads);
    const parts = partsOf(assembly);
    parts.readers.forEach((reader, r) => {
      expect(reader.toShards.length).toBe(shards);
      parts.shards.forEach((shard, s) => {
        expect(leads(reader.toShards[s]!, shard.fromReaders[r]!)).toBe(true);
        expect(returns(shard.toReaders, reader.smallSlots, reader.freed[s]!)).toBe(true);
        expect(returns(shard.toReaders, reader.largeSlots, reader.freed[s]!)).toBe(true);
      });
      parts.hosts.forEach((host, h) => {
        expect(returns(host.toReaders, reader.smallSlots, reader.freed[shards + h]!)).toBe(true);
      });
    });
    parts.shards.forEach((shard, s) => {
      const { threads: plan } = assembly;
      const host = parts.hosts[plan.hostOfShard(s)]!;
      const place = plan.hosts > 1 ? 0 : s;
      expect(leads(shard.toHost, host.fromShards[place]!)).toBe(true);
      expect(leads(host.toShards[place]!, shard.fromHosts[0]!)).toBe(true);
      expect(leads(parts.hosts[0]!.acceptedTo[s]!, shard.fromHosts.at(-1)!)).toBe(true);
    });
  });

  it('slots of two readers, given back together: each goes to its own', () => {
    const assembly = assemble(threads);
    const parts = partsOf(assembly);
    const first = parts.readers[0]!;
    const last = parts.readers.at(-1)!;
    const { toReaders } = parts.shards[0]!;
    const [small, large] = [first.smallSlots.pop(), last.largeSlots.pop()];
    toReaders.free(small, large);
    toReaders.flush();
    const got = (reader: typeof first): number[] => {
      const ring = reader.freed[0]!;
      const slots = Array.from({ length: ring.available() }, (_, i) => [
        linkSlotA(ring.words, ring.at(i)),
        linkSlotB(ring.words, ring.at(i)),
      ]).flat();
      ring.release(ring.available());
      return slots.filter((slot) => slot !== NO_SLOT);
    };
    if (first === last) expect(got(first)).toEqual([small, large]);
    else expect([got(first), got(last)]).toEqual([[small], [large]]);
  });

  it('each slot has at most one owner, and few have none', () => {
    const assembly = assemble(threads);
    const parts = partsOf(assembly);
    const stacks = [...parts.readers, ...parts.hosts].flatMap((part) => [part.smallSlots, part.largeSlots]);
    const ofShards = parts.shards.flatMap(({ scratchSlot, dnsSlots: [first, count] }) => [
      scratchSlot,
      ...Array.from({ length: count }, (_, i) => first + i),
    ]);
    const { smallSlots, largeSlots } = POOL;
    const slots = [...stacks.flatMap(slotsOf), ...ofShards].sort((a, b) => a - b);
    expect(new Set(slots).size).toBe(slots.length);
    expect(slots.at(-1)).toBeLessThan(smallSlots + largeSlots);
    // What cannot be divided by the number of lanes.
    expect(slots.length).toBeGreaterThan(smallSlots + largeSlots - 3 * parts.readers.length);
    if (parts.readers.length === 1)
      expect(slots).toEqual(Array.from({ length: smallSlots + largeSlots }, (_, i) => i));
  });
});

it('a plan without a TAP: neither reader nor shards', () => {
  const { tap: _, ...plan } = TEST_PLAN;
  const { sab, layout } = engineMemory(plan, { ringDescriptors: 16, logBytes: 256 });
  const assembly = new Assembly({ plan, sab, layout });
  expect(() => assembly.reader(0, {} as never)).toThrow('a plan without a TAP has neither reader nor shards');
});
