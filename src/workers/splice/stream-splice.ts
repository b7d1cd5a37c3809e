/**
 * TCP between the host's loopback and the guest's: for a connection accepted on one side a connection is
 * opened on the other, and splice(2) moves the bytes through pipes, without copies and without packets.
 *
 *     side 0, accepted            connection c             side 1, connected
 *     ┌────────┐  splice   ┌──────── pipe 2c ────────┐  splice   ┌────────┐
 *     │ socket │ ────────▶ │ ═══════════════════════ │ ────────▶ │ socket │
 *     │        │ ◀──────── │ ═══════ pipe 2c+1 ═════ │ ◀──────── │        │
 *     └────────┘           └─────────────────────────┘           └────────┘
 *
 * Arrays are indexed by end = 2 * connection + side; pipe e carries the bytes that end e sends. Descriptors
 * are edge-triggered: `readable` and `writable` are set until splice() returns EAGAIN. splice() into a full
 * pipe returns EAGAIN too, so EAGAIN clears `readable` only if the pipe is empty.
 *
 * When a side has sent FIN and its pipe is empty, the other side gets shutdown(SHUT_WR); when both sides
 * have, the connection is closed. Any error resets both sides. There is no idle time-out: keepalive is left
 * to the two programs.
 */
import { Counter } from '../../ring/counters.ts';
import {
  EPOLLERR,
  EPOLLET,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  EPOLLRDHUP,
  Errno,
  IPPROTO_TCP,
  SHUT_WR,
  SO_ERROR,
  SO_KEEPALIVE,
  SOL_SOCKET,
  SPLICE_F_MOVE,
  SPLICE_F_NONBLOCK,
  TCP_KEEPCNT,
  TCP_KEEPIDLE,
  TCP_KEEPINTVL,
  TCP_NODELAY,
} from '../../sys/constants.ts';
import { close, splice } from '../../sys/io.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import {
  connect,
  getsockoptInt,
  peerAddress,
  SOCKADDR_BYTES,
  setLingerZero,
  setsockoptInt,
  shutdown,
  sockaddrWrite,
  tcpInfo,
} from '../../sys/socket.ts';
import { FlowField, type FlowSource, FlowState } from '../flow/flow-report.ts';
import type { DescriptorShortage } from '../thread/descriptor-shortage.ts';
import { DescriptorTable } from '../thread/descriptor-table.ts';
import { Pipes } from './pipes.ts';

/** Keepalive of a side that has sent FIN: idle time, interval and count (man 7 tcp). */
const HALF_CLOSED_IDLE_S = 30;
const HALF_CLOSED_INTERVAL_S = 10;
const HALF_CLOSED_PROBES = 6;

/** Of a connection. `waiting`: for a socket of the other side. */
const State = { free: 0, waiting: 1, connecting: 2, open: 3 } as const;

/** Of an end. */
const Flag = {
  readable: 1 << 0,
  writable: 1 << 1,
  /** It has sent FIN: splice() from its socket returned 0. */
  eof: 1 << 2,
  /** shutdown(SHUT_WR) was called on its socket. */
  finished: 1 << 3,
  /** On the list of ends with more to move, or of ends without a pipe. */
  ready: 1 << 4,
  /** Its pipe was enlarged, or the kernel has refused that. */
  grown: 1 << 5,
} as const;

/** Most bytes of one splice(); the capacity of the pipe limits it first. */
const MOVE_BYTES = 1024 * 1024;
/** Most moves of one end per round. */
const MOVES_PER_ROUND = 16;
/** After GROW_AFTER_BYTES moved bytes the pipe is enlarged to GROW_TO_BYTES. */
const GROW_AFTER_BYTES = 256 * 1024;
const GROW_TO_BYTES = 512 * 1024;
const MOVE = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;

export interface StreamSpliceOptions {
  /** Most connections at the same time. */
  readonly capacity: number;
  readonly counters: Float64Array;
  readonly shortage: DescriptorShortage;
  /** Register a descriptor with epoll; events come to onEvents(end, events). @returns 0 or -errno */
  watch(fd: number, end: number, events: number): number;
  /**
   * Open an unbound socket.
   * @param toGuest  in the guest's namespace
   * @returns a descriptor or -errno; -EAGAIN: poll() has to be called when there may be one
   */
  socketFor(toGuest: boolean, isV4: boolean): number;
}

