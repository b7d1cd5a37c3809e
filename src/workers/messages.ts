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

/** Whether the host's kernel may fragment what its path does not take whole: as before, it may, or it says EMSGSIZE. */
export const SendFragment = { unchanged: 0, allowed: 1, never: 2 } as const;
export type SendFragment = (typeof SendFragment)[keyof typeof SendFragment];

/** ToShard.sent: the socket has taken all that it was given and takes more; provisional bytes (ToHost.send) were not taken and are gone. */
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

/** shard -> host-io. */
export const ToHost = {
  /** Open and connect a TCP socket for `flow`. addr/ports (remote port << 16); at: the interface that a link-local remote lies behind, 0: the plan's. */
  openTcp: 1,
  /** Take over the accepted socket: arg0: token. */
  adopt: 2,
  /** Refuse an accepted socket with RST: arg0: token. */
  refuse: 3,
  /** Queue stream bytes on the socket: slots/at/len. host-io returns the slots to their owner when the socket took them. arg0: 0, or 1 + the flow's refusal count (modulo 256): the bytes are provisional. Those that the socket does not take at once host-io gives back and tells so (SentFlag.refused), and so does it with provisional bytes that left before the shard knew of that. */
  send: 4,
  /** How far host-io may peek: stream offset arg0 (u32, modulo). arg1: what the guest acknowledged, to be dropped from the socket's queue; arg2: payload bytes of the largest frame. */
  credit: 5,
  /** Peek again from stream offset arg0 (retransmission). arg1: when not 0, only that many bytes (then go on from where the cursor was). */
  rewind: 7,
  /** shutdown(SHUT_WR) once all queued bytes are sent. */
  finish: 8,
  /** Close quietly once all queued bytes are sent; answered by `closed`. */
  close: 9,
  /** Close with RST (SO_LINGER 0); answered by `closed`. */
  reset: 10,
  /** Slots of host-io's that the shard is done with: slotA, slotB. */
  freeSlots: 11,
  /** Open a UDP socket, or have a part in the one that the guest's endpoint has: addr/ports (remote << 16 | the guest's port, preferred on the host, 0: a socket of its own); arg1..arg4: the guest's address; arg0: 1 when datagrams may come several to a message (UDP_GRO), else 0; at: as in openTcp. Datagrams may follow at once. */
  openUdp: 12,
  /** Open a ping socket: addr; arg0: 4 or 6. */
  openPing: 13,
  /** Send one datagram: slots/at/len; arg0: socket options that change: ttl | SendFragment << 8, 0 = leave; arg1: gsoSize (UDP_SEGMENT) or 0; arg2: 1 when the slots stay the shard's, which keeps them at least until the flow's `closed`. */
  sendDatagram: 14,
  /** A reply through a published UDP listener: arg1: listener index; addr/ports: to whom (remote port << 16); slots/at/len; local address and interface as in listenerDatagram. Opens nothing. */
  sendFromListener: 15,
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
