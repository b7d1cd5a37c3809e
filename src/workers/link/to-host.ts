/**
 * shard -> host-io.
 *
 *                     +1         +2, +3  +4      +5     +6                +7         +8 .. +11       +12 .. +15
 *   openTcp           flow       -       zone    -      port << 16 | tos  -          remote          -
 *   openUdp           flow       -       zone    -      ports             gro, kind  remote          guest
 *   openPing          flow       -       -       -      family            -          remote          -
 *   adopt             flow       -       -       -      token
 *   refuse            0          -       -       -      token
 *   send              flow       slots   offset  bytes  mark              urgent
 *   credit            flow       -       -       -      limit             acked      read limit
 *   rewind            flow       -       -       -      stream offset     bytes
 *   finish            flow
 *   close, reset      flow
 *   freeSlots         0          slots
 *   takeOver          flow       -       HOST_STATE_WORDS words of the socket's state
 *   sendDatagram      flow       slots   offset  bytes  options           gso size   borrowed
 *   sendFromListener  interface  slots   offset  bytes  port << 16 | tos  listener   remote          local
 *   setTos            flow       -       -       -      tos               family
 *   keepAlive         flow       -       -       -      seconds
 *   group             0          -       mode    count  index             -          group           source
 *
 *   gro, kind | 0 ... | GroupKind 2 bits | gro 1 bit |
 *   options   | 0 ... | 1 bit: tos is set | tos 8 bits | 0 ... | SendFragment 2 bits | ttl 8 bits |
 *             bit 24                         16                  8                     0
 *             0 in ttl or SendFragment: unchanged
 *
 * The accessors of words 0 to 5 are in descriptor.ts. Stream offsets count payload bytes from 0, modulo 2^32.
 */
import { addressCopy, addressText } from '../../proto/address.ts';
import { NO_SLOT } from '../../ring/pool.ts';
import { HOST_STATE_WORDS } from '../flow/flow-state.ts';
import type { DescriptorOut } from './words.ts';
import { clause, endpointText, keyOf, reserveBare, reserveWithSlots, slotsText } from './words.ts';

export const ToHost = {
  /** Open and connect a TCP socket for the flow. */
  openTcp: 1,
  /** Take over an accepted socket for the flow. */
  adopt: 2,
  /** Refuse an accepted socket with RST. */
  refuse: 3,
  /** Queue stream bytes for the socket; the slots go back to the reader when the socket has taken them. */
  send: 4,
  /** Up to which stream offset host-io may peek, and up to which the guest has acknowledged. */
  credit: 5,
  /** Peek again from an earlier stream offset (retransmission). */
  rewind: 7,
  /** shutdown(SHUT_WR) once all queued bytes are sent. */
  finish: 8,
  /** Close in order (FIN) once all queued bytes are sent; answered by `closed`. */
  close: 9,
  /** Send what the socket takes, then close with RST (SO_LINGER 0); answered by `closed`. */
  reset: 10,
  /** Give slots back to host-io, which owns them. */
  freeSlots: 11,
  /**
   * Open a UDP socket, or join the one that the guest's endpoint has already. Datagrams may follow at once.
   */
  openUdp: 12,
  /** Open a ping socket. */
  openPing: 13,
  /** Send one datagram, or several of one size. */
  sendDatagram: 14,
  /** Send a reply through a published UDP listener. Opens no socket. */
  sendFromListener: 15,
  /** Take over the socket of a TCP flow that has come from another lane. */
  takeOver: 16,
  /** Set the DSCP of a stream socket. */
  setTos: 17,
  /** Have the kernel send keep-alives on a stream socket as often as the guest does. */
  keepAlive: 18,
  /**
   * The guest's membership of a multicast group has changed: the whole source filter, one message for each
   * source. To include no source is to leave the group.
   */
  group: 19,
} as const;
export type ToHost = (typeof ToHost)[keyof typeof ToHost];

