/**
 * DNS over UDP to the plan's dns address: asks the host's resolvers on the guest's behalf, each query through
 * a socket of its own, so that source port and id stay as hard to guess as the kernel and the guest make
 * them.
 *
 *   guest query ──▶ attempt 1: resolver A ──▶ answer ──▶ guest, from the dns address
 *                      │ ICMP error, SERVFAIL, REFUSED: at once      │
 *                      │ no answer for 1.5 s: A is left alone for 30 s │
 *                      ▼                                             │
 *                   attempt 2: resolver B ──────────────────────────┘  attempt 1 may still answer: the first answer wins
 *
 * The query is copied out of the slot that the reader received it in, and is sent from its place as often as
 * needed (`arg2` of sendDatagram); the place is free once every attempt's socket has answered `closed`, for
 * only then is no send of it under way any more. Outstanding queries are bounded: when there is no room the
 * one that has waited longest is answered SERVFAIL. A query repeated by an impatient guest is asked again
 * through the sockets that are open.
 */

import { addressCopy, addressEqual, addressParse, isLinkLocal, isV4Mapped } from '../../proto/address.ts';
import {
  DNS_HEADER_BYTES,
  DNS_PORT,
  DnsRcode,
  dnsCheck,
  dnsErrorWrite,
  dnsId,
  dnsIsQuery,
  dnsRcode,
  dnsSameQuestion,
  dnsShouldFailOver,
} from '../../proto/dns.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import { UDP_BYTES, UDP_CHECKSUM, udpLength, udpSrcPort, udpWrite } from '../../proto/udp.ts';
import { Counter } from '../../ring/counters.ts';
import { LARGE_SLOT_BYTES, NO_SLOT } from '../../ring/pool.ts';
import { Errno } from '../../sys/constants.ts';
import type { AddressPlan } from '../engine-plan.ts';
import { newFlowTuple } from '../flow/flow-tuple.ts';
import { linkBytes, linkFlow, linkSlotA, linkSlotB, linkSlotOffset } from '../link/descriptor.ts';
import { StageDrop } from '../link/stage-drop.ts';
import { closeWrite, openOwnUdpWrite, sendBorrowedWrite } from '../link/to-host.ts';
import { openFailedErrno, ToShard } from '../link/to-shard.ts';
import { slotShares } from '../placement.ts';
import { type ShardContext, TIMER_KINDS, TimerKind } from './context.ts';
import { refusalToGuest } from './icmp-errors.ts';
import { type Packet, packetFree } from './packet.ts';
import { datagramToGuest, ipHeaderBytes } from './to-guest.ts';

/**
 * A query is copied to a place of so many bytes in a slot of the shard's own, which it keeps until its
 * sockets are closed.
 */
const PLACE_BYTES = 512;
const PLACES_PER_SLOT = Math.floor(LARGE_SLOT_BYTES / PLACE_BYTES);
/**
 * Of the places so many are for queries that wait; the others are for those whose sockets are being closed.
 */
const WAITING_SHARE = 4 / 5;
/**
 * A longer one keeps the slot that it came in: of a shard's share of the reader's large ones a sixteenth, and
 * 16 at the most.
 */
export const longQueryLimit = (readerLarge: number, shards: number): number =>
  Math.min(16, Math.floor(readerLarge / 16 / shards));
const MAX_QUERY_BYTES = 4096;
const BUCKETS = 1024;
const MAX_ATTEMPTS = 4;
const MAX_RESOLVERS = 16;
/** No answer for so long: another resolver is asked as well. */
const FAIL_OVER_MS = 1500;
/** A resolver that did not answer is asked last for so long. */
const BAD_MS = 30_000;
/** A recursive resolver may take a while; clients have given up by then. */
const LIFETIME_MS = 10_000;

/** The host's resolvers in order of preference, and which of them are out of favour. */
export class Resolvers {
  /** Four words each. */
  words: Uint32Array = new Uint32Array(0);
  /** Index of the interface that a link-local one lies behind, 0: the plan's. */
  zones: Uint32Array = new Uint32Array(0);
  count = 0;
  #badUntil = new Float64Array(MAX_RESOLVERS);

