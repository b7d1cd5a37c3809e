/** Parses the command line of `pasta`, and checks what depends on several options. */

import { checkCapture } from '../cli/capture-options.ts';
import { getopt } from '../cli/getopt.ts';
import { LINE_MTU, parseLineOptions } from '../cli/lines.ts';
import { checkSwitching, excluded } from '../cli/switch-options.ts';
import { IPV4_MIN_MTU, IPV6_MIN_MTU, requireUtf8, UsageError } from '../cli/values.ts';
import { type Draft, defaults, MAX_INT, type PastaConf, type PastaTarget } from './conf.ts';
import { Message } from './messages.ts';
import { CONTROL } from './option-values.ts';
import { OPTIONS } from './options.ts';

/** Escape control characters, as JSON does. */
const escaped = (text: string): string => JSON.stringify(text).slice(1, -1);

/** The result of parsing. */
export type Parsed =
  | {
      readonly kind: 'go';
      readonly conf: PastaConf;
      readonly target: PastaTarget;
      /** No command was given: `target` is the user's shell, as a login shell. */
      readonly login: boolean;
      readonly warnings: readonly string[];
    }
  | { readonly kind: 'help' | 'version' }
  /** The words are not options of the table: the usage text follows the message. */
  | { readonly kind: 'usage'; readonly error: string };

/**
 * Parse the command line.
 * @param argv  words after the program's name
 * @param env   its SHELL is the default command
 * @throws UsageError with pasta's message
 */
export function parsePasta(argv: readonly string[], env: NodeJS.ProcessEnv = {}): Parsed {
  const words = getopt(argv, OPTIONS);
  const draft = defaults();
  for (const { option, value, written } of words.options) {
    if (option.name === 'help' || option.name === 'version') return { kind: option.name };
    requireUtf8(written, value);
    try {
      option.set?.(draft, value, written);
    } catch (error) {
      if (!(error instanceof UsageError) || !CONTROL.test(value)) throw error;
      throw new UsageError(error.message.replaceAll(value, escaped(value))); // messages are one line
    }
  }
  if (words.error !== undefined) return { kind: 'usage', error: words.error };
  const target = targetOf(draft, words.operands, env);
  resolveDependencies(draft, target);
  const { prefixWritten, netmaskWritten, mtuWritten, lineOptions, warnings, ...conf } = draft;
  const login = target.kind === 'command' && words.operands.length === 0;
  return { kind: 'go', conf, target, login, warnings };
}

/** What to connect. @throws UsageError with pasta's message */
function targetOf(draft: Draft, operands: readonly string[], env: NodeJS.ProcessEnv): PastaTarget {
  if (draft.netns !== undefined) {
    if (operands.length > 0) throw new UsageError(Message.bothNetnsAndOperand);
    return { kind: 'netns', path: draft.netns };
  }
  const [first] = operands;
  if (operands.length === 1 && /^[+-]?[0-9]+$/.test(first!)) {
    const pid = Number(first) + 0; // no -0
    if (pid < 0 || pid > MAX_INT) throw new UsageError(Message.invalidPid(first!));
    return { kind: 'pid', pid };
  }
  return { kind: 'command', argv: operands.length > 0 ? operands : [env.SHELL || '/bin/sh'] };
}

/**
 * Check options that depend on one another, and derive what one option implies for another.
 * @throws UsageError with pasta's message
 */
function resolveDependencies(draft: Draft, target: PastaTarget): void {
  if (target.kind !== 'command' && !draft.pidns)
    throw new UsageError('--no-pidns is incompatible with PID or --netns');
  for (const [on, name] of [
    [draft.copyRoutes, '--no-copy-routes'],
    [draft.copyAddrs, '--no-copy-addrs'],
  ] as const) {
    if (!on && !draft.configNet) throw new UsageError(Message.needsConfigNet(name));
  }
  // With a path and no --userns, only the network namespace is entered.
  if (target.kind === 'netns' && draft.userns === undefined) draft.netnsOnly = true;
  if (draft.configNet) draft.ra = false;
  if (draft.lineOptions !== undefined) {
    draft.shaping = parseLineOptions(draft.lineOptions);
    const [name] = draft.lineOptions[0]!;
    if (draft.fd !== undefined) throw new UsageError(`--${name} is incompatible with --fd`);
    if (draft.spliceOnly) throw new UsageError(`--${name} is incompatible with --splice-only`);
    if (draft.mtuWritten !== true) draft.mtu = LINE_MTU;
  }
  checkCapture(draft, false);
  checkSwitching(draft);
  if (draft.switchSockets) refuseSwitching(draft, target);
  if (draft.spliceOnly) {
    if (!draft.splice) throw new UsageError('--splice-only is incompatible with --no-splice');
    if (draft.fd !== undefined) throw new UsageError('--splice-only is incompatible with --fd');
    draft.hostLoToNsLo = true;
    draft.icmp = false;
  }
  if (draft.hostLoToNsLo && !draft.splice)
    throw new UsageError('--host-lo-to-ns-lo is incompatible with --no-splice');
  if (draft.mtu !== 0) {
    if (draft.ipv4 && draft.mtu < IPV4_MIN_MTU)
      draft.warnings.push(Message.mtuTooSmall(draft.mtu, 4, IPV4_MIN_MTU));
    if (draft.ipv6 && draft.mtu < IPV6_MIN_MTU)
      draft.warnings.push(Message.mtuTooSmall(draft.mtu, 6, IPV6_MIN_MTU));
    if (draft.mtu < IPV4_MIN_MTU) draft.mtu = 0; // the kernel refuses it for an Ethernet device (ETH_MIN_MTU)
  }
}

/** @throws UsageError if sockets cannot be switched with the other options or for this target */
function refuseSwitching(draft: Draft, target: PastaTarget): void {
  if (target.kind !== 'command') {
    const other = target.kind === 'pid' ? 'PID' : '--netns';
    throw excluded(other, 'only sockets of a COMMAND that pasta starts can be switched');
  }
  if (!draft.tcp) throw excluded('--no-tcp', 'only TCP is switched');
  if (draft.spliceOnly) throw excluded('--splice-only', 'it leaves no way to the world');
  if (draft.fd !== undefined) throw excluded('--fd', 'its other end decides about all traffic');
  if (draft.outbound4 !== undefined || draft.outbound6 !== undefined)
    throw excluded('--outbound', 'switched connections do not have its source address');
}