/**
 * Whether the host's kernel may fragment a datagram that exceeds the path MTU: as before; it may; or it
 * refuses the datagram with EMSGSIZE.
 */
export const SendFragment = { unchanged: 0, allowed: 1, never: 2 } as const;
export type SendFragment = (typeof SendFragment)[keyof typeof SendFragment];

// ------------------------------------------------------------------------------------------------------ open

/**
 * @param remote,r  host-side address: four words from remote[r] on
 * @param zone  index of the interface of a link-local remote, 0: Ipv6Plan.linkLocalScope
 * @param tos  DSCP << 2 of the SYN
 */
export function openTcpWrite(
  out: DescriptorOut,
  flow: number,
  remote: Uint32Array,
  r: number,
  remotePort: number,
  zone: number,
  tos = 0,
): void {
  const at = reserveBare(out, ToHost.openTcp, flow);
  const w = out.words;
  w[at + 4] = zone;
  w[at + 6] = ((remotePort << 16) | tos) >>> 0;
  addressCopy(remote, r, w, at + 8);
  out.commit();
}

/**
 * Ten parameters: no two of them belong together.
 * @param ports  remote << 16 | the guest's, which the host's socket gets too if it is free
 * @param remote,r  host-side address
 * @param guest,g  address of the guest: with the guest's port it is the endpoint that has the socket
 * @param zone  as in openTcpWrite()
 * @param gro  datagrams may come several to a message (UDP_GRO)
 * @param group  GroupKind of the remote address
 */
export function openUdpWrite(
  out: DescriptorOut,
  flow: number,
  ports: number,
  remote: Uint32Array,
  r: number,
  guest: Uint32Array,
  g: number,
  zone: number,
  gro: boolean,
  group = 0,
): void {
  const at = reserveBare(out, ToHost.openUdp, flow);
  const w = out.words;
  w[at + 4] = zone;
  w[at + 6] = ports;
  w[at + 7] = (gro ? 1 : 0) | (group << 1);
  addressCopy(remote, r, w, at + 8);
  addressCopy(guest, g, w, at + 12);
  out.commit();
}

/**
 * openUdp for a flow that belongs to no endpoint of the guest: it gets its own socket, on a port that the
 * kernel chooses, with one datagram per message.
 */
export function openOwnUdpWrite(
  out: DescriptorOut,
  flow: number,
  remote: Uint32Array,
  r: number,
  remotePort: number,
  zone: number,
): void {
  const at = reserveBare(out, ToHost.openUdp, flow);
  const w = out.words;
  w[at + 4] = zone;
  w[at + 6] = (remotePort << 16) >>> 0;
  w[at + 7] = 0;
  addressCopy(remote, r, w, at + 8);
  out.commit();
}

/** @param remote,r  host-side address */
export function openPingWrite(
  out: DescriptorOut,
  flow: number,
  family: 4 | 6,
  remote: Uint32Array,
  r: number,
): void {
  const at = reserveBare(out, ToHost.openPing, flow);
  out.words[at + 6] = family;
  addressCopy(remote, r, out.words, at + 8);
  out.commit();
}

/** For openTcp, openUdp and openPing: index of the host-side address in the ring's words. */
export const openRemoteAt = (at: number): number => at + 8;
/** For openTcp and openUdp. */
export const openRemotePort = (w: Uint32Array, at: number): number => w[at + 6]! >>> 16;
/** For openTcp and openUdp: index of the interface of a link-local remote, 0: Ipv6Plan.linkLocalScope. */
export const openZone = (w: Uint32Array, at: number): number => w[at + 4]!;
/** For openTcp: DSCP << 2 of the SYN. */
export const openTcpTos = (w: Uint32Array, at: number): number => w[at + 6]! & 0xff;
/** Port of the guest's endpoint, 0: the flow belongs to no endpoint and has its own socket. */
export const openUdpGuestPort = (w: Uint32Array, at: number): number => w[at + 6]! & 0xffff;
/** Index of the guest's address in the ring's words; valid when openUdpGuestPort() is not 0. */
export const openUdpGuestAt = (at: number): number => at + 12;
export const openUdpGro = (w: Uint32Array, at: number): boolean => (w[at + 7]! & 1) !== 0;
/** GroupKind of the remote address. */
export const openUdpGroup = (w: Uint32Array, at: number): number => w[at + 7]! >>> 1;
export const openPingFamily = (w: Uint32Array, at: number): 4 | 6 => (w[at + 6] === 4 ? 4 : 6);

