// @vitest: beside
/** The lines of one direction: which one a frame takes, and which frame arrives first. */
import { describe, expect, it } from 'vitest';
import { COUNTER_WORDS, Counter } from '../../../src/ring/counters.ts';
import { EFD_CLOEXEC, EFD_NONBLOCK } from '../../../src/sys/constants.ts';
import { EpollEvents, epollCreate, epollWaitPrecise } from '../../../src/sys/epoll.ts';
import { close, eventfd } from '../../../src/sys/io.ts';
import type { LinesPlan, ShapingPlan } from '../../../src/workers/engine-plan.ts';
import { type Direction, GATHER_MS, Lines, wakeMs } from '../../../src/workers/shaping/lines.ts';
import { OPEN_LINE } from './line-plan.ts';

const delayed = (delayMs: number): LinesPlan => ({
  fromGuest: { ...OPEN_LINE, delayMs },
  toGuest: { ...OPEN_LINE, delayMs },
});
const PLAN: ShapingPlan = {
  seed: 1,
  rest: delayed(10),
  rules: [
    { ...delayed(30), networks: [{ address: '192.0.2.0', prefixLen: 24 }] },
    {
      ...delayed(50),
      networks: [
        { address: '2001:db8::', prefixLen: 33 },
        { address: '192.0.0.0', prefixLen: 16 },
      ],
    },
  ],
};

/** An Ethernet frame with the two addresses. */
function frame(src: readonly number[], dst: readonly number[]): Uint8Array {
  const u8 = new Uint8Array(80);
  const isV6 = src.length === 16;
  u8.set(isV6 ? [0x86, 0xdd, 0x60] : [0x08, 0x00, 0x45], 12);
  u8.set(src, isV6 ? 22 : 26);
  u8.set(dst, isV6 ? 38 : 30);
  return u8;
}

function enter(lines: Lines, u8: Uint8Array, now: number): void {
  lines.frame.u8.set(u8);
  lines.enter(u8.length, now);
}

function arrivesAfter(direction: Direction, u8: Uint8Array, plan = PLAN): number {
  const lines = new Lines(plan, direction, new Float64Array(COUNTER_WORDS), 0);
  enter(lines, u8, 1000);
  const ms = lines.nextMs();
  const line = lines.due(ms)!;
  expect(line.u8.subarray(line.frameAt, line.frameAt + line.frameBytes)).toEqual(u8);
  line.release();
  expect(lines.nextMs()).toBe(Number.POSITIVE_INFINITY);
  return ms - 1000;
}

const V6 = (...head: number[]): number[] => [...head, ...new Array(15 - head.length).fill(0), 1];
const GUEST = [10, 0, 0, 2];

describe('the line of a frame', () => {
  it.each([
    [[192, 0, 2, 9], GUEST, 30],
    [[192, 0, 3, 9], GUEST, 50],
    [[192, 1, 2, 9], GUEST, 10],
    [V6(0x20, 0x01, 0x0d, 0xb8, 0x7f), V6(0xfd), 50],
    [V6(0x20, 0x01, 0x0d, 0xb8, 0x80), V6(0xfd), 10],
  ])('address outside %j: the first rule that has it', (outside, guest, ms) => {
    expect(arrivesAfter('fromGuest', frame(guest, outside))).toBe(ms);
    expect(arrivesAfter('toGuest', frame(outside, guest))).toBe(ms);
    expect(arrivesAfter('fromGuest', frame(outside, guest))).toBe(10); // a source from inside does not count
  });

  it('no IP packet, or a short one: the line of the rest', () => {
    const arp = new Uint8Array(60);
    arp.set([0x08, 0x06], 12);
    expect(arrivesAfter('fromGuest', arp)).toBe(10);
    expect(arrivesAfter('fromGuest', frame(GUEST, [192, 0, 2, 9]).subarray(0, 20))).toBe(10);
  });

  it('an IPv4 network does not have IPv6 addresses, ::/0 has all', () => {
    const networks = [{ address: '::', prefixLen: 0 }];
    const all = { ...PLAN, rules: [{ ...delayed(70), networks }] };
    expect(arrivesAfter('fromGuest', frame(GUEST, [192, 0, 2, 9]), all)).toBe(70);
    const v4 = { ...PLAN, rules: [{ ...delayed(70), networks: [{ address: '0.0.0.0', prefixLen: 0 }] }] };
    expect(arrivesAfter('fromGuest', frame(GUEST, [192, 0, 2, 9]), v4)).toBe(70);
    expect(arrivesAfter('fromGuest', frame(V6(0xfd), V6(0xfd, 1)), v4)).toBe(10);
  });

  it('frames of several lines: in the order in which they arrive', () => {
    const lines = new Lines(PLAN, 'fromGuest', new Float64Array(COUNTER_WORDS), 0);
    for (const last of [2, 3, 4]) {
      const u8 = frame(GUEST, [192, last === 4 ? 9 : 0, last, 9]); // 30, 50, 10 ms
      enter(lines, u8, 0);
    }
    const order: number[] = [];
    for (let line = lines.due(100); line !== null; line = lines.due(100)) {
      order.push(line.u8[line.frameAt + 32]!);
      line.release();
    }
    expect(order).toEqual([4, 2, 3]);
  });

  it('what is lost is counted by cause and direction', () => {
    const counters = new Float64Array(COUNTER_WORDS);
    const lossy = { ...OPEN_LINE, loss: { ...OPEN_LINE.loss, lossGood: 1 } };
    const full = { ...OPEN_LINE, bytesPerSecond: 10, queueBytes: 100 };
    const u8 = frame(GUEST, GUEST);
    const plan = { seed: 1, rest: { fromGuest: lossy, toGuest: full }, rules: [] };
    const up = new Lines(plan, 'fromGuest', counters, 0);
    const down = new Lines(plan, 'toGuest', counters, 0);
    enter(up, u8, 0);
    expect(up.nextMs()).toBe(Number.POSITIVE_INFINITY);
    expect(down.hasRoom(new Uint32Array(4), 0, 80, 1, 0)).toBe(true);
    enter(down, u8, 0);
    expect(down.hasRoom(new Uint32Array(4), 0, 80, 1, 0)).toBe(false);
    enter(down, u8, 0);
    expect(counters[Counter.lineLostFromGuest]).toBe(1);
    expect(counters[Counter.lineFullToGuest]).toBe(1);
  });
});

