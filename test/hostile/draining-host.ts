/**
 * A substitute for host-io while the shards get hostile frames: it accepts all commands, and sends any
 * messages that link/to-shard.ts allows. All random decisions come from one seed.
 */
import {
  type FramePool,
  HEADROOM_BYTES,
  NO_SLOT,
  type Ownership,
  type SlotStack,
} from '../../src/ring/pool.ts';
import type { RingConsumer, RingProducer } from '../../src/ring/spsc.ts';
import { Errno, IPPROTO_UDP } from '../../src/sys/constants.ts';
import type { EnginePlan } from '../../src/workers/engine-plan.ts';
import { Addressing } from '../../src/workers/flow/addressing.ts';
import { flowHash } from '../../src/workers/flow/flow-hash.ts';
import type { FlowOwners } from '../../src/workers/flow/flow-owner.ts';
import { HOST_STATE_WORDS } from '../../src/workers/flow/flow-state.ts';
import {
  linkBytes,
  linkFlow,
  linkOp,
  linkSlotA,
  linkSlotB,
  linkSlotOffset,
} from '../../src/workers/link/descriptor.ts';
import type { ReaderReturns } from '../../src/workers/link/reader-returns.ts';
import { Owner } from '../../src/workers/link/slot-owner.ts';
import {
  acceptedSocket,
  creditAcked,
  creditLimit,
  creditReadLimit,
  openUdpGroup,
  rewindBytes,
  rewindOffset,
  sendDatagramIsBorrowed,
  sendMark,
  ToHost,
  takeOverStateAt,
  toHostText,
} from '../../src/workers/link/to-host.ts';
import {
  acceptedWrite,
  closedWrite,
  DataKind,
  datagramWrite,
  dataWrite,
  eofWrite,
  errorWrite,
  groupDatagramWrite,
  icmpErrorWrite,
  listenerDatagramGuestWrite,
  listenerDatagramWrite,
  openedWrite,
  openFailedWrite,
  SentFlag,
  sentWrite,
  unsolicitedDatagramWrite,
} from '../../src/workers/link/to-shard.ts';
import type { Prng } from '../support/netsim/prng.ts';

/** Ports of the guest that are published. */
export const PUBLISHED = [8000, 8001, 8002, 8003] as const;
/** Ports of which each lane has one. */
const OTHER_PORTS = Array.from({ length: 64 }, (_, i) => 8100 + i);

const Kind = { none: 0, connecting: 1, tcp: 2, udp: 3, ping: 4, failed: 5, group: 6 } as const;
const { EACCES } = Errno;
const ERRNOS = [
  Errno.ECONNREFUSED,
  Errno.EHOSTUNREACH,
  Errno.ENETUNREACH,
  Errno.ETIMEDOUT,
  EACCES,
  Errno.ECONNRESET,
];

export interface DrainingHostOptions {
  readonly plan: EnginePlan;
  readonly pool: FramePool;
  readonly ownership: Ownership;
  readonly smallSlots: SlotStack;
  readonly largeSlots: SlotStack;
  readonly fromShards: readonly RingConsumer[];
  readonly toShards: readonly RingProducer[];
  readonly toReaders: ReaderReturns;
  /** As HostIoOptions. */
  readonly acceptedTo: readonly RingProducer[];
  readonly owners: FlowOwners;
  /** Number of the lane; 0 where there are none. */
  readonly lane: number;
  /** Numbers in place of accepted descriptors, those of all lanes. */
  readonly tokens: { next: number; readonly open: Set<number> };
  /** Sockets on their way to another lane, of all lanes; absent: there are none. */
  readonly moved?: Map<number, MovedSocket>;
  readonly prng: Prng;
}

/** What a socket takes along that is not in the state of its flow. */
export interface MovedSocket {
  /** Highest offset that was ever peeked. */
  readonly highest: number;
}