// --------------------------------------------------------------------------------------------------- streams

/** @param token  of the `accepted` that this answers */
export function adoptWrite(out: DescriptorOut, flow: number, token: number): void {
  const at = reserveBare(out, ToHost.adopt, flow);
  out.words[at + 6] = token;
  out.commit();
}

/** @param token  of the `accepted` that this answers */
export function refuseWrite(out: DescriptorOut, token: number): void {
  const at = reserveBare(out, ToHost.refuse, 0);
  out.words[at + 6] = token;
  out.commit();
}

/** For adopt and refuse: the token of the accepted socket. */
export const acceptedSocket = (w: Uint32Array, at: number): number => w[at + 6]!;

/**
 * Passes the slots on.
 * @param mark 0, or 1 + the flow's refusal count (modulo 256): the bytes are provisional. host-io frees those
 *   that the socket does not take at once, and reports a refusal (SentFlag.refused). It also frees provisional
 *   bytes that the shard sent before it learnt of a refusal: their mark has an old count
 * @param urgent  how many bytes up to and with the urgent one (MSG_OOB), 0: none is urgent
 */
export function sendWrite(
  out: DescriptorOut,
  flow: number,
  slotA: number,
  slotB: number,
  slotOffset: number,
  bytes: number,
  mark: number,
  urgent = 0,
): void {
  const at = reserveWithSlots(out, ToHost.send, flow, slotA, slotB, slotOffset, bytes);
  out.words[at + 6] = mark;
  out.words[at + 7] = urgent;
  out.commit();
}

export const sendMark = (w: Uint32Array, at: number): number => w[at + 6]!;
export const sendUrgent = (w: Uint32Array, at: number): number => w[at + 7]!;

/**
 * @param limit  stream offset up to which host-io may peek
 * @param acked  stream offset up to which the guest has acknowledged: host-io reads off the bytes before it
 * @param readLimit  payload bytes of the largest frame to the guest
 */
export function creditWrite(
  out: DescriptorOut,
  flow: number,
  limit: number,
  acked: number,
  readLimit: number,
): void {
  const at = reserveBare(out, ToHost.credit, flow);
  const w = out.words;
  w[at + 6] = limit;
  w[at + 7] = acked;
  w[at + 8] = readLimit;
  out.commit();
}

export const creditLimit = (w: Uint32Array, at: number): number => w[at + 6]!;
export const creditAcked = (w: Uint32Array, at: number): number => w[at + 7]!;
export const creditReadLimit = (w: Uint32Array, at: number): number => w[at + 8]!;

/**
 * @param offset  stream offset from which to peek again
 * @param bytes  peek so many again and then go on where the peek cursor was; 0: go on from `offset`
 */
export function rewindWrite(out: DescriptorOut, flow: number, offset: number, bytes: number): void {
  const at = reserveBare(out, ToHost.rewind, flow);
  const w = out.words;
  w[at + 6] = offset;
  w[at + 7] = bytes;
  out.commit();
}

export const rewindOffset = (w: Uint32Array, at: number): number => w[at + 6]!;
export const rewindBytes = (w: Uint32Array, at: number): number => w[at + 7]!;

export function finishWrite(out: DescriptorOut, flow: number): void {
  reserveBare(out, ToHost.finish, flow);
  out.commit();
}

export function closeWrite(out: DescriptorOut, flow: number): void {
  reserveBare(out, ToHost.close, flow);
  out.commit();
}

