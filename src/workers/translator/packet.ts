/** A packet from the guest, as a shard passes it to the module of its protocol. */
import { finishSum, onesSumPieces } from '../../proto/checksum.ts';
import { NO_SLOT } from '../../ring/pool.ts';
import type { FlowTuple } from '../flow/flow-tuple.ts';
import type { ShardContext } from './context.ts';

/**
 * A received IP packet whose IP header has been checked; one object per shard, refilled for every packet
 * (borrowed). The packet begins in slotA, at `ipAt`; its IP headers are in slotA, and the part that does not
 * fit there is in slotB.
 */
export interface Packet extends FlowTuple {
  slotA: number;
  slotB: number;
  /** Offset in u8 of the IP header, and of the transport header. */
  ipAt: number;
  transportAt: number;
  /** Length of transport header and payload, in both slots together. */
  transportBytes: number;
  /** How many of transportBytes are in slotA, from transportAt on. */
  transportBytesInA: number;
  family: 4 | 6;
  proto: number;
  ttl: number;
  /** TOS or traffic class: DSCP << 2 | ECN. */
  tos: number;
  /** The packet must not be fragmented on its way: IPv4 with DF, or IPv6 that came unfragmented. */
  dontFragment: boolean;
  /**
   * Fields of FlowTuple: the reader computed the hash; the protocol's module sets the ports once it has
   * checked the transport header.
   */
  hash: number;
  ports: number;
  /**
   * From the virtio-net header: whether the guest left the checksum partial; GSO type (VnetGso.*, without the
   * ECN bit); segment size.
   */
  needsCsum: boolean;
  gsoType: number;
  gsoSize: number;
  /** Source (guest) in words 0..3 and destination (remote) in words 4..7, IPv4 as v4-mapped. */
  readonly addr: Uint32Array;
}

/**
 * Give the packet's slots back to the reader; the packet has none afterwards, so a second call does nothing.
 */
export function packetFree(ctx: ShardContext, p: Packet): void {
  ctx.freeReaderSlots(p.slotA, p.slotB);
  p.slotA = NO_SLOT;
  p.slotB = NO_SLOT;
}

/**
 * Count the packet as dropped and free it.
 * @param cause  Drop or StageDrop, below zero
 */
export function packetDiscard(ctx: ShardContext, p: Packet, cause: number): void {
  ctx.drop(cause);
  packetFree(ctx, p);
}

/** How many of the packet's transportBytes are in slot B. */
export function packetMoreBytes(p: Packet): number {
  return p.transportBytes - p.transportBytesInA;
}

/**
 * Whether the packet's transport checksum is right.
 * @param bytes  length that the checksum covers, from transportAt on
 * @param pseudo  sum of the pseudo header; 0 for a protocol without one
 */
export function packetChecksumOk(ctx: ShardContext, p: Packet, bytes: number, pseudo: number): boolean {
  const bytesInA = Math.min(bytes, p.transportBytesInA);
  const moreBytes = bytes - bytesInA;
  const moreAt = moreBytes > 0 ? ctx.pool.slotAt(p.slotB) : 0;
  return finishSum(onesSumPieces(ctx.u8, p.transportAt, bytesInA, moreAt, moreBytes, pseudo)) === 0;
}
