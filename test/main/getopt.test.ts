import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { getopt } from '../../src/main/cli/getopt.ts';

const TABLE = [
  { name: 'quiet', short: 'q', takesValue: false },
  { name: 'mtu', short: 'm', takesValue: true },
  { name: 'no-tcp', takesValue: false },
  { name: 'no-udp', takesValue: false },
  { name: 'netns', takesValue: true },
  { name: 'netns-only', takesValue: false },
];
const read = (...argv: string[]): string => {
  const { options, operands, error } = getopt(argv, TABLE);
  const list = options.map((o) => (o.option.takesValue ? `${o.option.name}=${o.value}` : o.option.name));
  return [...list, `| ${operands.join(' ')}`, ...(error === undefined ? [] : [`! ${error}`])].join(' ');
};

describe('getopt', () => {
  it('options end at the first operand, or at --', () => {
    expect(read('-q', 'sh', '-q')).toBe('quiet | sh -q');
    expect(read('--', '-q')).toBe('| -q');
    expect(read('-q', '-', '-q')).toBe('quiet | - -q');
    expect(read()).toBe('| ');
  });

  it('values: after =, in the next word even if it begins with -, or directly after a letter', () => {
    expect(read('--mtu=1', '--mtu', '-q', '-m2', '-m', '3', '--mtu=')).toBe(
      'mtu=1 mtu=-q mtu=2 mtu=3 mtu= | ',
    );
    expect(read('-qm', '9')).toBe('quiet mtu=9 | ');
    expect(read('-mq')).toBe('mtu=q | ');
  });

  it('long names: a unique beginning is accepted; a whole name is never ambiguous', () => {
    expect(read('--q', '--mt=5', '--netns', 'x', '--netns-o')).toBe('quiet mtu=5 netns=x netns-only | ');
    expect(read('--no')).toBe("|  ! option '--no' is ambiguous; possibilities: '--no-tcp' '--no-udp'");
  });

  it.each([
    [['--bogus'], "unrecognized option '--bogus'"],
    [['--bogus=1'], "unrecognized option '--bogus'"],
    [['-x'], "invalid option -- 'x'"],
    [['-qx'], "invalid option -- 'x'"],
    [['-m'], "option requires an argument -- 'm'"],
    [['--mtu'], "option '--mtu' requires an argument"],
    [['--mt'], "option '--mtu' requires an argument"],
    [['--quiet=1'], "option '--quiet' doesn't allow an argument"],
  ])('%j: refused with the text of getopt_long(3)', (argv, error) => {
    expect(getopt(argv, TABLE).error).toBe(error);
  });

  it('any words: each is an option, a value or an operand, in order', () => {
    const word = fc.constantFrom('-q', '-m', '-m1', '--mtu', '--mtu=1', '--', 'x', '-', '--netns', '-qm');
    fc.assert(
      fc.property(fc.array(word, { maxLength: 8 }), (argv) => {
        const { options, operands, error } = getopt(argv, TABLE);
        if (error !== undefined) return;
        expect(argv.slice(argv.length - operands.length)).toEqual(operands);
        expect(options.length).toBeLessThanOrEqual(2 * (argv.length - operands.length));
      }),
    );
  });
});
