/**
 * DNS over UDP to the plan's dns address: each query of the guest is sent to the host's resolvers through
 * sockets of its own, so that an attacker has to guess a source port that the kernel chose and an id that the
 * guest chose (RFC 5452).
 *
 *   guest query ──▶ attempt 1: resolver A ──▶ answer ──▶ guest, from the dns address
 *                      │ ICMP error, SERVFAIL, REFUSED: at once     │
 *                      │ no answer for 1.5 s: A is avoided for 30 s │
 *                      ▼                                            │
 *                   attempt 2: resolver B ──────────────────────────┘  the first answer of either is used
 *
 * The query is copied out of the slot in which the reader received it, into a place of the shard's own, and
 * is sent from there for each attempt (sendBorrowedWrite()). The place is free once host-io has answered
 * `closed` for every attempt's socket, as only then no message on the link refers to it. The number of
 * queries is bounded: when there is no room, the one that has waited longest is answered SERVFAIL. When the
 * guest repeats a query, it is sent again through the sockets that are open.
 */

import { addressCopy, addressEqual } from '../../proto/address.ts';
import {
  DNS_HEADER_BYTES,
  DNS_PORT,
  DnsAddresses,
  DnsRcode,
  dnsCheck,
  dnsErrorWrite,
  dnsId,
  dnsIsQuery,
  dnsNameBytes,
  dnsRcode,
  dnsSameQuestion,
  dnsShouldFailOver,
} from '../../proto/dns.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import { UDP_BYTES, UDP_CHECKSUM, udpLength, udpSrcPort, udpWrite } from '../../proto/udp.ts';
import { Counter } from '../../ring/counters.ts';
import { LARGE_SLOT_BYTES, NO_SLOT } from '../../ring/pool.ts';
import { newFlowTuple } from '../flow/flow-tuple.ts';
import { linkBytes, linkFlow, linkSlotA, linkSlotB, linkSlotOffset } from '../link/descriptor.ts';
import { StageDrop } from '../link/stage-drop.ts';
import { closeWrite, openOwnUdpWrite, sendBorrowedWrite } from '../link/to-host.ts';
import { openFailedErrno, ToShard } from '../link/to-shard.ts';
import { readerSlotsOfShard, type SlotCounts } from '../placement.ts';
import { isOutOfDescriptors } from '../thread/descriptor-shortage.ts';
import { type ShardContext, TIMER_KINDS, TimerKind } from './context.ts';
import { refusalToGuest } from './icmp-errors.ts';
import { type Packet, packetFree } from './packet.ts';
import type { ResolverChoice, Resolvers } from './resolvers.ts';
import { datagramToGuest, ipHeaderBytes } from './to-guest.ts';

/**
 * Bytes of a place: part of a slot of the shard's own, to which a query is copied. The query keeps the place
 * until its sockets are closed.
 */
const PLACE_BYTES = 512;
const PLACES_PER_SLOT = Math.floor(LARGE_SLOT_BYTES / PLACE_BYTES);
/**
 * Share of the places for queries that wait for an answer. The others are for queries whose sockets are being
 * closed.
 */
const WAITING_SHARE = 4 / 5;
/**
 * How many queries longer than a place one shard may have at a time. Such a query keeps the reader's slot in
 * which it was received: at most a sixteenth of the shard's share of the reader's large slots, and at most
 * 16.
 * @param large  readerSlotsOfShard()
 */
export const longQueryLimit = ({ large }: SlotCounts): number => Math.min(16, Math.floor(large / 16));
/** A longer query is dropped. */
const MAX_QUERY_BYTES = 4096;
/** Hash chains of waiting queries; a power of two. */
const BUCKETS = 1024;
/** Attempts of one query that may have a socket at a time. */
const MAX_ATTEMPTS = 4;
/** After so long without an answer another resolver is asked as well. */
const FAIL_OVER_MS = 1500;
/** A query is given up after so long: longer than clients wait, as a recursive resolver may be slow. */
const LIFETIME_MS = 10_000;

/** Of a place. Asking: the query waits for an answer; draining: its sockets are being closed. */
const QueryState = { free: 0, asking: 1, draining: 2 } as const;
const NO_ATTEMPT = -1;
const NO_QUERY = -1;

const bucketOf = (id: number, port: number): number => (id ^ port) & (BUCKETS - 1);

