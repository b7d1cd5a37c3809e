/**
 * Sockets of the guest's network namespace, for a thread that is not in that namespace. A socket belongs to
 * the namespace of the thread that opened it; descriptors belong to the process. So a thread inside (the
 * maker) opens unbound sockets in advance, and another thread (the taker) takes, binds, connects and closes
 * them.
 *
 *   words  0 REQUEST  incremented by the taker; the maker sleeps on it
 *          1 STOP     not 0: the maker has to return
 *          2 SERVED   incremented by the maker after each round; a waiting taker sleeps on it
 *          3 BELL     eventfd + 1; the maker writes to it after a round if WAITING is set; 0: none
 *          4 WAITING  1: the taker wants to be woken when there are sockets
 *          5 PLENTY   from this descriptor number on only one socket of each kind is kept ready
 *
 *   then for each kind:
 *          WANT       sockets to keep ready (taker writes)
 *          HEAD       sockets put into the ring (maker writes)
 *          TAIL       sockets taken from the ring (taker writes)
 *          ERRNO      of the last socket() (maker writes); 0: it succeeded
 *          ring of RING descriptors
 */
import {
  AF_INET,
  AF_INET6,
  Errno,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_STREAM,
} from '../../sys/constants.ts';
import { close, eventfdWrite } from '../../sys/io.ts';
import { openFilesLimit } from '../../sys/open-files.ts';
import { socket } from '../../sys/socket.ts';

const REQUEST = 0;
const STOP = 1;
const SERVED = 2;
const BELL = 3;
const WAITING = 4;
const PLENTY = 5;
const KINDS_AT = 8;

/** Kinds of sockets. */
export const SocketKind = { tcp4: 0, tcp6: 1, udp4: 2, udp6: 3 } as const;
export type SocketKind = (typeof SocketKind)[keyof typeof SocketKind];
const KINDS = 4;

/** Sockets kept ready of each kind that is in use. */
const READY = 32;
const RING = 64;
const WANT = 0;
const HEAD = 1;
const TAIL = 2;
const ERRNO = 3;
const RING_AT = 4;
const KIND_WORDS = RING_AT + RING;
const WORDS = KINDS_AT + KINDS * KIND_WORDS;
/** The maker checks STOP at least this often. */
const MAKER_WAIT_MS = 10_000;
/** PLENTY where the process has no limit of descriptors: the largest value of a word. */
const MOST_DESCRIPTORS = 0x7fff_ffff;

/**
 * Allocate the shared memory of a source. PLENTY is computed here, from the limit of open files: the maker
 * may be in the sandbox before its first round, and cannot read a file there.
 */
export function makeSocketSource(): SharedArrayBuffer {
  const source = new SharedArrayBuffer(WORDS * 4);
  const plenty = Math.max(Math.floor(openFilesLimit() / 2) - 16, 1);
  new Int32Array(source)[PLENTY] = Math.min(plenty, MOST_DESCRIPTORS);
  return source;
}

const kindAt = (kind: number): number => KINDS_AT + kind * KIND_WORDS;

/**
 * The maker: open sockets until stopSockets(), then close those that are left. Blocks the calling thread,
 * which is in the namespace.
 */
export function serveSockets(source: SharedArrayBuffer): void {
  const w = new Int32Array(source);
  while (Atomics.load(w, STOP) === 0) Atomics.wait(w, REQUEST, serveRound(w), MAKER_WAIT_MS);
  closeRest(w);
}

/**
 * The maker on a thread that has other work, for example the main thread: waits in the event loop, and does
 * not keep the event loop alive.
 * @returns when stopSockets() was called
 */
export async function serveSocketsBeside(source: SharedArrayBuffer): Promise<void> {
  const w = new Int32Array(source);
  while (Atomics.load(w, STOP) === 0) {
    // Not `async`: a request came after the round and is served at once.
    const { async, value } = Atomics.waitAsync(w, REQUEST, serveRound(w), MAKER_WAIT_MS);
    if (async) await value;
  }
  closeRest(w);
}

/**
 * Fill all rings and wake the taker.
 * @returns REQUEST as of before the round, for the wait for the next one
 */
