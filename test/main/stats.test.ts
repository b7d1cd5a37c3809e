// @vitest: beside
import { describe, expect, it } from 'vitest';
import {
  countersText,
  histogramsText,
  intervalLine,
  perSecond,
  statsJson,
  throughputText,
} from '../../src/main/host/stats.ts';

describe('--stats', () => {
  it('counters: names aligned left, values right, digits in groups of three', () => {
    expect(countersText({ framesFromGuest: 1234567, 'drop.tcpChecksum': 3 })).toBe(
      ['counter               value', 'framesFromGuest   1,234,567', 'drop.tcpChecksum          3', ''].join(
        '\n',
      ),
    );
  });

  it('several threads: one column each, 0 for counters that a thread has not', () => {
    const threads = [
      { thread: 'reader', counters: { tapReads: 3 } },
      { thread: 'shard 0', counters: { tapWrites: 1234 } },
    ];
    const sum = { tapReads: 3, tapWrites: 1234 };
    expect(countersText(sum, threads).split('\n')).toEqual([
      'counter    value  reader  shard 0',
      'tapReads       3       3        0',
      'tapWrites  1,234       0    1,234',
      '',
    ]);
    expect(countersText(sum, threads.slice(0, 1))).toBe(countersText(sum));
  });

  it('percentiles from bucket counts', () => {
    const buckets = [
      [0, 10],
      [100, 80],
      [1000, 9],
      [50000, 1],
    ] as const;
    const text = histogramsText([{ name: 'guestRtt', unit: 'us', help: '', buckets }]);
    const [head, row] = text.split('\n').map((line) => line.split(/ +/));
    expect(head).toEqual([
      'measured',
      'unit',
      'count',
      'min',
      'mean',
      'p50',
      'p90',
      'p95',
      'p99',
      'p99.9',
      'max',
    ]);
    expect(row!.slice(0, 3)).toEqual(['guestRtt', 'us', '100']);
    const values = row!.slice(3).map(Number);
    for (const [i, expected] of [0, 670, 100, 100, 1000, 1000, 50000, 50000].entries()) {
      if (expected === 0) expect(values[i]).toBe(0);
      else expect(Math.abs(values[i]! - expected) / expected).toBeLessThan(0.02);
    }
  });

  it.each([0, 1, 7, 3328, 3343, 9216, 9279, 120_001, 2 ** 27])(
    'maximum %i: no percentile is above it',
    (value) => {
      const text = histogramsText([{ name: 'n', unit: 'us', help: '', buckets: [[value, 3]] }]);
      const values = text.split('\n')[1]!.split(/ +/).slice(5).map(Number);
      expect(values).toEqual([...values].sort((a, b) => a - b));
      expect(Math.abs(values.at(-1)! - value)).toBeLessThanOrEqual(value / 64);
    },
  );

  it('elapsed time and mean rates; past the TAP only if there was something', () => {
    const counters = { bytesFromGuest: 4_267_512_341, bytesToGuest: 1_000_000 };
    expect(throughputText(counters, 2100)).toBe(
      [
        'elapsed        2.1 s',
        'from guest  3.97 GiB  16.3 Gbit/s',
        'to guest     977 KiB  3.81 Mbit/s',
        '',
      ].join('\n'),
    );
    expect(throughputText({ ...counters, spliceBytes: 7 }, 0)).toContain('past the TAP       7 B\n');
  });

  it('--stats=SECONDS: a line with the rates of the interval', () => {
    const before = { bytesFromGuest: 100, tcpOpened: 3, 'drop.x': 1 };
    const now = {
      bytesFromGuest: 1350,
      tcpOpened: 5,
      tcpClosed: 1,
      'drop.x': 2,
      'drop.y': 4,
      tcpRetransmits: 7,
    };
    expect(intervalLine(12_000, now, before, 10)).toBe(
      '12.0 s  from guest 1.00 kbit/s  to guest 0 bit/s  TCP connections 4  drops 5  retransmits to guest 7\n',
    );
  });

  it('changes per second; counters of an engine that began anew are no negative rates', () => {
    expect(perSecond({ a: 30, b: 5, c: 1 }, { a: 10, b: 9 }, 2)).toEqual({ a: 10, b: 0, c: 0.5 });
    expect(perSecond({ a: 30 }, {}, 0)).toEqual({ a: 0 });
  });

  it('--stats-json: one document in a line', () => {
    const counters = () => ({ bytesFromGuest: 1250 });
    const engine = { counters, threadCounters: () => [], histograms: () => [] };
    const text = statsJson(engine, 1000, 'bucatini run', '1.2');
    expect(text).toMatch(/^[^\n]*\n$/);
    expect(JSON.parse(text)).toEqual({
      ...{ program: 'bucatini run', version: '1.2', timeMs: expect.any(Number), elapsedMs: 1000 },
      fromGuest: { bytes: 1250, bitsPerSecond: 10_000 },
      toGuest: { bytes: 0, bitsPerSecond: 0 },
      ...{ counters: { bytesFromGuest: 1250 }, threads: [], histograms: [] },
    });
    expect(JSON.parse(statsJson(engine, 0, '', '')).fromGuest.bitsPerSecond).toBe(0);
  });

  it('no counts: headings only', () => {
    expect(countersText({})).toBe('counter  value\n');
    expect(histogramsText([]).split('\n')).toHaveLength(2);
  });
});
