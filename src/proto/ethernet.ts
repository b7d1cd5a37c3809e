/**
 * Ethernet II header codec, IEEE 802.3 clause 3.
 *
 *  +0 dst, 6 bytes   +6 src, 6 bytes   +12 etherType u16   +14 payload
 *
 * No bounds are checked: the caller has made sure that the frame has at least ETH_BYTES.
 */
import { readU16, writeU16 } from './be.ts';

export const ETH_BYTES = 14;
/** Offset of the source address from the start of the frame. */
export const ETH_SRC = 6;
export const MAC_BYTES = 6;

export const EtherType = { ipv4: 0x0800, arp: 0x0806, ipv6: 0x86dd, vlan: 0x8100 } as const;

/** EtherType of a frame: an EtherType value or any other number. */
export function etherType(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 12);
}

/** Write a header, all 14 bytes. `dst` and `src` are 6-byte arrays, not offsets. */
export function etherWrite(
  pool: Uint8Array,
  at: number,
  dst: Uint8Array,
  src: Uint8Array,
  type: number,
): void {
  // Six stores each instead of set(), whose call costs more than the stores.
  for (let i = 0; i < MAC_BYTES; i++) pool[at + i] = dst[i]!;
  for (let i = 0; i < MAC_BYTES; i++) pool[at + ETH_SRC + i] = src[i]!;
  writeU16(pool, at + 12, type);
}

/**
 * Write the Ethernet address of a group or broadcast address to mac[0..5]: 01:00:5e and the lowest 23 bits of
 * an IPv4 group (RFC 1112 section 6.4), 33:33 and the lowest 32 bits of an IPv6 group (RFC 2464 section 7),
 * else the broadcast address.
 * @param words,w  the address, IPv4 as v4-mapped
 */
export function groupMac(words: Uint32Array, w: number, mac: Uint8Array): void {
  const last = words[w + 3]!;
  if (words[w]! >>> 24 === 0xff) {
    mac[0] = 0x33;
    mac[1] = 0x33;
    mac[2] = last >>> 24;
    mac[3] = last >>> 16;
  } else if (last >>> 28 === 14) {
    mac[0] = 0x01;
    mac[1] = 0x00;
    mac[2] = 0x5e;
    mac[3] = (last >>> 16) & 0x7f;
  } else {
    mac.fill(0xff);
    return;
  }
  mac[4] = last >>> 8;
  mac[5] = last;
}

/**
 * Parse "9a:55:9a:55:9a:55" to 6 bytes; null when the text is not six groups of two hex digits. Cold path.
 */
export function macParse(text: string): Uint8Array | null {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return null;
  return Uint8Array.from(text.split(':'), (group) => Number.parseInt(group, 16));
}

const HEX = '0123456789abcdef';

/** The MAC address at `at` as text, "9a:55:9a:55:9a:55". Cold path. */
export function macText(pool: Uint8Array, at: number): string {
  let text = '';
  for (let i = 0; i < MAC_BYTES; i++) {
    const byte = pool[at + i]!;
    text += `${i === 0 ? '' : ':'}${HEX[byte >>> 4]}${HEX[byte & 15]}`;
  }
  return text;
}
