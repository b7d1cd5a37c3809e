// @vitest: beside
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ElasticLanes, type LaneReport } from '../../src/workers/elastic-lanes.ts';
import { LaneGrowth } from '../../src/workers/lane-growth.ts';
import type { ThreadMessage } from '../../src/workers/packet-thread.ts';

const SAMPLE_MS = 200;
const EMPTY = { kind: 'gave', left: 0, flows: 0, all: true } satisfies LaneReport;

/** Lanes whose threads answer as `answers` says; time is the fake one of vitest. */
class Rig {
  readonly posted: (readonly [lane: number, message: ThreadMessage])[] = [];
  readonly said: string[] = [];
  readonly started: number[] = [];
  /** Answer to `queue`: errno. undefined: none comes. */
  errno: number | undefined = 0;
  /** Start of a lane; undefined: it never ends. */
  begin: (() => Promise<void>) | undefined = async () => {};
  readonly lanes: ElasticLanes;

  constructor(least: number, most: number) {
    this.lanes = new ElasticLanes(new LaneGrowth(least, most), least, {
      start: (lane) => {
        this.started.push(lane);
        return this.begin === undefined ? new Promise(() => {}) : this.begin();
      },
      post: (lane, message) => {
        this.posted.push([lane, message]);
        if (message.kind === 'queue' && this.errno !== undefined)
          this.lanes.onReport(lane, { kind: 'queue', errno: this.errno });
        if (message.kind === 'give' && message.share < 1) this.lanes.onReport(lane, { ...EMPTY, all: false });
      },
      tell: (level, text) => void this.said.push(`${level}: ${text}`),
    });
  }

  report(lane: number, report: LaneReport): Promise<unknown> {
    this.lanes.onReport(lane, report);
    return vi.advanceTimersByTimeAsync(0);
  }

  /** @param shares  load of each lane; undefined: it reports none */
  async load(ms: number, ...shares: readonly (number | undefined)[]): Promise<void> {
    for (let at = 0; at < ms; at += SAMPLE_MS) {
      await vi.advanceTimersByTimeAsync(SAMPLE_MS);
      for (const [lane, share] of shares.entries())
        if (share !== undefined) await this.report(lane, { kind: 'load', share, flows: 5 });
    }
  }

  /** Messages since the last call, as text; the same one again is left out. */
  taken(): string[] {
    const texts = this.posted.splice(0).map(([lane, message]) => {
      if (message.kind === 'give') return `${lane} give ${message.share.toFixed(2)} to ${message.to}`;
      return message.kind === 'queue' ? `${lane} ${message.attached ? 'attach' : 'detach'}` : message.kind;
    });
    return texts.filter((text, i) => text !== texts[i - 1]);
  }
}

