/**
 * reader -> shard (`frame`) and host-io -> shard (all others).
 *
 *                     +1         +2, +3  +4      +5     +6             +7         +8 .. +11          +12 .. +15
 *   frame             -          slots   offset  bytes  flow hash      offload    gso size
 *   opened            flow
 *   openFailed        flow       -       -       -      errno
 *   data              flow       A       offset  bytes  stream offset  DataKind
 *   sent              flow       -       -       -      bytes          SentFlag   slots freed
 *   eof               flow       -       -       -      stream offset
 *   error             flow       -       -       -      errno
 *   closed            flow
 *   accepted          hash       -       token   family ports          -          peer               guest
 *   urgent            flow       -       -       -      stream offset
 *   datagram          flow       slots   offset  bytes  ttl, tos << 8  gso size
 *   listenerDatagram  interface  slots   offset  bytes  ports          listener,  peer               local
 *                                                                      tos << 24
 *   unsolicited-      0          slots   offset  bytes  ports          gso size,  peer               guest
 *     Datagram                                                         tos << 16
 *   groupDatagram     0          slots   offset  bytes  ports          ttl        peer               group
 *   icmpError         flow       A       offset  bytes  type, code     info       offender           errno, sequence
 *   movedFlow         part       -       12 words of the flow's state
 *   movedBucket       bucket
 *
 *   offload   | 0 ... | reassembled 1 bit | needsCsum 1 bit | 0 | VnetGso type 7 bits |
 *
 * The accessors of words 0 to 5 are in descriptor.ts, except those of `accepted` and `movedFlow`, which have no
 * payload. movedFlow and movedBucket come from another lane.
 * listenerDatagram has a third address, the guest's, in the first 16 bytes of slot A: they lie in front of
 * the payload, where no header will be written. Stream offsets are as in to-host.ts.
 */
import { addressCopy, addressRead, addressText, addressWrite, isUnspecified } from '../../proto/address.ts';
import { NO_SLOT } from '../../ring/pool.ts';
import { STATE_WORDS } from '../flow/flow-state.ts';
import type { DescriptorOut } from './words.ts';
import { clause, endpointText, keyOf, reserveBare, reserveWithSlots } from './words.ts';

export const ToShard = {
  /** A frame read from the TAP, from the Ethernet header on. */
  frame: 1,
  /** connect() succeeded. */
  opened: 2,
  /** connect() failed, or no socket could be opened. */
  openFailed: 3,
  /** Stream bytes peeked from the host socket. */
  data: 4,
  /** Number of bytes that the host socket took since the last `sent`. */
  sent: 5,
  /** The host peer has finished sending (FIN). */
  eof: 6,
  /** The host socket has failed. */
  error: 7,
  /** The answer to close and reset: the last message about this flow, whose id may be used again. */
  closed: 8,
  /** A published TCP listener has accepted a connection. */
  accepted: 9,
  /** A datagram from the host socket: a UDP payload, or an ICMP echo message for ping flows. */
  datagram: 10,
  /** A datagram on a published UDP listener. */
  listenerDatagram: 11,
  /** An ICMP error for a host socket. */
  icmpError: 12,
  /** A datagram to a UDP endpoint of the guest from a peer with which the endpoint has no flow. */
  unsolicitedDatagram: 13,
  /** A part of the state of a TCP flow that moves to this lane (flow/flow-state.ts). */
  movedFlow: 14,
  /** All flows of this bucket are here: the lane becomes its owner. */
  movedBucket: 15,
  /** Where in the stream the peer's urgent byte is; comes before the `data` that has this byte. */
  urgent: 16,
  /** A datagram to a multicast group or broadcast address. */
  groupDatagram: 17,
} as const;
export type ToShard = (typeof ToShard)[keyof typeof ToShard];

/**
 * What `data` carries: the next bytes; bytes that a rewind with a length asked for; or the last bytes of the
 * stream, which `eof` follows.
 */