/** The DNS queries of one shard. */
export class DnsForward {
  readonly #choice: ResolverChoice;
  readonly #ctx: ShardContext;
  /** Most queries that may wait for an answer, and most long queries. */
  readonly #maxWaiting: number;
  readonly #maxLong: number;
  readonly #free: Int16Array;
  #freeCount: number;
  /** Queries that wait are in a list by age, and in a hash chain by id and port. */
  readonly #older: Int16Array;
  readonly #newer: Int16Array;
  #oldest = NO_QUERY;
  #newest = NO_QUERY;
  #waiting = 0;
  readonly #bucket = new Int16Array(BUCKETS).fill(NO_QUERY);
  readonly #nextInBucket: Int16Array;
  /** By query: 1 if it keeps the reader's slot. */
  readonly #isLong: Uint8Array;
  #longCount = 0;
  // By query.
  readonly #state: Uint8Array;
  readonly #family: Uint8Array;
  /** Words 0..3: the guest's address; 4..7: the DNS address that it asked. */
  readonly #addr: Uint32Array;
  readonly #tuple = newFlowTuple(IpProtocol.udp);
  /** Of an answer whose name the egress policy is about. */
  readonly #addresses = new DnsAddresses();
  readonly #guestPort: Uint16Array;
  readonly #id: Uint16Array;
  readonly #slot: Uint32Array;
  /** Offset of the query from the slot's start. */
  readonly #at: Uint32Array;
  readonly #bytes: Uint32Array;
  /** When the query is given up, monotonic milliseconds. */
  readonly #expiresMs: Float64Array;
  /** Bit i: resolver i has been asked. */
  readonly #tried: Int32Array;
  /** Flows of the query's attempts, MAX_ATTEMPTS each, or NO_ATTEMPT. */
  readonly #attempts: Int32Array;
  /** Sockets for which host-io has not yet answered `closed`. */
  readonly #openSockets: Uint8Array;
  /** Attempts whose answer may still come. */
  readonly #pendingCount: Uint8Array;
  /** Response code of the last resolver that failed, used if none answers; 0: none failed so. */
  readonly #rcode: Uint8Array;
  // By flow: whether it is an attempt's; its query; index of its resolver; whether its answer may still come;
  // whether FAIL_OVER_MS has passed.
  readonly #isAttempt: Uint8Array;
  readonly #queryOf: Int16Array;
  readonly #resolverOf: Uint8Array;
  readonly #isPending: Uint8Array;
  readonly #hasTimedOut: Uint8Array;

  constructor(ctx: ShardContext, choice: ResolverChoice) {
    this.#ctx = ctx;
    this.#choice = choice;
    const n = Math.min(ctx.dnsSlots[1] * PLACES_PER_SLOT, ctx.flows.maxFlows >>> 1);
    this.#maxWaiting = Math.floor(n * WAITING_SHARE);
    const { pool, threads } = ctx.plan;
    this.#maxLong = longQueryLimit(readerSlotsOfShard(pool, threads));
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
    this.#openSockets = new Uint8Array(n);
    this.#pendingCount = new Uint8Array(n);
    this.#rcode = new Uint8Array(n);
    const flows = ctx.flows.maxFlows;
    this.#isAttempt = new Uint8Array(flows);
    this.#queryOf = new Int16Array(flows);
    this.#resolverOf = new Uint8Array(flows);
    this.#isPending = new Uint8Array(flows);
    this.#hasTimedOut = new Uint8Array(flows);
  }

  /** Queries whose places are not free. For tests. */
  get outstanding(): number {
    return this.#state.length - this.#freeCount;
  }

  /**
   * Forward a datagram to the dns address, port 53, whose UDP header and checksum have been checked. Takes
   * over the packet's slots.
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
    if (ctx.egress.isOn && this.#isRefused(at, bytes)) {
      ctx.counters[Counter.policyNamesRefused]!++;
      this.#fail(p, guestPort, at, bytes, DnsRcode.refused);
      return;
    }
    const id = dnsId(ctx.u8, at);
    const known = this.#find(p, guestPort, id, at, bytes);
    if (known >= 0) {
      // The guest repeats its query: send it again to all resolvers whose answer may still come.
      for (let i = 0; i < MAX_ATTEMPTS; i++) {
        const flow = this.#attempts[known * MAX_ATTEMPTS + i]!;
        if (flow !== NO_ATTEMPT && this.#isPending[flow]) this.#sendQuery(known, flow);
      }
      packetFree(ctx, p);
      return;
    }
    const isLong = bytes > PLACE_BYTES;
    if (this.#freeCount === 0 || (isLong && this.#longCount >= this.#maxLong)) {
      ctx.counters[Counter.dnsGaveWay]!++;
      this.#fail(p, guestPort, at, bytes, DnsRcode.servFail);
      return;
    }
    if (this.#waiting >= this.#maxWaiting && this.#oldest !== NO_QUERY) {
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

  /** The waiting query with the same sender, id and question; -1: none. */
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

