/**
 * What stages say to each other: one 64-byte descriptor (16 u32 words) on an SPSC ring.
 *
 *   word  0      1      2       3       4     5      6 .. 15
 *        | op  | flow | slotA | slotB | at  | len  | operands of the op
 *
 * `slotA`/`slotB` name the frame's pieces (NO_SLOT: none), `at` is the byte offset from the start of slotA, `len` counts the
 * bytes from there through the end of slotB. Ownership of both slots passes with the descriptor. Addresses are four u32
 * words, most significant first, IPv4 as ::ffff:a.b.c.d.
 */
import { NO_SLOT } from '../ring/pool.ts';
import type { RingProducer } from '../ring/spsc.ts';

export const W = {
  op: 0,
  flow: 1,
  slotA: 2,
  slotB: 3,
  at: 4,
  len: 5,
  arg0: 6,
  arg1: 7,
  /** Remote (host-side) address words 8..11, ports in 12: remote << 16 | local. */
  addr: 8,
  ports: 12,
  arg2: 13,
  arg3: 14,
  arg4: 15,
} as const;

/** What ToShard.data carries: the next bytes, bytes that a rewind with a length asked for, or the stream's last (`eof` follows). */
export const DataKind = { next: 0, again: 1, last: 2 } as const;
export type DataKind = (typeof DataKind)[keyof typeof DataKind];

/** ToShard.sent: the socket has taken all that it was given and takes more; provisional bytes (sendWrite()) were not taken and are gone. */
export const SentFlag = { empty: 1, refused: 2 } as const;

/** reader -> shard, host-io -> shard. */
export const ToShard = {
  /** A frame off the TAP. at/len: from the Ethernet header on; arg0: flow hash; arg1: gsoType | needsCsum << 8 | ecn << 9 | reassembled << 10; arg2: gsoSize. */
  frame: 1,
  /** connect() succeeded. */
  opened: 2,
  /** connect() failed. arg0: errno. */
  openFailed: 3,
  /** Stream bytes peeked. slotA/at/len; arg0: stream offset (u32) of the first byte; arg1: DataKind. */
  data: 4,
  /** Bytes that the host socket took since the last such message: arg0; arg1: SentFlag bits; arg2: slots of the flow's that went back to the reader since then, small | large << 16. */
  sent: 5,
  /** The host peer has finished sending. arg0: stream offset of the end. */
  eof: 6,
  /** The host socket is dead. arg0: errno. */
  error: 7,
  /** The answer to close/reset: no more messages for this flow follow, its id may be used again. */
  closed: 8,
  /** A published listener accepted. arg0: token for `adopt`; arg1: listener index; addr/ports: peer address as the guest sees it and port << 16 | listener's target port; arg3: family, 4 or 6; arg4: flow hash; flow, at, len, arg2: the guest's address. */
  accepted: 9,
  /** A datagram (UDP payload, or an ICMP echo message for ping flows) from the host socket. slotA/slotB/at/len: payload begins at `at` in slotA; arg0: ttl or 0; arg1: bytes of each but the last when these are several datagrams, else 0. */
  datagram: 10,
  /** A datagram on a published UDP listener: slots as above; arg1: listener index; addr/ports as accepted; arg0, arg2, arg3, arg4: the local address that it came to; flow: interface index when the peer is link-local, else 0. The first 16 bytes of slotA are the guest's address. */
  listenerDatagram: 11,
  /** An ICMP error for a host socket. arg0: type << 8 | code (ICMP or ICMPv6 numbers, by family of the flow), 0: only the errno is known; arg1: info (MTU); addr: offender, all zero: unknown; arg2: errno; arg3: echo sequence number (ping flows); slotA/at/len: what it quotes behind the transport header, NO_SLOT: nothing. */
  icmpError: 12,
  /** A datagram to a UDP endpoint of the guest's from a peer that it has no flow with: slots and arg1 as in datagram; addr/ports: the peer's host-side address and port << 16 | the guest's port; arg0, arg2, arg3, arg4: the guest's address. */
  strangerDatagram: 13,
} as const;

/** shard or host-io -> reader: a slot pair of the reader's is free again. */
export const ToReader = { freeSlots: 1 } as const;

/**
 * Reserve a descriptor that carries no slots and fill in its head. The caller sets the op's operands in `out.words`, if it has any, and
 * commits; operands that are not set hold what an earlier descriptor left.
 * @returns index of the descriptor's first word in `out.words`
 */
export function reserveMessage(out: RingProducer, op: number, flow: number): number {
  const at = out.reserve();
  const w = out.words;
  w[at + W.op] = op;
  w[at + W.flow] = flow;
  w[at + W.slotA] = NO_SLOT;
  w[at + W.slotB] = NO_SLOT;
  return at;
}
