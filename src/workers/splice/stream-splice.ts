/**
 * TCP between loopback and loopback: a connection accepted on one side is connected on the other, and the
 * bytes go through pipes by splice(2), never copied and never packets.
 *
 *     side 0, accepted            connection c             side 1, connected
 *     ┌────────┐  splice   ┌──────── pipe 2c ────────┐  splice   ┌────────┐
 *     │ socket │ ────────▶ │ ═══════════════════════ │ ────────▶ │ socket │
 *     │        │ ◀──────── │ ═══════ pipe 2c+1 ═════ │ ◀──────── │        │
 *     └────────┘           └─────────────────────────┘           └────────┘
 *
 * Everything is indexed by end = 2 * connection + side; pipe e carries what end e sends. Descriptors are
 * edge-triggered: `readable` and `writable` stand until the kernel says EAGAIN. splice() into a pipe says
 * EAGAIN for a full pipe too, so `readable` falls only when the pipe was empty.
 *
 * A side that has finished sending is followed by shutdown(SHUT_WR) on the other once its pipe is empty; when
 * both have, the connection is closed. Any error resets both sides. There is no idle time-out: the kernel's
 * keepalive is the peers' business.
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
} from '../../sys/socket.ts';
import { FlowField, type FlowSource, FlowState } from '../flow/flow-report.ts';
import type { DescriptorShortage } from '../thread/descriptor-shortage.ts';
import { Pipes } from './pipes.ts';

/**
 * A side that has finished is asked whether it is still there after so many seconds of silence, then so
 * often, so many times.
 */
const HALF_CLOSED_IDLE_S = 30;
const HALF_CLOSED_INTERVAL_S = 10;
const HALF_CLOSED_PROBES = 6;

const State = { free: 0, waiting: 1, connecting: 2, open: 3 } as const;

const Flag = {
  readable: 1 << 0,
  writable: 1 << 1,
  /** It has sent all that it will. */
  eof: 1 << 2,
  /** It has been told that the other side has. */
  finished: 1 << 3,
  /** On the list of ends with more to do. */
  ready: 1 << 4,
  /** Its pipe is not of the default size. */
  grown: 1 << 5,
} as const;

/** Asked for at once; what the pipe holds decides. */
const MOVE_BYTES = 1024 * 1024;
/** Moves of one end before others get their turn. */
const MOVES_PER_ROUND = 16;
/** A stream that has moved so much gets a pipe of so many bytes. */
const GROW_AFTER_BYTES = 256 * 1024;
const GROW_TO_BYTES = 512 * 1024;
const MOVE = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;

export interface StreamSpliceOptions {
  /** Most connections at a time. */
  readonly capacity: number;
  readonly counters: Float64Array;
  readonly shortage: DescriptorShortage;
  /** Register a descriptor, edge-triggered; events come to onEvents(end, events). */
  watch(fd: number, end: number, events: number): number;
  /** An unbound socket of the other side; -EAGAIN: poll() is to be called when there may be one. */
  socketFor(toGuest: boolean, isV4: boolean): number;
}

export class StreamSplice implements FlowSource {
  readonly #o: StreamSpliceOptions;
  // By connection.
  readonly #state: Uint8Array;
  /** While waiting: where to, four words and the port; bit 16 of the port word: into the namespace. */
  readonly #target = new Map<number, Uint32Array>();
  // By end. Descriptors are kept + 1: untouched memory means none.
  readonly #fd: Int32Array;
  readonly #flags: Uint8Array;
  readonly #pipeRead: Int32Array;
  readonly #pipeWrite: Int32Array;
  readonly #pipeBytes: Int32Array;
  readonly #moved: Float64Array;
  /** By connection, for reports: whether side 1 is the guest's, and since when. */
  readonly #toGuest: Uint8Array;
  readonly #bornMs: Float64Array;
  readonly #free: number[] = [];
  #fresh = 0;
  #ready: number[] = [];
  #readyNext: number[] = [];
  #waiting: number[] = [];
  /** Ends that found no descriptors for a pipe. */
  #pipeless: number[] = [];
  readonly #pipes = new Pipes();
  readonly #ends = new Int32Array(2);
  readonly #sockaddr = new NativeBuffer(SOCKADDR_BYTES);
  readonly #words = new Uint32Array(4);

