// @vitest: beside
import { describe, expect, it } from 'vitest';
import { countersText, histogramsText } from '../../src/main/host/stats.ts';

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
    expect(head).toEqual(['measured', 'unit', 'count', 'p50', 'p90', 'p99', 'p99.9', 'max']);
    expect(row!.slice(0, 3)).toEqual(['guestRtt', 'us', '100']);
    const values = row!.slice(3).map(Number);
    for (const [i, expected] of [100, 100, 1000, 50000, 50000].entries()) {
      expect(Math.abs(values[i]! - expected) / expected).toBeLessThan(0.02);
    }
  });

  it.each([0, 1, 7, 3328, 3343, 9216, 9279, 120_001, 2 ** 27])(
    'maximum %i: no percentile is above it',
    (value) => {
      const text = histogramsText([{ name: 'n', unit: 'us', help: '', buckets: [[value, 3]] }]);
      const values = text.split('\n')[1]!.split(/ +/).slice(3).map(Number);
      expect(values).toEqual([...values].sort((a, b) => a - b));
      expect(Math.abs(values.at(-1)! - value)).toBeLessThanOrEqual(value / 64);
    },
  );

  it('no counts: headings only', () => {
    expect(countersText({})).toBe('counter  value\n');
    expect(histogramsText([]).split('\n')).toHaveLength(2);
  });
});
