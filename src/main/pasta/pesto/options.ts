/**
 * Options of `pesto`: the one table behind parsing, help, manual page and shell completion. Names and values
 * are those of passt's pesto of 2026-10-02.
 */
import { getopt, type OptionShape } from '../../cli/getopt.ts';
import type { Direction, Protocol } from '../forward-rules.ts';

/** An entry of the option table. */
export interface PestoOption extends OptionShape {
  /** Name of the value in help; absent: a flag. */
  readonly value?: string;
  readonly help: string;
  readonly repeatable?: true;
  /** Of the options whose value is a port specification. */
  readonly ports?: { readonly direction: Direction; readonly proto: Protocol };
}

const spec = (
  name: string,
  short: string,
  direction: Direction,
  proto: Protocol,
  help: string,
): PestoOption => ({
  ...{ name, short, value: 'SPEC', takesValue: true, help, repeatable: true, ports: { direction, proto } },
});

/** All options, in the order of the help. */
export const OPTIONS: readonly PestoOption[] = [
  {
    ...{ name: 'add', short: 'A', takesValue: false, repeatable: true },
    help: 'Add the ports of the options that follow.',
  },
  {
    ...{ name: 'delete', short: 'D', takesValue: false, repeatable: true },
    help: 'Remove the rules of the options that follow; a rule must be given as it was added.',
  },
  {
    ...{ name: 'clear', short: 'C', takesValue: true, value: 'TABLE', repeatable: true },
    help: 'Remove all rules of this table: HOST (of -t and -u) or SPLICE (of -T and -U).',
  },
  spec(
    ...(['tcp-ports', 't', 'HOST', 'tcp'] as const),
    'TCP ports of the host to forward into the namespace: values as of the same option of pasta, none, auto, all, or a list separated by commas, for example 80, 8080:80, 127.0.0.1/80 or 1000-1010,~1005.',
  ),
  spec(...(['udp-ports', 'u', 'HOST', 'udp'] as const), 'The same for UDP.'),
  spec(
    ...(['tcp-ns', 'T', 'SPLICE', 'tcp'] as const),
    "TCP ports on the namespace's loopback to forward to the host's loopback.",
  ),
  spec(...(['udp-ns', 'U', 'SPLICE', 'udp'] as const), 'The same for UDP.'),
  {
    ...{ name: 'show', short: 's', takesValue: false },
    help: 'Print the rules before and after the changes.',
  },
  { name: 'debug', short: 'd', takesValue: false, help: 'Print what the server says of itself.' },
  { name: 'help', short: 'h', takesValue: false, help: 'Print this text and exit.' },
  { name: 'version', takesValue: false, help: 'Print the version and exit.' },
];

/** A change of the rules, in the order of the command line. */
export type Step =
  | { readonly kind: 'add' }
  | { readonly kind: 'delete' }
  | { readonly kind: 'clear'; readonly table: string }
  | {
      readonly kind: 'ports';
      readonly direction: Direction;
      readonly proto: Protocol;
      /** As in messages: "-t". */
      readonly option: string;
      readonly spec: string;
    };

/** The command line, parsed. */
export type Parsed =
  | { readonly kind: 'help' | 'version' }
  /** The usage text follows the message. */
  | { readonly kind: 'usage'; readonly error: string }
  | {
      readonly kind: 'go';
      readonly path: string;
      readonly steps: readonly Step[];
      readonly show: boolean;
      readonly debug: boolean;
    };

/** Parse the command line. @param argv  words after the program's name */
export function parsePesto(argv: readonly string[]): Parsed {
  const words = getopt(argv, OPTIONS, 'gnu');
  const steps: Step[] = [];
  let show = false;
  let debug = false;
  for (const { option, value } of words.options) {
    const { name, short, ports } = option;
    if (name === 'help' || name === 'version') return { kind: name };
    if (name === 'show') show = true;
    else if (name === 'debug') debug = true;
    else if (name === 'add' || name === 'delete')
      steps.push(name === 'add' ? { kind: 'add' } : { kind: 'delete' });
    else if (ports === undefined) steps.push({ kind: 'clear', table: value });
    else steps.push({ kind: 'ports', ...ports, option: `-${short}`, spec: value });
  }
  if (words.error !== undefined) return { kind: 'usage', error: words.error };
  if (words.operands.length !== 1)
    return { kind: 'usage', error: words.operands.length === 0 ? 'PATH is missing' : 'more than one PATH' };
  return { kind: 'go', path: words.operands[0]!, steps, show, debug };
}
