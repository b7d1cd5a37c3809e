/**
 * virtio_net_hdr with num_buffers, what a TAP opened with IFF_VNET_HDR and TUNSETVNETHDRSZ 12 puts before
 * each frame. Source: linux/virtio_net.h; virtio 1.2 section 5.1.6. Little-endian (TUNSETVNETLE is the
 * default on our machines).
 *
 *  +0 flags u8   +1 gsoType u8   +2 hdrLen u16   +4 gsoSize u16   +6 csumStart u16   +8 csumOffset u16   +10 numBuffers u16
 *
 * csumStart counts from the Ethernet header, csumOffset from csumStart. With needsCsum the field at csumStart
 * + csumOffset holds the folded pseudo header sum and whoever needs the real checksum finishes it.
 */
import { writeU16 } from './be.ts';
import { finishSum, onesSumPieces } from './checksum.ts';
import { Drop } from './drop.ts';

export const VNET_BYTES = 12;

export const VnetFlag = { needsCsum: 1, dataValid: 2 } as const;

/** `ecn` is a bit beside tcpv4 and tcpv6, all others are values. */
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

/** A hint only: Ethernet, IP and transport header together, or more. Parse the headers instead. */
export function vnetHdrLen(pool: Uint8Array, at: number): number {
  return readLe16(pool, at + 2);
}

/** Payload bytes of each segment but the last. */
export function vnetGsoSize(pool: Uint8Array, at: number): number {
  return readLe16(pool, at + 4);
}

/** Offset in the frame where the checksum begins to cover. */
export function vnetCsumStart(pool: Uint8Array, at: number): number {
  return readLe16(pool, at + 6);
}

/** Offset of the checksum field from there. */
export function vnetCsumOffset(pool: Uint8Array, at: number): number {
  return readLe16(pool, at + 8);
}

/**
 * Check a header against the frame that follows it; the 12 bytes exist.
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
 * Finish a checksum that was left to the device: the one's complement sum from csumStart to the end of the
 * frame, stored at csumStart + csumOffset (virtio 1.2 section 5.1.6.2). The header was checked (vnetCheck).
 * @param at  of the header, which the frame follows
 * @param bytes  of the frame there
 * @param moreAt,moreBytes  the rest of the frame
 * @returns whether it is done: false when the field does not lie in the first piece, as those of a real stack
 *   do
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
  // Of UDP 0 would say that there is none; for TCP both are the same.
  writeU16(pool, frameAt + field, sum === 0 ? 0xffff : sum);
  return true;
}

/** Write all 12 bytes, numBuffers 0. Eight parameters: the header's fields, one each, in their order. */
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
