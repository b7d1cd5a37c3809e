// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { shortAge, shortBytes, shortMicroseconds, shortRate } from '../../src/main/cli/short-units.ts';
import { tableText } from '../../src/main/cli/table.ts';
import { bytesText, durationText, microsecondsText, rateText } from '../../src/main/cli/units.ts';

describe('units', () => {
  it.each([
    [0, '0 B', '0'],
    [517, '517 B', '517'],
    [1023, '1023 B', '1023'],
    [1024, '1.00 KiB', '1.00K'],
    [48_213, '47.1 KiB', '47.1K'],
    [1024 * 1024 - 1, '1.00 MiB', '1.00M'],
    [4_267_512_341, '3.97 GiB', '3.97G'],
  ])('%i bytes: %s, %s', (bytes, long, short) => {
    expect(bytesText(bytes)).toBe(long);
    expect(shortBytes(bytes)).toBe(short);
  });

  it.each([
    [0, '0 bit/s', '0'],
    [-1, '0 bit/s', '0'],
    [124, '992 bit/s', '992'],
    [124.96, '1.00 kbit/s', '1.00k'],
    [2.1125e9, '16.9 Gbit/s', '16.9G'],
  ])('%d bytes/s: %s, %s', (rate, long, short) => {
    expect(rateText(rate)).toBe(long);
    expect(shortRate(rate)).toBe(short);
  });

  it.each([
    [85, '85 us', '85us'],
    [999.6, '1.00 ms', '1.00ms'],
    [12_345, '12.3 ms', '12.3ms'],
    [2_100_000, '2.10 s', '2.10s'],
  ])('%d us: %s, %s', (us, long, short) => {
    expect(microsecondsText(us)).toBe(long);
    expect(shortMicroseconds(us)).toBe(short);
  });

  it.each([
    [22, '22 ms', '0s'],
    [8120, '8.1 s', '8s'],
    [59_960, '1:00', '59s'],
    [123_000, '2:03', '2:03'],
    [3_723_000, '1:02:03', '1h02'],
    [273_600_000, '3d 4h', '3d4h'],
  ])('%d ms: %s, %s', (ms, long, short) => {
    expect(durationText(ms)).toBe(long);
    expect(shortAge(ms)).toBe(short);
  });

  it('short figures: never more than seven characters', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 2 ** 53, noNaN: true }), (value) => {
        for (const text of [shortRate(value / 8), shortBytes(value), shortAge(Math.min(value, 1e13))])
          expect(text.length).toBeLessThanOrEqual(7);
      }),
    );
  });
});

describe('tables', () => {
  it('columns aligned left and right, two blanks apart, no blanks at the end', () => {
    const rows = [
      ['NAME', 'N', 'WHERE'],
      ['a', '1', 'here'],
      ['longer', '10', ''],
    ];
    expect(tableText(rows, 'lrl')).toBe('NAME     N  WHERE\na        1  here\nlonger  10\n');
  });
});