  constructor(list: readonly string[]) {
    this.update(list);
  }

  /**
   * Take over a new list (resolv.conf changed); those that stay keep their record. What is no address is left
   * out.
   * @param list  a zone is the number of an interface: "fe80::1%2"
   */
  update(list: readonly string[]): void {
    const words = new Uint32Array(MAX_RESOLVERS * 4);
    const zones = new Uint32Array(MAX_RESOLVERS);
    const badUntil = new Float64Array(MAX_RESOLVERS);
    let count = 0;
    for (const text of list) {
      if (count === MAX_RESOLVERS) break;
      const [address, zone] = text.split('%', 2) as [string, string?];
      if (!addressParse(address, words, count * 4)) continue;
      const hasZone = isLinkLocal(words, count * 4) && !isV4Mapped(words, count * 4);
      zones[count] = hasZone ? Number(zone ?? 0) : 0;
      for (let i = 0; i < this.count; i++) {
        const same = addressEqual(this.words, i * 4, words, count * 4) && this.zones[i] === zones[count];
        if (same) badUntil[count] = this.#badUntil[i]!;
      }
      count++;
    }
    this.words = words;
    this.zones = zones;
    this.count = count;
    this.#badUntil = badUntil;
  }

  /**
   * The resolver for a connection's attempt: the first in favour; when none is, by the number of the attempt.
   * @returns index (its address at words[index * 4], its zone at zones[index]), or -1 when there is none
   */
  pick(now: number, attempt: number): number {
    for (let i = 0; i < this.count; i++) if (this.#badUntil[i]! <= now) return i;
    return this.count === 0 ? -1 : attempt % this.count;
  }

  /** @param tried  bit i: resolver i has been asked @returns index of the best one left, -1: all have been */
  pickUntried(now: number, tried: number): number {
    let outOfFavour = -1;
    for (let i = 0; i < this.count; i++) {
      if (tried & (1 << i)) continue;
      if (this.#badUntil[i]! <= now) return i;
      if (outOfFavour < 0) outOfFavour = i;
    }
    return outOfFavour;
  }

  markBad(index: number, now: number): void {
    if (index >= 0 && index < this.count) this.#badUntil[index] = now + BAD_MS;
  }

  markGood(index: number): void {
    if (index >= 0 && index < this.count) this.#badUntil[index] = 0;
  }
}

/** Whom each family's DNS address leads to: resolvers of its own, or the host's. */
export class ResolverChoice {
  readonly #shared: Resolvers;
  readonly #ipv4: Resolvers;
  readonly #ipv6: Resolvers;

  constructor(plan: AddressPlan) {
    this.#shared = new Resolvers(plan.resolvers);
    const own = (hosts: readonly string[] | undefined): Resolvers =>
      hosts === undefined ? this.#shared : new Resolvers(hosts);
    this.#ipv4 = own(plan.ipv4?.dnsHosts);
    this.#ipv6 = own(plan.ipv6?.dnsHosts);
  }

  of(family: number): Resolvers {
    return family === 4 ? this.#ipv4 : this.#ipv6;
  }

  /** The host's resolvers have changed. */
  update(list: readonly string[]): void {
    this.#shared.update(list);
  }
}

const QueryState = { free: 0, asking: 1, draining: 2 } as const;
const NO_ATTEMPT = -1;
const NO_QUERY = -1;

const isShortage = (errno: number): boolean => errno === Errno.EMFILE || errno === Errno.ENFILE;
const bucketOf = (id: number, port: number): number => (id ^ port) & (BUCKETS - 1);

export class DnsForward {
  readonly #choice: ResolverChoice;
  readonly #ctx: ShardContext;
  /** Queries that may wait for an answer. */
  readonly #most: number;
  readonly #longMost: number;
  readonly #free: Int16Array;
  #freeCount: number;
  /** Those that wait, by age, and by bucket of id and port. */
  readonly #older: Int16Array;
  readonly #newer: Int16Array;
  #oldest = NO_QUERY;
  #newest = NO_QUERY;
  #waiting = 0;
  readonly #bucket = new Int16Array(BUCKETS).fill(NO_QUERY);
  readonly #nextInBucket: Int16Array;
  /** It keeps the reader's slot. */
  readonly #isLong: Uint8Array;
  #longCount = 0;
  // By query.
  readonly #state: Uint8Array;
  readonly #family: Uint8Array;
  /** Guest 0..3 and the address that it asked 4..7. */
  readonly #addr: Uint32Array;
  readonly #tuple = newFlowTuple(IpProtocol.udp);
  readonly #guestPort: Uint16Array;
  readonly #id: Uint16Array;
  readonly #slot: Uint32Array;
  /** From the slot's start. */
  readonly #at: Uint32Array;
  readonly #bytes: Uint32Array;
  readonly #expiresMs: Float64Array;
  readonly #tried: Int32Array;
  readonly #attempts: Int32Array;
  /** Sockets whose `closed` is still to come. */
  readonly #open: Uint8Array;
  /** Attempts that may still answer. */
  readonly #hopeful: Uint8Array;
  /** The worst that a resolver said, for when nobody says better. */
  readonly #rcode: Uint8Array;
  // By flow: whether it is an attempt's, its query and resolver, whether it may still answer, whether it has
  // been slow.
  readonly #isOurs: Uint8Array;
  readonly #queryOf: Int16Array;
  readonly #resolverOf: Uint8Array;
  readonly #isHopeful: Uint8Array;
  readonly #hasTimedOut: Uint8Array;

  constructor(ctx: ShardContext, choice: ResolverChoice) {
    this.#ctx = ctx;
    this.#choice = choice;
    const n = Math.min(ctx.dnsSlots[1] * PLACES_PER_SLOT, ctx.flows.maxFlows >>> 1);
    this.#most = Math.floor(n * WAITING_SHARE);
    const { pool, threads } = ctx.plan;
    const shards = threads.kind === 'fused' ? 1 : threads.shards;
    this.#longMost = longQueryLimit(
      slotShares(pool.smallSlots, pool.largeSlots, shards).readerLarge[1],
      shards,
    );
    this.#free = new Int16Array(n);
    for (let q = 0; q < n; q++) this.#free[q] = n - 1 - q;
    this.#freeCount = n;
    this.#older = new Int16Array(n);
    this.#newer = new Int16Array(n);
    this.#nextInBucket = new Int16Array(n);
    this.#isLong = new Uint8Array(n);
    this.#state = new Uint8Array(n);
    this.#family = new Uint8Array(n);
    this.#addr = new Uint32Array(n * 8);
    this.#guestPort = new Uint16Array(n);
    this.#id = new Uint16Array(n);
    this.#slot = new Uint32Array(n);
    this.#at = new Uint32Array(n);
    this.#bytes = new Uint32Array(n);
    this.#expiresMs = new Float64Array(n);
    this.#tried = new Int32Array(n);
    this.#attempts = new Int32Array(n * MAX_ATTEMPTS);
    this.#open = new Uint8Array(n);
    this.#hopeful = new Uint8Array(n);
    this.#rcode = new Uint8Array(n);
    const flows = ctx.flows.maxFlows;
    this.#isOurs = new Uint8Array(flows);
    this.#queryOf = new Int16Array(flows);
    this.#resolverOf = new Uint8Array(flows);
    this.#isHopeful = new Uint8Array(flows);
    this.#hasTimedOut = new Uint8Array(flows);
  }

  /** Queries whose places are not free. */
  get outstanding(): number {
    return this.#state.length - this.#freeCount;
  }

  /**
   * A datagram to the dns address, port 53, whose UDP header and checksum have been checked. Takes over the
   * packet's slots.
   */
  onQuery(p: Packet): void {
    const ctx = this.#ctx;
    if (this.#choice.of(p.family).count === 0) {
      refusalToGuest(ctx, p);
      return;
    }
    const at = p.transportAt + UDP_BYTES;
    const bytes = udpLength(ctx.u8, p.transportAt) - UDP_BYTES;
    const inA = bytes <= p.transportBytesInA - UDP_BYTES;
    if (!inA || bytes < DNS_HEADER_BYTES || bytes > MAX_QUERY_BYTES || !dnsIsQuery(ctx.u8, at)) {
      this.#refuse(p, StageDrop.dnsQuery);
      return;
    }
    const guestPort = udpSrcPort(ctx.u8, p.transportAt);
    const id = dnsId(ctx.u8, at);
    const known = this.#find(p, guestPort, id, at, bytes);
    if (known >= 0) {
      // The guest has lost patience: ask all that may still answer once more.
      for (let i = 0; i < MAX_ATTEMPTS; i++) {
        const flow = this.#attempts[known * MAX_ATTEMPTS + i]!;
        if (flow !== NO_ATTEMPT && this.#isHopeful[flow]) this.#sendQuery(known, flow);
      }
      packetFree(ctx, p);
      return;
    }
    const isLong = bytes > PLACE_BYTES;
    if (this.#freeCount === 0 || (isLong && this.#longCount >= this.#longMost)) {
      ctx.counters[Counter.dnsGaveWay]!++;
      this.#fail(p, guestPort, at, bytes);
      return;
    }
    if (this.#waiting >= this.#most && this.#oldest !== NO_QUERY) {
      ctx.counters[Counter.dnsGaveWay]!++;
      this.#giveUp(this.#oldest);
    }
    const q = this.#allocate(id, guestPort);
    this.#family[q] = p.family;
    for (let i = 0; i < 8; i++) this.#addr[q * 8 + i] = p.addr[i]!;
    this.#guestPort[q] = guestPort;
    this.#id[q] = id;
    this.#bytes[q] = bytes;
    this.#expiresMs[q] = ctx.now + LIFETIME_MS;
    this.#isLong[q] = isLong ? 1 : 0;
    if (isLong) {
      this.#longCount++;
      this.#slot[q] = p.slotA;
      this.#at[q] = at - ctx.pool.slotAt(p.slotA);
      p.slotA = NO_SLOT;
    } else {
      this.#slot[q] = ctx.dnsSlots[0] + Math.floor(q / PLACES_PER_SLOT);
      this.#at[q] = (q % PLACES_PER_SLOT) * PLACE_BYTES;
      ctx.u8.copyWithin(ctx.pool.slotAt(this.#slot[q]!) + this.#at[q]!, at, at + bytes);
    }
    packetFree(ctx, p);
    if (!this.#attempt(q)) this.#giveUp(q);
  }

  #refuse(p: Packet, cause: number): void {
    this.#ctx.drop(cause);
    packetFree(this.#ctx, p);
  }

  /** The query under way with the same sender, id and question; -1: none. */
  #find(p: Packet, guestPort: number, id: number, at: number, bytes: number): number {
    const { u8, pool } = this.#ctx;
    for (let q = this.#bucket[bucketOf(id, guestPort)]!; q !== NO_QUERY; q = this.#nextInBucket[q]!) {
      if (this.#id[q] !== id || this.#guestPort[q] !== guestPort) continue;
      if (!addressEqual(this.#addr, q * 8, p.addr, 0) || !addressEqual(this.#addr, q * 8 + 4, p.addr, 4)) {
        continue;
      }
      const keptAt = pool.slotAt(this.#slot[q]!) + this.#at[q]!;
      if (dnsSameQuestion(u8, at, bytes, keptAt, this.#bytes[q]!)) return q;
    }
    return -1;
  }

  /** A free place becomes a query that waits; there is one. */
  #allocate(id: number, guestPort: number): number {
    const q = this.#free[--this.#freeCount]!;
    this.#state[q] = QueryState.asking;
    this.#tried[q] = 0;
    this.#open[q] = 0;
    this.#hopeful[q] = 0;
    this.#rcode[q] = 0;
    this.#attempts.fill(NO_ATTEMPT, q * MAX_ATTEMPTS, (q + 1) * MAX_ATTEMPTS);
    this.#older[q] = this.#newest;
    this.#newer[q] = NO_QUERY;
    if (this.#newest === NO_QUERY) this.#oldest = q;
    else this.#newer[this.#newest] = q;
    this.#newest = q;
    this.#waiting++;
    const bucket = bucketOf(id, guestPort);
    this.#nextInBucket[q] = this.#bucket[bucket]!;
    this.#bucket[bucket] = q;
    return q;
  }

  /** The query waits no longer. */
  #unlink(q: number): void {
    const older = this.#older[q]!;
    const newer = this.#newer[q]!;
    if (older === NO_QUERY) this.#oldest = newer;
    else this.#newer[older] = newer;
    if (newer === NO_QUERY) this.#newest = older;
    else this.#older[newer] = older;
    this.#waiting--;
    const bucket = bucketOf(this.#id[q]!, this.#guestPort[q]!);
    const next = this.#nextInBucket[q]!;
    if (this.#bucket[bucket] === q) {
      this.#bucket[bucket] = next;
      return;
    }
    let before = this.#bucket[bucket]!;
    while (this.#nextInBucket[before] !== q) before = this.#nextInBucket[before]!;
    this.#nextInBucket[before] = next;
  }

  /** SERVFAIL for a query that has got no place. */
  #fail(p: Packet, guestPort: number, at: number, queryBytes: number): void {
    const ctx = this.#ctx;
    const bodyAt = ctx.guest.scratchAt + ipHeaderBytes(6);
    const bytes = dnsErrorWrite(ctx.u8, bodyAt + UDP_BYTES, at, queryBytes, DnsRcode.servFail);
    udpWrite(ctx.u8, bodyAt, DNS_PORT, guestPort, UDP_BYTES + bytes);
    const f = ctx.guest.frame;
    f.begin(p.family, IpProtocol.udp);
    f.addresses(p.addr, 4, p.addr, 0);
    f.body(bodyAt, UDP_BYTES + bytes, 0, 0);
    f.checksumField = UDP_CHECKSUM;
    datagramToGuest(ctx, f);
    packetFree(ctx, p);
  }

  #resolversOf(q: number): Resolvers {
    return this.#choice.of(this.#family[q]!);
  }

  /** Ask the next resolver. @returns false when there is none left, or no flow for it */
  #attempt(q: number): boolean {
    const ctx = this.#ctx;
    const resolvers = this.#resolversOf(q);
    const index = resolvers.pickUntried(ctx.now, this.#tried[q]!);
    const place = this.#attempts.indexOf(NO_ATTEMPT, q * MAX_ATTEMPTS);
    if (index < 0 || place < 0 || place >= (q + 1) * MAX_ATTEMPTS) return false;
    // Only the id is wanted: the key is taken out at once, so that nothing from the guest can find it.
    const tuple = this.#tuple;
    addressCopy(this.#addr, q * 8, tuple.addr, 0);
    addressCopy(resolvers.words, index * 4, tuple.addr, 4);
    tuple.ports = ((this.#guestPort[q]! << 16) | DNS_PORT) >>> 0;
    if (ctx.flows.freeCount <= ctx.flows.maxFlows >>> 4) ctx.flows.giveWay();
    const flow = ctx.flows.insert(tuple);
    if (flow < 0) {
      ctx.counters[Counter.flowTableFull]!++;
      return false;
    }
    ctx.flows.detach(flow);
    ctx.counters[Counter.udpFlows]!++;
    this.#tried[q]! |= 1 << index;
    this.#queryOf[flow] = q;
    this.#resolverOf[flow] = index;
    this.#isHopeful[flow] = 1;
    this.#hasTimedOut[flow] = 0;
    this.#attempts[place] = flow;
    this.#isOurs[flow] = 1;
    this.#open[q]!++;
    this.#hopeful[q]!++;
    // The kernel chooses the local port, at random.
    openOwnUdpWrite(ctx.toHost, flow, resolvers.words, index * 4, DNS_PORT, resolvers.zones[index]!);
    this.#sendQuery(q, flow);
    ctx.timers.arm(flow * TIMER_KINDS + TimerKind.idle, ctx.now + FAIL_OVER_MS);
    return true;
  }

  #sendQuery(q: number, flow: number): void {
    sendBorrowedWrite(this.#ctx.toHost, flow, this.#slot[q]!, this.#at[q]!, this.#bytes[q]!);
  }

  /** Whether the flow is an attempt's, so that its messages and timers belong here. */
  owns(flow: number): boolean {
    return this.#isOurs[flow] === 1;
  }

  /** A message of host-io's about an attempt's flow. */
  onMessage(op: number, words: Uint32Array, at: number): void {
    const ctx = this.#ctx;
    const flow = linkFlow(words, at);
    const q = this.#queryOf[flow]!;
    switch (op) {
      case ToShard.datagram: {
        if (this.#isHopeful[flow]) this.#onAnswer(q, flow, words, at);
        ctx.freeHostSlots(linkSlotA(words, at), linkSlotB(words, at));
        break;
      }
      case ToShard.icmpError:
      case ToShard.openFailed:
      case ToShard.error:
        ctx.freeHostSlots(linkSlotA(words, at), NO_SLOT); // what an ICMP error quotes
        if (!this.#isHopeful[flow]) break;
        // A want of descriptors is ours.
        if (op !== ToShard.openFailed || !isShortage(openFailedErrno(words, at))) {
          this.#resolversOf(q).markBad(this.#resolverOf[flow]!, ctx.now);
        }
        // The next attempt, or the next query, finds one.
        if (op === ToShard.openFailed && isShortage(openFailedErrno(words, at)))
          ctx.flows.giveDescriptor(flow);
        this.#hopeless(q, flow);
        if (!this.#attempt(q) && this.#hopeful[q] === 0) this.#giveUp(q);
        break;
      case ToShard.closed:
        ctx.flows.release(flow);
        this.#isOurs[flow] = 0;
        this.#attempts[this.#attempts.indexOf(flow, q * MAX_ATTEMPTS)] = NO_ATTEMPT;
        this.#open[q]!--;
        if (this.#open[q] === 0) this.#release(q);
        break;
    }
  }

  #onAnswer(q: number, flow: number, words: Uint32Array, at: number): void {
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const slotA = linkSlotA(words, at);
    const slotB = linkSlotB(words, at);
    const slotOffset = linkSlotOffset(words, at);
    const bytes = linkBytes(words, at);
    const answerAt = ctx.pool.slotAt(slotA) + slotOffset;
    const room = ctx.pool.slotBytes(slotA) - slotOffset;
    const bytesInA = slotB === NO_SLOT || bytes < room ? bytes : room;
    const queryAt = ctx.pool.slotAt(this.#slot[q]!) + this.#at[q]!;
    const queryBytes = this.#bytes[q]!;
    const fits =
      bytesInA >= DNS_HEADER_BYTES &&
      !dnsIsQuery(u8, answerAt) &&
      dnsId(u8, answerAt) === this.#id[q] &&
      // A query without a usable question is passed on and so is whatever is said to it; likewise an error
      // without one.
      (dnsCheck(u8, queryAt, queryBytes) < 0 ||
        dnsSameQuestion(u8, answerAt, bytesInA, queryAt, queryBytes) ||
        (dnsCheck(u8, answerAt, bytesInA) < 0 && dnsRcode(u8, answerAt) !== DnsRcode.noError));
    if (!fits) {
      ctx.drop(StageDrop.dnsAnswer);
      return;
    }
    if (dnsShouldFailOver(u8, answerAt)) {
      this.#rcode[q] = dnsRcode(u8, answerAt);
      const others = this.#hopeful[q]! > 1;
      const next = this.#attempt(q);
      if (next || others) {
        this.#hopeless(q, flow);
        return;
      }
      // Nobody left who could say better: this is the answer.
    } else this.#resolversOf(q).markGood(this.#resolverOf[flow]!);
    const bodyAt = answerAt - UDP_BYTES;
    udpWrite(u8, bodyAt, DNS_PORT, this.#guestPort[q]!, UDP_BYTES + bytes);
    ctx.counters[Counter.datagramsToGuest]!++;
    this.#answer(
      q,
      bodyAt,
      UDP_BYTES + bytesInA,
      slotB === NO_SLOT ? 0 : ctx.pool.slotAt(slotB),
      bytes - bytesInA,
    );
    this.#drain(q);
  }

  #answer(q: number, bodyAt: number, bodyBytes: number, moreAt: number, moreBytes: number): void {
    const f = this.#ctx.guest.frame;
    f.begin(this.#family[q] as 4 | 6, IpProtocol.udp);
    f.addresses(this.#addr, q * 8 + 4, this.#addr, q * 8);
    f.body(bodyAt, bodyBytes, moreAt, moreBytes);
    f.checksumField = UDP_CHECKSUM;
    datagramToGuest(this.#ctx, f);
  }

  /** Nobody answered: say so, rather than let the guest wait for its own time-out. */
  #giveUp(q: number): void {
    const ctx = this.#ctx;
    const bodyAt = ctx.guest.scratchAt + ipHeaderBytes(6);
    const queryAt = ctx.pool.slotAt(this.#slot[q]!) + this.#at[q]!;
    const rcode = this.#rcode[q]! || DnsRcode.servFail;
    const bytes = dnsErrorWrite(ctx.u8, bodyAt + UDP_BYTES, queryAt, this.#bytes[q]!, rcode);
    udpWrite(ctx.u8, bodyAt, DNS_PORT, this.#guestPort[q]!, UDP_BYTES + bytes);
    this.#answer(q, bodyAt, UDP_BYTES + bytes, 0, 0);
    this.#drain(q);
  }

  onTimer(flow: number): void {
    const ctx = this.#ctx;
    const q = this.#queryOf[flow]!;
    if (!this.#isHopeful[flow]) return;
    const timer = flow * TIMER_KINDS + TimerKind.idle;
    if (!this.#hasTimedOut[flow]) {
      this.#hasTimedOut[flow] = 1;
      this.#resolversOf(q).markBad(this.#resolverOf[flow]!, ctx.now);
      this.#attempt(q);
      ctx.timers.arm(timer, this.#expiresMs[q]!);
    } else if (ctx.now < this.#expiresMs[q]!) ctx.timers.arm(timer, this.#expiresMs[q]!);
    else this.#giveUp(q);
  }

  /** The attempt is over; its socket goes. */
  #hopeless(q: number, flow: number): void {
    if (!this.#isHopeful[flow]) return;
    const ctx = this.#ctx;
    this.#isHopeful[flow] = 0;
    this.#hopeful[q]!--;
    ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.idle);
    closeWrite(ctx.toHost, flow);
  }

  /** The query is answered: close all its sockets and wait for them. */
  #drain(q: number): void {
    if (this.#state[q] === QueryState.asking) this.#unlink(q);
    this.#state[q] = QueryState.draining;
    for (let i = 0; i < MAX_ATTEMPTS; i++) {
      const flow = this.#attempts[q * MAX_ATTEMPTS + i]!;
      if (flow !== NO_ATTEMPT) this.#hopeless(q, flow);
    }
    if (this.#open[q] === 0) this.#release(q);
  }

  #release(q: number): void {
    if (this.#isLong[q]) {
      this.#longCount--;
      this.#ctx.freeReaderSlots(this.#slot[q]!, NO_SLOT);
    }
    this.#state[q] = QueryState.free;
    this.#free[this.#freeCount++] = q;
  }
}
