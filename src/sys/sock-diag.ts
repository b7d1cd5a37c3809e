/**
 * sock_diag(7): what the kernel says about single TCP sockets of a network namespace, by addresses, ports and
 * cookie. The sockets may belong to any process, and no privilege is needed. Cold: one request for up to
 * BATCH sockets, one answer for each.
 *
 *   request   nlmsghdr 16 bytes, inet_diag_req_v2: +0 family u8  +1 protocol u8  +2 extensions u8  +4 states u32
 *             +8 inet_diag_sockid
 *   sockid    +0 local port be16  +2 remote port be16  +4 local address 16 bytes  +20 remote address
 *             +36 interface u32, 0 if the socket is bound to none  +40 cookie u64
 *   answer    nlmsghdr, inet_diag_msg: +0 family u8  +1 state u8  … +68 inode u32,
 *             attributes; or NLMSG_ERROR
 *
 * A cookie is a number that the kernel gives to one socket only (SO_COOKIE), so a later socket with the same
 * addresses and ports is not mistaken for it. Sources: <linux/sock_diag.h>, <linux/inet_diag.h>, <linux/tcp.h>.
 * @syscalls socket setsockopt getsockopt getsockname sendto recvfrom close
 */
import * as k from './constants.ts';
import { checked, SysError } from './error.ts';
import { close } from './io.ts';
import { NativeBuffer, writeAddress } from './memory.ts';
import { netlinkAttributes, netlinkMessages } from './netlink-messages.ts';
import {
  getsockname,
  getsockoptBytes,
  getsockoptInt,
  recv,
  SOCKADDR_BYTES,
  sendto,
  setsockoptBytes,
  socket,
} from './socket.ts';

/** struct inet_diag_sockid. */
export const SOCKET_ID_BYTES = 48;
const LOCAL_PORT = 0;
const REMOTE_PORT = 2;
const LOCAL_ADDRESS = 4;
const REMOTE_ADDRESS = 20;
const INTERFACE = 36;
const COOKIE = 40;

/** Most sockets of one request: their answers fit into the default receive buffer of a socket (208 KiB). */
const BATCH = 64;
const HEADER_BYTES = 16;
const REQUEST_BYTES = HEADER_BYTES + 8 + SOCKET_ID_BYTES;
/** Longer than an answer with INET_DIAG_INFO, which is below 500 bytes. */
const ANSWER_BYTES = 4096;
/** struct sockaddr_nl; port 0 is the kernel. */
const SOCKADDR_NL_BYTES = 12;
/** The kernel answers at once. The limit makes sure that the process never hangs here. */
const RECEIVE_TIMEOUT_MS = 1000;
const INET_DIAG_MSG_BYTES = 72;
const INODE = 68;
// struct tcp_info, <linux/tcp.h>
const TCPI_RTT = 68;
const TCPI_SND_CWND = 80;
const TCPI_TOTAL_RETRANS = 100;
const TCPI_BYTES_ACKED = 120;
const TCPI_BYTES_RECEIVED = 128;
const TCP_INFO_BYTES = 136;

/** What tells one TCP socket of a namespace from all others. */
export interface SocketKey {
  readonly family: 4 | 6;
  /** struct inet_diag_sockid. */
  readonly id: Uint8Array;
}

/** A TCP socket. */
export interface TcpSocket {
  /** TCP_ESTABLISHED … TCP_CLOSING. */
  readonly state: number;
  /** As in the links of /proc/PID/fd; 0: no process has it open any more. */
  readonly inode: number;
  /** Absent: not asked for, or the socket is only an address in TIME-WAIT. */
  readonly info?: TcpSocketInfo;
}

export interface TcpSocketInfo {
  /** Payload that the peer has acknowledged, in bytes. */
  readonly bytesSent: number;
  /** Payload that has arrived in order, in bytes. */
  readonly bytesReceived: number;
  /** Smoothed round-trip time. */
  readonly rttUs: number;
  /** Segments sent again. */
  readonly retransmits: number;
  /** In segments. */
  readonly congestionWindow: number;
}

const nameBuffer = new NativeBuffer(SOCKADDR_BYTES + 4);
const NAME_LENGTH_AT = 28;
const optionBuffer = new NativeBuffer(8);

/**
 * The key of a TCP socket that has called connect().
 * @param peer  sockaddr_in or sockaddr_in6 that it connects to: the kernel does not give it before the
 *   connection stands
 * @returns the key, or -errno
 */
