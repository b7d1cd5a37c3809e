import { describe, expect, it } from 'vitest';
import { COUNTER_WORDS, Counter } from '../../src/ring/counters.ts';
import { NO_FLOW } from '../../src/workers/flow-table.ts';
import { Origin, ShardFlows } from '../../src/workers/shard-flows.ts';

const UDP = 17;
const TCP = 6;

/** A table whose flows end at once; `ended` says which and in what order. */
function table(maxFlows = 64): {
  flows: ShardFlows;
  ended: number[];
  counters: Float64Array;
  begin: (origin: number) => number;
} {
  const counters = new Float64Array(COUNTER_WORDS);
  const flows = new ShardFlows(maxFlows, counters, () => {});
  const ended: number[] = [];
  const end = (flow: number): void => {
    ended.push(flow);
    flows.remove(flow);
  };
  flows.onGiveWay(UDP, end);
  flows.onGiveWay(TCP, end);
  const words = new Uint32Array(8);
  let n = 0;
  const begin = (origin: number): number =>
    flows.admit(origin, ++n, words, 0, words, 4, n, origin === Origin.tcp ? TCP : UDP);
  return { flows, ended, counters, begin };
}

const many = (count: number, make: () => number): number[] => Array.from({ length: count }, make);

describe('a full table', () => {
  it('40,000 unanswered datagram flows of the guest: each new one finds room, the oldest goes, TCP has its share', () => {
    const { begin, ended, counters } = table(32_768);
    const first = begin(Origin.guestDatagram);
    const all = many(39_999, () => begin(Origin.guestDatagram));
    expect(all).not.toContain(NO_FLOW);
    expect(ended[0]).toBe(first);
    expect(ended.length).toBe(40_000 - 28_672);
    expect(counters[Counter.flowsGaveWay]).toBe(ended.length);
    expect(many(3000, () => begin(Origin.tcp))).not.toContain(NO_FLOW);
  });

  it('from outside: half of it, and never a flow of the guest', () => {
    const { begin, ended, flows } = table();
    const own = many(8, () => begin(Origin.guestDatagram));
    expect(many(500, () => begin(Origin.inboundDatagram))).not.toContain(NO_FLOW);
    expect(flows.count).toBe(8 + 32);
    for (const flow of own) expect(ended).not.toContain(flow);
  });

  it('unanswered before answered, answered before half-open; what is settled stays', () => {
    const { begin, ended, flows } = table(16);
    const settled = begin(Origin.guestDatagram);
    const answered = begin(Origin.guestDatagram);
    const unanswered = begin(Origin.guestDatagram);
    const halfOpen = begin(Origin.tcp);
    flows.answered(settled);
    flows.settle(settled);
    flows.answered(answered);
    expect([flows.giveWay(), flows.giveWay(), flows.giveWay(), flows.giveWay()]).toEqual([
      true,
      true,
      true,
      false,
    ]);
    expect(ended).toEqual([unanswered, answered, halfOpen]);
    expect(flows.isLive(settled)).toBe(true);
  });

  it('nothing but settled flows: refused and counted', () => {
    const { begin, flows, counters } = table(16);
    for (let i = 0; i < 16; i++) flows.settle(begin(Origin.tcp));
    expect(begin(Origin.tcp)).toBe(NO_FLOW);
    expect(counters[Counter.flowTableFull]).toBe(1);
    expect(counters[Counter.flowsGaveWay]).toBe(0);
  });
});

describe('a flow that found no descriptor', () => {
  it('an older unanswered one gives way, never itself, and the table is not called full', () => {
    const { begin, ended, flows } = table(16);
    const old = begin(Origin.guestDatagram);
    const late = begin(Origin.guestDatagram);
    flows.giveDescriptor(late);
    flows.giveDescriptor(late);
    expect(ended).toEqual([old]);
  });
});