export class DrainingHost {
  readonly #o: DrainingHostOptions;
  readonly #flows: number;
  /** All links to shards. */
  readonly #links: readonly RingProducer[];
  readonly #kind: Uint8Array;
  readonly #peeked: Uint32Array;
  /** Highest offset that was ever peeked: the guest may acknowledge up to there, also after a rewind. */
  readonly #highest: Uint32Array;
  readonly #consumed: Uint32Array;
  readonly #credit: Uint32Array;
  readonly #limit: Uint32Array;
  /** eof or error was sent: of stream messages only `closed` may follow. */
  readonly #ended: Uint8Array;
  /** By gid: frames that the socket has not accepted. */
  readonly #held = new Map<number, number[]>();
  /** By gid: number of refusals of provisional bytes. */
  readonly #refusals: Uint8Array;
  readonly #connecting: number[] = [];
  readonly #addressing: Addressing;
  readonly #words = new Uint32Array(8);
  /** No more events by itself: all flows are to end. */
  quiet = false;
  messages = 0;
  opens = 0;
  takenOver = 0;
  stalls = 0;

  constructor(o: DrainingHostOptions) {
    this.#o = o;
    this.#flows = o.plan.pool.flows;
    this.#links = [...new Set([...o.toShards, ...o.acceptedTo])];
    const gids = this.#flows * o.toShards.length;
    this.#kind = new Uint8Array(gids);
    this.#refusals = new Uint8Array(gids);
    this.#peeked = new Uint32Array(gids);
    this.#highest = new Uint32Array(gids);
    this.#consumed = new Uint32Array(gids);
    this.#credit = new Uint32Array(gids);
    this.#limit = new Uint32Array(gids);
    this.#ended = new Uint8Array(gids);
    this.#addressing = new Addressing(o.plan.addresses, o.plan.policy);
  }

