/**
 * Make a socket of the host like one that a program has prepared: the options that the program has set are read
 * off its socket, so that setsockopt(2) need not be supervised.
 */
import {
  AF_INET6,
  Errno,
  IPPROTO_TCP,
  SO_BUF_LOCK,
  SO_RCVBUF,
  SO_SNDBUF,
  SO_SNDTIMEO,
  SOL_IP,
  SOL_IPV6,
  SOL_SOCKET,
} from '../sys/constants.ts';
import { NativeBuffer } from '../sys/memory.ts';
import { getsockoptBytes, getsockoptInt, setsockoptBytes, setsockoptInt } from '../sys/socket.ts';

/** An option that carries over: level, name, bytes. */
type Option = readonly [number, number, number];

/** <asm-generic/socket.h>, <linux/tcp.h>, <linux/in.h>, <linux/in6.h> */
const OPTIONS: readonly Option[] = [
  [SOL_SOCKET, 2, 4], // SO_REUSEADDR
  [SOL_SOCKET, 9, 4], // SO_KEEPALIVE
  [SOL_SOCKET, 10, 4], // SO_OOBINLINE
  [SOL_SOCKET, 12, 4], // SO_PRIORITY
  [SOL_SOCKET, 13, 8], // SO_LINGER
  [SOL_SOCKET, 15, 4], // SO_REUSEPORT
  [SOL_SOCKET, 18, 4], // SO_RCVLOWAT
  [SOL_SOCKET, 20, 16], // SO_RCVTIMEO
  [SOL_SOCKET, SO_SNDTIMEO, 16],
  [SOL_SOCKET, 29, 4], // SO_TIMESTAMP
  [SOL_SOCKET, 35, 4], // SO_TIMESTAMPNS
  [SOL_SOCKET, 37, 4], // SO_TIMESTAMPING
  [SOL_SOCKET, 47, 8], // SO_MAX_PACING_RATE
  [SOL_SOCKET, 60, 4], // SO_ZEROCOPY
  [IPPROTO_TCP, 1, 4], // TCP_NODELAY
  [IPPROTO_TCP, 2, 4], // TCP_MAXSEG
  [IPPROTO_TCP, 3, 4], // TCP_CORK
  [IPPROTO_TCP, 4, 4], // TCP_KEEPIDLE
  [IPPROTO_TCP, 5, 4], // TCP_KEEPINTVL
  [IPPROTO_TCP, 6, 4], // TCP_KEEPCNT
  [IPPROTO_TCP, 7, 4], // TCP_SYNCNT
  [IPPROTO_TCP, 8, 4], // TCP_LINGER2
  [IPPROTO_TCP, 10, 4], // TCP_WINDOW_CLAMP
  [IPPROTO_TCP, 13, 16], // TCP_CONGESTION
  [IPPROTO_TCP, 16, 4], // TCP_THIN_LINEAR_TIMEOUTS
  [IPPROTO_TCP, 18, 4], // TCP_USER_TIMEOUT
  [IPPROTO_TCP, 25, 4], // TCP_NOTSENT_LOWAT
  [IPPROTO_TCP, 36, 4], // TCP_INQ
  [IPPROTO_TCP, 37, 4], // TCP_TX_DELAY
  [SOL_IP, 1, 4], // IP_TOS
  [SOL_IP, 2, 4], // IP_TTL
  [SOL_IP, 10, 4], // IP_MTU_DISCOVER
  [SOL_IP, 11, 4], // IP_RECVERR
  [SOL_IP, 21, 4], // IP_MINTTL
  [SOL_IP, 24, 4], // IP_BIND_ADDRESS_NO_PORT
  [SOL_IP, 51, 4], // IP_LOCAL_PORT_RANGE
];
const IPV6_OPTIONS: readonly Option[] = [
  [SOL_IPV6, 16, 4], // IPV6_UNICAST_HOPS
  [SOL_IPV6, 23, 4], // IPV6_MTU_DISCOVER
  [SOL_IPV6, 25, 4], // IPV6_RECVERR
  [SOL_IPV6, 26, 4], // IPV6_V6ONLY
  [SOL_IPV6, 67, 4], // IPV6_TCLASS
  [SOL_IPV6, 70, 4], // IPV6_AUTOFLOWLABEL
  [SOL_IPV6, 72, 4], // IPV6_ADDR_PREFERENCES
  [SOL_IPV6, 73, 4], // IPV6_MINHOPCOUNT
];
const ALL_OPTIONS = [...OPTIONS, ...IPV6_OPTIONS];
const LONGEST = 16;

