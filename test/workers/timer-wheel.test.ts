// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TimerWheel } from '../../src/workers/flow/timer-wheel.ts';

const TICK_MS = 4;

/** Deadlines of all sizes: within a tick, around the 64-slot borders of each level, hours, days. */
const delayArb = fc.oneof(
  fc.double({ min: -10, max: 600, noNaN: true }),
  fc.integer({ min: 0, max: 40_000 }),
  fc.constantFrom(
    64 * 4,
    64 * 4 - 1,
    64 * 4 + 1,
    4096 * 4,
    4096 * 4 - 4,
    4096 * 4 + 4,
    2 ** 18 * 4,
    2 ** 18 * 4 - 1,
  ),
  fc.constantFrom(3_600_000, 24 * 3_600_000, 60 * 24 * 3_600_000),
);
const gapArb = fc.oneof(
  fc.double({ min: 0, max: 30, noNaN: true }),
  fc.integer({ min: 0, max: 5_000 }),
  fc.constantFrom(64 * 4, 4096 * 4, 2 ** 18 * 4, 3_600_000, 20 * 24 * 3_600_000),
);
const stepArb = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('arm' as const), id: fc.nat(9), ms: delayArb }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('cancel' as const), id: fc.nat(9), ms: fc.constant(0) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('advance' as const), id: fc.nat(9), ms: gapArb }),
  },
);

describe('TimerWheel', () => {
  it.each([0, 2 ** 31 * TICK_MS - 5_000, 2 ** 32 * TICK_MS - 5_000])(
    'started at %d ms: fires as a sorted list does, in order, never early, within a tick',
    (startMs) => {
      fc.assert(
        fc.property(fc.array(stepArb, { maxLength: 60 }), (steps) => {
          let now = startMs;
          const wheel = new TimerWheel(10, TICK_MS, startMs);
          /**
           * Tick at which each armed timer must fire: that of its deadline, but later than the tick in which
           * it was armed.
           */
          const model = new Map<number, number>();
          const tickOf = (ms: number): number => Math.floor(ms / TICK_MS);
          for (const { kind, id, ms } of steps) {
            if (kind === 'arm') {
              wheel.arm(id, now + ms);
              model.set(id, Math.max(Math.ceil((now + ms) / TICK_MS), tickOf(now) + 1));
            } else if (kind === 'cancel') {
              wheel.cancel(id);
              model.delete(id);
            } else {
              now += ms;
              const fired: number[] = [];
              wheel.advance(now, (timer) => fired.push(timer));
              const due = [...model].filter(([, tick]) => tick <= tickOf(now)).sort((a, b) => a[1] - b[1]);
              expect(fired.map((timer) => model.get(timer))).toEqual(due.map(([, tick]) => tick));
              expect([...fired].sort()).toEqual(due.map(([timer]) => timer).sort());
              for (const timer of fired) model.delete(timer);
            }
            for (let timer = 0; timer < 10; timer++) expect(wheel.isArmed(timer)).toBe(model.has(timer));
            const next = wheel.nextDeadline(now);
            expect(next).toBeGreaterThanOrEqual(0);
            if (model.size > 0) {
              const exact = Math.min(...model.values()) * TICK_MS - now;
              expect(next).toBeLessThanOrEqual(exact);
            }
          }
        }),
        { numRuns: 400 },
      );
    },
  );

  it('sleeps until nextDeadline: fires within a tick of the deadline, in few wake-ups', () => {
    fc.assert(
      fc.property(delayArb, fc.double({ min: 0, max: 100_000, noNaN: true }), (ms, start) => {
        const wheel = new TimerWheel(1, TICK_MS, start);
        let now = start;
        wheel.arm(0, start + ms);
        let wakeUps = 0;
        let firedAt = -1;
        while (firedAt < 0) {
          now += wheel.nextDeadline(now);
          wheel.advance(now, () => {
            firedAt = now;
          });
          expect(++wakeUps).toBeLessThanOrEqual(100); // deadlines beyond 18 h wrap around the last level
        }
        expect(firedAt).toBeGreaterThanOrEqual(start + ms);
        expect(firedAt - Math.max(start, start + ms)).toBeLessThanOrEqual(TICK_MS + 1e-6);
        expect(wheel.nextDeadline(now)).toBe(Number.POSITIVE_INFINITY);
      }),
      { numRuns: 300 },
    );
  });

  it('nothing armed: no deadline, and advancing over days costs no work', () => {
    const wheel = new TimerWheel(4);
    expect(wheel.nextDeadline(0)).toBe(Number.POSITIVE_INFINITY);
    wheel.advance(90 * 24 * 3_600_000, () => expect.unreachable());
    expect(wheel.nextDeadline(0)).toBe(Number.POSITIVE_INFINITY);
  });

  it('a handler arms itself, arms others, cancels one due in the same tick: all take effect', () => {
    const wheel = new TimerWheel(4);
    const fired: string[] = [];
    for (const id of [0, 1, 2]) wheel.arm(id, 100);
    let now = 100;
    const fire = (id: number): void => {
      fired.push(`${id}@${now}`);
      for (const other of [0, 1, 2]) if (other !== id) wheel.cancel(other);
      if (fired.length < 3) wheel.arm(id, now + 8);
      else wheel.arm(3, now); // already past: next tick
    };
    for (; now < 140; now += 4) wheel.advance(now, fire);
    const first = fired[0]![0]!;
    expect(fired).toEqual([
      `${first}@100`,
      `${first}@108`,
      `${first}@116`,
      '3@120',
      '3@124',
      '3@128',
      '3@132',
      '3@136',
    ]);
  });

  it('armed again repeatedly, as by acknowledgements: fires once, after the last deadline', () => {
    const wheel = new TimerWheel(1);
    let fired = 0;
    let now = 0;
    for (; now < 10_000; now += 3) {
      wheel.arm(0, now + 200);
      wheel.advance(now, () => fired++);
    }
    expect(fired).toBe(0);
    wheel.advance(now + 190, () => fired++);
    expect(fired).toBe(0);
    wheel.advance(now + 204, () => fired++);
    expect(fired).toBe(1);
  });
});
