// @vitest: beside
import { describe, expect, it } from 'vitest';
import type { SlotStack } from '../../src/ring/pool.ts';
import type { RingConsumer, RingProducer } from '../../src/ring/spsc.ts';
import { Assembly } from '../../src/workers/assembly.ts';
import { engineMemory } from '../../src/workers/engine-memory.ts';
import type { TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const PLANS = [
  ['fused', { kind: 'fused' }, 1],
  ['pipeline=2', { kind: 'pipeline', shards: 2 }, 2],
] as const;

function assemble(threads: TapEnginePlan['threads']): Assembly {
  const plan: TapEnginePlan = { ...TEST_PLAN, threads, debugOwnership: true };
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

function slotsOf(stack: SlotStack): number[] {
  return Array.from({ length: stack.free }, () => stack.pop());
}

describe.each(PLANS)('the parts of the stages, %s', (_name, threads, shards) => {
  it('each ring connects the two stages of its name', () => {
    const assembly = assemble(threads);
    const reader = assembly.readerParts();
    const host = assembly.hostParts();
    const all = Array.from({ length: shards }, (_, s) => assembly.shardParts(s));
    expect(reader.toShards.length).toBe(shards);
    all.forEach((shard, s) => {
      expect(leads(reader.toShards[s]!, shard.fromReader)).toBe(true);
      expect(leads(shard.toReader, reader.freed[s]!)).toBe(true);
      expect(leads(shard.toHost, host.fromShards[s]!)).toBe(true);
      expect(leads(host.toShards[s]!, shard.fromHost)).toBe(true);
    });
    expect(leads(host.toReader, reader.freed.at(-1)!)).toBe(true);
  });

  it('each slot has exactly one owner', () => {
    const assembly = assemble(threads);
    const reader = assembly.readerParts();
    const host = assembly.hostParts();
    const stacks = [reader.smallSlots, reader.largeSlots, host.smallSlots, host.largeSlots];
    const ofShards = Array.from({ length: shards }, (_, s) => assembly.shardParts(s)).flatMap(
      ({ scratchSlot, dnsSlots: [first, count] }) => [
        scratchSlot,
        ...Array.from({ length: count }, (_, i) => first + i),
      ],
    );
    const { smallSlots, largeSlots } = TEST_PLAN.pool;
    const slots = [...stacks.flatMap(slotsOf), ...ofShards].sort((a, b) => a - b);
    expect(slots).toEqual(Array.from({ length: smallSlots + largeSlots }, (_, i) => i));
  });
});

it('a plan without a TAP: neither reader nor shards', () => {
  const { tap: _, ...plan } = TEST_PLAN;
  const { sab, layout } = engineMemory(plan, { ringDescriptors: 16, logBytes: 256 });
  const assembly = new Assembly({ plan, sab, layout });
  expect(() => assembly.reader({} as never)).toThrow('a plan without a TAP has neither reader nor shards');
});
