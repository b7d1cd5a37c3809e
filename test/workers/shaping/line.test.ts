// @vitest: beside
/** One direction of an emulated line, with a virtual clock: a packet carries its number. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { LinePlan } from '../../../src/workers/engine-plan.ts';
import { Fate, Line, lineBytes } from '../../../src/workers/shaping/line.ts';
import { OPEN_LINE } from './line-plan.ts';

interface Arrival {
  readonly n: number;
  readonly ms: number;
  readonly bytes: number;
}

class Rig {
  readonly line: Line;
  readonly arrivals: Arrival[] = [];
  readonly fates: number[] = [];
  nowMs = 1000;
  #sent = 0;

  constructor(plan: Partial<LinePlan>, seed = 7) {
    this.line = new Line({ ...OPEN_LINE, ...plan }, seed);
  }

  send(bytes = 1514): number {
    const { line } = this;
    const n = this.#sent++;
    const fate = line.open(bytes, bytes, 1, this.nowMs);
    this.fates.push(fate);
    if (fate !== Fate.carried) return fate;
    const at = line.openAt;
    line.u8.fill(0, at, at + bytes);
    new DataView(line.u8.buffer).setUint32(at, n);
    line.commit(bytes, bytes, 1, this.nowMs);
    return fate;
  }

  /** Let the time pass; the line is looked at when it asks for it. */
  until(ms: number): void {
    const { line } = this;
    for (;;) {
      const next = line.nextMs();
      if (next > ms) break;
      if (next > this.nowMs) this.nowMs = next;
      while (line.due(this.nowMs)) {
        const n = new DataView(line.u8.buffer).getUint32(line.frameAt);
        this.arrivals.push({ n, ms: this.nowMs, bytes: line.frameBytes });
        line.release();
      }
    }
    this.nowMs = ms;
  }

  get order(): number[] {
    return this.arrivals.map(({ n }) => n);
  }
}

const mean = (list: readonly number[]): number => list.reduce((sum, x) => sum + x, 0) / list.length;
const rising = (list: readonly number[]): boolean => list.every((x, i) => i === 0 || x >= list[i - 1]!);

describe('rate', () => {
  it.each([
    [125_000, 200],
    [12_500_000, 1514],
    [125_000_000, 1514],
    [125_000_000, 65_535],
  ])(
    '%i bytes per second, packets of %i: within 0.1 %% while the queue is never empty',
    (bytesPerSecond, bytes) => {
      const rig = new Rig({ bytesPerSecond, queueBytes: 4 * bytes });
      const begin = rig.nowMs;
      const seconds = Math.max(1, (bytes * 200) / bytesPerSecond);
      const stepMs = (bytes / bytesPerSecond) * 1000;
      for (let ms = 0; ms < seconds * 1000; ms += stepMs) {
        rig.until(begin + ms);
        rig.send(bytes);
        rig.send(bytes);
      }
      const last = rig.arrivals.at(-1)!.ms;
      const sum = rig.arrivals.reduce((total, a) => total + a.bytes, 0);
      expect(sum / ((last - begin) / 1000) / bytesPerSecond).toBeCloseTo(1, 2);
      expect(rig.fates).toContain(Fate.full);
    },
  );

  it('a packet takes the time of its bytes, and waits for those before it', () => {
    const rig = new Rig({ bytesPerSecond: 1000, delayMs: 10 });
    rig.send(100);
    rig.send(200);
    rig.until(2000);
    expect(rig.arrivals.map(({ ms }) => ms)).toEqual([1110, 1310]);
  });

  it('burst: so many bytes leave at once after a pause, and then at the rate', () => {
    const rig = new Rig({ bytesPerSecond: 100_000, burstBytes: 5000 });
    for (let i = 0; i < 10; i++) rig.send(1000);
    rig.until(1500);
    expect(rig.arrivals.filter(({ ms }) => ms === 1000)).toHaveLength(5);
    expect(rig.arrivals.at(-1)!.ms).toBeCloseTo(1050, 6);
    rig.until(1510);
    for (let i = 0; i < 10; i++) rig.send(1000);
    rig.until(3000);
    expect(rig.arrivals.filter(({ ms }) => ms === 1510)).toHaveLength(5);
  });

  it('queue: what is beyond its bytes or packets is lost', () => {
    const byBytes = new Rig({ bytesPerSecond: 1000, queueBytes: 3000 });
    for (let i = 0; i < 10; i++) byBytes.send(1000);
    expect(byBytes.fates.filter((fate) => fate === Fate.carried)).toHaveLength(3);
    const byPackets = new Rig({ bytesPerSecond: 1000, queuePackets: 4 });
    for (let i = 0; i < 10; i++) byPackets.send(100);
    expect(byPackets.fates.filter((fate) => fate === Fate.carried)).toHaveLength(4);
    const tiny = new Rig({ bytesPerSecond: 1_000_000, queueBytes: 10 });
    tiny.send(1514);
    tiny.until(1100);
    expect(tiny.order).toEqual([0]); // one packet always fits
  });

  it('a late look delays what waits and does not slow the line down', () => {
    const rig = new Rig({ bytesPerSecond: 1_000_000, queueBytes: 1 << 20 });
    for (let i = 0; i < 100; i++) rig.send(1000);
    rig.nowMs = 1100;
    rig.until(1100);
    expect(rig.arrivals).toHaveLength(100);
  });
});

