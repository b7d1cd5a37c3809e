/**
 * IP addresses as text, for rtnetlink's attributes. Pure and cold. (src/proto has the engine's own words; this
 * layer may not look there.)
 * @syscalls (none)
 */
import { isIPv4, isIPv6 } from 'node:net';
import { AF_INET, AF_INET6 } from './constants.ts';

export type Family = typeof AF_INET | typeof AF_INET6;

/** Bytes of an address: 4 or 16. */
export const addressBytes = (family: Family): 4 | 16 => (family === AF_INET ? 4 : 16);

/** Which family a text is of; throws for anything that is no address. A scope (`%eth0`) is not taken. */
export function familyOf(text: string): Family {
  if (isIPv4(text)) return AF_INET;
  if (isIPv6(text) && !text.includes('%')) return AF_INET6;
  throw new RangeError(`"${text}" is not an IPv4 or IPv6 address`);
}

/** Network-order bytes of an address text. */
export function addressParse(text: string): Uint8Array {
  if (familyOf(text) === AF_INET) return Uint8Array.from(text.split('.'), Number);
  let groups = text;
  const dotted = /(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text);
  if (dotted !== null) {
    const [a, b, c, d] = dotted.slice(2).map(Number) as [number, number, number, number];
    groups = `${dotted[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  }
  const [head = '', tail] = groups.split('::');
  const front = head === '' ? [] : head.split(':');
  const back = tail === undefined || tail === '' ? [] : tail.split(':');
  const bytes = new Uint8Array(16);
  const put = (group: string, index: number): void => {
    const value = Number.parseInt(group, 16);
    bytes[index * 2] = value >>> 8;
    bytes[index * 2 + 1] = value;
  };
  front.forEach(put);
  back.forEach((group, index) => {
    put(group, 8 - back.length + index);
  });
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
