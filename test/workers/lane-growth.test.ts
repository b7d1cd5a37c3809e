// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Decision, LaneGrowth } from '../../src/workers/lane-growth.ts';

/** Threads report so often (LOAD_SAMPLE_MS of thread/reactor.ts). */
const SAMPLE_MS = 200;
const NONE: Decision = { kind: 'none' };

/** Loads of lanes over time; opening and closing take no time. */
class Engine {
  readonly growth: LaneGrowth;
  nowMs = 0;
  readonly happened: string[] = [];

  constructor(least: number, most: number) {
    this.growth = new LaneGrowth(least, most);
  }

  /** Each lane reports its load for `ms`. @param loads  by lane: [share, flows]; undefined: no report */
  run(ms: number, loads: readonly (readonly [share: number, flows: number] | undefined)[]): this {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs; ) {
      this.nowMs += SAMPLE_MS;
      for (let lane = 0; lane < this.growth.active; lane++) {
        const load = loads[lane];
        if (load !== undefined) this.take(this.growth.onLoad(lane, load[0], load[1], this.nowMs), loads);
      }
      this.take(this.growth.onTime(this.nowMs), loads);
    }
    return this;
  }

  take(decision: Decision, loads: readonly (readonly [number, number] | undefined)[]): void {
    if (decision.kind === 'none') return;
    const { kind, lane } = decision;
    this.happened.push(kind === 'spread' ? `spread ${lane} ${decision.to}` : `${kind} ${lane}`);
    if (kind === 'open') this.take(this.growth.opened(lane, this.nowMs), loads);
    else if (kind === 'giveUp' && (loads[lane]?.[1] ?? 0) === 0 && this.growth.beginClose(lane))
      this.growth.closed(this.nowMs);
  }
}

const BUSY = [0.9, 2] as const;
const CALM = [0.01, 0] as const;
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

