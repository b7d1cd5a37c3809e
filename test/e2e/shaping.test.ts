/**
 * Emulated lines: rate, delay, losses and the rest, measured by programs inside. Lower bounds of times and upper
 * bounds of rates are exact; the others leave room for a machine that does other work too.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeedIn, supportProgram } from '../support/bed.ts';
import { engine, ourPasta, repoRoot } from '../support/engines.ts';
import { patternSha256 } from '../support/pattern.ts';
import { FAMILIES, PEER4, PEER6, PORT, urlHost } from '../support/ports.ts';
import { eventually, killTree } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';
import { curlDownload, curlUpload } from '../support/transfers.ts';

const TIMEOUT_MS = 60_000;
const MIB = 2 ** 20;
const needs = [
  requireTool('curl', 'apt package curl'),
  requireTool('iperf3', 'apt package iperf3'),
  requireTool('ping', 'apt package iputils-ping'),
];
/** Shares of a frame of 1,514 bytes that are payload: TCP with timestamps over IPv4; UDP datagrams of 1,400 bytes. */
const TCP_SHARE = 1448 / 1514;
const UDP_SHARE = 1400 / 1442;

const median = (list: readonly number[]): number => [...list].sort((a, b) => a - b)[list.length >> 1]!;

describeE2e('emulated line', needs, () => {
  if (engine.name !== 'bucatini') return it.skip('only bucatini has one', () => {});
  let bed: Bed;
  let port = 5400;
  beforeAll(async () => {
    bed = await makeBed();
    const program = supportProgram('pattern.ts', MIB).join(' ');
    await succeedIn(bed, 'host', ['sh', '-c', `${program} >${bed.ramDir}/line.bin`]);
  });
  afterAll(() => bed?.close());

  const withLine = async <T>(extra: readonly string[], use: (guest: Guest) => Promise<T>): Promise<T> => {
    const guest = await bed.engine({ extra: [...extra, '--stats'] });
    try {
      return await use(guest);
    } finally {
      await guest.stop();
    }
  };
  const counter = (guest: Guest, name: string): number =>
    Number(
      new RegExp(`^${name.replace('.', '\\.')} +([0-9,]+)`, 'm')
        .exec(guest.started.printed().stderr)?.[1]
        ?.replaceAll(',', '') ?? 0,
    );

  interface Pings {
    /** Sequence numbers that were answered, in the order in which they came. */
    readonly seqs: number[];
    readonly timesMs: number[];
    readonly duplicates: number;
  }
  const ping = async (
    guest: Pick<Guest, 'inside'>,
    to: string,
    count: number,
    ...options: string[]
  ): Promise<Pings> => {
    const { stdout } = await guest.inside([
      'ping',
      '-n',
      '-c',
      `${count}`,
      '-i',
      '0.01',
      '-W',
      '2',
      ...options,
      to,
    ]);
    const lines = stdout.split('\n').filter((line) => line.includes('time='));
    const first = lines.filter((line) => !line.includes('DUP'));
    return {
      seqs: first.map((line) => Number(/icmp_seq=(\d+)/.exec(line)![1])),
      timesMs: first.map((line) => Number(/time=([0-9.]+)/.exec(line)![1])),
      duplicates: lines.length - first.length,
    };
  };
  const iperf = async (guest: Guest, to: string, ...options: string[]): Promise<number> => {
    const server = bed.start('peer', ['iperf3', '-s', '-1', '-p', String(++port), '--forceflush']);
    await eventually('iperf3 listens', 5000, () => server.printed().stdout.includes('listening'));
    const argv = ['iperf3', '-J', '-c', to, '-p', String(port), '-t', '3', '-O', '1', ...options];
    const { end, error } = JSON.parse((await guest.inside(argv, { timeoutMs: 30_000 })).stdout);
    expect(error).toBeUndefined();
    return (end.sum_received ?? end.sum).bits_per_second;
  };

  describe('rate', () => {
    it.each([
      ['up', []],
      ['down', ['-R']],
    ] as const)(
      'TCP %s: at most what the line carries, at least 0.85 of it',
      { timeout: TIMEOUT_MS },
      async (way, options) => {
        await withLine(['--rate', `50mbit/${way}`, '--delay', '5ms'], async (guest) => {
          const rate = await iperf(guest, PEER4, ...options);
          expect(rate / (50e6 * TCP_SHARE)).toBeLessThan(1.02);
          expect(rate / (50e6 * TCP_SHARE)).toBeGreaterThan(0.85);
        });
      },
    );

    it.each([
      ['up', []],
      ['down', ['-R']],
    ] as const)(
      'UDP %s at twice the rate: 0.9 to 1.02 of it; the rest is counted',
      { timeout: TIMEOUT_MS },
      async (way, options) => {
        const guest = await withLine(['--rate', '20mbit'], async (guest) => {
          const rate = await iperf(guest, PEER4, '-u', '-b', '40M', '-l', '1400', ...options);
          expect(rate / (20e6 * UDP_SHARE)).toBeLessThan(1.02);
          expect(rate / (20e6 * UDP_SHARE)).toBeGreaterThan(0.9);
          return guest;
        });
        expect(counter(guest, way === 'up' ? 'lineFullFromGuest' : 'lineFullToGuest')).toBeGreaterThan(1000);
      },
    );

    it.each(FAMILIES)(
      '$name: downloads through a full queue are complete, one and four at a time',
      {
        timeout: TIMEOUT_MS,
      },
      async ({ peer }) => {
        await withLine(['--rate', '40mbit', '--impair', 'queue=20k'], async (guest) => {
          const url = `http://${urlHost(peer)}:${PORT.http}/bytes/${MIB}`;
          const one = await curlDownload(guest, url, TIMEOUT_MS);
          const four = await Promise.all([1, 2, 3, 4].map(() => curlDownload(guest, url, TIMEOUT_MS)));
          for (const got of [one, ...four]) expect(got.sha256).toBe(patternSha256(MIB));
        });
      },
    );

    it('without a limit: faster than any rate above', { timeout: TIMEOUT_MS }, async () => {
      await withLine(['--impair', 'none'], async (guest) => {
        expect(await iperf(guest, PEER4, '-t', '1')).toBeGreaterThan(100e6);
        expect(await iperf(guest, PEER4, '-t', '1', '-R')).toBeGreaterThan(100e6);
      });
    });
  });

  describe('delay', () => {
    it.each([
      ['7.3ms', 14.6],
      ['0.5ms', 1],
      ['30ms/down', 30],
    ] as const)(
      '%s: no ping is faster, the fastest at most 2 ms slower, the median 10 ms',
      { timeout: TIMEOUT_MS },
      async (delay, ms) => {
        await withLine(['--delay', delay], async (guest) => {
          for (const to of [PEER4, PEER6]) {
            const { timesMs } = await ping(guest, to, 100);
            expect(timesMs).toHaveLength(100);
            expect(Math.min(...timesMs)).toBeGreaterThanOrEqual(ms - 0.06); // ping prints three digits
            expect(Math.min(...timesMs)).toBeLessThan(ms + 2);
            expect(median(timesMs)).toBeLessThan(ms + 10);
          }
        });
      },
    );

    it('the MAC of the gateway is asked for beside the line', { timeout: TIMEOUT_MS }, async () => {
      await withLine(['--delay', '250ms'], async (guest) => {
        for (const to of [PEER4, PEER6]) {
          await guest.inside(['ip', 'neigh', 'flush', 'all']);
          const [ms] = (await ping(guest, to, 1)).timesMs;
          expect(ms).toBeGreaterThanOrEqual(500);
          expect(ms).toBeLessThan(900);
        }
      });
    });

    it('jitter: the times differ', { timeout: TIMEOUT_MS }, async () => {
      await withLine(['--delay', '30ms,5ms/up'], async (guest) => {
        const { timesMs } = await ping(guest, PEER4, 60, '-i', '0.05');
        expect(Math.max(...timesMs) - Math.min(...timesMs)).toBeGreaterThan(10);
        expect(Math.abs(median(timesMs) - 30)).toBeLessThan(8);
      });
    });
  });

  describe('losses', () => {
    it('with one seed the same packets, with another seed others', { timeout: TIMEOUT_MS }, async () => {
      bed.write(`${bed.ramDir}/lossy.conf`, `[to ${PEER4}]\nloss 20%/up\n`);
      const run = (seed: number) =>
        withLine(
          ['--impair', `${bed.ramDir}/lossy.conf`, '--impair', `seed=${seed}`],
          async (guest) => (await ping(guest, PEER4, 200)).seqs,
        );
      const [first, second, other] = [await run(7), await run(7), await run(8)];
      expect(second).toEqual(first);
      expect(other).not.toEqual(first);
      expect(first.length).toBeGreaterThan(130);
      expect(first.length).toBeLessThan(190);
    });

    it.each(FAMILIES)(
      '$name: TCP gets through losses, bursts, reordering, duplicates and wrong bits',
      { timeout: TIMEOUT_MS },
      async ({ peer }) => {
        const options = ['loss=1%,3', 'reorder=1%,2ms', 'duplicate=1%', 'corrupt=1%', 'delay=2ms'];
        const guest = await withLine(
          options.flatMap((o) => ['--impair', o]),
          async (guest) => {
            const url = `http://${urlHost(peer)}:${PORT.http}`;
            const sha = patternSha256(MIB);
            const file = `${bed.ramDir}/line.bin`;
            expect((await curlUpload(guest, file, `${url}/upload`, TIMEOUT_MS)).sha256).toBe(sha);
            expect((await curlDownload(guest, `${url}/bytes/${MIB}`, TIMEOUT_MS)).sha256).toBe(sha);
            return guest;
          },
        );
        for (const name of [
          'lineLostFromGuest',
          'lineLostToGuest',
          'lineDuplicated',
          'lineReordered',
          'lineCorrupted',
        ])
          expect(counter(guest, name), name).toBeGreaterThan(0);
      },
    );

    it('duplicates: ping sees them', { timeout: TIMEOUT_MS }, async () => {
      await withLine(['--impair', 'duplicate=50%/down'], async (guest) => {
        const { duplicates, seqs } = await ping(guest, PEER4, 100);
        expect(seqs).toHaveLength(100);
        expect(duplicates).toBeGreaterThan(25);
      });
    });

    it('max-packet: longer packets are lost', { timeout: TIMEOUT_MS }, async () => {
      await withLine(['--impair', 'max-packet=1000/up'], async (guest) => {
        expect((await ping(guest, PEER4, 5, '-s', '972')).seqs).toHaveLength(5);
        expect((await ping(guest, PEER4, 5, '-s', '973', '-W', '0.3')).seqs).toHaveLength(0);
      });
    });
  });

  it('a section of a file: its destination alone', { timeout: TIMEOUT_MS }, async () => {
    bed.write(`${bed.ramDir}/far.conf`, `delay 10ms\n[to ${PEER4}/32]\ndelay 40ms\n`);
    await withLine(['--impair', `${bed.ramDir}/far.conf`], async (guest) => {
      const far = await ping(guest, PEER4, 20);
      const near = await ping(guest, PEER6, 20);
      expect(Math.min(...far.timesMs)).toBeGreaterThanOrEqual(80);
      expect(Math.min(...near.timesMs)).toBeGreaterThanOrEqual(20);
      expect(median(near.timesMs)).toBeLessThan(40);
    });
  });

  it('API: changed while connections are open', { timeout: TIMEOUT_MS }, async () => {
    const path = `${bed.ramDir}/line.api`;
    const ask = async (request: object) =>
      JSON.parse(
        await succeedIn(bed, 'host', supportProgram('clients/api-client.ts', path, JSON.stringify(request))),
      )[0];
    await withLine(['--impair', 'none', '--api-socket', path], async (guest) => {
      const transfer = iperf(guest, PEER4);
      await ask({ execute: 'set_impairment', arguments: { delay: '15ms', rate: '20mbit' } });
      const { timesMs } = await ping(guest, PEER6, 10);
      expect(Math.min(...timesMs)).toBeGreaterThanOrEqual(29.9);
      expect(await ask({ execute: 'get_impairment' })).toMatchObject({
        return: { up: { rate: 20e6, delay_ms: 15 }, down: { rate: 20e6, delay_ms: 15 } },
      });
      await transfer;
      await ask({ execute: 'set_impairment', arguments: {} });
      expect(median((await ping(guest, PEER4, 20)).timesMs)).toBeLessThan(15);
      expect(await ask({ execute: 'set_impairment', arguments: { rate: 'fast' } })).toMatchObject({
        error: { desc: expect.stringContaining('set_impairment: rate fast') },
      });
    });
  });

  it('pasta: delay and rate, MTU 1500; changed by the API', { timeout: TIMEOUT_MS }, async () => {
    const path = `${bed.ramDir}/pasta-line.api`;
    const guest = await bed.engine({
      engine: ourPasta,
      extra: ['--delay', '20ms', '--rate=50mbit', '--api-socket', path],
    });
    try {
      expect((await guest.inside(['ip', '-o', 'link'])).stdout).toContain(' mtu 1500 ');
      expect(Math.min(...(await ping(guest, PEER4, 20)).timesMs)).toBeGreaterThanOrEqual(39.9);
      const got = await curlDownload(guest, `http://${urlHost(PEER6)}:${PORT.http}/bytes/${MIB}`, TIMEOUT_MS);
      expect(got).toMatchObject({ bytes: MIB, sha256: patternSha256(MIB) });
      const request = JSON.stringify({ execute: 'set_impairment', arguments: {} });
      await succeedIn(bed, 'host', supportProgram('clients/api-client.ts', path, request));
      expect(median((await ping(guest, PEER4, 20)).timesMs)).toBeLessThan(30);
    } finally {
      await guest.stop();
    }
  });

  it('slirp4netns: delay', { timeout: TIMEOUT_MS }, async () => {
    const empty = await bed.emptyGuest();
    const argv = ['-c', '--delay', '20ms', String(bed.pidSeenInside(empty.pid)), 'tap0'];
    const slirp = bed.start('user', [`${repoRoot}/bin/slirp4netns`, ...argv]);
    try {
      await eventually('the namespace has an interface', TIMEOUT_MS, async () =>
        (await empty.inside(['ip', 'route'])).stdout.includes('default'),
      );
      const { timesMs } = await ping(empty, PEER4, 20);
      expect(Math.min(...timesMs)).toBeGreaterThanOrEqual(39.9);
    } finally {
      killTree(slirp.pid);
      await empty.end();
    }
  });
});