describe('wakeMs', () => {
  const put = (lines: Lines, now: number): void => {
    enter(lines, frame(GUEST, GUEST), now);
  };
  const linesOf = (plan: Partial<LinesPlan['toGuest']>): [Lines, Lines] => {
    const line = { ...OPEN_LINE, ...plan };
    const shaping = { seed: 1, rest: { fromGuest: line, toGuest: line }, rules: [] };
    const make = (way: Direction) => new Lines(shaping, way, new Float64Array(COUNTER_WORDS), 0);
    return [make('fromGuest'), make('toGuest')];
  };

  it('a frame with no other near it: when it arrives', () => {
    const [up, down] = linesOf({ delayMs: 10 });
    expect(wakeMs([up, down])).toBe(Number.POSITIVE_INFINITY);
    put(down, 0);
    put(down, 1);
    expect(wakeMs([up, down])).toBe(10);
  });

  it('several in GATHER_MS, on both ways: when the last of them arrives', () => {
    const [up, down] = linesOf({ delayMs: 10 });
    for (const ms of [0, 0.1, GATHER_MS + 0.01]) put(down, ms);
    put(up, GATHER_MS - 0.01);
    expect(wakeMs([up, down])).toBeCloseTo(10 + GATHER_MS - 0.01, 9);
  });

  it('frames that wait for the rate: when they will have left, and nothing changes by asking', () => {
    const [, down] = linesOf({ bytesPerSecond: 1e6, queueBytes: 1e4 }); // 80 bytes in 0.08 ms
    for (let i = 0; i < 5; i++) put(down, 0);
    expect(wakeMs([down])).toBeCloseTo(0.16, 9);
    expect(wakeMs([down])).toBeCloseTo(0.16, 9);
    const arrived: number[] = [];
    for (let wake = wakeMs([down]); wake < 1; wake = wakeMs([down])) {
      for (let line = down.due(wake); line !== null; line = down.due(wake)) {
        arrived.push(wake);
        line.release();
      }
    }
    expect(arrived.map((ms) => ms.toFixed(2))).toEqual(['0.16', '0.16', '0.32', '0.32', '0.40']);
  });
});

describe('epollWaitPrecise', () => {
  it('waits at least as long as it is told, and usually much less than a millisecond longer', () => {
    const ep = epollCreate();
    const fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const events = new EpollEvents(1);
    const over: number[] = [];
    for (let i = 0; i < 50; i++) {
      const begin = performance.now();
      expect(epollWaitPrecise(ep, events, 1.2)).toBe(0);
      over.push(performance.now() - begin - 1.2);
    }
    close(fd);
    close(ep);
    expect(Math.min(...over)).toBeGreaterThanOrEqual(-0.01);
    expect(Math.min(...over)).toBeLessThan(0.6);
  });
});