export const DataKind = { next: 0, again: 1, last: 2 } as const;
export type DataKind = (typeof DataKind)[keyof typeof DataKind];

/**
 * Flags of `sent`. empty: the socket has taken all that was queued and takes more. refused: it did not take
 * provisional bytes (sendWrite()), which host-io has dropped.
 */
export const SentFlag = { empty: 1, refused: 2 } as const;

const GSO_TYPE_MASK = 0x7f;
/** In word 7 of listenerDatagram: TOS above the listener's number. */
const LISTENER_TOS_SHIFT = 24;

/** Bits of `offload` above the VnetGso type. */
export const FrameFlag = {
  /** The transport checksum is left to the device. */
  needsCsum: 0x100,
  /**
   * The datagram was reassembled from fragments. IPv6 has no DF bit: after reassembly this flag is the only
   * record that the datagram was fragmented.
   */
  reassembled: 0x200,
  /** A fragment that the reader of another lane read: the first lane reassembles all. */
  fragment: 0x400,
  /** The frame went to another lane's shard, which passed it on. */
  forwarded: 0x800,
} as const;

// ------------------------------------------------------------------------------------- flows that change lanes

const PART_WORDS = 12;
/** Descriptors that the state of a flow takes. */
export const MOVED_PARTS = Math.ceil(STATE_WORDS / PART_WORDS);

/** @param state  STATE_WORDS words */
export function movedFlowWrite(out: DescriptorOut, state: Uint32Array): void {
  for (let part = 0; part < MOVED_PARTS; part++) {
    const at = reserveBare(out, ToShard.movedFlow, part);
    const from = part * PART_WORDS;
    for (let i = 0; i < PART_WORDS; i++)
      out.words[at + 4 + i] = from + i < STATE_WORDS ? state[from + i]! : 0;
    out.commit();
  }
}

/**
 * Read a part of a flow's state.
 * @param state  STATE_WORDS words, in which the parts before it were written
 * @returns whether it was the last part
 */
export function movedFlowRead(w: Uint32Array, at: number, state: Uint32Array): boolean {
  const part = w[at + 1]!;
  const to = part * PART_WORDS;
  for (let i = 0; i < PART_WORDS && to + i < STATE_WORDS; i++) state[to + i] = w[at + 4 + i]!;
  return part === MOVED_PARTS - 1;
}

export function movedBucketWrite(out: DescriptorOut, bucket: number): void {
  reserveBare(out, ToShard.movedBucket, bucket);
  out.commit();
}

export const movedBucket = (w: Uint32Array, at: number): number => w[at + 1]!;

// ----------------------------------------------------------------------------------------------------- frames

/**
 * Passes the slots on. Nine parameters: the frame's five, and what the reader knows about it.
 * @param slotOffset  of the Ethernet header
 * @param hash  flow hash, 0: the frame belongs to no flow
 * @param offload  VnetGso type without its ecn bit, and FrameFlag bits
 * @param gsoSize  payload bytes per segment, 0 without GSO
 * @param bucket  FlowOwners.bucketOf(); 0 without lanes
 */
export function frameWrite(
  out: DescriptorOut,
  slotA: number,
  slotB: number,
  slotOffset: number,
  bytes: number,
  hash: number,
  offload: number,
  gsoSize: number,
  bucket: number,
): void {
  // Without reserveWithSlots(): a frame has no flow yet.
  const at = out.reserve();
  const w = out.words;
  w[at] = ToShard.frame;
  w[at + 2] = slotA;
  w[at + 3] = slotB;
  w[at + 4] = slotOffset;
  w[at + 5] = bytes;
  w[at + 6] = hash;
  w[at + 7] = offload;
  w[at + 8] = ((bucket << 16) | gsoSize) >>> 0;
  out.commit();
}

