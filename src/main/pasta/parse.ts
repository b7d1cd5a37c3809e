/** From the command line of `pasta` to its configuration. */
import { getopt } from '../cli/getopt.ts';
import { IPV4_MIN_MTU, IPV6_MIN_MTU, UsageError } from '../cli/values.ts';
import { type Draft, defaults, MAX_INT, type PastaConf, type PastaTarget } from './conf.ts';
import { Message } from './messages.ts';
import { CONTROL } from './option-values.ts';
import { OPTIONS } from './options.ts';

/** As JSON has it, without the quotes. */
const escaped = (text: string): string => JSON.stringify(text).slice(1, -1);

export type Parsed =
  | {
      readonly kind: 'go';
      readonly conf: PastaConf;
      readonly target: PastaTarget;
      /** No command was written: the user's shell, as a login shell. */
      readonly login: boolean;
      readonly warnings: readonly string[];
    }
  | { readonly kind: 'help' | 'version' }
  /** The options cannot be read: the usage text follows the message. */
  | { readonly kind: 'usage'; readonly error: string };

/**
 * @param argv  words behind the program's name
 * @param env   for SHELL
 * @throws UsageError with pasta's message
 */
export function parsePasta(argv: readonly string[], env: NodeJS.ProcessEnv = {}): Parsed {
  const words = getopt(argv, OPTIONS);
  const draft = defaults();
  for (const { option, value, written } of words.options) {
    if (option.name === 'help' || option.name === 'version') return { kind: option.name };
    try {
      option.set?.(draft, value, written);
    } catch (error) {
      if (!(error instanceof UsageError) || !CONTROL.test(value)) throw error;
      throw new UsageError(error.message.replaceAll(value, escaped(value))); // one line, whatever was written
    }
  }
  if (words.error !== undefined) return { kind: 'usage', error: words.error };
  const target = targetOf(draft, words.operands, env);
  finish(draft, target);
  const { prefixWritten, netmaskWritten, warnings, ...conf } = draft;
  const login = target.kind === 'command' && words.operands.length === 0;
  return { kind: 'go', conf, target, login, warnings };
}

function targetOf(draft: Draft, operands: readonly string[], env: NodeJS.ProcessEnv): PastaTarget {
  if (draft.netns !== undefined) {
    if (operands.length > 0) throw new UsageError(Message.bothNetnsAndOperand);
    return { kind: 'netns', path: draft.netns };
  }
  const [first] = operands;
  if (operands.length === 1 && /^[0-9]+$/.test(first!)) {
    const pid = Number(first);
    if (pid > MAX_INT) throw new UsageError(Message.invalidPid(first!));
    return { kind: 'pid', pid };
  }
  // Without a command the user's shell, as a login shell.
  return { kind: 'command', argv: operands.length > 0 ? operands : [env.SHELL || '/bin/sh'] };
}

function finish(draft: Draft, target: PastaTarget): void {
  if (target.kind !== 'command' && !draft.pidns)
    throw new UsageError('--no-pidns is incompatible with PID or --netns');
  for (const [on, name] of [
    [draft.copyRoutes, '--no-copy-routes'],
    [draft.copyAddrs, '--no-copy-addrs'],
  ] as const) {
    if (!on && !draft.configNet) throw new UsageError(Message.needsConfigNet(name));
  }
  // The path alone says where to go.
  if (target.kind === 'netns' && draft.userns === undefined) draft.netnsOnly = true;
  if (draft.configNet) draft.ra = false;
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
    if (draft.mtu < IPV4_MIN_MTU) draft.mtu = 0; // no Ethernet device takes it
  }
}
