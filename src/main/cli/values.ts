/**
 * Parsers of option values. Each takes the text and returns the value, or throws a `UsageError` that says
 * what is wrong and what to write instead. The option parser puts the option's name in front of that message.
 */
import { addressParse, ipv6Text } from '../../proto/address.ts';
import { IPV6_MIN_MTU } from '../../proto/ipv6.ts';

export { IPV6_MIN_MTU };
/** The minimum of RFC 791 section 3.2, and of Linux for an Ethernet device (ETH_MIN_MTU). */
export const IPV4_MIN_MTU = 68;
/** The maximum of a TAP: 65535 less the Ethernet header (Linux, drivers/net/tun.c). */
export const MAX_MTU = 65521;
/** Default of `bucatini`, and of `pasta`, whose original has the same. */
export const DEFAULT_MTU = 65520;

/** An error in the command line. The message is one line and complete without a stack. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/**
 * Parse the value of an option.
 * @throws UsageError with option and value in front of the message from `parse`
 */
export function named<T>(option: string, text: string, parse: (text: string) => T): T {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    throw new UsageError(`${option} ${quoted(text)}: ${error.message}`);
  }
}

/**
 * Refuse a value that is not valid UTF-8 (sys/byte-text.ts). Names of files are passed to the kernel in several
 * ways, and some of them would change such a name.
 * @param what  the option as written; '': an operand
 * @throws UsageError with the value, its invalid bytes as \\xNN
 */
export function requireUtf8(what: string, text: string): void {
  if (text.isWellFormed()) return;
  const shown = JSON.stringify(text).replace(/\\udc([89a-f][0-9a-f])/g, '\\x$1');
  throw new UsageError(`${what}${what && ' '}${shown}: is not UTF-8; use another name`);
}

export type Family = 4 | 6;

/** An address in canonical form, maybe with a prefix length. */
export interface AddressWithPrefix {
  readonly family: Family;
  readonly address: string;
  /** Absent if the text has none. */
  readonly prefixLen?: number;
}

/**
 * Parse a decimal integer.
 * @param min      smallest permitted value
 * @param max      largest permitted value
 * @param example  a value that the error message suggests
 * @throws UsageError
 */
export function parseCount(text: string, min: number, max: number, example: string): number {
  if (!/^[0-9]{1,15}$/.test(text)) throw new UsageError(`not a whole number; write for example ${example}`);
  const value = Number(text);
  if (value < min) throw new UsageError(`smaller than ${min}; write a number from ${min} to ${max}`);
  if (value > max) throw new UsageError(`larger than ${max}; write a number from ${min} to ${max}`);
  return value;
}

/**
 * Parse a word that must be one of `choices`.
 * @throws UsageError
 */
export function parseChoice<T extends string>(text: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === text);
  if (found === undefined) throw new UsageError(`not one of ${choices.join(', ')}`);
  return found;
}

/**
 * An address of either family in canonical form (RFC 5952 for IPv6).
 * @returns undefined if the text is no address, or has a scope id
 */
export function addressOf(text: string): string | undefined {
  const words = new Uint32Array(4);
  if (!addressParse(text, words, 0)) return undefined;
  return text.includes(':') ? ipv6Text(words, 0) : text;
}

/**
 * Parse an address of either family into canonical form. A scope id is an error: it would name an interface
 * of the host, which the guest does not have.
 * @param examples  what an error proposes
 * @throws UsageError
 */
export function parseAddress(
  text: string,
  examples = '192.0.2.15 or 2001:db8::15',
): { family: Family; address: string } {
  const address = addressOf(text);
  if (address !== undefined) return { family: address.includes(':') ? 6 : 4, address };
  if (text.includes('%')) throw new UsageError('has a scope id; write the address without %zone');
  throw new UsageError(`not an IPv4 or IPv6 address; write for example ${examples}`);
}

/**
 * Parse an address that one host can have: no wildcard, loopback, multicast, broadcast or IPv4-mapped
 * address.
 * @param examples  what an error proposes
 * @throws UsageError
 */
