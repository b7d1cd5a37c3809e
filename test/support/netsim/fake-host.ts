/**
 * A host-io stage without sockets, on virtual time. It sends the messages (link/to-shard.ts) that
 * src/workers/host-io/stream/sockets.ts sends, and throws when the shard breaks a rule of the protocol
 * between the stages.
 *
 *   peer ──peerWrite──▶ [queue: consumed .. peeked .. peerSent] ──data──▶ shard ──▶ guest
 *   peer ◀──received── [room] ◀── [frames that wait] ◀──send── shard ◀── guest
 *
 * Both streams are parts of the test pattern: each byte is determined by its offset. Bytes from the shard are
 * compared when they arrive.
 */

import {
  type FramePool,
  HEADROOM_BYTES,
  NO_SLOT,
  type Ownership,
  type SlotStack,
} from '../../../src/ring/pool.ts';
import type { RingConsumer, RingProducer } from '../../../src/ring/spsc.ts';
import { Errno } from '../../../src/sys/constants.ts';
import { HOST_STATE_WORDS } from '../../../src/workers/flow/flow-state.ts';
import {
  type DescriptorOut,
  linkBytes,
  linkFlow,
  linkOp,
  linkSlotA,
  linkSlotB,
  linkSlotOffset,
} from '../../../src/workers/link/descriptor.ts';
import type { ReaderReturns } from '../../../src/workers/link/reader-returns.ts';
import { Owner } from '../../../src/workers/link/slot-owner.ts';
import {
  acceptedSocket,
  creditAcked,
  creditLimit,
  creditReadLimit,
  openRemoteAt,
  openRemotePort,
  rewindBytes,
  rewindOffset,
  sendMark,
  sendUrgent,
  ToHost,
  takeOverStateAt,
  toHostText,
} from '../../../src/workers/link/to-host.ts';
import {
  acceptedWrite,
  closedWrite,
  DataKind,
  dataWrite,
  eofWrite,
  errorWrite,
  openedWrite,
  openFailedWrite,
  SentFlag,
  sentWrite,
  urgentWrite,
} from '../../../src/workers/link/to-shard.ts';
import { patternSlice } from '../pattern.ts';
import type { Clock } from './clock.ts';

/**
 * Offsets in the pattern where the streams begin. They differ, so that echoed bytes are not taken for the
 * right ones.
 */
export const TO_GUEST_FROM = 1_000_003;
export const FROM_GUEST_FROM = 5_000_011;

/** Copy stream bytes [offset, offset + bytes) to `out`. */
export function patternCopy(base: number, offset: number, out: Uint8Array): void {
  for (let done = 0; done < out.length; ) {
    const piece = patternSlice(base + offset + done, out.length - done);
    out.set(piece, done);
    done += piece.length;
  }
}

export function patternMatches(base: number, offset: number, bytes: Uint8Array): boolean {
  for (let done = 0; done < bytes.length; ) {
    const piece = patternSlice(base + offset + done, bytes.length - done);
    if (Buffer.compare(piece, bytes.subarray(done, done + piece.length)) !== 0) return false;
    done += piece.length;
  }
  return true;
}

const READS_PER_ROUND = 4;

export interface FakeHostOptions {
  readonly clock: Clock;
  readonly pool: FramePool;
  readonly ownership: Ownership;
  readonly slots: SlotStack;
  readonly fromShard: RingConsumer;
  readonly toShard: RingProducer;
  readonly toReaders: ReaderReturns;
  /** Released sockets by token, of all stages; absent: sockets do not move. */
  readonly moved?: Map<number, FakeSocket>;
  /** Called when a connect() begins: sets its outcome, e.g. socket.connectAfter(1). */
  onOpen(socket: FakeSocket): void;
  /** Called after an event outside poll(): schedules a poll(). */
  wake(): void;
}

interface Queued {
  slotA: number;
  slotB: number;
  at: number;
  len: number;
}

let tokens = 0;

/** One host socket with its peer. */
export class FakeSocket {
  #host: FakeHost;
  readonly #clock: Clock;
  flow: number;
  /** Remote address words and port of openTcp. */
  readonly address: readonly number[];
  readonly port: number;