  /** Take a free place for a query that waits. The caller has checked that there is one. */
  #allocate(id: number, guestPort: number): number {
    const q = this.#free[--this.#freeCount]!;
    this.#state[q] = QueryState.asking;
    this.#tried[q] = 0;
    this.#openSockets[q] = 0;
    this.#pendingCount[q] = 0;
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

  /** Take the query out of the lists of those that wait. */
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

  /** Answer a query that is not forwarded by an error, and free the packet. @param rcode  DnsRcode */
  #fail(p: Packet, guestPort: number, at: number, queryBytes: number, rcode: number): void {
    const ctx = this.#ctx;
    const bodyAt = ctx.guest.scratchAt + ipHeaderBytes(6);
    const bytes = dnsErrorWrite(ctx.u8, bodyAt + UDP_BYTES, at, queryBytes, rcode);
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

  /**
   * Send the query to the next resolver.
   * @returns false when no resolver is left, or no flow is free
   */
  #attempt(q: number): boolean {
    const ctx = this.#ctx;
    const resolvers = this.#resolversOf(q);
    const index = resolvers.pickUntried(ctx.now, this.#tried[q]!);
    const place = this.#attempts.indexOf(NO_ATTEMPT, q * MAX_ATTEMPTS);
    if (index < 0 || place < 0 || place >= (q + 1) * MAX_ATTEMPTS) return false;
    // Only the flow's id is needed: the key is detached at once, so that no packet of the guest finds the
    // flow.
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
    this.#isPending[flow] = 1;
    this.#hasTimedOut[flow] = 0;
    this.#attempts[place] = flow;
    this.#isAttempt[flow] = 1;
    this.#openSockets[q]!++;
    this.#pendingCount[q]!++;
    // The kernel chooses the local port, at random.
    openOwnUdpWrite(ctx.toHost, flow, resolvers.words, index * 4, DNS_PORT, resolvers.zones[index]!);
    this.#sendQuery(q, flow);
    ctx.timers.arm(flow * TIMER_KINDS + TimerKind.idle, ctx.now + FAIL_OVER_MS);
    return true;
  }

  #sendQuery(q: number, flow: number): void {
    sendBorrowedWrite(this.#ctx.toHost, flow, this.#slot[q]!, this.#at[q]!, this.#bytes[q]!);
  }

  /** Whether a flow is an attempt's: its messages and timers are then for this object. */
  owns(flow: number): boolean {
    return this.#isAttempt[flow] === 1;
  }