function serveRound(w: Int32Array): number {
  // Read before the rings: a request that comes in between ends the wait at once.
  const request = Atomics.load(w, REQUEST);
  for (let kind = 0; kind < KINDS; kind++) Atomics.store(w, kindAt(kind) + ERRNO, fill(w, kind));
  Atomics.add(w, SERVED, 1);
  Atomics.notify(w, SERVED);
  const bell = Atomics.load(w, BELL);
  // Exchanged: each time the taker sets WAITING the bell rings once.
  if (bell !== 0 && Atomics.exchange(w, WAITING, 0) !== 0) eventfdWrite(bell - 1);
  return request;
}

function closeRest(w: Int32Array): void {
  for (let kind = 0; kind < KINDS; kind++) for (let fd = pop(w, kind); fd >= 0; fd = pop(w, kind)) close(fd);
}

/** Open the sockets that are missing in a ring. @returns 0, or errno of socket() */
function fill(w: Int32Array, kind: number): number {
  const at = kindAt(kind);
  const type = (kind < SocketKind.udp4 ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
  const domain = (kind & 1) === 0 ? AF_INET : AF_INET6;
  const want = Atomics.load(w, at + WANT);
  let head = w[at + HEAD]!; // the maker's own word
  while (head - Atomics.load(w, at + TAIL) < want) {
    const fd = socket(domain, type, 0);
    if (fd < 0) return -fd;
    w[at + RING_AT + (head & (RING - 1))] = fd;
    head++;
    Atomics.store(w, at + HEAD, head); // release: the descriptor is in the ring
    // Descriptors are getting short: keep one socket ready, and leave the others to flows and all else.
    if (fd >= w[PLENTY]!) break; // a plain read: written before the maker started
  }
  return 0;
}

/** @returns the oldest descriptor of a ring, or -1 */
function pop(w: Int32Array, kind: number): number {
  const at = kindAt(kind);
  const tail = w[at + TAIL]!; // the taker's own word
  if (tail === Atomics.load(w, at + HEAD)) return -1; // acquire
  const fd = w[at + RING_AT + (tail & (RING - 1))]!;
  Atomics.store(w, at + TAIL, tail + 1); // release: the maker may overwrite the cell
  return fd;
}

/** Ask the maker to return; does not wait for it. */
export function stopSockets(source: SharedArrayBuffer): void {
  const w = new Int32Array(source);
  Atomics.store(w, STOP, 1);
  Atomics.add(w, REQUEST, 1);
  Atomics.notify(w, REQUEST);
}

/** The taker's side; used by one thread only. */
export class SocketSource {
  readonly #w: Int32Array;

  /** @param bellFd  eventfd that wakes this thread */
  constructor(source: SharedArrayBuffer, bellFd: number) {
    this.#w = new Int32Array(source);
    Atomics.store(this.#w, BELL, bellFd + 1);
  }

  /** Have sockets of a kind kept ready from now on. */
  prepare(kind: SocketKind): void {
    Atomics.store(this.#w, kindAt(kind) + WANT, READY);
    this.#request();
  }

  /**
   * Take a socket without waiting.
   * @returns a descriptor; -EAGAIN: none is ready, the bell will ring; another -errno: socket() fails inside
   */
  take(kind: SocketKind): number {
    const w = this.#w;
    const at = kindAt(kind);
    let fd = pop(w, kind);
    if (w[at + HEAD]! - w[at + TAIL]! < READY / 2) {
      Atomics.store(w, at + WANT, READY);
      // Stored before the request, so that the maker's next round reads it.
      if (fd < 0) Atomics.store(w, WAITING, 1);
      this.#request();
    }
    if (fd >= 0) return fd;
    // Second attempt: the maker may have added a socket meanwhile.
    fd = pop(w, kind);
    if (fd >= 0) return fd;
    const errno = Atomics.load(w, at + ERRNO);
    return errno === 0 ? -Errno.EAGAIN : -errno;
  }

  /**
   * take() that waits for the maker.
   * @returns a descriptor; -ETIMEDOUT; or another -errno: socket() fails inside
   */
  takeWaiting(kind: SocketKind, timeoutMs: number): number {
    const endAt = performance.now() + timeoutMs;
    for (;;) {
      const served = Atomics.load(this.#w, SERVED);
      const fd = this.take(kind);
      if (fd !== -Errno.EAGAIN) return fd;
      const leftMs = endAt - performance.now();
      if (leftMs <= 0) return -Errno.ETIMEDOUT;
      Atomics.wait(this.#w, SERVED, served, leftMs);
    }
  }

  #request(): void {
    Atomics.add(this.#w, REQUEST, 1);
    Atomics.notify(this.#w, REQUEST);
  }
}
