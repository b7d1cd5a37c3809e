/**
 * Text to value, for everything a person writes on the command line. Each function takes what was written and
 * gives the value or throws a `UsageError` that says what is wrong and what to write instead; the option's
 * name is put in front by the parser.
 */
import { addressParse, ipv6Text } from '../../proto/address.ts';
import { IPV6_MIN_MTU } from '../../proto/ipv6.ts';

export { IPV6_MIN_MTU };
/** RFC 791 section 3.2, and the least that Linux gives an Ethernet device (ETH_MIN_MTU). */
export const IPV4_MIN_MTU = 68;
/** The most that a TAP takes: 65535 less the Ethernet header (Linux, drivers/net/tun.c). */
export const MAX_MTU = 65521;
/** Of `bucatini` and, as its original has it, `pasta`. */
export const DEFAULT_MTU = 65520;

/** Something the caller wrote that we cannot use. The message is one line and complete without a stack. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/**
 * Read a value of an option.
 * @throws UsageError with option and value in front of what `parse` says
 */
export function named<T>(option: string, text: string, parse: (text: string) => T): T {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    throw new UsageError(`${option} ${quoted(text)}: ${error.message}`);
  }
}

export type Family = 4 | 6;

export interface AddressWithPrefix {
  readonly family: Family;
  readonly address: string;
  /** Absent when none was written. */
  readonly prefixLen?: number;
}

/** A whole decimal number in a range. `example` is what the message tells people to write. */
export function parseCount(text: string, min: number, max: number, example: string): number {
  if (!/^[0-9]{1,15}$/.test(text)) throw new UsageError(`not a whole number; write for example ${example}`);
  const value = Number(text);
  if (value < min) throw new UsageError(`smaller than ${min}; write a number from ${min} to ${max}`);
  if (value > max) throw new UsageError(`larger than ${max}; write a number from ${min} to ${max}`);
  return value;
}

/** One of some words. */
export function parseChoice<T extends string>(text: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === text);
  if (found === undefined) throw new UsageError(`not one of ${choices.join(', ')}`);
  return found;
}

/**
 * An address of either family in its canonical spelling (RFC 5952 for IPv6); undefined: none, or one with a
 * scope id.
 */
export function addressOf(text: string): string | undefined {
  const words = new Uint32Array(4);
  if (!addressParse(text, words, 0)) return undefined;
  return text.includes(':') ? ipv6Text(words, 0) : text;
}

/** An address of either family in its canonical spelling. Scope ids are refused: a guest has none of ours. */
export function parseAddress(text: string): { family: Family; address: string } {
  const address = addressOf(text);
  if (address !== undefined) return { family: address.includes(':') ? 6 : 4, address };
  if (text.includes('%')) throw new UsageError('has a scope id; write the address without %zone');
  throw new UsageError('not an IPv4 or IPv6 address; write for example 192.0.2.15 or 2001:db8::15');
}

/**
 * A usable host address: no wildcard, loopback, multicast or broadcast, and not an IPv4 address in IPv6
 * clothes.
 */
export function parseUnicast(text: string): { family: Family; address: string } {
  const parsed = parseAddress(text);
  const why = notUnicast(parsed.address, parsed.family);
  if (why !== undefined) throw new UsageError(`${why}; write the unicast address of one interface`);
  return parsed;
}

/** A unicast address with or without the length of its prefix. */
export function parseAddressWithPrefix(text: string): AddressWithPrefix {
  const slash = text.indexOf('/');
  if (slash < 0) return parseUnicast(text);
  const parsed = parseUnicast(text.slice(0, slash));
  const max = parsed.family === 4 ? 32 : 128;
  const length = text.slice(slash + 1);
  if (!/^[0-9]{1,3}$/.test(length) || Number(length) > max || Number(length) < 1) {
    throw new UsageError(
      `prefix length is not 1 to ${max}; write for example ${parsed.address}/${max === 32 ? 24 : 64}`,
    );
  }
  return { ...parsed, prefixLen: Number(length) };
}

/**
 * Whether the kernel accepts a name for an interface (dev_valid_name: 1 to 15 bytes, no slash, colon or
 * blank, not . or ..).
 */
export function isInterfaceName(text: string): boolean {
  const bytes = Buffer.byteLength(text);
  return bytes > 0 && bytes <= 15 && !/[\s/:]/.test(text) && text !== '.' && text !== '..';
}

/** A name that the kernel accepts for an interface. */
export function parseInterfaceName(text: string): string {
  if (!isInterfaceName(text)) {
    throw new UsageError('not an interface name; write 1 to 15 characters without blanks, / or :');
  }
  return text;
}

/** sizeof(sun_path), <linux/un.h>: room for a socket's path and the zero behind it. */
export const SOCKET_PATH_BYTES = 108;

/** Where a socket may be made, as far as the text tells. */
export function parseSocketPath(text: string): string {
  if (text === '') throw new UsageError('is empty; write the path of a socket');
  if (Buffer.byteLength(text) >= SOCKET_PATH_BYTES)
    throw new UsageError(`is longer than ${SOCKET_PATH_BYTES - 1} bytes; write a shorter path`);
  return text;
}

function notUnicast(address: string, family: Family): string | undefined {
  if (family === 4) {
    const first = Number(address.slice(0, address.indexOf('.')));
    if (first === 0) return 'is in 0.0.0.0/8';
    if (first === 127) return 'is a loopback address';
    if (first >= 224 && first <= 239) return 'is a multicast address';
    if (first >= 240) return 'is a reserved or broadcast address';
    return undefined;
  }
  if (address === '::') return 'is the unspecified address';
  if (address === '::1') return 'is the loopback address';
  if (address.startsWith('ff')) return 'is a multicast address';
  if (address.startsWith('::ffff:')) return 'is an IPv4 address mapped into IPv6';
  return undefined;
}

/**
 * One command-line word as it can be pasted into a shell; keeps messages on one line whatever was written.
 */
export function quoted(text: string): string {
  if (/^[\w@%+=:,./[\]*-]+$/.test(text)) return text;
  return JSON.stringify(text);
}
