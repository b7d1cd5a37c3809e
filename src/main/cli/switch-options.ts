/**
 * The options of socket switching (docs/switching.md), in `bucatini` and in `pasta`: --switch-sockets and
 * --no-switch, and with which others they cannot be.
 */
import { addressText } from '../../proto/address.ts';
import type { CaptureOptions } from './capture-options.ts';
import type { LineOption } from './lines.ts';
import { parsePrefix, UsageError } from './values.ts';

/** Values of the options, as far as they are given. */
export interface SwitchOptions {
  readonly switchSockets?: true;
  /** Prefixes in canonical form, each with its length: 10.0.0.0/8, 2001:db8::7/128. */
  readonly noSwitch?: readonly string[];
}

type SwitchDraft = { -readonly [K in keyof SwitchOptions]?: SwitchOptions[K] };

const EXAMPLE = 'write for example 10.0.0.0/8,2001:db8::7';
/** Each connect() compares its destination with all of them. */
const MAX_PREFIXES = 256;

/**
 * Parse a value of --no-switch: prefixes and addresses, separated by commas.
 * @returns see SwitchOptions.noSwitch
 * @throws UsageError
 */
export function parseNoSwitch(text: string): readonly string[] {
  return text.split(',').map((item) => {
    if (item === '') throw new UsageError(`an item of the list is empty; ${EXAMPLE}`);
    const { words, bits, family } = parsePrefix(item, EXAMPLE);
    return `${addressText(Uint32Array.from(words), 0)}/${family === 4 ? bits - 96 : bits}`;
  });
}

/** --no-switch, which may be given several times. `set` throws UsageError without option and value. */
export const NO_SWITCH_OPTION = {
  name: 'no-switch',
  value: 'CIDR[,…]',
  help: 'TCP to these prefixes and addresses is not switched, for example 10.0.0.0/8,2001:db8::7.',
  set: (draft: SwitchDraft, text: string): void => {
    const prefixes = [...(draft.noSwitch ?? []), ...parseNoSwitch(text)];
    if (prefixes.length > MAX_PREFIXES) throw new UsageError(`more than ${MAX_PREFIXES} prefixes in all`);
    draft.noSwitch = prefixes;
  },
} as const;

/** Help text of --switch-sockets. */
export const SWITCH_SOCKETS_HELP =
  "Connect TCP that COMMAND opens to the world by sockets of the host's network, at the host's own speed; all other traffic takes the TAP (docs/switching.md). Needs Linux 6.7 with Landlock; not with --pcap or an emulated line.";

/**
 * Check the options with the others of the command line.
 * @throws UsageError that names both options
 */
export function checkSwitching(
  options: SwitchOptions & Pick<CaptureOptions, 'pcap'> & { readonly lineOptions?: readonly LineOption[] },
): void {
  if (options.switchSockets === undefined) {
    if (options.noSwitch !== undefined)
      throw new UsageError('--no-switch: nothing is switched without --switch-sockets; add it');
    return;
  }
  if (options.pcap !== undefined) throw excluded('--pcap', 'a capture does not see switched connections');
  const [line] = options.lineOptions ?? [];
  if (line !== undefined)
    throw excluded(`--${line[0]}`, 'an emulated line does not change switched connections');
}

/** The error about another option. @param why  what is between them */
export const excluded = (other: string, why: string): UsageError =>
  new UsageError(`--switch-sockets and ${other} exclude each other: ${why}; leave one of them out`);
