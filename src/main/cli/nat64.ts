/** The value of --nat64: `auto`, `off`, or NAT64 prefixes, separated by commas: 64:ff9b::/96,2001:db8:64::/48. */

import { addressParse, isV4Mapped } from '../../proto/address.ts';
import {
  NAT64_BITS,
  type Nat64Prefix,
  nat64IsUsable,
  nat64Matches,
  nat64PrefixOf,
} from '../../proto/nat64.ts';
import { quoted, UsageError } from './values.ts';

/** Ask for prefixes and offer those found; neither; or offer these. */
export type Nat64Choice = 'auto' | 'off' | readonly Nat64Prefix[];

/** The text of an option's help, without the default. */
export const NAT64_HELP =
  "NAT64 prefixes of the host's network, offered to programs inside in router advertisements (PREF64, RFC 8781); an egress policy finds IPv4 addresses behind them. auto: where the host has IPv6 and no IPv4, its resolvers are asked for the prefix (RFC 7050).";

/** Values for help. */
export const NAT64_VALUE = 'auto|off|PREFIX/LEN,...';

/** Most prefixes of the option. */
const MAX_PREFIXES = 4;

/**
 * Parse the value of --nat64.
 * @throws UsageError
 */
export function parseNat64(text: string): Nat64Choice {
  if (text === 'auto' || text === 'off') return text;
  const words = text.split(',');
  const prefixes = words.map((word) => parsePrefix(word, words.length > 1 ? `${quoted(word)}: ` : ''));
  if (prefixes.length > MAX_PREFIXES) throw new UsageError(`more than ${MAX_PREFIXES} prefixes`);
  return prefixes;
}

/** @param place  in front of errors */
function parsePrefix(text: string, place: string): Nat64Prefix {
  const words = new Uint32Array(4);
  const [address = '', length, extra] = text.split('/');
  if (!addressParse(address, words, 0) || isV4Mapped(words, 0) || extra !== undefined)
    throw new UsageError(`${place}write auto, off, or an IPv6 prefix, for example 64:ff9b::/96`);
  const bits = NAT64_BITS.find((allowed) => String(allowed) === length);
  if (bits === undefined)
    throw new UsageError(`${place}a NAT64 prefix has 32, 40, 48, 56, 64 or 96 bits (RFC 6052)`);
  const prefix = nat64PrefixOf(words, 0, bits);
  if (!nat64Matches(words, 0, prefix.words, 0, 128))
    throw new UsageError(`${place}has bits behind its ${bits}`);
  if (!nat64IsUsable(prefix))
    throw new UsageError(`${place}is not the prefix of a translator; write for example 64:ff9b::/96`);
  return prefix;
}
