// @vitest: beside
/** Which buckets a lane gives away, and the state of a flow on its way. How flows move: tcp/moving.test.ts. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IpProtocol } from '../../src/proto/ipv4.ts';
import { COUNTER_WORDS } from '../../src/ring/counters.ts';
import { FlowState, HOST_STATE_WORDS, STATE_WORDS } from '../../src/workers/flow/flow-state.ts';
import { newFlowTuple } from '../../src/workers/flow/flow-tuple.ts';
import { Origin, ShardFlows } from '../../src/workers/flow/shard-flows.ts';
import { TimerWheel } from '../../src/workers/flow/timer-wheel.ts';
import { chooseBuckets, type UsedBucket } from '../../src/workers/flow-mover.ts';
import type { ShardContext } from '../../src/workers/translator/context.ts';
import { TcbFlag, TcbState, TcpControlBlocks } from '../../src/workers/translator/tcp/control-blocks.ts';
import { ReceiveBuffers } from '../../src/workers/translator/tcp/receive-buffers.ts';
import { Timestamps } from '../../src/workers/translator/tcp/timestamps.ts';
import '../support/fast-check-sizes.ts';
import { ShardRig } from '../support/shard-rig.ts';

const used = (traffic: number, bucket = 0, canMove = true): UsedBucket => ({
  ...{ bucket, flows: [bucket], traffic, canMove },
});
const sum = (list: readonly UsedBucket[]): number => list.reduce((n, { traffic }) => n + traffic, 0);
const chosen = (traffic: readonly number[], share: number): number[] => {
  const all = traffic.map((bytes, i) => used(bytes, i));
  return chooseBuckets(all, sum(all), share).map((item) => item.traffic);
};

describe('chooseBuckets', () => {
  it.each([
    ['equal flows: half of them', [100, 100, 100, 100], 0.5, [100, 100]],
    ['equal flows: a third', [10, 10, 10, 10, 10, 10], 1 / 3, [10, 10]],
    ['two equal ones: one', [100, 100], 0.5, [100]],
    ['one alone: it would only change places', [100], 0.5, []],
    ['one heavy flow stays, the light ones go', [1000, 1, 2, 3], 0.5, [1, 2, 3]],
    ['those with the least first', [7, 1, 5, 3], 0.5, [1, 3, 5]],
    ['the sum that is nearest: 4 of 5 wanted, not 8', [4, 4, 2], 0.5, [2, 4]],
    ['without traffic: none', [0, 0, 0], 0.5, []],
    ['those without traffic stay, if not all go', [0, 5, 0, 5], 0.5, [5]],
    ['all', [0, 5, 1000, 0], 1, [0, 5, 1000, 0]],
    ['no flows', [], 0.5, []],
  ] as const)('%s', (_name, traffic, share, expected) => {
    expect(chosen(traffic, share)).toEqual(expected);
  });

  it('what cannot move is not chosen, but counts', () => {
    const all = [used(10, 1), used(10, 2, false), used(10, 3, false), used(10, 4)];
    expect(chooseBuckets(all, 40, 0.5).map(({ bucket }) => bucket)).toEqual([1, 4]);
    expect(chooseBuckets(all, 40, 1).map(({ bucket }) => bucket)).toEqual([1, 4]);
    expect(chooseBuckets([used(90, 1, false), used(10, 2)], 100, 0.5).map(({ bucket }) => bucket)).toEqual([
      2,
    ]);
  });

  it('the sum is nearest to what is wanted of all that take the least first', () => {
    const list = fc.array(fc.nat({ max: 1000 }), { maxLength: 50 });
    fc.assert(
      fc.property(list, fc.double({ min: 0.01, max: 0.99, noNaN: true }), (traffic, share) => {
        const all = traffic.map((bytes, i) => used(bytes, i));
        const wanted = sum(all) * share;
        const got = sum(chooseBuckets([...all], sum(all), share));
        const sorted = traffic.filter((bytes) => bytes > 0).sort((a, b) => a - b);
        let best = Math.abs(wanted);
        let before = 0;
        for (const bytes of sorted) best = Math.min(best, Math.abs((before += bytes) - wanted));
        expect(Math.abs(got - wanted)).toBeLessThanOrEqual(best + 1e-6);
      }),
    );
  });
});

describe('FlowState', () => {
  it('words and numbers are read back in order, as often as wanted', () => {
    const state = new FlowState();
    const numbers = [0, 1, -1, 0.1, 2 ** 53, -1e-300, Number.POSITIVE_INFINITY, Math.PI];
    state.begin();
    for (const number of numbers) state.putNumber(number);
    for (const word of [0, 1, 0xffffffff]) state.put(word);
    for (let i = 0; i < 2; i++) {
      state.begin();
      expect(numbers.map(() => state.takeNumber())).toEqual(numbers);
      expect([state.take(), state.take(), state.take()]).toEqual([0, 1, 0xffffffff]);
    }
  });

  it("the words of host-io are not the shard's", () => {
    const state = new FlowState();
    state.words.fill(7, 0, HOST_STATE_WORDS);
    state.begin();
    state.put(9);
    expect([...state.words.subarray(0, HOST_STATE_WORDS + 1)]).toEqual([
      ...new Array<number>(HOST_STATE_WORDS).fill(7),
      9,
    ]);
  });

  it('more than fit: an error, not a part of the state', () => {
    const state = new FlowState();
    state.begin();
    for (let i = HOST_STATE_WORDS; i < STATE_WORDS; i++) state.put(i);
    expect(() => state.put(1)).toThrow(RangeError);
    expect(() => state.putNumber(1)).toThrow(RangeError);
  });
});

describe('save() on one lane, restore() on another', () => {
  /** The elements of all typed arrays of an object at a flow, by name. */
  const variables = (of: object, flow: number): Map<string, number> =>
    new Map(
      Object.entries(of).flatMap(([name, value]) =>
        ArrayBuffer.isView(value) ? [[name, (value as Uint32Array)[flow]!] as const] : [],
      ),
    );

  it('control block: every variable that is not one of this thread', () => {
    const from = new TcpControlBlocks(4);
    const to = new TcpControlBlocks(8);
    let value = 1;
    for (const array of Object.values(from))
      if (ArrayBuffer.isView(array)) (array as Uint32Array)[2] = value++ * 3;
    for (const array of Object.values(to)) if (ArrayBuffer.isView(array)) (array as Uint32Array)[5] = 250;
    from.flags[2] =
      TcbFlag.guestFin | TcbFlag.sackOk | TcbFlag.ackPending | TcbFlag.creditPending | TcbFlag.timing;
    from.lastSeen[2] = 900.25;
    to.flags[5] = TcbFlag.creditPending;
    const state = new FlowState();
    state.begin();
    from.save(2, state, 1000);
    state.begin();
    to.restore(5, state, 50);
    const [before, after] = [variables(from, 2), variables(to, 5)];
    expect(before.size).toBeGreaterThan(25);
    const own = ['state', 'flags', 'provisional', 'timedSeq', 'timedAt', 'lastSeen', 'tsOffset'];
    for (const [name, was] of before) if (!own.includes(name)) expect(after.get(name), name).toBe(was);
    expect(to.state[5]).toBe(TcbState.established);
    // The list of this shard may have the flow id from before.
    expect(to.flags[5]).toBe(TcbFlag.guestFin | TcbFlag.sackOk | TcbFlag.creditPending);
    expect(to.provisional[5]).toBe(0);
    expect(to.lastSeen[5]).toBe(50 - 99.75);
  });

  const buffersOf = (now: number): { ctx: ShardContext; tcb: TcpControlBlocks; buffers: ReceiveBuffers } => {
    const { ctx } = new ShardRig();
    ctx.now = now;
    const tcb = new TcpControlBlocks(ctx.plan.pool.flows);
    return { ctx, tcb, buffers: new ReceiveBuffers(ctx, tcb, { small: 640, large: 512 }) };
  };

  it('receive buffer: the limit, and whether the socket drains', () => {
    const from = buffersOf(5000);
    const to = buffersOf(100);
    from.buffers.begin(1);
    for (let i = 0; i < 3; i++) from.buffers.grow(1);
    const { limit } = from.buffers;
    expect(limit[1]).toBeGreaterThan(to.buffers.limit[2]!);
    from.buffers.add(1, 3000, 1, false);
    expect(from.buffers.isEmpty(1)).toBe(false);
    from.buffers.onSent(1, 3000, 1, true);
    expect(from.buffers.isEmpty(1)).toBe(true);
    const state = new FlowState();
    state.begin();
    from.buffers.save(1, state);
    state.begin();
    to.buffers.restore(2, state);
    expect(to.buffers.limit[2]).toBe(limit[1]);
    expect([to.buffers.isEmpty(2), to.buffers.isStalled(2), to.buffers.held]).toEqual([true, false, 0]);
    // And once more, as it came.
    const again = new FlowState();
    again.begin();
    to.buffers.save(2, again);
    expect(again.words).toEqual(state.words);
  });

  it('flow: key, bytes, age; it does not give way', () => {
    const counters = new Float64Array(COUNTER_WORDS);
    const from = new ShardFlows(16, counters, () => {});
    const to = new ShardFlows(16, counters, () => {});
    from.nowMs = 10_000;
    const tuple = newFlowTuple(IpProtocol.tcp);
    Object.assign(tuple, { hash: 0xfedcba98, ports: 0xc0000050 });
    tuple.addr.set([1, 2, 3, 4, 5, 6, 7, 0xffffffff]);
    const flow = from.admit(Origin.tcp, tuple);
    from.fromGuestBytes[flow] = 2 ** 40 + 1;
    from.toGuestBytes[flow] = 3;
    from.nowMs = 12_500.5;
    const state = new FlowState();
    state.begin();
    from.save(flow, state);
    from.remove(flow);
    to.nowMs = 7;
    for (let i = 0; i < 3; i++) {
      const other = newFlowTuple(IpProtocol.tcp);
      Object.assign(other, { hash: i, ports: i });
      to.admit(Origin.tcp, other);
    }
    state.begin();
    const there = to.restore(Origin.tcp, newFlowTuple(IpProtocol.tcp), state);
    expect(to.find(tuple)).toBe(there);
    expect(from.find(tuple)).toBe(-1);
    expect([to.fromGuestBytes[there], to.toGuestBytes[there]]).toEqual([2 ** 40 + 1, 3]);
    expect(to.nowMs - to.bornMs[there]!).toBe(2500.5);
    for (let i = 3; i < 40; i++) {
      const other = newFlowTuple(IpProtocol.tcp);
      Object.assign(other, { hash: i, ports: i });
      to.admit(Origin.tcp, other);
    }
    expect(to.find(tuple)).toBe(there);
  });

  it('flow: the table is full: no flow, and what follows in the state is read all the same', () => {
    const counters = new Float64Array(COUNTER_WORDS);
    const from = new ShardFlows(16, counters, () => {});
    const to = new ShardFlows(16, counters, () => {});
    for (let i = 0; i < 16; i++) {
      const tuple = newFlowTuple(IpProtocol.tcp);
      Object.assign(tuple, { hash: i, ports: i });
      to.settle(to.admit(Origin.tcp, tuple));
    }
    const tuple = newFlowTuple(IpProtocol.tcp);
    tuple.hash = 99;
    const state = new FlowState();
    state.begin();
    from.save(from.admit(Origin.tcp, tuple), state);
    state.put(4711);
    state.begin();
    expect(to.restore(Origin.tcp, newFlowTuple(IpProtocol.tcp), state)).toBe(-1);
    expect(state.take()).toBe(4711);
  });

  it('timestamp clock: it goes on from where it was, whichever of the threads is ahead', () => {
    const clocks = [0, 5000, -900, 0.75].map((ahead) => {
      const { ctx } = new ShardRig();
      return { ctx, ahead, clock: new Timestamps(ctx, new TcpControlBlocks(ctx.plan.pool.flows)) };
    });
    let last = clocks[0]!.clock.now(3);
    for (let step = 0; step < 400; step++) {
      const at = clocks[(step * 7 + (step >> 2)) % clocks.length]!;
      at.ctx.now = 10_000 + step * 0.4 + at.ahead;
      at.clock.setClock(3, last);
      expect(at.clock.now(3)).toBe(last);
      at.ctx.now += 3;
      const now = at.clock.now(3);
      expect([2, 3, 4]).toContain((now - last) >>> 0);
      last = now;
    }
  });

  it('timer: the time that is left, to half a tick; many moves do not put it off', () => {
    const wheels = [0, 1.3, -777.7, 12_345.6].map((ahead) => ({
      ahead,
      wheel: new TimerWheel(4, 4, 1000 + ahead),
    }));
    let at = wheels[0]!;
    at.wheel.arm(1, 1200);
    expect(at.wheel.msUntil(0, 1000)).toBe(Infinity);
    let now = 1000;
    for (; now < 1150; now += 1) {
      const left = at.wheel.msUntil(1, now + at.ahead);
      at.wheel.cancel(1);
      expect(at.wheel.msUntil(1, now)).toBe(Infinity);
      at = wheels[now % wheels.length]!;
      at.wheel.advance(now + at.ahead, () => expect.fail('fired early'));
      at.wheel.arm(1, now + at.ahead + left);
    }
    expect(Math.abs(now + at.wheel.msUntil(1, now + at.ahead) - 1200)).toBeLessThan(30);
  });
});