export const frameHash = (w: Uint32Array, at: number): number => w[at + 6]!;
export const frameOffload = (w: Uint32Array, at: number): number => w[at + 7]!;
export const offloadGsoType = (offload: number): number => offload & GSO_TYPE_MASK;
export const offloadNeedsCsum = (offload: number): boolean => (offload & FrameFlag.needsCsum) !== 0;
export const offloadIsReassembled = (offload: number): boolean => (offload & FrameFlag.reassembled) !== 0;
export const offloadIsForwarded = (offload: number): boolean => (offload & FrameFlag.forwarded) !== 0;
/** Mark a frame as forwarded, and undo that. */
export const frameSetForwarded = (w: Uint32Array, at: number): void => {
  w[at + 7]! |= FrameFlag.forwarded;
};
export const frameClearForwarded = (w: Uint32Array, at: number): void => {
  w[at + 7]! &= ~FrameFlag.forwarded;
};
export const offloadIsFragment = (offload: number): boolean => (offload & FrameFlag.fragment) !== 0;
export const frameGsoSize = (w: Uint32Array, at: number): number => w[at + 8]! & 0xffff;
/** FlowOwners.bucketOf(); only with lanes. */
export const frameBucket = (w: Uint32Array, at: number): number => w[at + 8]! >>> 16;

// ---------------------------------------------------------------------------------------- sockets and streams

export function openedWrite(out: DescriptorOut, flow: number): void {
  reserveBare(out, ToShard.opened, flow);
  out.commit();
}

/** @param errno  above zero */
export function openFailedWrite(out: DescriptorOut, flow: number, errno: number): void {
  const at = reserveBare(out, ToShard.openFailed, flow);
  out.words[at + 6] = errno;
  out.commit();
}

export const openFailedErrno = (w: Uint32Array, at: number): number => w[at + 6]!;

/** Passes the slot on. @param offset  stream offset of the first byte */
export function dataWrite(
  out: DescriptorOut,
  flow: number,
  slot: number,
  slotOffset: number,
  bytes: number,
  offset: number,
  kind: DataKind,
): void {
  const at = reserveWithSlots(out, ToShard.data, flow, slot, NO_SLOT, slotOffset, bytes);
  const w = out.words;
  w[at + 6] = offset;
  w[at + 7] = kind;
  out.commit();
}

export const dataOffset = (w: Uint32Array, at: number): number => w[at + 6]!;
export const dataKind = (w: Uint32Array, at: number): DataKind => w[at + 7]! as DataKind;

/**
 * @param bytes  that the socket took since the last `sent`
 * @param flags  SentFlag bits
 * @param freed  slots of the flow that went back to the reader since the last `sent`: small | large << 16
 */
export function sentWrite(
  out: DescriptorOut,
  flow: number,
  bytes: number,
  flags: number,
  freed: number,
): void {
  const at = reserveBare(out, ToShard.sent, flow);
  const w = out.words;
  w[at + 6] = bytes;
  w[at + 7] = flags;
  w[at + 8] = freed;
  out.commit();
}

export const sentBytes = (w: Uint32Array, at: number): number => w[at + 6]!;
export const sentFlags = (w: Uint32Array, at: number): number => w[at + 7]!;
export const sentFreed = (w: Uint32Array, at: number): number => w[at + 8]!;

/** @param offset  stream offset of the end */
export function eofWrite(out: DescriptorOut, flow: number, offset: number): void {
  const at = reserveBare(out, ToShard.eof, flow);
  out.words[at + 6] = offset;
  out.commit();
}

export const eofOffset = (w: Uint32Array, at: number): number => w[at + 6]!;

/** @param offset  stream offset of the urgent byte */
export function urgentWrite(out: DescriptorOut, flow: number, offset: number): void {
  const at = reserveBare(out, ToShard.urgent, flow);
  out.words[at + 6] = offset;
  out.commit();
}

export const urgentOffset = (w: Uint32Array, at: number): number => w[at + 6]!;

/** @param errno  above zero; 0: the flow ends for another reason */
export function errorWrite(out: DescriptorOut, flow: number, errno: number): void {
  const at = reserveBare(out, ToShard.error, flow);
  out.words[at + 6] = errno;
  out.commit();
}