export class StreamSplice implements FlowSource {
  readonly #o: StreamSpliceOptions;
  // By connection.
  readonly #state: Uint8Array;
  /**
   * Destination of a waiting connection: four words and the port, with bit 16 set: in the guest's namespace.
   */
  readonly #target = new Map<number, Uint32Array>();
  // By end.
  readonly #fd: DescriptorTable;
  readonly #flags: Uint8Array;
  readonly #pipeRead: DescriptorTable;
  readonly #pipeWrite: DescriptorTable;
  /** Bytes in the pipe. */
  readonly #pipeBytes: Int32Array;
  /** Bytes that went through the pipe since the connection has it. */
  readonly #moved: Float64Array;
  // By connection, for reports: 1: side 1 is in the guest's namespace; time of accept.
  readonly #toGuest: Uint8Array;
  readonly #bornMs: Float64Array;
  readonly #free: number[] = [];
  /** Smallest connection number that was never used. */
  #fresh = 0;
  #ready: number[] = [];
  #readyNext: number[] = [];
  /** Connections that wait for a socket of the other side. */
  #waiting: number[] = [];
  /** Ends that wait for descriptors for a pipe. */
  #pipeless: number[] = [];
  readonly #pipes = new Pipes();
  readonly #ends = new Int32Array(2);
  readonly #sockaddr = new NativeBuffer(SOCKADDR_BYTES);
  readonly #words = new Uint32Array(4);

  constructor(options: StreamSpliceOptions) {
    this.#o = options;
    const n = options.capacity;
    this.#state = new Uint8Array(n);
    this.#fd = new DescriptorTable(n * 2);
    this.#flags = new Uint8Array(n * 2);
    this.#pipeRead = new DescriptorTable(n * 2);
    this.#pipeWrite = new DescriptorTable(n * 2);
    this.#pipeBytes = new Int32Array(n * 2);
    this.#moved = new Float64Array(n * 2);
    this.#toGuest = new Uint8Array(n);
    this.#bornMs = new Float64Array(n);
  }

  /** Whether a connection waits for a socket or a pipe: poll() has to be called again. */
  get isWaiting(): boolean {
    return this.#waiting.length > 0 || this.#pipeless.length > 0;
  }

  get hasReady(): boolean {
    return this.#ready.length > 0;
  }

  /**
   * Take over an accepted connection and its descriptor, and connect it to its destination.
   * @param toGuest  the destination is in the guest's namespace, else on the host
   * @param words    destination address at words[w..w + 3]
   */
  take(fd: number, toGuest: boolean, words: Uint32Array, w: number, port: number): void {
    const c = this.#free.pop() ?? (this.#fresh < this.#state.length ? this.#fresh++ : -1);
    if (c < 0) {
      this.#o.counters[Counter.flowTableFull]!++;
      return refuse(fd);
    }
    this.#o.counters[Counter.spliceConnections]!++;
    this.#fd.set(2 * c, fd);
    this.#fd.clear(2 * c + 1);
    this.#toGuest[c] = toGuest ? 1 : 0;
    this.#bornMs[c] = performance.now();
    const r = this.#connect(c, toGuest, words, w, port);
    if (r !== -Errno.EAGAIN) return;
    // Allocates only when no socket is ready, once per connection.
    const target = new Uint32Array(5);
    target.set(words.subarray(w, w + 4));
    target[4] = port | (toGuest ? 0x1_0000 : 0);
    this.#target.set(c, target);
    this.#state[c] = State.waiting;
    this.#waiting.push(c);
  }