/** Options that a socket of the host cannot have: a socket with one of them is left alone. */
const OWN_TO_ITS_NETWORK: readonly Option[] = [
  [SOL_SOCKET, 62, 4], // SO_BINDTOIFINDEX
  [SOL_SOCKET, 36, 4], // SO_MARK
  [SOL_IP, 19, 4], // IP_TRANSPARENT
  [IPPROTO_TCP, 19, 4], // TCP_REPAIR
  [IPPROTO_TCP, 30, 4], // TCP_FASTOPEN_CONNECT
];
const SO_GET_FILTER = 26;
const SNDBUF_LOCKED = 1;
const RCVBUF_LOCKED = 2;

const value = new NativeBuffer(LONGEST);
const VALUE_WORDS = LONGEST / 4;
/** What sockets have that nobody has changed, by family: for each option its length and its words. */
const untouched = new Map<number, Int32Array>();

/** @returns bytes of the option, which `value` then has; not positive: the socket does not have it */
function readOption(socket: number, [level, name, bytes]: Option): number {
  value.i32.fill(0);
  return getsockoptBytes(socket, level, name, value.address, bytes);
}

/** Values of options, one after the other. */
function readAll(socket: number, options: readonly Option[]): Int32Array {
  const all = new Int32Array(options.length * (VALUE_WORDS + 1));
  options.forEach((option, i) => {
    all[i * (VALUE_WORDS + 1)] = readOption(socket, option);
    all.set(value.i32, i * (VALUE_WORDS + 1) + 1);
  });
  return all;
}

/** Whether a socket has options that bind it to its own network. */
export function isBoundToItsNetwork(socket: number): boolean {
  for (const option of OWN_TO_ITS_NETWORK) {
    if (readOption(socket, option) > 0 && value.i32[0] !== 0) return true;
  }
  // A filter cannot be copied. Length 0 asks for the number of its instructions.
  const filter = getsockoptBytes(socket, SOL_SOCKET, SO_GET_FILTER, 0, 0);
  return filter > 0 || filter === -Errno.EACCES || filter === -Errno.EPERM;
}

/**
 * Set all options of `to` that the program has changed on `from`. What the host refuses stays as it is.
 * @param to      a new socket of the same family
 * @param family  AF_INET or AF_INET6
 */
export function copyOptions(from: number, to: number, family: number): void {
  const options = family === AF_INET6 ? ALL_OPTIONS : OPTIONS;
  let defaults = untouched.get(family);
  if (defaults === undefined) {
    defaults = readAll(to, options);
    untouched.set(family, defaults);
  }
  const { i32 } = value;
  for (let i = 0, at = 0; i < options.length; i++, at += VALUE_WORDS + 1) {
    const option = options[i]!;
    const bytes = readOption(from, option);
    if (
      bytes <= 0 ||
      (bytes === defaults[at] &&
        i32[0] === defaults[at + 1] &&
        i32[1] === defaults[at + 2] &&
        i32[2] === defaults[at + 3] &&
        i32[3] === defaults[at + 4])
    )
      continue;
    setsockoptBytes(to, option[0], option[1], value.address, bytes);
  }
  const locked = getsockoptInt(from, SOL_SOCKET, SO_BUF_LOCK);
  if (locked < 0) return;
  // The kernel doubles what is set.
  if ((locked & SNDBUF_LOCKED) !== 0)
    setsockoptInt(to, SOL_SOCKET, SO_SNDBUF, getsockoptInt(from, SOL_SOCKET, SO_SNDBUF) >> 1);
  if ((locked & RCVBUF_LOCKED) !== 0)
    setsockoptInt(to, SOL_SOCKET, SO_RCVBUF, getsockoptInt(from, SOL_SOCKET, SO_RCVBUF) >> 1);
}

/** How long a connect() of the socket waits, in milliseconds: SO_SNDTIMEO; 0: without limit. */
export function connectTimeout(socket: number): number {
  const r = getsockoptBytes(socket, SOL_SOCKET, SO_SNDTIMEO, value.address, 16);
  if (r < 16) return 0;
  return (value.u32[0]! + value.u32[1]! * 0x1_0000_0000) * 1000 + value.u32[2]! / 1000;
}