export function resetWrite(out: DescriptorOut, flow: number): void {
  reserveBare(out, ToHost.reset, flow);
  out.commit();
}

/** @param family  of the flow's addresses @param tos  DSCP << 2 */
export function setTosWrite(out: DescriptorOut, flow: number, family: 4 | 6, tos: number): void {
  const at = reserveBare(out, ToHost.setTos, flow);
  out.words[at + 6] = tos;
  out.words[at + 7] = family;
  out.commit();
}

export const setTosValue = (w: Uint32Array, at: number): number => w[at + 6]!;
export const setTosFamily = (w: Uint32Array, at: number): 4 | 6 => (w[at + 7] === 6 ? 6 : 4);

/** @param seconds  after which the guest sends a keep-alive on the idle connection, 1 to 65535 */
export function keepAliveWrite(out: DescriptorOut, flow: number, seconds: number): void {
  const at = reserveBare(out, ToHost.keepAlive, flow);
  out.words[at + 6] = seconds;
  out.commit();
}

export const keepAliveSeconds = (w: Uint32Array, at: number): number => w[at + 6]!;

// ----------------------------------------------------------------------------------------- slots and datagrams

/** Give slots back to host-io. Either may be NO_SLOT. */
export function freeHostSlotsWrite(out: DescriptorOut, slotA: number, slotB: number): void {
  const at = reserveBare(out, ToHost.freeSlots, 0);
  out.words[at + 2] = slotA;
  out.words[at + 3] = slotB;
  out.commit();
}

/**
 * Passes the slots on. Eight parameters: the payload's five, and how to send it.
 * @param options  socket options to change first (sendOptions()), 0: none
 * @param gsoSize  bytes of each datagram but the last (UDP_SEGMENT), 0: the payload is one datagram
 */
export function sendDatagramWrite(
  out: DescriptorOut,
  flow: number,
  slotA: number,
  slotB: number,
  slotOffset: number,
  bytes: number,
  options: number,
  gsoSize: number,
): void {
  const at = reserveWithSlots(out, ToHost.sendDatagram, flow, slotA, slotB, slotOffset, bytes);
  const w = out.words;
  w[at + 6] = options;
  w[at + 7] = gsoSize;
  w[at + 8] = 0;
  out.commit();
}

/** sendDatagram with a slot that the shard still owns and keeps unchanged until the flow's `closed`. */
export function sendBorrowedWrite(
  out: DescriptorOut,
  flow: number,
  slot: number,
  slotOffset: number,
  bytes: number,
): void {
  const at = reserveWithSlots(out, ToHost.sendDatagram, flow, slot, NO_SLOT, slotOffset, bytes);
  const w = out.words;
  w[at + 6] = 0;
  w[at + 7] = 0;
  w[at + 8] = 1;
  out.commit();
}

/** Socket options to change first, encoded by sendOptions(); 0: none. */
export const sendDatagramOptions = (w: Uint32Array, at: number): number => w[at + 6]!;
const HAS_TOS = 1 << 24;
/**
 * @param ttl  TTL or hop limit, 0: unchanged
 * @param fragment  SendFragment value
 * @param tos  TOS or traffic class, -1: unchanged
 */
export const sendOptions = (ttl: number, fragment: number, tos = -1): number =>
  ttl | (fragment << 8) | (tos < 0 ? 0 : HAS_TOS | (tos << 16));
export const sendOptionsTtl = (options: number): number => options & 0xff;
export const sendOptionsFragment = (options: number): number => (options >>> 8) & 3;
/** -1: unchanged. */
export const sendOptionsTos = (options: number): number =>
  (options & HAS_TOS) === 0 ? -1 : (options >>> 16) & 0xff;
export const sendDatagramGsoSize = (w: Uint32Array, at: number): number => w[at + 7]!;
export const sendDatagramIsBorrowed = (w: Uint32Array, at: number): boolean => w[at + 8] === 1;