export function parseUnicast(text: string, examples?: string): { family: Family; address: string } {
  const parsed = parseAddress(text, examples);
  const why = notUnicast(parsed.address, parsed.family);
  if (why !== undefined) throw new UsageError(`${why}; write the unicast address of one interface`);
  return parsed;
}

/**
 * Parse a unicast address with or without a prefix length.
 * @throws UsageError
 */
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

/** An address block. */
export interface Prefix {
  /** The address as addressParse() (proto/address.ts) writes it: an IPv4 one is mapped into IPv6. */
  readonly words: readonly [number, number, number, number];
  /** Length in bits of the mapped address: an IPv4 prefix has 96 more. */
  readonly bits: number;
  readonly family: Family;
}

/**
 * Parse ADDRESS/LENGTH, or an address alone, which is a block of one address.
 * @param example  the end of some errors: what to write
 * @throws UsageError that begins with the text
 */
export function parsePrefix(text: string, example: string): Prefix {
  const slash = text.indexOf('/');
  const address = slash < 0 ? text : text.slice(0, slash);
  const words = new Uint32Array(4);
  if (!addressParse(address, words, 0))
    throw new UsageError(`${quoted(text)}: ${quoted(address)} is not an IPv4 or IPv6 address; ${example}`);
  const family = address.includes(':') ? 6 : 4;
  const whole = family === 4 ? 32 : 128;
  const length = slash < 0 ? `${whole}` : text.slice(slash + 1);
  if (!/^[0-9]{1,3}$/.test(length) || Number(length) > whole)
    throw new UsageError(`${quoted(text)}: the prefix length is not 0 to ${whole}`);
  if (family === 6 && words[0] === 0 && words[1] === 0 && words[2] === 0xffff)
    throw new UsageError(`${quoted(text)}: is an IPv4 address mapped into IPv6; write the IPv4 address`);
  const bits = Number(length) + (family === 4 ? 96 : 0);
  for (let i = 0; i < 4; i++) {
    const left = Math.min(Math.max(bits - 32 * i, 0), 32);
    const outside = left === 32 ? 0 : 0xffffffff >>> left;
    if ((words[i]! & outside) !== 0)
      throw new UsageError(
        `${quoted(text)}: has bits set behind the prefix; write the first address of the block, or /${whole}`,
      );
  }
  return { words: [words[0]!, words[1]!, words[2]!, words[3]!], bits, family };
}

/**
 * Whether the kernel accepts a text as an interface name (dev_valid_name: 1 to 15 bytes; no slash, colon or
 * blank; not . or ..).
 */
export function isInterfaceName(text: string): boolean {
  const bytes = Buffer.byteLength(text);
  return bytes > 0 && bytes <= 15 && !/[\s/:]/.test(text) && text !== '.' && text !== '..';
}

/**
 * Parse an interface name.
 * @throws UsageError
 */
export function parseInterfaceName(text: string): string {
  if (!isInterfaceName(text)) {
    throw new UsageError('not an interface name; write 1 to 15 characters without blanks, / or :');
  }
  return text;
}

/** sizeof(sun_path), <linux/un.h>: room for a socket's path and its terminating zero. */
export const SOCKET_PATH_BYTES = 108;

/**
 * Parse the path of a socket to create. Checks the length only.
 * @throws UsageError
 */
export function parseSocketPath(text: string): string {
  if (text === '') throw new UsageError('is empty; write the path of a socket');
  if (Buffer.byteLength(text) >= SOCKET_PATH_BYTES)
    throw new UsageError(`is longer than ${SOCKET_PATH_BYTES - 1} bytes; write a shorter path`);
  return text;
}

/** @returns why the address is not a unicast address; undefined: it is one */
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
 * Quote one command-line word for an error message. The result is one line and can be pasted into a shell.
 */
export function quoted(text: string): string {
  if (/^[\w@%+=:,./[\]*-]+$/.test(text)) return text;
  return JSON.stringify(text);
}
