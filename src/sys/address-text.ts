/**
 * IP addresses as text, for rtnetlink's attributes. Pure and cold. (src/proto has the engine's own words; this
 * layer may not look there.)
 * @syscalls (none)
 */
import { AF_INET, AF_INET6 } from './constants.ts';

export type Family = typeof AF_INET | typeof AF_INET6;

/** Bytes of an address: 4 or 16. */
export const addressBytes = (family: Family): 4 | 16 => (family === AF_INET ? 4 : 16);

/** Which family a text is of; throws for anything that is no address. A scope (`%eth0`) is not taken. */
export const familyOf = (text: string): Family => (addressParse(text).length === 4 ? AF_INET : AF_INET6);

/**
 * Network-order bytes of an address text. Not checked by node:net: its expression for IPv6 takes 6 ms to compile, in a start that needs
 * no other.
 * @throws RangeError for anything that is no address
 */
export function addressParse(text: string): Uint8Array {
  const bytes = text.includes(':') ? ipv6Bytes(text) : ipv4Bytes(text);
  if (bytes === undefined) throw new RangeError(`"${text}" is not an IPv4 or IPv6 address`);
  return Uint8Array.from(bytes);
}

/** Four decimal numbers without leading zeros. */
function ipv4Bytes(text: string): number[] | undefined {
  const parts = text.split('.');
  const valid = parts.length === 4 && parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && +part < 256);
  return valid ? parts.map(Number) : undefined;
}

/** RFC 4291 section 2.2: eight groups, `::` for one or more of zeros, the last two maybe as an IPv4 address. */
function ipv6Bytes(text: string): number[] | undefined {
  const halves = text.split('::').map((half, i, all) => groupBytes(half, i === all.length - 1));
  const [front, back] = halves;
  if (front === undefined || halves.length > 2) return undefined;
  if (halves.length === 1) return front.length === 16 ? front : undefined;
  if (back === undefined) return undefined;
  const zeros = 16 - front.length - back.length;
  return zeros < 2 ? undefined : [...front, ...new Array<number>(zeros).fill(0), ...back];
}

/** Bytes of groups between colons. @param mayEndDotted  the last one may be an IPv4 address */
function groupBytes(text: string, mayEndDotted: boolean): number[] | undefined {
  if (text === '') return [];
  const bytes: number[] = [];
  const groups = text.split(':');
  for (const [i, group] of groups.entries()) {
    if (mayEndDotted && i === groups.length - 1 && group.includes('.')) {
      const dotted = ipv4Bytes(group);
      if (dotted === undefined) return undefined;
      bytes.push(...dotted);
    } else if (/^[0-9a-f]{1,4}$/i.test(group)) {
      const value = Number.parseInt(group, 16);
      bytes.push(value >>> 8, value & 0xff);
    } else return undefined;
  }
  return bytes;
}

/**
 * Canonical text of network-order bytes. RFC 5952 section 4: the longest run of two or more zero groups is `::`,
 * the first one of equals; lower case; no leading zeros.
 */
export function addressFormat(bytes: Uint8Array, at: number, family: Family): string {
  if (family === AF_INET) return bytes.subarray(at, at + 4).join('.');
  const groups: number[] = [];
  for (let i = 0; i < 8; i++) groups.push((bytes[at + i * 2]! << 8) | bytes[at + i * 2 + 1]!);
  // RFC 5952 section 5: v4-mapped addresses end in dotted form.
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) {
    return `::ffff:${addressFormat(bytes, at + 12, AF_INET)}`;
  }
  let bestAt = -1;
  let bestLength = 1;
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (i + length < 8 && groups[i + length] === 0) length++;
    if (length > bestLength) {
      bestAt = i;
      bestLength = length;
    }
    i += length;
  }
  const text = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(':');
  return bestAt < 0 ? text(0, 8) : `${text(0, bestAt)}::${text(bestAt + bestLength, 8)}`;
}