  state: 'connecting' | 'open' | 'closed' = 'connecting';
  /** Offsets of the urgent bytes of the guest. */
  readonly urgent: number[] = [];
  /** setTos and keepAlive so far, as texts. */
  readonly options: string[] = [];
  /** How the shard has ended the socket. */
  closedBy: 'close' | 'reset' | 'failure' | null = null;
  /** Called when the shard has ended the socket, before `closed` is sent. */
  onClosed = (): void => {};

  // Peer -> guest, stream offsets.
  peerSent = 0;
  peeked = 0;
  consumed = 0;
  credit = 0;
  readLimit = 536;
  /** FIN is reported together with the last bytes. */
  finRides = false;
  peerFin = false;
  peerErrno = 0;
  eofSent = false;
  errorSent = false;

  // Guest -> peer.
  readonly queue: Queued[] = [];
  /** Bytes that the socket accepts before it blocks; grows when the peer reads. */
  room = Number.POSITIVE_INFINITY;
  /** Bytes that the peer has received, all in order. */
  received = 0;
  blocked = false;
  /** Slots freed to the reader since the last `sent`: small | large << 16. */
  freed = 0;
  /**
   * Provisional bytes at the end of the queue; number of refusals; whether the shard waits for a report of
   * room.
   */
  provisional = 0;
  refusals = 0;
  refused = false;
  finishing = false;
  closing = false;
  /** The peer has received FIN. */
  gotFin = false;
  sendErrno = 0;
  dirty = false;
  readable = false;
  /** In place of a descriptor. */
  readonly token = ++tokens;

  /** Called when bytes or FIN arrive at the peer. */
  onReceived: (() => void) | null = null;
  /** Called when the receive queue may have space for further bytes of the peer. */
  onConsumed: (() => void) | null = null;

  constructor(host: FakeHost, clock: Clock, flow: number, address: readonly number[], port: number) {
    this.#host = host;
    this.#clock = clock;
    this.flow = flow;
    this.address = address;
    this.port = port;
  }

  /** The socket belongs to another host-io stage from now on. */
  moveTo(host: FakeHost, flow: number): void {
    this.#host = host;
    this.flow = flow;
  }

  connectAfter(ms: number): void {
    this.#clock.after(ms, () => {
      if (this.state !== 'connecting') return;
      this.open();
      openedWrite(this.#host.toShard, this.flow);
      this.#host.wake();
    });
  }

  open(): void {
    this.state = 'open';
    this.readable = true;
  }

  failAfter(ms: number, errno: number): void {
    this.#clock.after(ms, () => {
      if (this.state !== 'connecting') return;
      this.state = 'closed';
      this.closedBy = 'failure';
      this.#host.dropQueue(this);
      openFailedWrite(this.#host.toShard, this.flow, errno);
      closedWrite(this.#host.toShard, this.flow);
      this.#host.forget(this);
      this.#host.wake();
    });
  }

  /** Bytes in the socket's receive queue. */
  get unread(): number {
    return this.peerSent - this.consumed;
  }

  peerWrite(bytes: number): void {
    if (this.peerFin) throw new Error('the peer writes after its FIN');
    this.peerSent += bytes;
    this.readable = true;
    this.#host.wake();
  }

  /** The peer sends bytes, the last of which is urgent. */
  peerWriteUrgent(bytes: number): void {
    urgentWrite(this.#host.toShard, this.flow, (this.peerSent + bytes - 1) >>> 0);
    this.peerWrite(bytes);
  }

  /** Last bytes and FIN in one read of host-io: DataKind.last. */
  peerWriteLast(bytes: number): void {
    this.finRides = true;
    this.peerWrite(bytes);
    this.peerClose();
  }

  peerClose(): void {
    this.peerFin = true;
    this.readable = true;
    this.#host.wake();
  }

  /** RST of the peer; bytes before it are still read. */
  peerReset(errno = Errno.ECONNRESET): void {
    this.peerErrno = errno;
    this.readable = true;
    this.#host.wake();
  }

  /** The next send fails. */
  breakSend(errno = 32): void {
    this.sendErrno = errno;
    this.dirty = true;
    this.#host.wake();
  }

  /** The peer has read: the socket accepts so many more bytes. */
  giveRoom(bytes: number): void {
    this.room += bytes;
    if (this.blocked) {
      this.blocked = false;
      this.dirty = true;
    }
    this.#host.wake();
  }
}