  /**
   * Handle a message of host-io about an attempt's flow. Host-io's slots in it are given back here.
   * @param op  ToShard
   * @param words,at  the message
   */
  onMessage(op: number, words: Uint32Array, at: number): void {
    const ctx = this.#ctx;
    const flow = linkFlow(words, at);
    const q = this.#queryOf[flow]!;
    switch (op) {
      case ToShard.datagram: {
        if (this.#isPending[flow]) this.#onAnswer(q, flow, words, at);
        ctx.freeHostSlots(linkSlotA(words, at), linkSlotB(words, at));
        break;
      }
      case ToShard.icmpError:
      case ToShard.openFailed:
      case ToShard.error:
        ctx.freeHostSlots(linkSlotA(words, at), NO_SLOT); // holds the packet that an ICMP error quotes
        if (!this.#isPending[flow]) break;
        // Lack of descriptors is not the resolver's fault.
        if (op !== ToShard.openFailed || !isOutOfDescriptors(openFailedErrno(words, at))) {
          this.#resolversOf(q).markBad(this.#resolverOf[flow]!, ctx.now);
        }
        // An older flow's descriptor is closed, for the next attempt or the next query.
        if (op === ToShard.openFailed && isOutOfDescriptors(openFailedErrno(words, at)))
          ctx.flows.giveDescriptor(flow);
        this.#endAttempt(q, flow);
        if (!this.#attempt(q) && this.#pendingCount[q] === 0) this.#giveUp(q);
        break;
      case ToShard.closed:
        ctx.flows.release(flow);
        this.#isAttempt[flow] = 0;
        this.#attempts[this.#attempts.indexOf(flow, q * MAX_ATTEMPTS)] = NO_ATTEMPT;
        this.#openSockets[q]!--;
        if (this.#openSockets[q] === 0) this.#release(q);
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
      // A query without a valid question was forwarded, so any answer to it is passed on; so is an error
      // response without a question.
      (dnsCheck(u8, queryAt, queryBytes) < 0 ||
        dnsSameQuestion(u8, answerAt, bytesInA, queryAt, queryBytes) ||
        (dnsCheck(u8, answerAt, bytesInA) < 0 && dnsRcode(u8, answerAt) !== DnsRcode.noError));
    if (!fits) {
      ctx.drop(StageDrop.dnsAnswer);
      return;
    }
    if (dnsShouldFailOver(u8, answerAt)) {
      this.#rcode[q] = dnsRcode(u8, answerAt);
      const others = this.#pendingCount[q]! > 1;
      const next = this.#attempt(q);
      if (next || others) {
        this.#endAttempt(q, flow);
        return;
      }
      // No other resolver can answer any more: the guest gets this response.
    } else this.#resolversOf(q).markGood(this.#resolverOf[flow]!);
    // Before the guest gets the answer: its connection may come in the same round.
    if (ctx.egress.isOn) this.#learn(q, answerAt, bytesInA, slotB, bytes - bytesInA);
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

  /** Whether the egress policy permits no such name. */
  #isRefused(at: number, bytes: number): boolean {
    const { u8, egress } = this.#ctx;
    return egress.refusesQuery(u8, at + DNS_HEADER_BYTES, dnsNameBytes(u8, at, bytes));
  }

  /** Note the addresses of an answer for the egress policy, if that is about the query's name. */
  #learn(q: number, answerAt: number, bytesInA: number, slotB: number, moreBytes: number): void {
    const { u8, pool, egress, now } = this.#ctx;
    const queryAt = pool.slotAt(this.#slot[q]!) + this.#at[q]!;
    const nameAt = queryAt + DNS_HEADER_BYTES;
    const nameBytes = dnsNameBytes(u8, queryAt, this.#bytes[q]!);
    if (!egress.concerns(u8, nameAt, nameBytes)) return;
    let [memory, at] = [u8, answerAt];
    if (moreBytes > 0) {
      // Rare: the answer is longer than a small slot.
      memory = new Uint8Array(bytesInA + moreBytes);
      memory.set(u8.subarray(answerAt, answerAt + bytesInA));
      const moreAt = pool.slotAt(slotB);
      memory.set(u8.subarray(moreAt, moreAt + moreBytes), bytesInA);
      at = 0;
    }
    if (dnsCheck(memory, at, bytesInA + moreBytes) < 0) return;
    const found = this.#addresses;
    for (found.begin(memory, at, bytesInA + moreBytes); found.next(); )
      egress.learn(u8, nameAt, nameBytes, found.words, found.ttlS, now);
  }

  #answer(q: number, bodyAt: number, bodyBytes: number, moreAt: number, moreBytes: number): void {
    const f = this.#ctx.guest.frame;
    f.begin(this.#family[q] as 4 | 6, IpProtocol.udp);
    f.addresses(this.#addr, q * 8 + 4, this.#addr, q * 8);
    f.body(bodyAt, bodyBytes, moreAt, moreBytes);
    f.checksumField = UDP_CHECKSUM;
    datagramToGuest(this.#ctx, f);
  }

  /** No resolver answered: send an error response, so that the guest need not wait for its own time-out. */
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

  /**
   * An attempt's timer: after FAIL_OVER_MS another resolver is asked too, at the query's end it is given up.
   */
  onTimer(flow: number): void {
    const ctx = this.#ctx;
    const q = this.#queryOf[flow]!;
    if (!this.#isPending[flow]) return;
    const timer = flow * TIMER_KINDS + TimerKind.idle;
    if (!this.#hasTimedOut[flow]) {
      this.#hasTimedOut[flow] = 1;
      this.#resolversOf(q).markBad(this.#resolverOf[flow]!, ctx.now);
      this.#attempt(q);
      ctx.timers.arm(timer, this.#expiresMs[q]!);
    } else if (ctx.now < this.#expiresMs[q]!) ctx.timers.arm(timer, this.#expiresMs[q]!);
    else this.#giveUp(q);
  }

  /** The attempt's answer is no longer waited for: close its socket. */
  #endAttempt(q: number, flow: number): void {
    if (!this.#isPending[flow]) return;
    const ctx = this.#ctx;
    this.#isPending[flow] = 0;
    this.#pendingCount[q]!--;
    ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.idle);
    closeWrite(ctx.toHost, flow);
  }

  /** The query is answered: close all its sockets. Its place is free when host-io has closed the last one. */
  #drain(q: number): void {
    if (this.#state[q] === QueryState.asking) this.#unlink(q);
    this.#state[q] = QueryState.draining;
    for (let i = 0; i < MAX_ATTEMPTS; i++) {
      const flow = this.#attempts[q * MAX_ATTEMPTS + i]!;
      if (flow !== NO_ATTEMPT) this.#endAttempt(q, flow);
    }
    if (this.#openSockets[q] === 0) this.#release(q);
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
