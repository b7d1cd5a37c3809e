/** iperf3 in its usual modes: no error, and no second without data. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { FAMILIES } from '../support/ports.ts';
import { eventually } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const SECONDS = 2;
const FIRST_PORT = 5201;
const TIMEOUT_MS = 60_000;

interface IperfSum {
  readonly bytes: number;
  readonly bits_per_second: number;
  readonly lost_percent?: number;
}

interface IperfReport {
  readonly error?: string;
  readonly intervals?: readonly Readonly<Record<string, unknown>>[];
  readonly end?: Readonly<Record<string, IperfSum>>;
}

const MODES: readonly (readonly string[])[] = [
  ['-P', '1'],
  ['-P', '16'],
  ['-P', '1', '-R'],
  ['-P', '16', '-R'],
  ['--bidir'],
  ['-u', '-b', '500M'],
  ['-u', '-b', '500M', '-R'],
];

/** Over IPv6 and at the large MTU the packets differ, not what carries them. */
const IPV6_MODES: readonly (readonly string[])[] = [
  ['-P', '16'],
  ['-P', '1', '-R'],
  ['-u', '-b', '500M'],
];
/** In further plans other threads do the same work: many streams, both ways, and datagrams. */
const FEW_MODES: Readonly<Record<string, readonly (readonly string[])[]>> = {
  '4 65520': [['-P', '16'], ['--bidir']],
  '4 1500': [
    ['-P', '16', '-R'],
    ['-u', '-b', '500M', '-R'],
  ],
  '6 65520': [['-P', '16']],
  '6 1500': [['-P', '16']],
};
const modesOf = (plan: string, family: 4 | 6, mtu: number): readonly (readonly string[])[] => {
  if (plan !== engine.plans[0]) return FEW_MODES[`${family} ${mtu}`]!;
  if (family === 4) return mtu === 1500 ? MODES : MODES.filter((mode) => !mode.includes('-u'));
  return mtu === 1500 ? IPV6_MODES : IPV6_MODES.slice(0, 1);
};

describeE2e('iperf3', [requireTool('iperf3', 'apt package iperf3')], () => {
  let bed: Bed;
  let port = FIRST_PORT;
  const rates: Record<string, string> = {};

  beforeAll(async () => {
    bed = await makeBed();
  });
  /** A server for one test, for it stays busy after a failure. */
  const serve = async (): Promise<void> => {
    const server = bed.start('peer', ['iperf3', '-s', '-1', '-p', String(++port), '--forceflush']);
    await eventually('iperf3 listens', 5000, () => server.printed().stdout.includes('listening'));
  };
  afterAll(async () => {
    await bed.close();
    console.table(rates);
  });

  describe.each(engine.plans)('%s', (plan) => {
    describe.each([65520, 1500])('MTU %i', (mtu) => {
      let guest: Guest;
      beforeAll(async () => {
        guest = await bed.engine({ plan, mtu });
      });
      afterAll(() => guest?.stop());

      for (const family of FAMILIES) {
        it.each(modesOf(plan, family.name === 'IPv4' ? 4 : 6, mtu).map((mode) => mode.join(' ')))(
          `${family.name} iperf3 %s runs to its end without a stall`,
          { timeout: TIMEOUT_MS },
          async (mode) => {
            await serve();
            const argv = ['-c', family.peer, '-p', String(port), '-t', String(SECONDS), ...mode.split(' ')];
            const run = await guest.inside(
              ['iperf3', '-J', '-i', '1', '--connect-timeout', '5000', ...argv],
              {
                timeoutMs: TIMEOUT_MS - 10_000,
              },
            );
            const report = JSON.parse(run.stdout) as IperfReport;
            expect(report.error).toBeUndefined();
            expect(run.status).toBe(0);

            const sums = (o: Readonly<Record<string, unknown>>): [string, IperfSum][] =>
              Object.entries(o).filter(([key]) => key.startsWith('sum')) as [string, IperfSum][];
            const intervals = report.intervals ?? [];
            expect(intervals.length).toBeGreaterThanOrEqual(SECONDS);
            const moved = intervals.slice(0, SECONDS).map((i) => sums(i).map(([, sum]) => sum.bytes));
            expect(
              Math.min(...moved.flat()),
              `bytes of each second: ${JSON.stringify(moved)}`,
            ).toBeGreaterThan(0);

            rates[`${plan} ${mtu} ${family.name} ${mode}`] = sums(report.end ?? {})
              .filter(([key]) => key !== 'sum_sent' && key !== 'sum_sent_bidir_reverse')
              .map(([key, sum]) => {
                const lost = sum.lost_percent === undefined ? '' : `, ${sum.lost_percent.toFixed(1)} % lost`;
                return `${key.replace('sum_', '')} ${(sum.bits_per_second / 1e9).toFixed(2)}${lost}`;
              })
              .join('; ');
          },
        );
      }
    });
  });
});
