/** A packet from the guest, as a shard hands it to the module of its protocol. */
import { finishSum, onesSumPieces } from '../../proto/checksum.ts';
import { NO_SLOT } from '../../ring/pool.ts';
import type { FlowTuple } from '../flow/flow-tuple.ts';
import type { ShardContext } from './context.ts';

/**
 * A received IP packet after dispatch checked its headers; one object per shard, refilled for every packet
 * (borrowed). The packet's bytes lie in slotA from `ipAt` on (`u8` offsets), all headers inside slotA, the
 * rest in slotB.
 */
export interface Packet extends FlowTuple {
  slotA: number;
  slotB: number;
  /** Offset in u8 of the IP header, and of the transport header. */
  ipAt: number;
  transportAt: number;
  /** Transport header and payload, all pieces together. */
  transportBytes: number;
  /** Of those, bytes that lie in slotA from transportAt on. */
  transportBytesInA: number;
  family: 4 | 6;
  proto: number;
  ttl: number;
  /** Not to be fragmented on its way: IPv4 with DF, IPv6 that came in one piece. */
  dontFragment: boolean;
  /**
   * FlowTuple's hash, as computed by the reader, and ports, which the module of the protocol sets once it has
   * checked the header.
   */
  hash: number;
  ports: number;
  /**
   * virtio-net header: checksum left partial by the guest; GSO type (VnetGso.*, without the ECN bit) and
   * segment size.
   */
  needsCsum: boolean;
  gsoType: number;
  gsoSize: number;
  /** Source (guest) in words 0..3 and destination (remote) in words 4..7, IPv4 as v4-mapped. */
  readonly addr: Uint32Array;
}

/** Give the packet's slots back to the reader, once: the packet owns none afterwards. */
export function packetFree(ctx: ShardContext, p: Packet): void {
  ctx.freeReaderSlots(p.slotA, p.slotB);
  p.slotA = NO_SLOT;
  p.slotB = NO_SLOT;
}

/** Drop the packet. @param cause  Drop or StageDrop, below zero */
export function packetDiscard(ctx: ShardContext, p: Packet, cause: number): void {
  ctx.drop(cause);
  packetFree(ctx, p);
}

/** Bytes of the packet's transport part that lie in slot B. */
export function packetMoreBytes(p: Packet): number {
  return p.transportBytes - p.transportBytesInA;
}

/**
 * Whether the packet's transport checksum is right.
 * @param bytes  of the transport part that it covers
 * @param pseudo  sum of the pseudo header, 0 where there is none
 */
export function packetChecksumOk(ctx: ShardContext, p: Packet, bytes: number, pseudo: number): boolean {
  const bytesInA = Math.min(bytes, p.transportBytesInA);
  const moreBytes = bytes - bytesInA;
  const moreAt = moreBytes > 0 ? ctx.pool.slotAt(p.slotB) : 0;
  return finishSum(onesSumPieces(ctx.u8, p.transportAt, bytesInA, moreAt, moreBytes, pseudo)) === 0;
}