  /** Connect side 1. @returns 0, also if that failed and the connection was reset; -EAGAIN: no socket yet */
  #connect(c: number, toGuest: boolean, words: Uint32Array, w: number, port: number): number {
    const addressBytes = sockaddrWrite(this.#sockaddr.u8, 0, words, w, port);
    const fd = this.#o.socketFor(toGuest, addressBytes < SOCKADDR_BYTES);
    if (fd === -Errno.EAGAIN) return fd;
    if (this.#o.shortage.reportShortage(fd)) return -Errno.EAGAIN;
    if (fd < 0) {
      this.#reset(c);
      return 0;
    }
    this.#fd.set(2 * c + 1, fd);
    this.#state[c] = State.connecting;
    setsockoptInt(this.#fd.get(2 * c), IPPROTO_TCP, TCP_NODELAY, 1);
    setsockoptInt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    const r = connect(fd, this.#sockaddr.address, addressBytes);
    if (r < 0 && r !== -Errno.EINPROGRESS) {
      this.#reset(c);
      return 0;
    }
    const events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    if (this.#o.watch(fd, 2 * c + 1, events) < 0) this.#reset(c);
    return 0;
  }

  onEvents(end: number, events: number): void {
    const c = end >>> 1;
    const state = this.#state[c]!;
    if (state === State.free || state === State.waiting) return;
    if (state === State.connecting) {
      if ((end & 1) === 1) this.#onConnect(c, events);
      return;
    }
    if (events & EPOLLERR) return this.#reset(c);
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) this.#flags[end]! |= Flag.readable;
    if (events & (EPOLLOUT | EPOLLHUP)) this.#flags[end]! |= Flag.writable;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) this.#move(end);
    // Bytes in the other end's pipe were waiting for this end.
    if (this.#state[c] === State.open && events & EPOLLOUT && this.#pipeBytes[end ^ 1]! > 0)
      this.#move(end ^ 1);
  }

  #onConnect(c: number, events: number): void {
    if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return;
    const fd = this.#fd.get(2 * c + 1);
    if (events & (EPOLLERR | EPOLLHUP) && getsockoptInt(fd, SOL_SOCKET, SO_ERROR) !== 0)
      return this.#reset(c);
    this.#state[c] = State.open;
    const both = Flag.readable | Flag.writable;
    this.#flags[2 * c]! |= both;
    this.#flags[2 * c + 1]! |= both;
    // Side 0 is watched from now on. The first #move() reads bytes that came before.
    if (this.#o.watch(this.#fd.get(2 * c), 2 * c, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) < 0)
      return this.#reset(c);
    this.#move(2 * c);
    if (this.#state[c] === State.open && events & (EPOLLIN | EPOLLRDHUP)) this.#move(2 * c + 1);
  }

  /** Move bytes from end `e` to the other end until one of them blocks or the round's share is used up. */
  #move(e: number): void {
    const other = e ^ 1;
    const from = this.#fd.get(e);
    const to = this.#fd.get(other);
    const counters = this.#o.counters;
    for (let n = 0; n < MOVES_PER_ROUND; n++) {
      let bytes = this.#pipeBytes[e]!;
      if (this.#flags[e]! & Flag.readable && !(this.#flags[e]! & Flag.eof)) {
        if (!this.#pipeWrite.has(e)) {
          const opened = this.#openPipe(e);
          if (opened < 0)
            return this.#o.shortage.reportShortage(opened) ? this.#hold(e) : this.#reset(e >>> 1);
        }
        const r = splice(from, this.#pipeWrite.get(e), MOVE_BYTES, MOVE);
        if (r > 0) {
          bytes += r;
          this.#pipeBytes[e] = bytes;
        } else if (r === 0) this.#flags[e]! |= Flag.eof;
        else if (r === -Errno.EAGAIN) {
          if (bytes === 0) this.#flags[e]! &= ~Flag.readable;
        } else if (r !== -Errno.EINTR) return this.#reset(e >>> 1);
      }
      if (bytes === 0) {
        if (this.#flags[e]! & Flag.eof) this.#finish(e);
        else if (this.#flags[e]! & Flag.readable) continue; // EINTR
        return;
      }
      if (!(this.#flags[other]! & Flag.writable)) return;
      const w = splice(this.#pipeRead.get(e), to, bytes, MOVE);
      if (w > 0) {
        this.#pipeBytes[e] = bytes - w;
        counters[Counter.spliceBytes]! += w;
        this.#moved[e]! += w;
        if (this.#moved[e]! > GROW_AFTER_BYTES && !(this.#flags[e]! & Flag.grown)) {
          // Only one attempt.
          this.#flags[e]! |= Flag.grown;
          this.#pipes.grow(this.#pipeWrite.get(e), GROW_TO_BYTES);
        }
      } else if (w === -Errno.EAGAIN) {
        this.#flags[other]! &= ~Flag.writable;
        return;
      } else if (w !== -Errno.EINTR) return this.#reset(e >>> 1);
    }
    this.#markReady(e);
  }

  /** No descriptors are free for a pipe: the bytes stay in the socket until #retryPipes(). */
  #hold(e: number): void {
    if (this.#flags[e]! & Flag.ready) return;
    this.#flags[e]! |= Flag.ready;
    this.#pipeless.push(e);
  }

  /** Try again to open pipes; stops at the first end that gets none. @returns ends that got one */
  #retryPipes(): number {
    const list = this.#pipeless;
    this.#pipeless = [];
    let i = 0;
    while (i < list.length && this.#pipeless.length === 0) {
      const e = list[i++]!;
      this.#flags[e]! &= ~Flag.ready;
      if (this.#state[e >>> 1] === State.open) this.#move(e);
    }
    const done = i - this.#pipeless.length;
    while (i < list.length) this.#pipeless.push(list[i++]!);
    return done;
  }

  /** @returns 0 or -errno */
  #openPipe(e: number): number {
    const r = this.#pipes.take(this.#ends);
    if (r < 0) return r;
    this.#pipeRead.set(e, this.#ends[0]!);
    this.#pipeWrite.set(e, this.#ends[1]!);
    this.#pipeBytes[e] = 0;
    this.#moved[e] = 0;
    return 0;
  }

  /** End `e` has sent FIN and its pipe is empty: pass the FIN on, or close if both sides have finished. */
  #finish(e: number): void {
    if (this.#flags[e]! & Flag.finished) return this.#close(e >>> 1, false);
    const other = e ^ 1;
    if (this.#flags[other]! & Flag.finished) return;
    this.#flags[other]! |= Flag.finished;
    shutdown(this.#fd.get(other), SHUT_WR);
    this.#enableKeepalive(this.#fd.get(e));
  }

  /**
   * The program of a side that has sent FIN may have exited while the other side never finishes: its kernel
   * then answers a keepalive probe with RST, and the connection ends. A program that only closed its sending
   * side stays connected.
   */
  #enableKeepalive(fd: number): void {
    setsockoptInt(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    setsockoptInt(fd, IPPROTO_TCP, TCP_KEEPIDLE, HALF_CLOSED_IDLE_S);
    setsockoptInt(fd, IPPROTO_TCP, TCP_KEEPINTVL, HALF_CLOSED_INTERVAL_S);
    setsockoptInt(fd, IPPROTO_TCP, TCP_KEEPCNT, HALF_CLOSED_PROBES);
  }

  #markReady(e: number): void {
    if (this.#flags[e]! & Flag.ready) return;
    this.#flags[e]! |= Flag.ready;
    this.#ready.push(e);
  }

  #reset(c: number): void {
    this.#close(c, true);
  }

  #close(c: number, reset: boolean): void {
    for (let e = 2 * c; e < 2 * c + 2; e++) {
      const fd = this.#fd.get(e);
      if (fd >= 0) {
        if (reset) setLingerZero(fd);
        close(fd);
      }
      this.#fd.clear(e);
      const write = this.#pipeWrite.get(e);
      if (write >= 0) {
        const read = this.#pipeRead.get(e);
        if (this.#pipeBytes[e] === 0 && !(this.#flags[e]! & Flag.grown)) this.#pipes.keep(read, write);
        else this.#pipes.drop(read, write);
      }
      this.#pipeWrite.clear(e);
      this.#pipeRead.clear(e);
      this.#pipeBytes[e] = 0;
      // An entry on the ready list stays; poll() skips it.
      this.#flags[e]! &= Flag.ready;
    }
    this.#state[c] = State.free;
    this.#free.push(c);
  }

  /** Go on with ends that have more to move, and try again for sockets and pipes. @returns ends handled */
  poll(): number {
    let work = 0;
    if (this.#waiting.length > 0) work += this.#retry();
    if (this.#pipeless.length > 0) work += this.#retryPipes();
    const list = this.#ready;
    if (list.length === 0) return work;
    this.#ready = this.#readyNext;
    this.#readyNext = list;
    for (let i = 0; i < list.length; i++) {
      const e = list[i]!;
      this.#flags[e]! &= ~Flag.ready;
      if (this.#state[e >>> 1] === State.open) this.#move(e);
    }
    work += list.length;
    list.length = 0;
    return work;
  }

  /** Connect the waiting connections until sockets run out. @returns how many got one */
  #retry(): number {
    const list = this.#waiting;
    this.#waiting = [];
    let done = 0;
    for (let i = 0; i < list.length; i++) {
      const c = list[i]!;
      const target = this.#target.get(c)!;
      const port = target[4]!;
      if (this.#connect(c, port >= 0x1_0000, target, 0, port & 0xffff) === -Errno.EAGAIN) {
        this.#waiting.push(...list.slice(i));
        break;
      }
      this.#target.delete(c);
      done++;
    }
    return done;
  }

  get placeCount(): number {
    return this.#fresh;
  }

  /** FlowSource: connections that are open on both sides; the kernel gives their addresses. */
  describeFlow(place: number, rows: Float64Array, at: number): boolean {
    if (this.#state[place] !== State.open) return false;
    const guest = 2 * place + this.#toGuest[place]!;
    const remote = guest ^ 1;
    if (!this.#peer(guest, rows, at + FlowField.guestAddress, at + FlowField.guestPort)) return false;
    if (!this.#peer(remote, rows, at + FlowField.remoteAddress, at + FlowField.remotePort)) return false;
    rows[at + FlowField.proto] = IPPROTO_TCP;
    rows[at + FlowField.state] = this.#stateOf(guest, remote);
    rows[at + FlowField.fromGuestBytes] = this.#movedBytes(guest);
    rows[at + FlowField.toGuestBytes] = this.#movedBytes(remote);
    rows[at + FlowField.ageMs] = performance.now() - this.#bornMs[place]!;
    tcpInfo(this.#fd.get(remote), rows, at + FlowField.hostRttUs);
    return true;
  }

  /**
   * Reset connections of the guest to the host that are not permitted any more.
   * @param permits  called with the host's address at words[0..3] and the port
   * @returns how many
   */
  endDenied(permits: (words: Uint32Array, port: number) => boolean): number {
    let ended = 0;
    for (let c = 0; c < this.#fresh; c++) {
      if (this.#state[c] !== State.open || this.#toGuest[c] === 1) continue;
      const port = peerAddress(this.#fd.get(2 * c + 1), this.#words, 0);
      if (port < 0 || permits(this.#words, port)) continue;
      this.#reset(c);
      ended++;
    }
    return ended;
  }

  #stateOf(guest: number, remote: number): FlowState {
    if (this.#flags[guest]! & Flag.eof) return FlowState.closeWait;
    return this.#flags[remote]! & Flag.eof ? FlowState.finWait : FlowState.established;
  }

  /** @returns bytes that an end has sent; #moved is another connection's as long as the end has no pipe */
  #movedBytes(end: number): number {
    return !this.#pipeWrite.has(end) ? 0 : this.#moved[end]!;
  }

  /** Write the address and port of an end's peer. @returns whether the kernel knows them */
  #peer(end: number, rows: Float64Array, addressAt: number, portAt: number): boolean {
    const port = peerAddress(this.#fd.get(end), this.#words, 0);
    if (port < 0) return false;
    rows.set(this.#words, addressAt);
    rows[portAt] = port;
    return true;
  }

  closeAll(): void {
    for (let c = 0; c < this.#fresh; c++) if (this.#state[c] !== State.free) this.#close(c, true);
    this.#pipes.close();
  }
}

/** Close with RST. */
function refuse(fd: number): void {
  setLingerZero(fd);
  close(fd);
}
