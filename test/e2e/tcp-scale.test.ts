// @vitest: beside
/** Many connections, at once and one after another, and the engine's resources afterwards. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, supportProgram } from '../support/bed.ts';
import { engine, full } from '../support/engines.ts';
import { FAMILIES, PEER4, PORT } from '../support/ports.ts';
import { eventually, openFiles, rssKib, sleepMs } from '../support/process.ts';
import { describeE2e } from '../support/require.ts';

const CONCURRENT = full(1000, 300);
const SHORT = full(20_000, 2_000);
/** One at a time: what a connection leaves behind is judged by the number above. */
const FEW_SHORT = SHORT / 5;
const TIMEOUT_MS = 180_000;
/** Connections that the peer has closed may exist for a moment (delayed close, timers), not longer. */
const SETTLE_MS = 15_000;
const STEADY_KIB = 24 * 1024;

interface Crowd {
  readonly ok: number;
  readonly failed: Readonly<Record<string, number>>;
  readonly ms: number;
  readonly peakOpen: number;
}

describeE2e('many TCP connections', [], () => {
  let bed: Bed;
  const figures: Record<string, Record<string, number | string>> = {};
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(async () => {
    await bed?.close();
    console.table(figures);
  });

  describe.each(engine.plans)('%s', (plan) => {
    let guest: Guest;
    beforeAll(async () => {
      guest = await bed.engine({ plan });
    });
    afterAll(() => guest?.stop());

    const descriptors = (): number => guest.enginePids().reduce((n, pid) => n + openFiles(pid).length, 0);
    const memoryKib = (): number => guest.enginePids().reduce((n, pid) => n + rssKib(pid), 0);
    const crowd = async (
      address: string,
      port: number,
      total: number,
      atOnce: number,
      bytes: number,
      hold: 0 | 1,
    ): Promise<Crowd> => {
      const argv = supportProgram('clients/tcp-crowd.ts', address, port, total, atOnce, bytes, hold);
      return JSON.parse(await succeed(guest, argv, { timeoutMs: TIMEOUT_MS })) as Crowd;
    };
    /** Number of descriptors when closing connections have ended. */
    const settled = async (): Promise<number> => {
      for (let last = descriptors(); ; ) {
        await sleepMs(300);
        const now = descriptors();
        if (now >= last) return now;
        last = now;
      }
    };
    const backTo = async (before: number): Promise<number> => {
      await eventually(
        'descriptors',
        SETTLE_MS,
        () => descriptors() <= before + engine.spareDescriptors,
      ).catch(() => {});
      const now = descriptors();
      expect(now, `descriptors ${SETTLE_MS} ms after the end, before: ${before}`).toBeLessThanOrEqual(
        before + engine.spareDescriptors,
      );
      return now;
    };

    for (const family of FAMILIES) {
      it(`${CONCURRENT} connections at once over ${family.name}: all carry data, no flow is left`, {
        timeout: TIMEOUT_MS,
      }, async () => {
        await crowd(family.peer, PORT.echo, 50, 50, 1000, 1);
        const before = await settled();
        const result = await crowd(family.peer, PORT.echo, CONCURRENT, CONCURRENT, 64 * 1024, 1);
        figures[`${plan} ${CONCURRENT} at once ${family.name}`] = {
          ms: result.ms,
          'fd before': before,
          'RSS MiB': Math.round(memoryKib() / 1024),
        };
        expect(result).toMatchObject({ ok: CONCURRENT, failed: {}, peakOpen: CONCURRENT });
        await backTo(before);
      });
    }

    it.each([
      [FEW_SHORT, 1],
      [SHORT, 64],
    ])(
      '%i short connections, %i at a time: all answered, descriptors closed, memory constant',
      { timeout: TIMEOUT_MS },
      async (total, atOnce) => {
        const warm = await crowd(PEER4, PORT.once, total / 10, atOnce, 32, 0);
        expect(warm.failed).toEqual({});
        const descriptorsBefore = await settled();
        const kibBefore = memoryKib();
        const result = await crowd(PEER4, PORT.once, total, atOnce, 32, 0);
        expect(result).toMatchObject({ ok: total, failed: {} });
        const descriptorsAfter = await backTo(descriptorsBefore);
        const kibAfter = memoryKib();
        figures[`${plan} ${total} short, ${atOnce} at a time`] = {
          ms: result.ms,
          'per second': Math.round((total / result.ms) * 1000),
          'fd before': descriptorsBefore,
          'fd after': descriptorsAfter,
          'RSS MiB before': Math.round(kibBefore / 1024),
          'RSS MiB after': Math.round(kibAfter / 1024),
        };
        expect(kibAfter - kibBefore, `RSS growth in KiB from ${kibBefore}`).toBeLessThan(STEADY_KIB);
      },
    );
  });
});