describe('LaneGrowth: opens', () => {
  it('a lane that is busy for 400 ms with two flows: the next one', () => {
    const growth = new LaneGrowth(1, 2);
    expect([0, 200, 399].map((ms) => growth.onLoad(0, 0.75, 2, ms))).toEqual([NONE, NONE, NONE]);
    expect(growth.onLoad(0, 0.75, 2, 400)).toEqual({ kind: 'open', lane: 1 });
    expect(growth.active).toBe(1);
    growth.opened(1, 450);
    expect(growth.active).toBe(2);
  });

  it('not for a spike, however often one comes', () => {
    const engine = new Engine(1, 2);
    for (let i = 0; i < 50; i++) engine.run(400, [BUSY]).run(200, [[0.7, 2]]);
    expect(engine.happened).toEqual([]);
  });

  it('not for one flow, nor for a load below the limit', () => {
    expect(new Engine(1, 2).run(20_000, [[1, 1]]).happened).toEqual([]);
    expect(new Engine(1, 2).run(20_000, [[0.74, 100]]).happened).toEqual([]);
  });

  it('a load that was reported long ago is not the beginning of this one', () => {
    const growth = new LaneGrowth(1, 2);
    growth.onLoad(0, 1, 9, 0);
    expect(growth.onLoad(0, 1, 9, 60_000)).toEqual(NONE);
    expect(growth.onLoad(0, 1, 9, 60_400)).toEqual({ kind: 'open', lane: 1 });
  });

  it('not while another one opens, nor within half a second after that', () => {
    const growth = new LaneGrowth(1, 3);
    const busy = (nowMs: number): Decision[] => [0, 1].map((lane) => growth.onLoad(lane, 1, 9, nowMs));
    busy(0);
    expect(growth.onLoad(0, 1, 9, 400)).toEqual({ kind: 'open', lane: 1 });
    for (let ms = 600; ms < 5000; ms += SAMPLE_MS) expect(busy(ms)).toEqual([NONE, NONE]);
    growth.opened(1, 5000);
    for (let ms = 5000; ms < 5500; ms += SAMPLE_MS) expect(busy(ms)).toEqual([NONE, NONE]);
    expect(busy(5600)).toEqual([{ kind: 'open', lane: 2 }, NONE]);
  });

  it('as many as are busy, one after another', () => {
    const all = Array.from({ length: 8 }, () => [0.9, 8] as const);
    const engine = new Engine(1, 8);
    const times: number[] = [];
    for (const { growth } = engine; growth.active < 8; times[growth.active] ??= engine.nowMs)
      engine.run(SAMPLE_MS, all);
    expect(engine.happened).toEqual(range(1, 8).map((lane) => `open ${lane}`));
    expect([2, 4, 8].map((lanes) => times[lanes])).toEqual([600, 1200, 1800]);
  });

  it('not more than there are flows', () => {
    const engine = new Engine(2, 8).run(600, [BUSY, [0.9, 1]]);
    expect(engine.happened).toEqual(['open 2']);
  });

  it('at the most as many as are allowed', () => {
    const engine = new Engine(1, 3).run(30_000, [BUSY, BUSY, BUSY, BUSY]);
    expect(engine.happened).toEqual(['open 1', 'open 2']);
    expect(new Engine(2, 2).run(30_000, [BUSY, BUSY]).happened).toEqual([]);
  });

  it('not while another lane is calm: that one gets buckets, each half a second', () => {
    const engine = new Engine(1, 8).run(600, [BUSY]).run(2800, [BUSY, [0.4, 3]]);
    expect(engine.happened).toEqual(['open 1', ...range(0, 4).map(() => 'spread 0 1')]);
    const less = [0.41, 3] as const;
    engine.run(200, [[0.5, 2], less]).run(1000, [BUSY, less]);
    expect(engine.happened.slice(5)).toEqual(['open 2']);
  });

  it('the calmest lane gets the buckets; one that sleeps and reports nothing is calm', () => {
    const engine = new Engine(3, 4).run(600, [[0.3, 1], BUSY, [0.2, 1]]);
    expect(engine.happened).toEqual(['spread 1 2']);
    const other = new Engine(3, 4).run(600, [undefined, BUSY, [0.2, 1]]);
    expect(other.happened).toEqual(['spread 1 0']);
  });

  it('a lane that could not be opened: neither that one nor another is tried; the others close', () => {
    const engine = new Engine(1, 4).run(600, [BUSY]);
    const { growth } = engine;
    growth.onLoad(0, 1, 9, 2000);
    growth.onLoad(1, 1, 9, 2000);
    growth.onLoad(0, 1, 9, 2600);
    expect(growth.onLoad(1, 1, 9, 2600)).toEqual(NONE); // as lane 2 is being opened
    growth.openFailed();
    engine.nowMs = 2600;
    engine.run(30_000, [BUSY, BUSY]).run(11_000, [CALM, CALM]);
    expect(engine.happened).toEqual(['open 1', 'giveUp 1']);
    engine.run(30_000, [BUSY, BUSY]);
    expect(engine.happened.slice(2)).toEqual(['open 1']);
  });
});