/**
 * Passes the slots on. Eleven parameters: the payload's five, the destination and TOS, and the socket and
 * address to send from.
 * @param listener  listener number
 * @param zone  index of the interface of a link-local peer, else 0
 * @param addresses,a host-side address of the peer at addresses[a], and at addresses[a + 4] the local address
 *   to which the peer had sent
 * @param tos  TOS or traffic class
 */
export function sendFromListenerWrite(
  out: DescriptorOut,
  listener: number,
  zone: number,
  slotA: number,
  slotB: number,
  slotOffset: number,
  bytes: number,
  remotePort: number,
  addresses: Uint32Array,
  a: number,
  tos = 0,
): void {
  const at = reserveWithSlots(out, ToHost.sendFromListener, zone, slotA, slotB, slotOffset, bytes);
  const w = out.words;
  w[at + 6] = ((remotePort << 16) | tos) >>> 0;
  w[at + 7] = listener;
  addressCopy(addresses, a, w, at + 8);
  addressCopy(addresses, a + 4, w, at + 12);
  out.commit();
}

export const sendFromListenerZone = (w: Uint32Array, at: number): number => w[at + 1]!;
export const sendFromListenerIndex = (w: Uint32Array, at: number): number => w[at + 7]!;
export const sendFromListenerPort = (w: Uint32Array, at: number): number => w[at + 6]! >>> 16;
export const sendFromListenerTos = (w: Uint32Array, at: number): number => w[at + 6]! & 0xff;
/** Index of the peer's address in the ring's words. */
export const sendFromListenerRemoteAt = (at: number): number => at + 8;
/** Index of the address to send from in the ring's words. */
export const sendFromListenerLocalAt = (at: number): number => at + 12;

/** @param state  the socket's state in its first HOST_STATE_WORDS words (StreamSockets.release()) */
export function takeOverWrite(out: DescriptorOut, flow: number, state: Uint32Array): void {
  const at = reserveBare(out, ToHost.takeOver, flow);
  for (let i = 0; i < HOST_STATE_WORDS; i++) out.words[at + 4 + i] = state[i]!;
  out.commit();
}

/** Index of the socket's state in the ring's words. */
export const takeOverStateAt = (at: number): number => at + 4;

// -------------------------------------------------------------------------------------------------- multicast

/**
 * One source of the guest's filter for a group. Without sources there is one message all the same.
 * @param isInclude  the guest hears these sources only; else all but these
 * @param count  number of sources
 * @param index  of this source, from 0 on, in order
 * @param group,g  the group: four words from group[g] on
 * @param source,s  the source, without sources any four words
 */
export function groupWrite(
  out: DescriptorOut,
  isInclude: boolean,
  count: number,
  index: number,
  group: Uint32Array,
  g: number,
  source: Uint32Array,
  s: number,
): void {
  const at = reserveBare(out, ToHost.group, 0);
  const w = out.words;
  w[at + 4] = isInclude ? 1 : 0;
  w[at + 5] = count;
  w[at + 6] = index;
  addressCopy(group, g, w, at + 8);
  addressCopy(source, s, w, at + 12);
  out.commit();
}

export const groupIsInclude = (w: Uint32Array, at: number): boolean => w[at + 4] === 1;
export const groupSourceCount = (w: Uint32Array, at: number): number => w[at + 5]!;
export const groupSourceIndex = (w: Uint32Array, at: number): number => w[at + 6]!;
/** Index of the group in the ring's words. */
export const groupAt = (at: number): number => at + 8;
/** Index of the source in the ring's words. */
export const groupSourceAt = (at: number): number => at + 12;

// ------------------------------------------------------------------------------------------------------ text

