/**
 * Sockets of the guest's network namespace, for a thread that is not in it. A socket belongs to the namespace
 * of the thread that made it, and descriptors belong to the process: the thread that lives inside makes
 * unbound sockets ahead of need, and whoever takes one binds, connects and closes it as its own.
 *
 *   words  0 REQUEST  bumped by the taker; the maker sleeps on it
 *          1 STOP     not 0: the maker is to return
 *          2 SERVED   bumped by the maker after each round; a taker that has to wait sleeps on it
 *          3 BELL     eventfd + 1 to ring after each round while the taker asks for it (WAITING), 0: none
 *          4 WAITING  the taker has something to do as soon as there are sockets
 *          5 PLENTY   descriptors from this number on are not kept ready by the dozen
 *   then for each kind  WANT, HEAD, TAIL, ERRNO (why the last socket() failed, 0: it did not) and a ring of RING descriptors:
 *   HEAD and ERRNO are the maker's, WANT and TAIL the taker's
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
/** How long the maker sleeps before it looks at STOP by itself. */
const MAKER_WAIT_MS = 10_000;
/** What a descriptor's word holds at most; where there is no limit. */
const MOST_DESCRIPTORS = 0x7fff_ffff;

/**
 * The shared memory of a source, empty. Its maker may come to its first round in the sandbox, where no file
 * can be read: the limit of descriptors is found out here.
 */
export function makeSocketSource(): SharedArrayBuffer {
  const source = new SharedArrayBuffer(WORDS * 4);
  const plenty = Math.max(Math.floor(openFilesLimit() / 2) - 16, 1);
  new Int32Array(source)[PLENTY] = Math.min(plenty, MOST_DESCRIPTORS);
  return source;
}

const kindAt = (kind: number): number => KINDS_AT + kind * KIND_WORDS;

/**
 * Make sockets until told to stop; blocks the calling thread, which is in the namespace. What is left is
 * closed.
 */
export function serveSockets(source: SharedArrayBuffer): void {
  const w = new Int32Array(source);
  while (Atomics.load(w, STOP) === 0) Atomics.wait(w, REQUEST, serveRound(w), MAKER_WAIT_MS);
  closeRest(w);
}

/**
 * The same for a thread that has other things to do, as the main thread has: it waits on its event loop, and
 * does not keep that alive.
 */
export async function serveSocketsBeside(source: SharedArrayBuffer): Promise<void> {
  const w = new Int32Array(source);
  while (Atomics.load(w, STOP) === 0) {
    // Not `async`: a request came in between, and is served at once.
    const { async, value } = Atomics.waitAsync(w, REQUEST, serveRound(w), MAKER_WAIT_MS);
    if (async) await value;
  }
  closeRest(w);
}

/** @returns the request up to which all is served: to wait for the next one */
function serveRound(w: Int32Array): number {
  // Read before the rings are looked at: a request that comes in between ends the wait at once.
  const request = Atomics.load(w, REQUEST);
  for (let kind = 0; kind < KINDS; kind++) Atomics.store(w, kindAt(kind) + ERRNO, fill(w, kind));
  Atomics.add(w, SERVED, 1);
  Atomics.notify(w, SERVED);
  const bell = Atomics.load(w, BELL);
  // Exchanged, so that each wish to be woken rings once.
  if (bell !== 0 && Atomics.exchange(w, WAITING, 0) !== 0) eventfdWrite(bell - 1);
  return request;
}

function closeRest(w: Int32Array): void {
  for (let kind = 0; kind < KINDS; kind++) for (let fd = pop(w, kind); fd >= 0; fd = pop(w, kind)) close(fd);
}

/** @returns 0, or errno when a socket could not be made */
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
    Atomics.store(w, at + HEAD, head); // release: the descriptor is in its place
    // Where descriptors are few, flows and everything else come first: one is ready, no more.
    if (fd >= w[PLENTY]!) break; // written before the maker was there
  }
  return 0;
}

function pop(w: Int32Array, kind: number): number {
  const at = kindAt(kind);
  const tail = w[at + TAIL]!; // the taker's own word
  if (tail === Atomics.load(w, at + HEAD)) return -1; // acquire
  const fd = w[at + RING_AT + (tail & (RING - 1))]!;
  Atomics.store(w, at + TAIL, tail + 1); // release: the place may be written again
  return fd;
}

/** Ask the maker to return. */
export function stopSockets(source: SharedArrayBuffer): void {
  const w = new Int32Array(source);
  Atomics.store(w, STOP, 1);
  Atomics.add(w, REQUEST, 1);
  Atomics.notify(w, REQUEST);
}

/** The taker's end; of one thread. */
export class SocketSource {
  readonly #w: Int32Array;

  /** @param bellFd  eventfd that wakes this thread */
  constructor(source: SharedArrayBuffer, bellFd: number) {
    this.#w = new Int32Array(source);
    Atomics.store(this.#w, BELL, bellFd + 1);
  }

  /** Have sockets of a kind ready from now on. */
  prepare(kind: SocketKind): void {
    Atomics.store(this.#w, kindAt(kind) + WANT, READY);
    this.#request();
  }

  /** @returns a descriptor, or -EAGAIN: none is ready, the bell will ring; or another -errno: none can be made */
  take(kind: SocketKind): number {
    const w = this.#w;
    const at = kindAt(kind);
    let fd = pop(w, kind);
    if (w[at + HEAD]! - w[at + TAIL]! < READY / 2) {
      Atomics.store(w, at + WANT, READY);
      // Before the request: the maker's next round sees it.
      if (fd < 0) Atomics.store(w, WAITING, 1);
      this.#request();
    }
    if (fd >= 0) return fd;
    // One more look: the maker may have been at it.
    fd = pop(w, kind);
    if (fd >= 0) return fd;
    const errno = Atomics.load(w, at + ERRNO);
    return errno === 0 ? -Errno.EAGAIN : -errno;
  }

  /**
   * take() that waits for the maker; for the start of the engine.
   * @returns a descriptor or -errno
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