describe('LaneGrowth: gives up', () => {
  const two = (): Engine => new Engine(1, 2).run(600, [BUSY]);

  it('the last lane, after ten seconds in which one less would do', () => {
    const engine = two().run(9800, [
      [0.2, 5],
      [0.2, 0],
    ]);
    expect(engine.happened).toEqual(['open 1']);
    engine.run(400, [
      [0.2, 5],
      [0.2, 0],
    ]);
    expect(engine.happened).toEqual(['open 1', 'giveUp 1']);
    expect(engine.growth.active).toBe(1);
    expect(engine.growth.waitMs).toBeUndefined();
  });

  it('not below the least number', () => {
    const engine = new Engine(2, 3).run(60_000, [CALM, CALM]);
    expect(engine.happened).toEqual([]);
    expect(engine.growth.waitMs).toBeUndefined();
  });

  it('not when the calm is interrupted', () => {
    const engine = two();
    for (let i = 0; i < 10; i++)
      engine.run(9000, [CALM, CALM]).run(200, [
        [0.3, 1],
        [0.3, 1],
      ]);
    expect(engine.happened).toEqual(['open 1']);
  });

  it('lanes that sleep and report nothing: their last load counts for three seconds', () => {
    const engine = two().run(1000, [
      [0.7, 1],
      [0.7, 1],
    ]);
    engine.run(12_600, []);
    expect(engine.happened).toEqual(['open 1']);
    engine.run(400, []);
    expect(engine.happened).toEqual(['open 1', 'giveUp 1']);
  });

  it('a lane that has flows still: asked again after 1, 2, 4 ... seconds, at most 60', () => {
    const engine = two();
    const asked: number[] = [];
    const { growth } = engine;
    for (let ms = 0; ms < 400_000; ms += SAMPLE_MS) {
      const decision = growth.onTime((engine.nowMs += SAMPLE_MS));
      if (decision.kind === 'giveUp') asked.push(engine.nowMs);
    }
    const waited = asked.slice(1).map((ms, i) => ms - asked[i]!);
    expect(waited.slice(0, 8)).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
    expect(growth.active).toBe(2);
  });

  it('load returns meanwhile: the lane is taken back, and given up again after a new calm', () => {
    const withFlow = [0.01, 1] as const;
    const engine = two().run(11_000, [CALM, withFlow]);
    engine.happened.length = 0;
    engine.run(800, [BUSY, withFlow]);
    expect(engine.happened).toEqual(['open 1']);
    expect(engine.growth.beginClose(1)).toBe(false);
    engine.run(10_600, [CALM, withFlow]);
    expect(engine.happened).toEqual(['open 1', 'giveUp 1']);
  });

  it('a lane whose queue is being detached is not taken back before it is closed', () => {
    const engine = two().run(11_000, [CALM, [0.01, 1]]);
    const { growth } = engine;
    expect(growth.beginClose(0)).toBe(false);
    expect(growth.beginClose(1)).toBe(true);
    expect(growth.beginClose(1)).toBe(false);
    engine.happened.length = 0;
    engine.run(5000, [BUSY, CALM]);
    expect(engine.happened).toEqual([]);
    expect(growth.nextTurn()).toEqual(NONE);
    growth.closed(engine.nowMs);
    expect(growth.active).toBe(1);
    engine.run(800, [BUSY]);
    expect(engine.happened).toEqual(['open 1']);
  });

  it('a queue that cannot be detached: the lane stays, and is asked again', () => {
    const engine = two().run(11_000, [CALM, [0.01, 1]]);
    expect(engine.growth.beginClose(1)).toBe(true);
    engine.growth.closeFailed();
    engine.happened.length = 0;
    engine.run(10_000, [CALM, CALM]);
    expect(engine.happened).toEqual(['giveUp 1']);
    expect(engine.growth.active).toBe(1);
  });
});