export const errorErrno = (w: Uint32Array, at: number): number => w[at + 6]!;

export function closedWrite(out: DescriptorOut, flow: number): void {
  reserveBare(out, ToShard.closed, flow);
  out.commit();
}

/**
 * Nine parameters: the connection's addresses and ports, its hash, and the token for the answer.
 * @param token  names the accepted socket in the answer, adopt or refuse
 * @param ports  peer's << 16 | the listener's target port
 * @param hash  flow hash, by which the shard was chosen
 * @param peer,p  peer's address as the guest sees it: four words from peer[p] on
 * @param guest,g  the guest's address, to which the connection goes
 */
export function acceptedWrite(
  out: DescriptorOut,
  token: number,
  family: 4 | 6,
  ports: number,
  hash: number,
  peer: Uint32Array,
  p: number,
  guest: Uint32Array,
  g: number,
): void {
  const at = reserveBare(out, ToShard.accepted, hash);
  const w = out.words;
  w[at + 4] = token;
  w[at + 5] = family;
  w[at + 6] = ports;
  addressCopy(peer, p, w, at + 8);
  addressCopy(guest, g, w, at + 12);
  out.commit();
}

export const acceptedHash = (w: Uint32Array, at: number): number => w[at + 1]!;
export const acceptedToken = (w: Uint32Array, at: number): number => w[at + 4]!;
export const acceptedFamily = (w: Uint32Array, at: number): 4 | 6 => (w[at + 5] === 6 ? 6 : 4);
export const acceptedPeerPort = (w: Uint32Array, at: number): number => w[at + 6]! >>> 16;
export const acceptedTargetPort = (w: Uint32Array, at: number): number => w[at + 6]! & 0xffff;
/** Index in the ring's words of the peer's address as the guest sees it. */
export const acceptedPeerAt = (at: number): number => at + 8;
/** Index of the guest's address in the ring's words. */
export const acceptedGuestAt = (at: number): number => at + 12;

// -------------------------------------------------------------------------------------------------- datagrams

/**
 * Passes the slots on; there is headroom (HEADROOM_BYTES) in front of the payload. Eight parameters: the
 * payload's five, and the packet's TTL and segment size.
 * @param ttl  of the packet, 0: unknown
 * @param gsoSize  bytes of each datagram but the last when there are several, else 0
 */
export function datagramWrite(
  out: DescriptorOut,
  flow: number,
  slotA: number,
  slotB: number,
  slotOffset: number,
  bytes: number,
  ttl: number,
  gsoSize: number,
  tos = 0,
): void {
  const at = reserveWithSlots(out, ToShard.datagram, flow, slotA, slotB, slotOffset, bytes);
  const w = out.words;
  w[at + 6] = ttl | (tos << 8);
  w[at + 7] = gsoSize;
  out.commit();
}

export const datagramTtl = (w: Uint32Array, at: number): number => w[at + 6]! & 0xff;
/** For datagram. */
export const datagramTos = (w: Uint32Array, at: number): number => w[at + 6]! >>> 8;
/** For datagram and unsolicitedDatagram. */
export const datagramGsoSize = (w: Uint32Array, at: number): number => w[at + 7]! & 0xffff;

/**
 * Passes the slots on. listenerDatagramGuestWrite() must have written to the first one. Ten parameters: the
 * payload's five, the peer, and the socket and local address that received the datagram.
 * @param listener  listener number
 * @param zone  index of the interface of a link-local peer, else 0
 * @param ports  peer's << 16 | the listener's target port
 * @param addresses,a host-side address of the peer at addresses[a], and at addresses[a + 4] the local address
 *   to which it has sent
 */