describe('ElasticLanes', () => {
  beforeEach(
    () =>
      void vi.useFakeTimers({
        toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'],
      }),
  );
  afterEach(() => {
    vi.useRealTimers();
  });

  it('opens a lane: its thread starts once; each lane before it gives a part of its buckets', async () => {
    const rig = new Rig(1, 3);
    await rig.load(600, 1);
    expect(rig.started).toEqual([1]);
    expect(rig.taken()).toEqual(['0 give 0.50 to 1']);
    await rig.load(800, 1, 1);
    expect(rig.started).toEqual([1, 2]);
    expect(rig.taken()).toEqual(['0 give 0.33 to 2', '1 give 0.33 to 2']);
    expect(rig.said).toEqual(['debug: lane 1 opened', 'debug: lane 2 opened']);
    rig.lanes.stop();
  });

  it('a busy lane beside a calm one gives it half of its buckets', async () => {
    const rig = new Rig(1, 3);
    await rig.load(600, 1);
    rig.taken();
    await rig.load(1200, 1);
    expect(rig.taken()).toEqual(['0 give 0.50 to 1']);
    expect(rig.started).toEqual([1]);
    rig.lanes.stop();
  });

  it('calm: the lane gives all, its queue is detached; opened again, its queue is attached', async () => {
    const rig = new Rig(1, 2);
    await rig.load(600, 1);
    rig.taken();
    await vi.advanceTimersByTimeAsync(20_000); // sleeping lanes report nothing
    expect(rig.taken()).toEqual(['1 give 1.00 to 0']);
    await rig.report(1, { ...EMPTY, left: 3, flows: 3 });
    expect(rig.taken()).toEqual([]);
    await vi.advanceTimersByTimeAsync(9000);
    expect(rig.taken()).toEqual(['1 give 1.00 to 0']);
    await rig.report(1, EMPTY);
    expect(rig.taken()).toEqual(['1 detach']);
    expect(rig.said.at(-1)).toBe('debug: lane 1 closed');
    await vi.advanceTimersByTimeAsync(0);
    expect(vi.getTimerCount()).toBeLessThanOrEqual(1);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(vi.getTimerCount()).toBe(0);
    await rig.load(800, 1);
    expect(rig.taken()).toEqual(['1 attach', '0 give 0.50 to 1']);
    expect(rig.started).toEqual([1]);
    rig.lanes.stop();
  });

  it('a late or repeated answer closes nothing', async () => {
    const rig = new Rig(1, 2);
    await rig.load(600, 1);
    rig.taken();
    await rig.report(1, EMPTY);
    expect(rig.taken()).toEqual([]);
    await vi.advanceTimersByTimeAsync(20_000);
    rig.taken();
    rig.errno = undefined;
    await rig.report(1, EMPTY);
    await rig.report(1, EMPTY);
    await rig.load(4000, 1, 0);
    expect(rig.taken(), 'load returns while the queue is being detached').toEqual(['1 detach']);
    rig.errno = 0;
    await rig.report(1, { kind: 'queue', errno: 0 });
    await rig.load(1600, 1);
    expect(rig.taken()).toEqual(['1 attach', '0 give 0.50 to 1']);
    rig.lanes.stop();
  });

  it('a queue that cannot be detached: the lane stays and is asked again', async () => {
    const rig = new Rig(1, 2);
    await rig.load(600, 1);
    rig.taken();
    rig.errno = 16;
    await vi.advanceTimersByTimeAsync(20_000);
    await rig.report(1, EMPTY);
    expect(rig.taken()).toEqual(['1 give 1.00 to 0', '1 detach']);
    rig.errno = 0;
    await vi.advanceTimersByTimeAsync(9000);
    await rig.report(1, EMPTY);
    expect(rig.taken().slice(-2)).toEqual(['1 give 1.00 to 0', '1 detach']);
    expect(rig.said).toEqual(['debug: lane 1 opened', 'debug: lane 1 closed']);
    rig.lanes.stop();
  });

  it('a thread that cannot be started: one warning, and no other is tried', async () => {
    const rig = new Rig(1, 4);
    rig.begin = () => Promise.reject(new Error('no processes left'));
    await rig.load(5000, 1);
    expect(rig.started).toEqual([1]);
    expect(rig.said).toEqual([
      'warning: lane 1 cannot be opened, the number of lanes stays 1: no processes left',
    ]);
    expect(rig.taken()).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a queue that cannot be attached: one warning; the lanes before it can still be given up', async () => {
    const rig = new Rig(1, 3);
    await rig.load(600, 1);
    await rig.load(1600, 1, 1);
    await vi.advanceTimersByTimeAsync(20_000);
    await rig.report(2, EMPTY);
    rig.errno = 22;
    await rig.load(2000, 1, 1);
    expect(rig.said.slice(3)).toEqual([
      'warning: lane 2 cannot be opened, the number of lanes stays 2: TUNSETQUEUE: errno 22',
    ]);
    rig.errno = 0;
    await vi.advanceTimersByTimeAsync(20_000);
    await rig.report(1, EMPTY);
    expect(rig.said.at(-1)).toBe('debug: lane 1 closed');
    rig.lanes.stop();
  });

  it('stop() leaves no timer, and nothing happens after it', async () => {
    const rig = new Rig(1, 2);
    await rig.load(600, 1);
    rig.lanes.takeTurns(100);
    expect(vi.getTimerCount()).toBe(2);
    rig.lanes.stop();
    expect(vi.getTimerCount()).toBe(0);
    rig.taken();
    await rig.load(30_000, 0, 0);
    await rig.report(1, EMPTY);
    expect(rig.taken()).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each(['ends', 'fails'])(
    'stop() while a lane opens, which then %s: no word of it, no message, no timer',
    async (how) => {
      const rig = new Rig(1, 2);
      const start = Promise.withResolvers<void>();
      rig.begin = () => start.promise;
      await rig.load(600, 1);
      expect(rig.started).toEqual([1]);
      rig.lanes.stop();
      if (how === 'ends') start.resolve();
      else start.reject(new Error('its thread has ended'));
      await vi.advanceTimersByTimeAsync(60_000);
      expect(rig.said).toEqual([]);
      expect(rig.taken()).toEqual([]);
      expect(vi.getTimerCount()).toBe(0);
    },
  );

  it('turns: opens, gives up, opens ...; one at a time', async () => {
    const rig = new Rig(1, 3);
    rig.lanes.takeTurns(100);
    await vi.advanceTimersByTimeAsync(200);
    expect(rig.started).toEqual([1, 2]);
    rig.taken();
    await vi.advanceTimersByTimeAsync(100);
    expect(rig.taken()).toEqual(['2 give 1.00 to 0,1']);
    await rig.report(2, EMPTY);
    expect(rig.taken()).toEqual(['2 detach']);
    await vi.advanceTimersByTimeAsync(100);
    expect(rig.taken()).toEqual(['2 attach', '0 give 0.33 to 2', '1 give 0.33 to 2']);
    rig.lanes.stop();
  });
});
