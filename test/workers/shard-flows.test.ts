// @vitest: beside
import { describe, expect, it } from 'vitest';
import { COUNTER_WORDS, Counter } from '../../src/ring/counters.ts';
import { NO_FLOW } from '../../src/workers/flow/flow-table.ts';
import { Origin, ShardFlows } from '../../src/workers/flow/shard-flows.ts';

const UDP = 17;
const TCP = 6;

/** A table whose flows end at once; `ended` has them in order. */
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
  const tuple = { addr: new Uint32Array(8), hash: 0, ports: 0, proto: 0 };
  let n = 0;
  const begin = (origin: number): number => {
    tuple.hash = ++n;
    tuple.ports = n;
    tuple.proto = origin === Origin.tcp ? TCP : UDP;
    return flows.admit(origin, tuple);
  };
  return { flows, ended, counters, begin };
}

const many = (count: number, make: () => number): number[] => Array.from({ length: count }, make);

describe('a full table', () => {
  it('40,000 unanswered datagram flows of the guest: the oldest end for new ones, TCP keeps its share', () => {
    const { begin, ended, counters } = table(32_768);
    const first = begin(Origin.guestDatagram);
    const all = many(39_999, () => begin(Origin.guestDatagram));
    expect(all).not.toContain(NO_FLOW);
    expect(ended[0]).toBe(first);
    expect(ended.length).toBe(40_000 - 28_672);
    expect(counters[Counter.flowsGaveWay]).toBe(ended.length);
    expect(many(3000, () => begin(Origin.tcp))).not.toContain(NO_FLOW);
  });

  it('flows from outside: at most half of the table, and they end no flow of the guest', () => {
    const { begin, ended, flows } = table();
    const own = many(8, () => begin(Origin.guestDatagram));
    expect(many(500, () => begin(Origin.inboundDatagram))).not.toContain(NO_FLOW);
    expect(flows.count).toBe(8 + 32);
    for (const flow of own) expect(ended).not.toContain(flow);
  });

  it('order of ending: unanswered, answered, half-open; established flows are kept', () => {
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

  it('many flows from outside, few of the guest: the oldest of the longer list ends first', () => {
    const { begin, ended, flows } = table();
    many(5, () => begin(Origin.guestDatagram));
    const outside = many(30, () => begin(Origin.inboundDatagram));
    for (let i = 0; i < 25; i++) flows.giveWay();
    expect(ended).toEqual(outside.slice(0, 25));
  });

  it('answered twice, or TCP: the position in the lists is kept', () => {
    const { begin, ended, flows } = table();
    const halfOpen = begin(Origin.tcp);
    const answered = begin(Origin.guestDatagram);
    for (let i = 0; i < 2; i++) for (const flow of [halfOpen, answered]) flows.answered(flow);
    expect([flows.giveWay(), flows.giveWay(), flows.giveWay()]).toEqual([true, true, false]);
    expect(ended).toEqual([answered, halfOpen]);
  });

  it('only established flows: a new one is refused and counted', () => {
    const { begin, flows, counters } = table(16);
    for (let i = 0; i < 16; i++) flows.settle(begin(Origin.tcp));
    expect(begin(Origin.tcp)).toBe(NO_FLOW);
    expect(counters[Counter.flowTableFull]).toBe(1);
    expect(counters[Counter.flowsGaveWay]).toBe(0);
  });

  it('flows that ended by themselves: no longer counted, as many new ones end no other', () => {
    const { begin, ended, flows } = table();
    for (const origin of [Origin.inboundDatagram, Origin.guestDatagram])
      for (let round = 0; round < 4; round++) {
        const begun = many(20, () => begin(origin));
        expect(begun).not.toContain(NO_FLOW);
        for (const flow of begun) flows.remove(flow);
      }
    expect(ended).toEqual([]);
  });

  it('ended flows not closed yet: the last ids are for the guest, the very last for TCP and name queries', () => {
    const { begin, flows } = table();
    for (const proto of [TCP, UDP]) flows.onGiveWay(proto, () => {});
    many(61, () => begin(Origin.tcp));
    expect(begin(Origin.inboundDatagram)).not.toBe(NO_FLOW);
    expect(begin(Origin.inboundDatagram)).toBe(NO_FLOW);
    expect(begin(Origin.guestDatagram)).not.toBe(NO_FLOW);
    expect(begin(Origin.guestDatagram)).toBe(NO_FLOW);
    expect(flows.freeCount).toBe(1);
    expect(begin(Origin.tcp)).not.toBe(NO_FLOW);
    expect(flows.freeCount).toBe(0);
  });
});

describe('a flow for which no descriptor is left', () => {
  it('an older unanswered flow is ended, never itself; no "table full" notice', () => {
    const { begin, ended, flows } = table(16);
    const old = begin(Origin.guestDatagram);
    const late = begin(Origin.guestDatagram);
    flows.giveDescriptor(late);
    flows.giveDescriptor(late);
    expect(ended).toEqual([old]);
  });
});
