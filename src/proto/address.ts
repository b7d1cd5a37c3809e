/**
 * IP addresses as four u32 words, most significant word first. An IPv4 address is kept as the v4-mapped
 * address ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
 *
 *   words[w]  words[w + 1]  words[w + 2]  words[w + 3]
 *      0           0           0xffff        a.b.c.d        an IPv4 address
 *
 * Both families have one shape, so that flow keys and message layouts need no second form. Functions with
 * text allocate and are for the cold path.
 */
import { readU32, writeU32 } from './be.ts';
import { ipv4Parse, ipv4Text } from './ipv4.ts';

const ADDRESS_WORDS = 4;

/** The third word of every v4-mapped address. */
const V4_MAPPED_WORD = 0xffff;

/** Read the 16 packet bytes at `at` into words[w..w + 3]. */
export function addressRead(pool: Uint8Array, at: number, words: Uint32Array, w: number): void {
  words[w] = readU32(pool, at);
  words[w + 1] = readU32(pool, at + 4);
  words[w + 2] = readU32(pool, at + 8);
  words[w + 3] = readU32(pool, at + 12);
}

/** Write words[w..w + 3] as 16 packet bytes at `at`. */
export function addressWrite(pool: Uint8Array, at: number, words: Uint32Array, w: number): void {
  writeU32(pool, at, words[w]!);
  writeU32(pool, at + 4, words[w + 1]!);
  writeU32(pool, at + 8, words[w + 2]!);
  writeU32(pool, at + 12, words[w + 3]!);
}

/** Write an IPv4 address, a u32, to words[w..w + 3] as v4-mapped. words[w + 3] is the u32 itself. */
export function addressSetIpv4(words: Uint32Array, w: number, ipv4: number): void {
  words[w] = 0;
  words[w + 1] = 0;
  words[w + 2] = V4_MAPPED_WORD;
  words[w + 3] = ipv4;
}

/** Write the unspecified address of a family, 0.0.0.0 or ::, to words[w..w + 3]. */
export function addressSetAny(words: Uint32Array, w: number, family: 4 | 6): void {
  words[w] = 0;
  words[w + 1] = 0;
  words[w + 2] = family === 4 ? V4_MAPPED_WORD : 0;
  words[w + 3] = 0;
}

/** Write the loopback address of a family, 127.0.0.1 or ::1, to words[w..w + 3]. */
export function addressSetLoopback(words: Uint32Array, w: number, family: 4 | 6): void {
  addressSetAny(words, w, family);
  words[w + 3] = family === 4 ? 0x7f00_0001 : 1;
}

/** Copy an address: the four words from[f..f + 3] to to[t..t + 3]. */
export function addressCopy(from: Uint32Array, f: number, to: Uint32Array, t: number): void {
  to[t] = from[f]!;
  to[t + 1] = from[f + 1]!;
  to[t + 2] = from[f + 2]!;
  to[t + 3] = from[f + 3]!;
}

/** Whether the addresses at a[aw..aw + 3] and b[bw..bw + 3] are the same. */
export function addressEqual(a: Uint32Array, aw: number, b: Uint32Array, bw: number): boolean {
  // The last word differs most often, so it is compared first.
  return a[aw + 3] === b[bw + 3] && a[aw + 2] === b[bw + 2] && a[aw + 1] === b[bw + 1] && a[aw] === b[bw];
}

/** Whether two addresses of four words each have the same first `length` bits, 0 to 128. */
export function sharesPrefix(a: Uint32Array, b: Uint32Array, length: number): boolean {
  let bits = length;
  for (let i = 0; i < 4 && bits > 0; i++, bits -= 32) {
    if (((a[i]! ^ b[i]!) >>> 0) >>> Math.max(32 - bits, 0) !== 0) return false;
  }
  return true;
}

/** Whether the address at words[w..w + 3] is ::ffff:a.b.c.d, the form in which IPv4 addresses are kept. */
export function isV4Mapped(words: Uint32Array, w: number): boolean {
  return words[w + 2] === V4_MAPPED_WORD && words[w + 1] === 0 && words[w] === 0;
}

/** Family of the address at words[w..w + 3]: 4 or 6. */
export function familyOf(words: Uint32Array, w: number): 4 | 6 {
  return isV4Mapped(words, w) ? 4 : 6;
}

/**
 * Word offset of a family's address in an array of one address per family: IPv4 in words 0..3, IPv6 in 4..7.
 */
export function familyAt(family: 4 | 6): number {
  return family === 4 ? 0 : 4;
}