export function socketKey(fd: number, peer: Uint8Array): SocketKey | number {
  const { u8, u32, address } = nameBuffer;
  u32[NAME_LENGTH_AT >> 2] = SOCKADDR_BYTES;
  const named = getsockname(fd, address, address + NAME_LENGTH_AT);
  if (named < 0) return named;
  const got = getsockoptBytes(fd, k.SOL_SOCKET, k.SO_COOKIE, optionBuffer.address, 8);
  if (got < 0) return got;
  // The kernel finds a socket that is bound to an interface only by that interface.
  const device = getsockoptInt(fd, k.SOL_SOCKET, k.SO_BINDTOIFINDEX);
  if (device < 0) return device;
  const family = u8[0] === k.AF_INET6 ? 6 : 4;
  const id = new Uint8Array(SOCKET_ID_BYTES);
  const [from, bytes] = family === 6 ? [8, 16] : [4, 4];
  id.set(u8.subarray(2, 4), LOCAL_PORT);
  id.set(peer.subarray(2, 4), REMOTE_PORT);
  id.set(u8.subarray(from, from + bytes), LOCAL_ADDRESS);
  id.set(peer.subarray(from, from + bytes), REMOTE_ADDRESS);
  for (let i = 0; i < 4; i++) id[INTERFACE + i] = device >>> (8 * i);
  id.set(optionBuffer.u8, COOKIE);
  return { family, id };
}

/** SO_COOKIE of the key's socket. */
export const cookieOf = ({ id }: SocketKey): bigint =>
  new DataView(id.buffer, id.byteOffset).getBigUint64(COOKIE, true);

/** Addresses and ports of a key. The addresses are bytes in network order, 4 or 16. */
export function endsOf({ family, id }: SocketKey): {
  readonly local: Uint8Array;
  readonly localPort: number;
  readonly remote: Uint8Array;
  readonly remotePort: number;
} {
  const bytes = family === 4 ? 4 : 16;
  return {
    local: id.subarray(LOCAL_ADDRESS, LOCAL_ADDRESS + bytes),
    localPort: (id[LOCAL_PORT]! << 8) | id[LOCAL_PORT + 1]!,
    remote: id.subarray(REMOTE_ADDRESS, REMOTE_ADDRESS + bytes),
    remotePort: (id[REMOTE_PORT]! << 8) | id[REMOTE_PORT + 1]!,
  };
}

/** A NETLINK_SOCK_DIAG socket, of the network namespace in which it was opened. */
export class SockDiag {
  readonly fd: number;
  readonly #request = new NativeBuffer(BATCH * REQUEST_BYTES);
  readonly #answer = new NativeBuffer(ANSWER_BYTES);
  /** struct sockaddr_nl of the kernel. */
  readonly #kernel = new NativeBuffer(SOCKADDR_NL_BYTES);
  #sequence = 0;

  /** @throws SysError */
  constructor() {
    const what = 'AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG';
    this.fd = checked(socket(k.AF_NETLINK, k.SOCK_RAW | k.SOCK_CLOEXEC, k.NETLINK_SOCK_DIAG), 'socket', what);
    this.#kernel.u16[0] = k.AF_NETLINK;
    const timeval = new NativeBuffer(16);
    writeAddress(timeval.u32, 0, RECEIVE_TIMEOUT_MS / 1000);
    setsockoptBytes(this.fd, k.SOL_SOCKET, k.SO_RCVTIMEO, timeval.address, 16);
  }

  close(): void {
    close(this.fd);
  }

  /**
   * Ask about sockets.
   * @param wantsInfo  fill in TcpSocket.info
   * @param found  called for each socket, in any order; undefined: there is no such socket (any more)
   * @throws SysError if the kernel does not answer; `found` was called for some of the sockets then
   */
  ask(
    keys: readonly SocketKey[],
    wantsInfo: boolean,
    found: (index: number, socket: TcpSocket | undefined) => void,
  ): void {
    for (let first = 0; first < keys.length; first += BATCH)
      this.#askBatch(keys.slice(first, first + BATCH), wantsInfo, (i, one) => found(first + i, one));
  }