/** For tests: a descriptor as one line, without its slots: "sendDatagram flow 3, 100 bytes, ttl 7". */
export function toHostText(w: Uint32Array, at = 0): string {
  const op = w[at]!;
  const name = keyOf(ToHost, op);
  const flow = `${name} flow ${w[at + 1]}`;
  const bytes = `${w[at + 5]} bytes`;
  switch (op) {
    case ToHost.openTcp:
      return `${flow} to ${remoteText(w, at)}${zoneText(openZone(w, at))}${tosText(openTcpTos(w, at))}`;
    case ToHost.openUdp: {
      const port = openUdpGuestPort(w, at);
      const from = port === 0 ? '' : ` from ${endpointText(w, openUdpGuestAt(at), port)}`;
      const gro = openUdpGro(w, at) ? ', gro' : '';
      const group = clause(openUdpGroup(w, at), (kind) => `group kind ${kind}`);
      return `${flow}${from} to ${remoteText(w, at)}${zoneText(openZone(w, at))}${gro}${group}`;
    }
    case ToHost.openPing:
      return `${flow} to ${addressText(w, openRemoteAt(at))}`;
    case ToHost.adopt:
      return `${flow}, token ${acceptedSocket(w, at)}`;
    case ToHost.refuse:
      return `${name} token ${acceptedSocket(w, at)}`;
    case ToHost.send:
      return `${flow}, ${bytes}${clause(sendMark(w, at), (mark) => `provisional ${mark}`)}${clause(sendUrgent(w, at), (n) => `urgent ${n}`)}`;
    case ToHost.credit:
      return [
        `${flow} up to ${creditLimit(w, at)}`,
        `acknowledged ${creditAcked(w, at)}`,
        `reads of ${creditReadLimit(w, at)}`,
      ].join(', ');
    case ToHost.rewind:
      return `${flow} to ${rewindOffset(w, at)}${clause(rewindBytes(w, at), (n) => `${n} bytes`)}`;
    case ToHost.setTos:
      return `${flow} ${setTosValue(w, at)}`;
    case ToHost.keepAlive:
      return `${flow} every ${keepAliveSeconds(w, at)} s`;
    case ToHost.freeSlots:
      return `${name} ${slotsText(w, at)}`;
    case ToHost.takeOver:
      return `${flow}, descriptor ${w[takeOverStateAt(at)]}`;
    case ToHost.sendDatagram:
      return `${flow}, ${bytes}${datagramText(w, at)}`;
    case ToHost.group: {
      const sources = groupSourceCount(w, at);
      const of =
        sources === 0
          ? ''
          : `, ${groupSourceIndex(w, at)} of ${sources}: ${addressText(w, groupSourceAt(at))}`;
      return `${name} ${addressText(w, groupAt(at))} ${groupIsInclude(w, at) ? 'include' : 'exclude'}${of}`;
    }
    case ToHost.sendFromListener: {
      const from = addressText(w, sendFromListenerLocalAt(at));
      const to = endpointText(w, sendFromListenerRemoteAt(at), sendFromListenerPort(w, at));
      const zone = zoneText(sendFromListenerZone(w, at));
      const tos = tosText(sendFromListenerTos(w, at));
      return `${name} ${sendFromListenerIndex(w, at)} from ${from} to ${to}${zone}, ${bytes}${tos}`;
    }
    default:
      return flow;
  }
}

const remoteText = (w: Uint32Array, at: number): string =>
  endpointText(w, openRemoteAt(at), openRemotePort(w, at));

const zoneText = (zone: number): string => (zone === 0 ? '' : ` behind interface ${zone}`);

const tosText = (tos: number): string => clause(tos, (value) => `tos ${value}`);

function datagramText(w: Uint32Array, at: number): string {
  const options = sendDatagramOptions(w, at);
  return [
    clause(sendOptionsTtl(options), (ttl) => `ttl ${ttl}`),
    clause(sendOptionsFragment(options), (fragment) => `fragment ${keyOf(SendFragment, fragment)}`),
    sendOptionsTos(options) < 0 ? '' : `, tos ${sendOptionsTos(options)}`,
    clause(sendDatagramGsoSize(w, at), (size) => `segments of ${size}`),
    sendDatagramIsBorrowed(w, at) ? ', borrowed' : '',
  ].join('');
}