export function listenerDatagramWrite(
  out: DescriptorOut,
  listener: number,
  zone: number,
  slotA: number,
  slotB: number,
  slotOffset: number,
  bytes: number,
  ports: number,
  addresses: Uint32Array,
  a: number,
  tos = 0,
): void {
  const at = reserveWithSlots(out, ToShard.listenerDatagram, zone, slotA, slotB, slotOffset, bytes);
  const w = out.words;
  w[at + 6] = ports;
  w[at + 7] = (listener | (tos << LISTENER_TOS_SHIFT)) >>> 0;
  addressCopy(addresses, a, w, at + 8);
  addressCopy(addresses, a + 4, w, at + 12);
  out.commit();
}

/**
 * Write the guest's address of a listenerDatagram to the headroom of slot A.
 * @param pool  the frame pool's bytes
 * @param slotAt  offset of slot A in `pool`
 * @param guest,g  the address: four words from guest[g] on
 */
export function listenerDatagramGuestWrite(
  pool: Uint8Array,
  slotAt: number,
  guest: Uint32Array,
  g: number,
): void {
  addressWrite(pool, slotAt, guest, g);
}

/** The reverse of listenerDatagramGuestWrite(): read the address into four words from guest[g] on. */
export function listenerDatagramGuest(pool: Uint8Array, slotAt: number, guest: Uint32Array, g: number): void {
  addressRead(pool, slotAt, guest, g);
}

export const listenerDatagramZone = (w: Uint32Array, at: number): number => w[at + 1]!;
export const listenerDatagramIndex = (w: Uint32Array, at: number): number =>
  w[at + 7]! & ((1 << LISTENER_TOS_SHIFT) - 1);
export const listenerDatagramTos = (w: Uint32Array, at: number): number => w[at + 7]! >>> LISTENER_TOS_SHIFT;
/** Index in the ring's words of the local address to which the peer has sent. */
export const listenerDatagramLocalAt = (at: number): number => at + 12;

/**
 * For listenerDatagram, unsolicitedDatagram and groupDatagram: index of the peer's host-side address in the
 * ring's words.
 */
export const datagramPeerAt = (at: number): number => at + 8;
/** For listenerDatagram, unsolicitedDatagram and groupDatagram. */
export const datagramPeerPort = (w: Uint32Array, at: number): number => w[at + 6]! >>> 16;
/** For listenerDatagram: the listener's target port. For unsolicitedDatagram: the guest endpoint's port. */
export const datagramGuestPort = (w: Uint32Array, at: number): number => w[at + 6]! & 0xffff;

/**
 * Passes the slots on. Ten parameters: payload and gsoSize as in datagramWrite(), and both endpoints.
 * @param ports  peer's << 16 | the guest's
 * @param addresses  holds both addresses
 * @param p  index in `addresses` of the peer's host-side address
 * @param g  index in `addresses` of the guest's address
 */
export function unsolicitedDatagramWrite(
  out: DescriptorOut,
  slotA: number,
  slotB: number,
  slotOffset: number,
  bytes: number,
  gsoSize: number,
  ports: number,
  addresses: Uint32Array,
  p: number,
  g: number,
  tos = 0,
): void {
  const at = reserveWithSlots(out, ToShard.unsolicitedDatagram, 0, slotA, slotB, slotOffset, bytes);
  const w = out.words;
  w[at + 6] = ports;
  w[at + 7] = gsoSize | (tos << 16);
  addressCopy(addresses, p, w, at + 8);
  addressCopy(addresses, g, w, at + 12);
  out.commit();
}

export const unsolicitedDatagramTos = (w: Uint32Array, at: number): number => w[at + 7]! >>> 16;

/**
 * Passes the slots on. Nine parameters: payload and ttl as in datagramWrite(), sender and destination.
 * @param ports  peer's << 16 | the group's
 * @param addresses,a  host-side address of the peer at addresses[a], and at addresses[a + 4] the group
 */