export class FakeHost {
  readonly #o: FakeHostOptions;
  /** Sockets that are not yet closed, by flow. */
  readonly sockets = new Map<number, FakeSocket>();
  /** All sockets so far. */
  readonly all: FakeSocket[] = [];
  /** Accepted sockets by token, until the shard adopts or refuses them. */
  readonly #pending = new Map<number, (socket: FakeSocket | null) => void>();
  #token = 100;
  /** Number of rewind commands so far. */
  rewinds = 0;

  constructor(options: FakeHostOptions) {
    this.#o = options;
  }

  wake(): void {
    this.#o.wake();
  }

  get toShard(): DescriptorOut {
    return this.#o.toShard;
  }

  #tellSent(s: FakeSocket, bytes: number, flags: number): void {
    sentWrite(this.toShard, s.flow, bytes, flags, s.freed);
    s.freed = 0;
  }

  #free(s: FakeSocket, slotA: number, slotB: number): void {
    s.freed += this.#o.pool.slotCost(slotA) + this.#o.pool.slotCost(slotB);
    this.freeReader(slotA, slotB);
  }

  /** A published listener accepts a connection. */
  accept(
    peer: readonly number[],
    peerPort: number,
    targetPort: number,
    family: 4 | 6,
    guest: Uint32Array,
    hash: number,
    done: (socket: FakeSocket | null) => void,
  ): void {
    const token = this.#token++;
    this.#pending.set(token, done);
    const ports = ((peerPort << 16) | targetPort) >>> 0;
    acceptedWrite(this.toShard, token, family, ports, hash, Uint32Array.from(peer), 0, guest, 0);
    this.#o.wake();
  }

  freeReader(slotA: number, slotB: number): void {
    this.#o.ownership.check(slotA, Owner.inFlight);
    this.#o.ownership.check(slotB, Owner.inFlight);
    this.#o.toReaders.free(slotA, slotB);
  }

  /** As HostIo.isBehind. */
  get isBehind(): boolean {
    return this.#o.toShard.overflowed > 0;
  }

  /** As HostIo.release(). */
  release(flow: number, state: Uint32Array): boolean {
    const s = this.sockets.get(flow);
    const { moved } = this.#o;
    if (s === undefined || moved === undefined || s.state !== 'open') return false;
    if (s.eofSent || s.errorSent || s.closing || s.sendErrno !== 0 || s.refused) return false;
    if (s.queue.length > 0 || s.freed !== 0 || s.provisional !== 0) return false;
    if (s.finishing && !s.gotFin) throw new Error('the socket is released before all commands are done');
    const token = s.token;
    state.set([token, s.refusals, s.consumed, 0xdead, s.peeked, s.credit, s.readLimit, 0xbeef]);
    // The stage's part of the state has to come by the message.
    Object.assign(s, { peeked: -1, credit: -1, readLimit: -1, refusals: -1 });
    this.sockets.delete(flow);
    moved.set(token, s);
    return true;
  }

  #takeOver(flow: number, w: Uint32Array, at: number): void {
    const [token, refusals, consumed, , peeked, credit, readLimit] = w.subarray(at, at + HOST_STATE_WORDS);
    const s = this.#o.moved?.get(token!);
    if (s === undefined) throw new Error(`shard: takeOver of unknown socket ${token}`);
    if (this.sockets.has(flow)) throw new Error(`shard: takeOver for flow ${flow}, which has a socket`);
    if (consumed !== s.consumed) throw new Error(`takeOver: ${consumed} consumed, not ${s.consumed}`);
    this.#o.moved!.delete(token!);
    Object.assign(s, { peeked, credit, readLimit, refusals, readable: true });
    s.moveTo(this, flow);
    this.sockets.set(flow, s);
  }

  /** @returns whether there was work */
  poll(): boolean {
    const ring = this.#o.fromShard;
    const count = ring.available();
    for (let i = 0; i < count; i++) this.#command(ring.words, ring.at(i));
    ring.release(count);
    let work = count > 0;
    for (const socket of [...this.sockets.values()]) {
      if (socket.state !== 'open') continue;
      if (socket.readable && this.#read(socket)) work = true;
      if (socket.dirty) {
        socket.dirty = false;
        this.#send(socket);
        work = true;
      }
    }
    if (this.#o.toShard.flush()) work = true;
    if (this.#o.toReaders.flush()) work = true;
    return work;
  }

  #socket(flow: number, op: string): FakeSocket {
    const socket = this.sockets.get(flow);
    if (socket === undefined) throw new Error(`shard: ${op} for flow ${flow}, which has no socket`);
    if (socket.closing) throw new Error(`shard: ${op} for flow ${flow} after close`);
    return socket;
  }

  #command(w: Uint32Array, at: number): void {
    const flow = linkFlow(w, at);
    const op = linkOp(w, at);
    switch (op) {
      case ToHost.freeSlots:
        this.#freeOwn(linkSlotA(w, at));
        this.#freeOwn(linkSlotB(w, at));
        return;
      case ToHost.openTcp: {
        if (this.sockets.has(flow)) throw new Error(`shard: openTcp for flow ${flow}, which has a socket`);
        const address = [...w.subarray(openRemoteAt(at), openRemoteAt(at) + 4)];
        const socket = new FakeSocket(this, this.#o.clock, flow, address, openRemotePort(w, at));
        this.sockets.set(flow, socket);
        this.all.push(socket);
        this.#o.onOpen(socket);
        return;
      }
      case ToHost.takeOver:
        return this.#takeOver(flow, w, takeOverStateAt(at));
      case ToHost.adopt:
      case ToHost.refuse: {
        const token = acceptedSocket(w, at);
        const done = this.#pending.get(token);
        if (done === undefined) throw new Error(`shard: answer for unknown token ${token}`);
        this.#pending.delete(token);
        if (op === ToHost.refuse) return done(null);
        const socket = new FakeSocket(this, this.#o.clock, flow, [], 0);
        this.sockets.set(flow, socket);
        this.all.push(socket);
        socket.open();
        return done(socket);
      }
      case ToHost.send:
        return this.#enqueue(
          flow,
          linkSlotA(w, at),
          linkSlotB(w, at),
          linkSlotOffset(w, at),
          linkBytes(w, at),
          sendMark(w, at),
          sendUrgent(w, at),
        );
      case ToHost.credit: {
        const s = this.#socket(flow, 'credit');
        if (s.state !== 'open') return;
        s.credit = creditLimit(w, at);
        s.readLimit = creditReadLimit(w, at);
        if (s.readLimit === 0 || s.readLimit > 65535) throw new Error(`shard: read limit ${s.readLimit}`);
        const n = (creditAcked(w, at) - s.consumed) | 0;
        if (n < 0)
          throw new Error(`shard: consumes ${creditAcked(w, at)}, less than the ${s.consumed} before`);
        if (s.consumed + n > s.peeked && n > 0 && s.consumed + n > s.peerSent) {
          throw new Error(
            `shard: consumes up to ${s.consumed + n} of ${s.peerSent} bytes that the peer sent`,
          );
        }
        s.consumed += n;
        if (s.peeked < s.consumed) s.peeked = s.consumed;
        if (n > 0) s.onConsumed?.();
        return;
      }
      case ToHost.rewind:
        return this.#rewind(this.#socket(flow, 'rewind'), rewindOffset(w, at), rewindBytes(w, at));
      case ToHost.finish: {
        const s = this.#socket(flow, 'finish');
        if (s.finishing) throw new Error('shard: finish twice');
        s.finishing = true;
        s.dirty = true;
        return;
      }
      case ToHost.close: {
        const s = this.#socket(flow, 'close');
        s.closing = true;
        s.dirty = true;
        return;
      }
      case ToHost.reset: {
        // The command crossed openFailed: the shard has `closed` already and gets no second one.
        if (this.all.findLast((s) => s.flow === flow)?.closedBy === 'failure') return;
        return this.#closeNow(this.#socket(flow, 'reset'), 'reset');
      }
      case ToHost.setTos:
      case ToHost.keepAlive:
        this.#socket(flow, 'an option').options.push(toHostText(w, at));
        return;
      default:
        throw new Error(`shard: unknown command ${toHostText(w, at)}`);
    }
  }

  #freeOwn(slot: number): void {
    if (slot === NO_SLOT) return;
    this.#o.ownership.check(slot, Owner.hostIo);
    this.#o.slots.push(slot);
  }

  #enqueue(
    flow: number,
    slotA: number,
    slotB: number,
    at: number,
    len: number,
    mark: number,
    urgent: number,
  ): void {
    const s = this.#socket(flow, 'send');
    if (urgent > len) throw new Error('shard: an urgent byte behind the last one');
    if (urgent > 0) s.urgent.push(s.queue.reduce((sum, frame) => sum + frame.len, s.received) + urgent - 1);
    if (s.finishing) throw new Error('shard: send after finish');
    if (len === 0) throw new Error('shard: send of no bytes');
    if (at + len > this.#o.pool.slotBytes(slotA) + (slotB === NO_SLOT ? 0 : this.#o.pool.slotBytes(slotB))) {
      throw new Error('shard: send reaches past its slots');
    }
    if (s.state !== 'open' || s.sendErrno !== 0) {
      this.#free(s, slotA, slotB);
      this.#tellSent(s, len, SentFlag.empty);
      return;
    }
    s.dirty = true;
    if (mark !== 0) {
      if (mark - 1 !== s.refusals) return this.#free(s, slotA, slotB);
      s.queue.push({ slotA, slotB, at, len });
      s.provisional += len;
      return;
    }
    if (s.provisional > 0) throw new Error('shard: acknowledged bytes after provisional ones');
    const tail = s.queue[s.queue.length - 1];
    if (tail !== undefined && s.blocked && len <= 32_768 && this.#append(tail, slotA, slotB, at, len)) {
      this.#free(s, slotA, slotB);
    } else s.queue.push({ slotA, slotB, at, len });
  }

  /** Small pieces that wait for a blocked socket are merged into shared slots. */
  #append(tail: Queued, slotA: number, slotB: number, at: number, len: number): boolean {
    const pool = this.#o.pool;
    const inTailA = pool.slotBytes(tail.slotA) - tail.at;
    const last = tail.slotB === NO_SLOT ? tail.slotA : tail.slotB;
    const end = tail.slotB === NO_SLOT ? tail.at + tail.len : tail.len - inTailA;
    if (end + len > pool.slotBytes(last)) return false;
    const inA = Math.min(len, pool.slotBytes(slotA) - at);
    const from = pool.slotAt(slotA) + at;
    pool.u8.copyWithin(pool.slotAt(last) + end, from, from + inA);
    if (len > inA) {
      const more = pool.slotAt(slotB);
      pool.u8.copyWithin(pool.slotAt(last) + end + inA, more, more + len - inA);
    }
    tail.len += len;
    return true;
  }

  #send(s: FakeSocket): void {
    if (s.sendErrno !== 0 && !s.errorSent) {
      const dropped = this.dropQueue(s);
      s.provisional = 0;
      this.#tellSent(s, dropped, SentFlag.empty);
      if (s.closing) return this.#closeNow(s, 'reset');
      s.peerErrno = s.sendErrno;
      s.readable = true;
      return;
    }
    const had = s.queue.length > 0;
    let total = 0;
    while (s.queue.length > 0 && !s.blocked) {
      const q = s.queue[0]!;
      const n = Math.min(q.len, s.room);
      if (n === 0) {
        s.blocked = true;
        break;
      }
      this.#take(s, q, n);
      total += n;
      s.room -= n;
      if (n < q.len) s.blocked = true;
      this.#advance(s, q, n);
    }
    const waiting = s.queue.reduce((n, q) => n + q.len, 0);
    const left = Math.min(s.provisional, waiting);
    s.provisional = 0;
    if (left > 0) {
      for (let kept = waiting; kept > waiting - left; ) {
        const q = s.queue.pop()!;
        kept -= q.len;
        this.#free(s, q.slotA, q.slotB);
      }
      s.refusals = (s.refusals + 1) & 255;
      s.refused = true;
    }
    const wasRefused = s.refused;
    if (!s.blocked) s.refused = false;
    if (had || s.freed > 0 || wasRefused !== s.refused) {
      const takesMore = s.queue.length === 0 && !s.refused;
      this.#tellSent(s, total, (left > 0 ? SentFlag.refused : 0) | (takesMore ? SentFlag.empty : 0));
    }
    if (total > 0) s.onReceived?.();
    if (s.queue.length > 0) return;
    if (s.closing) {
      if (!s.gotFin) {
        s.gotFin = true;
        s.onReceived?.();
      }
      return this.#closeNow(s, 'close');
    }
    if (s.finishing && !s.gotFin) {
      s.gotFin = true;
      s.onReceived?.();
    }
  }

  /** Compare the next n bytes with the guest's stream. */
  #take(s: FakeSocket, q: Queued, n: number): void {
    const pool = this.#o.pool;
    const inA = Math.min(n, pool.slotBytes(q.slotA) - q.at);
    const a = pool.slotAt(q.slotA) + q.at;
    const ok = patternMatches(FROM_GUEST_FROM, s.received, pool.u8.subarray(a, a + inA));
    const b = n > inA ? pool.slotAt(q.slotB) : 0;
    if (!ok || !patternMatches(FROM_GUEST_FROM, s.received + inA, pool.u8.subarray(b, b + n - inA))) {
      throw new Error(`host peer: wrong bytes in [${s.received}, ${s.received + n})`);
    }
    s.received += n;
  }

  #advance(s: FakeSocket, q: Queued, n: number): void {
    if (n === q.len) {
      s.queue.shift();
      this.#free(s, q.slotA, q.slotB);
      return;
    }
    q.len -= n;
    const inA = this.#o.pool.slotBytes(q.slotA) - q.at;
    if (n < inA) {
      q.at += n;
      return;
    }
    this.#free(s, q.slotA, NO_SLOT);
    q.slotA = q.slotB;
    q.slotB = NO_SLOT;
    q.at = n - inA;
  }

  dropQueue(s: FakeSocket): number {
    let bytes = 0;
    for (const q of s.queue.splice(0)) {
      bytes += q.len;
      this.#free(s, q.slotA, q.slotB);
    }
    return bytes;
  }

  #closeNow(s: FakeSocket, by: 'close' | 'reset'): void {
    this.dropQueue(s);
    s.state = 'closed';
    s.closedBy = by;
    s.onClosed();
    closedWrite(this.toShard, s.flow);
    this.forget(s);
  }

  forget(s: FakeSocket): void {
    if (this.sockets.get(s.flow) === s) this.sockets.delete(s.flow);
  }

  #rewind(s: FakeSocket, offset: number, bytes: number): void {
    if (s.state !== 'open') return;
    this.rewinds++;
    // Bytes that were not read again since a rewind of everything are sent in order later.
    if (bytes > 0 && offset > s.peeked) return;
    if (offset > s.peeked) throw new Error(`shard: rewinds forward, to ${offset} from ${s.peeked}`);
    let from = Math.max(offset, s.consumed);
    if (bytes === 0) {
      if (s.peeked > from) s.peeked = from;
      s.readable = true;
      return;
    }
    let left = Math.min(offset + bytes, s.peeked) - from;
    while (left > 0) {
      const slot = this.#o.slots.pop();
      if (slot === NO_SLOT) return;
      const n = Math.min(left, s.readLimit);
      this.#pass(s, slot, n, from, DataKind.again);
      from += n;
      left -= n;
    }
  }

  #pass(s: FakeSocket, slot: number, bytes: number, offset: number, kind: DataKind): void {
    const pool = this.#o.pool;
    const start = pool.slotAt(slot);
    // Overwrite stale bytes of the slot, so that their use is noticed.
    pool.u8.fill(0xa5, start, start + HEADROOM_BYTES);
    patternCopy(
      TO_GUEST_FROM,
      offset,
      pool.u8.subarray(start + HEADROOM_BYTES, start + HEADROOM_BYTES + bytes),
    );
    dataWrite(this.toShard, s.flow, slot, HEADROOM_BYTES, bytes, offset, kind);
  }

  #read(s: FakeSocket): boolean {
    for (let reads = 0; s.readable; reads++) {
      const room = (s.credit - s.peeked) | 0;
      const inFlight = s.peeked - s.consumed;
      if (room <= 0 || (inFlight > 0 && room < s.readLimit >>> 1)) return reads > 0;
      if (reads === READS_PER_ROUND) return true;
      const slot = this.#o.slots.pop();
      if (slot === NO_SLOT) return false;
      const want = Math.min(room, s.readLimit);
      const n = Math.min(want, s.peerSent - s.peeked);
      if (n === 0) {
        this.#o.slots.push(slot);
        s.readable = false;
        if (s.peerErrno !== 0) {
          if (!s.errorSent) {
            s.errorSent = true;
            errorWrite(this.toShard, s.flow, s.peerErrno);
          }
        } else if (s.peerFin && !s.eofSent) {
          s.eofSent = true;
          eofWrite(this.toShard, s.flow, s.peeked);
        }
        return true;
      }
      s.peeked += n;
      const last = s.finRides && s.peerFin && !s.eofSent && n < want;
      this.#pass(s, slot, n, s.peeked - n, last ? DataKind.last : DataKind.next);
      if (n < want && !s.peerFin && s.peerErrno === 0) s.readable = false;
    }
    return false;
  }
}