describe('LaneGrowth: any load', () => {
  it('a constant load of the whole, however it is spread: the number of lanes comes to rest', () => {
    const weights = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 8, maxLength: 8 });
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 8, noNaN: true }),
        weights,
        fc.integer({ min: 2, max: 8 }),
        (sum, parts, most) => {
          const engine = new Engine(1, most);
          /** A lane has at most 1; what is too much goes to the others as far as they can. */
          const spread = (): (readonly [number, number])[] => {
            const { active } = engine.growth;
            const weight = parts.slice(0, active).map((part) => part + 1e-6);
            const whole = weight.reduce((a, b) => a + b, 0);
            const loads = weight.map((w) => Math.min(1, (sum * w) / whole));
            let over = Math.min(sum, active) - loads.reduce((a, b) => a + b, 0);
            for (let lane = 0; lane < active && over > 0; lane++) {
              const more = Math.min(1 - loads[lane]!, over);
              loads[lane]! += more;
              over -= more;
            }
            return loads.map((share) => [share, 5] as const);
          };
          for (let i = 0; i < 300; i++) {
            const loads = spread().map(([share]) => [share, 0] as const);
            // Flows: many for growth, none at the question of a lane that is given up.
            const { growth } = engine;
            engine.nowMs += SAMPLE_MS;
            for (let lane = 0; lane < loads.length && lane < growth.active; lane++)
              engine.take(growth.onLoad(lane, loads[lane]![0], 5, engine.nowMs), loads);
          }
          const resting = engine.happened.filter((what) => !what.startsWith('spread')).length;
          for (let i = 0; i < 600; i++) {
            const loads = spread().map(([share]) => [share, 0] as const);
            engine.nowMs += SAMPLE_MS;
            for (let lane = 0; lane < loads.length && lane < engine.growth.active; lane++)
              engine.take(engine.growth.onLoad(lane, loads[lane]![0], 5, engine.nowMs), loads);
          }
          expect(engine.happened.filter((what) => !what.startsWith('spread'))).toHaveLength(resting);
          expect(engine.happened.filter((what) => what.startsWith('giveUp'))).toEqual([]);
        },
      ),
      { numRuns: 100 },
    );
  });

  type Step =
    | { readonly kind: 'load'; readonly lane: number; readonly share: number; readonly flows: number }
    | { readonly kind: 'time' | 'turn' | 'opened' | 'failed' | 'empty' | 'closed' | 'closeFailed' };
  const step: fc.Arbitrary<Step> = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('load' as const),
        lane: fc.nat(5),
        share: fc.constantFrom(0, 0.2, 0.5, 0.8, 1),
        flows: fc.nat(3),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constantFrom(
          'time',
          'turn',
          'opened',
          'opened',
          'empty',
          'empty',
          'closed',
          'closed',
          'failed',
          'closeFailed',
        ),
      }),
    },
  ) as fc.Arbitrary<Step>;

  it('between least and most lanes; never two operations at a time', () => {
    const steps = fc.array(fc.tuple(step, fc.constantFrom(0, 200, 1000, 11_000)), { maxLength: 200 });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 0, max: 3 }),
        steps,
        (least, more, list) => {
          const growth = new LaneGrowth(least, least + more);
          let nowMs = 0;
          let opening = -1;
          let closing = -1;
          /** The lane that was asked to give up its buckets last. */
          let asked = -1;
          const take = (decision: Decision): void => {
            if (decision.kind === 'none') return;
            expect({ opening, closing }).toEqual({ opening: -1, closing: -1 });
            if (decision.kind === 'open') {
              // The next lane, or the last one that is being given up.
              expect([growth.active, asked]).toContain(decision.lane);
              expect(decision.lane).toBeLessThan(least + more);
              opening = decision.lane;
              asked = -1;
            } else if (decision.kind === 'giveUp') {
              expect(decision.lane).toBe(growth.active - 1);
              expect(decision.lane).toBeGreaterThanOrEqual(least);
              asked = decision.lane;
            } else {
              expect(decision.to).toBeLessThan(growth.active);
              expect(decision.to).not.toBe(decision.lane);
              expect(asked).toBe(-1);
            }
          };
          for (const [{ kind, ...load }, ms] of list) {
            nowMs += ms;
            if (kind === 'load') {
              const { lane, share, flows } = load as { lane: number; share: number; flows: number };
              if (lane < growth.active) take(growth.onLoad(lane, share, flows, nowMs));
            } else if (kind === 'time') take(growth.onTime(nowMs));
            else if (kind === 'turn') take(growth.nextTurn());
            else if (kind === 'empty') {
              const lane = growth.active - 1;
              if (growth.beginClose(lane)) {
                expect({ asked, opening, closing }).toEqual({ asked: lane, opening: -1, closing: -1 });
                closing = lane;
              }
            } else if (opening >= 0) {
              if (kind === 'opened') growth.opened(opening, nowMs);
              else if (kind !== 'failed') continue;
              else growth.openFailed();
              opening = -1;
            } else if (closing >= 0) {
              if (kind === 'closed') growth.closed(nowMs);
              else if (kind === 'closeFailed') growth.closeFailed();
              else continue;
              if (kind === 'closed') asked = -1;
              closing = -1;
            }
            expect(growth.active).toBeGreaterThanOrEqual(least);
            expect(growth.active).toBeLessThanOrEqual(least + more);
          }
        },
      ),
    );
  });
});