export function groupDatagramWrite(
  out: DescriptorOut,
  slotA: number,
  slotB: number,
  slotOffset: number,
  bytes: number,
  ttl: number,
  ports: number,
  addresses: Uint32Array,
  a: number,
): void {
  const at = reserveWithSlots(out, ToShard.groupDatagram, 0, slotA, slotB, slotOffset, bytes);
  const w = out.words;
  w[at + 6] = ports;
  w[at + 7] = ttl;
  addressCopy(addresses, a, w, at + 8);
  addressCopy(addresses, a + 4, w, at + 12);
  out.commit();
}

export const groupDatagramTtl = (w: Uint32Array, at: number): number => w[at + 7]!;
export const groupDatagramPort = (w: Uint32Array, at: number): number => w[at + 6]! & 0xffff;
/** Index of the group in the ring's words. */
export const groupDatagramGroupAt = (at: number): number => at + 12;

/** Index of the guest's address in the ring's words. */
export const unsolicitedDatagramGuestAt = (at: number): number => at + 12;

// ------------------------------------------------------------------------------------------------------ errors

/**
 * Passes the slot on. Ten parameters: what the kernel reports about an error (struct sock_extended_err,
 * <linux/errqueue.h>), and the quoted payload's three.
 * @param typeCode  ICMP type << 8 | code (numbers of the flow's family), 0: only the errno is known
 * @param info  the MTU, if the error is about it
 * @param errno  above zero
 * @param sequence  of the echo request (ping flows)
 * @param offender  address that sent the ICMP error, words 0..3; all zero: unknown
 * @param slot  holds the payload that the error quotes after the transport header; NO_SLOT: it quotes none
 */
export function icmpErrorWrite(
  out: DescriptorOut,
  flow: number,
  typeCode: number,
  info: number,
  errno: number,
  sequence: number,
  offender: Uint32Array,
  slot: number,
  slotOffset: number,
  bytes: number,
): void {
  const at = reserveWithSlots(out, ToShard.icmpError, flow, slot, NO_SLOT, slotOffset, bytes);
  const w = out.words;
  w[at + 6] = typeCode;
  w[at + 7] = info;
  addressCopy(offender, 0, w, at + 8);
  w[at + 12] = errno;
  w[at + 13] = sequence;
  out.commit();
}

/** ICMP type << 8 | code, 0: only the errno is known. */
export const icmpErrorTypeCode = (w: Uint32Array, at: number): number => w[at + 6]!;
export const icmpErrorInfo = (w: Uint32Array, at: number): number => w[at + 7]!;
/** Index of the offender's host-side address in the ring's words. */
export const icmpErrorOffenderAt = (at: number): number => at + 8;
export const icmpErrorErrno = (w: Uint32Array, at: number): number => w[at + 12]!;
export const icmpErrorSequence = (w: Uint32Array, at: number): number => w[at + 13]!;

// -------------------------------------------------------------------------------------------------------- text

