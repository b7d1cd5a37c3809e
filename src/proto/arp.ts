/**
 * ARP for IPv4 on Ethernet, RFC 826.
 *
 *  +0 hardware u16 = 1   +2 protocol u16 = 0x0800   +4 hlen = 6   +5 plen = 4   +6 op u16
 *  +8 senderMac, 6   +14 senderIp u32   +18 targetMac, 6   +24 targetIp u32
 *
 * Invariant: once arpCheck() === 0, the 28 bytes may be read unchecked. Addresses are u32, MACs 6-byte
 * arrays.
 */
import { readU16, readU32, writeU32 } from './be.ts';
import { Drop } from './drop.ts';
import { MAC_BYTES } from './ethernet.ts';

export const ARP_BYTES = 28;
/** Offsets of the MAC fields from the start of the packet. */
export const ARP_SENDER_MAC = 8;
export const ARP_TARGET_MAC = 18;

export const ArpOp = { request: 1, reply: 2 } as const;

/**
 * Check a packet in place.
 * @param availBytes  bytes of the frame from `at` on
 * @returns 0, or Drop.short | arpFormat | arpOp
 */
export function arpCheck(pool: Uint8Array, at: number, availBytes: number): number {
  if (availBytes < ARP_BYTES) return Drop.short;
  if (readU32(pool, at) !== 0x00010800 || readU16(pool, at + 4) !== 0x0604) return Drop.arpFormat;
  const op = readU16(pool, at + 6);
  return op === ArpOp.request || op === ArpOp.reply ? 0 : Drop.arpOp;
}

/** Operation: an ArpOp value. */
export function arpOp(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 6);
}

/** Sender's IPv4 address as a u32. */
export function arpSenderIp(pool: Uint8Array, at: number): number {
  return readU32(pool, at + 14);
}

/** Target's IPv4 address as a u32. */
export function arpTargetIp(pool: Uint8Array, at: number): number {
  return readU32(pool, at + 24);
}

/**
 * Write a request, ARP_BYTES bytes at `at`: who has `targetIp`?
 * @param senderMac  6-byte array
 * @param senderIp,targetIp  IPv4 addresses as u32
 */
export function arpRequestWrite(
  pool: Uint8Array,
  at: number,
  senderMac: Uint8Array,
  senderIp: number,
  targetIp: number,
): void {
  arpReplyWrite(pool, at, senderMac, senderIp, senderMac, targetIp);
  writeU32(pool, at + 4, 0x06040000 | ArpOp.request);
  pool.fill(0, at + ARP_TARGET_MAC, at + ARP_TARGET_MAC + MAC_BYTES);
}

/**
 * Write a reply, ARP_BYTES bytes at `at`, that says: `senderIp` is at `senderMac`.
 * @param senderMac,targetMac  6-byte arrays
 * @param senderIp,targetIp  IPv4 addresses as u32
 */
export function arpReplyWrite(
  pool: Uint8Array,
  at: number,
  senderMac: Uint8Array,
  senderIp: number,
  targetMac: Uint8Array,
  targetIp: number,
): void {
  writeU32(pool, at, 0x00010800);
  writeU32(pool, at + 4, 0x06040000 | ArpOp.reply);
  writeU32(pool, at + 14, senderIp);
  writeU32(pool, at + 24, targetIp);
  for (let i = 0; i < MAC_BYTES; i++) {
    pool[at + ARP_SENDER_MAC + i] = senderMac[i]!;
    pool[at + ARP_TARGET_MAC + i] = targetMac[i]!;
  }
}