describe('delay', () => {
  it('all packets come after it, in order', () => {
    const rig = new Rig({ delayMs: 50 });
    for (let i = 0; i < 100; i++) {
      rig.until(1000 + i * 0.3);
      rig.send();
    }
    rig.until(2000);
    expect(rig.arrivals.every(({ n, ms }) => Math.abs(ms - (1000 + n * 0.3 + 50)) < 1e-6)).toBe(true);
  });

  it.each([
    ['uniform', 20 / Math.sqrt(3)],
    ['normal', 20],
    ['pareto', 20],
  ] as const)('jitter, %s: mean and deviation of packets far apart', (distribution, deviation) => {
    const rig = new Rig({ delayMs: 200, jitterMs: 20, distribution });
    const delays: number[] = [];
    for (let i = 0; i < 5000; i++) {
      const sent = rig.nowMs;
      rig.send();
      rig.until(sent + 2000);
      delays.push(rig.arrivals.at(-1)!.ms - sent);
    }
    const m = mean(delays);
    expect(Math.abs(m - 200)).toBeLessThan(1.5);
    expect(Math.sqrt(mean(delays.map((d) => (d - m) ** 2))) / deviation).toBeCloseTo(
      1,
      distribution === 'pareto' ? 0 : 1,
    );
  });

  it('jitter does not change the order', () => {
    const rig = new Rig({ delayMs: 30, jitterMs: 30, distribution: 'normal' });
    for (let i = 0; i < 1000; i++) {
      rig.until(1000 + i);
      rig.send();
    }
    rig.until(5000);
    expect(rig.order).toEqual(Array.from({ length: 1000 }, (_, i) => i));
  });
});

describe('loss', () => {
  const lost = (plan: LinePlan['loss'], count: number): boolean[] => {
    const rig = new Rig({ loss: plan });
    for (let i = 0; i < count; i++) {
      rig.send(100);
      rig.until(rig.nowMs);
    }
    return rig.fates.map((fate) => fate === Fate.lost);
  };
  const share = (list: readonly boolean[]): number => list.filter(Boolean).length / list.length;

  it('independent: the share', () => {
    expect(share(lost({ goodToBad: 0, badToGood: 0, lossGood: 0.01, lossBad: 0 }, 200_000))).toBeCloseTo(
      0.01,
      2,
    );
  });

  it('Gilbert-Elliott: share p/(p + r), bursts of 1/r packets', () => {
    const p = 0.005;
    const r = 0.2;
    const list = lost({ goodToBad: p, badToGood: r, lossGood: 0, lossBad: 1 }, 2_000_000);
    expect(share(list) / (p / (p + r))).toBeGreaterThan(0.93);
    expect(share(list) / (p / (p + r))).toBeLessThan(1.07);
    const bursts = list.filter((isLost, i) => isLost && !list[i - 1]).length;
    const meanBurst = list.filter(Boolean).length / bursts;
    expect(meanBurst).toBeGreaterThan(4.7);
    expect(meanBurst).toBeLessThan(5.3);
  });

  it('Gilbert-Elliott with losses in both states: the share', () => {
    const list = lost({ goodToBad: 0.01, badToGood: 0.1, lossGood: 0.001, lossBad: 0.5 }, 400_000);
    const expected = (0.1 * 0.001 + 0.01 * 0.5) / 0.11;
    expect(share(list) / expected).toBeGreaterThan(0.93);
    expect(share(list) / expected).toBeLessThan(1.07);
  });

  it('the same seed loses the same packets, whatever else happens to them; another seed others', () => {
    const run = (plan: Partial<LinePlan>, seed: number): string => {
      const rig = new Rig({ loss: { goodToBad: 0, badToGood: 0, lossGood: 0.1, lossBad: 0 }, ...plan }, seed);
      for (let i = 0; i < 1000; i++) rig.send(100);
      return rig.fates.join('');
    };
    expect(run({}, 7)).toBe(run({ jitterMs: 5, delayMs: 9, duplicate: 0.5, corrupt: 0.5, reorder: 0.1 }, 7));
    expect(run({}, 7)).not.toBe(run({}, 8));
  });
});