  #askBatch(
    keys: readonly SocketKey[],
    wantsInfo: boolean,
    found: (index: number, socket: TcpSocket | undefined) => void,
  ): void {
    const first = this.#sequence + 1;
    this.#sequence = (this.#sequence + keys.length) >>> 0;
    this.#writeRequests(keys, first, wantsInfo);
    const { fd } = this;
    const bytes = keys.length * REQUEST_BYTES;
    const sent = sendto(fd, this.#request.address, bytes, 0, this.#kernel.address, SOCKADDR_NL_BYTES);
    if (sent < 0) throw new SysError('sendto', 'SOCK_DIAG_BY_FAMILY', -sent);
    for (let left = keys.length; left > 0; ) {
      const got = recv(fd, this.#answer.address, ANSWER_BYTES, 0);
      if (got === -k.Errno.EINTR) continue;
      if (got < 0) throw new SysError('recvfrom', 'SOCK_DIAG_BY_FAMILY', -got);
      for (const message of netlinkMessages(this.#answer.u8, got)) {
        const index = (message.sequence - first) >>> 0;
        // An answer to an earlier request, which a signal or the time limit had ended.
        if (index >= keys.length) continue;
        left--;
        if (message.type === k.SOCK_DIAG_BY_FAMILY)
          found(index, readSocket(this.#answer, message.at, message.endAt));
        else found(index, this.#noSocket(message.at));
      }
    }
  }

  /** An NLMSG_ERROR. @throws SysError unless it means that there is no such socket */
  #noSocket(at: number): undefined {
    const errno = -this.#answer.dv.getInt32(at, true);
    // ESTALE: a socket with the same ends has another cookie.
    if (errno !== k.Errno.ENOENT && errno !== k.Errno.ESTALE)
      throw new SysError('recvfrom', 'SOCK_DIAG_BY_FAMILY', errno);
  }

  #writeRequests(keys: readonly SocketKey[], first: number, wantsInfo: boolean): void {
    const { u8, dv } = this.#request;
    keys.forEach(({ family, id }, i) => {
      const at = i * REQUEST_BYTES;
      u8.fill(0, at, at + REQUEST_BYTES);
      dv.setUint32(at, REQUEST_BYTES, true);
      dv.setUint16(at + 4, k.SOCK_DIAG_BY_FAMILY, true);
      dv.setUint16(at + 6, k.NLM_F_REQUEST, true);
      dv.setUint32(at + 8, (first + i) >>> 0, true);
      const body = at + HEADER_BYTES;
      u8[body] = family === 4 ? k.AF_INET : k.AF_INET6;
      u8[body + 1] = k.IPPROTO_TCP;
      u8[body + 2] = wantsInfo ? 1 << (k.INET_DIAG_INFO - 1) : 0;
      dv.setUint32(body + 4, 0xffff_ffff, true);
      u8.set(id, body + 8);
    });
  }
}

function readSocket({ u8, dv }: NativeBuffer, at: number, endAt: number): TcpSocket | undefined {
  if (endAt - at < INET_DIAG_MSG_BYTES) return undefined;
  const state = u8[at + 1]!;
  const inode = dv.getUint32(at + INODE, true);
  const range = netlinkAttributes(u8, at + INET_DIAG_MSG_BYTES, endAt).get(k.INET_DIAG_INFO);
  if (range === undefined || range[1] - range[0] < TCP_INFO_BYTES) return { state, inode };
  const word = (offset: number): number => dv.getUint32(range[0] + offset, true);
  const count = (offset: number): number => Number(dv.getBigUint64(range[0] + offset, true));
  return {
    state,
    inode,
    info: {
      // SYN and FIN count as a byte each (RFC 9293 section 3.4).
      bytesSent: Math.max(0, count(TCPI_BYTES_ACKED) - 1 - (OUR_FIN_ACKED.includes(state) ? 1 : 0)),
      bytesReceived: Math.max(0, count(TCPI_BYTES_RECEIVED) - (PEERS_FIN.includes(state) ? 1 : 0)),
      rttUs: word(TCPI_RTT),
      retransmits: word(TCPI_TOTAL_RETRANS),
      congestionWindow: word(TCPI_SND_CWND),
    },
  };
}

const OUR_FIN_ACKED: readonly number[] = [k.TCP_FIN_WAIT2];
const PEERS_FIN: readonly number[] = [k.TCP_CLOSE_WAIT, k.TCP_LAST_ACK, k.TCP_CLOSING];