/** For tests: a descriptor as one line, without its slots: "data flow 3, 1460 bytes at 2920, last". */
export function toShardText(w: Uint32Array, at = 0): string {
  const op = w[at]!;
  const name = keyOf(ToShard, op);
  const flow = `${name} flow ${w[at + 1]}`;
  const bytes = `${w[at + 5]} bytes`;
  switch (op) {
    case ToShard.frame:
      return `${name}, ${bytes}${offloadText(frameOffload(w, at))}${segmentsText(frameGsoSize(w, at))}`;
    case ToShard.openFailed:
      return `${flow}, errno ${openFailedErrno(w, at)}`;
    case ToShard.data: {
      const kind = clause(dataKind(w, at), (value) => keyOf(DataKind, value));
      return `${flow}, ${bytes} at ${dataOffset(w, at)}${kind}`;
    }
    case ToShard.sent:
      return `${flow}, ${sentText(w, at)}`;
    case ToShard.eof:
      return `${flow} at ${eofOffset(w, at)}`;
    case ToShard.urgent:
      return `${flow} at ${urgentOffset(w, at)}`;
    case ToShard.error:
      return `${flow}, errno ${errorErrno(w, at)}`;
    case ToShard.accepted: {
      const from = endpointText(w, acceptedPeerAt(at), acceptedPeerPort(w, at));
      const to = endpointText(w, acceptedGuestAt(at), acceptedTargetPort(w, at));
      return `${name} token ${acceptedToken(w, at)}, ${from} to ${to}`;
    }
    case ToShard.datagram: {
      const ttl = clause(datagramTtl(w, at), (value) => `ttl ${value}`);
      return `${flow}, ${bytes}${ttl}${tosText(datagramTos(w, at))}${segmentsText(datagramGsoSize(w, at))}`;
    }
    case ToShard.listenerDatagram: {
      const from = endpointText(w, datagramPeerAt(at), datagramPeerPort(w, at));
      const to = endpointText(w, listenerDatagramLocalAt(at), datagramGuestPort(w, at));
      const tos = tosText(listenerDatagramTos(w, at));
      return `${name} ${listenerDatagramIndex(w, at)}, ${from} to ${to}, ${bytes}${tos}`;
    }
    case ToShard.unsolicitedDatagram: {
      const from = endpointText(w, datagramPeerAt(at), datagramPeerPort(w, at));
      const to = endpointText(w, unsolicitedDatagramGuestAt(at), datagramGuestPort(w, at));
      const tos = tosText(unsolicitedDatagramTos(w, at));
      return `${name}, ${from} to ${to}, ${bytes}${tos}${segmentsText(datagramGsoSize(w, at))}`;
    }
    case ToShard.groupDatagram: {
      const from = endpointText(w, datagramPeerAt(at), datagramPeerPort(w, at));
      const to = endpointText(w, groupDatagramGroupAt(at), groupDatagramPort(w, at));
      return `${name}, ${from} to ${to}, ${bytes}${clause(groupDatagramTtl(w, at), (ttl) => `ttl ${ttl}`)}`;
    }
    case ToShard.icmpError:
      return `${flow}, ${errorText(w, at)}`;
    case ToShard.movedFlow:
      return `${name} part ${w[at + 1]}`;
    case ToShard.movedBucket:
      return `${name} ${movedBucket(w, at)}`;
    default:
      return flow;
  }
}

const tosText = (tos: number): string => clause(tos, (value) => `tos ${value}`);

const segmentsText = (gsoSize: number): string => clause(gsoSize, (size) => `segments of ${size}`);

function offloadText(offload: number): string {
  return [
    clause(offloadGsoType(offload), (type) => `gso type ${type}`),
    offloadNeedsCsum(offload) ? ', needs checksum' : '',
    offloadIsReassembled(offload) ? ', reassembled' : '',
  ].join('');
}

function sentText(w: Uint32Array, at: number): string {
  const flags = sentFlags(w, at);
  const freed = (slots: number): string => `freed ${slots & 0xffff} small ${slots >>> 16} large`;
  return [
    `${sentBytes(w, at)} bytes`,
    flags & SentFlag.empty ? ', empty' : '',
    flags & SentFlag.refused ? ', refused' : '',
    clause(sentFreed(w, at), freed),
  ].join('');
}

function errorText(w: Uint32Array, at: number): string {
  const typeCode = icmpErrorTypeCode(w, at);
  const offenderAt = icmpErrorOffenderAt(at);
  const quoted = w[at + 2] === NO_SLOT ? '' : `, quotes ${w[at + 5]} bytes`;
  const errno = `errno ${icmpErrorErrno(w, at)}`;
  if (typeCode === 0) return `${errno}${quoted}`;
  return [
    `type ${typeCode >>> 8} code ${typeCode & 0xff}`,
    icmpErrorInfo(w, at) === 0 ? '' : ` info ${icmpErrorInfo(w, at)}`,
    isUnspecified(w, offenderAt) ? '' : ` from ${addressText(w, offenderAt)}`,
    clause(icmpErrorSequence(w, at), (sequence) => `sequence ${sequence}`),
    `, ${errno}${quoted}`,
  ].join('');
}