  constructor(options: StreamSpliceOptions) {
    this.#o = options;
    const n = options.capacity;
    this.#state = new Uint8Array(n);
    this.#fd = new Int32Array(n * 2);
    this.#flags = new Uint8Array(n * 2);
    this.#pipeRead = new Int32Array(n * 2);
    this.#pipeWrite = new Int32Array(n * 2);
    this.#pipeBytes = new Int32Array(n * 2);
    this.#moved = new Float64Array(n * 2);
    this.#toGuest = new Uint8Array(n);
    this.#bornMs = new Float64Array(n);
  }

  /** Connections that wait for a socket or a pipe. */
  get isWaiting(): boolean {
    return this.#waiting.length > 0 || this.#pipeless.length > 0;
  }

  get hasReady(): boolean {
    return this.#ready.length > 0;
  }

  /**
   * Lead an accepted connection on. The descriptor is ours from now on.
   * @param toGuest  connect inside the namespace, else on the host
   * @param words    destination address at words[w..w + 3]
   */
  take(fd: number, toGuest: boolean, words: Uint32Array, w: number, port: number): void {
    const c = this.#free.pop() ?? (this.#fresh < this.#state.length ? this.#fresh++ : -1);
    if (c < 0) {
      this.#o.counters[Counter.flowTableFull]!++;
      return refuse(fd);
    }
    this.#o.counters[Counter.spliceConnections]!++;
    this.#fd[2 * c] = fd + 1;
    this.#fd[2 * c + 1] = 0;
    this.#toGuest[c] = toGuest ? 1 : 0;
    this.#bornMs[c] = performance.now();
    const r = this.#connect(c, toGuest, words, w, port);
    if (r !== -Errno.EAGAIN) return;
    // Once a connection, and only when sockets have run out.
    const target = new Uint32Array(5);
    target.set(words.subarray(w, w + 4));
    target[4] = port | (toGuest ? 0x1_0000 : 0);
    this.#target.set(c, target);
    this.#state[c] = State.waiting;
    this.#waiting.push(c);
  }