/** Whether the address lies in 127.0.0.0/8 or is ::1. */
export function isLoopback(words: Uint32Array, w: number): boolean {
  if (isV4Mapped(words, w)) return words[w + 3]! >>> 24 === 127;
  return words[w + 3] === 1 && words[w + 2] === 0 && words[w + 1] === 0 && words[w] === 0;
}

/** Whether the address lies in 224.0.0.0/4 or ff00::/8. */
export function isMulticast(words: Uint32Array, w: number): boolean {
  if (isV4Mapped(words, w)) return words[w + 3]! >>> 28 === 14;
  return words[w]! >>> 24 === 0xff;
}

/** Whether the address is 0.0.0.0 or ::. */
export function isUnspecified(words: Uint32Array, w: number): boolean {
  if (words[w + 3] !== 0) return false;
  return isV4Mapped(words, w) || (words[w + 2] === 0 && words[w + 1] === 0 && words[w] === 0);
}

/** Whether the address lies in 169.254.0.0/16 or fe80::/10. */
export function isLinkLocal(words: Uint32Array, w: number): boolean {
  if (isV4Mapped(words, w)) return words[w + 3]! >>> 16 === 0xa9fe;
  return words[w]! >>> 22 === 0xfe80 >>> 6;
}

/**
 * The eight 16-bit groups of an IPv6 address as text, `::` and a dotted IPv4 tail allowed; null if malformed.
 */
function ipv6Groups(text: string): number[] | null {
  const halves = text.split('::');
  if (halves.length > 2) return null;
  const groups = (half: string, isLast: boolean): number[] | null => {
    if (half === '') return [];
    const out: number[] = [];
    const parts = half.split(':');
    for (const [i, part] of parts.entries()) {
      if (isLast && i === parts.length - 1 && part.includes('.')) {
        const v4 = ipv4Parse(part);
        if (v4 < 0) return null;
        out.push(v4 >>> 16, v4 & 0xffff);
      } else if (/^[0-9a-f]{1,4}$/i.test(part)) out.push(Number.parseInt(part, 16));
      else return null;
    }
    return out;
  };
  const head = groups(halves[0]!, halves.length === 1);
  if (head === null) return null;
  if (halves.length === 1) return head.length === 8 ? head : null;
  const tail = groups(halves[1]!, true);
  if (tail === null) return null;
  const zeros = 8 - head.length - tail.length;
  return zeros < 1 ? null : [...head, ...new Array<number>(zeros).fill(0), ...tail];
}

/**
 * Parse an address of either family into words[w..w + 3]. Cold path. node:net's isIP() is not used: its
 * regular expression for IPv6 takes 6 ms to compile at the start of the process.
 * @returns false, with words untouched, when `text` is not an address. A zone ("%eth0") or a prefix length
 *   ("/64") is not accepted.
 */
export function addressParse(text: string, words: Uint32Array, w: number): boolean {
  if (!text.includes(':')) {
    const v4 = ipv4Parse(text);
    if (v4 < 0) return false;
    addressSetIpv4(words, w, v4);
    return true;
  }
  const groups = ipv6Groups(text);
  if (groups === null) return false;
  for (let i = 0; i < ADDRESS_WORDS; i++) words[w + i] = ((groups[2 * i]! << 16) | groups[2 * i + 1]!) >>> 0;
  return true;
}

/** The address as text: dotted quad for v4-mapped, else the canonical form of RFC 5952. Cold path. */
export function addressText(words: Uint32Array, w: number): string {
  return isV4Mapped(words, w) ? ipv4Text(words[w + 3]!) : ipv6Text(words, w);
}

/**
 * The address as text in the form of RFC 5952, also v4-mapped ones: ::ffff:a.b.c.d (section 5). Cold path.
 */
export function ipv6Text(words: Uint32Array, w: number): string {
  if (isV4Mapped(words, w)) return `::ffff:${ipv4Text(words[w + 3]!)}`;
  const groups: number[] = [];
  for (let i = 0; i < ADDRESS_WORDS; i++) groups.push(words[w + i]! >>> 16, words[w + i]! & 0xffff);
  // RFC 5952 section 4.2: the longest run of at least two zero groups, the first of equals.
  let runAt = -1;
  let runLength = 1;
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (i + length < 8 && groups[i + length] === 0) length++;
    if (length > runLength) {
      runAt = i;
      runLength = length;
    }
  }
  const hex = (part: number[]): string => part.map((group) => group.toString(16)).join(':');
  return runAt < 0 ? hex(groups) : `${hex(groups.slice(0, runAt))}::${hex(groups.slice(runAt + runLength))}`;
}
