/**
 * The virtio-net header, struct virtio_net_hdr_mrg_rxbuf (with num_buffers), in front of every frame of a TAP
 * with IFF_VNET_HDR and TUNSETVNETHDRSZ 12. Sources: <linux/virtio_net.h>; virtio 1.2 section 5.1.6. The
 * fields are little-endian, which is the byte order of a TAP without TUNSETVNETLE or TUNSETVNETBE on
 * little-endian machines.
 *
 *  +0 flags u8   +1 gsoType u8   +2 hdrLen u16   +4 gsoSize u16
 *  +6 csumStart u16   +8 csumOffset u16   +10 numBuffers u16
 *
 * csumStart counts from the Ethernet header, csumOffset from csumStart. With needsCsum the field at csumStart
 * + csumOffset holds the folded pseudo header sum; the receiver has to complete the checksum if it needs it.
 */
import { writeU16 } from './be.ts';
import { finishSum, onesSumPieces } from './checksum.ts';
import { Drop } from './drop.ts';

export const VNET_BYTES = 12;

export const VnetFlag = { needsCsum: 1, dataValid: 2 } as const;

/** `ecn` is a bit that may be set with tcpv4 and tcpv6; the others are values. */
export const VnetGso = { none: 0, tcpv4: 1, udp: 3, tcpv6: 4, udpL4: 5, ecn: 0x80 } as const;

function readLe16(pool: Uint8Array, at: number): number {
  return pool[at]! | (pool[at + 1]! << 8);
}

function writeLe16(pool: Uint8Array, at: number, value: number): void {
  pool[at] = value;
  pool[at + 1] = value >>> 8;
}

/** VnetFlag bits. */
export function vnetFlags(pool: Uint8Array, at: number): number {
  return pool[at]!;
}

/** VnetGso value, possibly with the ecn bit. */
export function vnetGsoType(pool: Uint8Array, at: number): number {
  return pool[at + 1]!;
}

/** Length of the Ethernet, IP and transport headers, or more. A hint only: parse the headers instead. */
export function vnetHdrLen(pool: Uint8Array, at: number): number {
  return readLe16(pool, at + 2);
}

/** Payload bytes of each segment but the last. */
export function vnetGsoSize(pool: Uint8Array, at: number): number {
  return readLe16(pool, at + 4);
}

/** Offset in the frame of the first byte that the checksum covers. */
export function vnetCsumStart(pool: Uint8Array, at: number): number {
  return readLe16(pool, at + 6);
}

/** Offset of the checksum field from csumStart. */
export function vnetCsumOffset(pool: Uint8Array, at: number): number {
  return readLe16(pool, at + 8);
}

/**
 * Check a header against the frame that follows it. The caller has made sure that the 12 bytes exist.
 * @param frameBytes  length of the frame after the vnet header
 * @returns 0, or Drop.vnetCsum | vnetGsoType | vnetGsoSize | vnetHdrLen
 */
export function vnetCheck(pool: Uint8Array, at: number, frameBytes: number): number {
  if ((pool[at]! & VnetFlag.needsCsum) !== 0) {
    if (vnetCsumStart(pool, at) + vnetCsumOffset(pool, at) + 2 > frameBytes) return Drop.vnetCsum;
  }
  const gso = pool[at + 1]!;
  if (gso === VnetGso.none) return 0;
  const type = gso & ~VnetGso.ecn;
  const isTcp = type === VnetGso.tcpv4 || type === VnetGso.tcpv6;
  if (!isTcp && (gso & VnetGso.ecn || (type !== VnetGso.udp && type !== VnetGso.udpL4))) {
    return Drop.vnetGsoType;
  }
  if (vnetGsoSize(pool, at) === 0) return Drop.vnetGsoSize;
  if (vnetHdrLen(pool, at) > frameBytes) return Drop.vnetHdrLen;
  return 0;
}

/**
 * Complete a checksum that the sender left to the device: sum from csumStart to the end of the frame, store
 * the result at csumStart + csumOffset (virtio 1.2 section 5.1.6.2). vnetCheck has accepted the header.
 * @param at  offset of the header; the first piece of the frame follows it
 * @param bytes  length of the first piece of the frame
 * @param moreAt,moreBytes  the second piece of the frame; 0 bytes for none
 * @returns true when the checksum was written; false when its field is not in the first piece, where every
 *   real
 *   network stack puts it
 */
export function vnetFinishChecksum(
  pool: Uint8Array,
  at: number,
  bytes: number,
  moreAt: number,
  moreBytes: number,
): boolean {
  const start = vnetCsumStart(pool, at);
  const field = start + vnetCsumOffset(pool, at);
  if (field + 2 > bytes) return false;
  const frameAt = at + VNET_BYTES;
  const sum = finishSum(onesSumPieces(pool, frameAt + start, bytes - start, moreAt, moreBytes, 0));
  // In UDP a checksum of 0 means "no checksum"; in TCP 0 and 0xffff are equivalent.
  writeU16(pool, frameAt + field, sum === 0 ? 0xffff : sum);
  return true;
}

/** Write a header, all 12 bytes, numBuffers 0. The parameters are the fields of the header in their order. */
export function vnetWrite(
  pool: Uint8Array,
  at: number,
  flags: number,
  gsoType: number,
  hdrLen: number,
  gsoSize: number,
  csumStart: number,
  csumOffset: number,
): void {
  pool[at] = flags;
  pool[at + 1] = gsoType;
  writeLe16(pool, at + 2, hdrLen);
  writeLe16(pool, at + 4, gsoSize);
  writeLe16(pool, at + 6, csumStart);
  writeLe16(pool, at + 8, csumOffset);
  writeLe16(pool, at + 10, 0);
}