  /** @returns 0, also when the connection has been reset, or -EAGAIN: no socket yet */
  #connect(c: number, toGuest: boolean, words: Uint32Array, w: number, port: number): number {
    const addressBytes = sockaddrWrite(this.#sockaddr.u8, 0, words, w, port);
    const fd = this.#o.socketFor(toGuest, addressBytes < SOCKADDR_BYTES);
    if (fd === -Errno.EAGAIN) return fd;
    if (this.#o.shortage.reportShortage(fd)) return -Errno.EAGAIN;
    if (fd < 0) {
      this.#reset(c);
      return 0;
    }
    this.#fd[2 * c + 1] = fd + 1;
    this.#state[c] = State.connecting;
    setsockoptInt(this.#fd[2 * c]! - 1, IPPROTO_TCP, TCP_NODELAY, 1);
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
    // What waits for this end in the other's pipe.
    if (this.#state[c] === State.open && events & EPOLLOUT && this.#pipeBytes[end ^ 1]! > 0)
      this.#move(end ^ 1);
  }

  #onConnect(c: number, events: number): void {
    if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return;
    const fd = this.#fd[2 * c + 1]! - 1;
    if (events & (EPOLLERR | EPOLLHUP) && getsockoptInt(fd, SOL_SOCKET, SO_ERROR) !== 0)
      return this.#reset(c);
    this.#state[c] = State.open;
    const both = Flag.readable | Flag.writable;
    this.#flags[2 * c]! |= both;
    this.#flags[2 * c + 1]! |= both;
    // Only now: what came before is found by the first look, without an event for it.
    if (this.#o.watch(this.#fd[2 * c]! - 1, 2 * c, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) < 0)
      return this.#reset(c);
    this.#move(2 * c);
    if (this.#state[c] === State.open && events & (EPOLLIN | EPOLLRDHUP)) this.#move(2 * c + 1);
  }

  /** Move what end `e` has sent to the other end, as far as both go or the round allows. */
  #move(e: number): void {
    const other = e ^ 1;
    const from = this.#fd[e]! - 1;
    const to = this.#fd[other]! - 1;
    const counters = this.#o.counters;
    for (let n = 0; n < MOVES_PER_ROUND; n++) {
      let bytes = this.#pipeBytes[e]!;
      if (this.#flags[e]! & Flag.readable && !(this.#flags[e]! & Flag.eof)) {
        if (this.#pipeWrite[e] === 0) {
          const opened = this.#openPipe(e);
          if (opened < 0)
            return this.#o.shortage.reportShortage(opened) ? this.#hold(e) : this.#reset(e >>> 1);
        }
        const r = splice(from, this.#pipeWrite[e]! - 1, MOVE_BYTES, MOVE);
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
      const w = splice(this.#pipeRead[e]! - 1, to, bytes, MOVE);
      if (w > 0) {
        this.#pipeBytes[e] = bytes - w;
        counters[Counter.spliceBytes]! += w;
        this.#moved[e]! += w;
        if (this.#moved[e]! > GROW_AFTER_BYTES && !(this.#flags[e]! & Flag.grown)) {
          // Tried once.
          this.#flags[e]! |= Flag.grown;
          this.#pipes.grow(this.#pipeWrite[e]! - 1, GROW_TO_BYTES);
        }
      } else if (w === -Errno.EAGAIN) {
        this.#flags[other]! &= ~Flag.writable;
        return;
      } else if (w !== -Errno.EINTR) return this.#reset(e >>> 1);
    }
    this.#markReady(e);
  }

  /** No descriptors for a pipe: what has come waits in the socket until there are. */
  #hold(e: number): void {
    if (this.#flags[e]! & Flag.ready) return;
    this.#flags[e]! |= Flag.ready;
    this.#pipeless.push(e);
  }

  /** Ends that wait for a pipe, again: the first that finds none is the last that is tried. */
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
    this.#pipeRead[e] = this.#ends[0]! + 1;
    this.#pipeWrite[e] = this.#ends[1]! + 1;
    this.#pipeBytes[e] = 0;
    this.#moved[e] = 0;
    return 0;
  }

  #finish(e: number): void {
    if (this.#flags[e]! & Flag.finished) return this.#close(e >>> 1, false);
    const other = e ^ 1;
    if (this.#flags[other]! & Flag.finished) return;
    this.#flags[other]! |= Flag.finished;
    shutdown(this.#fd[other]! - 1, SHUT_WR);
    this.#askWhetherAlive(this.#fd[e]! - 1);
  }

  /**
   * The program behind a side that has finished may be gone, while the other side never finishes: its kernel
   * then answers with RST. One that only has nothing more to say answers that it is there.
   */
  #askWhetherAlive(fd: number): void {
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
      const fd = this.#fd[e]! - 1;
      if (fd >= 0) {
        if (reset) setLingerZero(fd);
        close(fd);
      }
      this.#fd[e] = 0;
      const write = this.#pipeWrite[e]! - 1;
      if (write >= 0) {
        const read = this.#pipeRead[e]! - 1;
        if (this.#pipeBytes[e] === 0 && !(this.#flags[e]! & Flag.grown)) this.#pipes.keep(read, write);
        else this.#pipes.drop(read, write);
      }
      this.#pipeWrite[e] = 0;
      this.#pipeRead[e] = 0;
      this.#pipeBytes[e] = 0;
      // An entry on the ready list stays there and finds nothing to do.
      this.#flags[e]! &= Flag.ready;
    }
    this.#state[c] = State.free;
    this.#free.push(c);
  }

  /** What was left over, and connections that wait for a socket. @returns ends handled */
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

  /** Connections whose both ends stand; their addresses are asked of the kernel. */
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
    return true;
  }

  #stateOf(guest: number, remote: number): FlowState {
    if (this.#flags[guest]! & Flag.eof) return FlowState.closeWait;
    return this.#flags[remote]! & Flag.eof ? FlowState.finWait : FlowState.established;
  }

  /** What was moved before this connection had a pipe was another one's. */
  #movedBytes(end: number): number {
    return this.#pipeWrite[end] === 0 ? 0 : this.#moved[end]!;
  }

  #peer(end: number, rows: Float64Array, addressAt: number, portAt: number): boolean {
    const port = peerAddress(this.#fd[end]! - 1, this.#words, 0);
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

function refuse(fd: number): void {
  setLingerZero(fd);
  close(fd);
}