  get open(): number {
    let n = 0;
    for (let i = 0; i < this.#kind.length; i++) if (this.#kind[i] !== Kind.none) n++;
    return n;
  }

  poll(): number {
    let work = 0;
    for (let shard = 0; shard < this.#o.fromShards.length; shard++) {
      const ring = this.#o.fromShards[shard]!;
      const count = ring.available();
      for (let i = 0; i < count; i++) this.#command(shard * this.#flows, ring.words, ring.at(i));
      ring.release(count);
      work += count;
    }
    if (this.quiet) this.#windUp();
    else this.#misbehave();
    for (const ring of this.#links) if (ring.flush()) work++;
    if (this.#o.toReaders.flush()) work++;
    this.messages += work;
    return work;
  }

  /** As HostIo.isBehind. */
  get isBehind(): boolean {
    return this.#links.some((link) => link.overflowed > 0);
  }

  /** As HostIo.release(). */
  release(gid: number, state: Uint32Array): boolean {
    const { moved, tokens } = this.#o;
    if (moved === undefined || this.#kind[gid] !== Kind.tcp) return false;
    if (this.#ended[gid] || this.#held.has(gid)) return false;
    const token = tokens.next++;
    state.set([token, this.#refusals[gid]!, this.#consumed[gid]!, this.#peeked[gid]!, this.#credit[gid]!]);
    state[5] = this.#limit[gid]!;
    moved.set(token, { highest: this.#highest[gid]! });
    this.#kind[gid] = Kind.none;
    return true;
  }

  #takeOver(gid: number, w: Uint32Array, at: number): void {
    const [token, refusals, consumed, peeked, credit, limit] = w.subarray(at, at + HOST_STATE_WORDS);
    const socket = this.#o.moved?.get(token!);
    if (socket === undefined) throw new Error(`takeOver: flow ${gid}: unknown socket ${token}`);
    if (this.#kind[gid] !== Kind.none) throw new Error(`takeOver: flow ${gid} is of kind ${this.#kind[gid]}`);
    this.#o.moved!.delete(token!);
    this.#begin(gid, Kind.tcp);
    this.#refusals[gid] = refusals!;
    this.#consumed[gid] = consumed!;
    this.#peeked[gid] = peeked!;
    this.#highest[gid] = socket.highest;
    this.#credit[gid] = credit!;
    this.#limit[gid] = limit!;
    this.takenOver++;
  }

  #out(gid: number): RingProducer {
    return this.#o.toShards[Math.floor(gid / this.#flows)]!;
  }

  #flowOf(gid: number): number {
    return gid % this.#flows;
  }

  #freeReader(a: number, b: number): void {
    this.#o.ownership.check(a, Owner.inFlight);
    this.#o.ownership.check(b, Owner.inFlight);
    this.#o.toReaders.free(a, b);
  }

  #freeOwn(slot: number): void {
    if (slot === NO_SLOT) return;
    this.#o.ownership.check(slot, Owner.hostIo);
    if (this.#o.pool.isSmall(slot)) this.#o.smallSlots.push(slot);
    else this.#o.largeSlots.push(slot);
  }

  #command(base: number, w: Uint32Array, at: number): void {
    const r = this.#o.prng;
    const gid = base + linkFlow(w, at);
    const kind = this.#kind[gid];
    const op = linkOp(w, at);
    switch (op) {
      case ToHost.freeSlots:
        this.#freeOwn(linkSlotA(w, at));
        this.#freeOwn(linkSlotB(w, at));
        return;
      case ToHost.group:
        return;
      case ToHost.openTcp:
        if (kind !== Kind.none) throw new Error(`openTcp: flow ${gid} is of kind ${kind}`);
        this.opens++;
        this.#begin(gid, Kind.connecting);
        if (r.chance(0.75)) {
          this.#kind[gid] = Kind.tcp;
          openedWrite(this.#out(gid), this.#flowOf(gid));
        } else this.#connecting.push(gid);
        return;
      case ToHost.openUdp:
      case ToHost.openPing:
        if (kind !== Kind.none) throw new Error(`openUdp: flow ${gid} is of kind ${kind}`);
        this.opens++;
        this.#begin(
          gid,
          op === ToHost.openPing ? Kind.ping : openUdpGroup(w, at) !== 0 ? Kind.group : Kind.udp,
        );
        if (r.chance(0.03)) {
          const forbidden = this.#kind[gid] === Kind.ping && r.chance(0.5);
          this.#kind[gid] = Kind.failed;
          openFailedWrite(this.#out(gid), this.#flowOf(gid), forbidden ? EACCES : r.pick(ERRNOS));
        }
        return;
      case ToHost.takeOver:
        return this.#takeOver(gid, w, takeOverStateAt(at));
      case ToHost.adopt:
        if (!this.#o.tokens.open.delete(acceptedSocket(w, at))) throw new Error(toHostText(w, at));
        if (kind !== Kind.none) throw new Error(`adopt: flow ${gid} is of kind ${kind}`);
        this.#begin(gid, Kind.tcp);
        return;
      case ToHost.refuse:
        // A flow for which the next lane had no room.
        if (this.#o.moved?.delete(acceptedSocket(w, at))) return;
        if (!this.#o.tokens.open.delete(acceptedSocket(w, at))) throw new Error(toHostText(w, at));
        return;
      case ToHost.send:
        return this.#send(gid, linkSlotA(w, at), linkSlotB(w, at), linkBytes(w, at), sendMark(w, at));
      case ToHost.credit: {
        if (kind !== Kind.tcp) throw new Error(`credit: flow ${gid} is of kind ${kind}`);
        this.#credit[gid] = creditLimit(w, at);
        const consumed = creditAcked(w, at);
        if (((consumed - this.#consumed[gid]!) | 0) < 0 || ((consumed - this.#highest[gid]!) | 0) > 0) {
          throw new Error(
            `credit: flow ${gid} consumes ${consumed} after ${this.#consumed[gid]}, peeked ${this.#highest[gid]}`,
          );
        }
        this.#consumed[gid] = consumed;
        if (((this.#peeked[gid]! - consumed) | 0) < 0) this.#peeked[gid] = consumed;
        this.#limit[gid] = creditReadLimit(w, at);
        if (!this.quiet && r.chance(0.5)) this.#read(gid);
        return;
      }
      case ToHost.rewind: {
        if (kind !== Kind.tcp) throw new Error(`rewind: flow ${gid} is of kind ${kind}`);
        const offset = rewindOffset(w, at);
        const bytes = rewindBytes(w, at);
        if (bytes === 0) {
          if (((this.#peeked[gid]! - offset) | 0) > 0) this.#peeked[gid] = offset;
        } else if (((this.#peeked[gid]! - offset) | 0) > 0) {
          this.#pass(
            gid,
            Math.min(bytes, (this.#peeked[gid]! - offset) | 0, this.#limit[gid]!),
            offset,
            DataKind.again,
          );
        }
        return;
      }
      case ToHost.setTos:
      case ToHost.keepAlive:
        if (kind !== Kind.tcp) throw new Error(`${toHostText(w, at)}: flow ${gid} is of kind ${kind}`);
        return;
      case ToHost.finish:
        if (kind !== Kind.tcp) throw new Error(`finish: flow ${gid} is of kind ${kind}`);
        if (r.chance(0.7)) this.#eof(gid);
        return;
      case ToHost.close:
      case ToHost.reset: {
        // A failed connect() has sent `closed` already.
        if (kind === Kind.none && op === ToHost.reset) return;
        if (kind === Kind.none) throw new Error(`close: flow ${gid} is not open`);
        const held = this.#held.get(gid) ?? [];
        for (let i = 0; i < held.length; i += 3) this.#freeReader(held[i]!, held[i + 1]!);
        this.#held.delete(gid);
        // A datagram may arrive while the close command is under way.
        if ((kind === Kind.udp || kind === Kind.ping) && !this.quiet && r.chance(0.05))
          this.#bigDatagram(gid);
        this.#kind[gid] = Kind.none;
        closedWrite(this.#out(gid), this.#flowOf(gid));
        return;
      }
      case ToHost.sendDatagram:
        return this.#datagram(gid, w, at);
      case ToHost.sendFromListener:
        this.#freeReader(linkSlotA(w, at), linkSlotB(w, at));
        return;
      default:
        throw new Error(`unknown command ${toHostText(w, at)}`);
    }
  }

  #begin(gid: number, kind: number): void {
    this.#kind[gid] = kind;
    this.#refusals[gid] = 0;
    this.#peeked[gid] = 0;
    this.#highest[gid] = 0;
    this.#consumed[gid] = 0;
    this.#credit[gid] = 0;
    this.#limit[gid] = 536;
    this.#ended[gid] = 0;
  }

  /** @param mark  sendMark() */
  #send(gid: number, a: number, b: number, len: number, mark: number): void {
    const kind = this.#kind[gid];
    if (kind !== Kind.tcp) throw new Error(`send: flow ${gid} is of kind ${kind}`);
    const held = this.#held.get(gid);
    const cost = this.#o.pool.slotCost(a) + this.#o.pool.slotCost(b);
    if (mark !== 0 && mark - 1 !== this.#refusals[gid]) {
      this.#freeReader(a, b);
      return this.#tellSent(gid, 0, 0, cost);
    }
    if (mark !== 0 && (held !== undefined || (!this.quiet && this.#o.prng.chance(0.2)))) {
      this.#freeReader(a, b);
      this.#refusals[gid]!++;
      if (held === undefined) this.#held.set(gid, []);
      return this.#tellSent(gid, 0, SentFlag.refused, cost);
    }
    if (held !== undefined || (!this.quiet && this.#held.size < 32 && this.#o.prng.chance(0.02))) {
      this.stalls++;
      if (held !== undefined) held.push(a, b, len);
      else this.#held.set(gid, [a, b, len]);
      return this.#tellSent(gid, 0, 0, 0);
    }
    this.#freeReader(a, b);
    this.#tellSent(gid, len, SentFlag.empty, cost);
  }

  /** @param freed  slots, small | large << 16 */
  #tellSent(gid: number, bytes: number, flags: number, freed: number): void {
    sentWrite(this.#out(gid), this.#flowOf(gid), bytes, flags, freed);
  }

  #release(gid: number): void {
    const held = this.#held.get(gid);
    if (held === undefined) return;
    let bytes = 0;
    let freed = 0;
    for (let i = 0; i < held.length; i += 3) {
      freed += this.#o.pool.slotCost(held[i]!) + this.#o.pool.slotCost(held[i + 1]!);
      this.#freeReader(held[i]!, held[i + 1]!);
      bytes += held[i + 2]!;
    }
    this.#held.delete(gid);
    this.#tellSent(gid, bytes, SentFlag.empty, freed);
  }

  #read(gid: number): void {
    if (this.#ended[gid] || this.#kind[gid] !== Kind.tcp) return;
    const room = (this.#credit[gid]! - this.#peeked[gid]!) | 0;
    if (room <= 0) return;
    const n = Math.min(
      room,
      this.#limit[gid]!,
      this.#o.prng.chance(0.1) ? 65_535 : this.#o.prng.int(1, 3000),
    );
    if (!this.#pass(gid, n, this.#peeked[gid]!, DataKind.next)) return;
    const peeked = (this.#peeked[gid]! + n) >>> 0;
    this.#peeked[gid] = peeked;
    if (((peeked - this.#highest[gid]!) | 0) > 0) this.#highest[gid] = peeked;
  }

  #pass(gid: number, bytes: number, offset: number, kind: DataKind): boolean {
    if (bytes <= 0) return false;
    const slot = this.#o.largeSlots.pop();
    if (slot === NO_SLOT) return false;
    dataWrite(this.#out(gid), this.#flowOf(gid), slot, HEADROOM_BYTES, bytes, offset, kind);
    return true;
  }

  #eof(gid: number): void {
    if (this.#ended[gid] || this.#kind[gid] !== Kind.tcp) return;
    this.#ended[gid] = 1;
    eofWrite(this.#out(gid), this.#flowOf(gid), this.#peeked[gid]!);
  }

  #datagram(gid: number, w: Uint32Array, at: number): void {
    const { pool, prng: r } = this.#o;
    const kind = this.#kind[gid]!;
    if (kind !== Kind.udp && kind !== Kind.ping && kind !== Kind.failed && kind !== Kind.group)
      throw new Error(`sendDatagram: flow ${gid} is of kind ${kind}`);
    const slotA = linkSlotA(w, at);
    const slotB = linkSlotB(w, at);
    const len = linkBytes(w, at);
    const slotOffset = linkSlotOffset(w, at);
    const from = pool.slotAt(slotA) + slotOffset;
    if (slotOffset + len > pool.slotBytes(slotA) + (slotB === NO_SLOT ? 0 : pool.slotBytes(slotB))) {
      throw new Error(`sendDatagram: ${len} bytes at ${slotOffset} reach past the slots`);
    }
    // Nobody sends from the address of a group.
    const isAnswered = !this.quiet && kind !== Kind.failed && kind !== Kind.group;
    if (isAnswered && r.chance(0.4)) {
      const slot = this.#o.smallSlots.pop();
      if (slot !== NO_SLOT) {
        // An echo, as long as it fits; DNS and ping answers differ from requests in a byte or two.
        const n = Math.min(len, pool.slotBytes(slotA) - slotOffset, 1900);
        const to = pool.slotAt(slot) + HEADROOM_BYTES;
        pool.u8.copyWithin(to, from, from + n);
        if (kind === Kind.udp && n > 3 && r.chance(0.8)) pool.u8[to + 2]! |= 0x80;
        if (kind === Kind.ping && n > 0) pool.u8[to] = pool.u8[to] === 8 ? 0 : 129;
        if (r.chance(0.3) && n > 0) pool.u8[to + r.int(0, n - 1)] = r.u32();
        const ttl = r.int(0, 255);
        datagramWrite(this.#out(gid), this.#flowOf(gid), slot, NO_SLOT, HEADROOM_BYTES, n, ttl, 0);
      }
    } else if (isAnswered && r.chance(0.01)) {
      this.#bigDatagram(gid);
    } else if (!this.quiet && kind !== Kind.failed && r.chance(0.1)) {
      const typeCode = r.pick([
        0x0301,
        0x0303,
        0x0304,
        0x0b00,
        0x0c00,
        0x0104,
        0x0200,
        0x0500,
        0,
        r.int(0, 65_535),
      ]);
      const info = r.pick([0, 1280, 500, 0xffffffff]);
      // The part of the datagram that the error queue of the host kept, if any.
      const slot = r.chance(0.5) ? this.#o.smallSlots.pop() : NO_SLOT;
      const bytes = r.int(0, 1280);
      const errno = r.pick(ERRNOS);
      const offender = Uint32Array.of(0, 0, 0xffff, 0xc6336401).map((word) => (r.chance(0.5) ? 0 : word));
      icmpErrorWrite(
        this.#out(gid),
        this.#flowOf(gid),
        typeCode,
        info,
        errno,
        r.int(0, 65_535),
        offender,
        slot,
        HEADROOM_BYTES,
        bytes,
      );
    }
    if (!sendDatagramIsBorrowed(w, at)) this.#freeReader(slotA, slotB);
  }

  /** A datagram of any length in two slots: it must be fragmented, or is longer than allowed. */
  #bigDatagram(gid: number): void {
    const small = this.#o.smallSlots.pop();
    const large = this.#o.largeSlots.pop();
    if (small === NO_SLOT || large === NO_SLOT) {
      this.#freeOwn(small);
      this.#freeOwn(large);
      return;
    }
    const len = this.#o.prng.pick([1921, 3000, 9001, 65_507, 65_535]);
    datagramWrite(this.#out(gid), this.#flowOf(gid), small, large, HEADROOM_BYTES, len, 0, 0);
  }

  /** Events of the host that no command causes. */
  #misbehave(): void {
    const r = this.#o.prng;
    for (let i = 0; i < 2; i++) {
      const gid = r.int(0, this.#kind.length - 1);
      const kind = this.#kind[gid];
      if (kind === Kind.tcp) {
        const what = r.int(0, 9);
        if (what < 5) this.#read(gid);
        else if (what < 7) this.#release(gid);
        else if (what === 7) this.#eof(gid);
        else if (what === 8 && !this.#ended[gid]) {
          this.#ended[gid] = 1;
          errorWrite(this.#out(gid), this.#flowOf(gid), r.pick(ERRNOS));
        }
      } else if (kind === Kind.udp && r.chance(0.01)) {
        this.#kind[gid] = Kind.failed;
        errorWrite(this.#out(gid), this.#flowOf(gid), r.pick(ERRNOS));
      }
    }
    if (this.#connecting.length > 50 || (this.#connecting.length > 0 && r.chance(0.2)))
      this.#decide(this.#connecting.shift()!);
    if (this.#o.lane === 0) {
      if (r.chance(0.01)) this.#accept();
      if (r.chance(0.02)) this.#listenerDatagram();
      if (this.#o.plan.policy.multicast !== undefined && r.chance(0.02)) this.#groupDatagram();
    }
    if (r.chance(0.02)) this.#unsolicitedDatagram();
  }

  #decide(gid: number): void {
    if (this.#kind[gid] !== Kind.connecting) return;
    if (this.#o.prng.chance(0.3)) {
      this.#kind[gid] = Kind.tcp;
      openedWrite(this.#out(gid), this.#flowOf(gid));
    } else {
      this.#kind[gid] = Kind.none;
      openFailedWrite(this.#out(gid), this.#flowOf(gid), this.#o.prng.pick(ERRNOS));
      closedWrite(this.#out(gid), this.#flowOf(gid));
    }
  }

  #tuple(out: Uint32Array): { peerPort: number; target: number; v4: boolean; hash: number } {
    const r = this.#o.prng;
    const v4 = r.chance(0.6);
    out.set(v4 ? [0, 0, 0xffff, 0xc6336400 | r.int(0, 255)] : [0x20010db8, 1, 0, r.int(0, 255)]);
    const peerPort = r.int(1, 65_535);
    const target = r.pick(PUBLISHED);
    const hash = flowHash(
      this.#o.plan.hashKey,
      this.#addressing.guest,
      v4 ? 0 : 4,
      out,
      0,
      ((target << 16) | peerPort) >>> 0,
      6,
    );
    return { peerPort, target, v4, hash };
  }

  #accept(): void {
    const { peerPort, target, v4, hash } = this.#tuple(this.#words);
    const { acceptedTo, owners, tokens } = this.#o;
    const out = acceptedTo[owners.ofHash(hash)]!;
    const token = tokens.next++;
    tokens.open.add(token);
    const ports = ((peerPort << 16) | target) >>> 0;
    acceptedWrite(out, token, v4 ? 4 : 6, ports, hash, this.#words, 0, this.#addressing.guest, v4 ? 0 : 4);
  }

  #listenerDatagram(): void {
    const slot = this.#o.smallSlots.pop();
    if (slot === NO_SLOT) return;
    const { peerPort, target, v4 } = this.#tuple(this.#words);
    const { pool, prng } = this.#o;
    listenerDatagramGuestWrite(pool.u8, pool.slotAt(slot), this.#addressing.guest, v4 ? 0 : 4);
    const bytes = prng.int(0, 1900);
    const ports = ((peerPort << 16) | target) >>> 0;
    const both = Uint32Array.of(...this.#words.subarray(0, 4), 0, 0, 0xffff, 0xc6336432);
    // The message must go to the shard that owns the hash; these runs use one shard for it.
    const out = this.#o.toShards[0]!;
    listenerDatagramWrite(out, 1, 0, slot, NO_SLOT, HEADROOM_BYTES, bytes, ports, both, 0);
  }

  #groupDatagram(): void {
    const slot = this.#o.smallSlots.pop();
    if (slot === NO_SLOT) return;
    const { prng } = this.#o;
    const { peerPort, v4 } = this.#tuple(this.#words);
    const group = v4 ? [0, 0, 0xffff, 0xef010203] : [0xff050000, 0, 0, 1];
    const both = Uint32Array.of(...this.#words.subarray(0, 4), ...group);
    const ports = ((peerPort << 16) | 5353) >>> 0;
    const bytes = prng.int(0, 1900);
    const out = this.#o.toShards[0]!;
    groupDatagramWrite(out, slot, NO_SLOT, HEADROOM_BYTES, bytes, prng.int(0, 255), ports, both, 0);
  }

  /** Ports of the guest whose UDP flows are those of the stage. */
  #udpPorts(): readonly number[] {
    const { owners, lane } = this.#o;
    if (!owners.areLanes || lane === 0) return PUBLISHED;
    return OTHER_PORTS.filter((port) => owners.of(0, IPPROTO_UDP, port << 16) === lane);
  }

  #unsolicitedDatagram(): void {
    const mine = this.#udpPorts();
    if (mine.length === 0) return;
    const slot = this.#o.smallSlots.pop();
    if (slot === NO_SLOT) return;
    const { peerPort, v4 } = this.#tuple(this.#words);
    const target = this.#o.prng.pick(mine);
    const guestAt = v4 ? 0 : 4;
    const bytes = this.#o.prng.int(0, 1900);
    const ports = ((peerPort << 16) | target) >>> 0;
    const guest = this.#addressing.guest.subarray(guestAt, guestAt + 4);
    const both = Uint32Array.of(...this.#words.subarray(0, 4), ...guest);
    const out = this.#o.toShards[0]!;
    unsolicitedDatagramWrite(out, slot, NO_SLOT, HEADROOM_BYTES, bytes, 0, ports, both, 0, 4);
  }

  /** No new flows: end all open ones. */
  #windUp(): void {
    for (const gid of this.#connecting.splice(0)) this.#decide(gid);
    for (const gid of [...this.#held.keys()]) this.#release(gid);
    for (let gid = 0; gid < this.#kind.length; gid++) this.#eof(gid);
  }
}