describe('other impairments', () => {
  it('too long: lost', () => {
    const rig = new Rig({ maxPacketBytes: 1400 });
    expect([rig.send(1415), rig.send(1414)]).toEqual([Fate.tooLong, Fate.carried]);
  });

  it('duplicate: the share comes twice, the same bytes', () => {
    const rig = new Rig({ duplicate: 0.1 });
    for (let i = 0; i < 10_000; i++) {
      rig.send(100);
      rig.until(rig.nowMs);
    }
    const twice = rig.order.filter((n, i) => n === rig.order[i - 1]).length;
    expect(twice).toBe(rig.line.duplicated);
    expect(twice / 10_000).toBeCloseTo(0.1, 1);
    expect(rig.arrivals).toHaveLength(10_000 + twice);
  });

  it('reorder: the share comes later by the time, and nothing is lost', () => {
    const rig = new Rig({ delayMs: 10, reorder: 0.1, reorderMs: 3 });
    for (let i = 0; i < 1000; i++) {
      rig.until(1000 + i);
      rig.send(100);
    }
    rig.until(9000);
    expect(rig.arrivals).toHaveLength(1000);
    const late = rig.arrivals.filter(({ n, ms }) => ms - (1000 + n + 10) > 2.9);
    expect(late.every(({ n, ms }) => Math.abs(ms - (1000 + n + 13)) < 1e-6)).toBe(true);
    expect(late).toHaveLength(rig.line.reordered);
    expect(late.length).toBeGreaterThan(60);
    expect(rising(rig.order)).toBe(false);
  });

  it('corrupt: one bit behind the Ethernet header', () => {
    const line = new Line({ ...OPEN_LINE, corrupt: 1 }, 3);
    for (let i = 0; i < 1000; i++) {
      expect(line.open(60, 60, 1, 1)).toBe(Fate.carried);
      line.u8.fill(0, line.openAt, line.openAt + 60);
      line.commit(60, 60, 1, 1);
      expect(line.due(1)).toBe(true);
      const bytes = line.u8.subarray(line.frameAt, line.frameAt + 60);
      const bits = [...bytes].map((b) => b.toString(2).replaceAll('0', '').length);
      expect(bits.reduce((a, b) => a + b)).toBe(1);
      expect(bits.slice(0, 14).every((b) => b === 0)).toBe(true);
      line.release();
    }
  });
});

describe('changes while packets are on the line', () => {
  it('those that have left arrive as they would have; those that wait leave at the new rate', () => {
    const rig = new Rig({ bytesPerSecond: 1000, delayMs: 100 });
    for (let i = 0; i < 4; i++) rig.send(100); // leave at 1100, 1200 ...
    rig.until(1150);
    rig.line.configure(
      { ...OPEN_LINE, bytesPerSecond: 100_000, delayMs: 300, queueBytes: 32 << 20 },
      rig.nowMs,
    );
    rig.until(3000);
    expect(rig.order).toEqual([0, 1, 2, 3]);
    expect(rig.arrivals[0]!.ms).toBe(1200);
    expect(rig.arrivals[1]!.ms).toBeCloseTo(1150 + 1 + 100, 6); // its delay was drawn when it came
    expect(rig.arrivals[3]!.ms).toBeLessThan(1300);
  });
});

describe('properties', () => {
  const plans = fc.record({
    bytesPerSecond: fc.constantFrom(10_000, 1e6, 1e8, Number.POSITIVE_INFINITY),
    burstBytes: fc.constantFrom(0, 3000, 60_000),
    queueBytes: fc.constantFrom(2000, 100_000, 4_000_000),
    delayMs: fc.constantFrom(0, 0.5, 30),
    jitterMs: fc.constantFrom(0, 10),
    distribution: fc.constantFrom('uniform' as const, 'normal' as const, 'pareto' as const),
    duplicate: fc.constantFrom(0, 0.2),
    reorder: fc.constantFrom(0, 0.2),
  });
  const steps = fc.array(
    fc.oneof(
      fc.record({ send: fc.integer({ min: 60, max: 9014 }) }),
      fc.record({ wait: fc.double({ min: 0, max: 40, noNaN: true }) }),
    ),
    { maxLength: 300 },
  );

  it('each packet that is carried arrives whole, once or twice, never early; without reorder in order', () => {
    fc.assert(
      fc.property(plans, steps, fc.integer(), (plan, list, seed) => {
        const rig = new Rig(plan, seed);
        const sentMs: number[] = [];
        const lengths: number[] = [];
        for (const step of list) {
          if ('send' in step) {
            sentMs.push(rig.nowMs);
            lengths.push(step.send);
            rig.send(step.send);
          } else rig.until(rig.nowMs + step.wait);
        }
        rig.until(rig.nowMs + 1e9);
        expect(rig.line.nextMs()).toBe(Number.POSITIVE_INFINITY);
        const carried = rig.fates.filter((fate) => fate === Fate.carried).length;
        expect(rig.arrivals).toHaveLength(carried + rig.line.duplicated);
        for (const { n, ms, bytes } of rig.arrivals) {
          expect(bytes).toBe(lengths[n]);
          expect(ms).toBeGreaterThanOrEqual(sentMs[n]! + (plan.jitterMs > 0 ? 0 : plan.delayMs));
        }
        if (plan.reorder === 0) expect(rising(rig.order)).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  it('memory is bounded: no plan takes more than 64 MiB', () => {
    for (const bytesPerSecond of [1, 1e9, 1e12, Number.POSITIVE_INFINITY])
      expect(lineBytes({ ...OPEN_LINE, bytesPerSecond, delayMs: 60_000 })).toBeLessThanOrEqual(64 << 20);
  });
});
