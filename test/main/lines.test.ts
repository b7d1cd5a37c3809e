// @vitest: beside
/** Emulated lines as users write them: options, files and profiles. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseArguments } from '../../src/main/bucatini/options.ts';
import { LineSettings, PROFILES, parseLineOptions } from '../../src/main/cli/lines.ts';
import { UsageError } from '../../src/main/cli/values.ts';

const FILE = `
# A hotel
profile  lossy-wifi
rate     5mbit/up        # less than the profile
[to 192.0.2.0/24, 2001:db8::1]
delay    100ms
[to 198.51.100.7]
loss = 10%
`;
const message = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as Error).message;
  }
  throw new Error('accepted');
};
const add = (content: string): string => message(() => new LineSettings().addFile(content));

describe('options', () => {
  it('profile or file first, wherever it stands; then settings, later ones over earlier ones', () => {
    const plan = parseLineOptions(
      [
        ['delay', '7ms'],
        ['impair', '3g'],
        ['rate', '9mbit/down'],
        ['rate', '8mbit/down'],
      ],
      () => '',
    );
    expect(plan.rest.toGuest).toMatchObject({ bytesPerSecond: 1e6, delayMs: 7, jitterMs: 0 });
    expect(plan.rest.fromGuest).toMatchObject({ bytesPerSecond: 96_000 });
  });

  it('two profiles: refused', () => {
    expect(
      message(() =>
        parseLineOptions(
          [
            ['impair', '3g'],
            ['impair', 'dsl'],
          ],
          () => '',
        ),
      ),
    ).toBe('--impair dsl: is the second profile or file; write one');
  });

  it('bursts: share and mean length become probabilities of the Gilbert model', () => {
    const { loss } = parseLineOptions([['loss', '1%,5']], () => '').rest.toGuest;
    expect(loss.badToGood).toBeCloseTo(0.2);
    expect(loss.goodToBad / (loss.goodToBad + loss.badToGood)).toBeCloseTo(0.01);
    expect(loss).toMatchObject({ lossGood: 0, lossBad: 1 });
  });

  it('queue: what the rate sends in 100 ms, within 64 KiB and 16 MiB', () => {
    const queue = (rate: string) => parseLineOptions([['rate', rate]], () => '').rest.toGuest.queueBytes;
    expect([queue('1mbit'), queue('100mbit'), queue('100gbit')]).toEqual([65_536, 1_250_000, 16 << 20]);
  });

  it.each(['pipeline', 'pipeline=2', 'lanes=2', 'lanes=1-4'])(
    '--threads %s with a line: refused in one line',
    (threads) => {
      const text = message(() => parseArguments('run', ['--threads', threads, '--delay', '5ms']));
      expect(text).toContain('needs one packet thread');
      expect(text).not.toContain('\n');
    },
  );

  it.each(['auto', 'fused', 'lanes=1'])('--threads %s with a line: taken', (threads) => {
    expect(parseArguments('run', ['--threads', threads, '--delay', '5ms'])).toMatchObject({ kind: 'go' });
  });
});

describe('file', () => {
  it('settings, sections by destination, comments', () => {
    const settings = new LineSettings();
    settings.addFile(FILE);
    const { rest, rules } = settings.plan();
    expect(rest.fromGuest).toMatchObject({ bytesPerSecond: 625_000, delayMs: 3, distribution: 'pareto' });
    expect(rest.toGuest.bytesPerSecond).toBe(3_125_000);
    expect(rules).toMatchObject([
      {
        networks: [
          { address: '192.0.2.0', prefixLen: 24 },
          { address: '2001:db8::1', prefixLen: 128 },
        ],
        toGuest: { delayMs: 100 },
      },
      { networks: [{ address: '198.51.100.7', prefixLen: 32 }], fromGuest: { loss: { lossGood: 0.1 } } },
    ]);
    expect(rules[0]!.toGuest.bytesPerSecond).toBe(Number.POSITIVE_INFINITY); // a section begins anew
  });

  it.each([
    ['delay', 'line 1: delay: write a setting and its value'],
    ['\n\nspeed 7', 'line 3: "speed 7": no such setting'],
    ['[to nowhere]', 'not an IPv4 or IPv6 address'],
    ['[to 192.0.2.0/33]', 'larger than 32'],
    ['[to ]', 'has no address'],
    ['profile modem', 'no such profile'],
    ['profile valueOf', 'no such profile'], // names that every object has
    ['constructor 1', 'no such setting'],
    ['rate 5constructor', 'is not a rate'],
  ])('%j: the line, what is wrong, what to write', (content, text) => {
    expect(add(content)).toContain(text);
  });

  it('any text: a plan or a UsageError', () => {
    const word = fc.oneof(
      fc.constantFrom(
        'rate',
        'delay',
        'loss',
        '[to',
        ']',
        '1%',
        '5ms',
        '10mbit',
        ',',
        '=',
        '/up',
        'ge,',
        '#',
        '\n',
        ' ',
      ),
      fc.string({ maxLength: 6 }),
    );
    fc.assert(
      fc.property(fc.array(word, { maxLength: 30 }), (words) => {
        try {
          const settings = new LineSettings();
          settings.addFile(words.join(''));
          settings.plan();
        } catch (error) {
          if (!(error instanceof UsageError)) throw error;
          expect(error.message).not.toContain('\n');
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe('profiles', () => {
  it.each(Object.keys(PROFILES))('%s: its figures are in docs/shaping.md', (name) => {
    const text = readFileSync(new URL('../../docs/shaping.md', import.meta.url), 'utf8');
    const row = text.split('\n').find((line) => line.startsWith(`| \`${name}\` |`));
    for (const [key, value] of PROFILES[name]!)
      expect(row, `${key} ${value}`).toContain(value.replace(/\/(up|down)$/, ''));
  });
});
