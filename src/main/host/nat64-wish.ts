/**
 * Whether a program is to find the NAT64 prefix of the host's network, and what is needed for that before its
 * code (nat64.ts) is loaded.
 */
import { AF_INET6, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK } from '../../sys/constants.ts';
import { socket } from '../../sys/socket.ts';
import type { EgressNat64 } from '../../workers/flow/egress-policy.ts';
import type { Nat64Choice } from '../cli/nat64.ts';

/** What a front end wants. */
export interface Nat64Wish {
  readonly choice: Exclude<Nat64Choice, 'off'>;
  /** Prefixes are offered to the guest. False: they are for the egress policy alone. */
  readonly offers: boolean;
  /** Interface that connections are bound to. */
  readonly bound?: string | undefined;
  /** Holds the egress policy, if there is or can be one. */
  readonly egress?: EgressWithNat64 | undefined;
}

/** What an EgressControl does here. */
export interface EgressWithNat64 {
  /** There is a policy. */
  readonly isOn: boolean;
  /** Called when the policy was set or removed. */
  onChange?: (() => void) | undefined;
  setNat64(prefixes: EgressNat64): void;
}

/**
 * The wish of a program.
 * @param choice  of --nat64; undefined: it is not given
 * @param byDefault  what it means then: `auto`, or `off` in the drop-ins, whose originals offer no prefix. An
 *   egress policy gets the prefixes in either case
 * @returns undefined: prefixes do not matter
 */
export function nat64Wish(
  choice: Nat64Choice | undefined,
  byDefault: 'auto' | 'off',
  egress: EgressWithNat64 | undefined,
  bound?: string,
): Nat64Wish | undefined {
  if (choice === 'off' || (choice === undefined && byDefault === 'off' && egress === undefined))
    return undefined;
  if (typeof choice === 'object') egress?.setNat64({ trusted: choice, found: [] });
  return { choice: choice ?? 'auto', offers: (choice ?? byDefault) !== 'off', bound, egress };
}

/**
 * Open the socket of the queries for a prefix, in the network namespace of the calling thread. A dual-stack
 * socket: a host without IPv6 in its kernel has no NAT64.
 * @returns a descriptor, or -errno
 */
export const openQuerySocket = (): number => socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
