/**
 * TCP between the guest and host sockets (RFC 9293). The guest's connection ends here; a host socket, kept by the host-io stage,
 * carries the stream on. docs/theory.md follows a segment each way.
 *
 *   guest -> host   In-order payload passes to host-io in the slots it arrived in and is acknowledged once host-io has it:
 *                   it sits in the host socket or, in order, in slots behind it. What waits in slots shrinks the window. Out of
 *                   order payload waits here (SACK tells the guest); what was never acknowledged may be dropped, nothing else.
 *   host -> guest   host-io peeks: the host kernel's receive queue is the retransmission buffer. `credit` says how far it may
 *                   peek (sndUna + min(sndWnd, cwnd)), an ACK becomes `consume`, a loss becomes `rewind`.
 *
 * Stream offsets (u32, modulo) name bytes towards the guest: offset = seq - iss - 1. Stale `data` after a rewind is known by an
 * offset that is not the next one; links are FIFO, so that is enough.
 *
 * Flow ids are not reused until host-io has answered `closed`, so no message can reach the wrong connection.
 *
 * No SACK scoreboard is kept: the holes that the blocks of one ACK show are read again from the socket at once, since frames
 * written to a TAP do not overtake one another. Congestion control is RFC 5681 with a large initial window: the path to the
 * guest is a copy, not a network; a loss there means that the guest was out of memory or a filter dropped the frame.
 */

import { addressWrite } from '../../proto/address.ts';
import { readU16, readU32, writeU16 } from '../../proto/be.ts';
import { foldSum, onesSumPieces, pseudoSum4, pseudoSum6At } from '../../proto/checksum.ts';
import { Drop } from '../../proto/drop.ts';
import { EtherType } from '../../proto/ethernet.ts';
import { IpProtocol, ipv4Write } from '../../proto/ipv4.ts';
import {
  IPV6_BYTES,
  IPV6_DST,
  IPV6_JUMBO_BYTES,
  IPV6_MIN_MTU,
  IPV6_SRC,
  Ipv6Next,
  ipv6JumboWrite,
  ipv6Write,
} from '../../proto/ipv6.ts';
import { seqDiff, seqGeq, seqGt, seqLeq, seqLt } from '../../proto/seq.ts';
import {
  newTcpOptions,
  TCP_MIN_BYTES,
  TCP_TIMESTAMPS_BYTES,
  TcpFlag,
  tcpAck,
  tcpFlags,
  tcpHeaderBytes,
  tcpOptions,
  tcpSackWrite,
  tcpSeq,
  tcpSynOptionsWrite,
  tcpTimestampsWrite,
  tcpWindow,
  tcpWrite,
} from '../../proto/tcp.ts';
import { VnetGso } from '../../proto/vnethdr.ts';
import { Counter, recordHistogram } from '../../ring/counters.ts';
import { Histogram } from '../../ring/histograms.ts';
import { NO_SLOT } from '../../ring/pool.ts';
import { Errno } from '../../sys/constants.ts';
import { flowHash } from '../flow-hash.ts';
import { FlowState } from '../flow-report.ts';
import { DataKind, reserveMessage, ToHost, ToShard, W } from '../messages.ts';
import { quotedFlow, quotedProtocol, quotedTcpSeq, toldMtu } from '../quoted-flow.ts';
import { StageDrop } from '../stage-drop.ts';
import { Destination } from './addressing.ts';
import { type Packet, type ShardContext, TIMER_KINDS, TimerKind } from './context.ts';
import type { ResolverChoice, Resolvers } from './dns-forward.ts';
import { refusalToGuest, tcpUnreachableToGuest } from './icmp-errors.ts';
import { ipHeaderBytes, packetMoreBytes, pseudoSumWords } from './to-guest.ts';

/** Connection states. Half-closed ones are `established` with flags, since the two directions are independent here. */
const State = { free: 0, connecting: 1, synReceived: 2, synSent: 3, established: 4, closing: 5 } as const;

/** By State: what reports say. */
const REPORTED: readonly FlowState[] = [
  FlowState.closing,
  FlowState.connecting,
  FlowState.synReceived,
  FlowState.synSent,
  FlowState.established,
  FlowState.closing,
];

const Flag = {
  /** The guest's FIN has arrived in order. */
  guestFin: 1 << 0,
  /** host-io said where the host's stream ends (eofOffset). */
  hostEof: 1 << 1,
  /** Our FIN is out (sndNxt counts it). */
  finSent: 1 << 2,
  /** The guest acknowledged our FIN. */
  finAcked: 1 << 3,
  ackPending: 1 << 4,
  creditPending: 1 << 5,
  inRecovery: 1 << 6,
  /** A tail loss probe was sent since the last progress. */
  probed: 1 << 7,
  /** A byte beyond a closed window is out as a probe. */
  windowProbe: 1 << 8,
  sackOk: 1 << 9,
  wscaleOk: 1 << 10,
  /** host-io holds bytes that its socket did not take. */
  hostBlocked: 1 << 11,
  /** Closed by RST: late segments of the guest get RST again, not ACK. */
  reset: 1 << 12,
  /** Connecting to a resolver: until the connection stands eofOffset holds the attempt's number, recover the resolver's. */
  dns: 1 << 13,
  timing: 1 << 14,
  v6: 1 << 15,
  /** Both sides sent timestamps in their SYN: every segment carries them (RFC 7323 section 3). */
  tsOk: 1 << 16,
  /** Frames to the guest may be longer than 64 KiB. */
  big: 1 << 17,
} as const;

/** Our window scale: 2^8 * 65535 = 16 MiB, as far as any limit below reaches. */
const RCV_WSCALE = 8;
const RCV_LIMIT_START = 256 * 1024;
const RCV_LIMIT_MAX = 4 * 1024 * 1024;
/** A flow may always have this much queued, however short memory is. */
const RCV_LIMIT_FLOOR = 64 * 1024;
/** A tiny MSS would only make us slow. */
const MSS_MIN = 64;
/** Taken where a router names no MTU (RFC 1191 section 5, the simplest of its ways). */
const IPV4_UNTOLD_MTU = 576;
const CWND_START = 1024 * 1024;
const CWND_FLOOR = 64 * 1024;
const CWND_MAX = 64 * 1024 * 1024;
/** Towards a kernel on the same machine 200 ms is plenty; RFC 6298's whole second would be a visible stall. */
const RTO_MIN_MS = 200;
const RTO_MAX_MS = 60_000;
const RTO_INITIAL_MS = 1000;
const PROBE_MIN_MS = 10;
const PROBE_MAX_MS = 10_000;
const SYN_TRIES = 6;
const RTO_TRIES = 15;
/** RFC 9293 section 3.8.4 default; then as many probes, as far apart, as Linux's defaults. */
const KEEPALIVE_IDLE_MS = 7_200_000;
const KEEPALIVE_INTERVAL_MS = 75_000;
const KEEPALIVE_PROBES = 9;
const OOO_ENTRIES = 4096;
const OOO_PER_FLOW = 1024;
/** Flows that sent payload within the last one or two of these count as busy and share the memory for queues. */
const BUSY_EPOCH_MS = 64;
const NONE = -1;
/** What one read of a socket brought, so many times, goes to the guest as one frame at the most (decision 040). */
const RUN_PIECES = 4;
const IP_MAX_BYTES = 65535;
/** So many timers in a row without it (a busy guest alone makes some fire): the guest does not get them. */
const BIG_LOSSES = 4;
const SACK_BLOCKS = 3;

export class TcpTranslator {
  readonly #ctx: ShardContext;
  readonly #resolvers: ResolverChoice;

  // One line per field, indexed by flow. "guest" fields are from the guest's view of the wire.
  readonly #state: Uint8Array;
  readonly #flags: Int32Array;
  /** Initial sequence number of ours and of the guest. */
  readonly #iss: Uint32Array;
  readonly #irs: Uint32Array;
  /** To guest: oldest unacknowledged, next to send, highest ever sent + 1. */
  readonly #sndUna: Uint32Array;
  readonly #sndNxt: Uint32Array;
  readonly #sndMax: Uint32Array;
  /** The guest's receive window in bytes (scaled), its scale, and the segment that set it. */
  readonly #sndWnd: Uint32Array;
  readonly #sndWscale: Uint8Array;
  readonly #sndWl1: Uint32Array;
  readonly #sndWl2: Uint32Array;
  /** Payload bytes of a full segment to the guest. */
  readonly #mss: Uint16Array;
  /** From guest: next expected, right edge of the window as last advertised. */
  readonly #rcvNxt: Uint32Array;
  readonly #rcvAdv: Uint32Array;
  /** RFC 7323 section 4.3: the guest's timestamp to echo, and the acknowledgement last sent. */
  readonly #tsRecent: Uint32Array;
  readonly #lastAckSent: Uint32Array;
  /** What the segment at hand echoes of our timestamps; 0: nothing. */
  #tsEcr = 0;
  /** Bytes that may wait for the host socket, bytes that do. */
  readonly #rcvLimit: Uint32Array;
  readonly #queued: Uint32Array;
  readonly #cwnd: Uint32Array;
  readonly #ssthresh: Uint32Array;
  readonly #dupAcks: Uint16Array;
  /** Recovery ends when this is acknowledged; holes below rtxNxt were sent again already. */
  readonly #recover: Uint32Array;
  readonly #rtxNxt: Uint32Array;
  /** Where the host's stream ends, as stream offset (Flag.hostEof). */
  readonly #eofOffset: Uint32Array;
  /** RFC 6298, milliseconds. */
  readonly #srtt: Float64Array;
  readonly #rttvar: Float64Array;
  readonly #rto: Float64Array;
  readonly #timedSeq: Uint32Array;
  readonly #timedAt: Float64Array;
  readonly #tries: Uint8Array;
  readonly #lastSeen: Float64Array;
  /** Timers that found data unacknowledged since an ACK was for more than any frame of at most 64 KiB holds. */
  readonly #bigLosses: Uint8Array;
  readonly #oooHead: Int32Array;
  readonly #oooTail: Int32Array;
  readonly #oooCount: Uint16Array;

  // Out-of-order segments: a list per flow, sorted by seq, entries from one pool.
  readonly #oooSeq = new Uint32Array(OOO_ENTRIES);
  readonly #oooLen = new Uint32Array(OOO_ENTRIES);
  readonly #oooSlotA = new Uint32Array(OOO_ENTRIES);
  readonly #oooSlotB = new Uint32Array(OOO_ENTRIES);
  readonly #oooAt = new Uint32Array(OOO_ENTRIES);
  readonly #oooFin = new Uint8Array(OOO_ENTRIES);
  readonly #oooNext = new Int32Array(OOO_ENTRIES);
  #oooFree = 0;

  readonly #ackList: Int32Array;
  #ackCount = 0;
  readonly #creditList: Int32Array;
  #creditCount = 0;

  /** Bytes queued behind host sockets by all flows, and how many may be. */
  #queuedTotal = 0;
  readonly #queuedBudget: number;
  readonly #limitMax: number;
  /** What one flow may have queued so that all busy ones together stay within the budget. */
  #limitCap: number;
  #epoch = 0;
  #busy = 0;
  #busyBefore = 0;
  readonly #busyEpoch: Int32Array;
  /** Slots held by segments out of order, and how many may be: they must never be all that the reader has. */
  #oooSmall = 0;
  #oooLarge = 0;
  readonly #oooSmallMax: number;
  readonly #oooLargeMax: number;

  /** Consecutive payload of one flow that leaves as one frame: pieces, and the slots they lie in until flushRun(). */
  #runFlow = NONE;
  #runCount = 0;
  #runSeq = 0;
  #runBytes = 0;
  #runFlags = 0;
  readonly #runAt = new Uint32Array(RUN_PIECES);
  readonly #runLen = new Uint32Array(RUN_PIECES);
  readonly #runSlot = new Uint32Array(RUN_PIECES);

  readonly #opts = newTcpOptions();
  readonly #words = new Uint32Array(8);
  readonly #sackLeft = new Uint32Array(4);
  readonly #sackRight = new Uint32Array(4);

  constructor(ctx: ShardContext, resolvers: ResolverChoice) {
    const n = ctx.plan.pool.flows;
    this.#ctx = ctx;
    this.#resolvers = resolvers;
    this.#state = new Uint8Array(n);
    this.#flags = new Int32Array(n);
    this.#iss = new Uint32Array(n);
    this.#irs = new Uint32Array(n);
    this.#sndUna = new Uint32Array(n);
    this.#sndNxt = new Uint32Array(n);
    this.#sndMax = new Uint32Array(n);
    this.#sndWnd = new Uint32Array(n);
    this.#sndWscale = new Uint8Array(n);
    this.#sndWl1 = new Uint32Array(n);
    this.#sndWl2 = new Uint32Array(n);
    this.#mss = new Uint16Array(n);
    this.#rcvNxt = new Uint32Array(n);
    this.#rcvAdv = new Uint32Array(n);
    this.#tsRecent = new Uint32Array(n);
    this.#lastAckSent = new Uint32Array(n);
    this.#rcvLimit = new Uint32Array(n);
    this.#queued = new Uint32Array(n);
    this.#cwnd = new Uint32Array(n);
    this.#ssthresh = new Uint32Array(n);
    this.#dupAcks = new Uint16Array(n);
    this.#recover = new Uint32Array(n);
    this.#rtxNxt = new Uint32Array(n);
    this.#eofOffset = new Uint32Array(n);
    this.#srtt = new Float64Array(n);
    this.#rttvar = new Float64Array(n);
    this.#rto = new Float64Array(n);
    this.#timedSeq = new Uint32Array(n);
    this.#timedAt = new Float64Array(n);
    this.#tries = new Uint8Array(n);
    this.#lastSeen = new Float64Array(n);
    this.#bigLosses = new Uint8Array(n);
    this.#oooHead = new Int32Array(n).fill(NONE);
    this.#oooTail = new Int32Array(n).fill(NONE);
    this.#oooCount = new Uint16Array(n);
    this.#ackList = new Int32Array(n);
    this.#creditList = new Int32Array(n);
    for (let i = 0; i < OOO_ENTRIES; i++) this.#oooNext[i] = i + 1 < OOO_ENTRIES ? i + 1 : NONE;
    const shards = ctx.plan.threads.kind === 'fused' ? 1 : ctx.plan.threads.shards;
    const largeBytes = (ctx.plan.pool.largeSlots * 65536) / 2 / shards;
    this.#queuedBudget = Math.floor((largeBytes * 3) / 4);
    this.#limitMax = Math.max(RCV_LIMIT_FLOOR, Math.min(RCV_LIMIT_MAX, Math.floor(largeBytes / 6)));
    this.#limitCap = this.#limitMax;
    this.#busyEpoch = new Int32Array(n);
    this.#oooSmallMax = Math.floor(ctx.plan.pool.smallSlots / 8 / shards);
    this.#oooLargeMax = Math.floor(ctx.plan.pool.largeSlots / 8 / shards);
  }

  // ------------------------------------------------------------------------------------------------ from the guest

  /**
   * A segment from the guest. Takes over the packet's slots.
   * @param p  IP header checked; addresses, hash and pieces filled in
   */
  onPacket(p: Packet): void {
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const headerBytes = tcpHeaderBytes(u8, p.transportAt, p.transportBytesInA);
    if (headerBytes < 0) return this.#discard(p, headerBytes);
    if (headerBytes > p.transportBytes) return this.#discard(p, Drop.tcpOffset);
    if (!p.needsCsum && !this.#checksumOk(p)) return this.#discard(p, Drop.tcpChecksum);
    const ports = ((readU16(u8, p.transportAt) << 16) | readU16(u8, p.transportAt + 2)) >>> 0;
    const flow = ctx.flows.find(p.hash, p.addr, 0, p.addr, 4, ports, IpProtocol.tcp);
    if (flow < 0) return this.#onUnknown(p, headerBytes, ports);
    this.#lastSeen[flow] = ctx.now;
    switch (this.#state[flow]) {
      case State.established:
        return this.#onEstablished(p, flow, headerBytes);
      case State.connecting:
        // The guest asks again while connect() runs, or gives up.
        if (tcpFlags(u8, p.transportAt) & TcpFlag.rst) this.#abortHost(flow);
        break;
      case State.synReceived:
        return this.#onSynReceived(p, flow, headerBytes);
      case State.synSent:
        return this.#onSynSent(p, flow, headerBytes);
      default:
        this.#onClosing(p, flow);
    }
    this.#free(p);
  }

  /**
   * A router inside says that a segment of ours is too long for a link behind it ("fragmentation needed", "packet too big"): the
   * connection's segments get shorter, and what is on its way is sent again so. They never get longer again.
   * @returns whether the packet was that, and about a connection of ours
   */
  onTooBig(p: Packet): boolean {
    const ctx = this.#ctx;
    const words = this.#words;
    const ports = quotedFlow(ctx.u8, p.transportAt, p.transportBytesInA, p.family, words);
    if (ports < 0 || quotedProtocol(ctx.u8, p.transportAt, p.family) !== IpProtocol.tcp) return false;
    const flow = ctx.flows.find(p.hash, words, 0, words, 4, ports, IpProtocol.tcp);
    if (flow < 0 || this.#state[flow] !== State.established) return false;
    // RFC 5927 section 4.1: an error that is not about what is on its way is old, or made up.
    const seq = quotedTcpSeq(ctx.u8, p.transportAt, p.family);
    if (seqLt(seq, this.#sndUna[flow]!) || seqGeq(seq, this.#sndMax[flow]!)) return false;
    const told = toldMtu(ctx.u8, p.transportAt, p.family);
    const mtu = p.family === 4 ? told || IPV4_UNTOLD_MTU : Math.max(told, IPV6_MIN_MTU);
    const headerBytes = ipHeaderBytes(p.family) + TCP_MIN_BYTES + this.#tsBytes(flow);
    const mss = Math.max(mtu - headerBytes, MSS_MIN);
    if (mss >= this.#mss[flow]!) return true; // about a frame from before the first error
    this.#mss[flow] = mss;
    ctx.counters[Counter.tcpMssLowered]!++;
    // Nothing was lost for lack of room: the congestion window stays (RFC 1191 section 6.3).
    this.#flags[flow]! &= ~Flag.inRecovery;
    this.#dupAcks[flow] = 0;
    this.#rewindAll(flow);
    this.#armRetransmit(flow);
    return true;
  }

  #free(p: Packet): void {
    this.#ctx.freeReaderSlots(p.slotA, p.slotB);
  }

  #discard(p: Packet, cause: number): void {
    this.#ctx.drop(cause);
    this.#free(p);
  }

  #checksumOk(p: Packet): boolean {
    const { u8, pool } = this.#ctx;
    const moreBytes = packetMoreBytes(p);
    const moreAt = moreBytes > 0 ? pool.slotAt(p.slotB) : 0;
    const pseudo = pseudoSumWords(p.family, p.addr, 0, p.addr, 4, IpProtocol.tcp, p.transportBytes);
    return (
      foldSum(onesSumPieces(u8, p.transportAt, p.transportBytesInA, moreAt, moreBytes, pseudo)) === 0xffff
    );
  }

  /** A segment of no known connection: a SYN opens one, anything else is answered as RFC 9293 section 3.10.7.1 says. */
  #onUnknown(p: Packet, headerBytes: number, ports: number): void {
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const flags = tcpFlags(u8, p.transportAt);
    const port = ports & 0xffff;
    const multicast = p.family === 4 ? p.addr[7]! >>> 28 >= 14 : p.addr[4]! >>> 24 === 0xff;
    const destination = ctx.addressing.classify(p.addr, 4, port);
    // Nothing may seem to come from such an address, not even a RST.
    if (port === 0 || ports >>> 16 === 0 || multicast || destination === Destination.invalid) {
      return this.#discard(p, StageDrop.tcpDestination);
    }
    if ((flags & (TcpFlag.syn | TcpFlag.ack | TcpFlag.rst | TcpFlag.fin)) !== TcpFlag.syn) {
      if (!(flags & TcpFlag.rst)) this.#resetUnknown(p, headerBytes, flags);
      return this.#discard(p, StageDrop.tcpNoFlow);
    }
    if (
      destination === Destination.gateway ||
      (destination === Destination.dns && this.#resolvers.of(p.family).count === 0)
    ) {
      if (ctx.plan.policy.refusal === 'network') return refusalToGuest(ctx, p);
      this.#resetUnknown(p, headerBytes, flags);
      return this.#free(p);
    }
    const flow = ctx.flows.insert(p.hash, p.addr, 0, p.addr, 4, ports, IpProtocol.tcp);
    if (flow < 0) {
      ctx.counters[Counter.flowTableFull]!++;
      ctx.log(
        'warning',
        `flow table of shard ${ctx.shard} is full (${ctx.plan.pool.flows}): new connections wait`,
      );
      return this.#free(p);
    }
    this.#reset(flow, p.family);
    this.#irs[flow] = tcpSeq(u8, p.transportAt);
    this.#rcvNxt[flow] = (this.#irs[flow]! + 1) >>> 0;
    this.#rcvAdv[flow] = this.#rcvNxt[flow]!;
    this.#readSynOptions(p, flow, headerBytes);
    this.#sndWnd[flow] = tcpWindow(u8, p.transportAt);
    this.#state[flow] = State.connecting;
    ctx.counters[Counter.tcpOpened]!++;
    if (destination === Destination.dns) {
      this.#flags[flow]! |= Flag.dns;
      this.#eofOffset[flow] = 0;
      this.#openResolver(flow);
    } else {
      ctx.addressing.toHost(p.addr, 4, destination, this.#words, 0);
      this.#open(flow, port);
    }
    this.#free(p);
  }

  #open(flow: number, port: number): void {
    const out = this.#ctx.toHost;
    const at = reserveMessage(out, ToHost.openTcp, flow);
    const w = out.words;
    for (let i = 0; i < 4; i++) w[at + W.addr + i] = this.#words[i]!;
    w[at + W.ports] = (port << 16) >>> 0;
    out.commit();
  }

  #openResolver(flow: number): void {
    const resolvers = this.#resolversOf(flow);
    const index = resolvers.pick(this.#ctx.now, this.#eofOffset[flow]!);
    this.#recover[flow] = index;
    const words = resolvers.words;
    for (let i = 0; i < 4; i++) this.#words[i] = words[index * 4 + i]!;
    this.#open(flow, this.#ctx.flows.ports[flow]! & 0xffff);
  }

  #resolversOf(flow: number): Resolvers {
    return this.#resolvers.of(this.#flags[flow]! & Flag.v6 ? 6 : 4);
  }

  #reset(flow: number, family: number): void {
    const ctx = this.#ctx;
    this.#flags[flow] = family === 6 ? Flag.v6 : 0;
    const k = ctx.plan.isnKey;
    // RFC 6528: a keyed hash of the connection plus a clock of 250 ticks a millisecond.
    const salt = flowHash(
      k[0],
      k[1],
      ctx.flows.addr,
      flow * 8,
      ctx.flows.addr,
      flow * 8 + 4,
      ctx.flows.ports[flow]!,
      6,
    );
    const iss = (salt + Math.floor(ctx.now * 250) + (k[2] ^ k[3])) >>> 0;
    this.#iss[flow] = iss;
    this.#sndUna[flow] = iss;
    this.#sndNxt[flow] = iss;
    this.#sndMax[flow] = iss;
    this.#sndWscale[flow] = 0;
    this.#sndWl1[flow] = 0;
    this.#sndWl2[flow] = iss;
    this.#rcvLimit[flow] = Math.min(RCV_LIMIT_START, this.#limitMax);
    this.#queued[flow] = 0;
    this.#cwnd[flow] = CWND_START;
    this.#ssthresh[flow] = CWND_MAX;
    this.#dupAcks[flow] = 0;
    this.#srtt[flow] = 0;
    this.#rttvar[flow] = 0;
    this.#rto[flow] = RTO_INITIAL_MS;
    this.#tries[flow] = 0;
    this.#lastSeen[flow] = ctx.now;
    this.#bigLosses[flow] = 0;
    this.#oooHead[flow] = NONE;
    this.#oooTail[flow] = NONE;
    this.#oooCount[flow] = 0;
  }

  #readSynOptions(p: Packet, flow: number, headerBytes: number): void {
    const o = this.#opts;
    tcpOptions(this.#ctx.u8, p.transportAt, headerBytes, o);
    const v6 = this.#flags[flow]! & Flag.v6;
    const ours = this.#ctx.plan.addresses.mtu - (v6 ? 60 : 40);
    // RFC 9293 section 3.7.1: no option means 536, or 1220 with IPv6.
    const theirs = o.mss === 0 ? (v6 ? 1220 : 536) : Math.max(o.mss, MSS_MIN);
    this.#mss[flow] = Math.min(ours, theirs, 65495);
    if (o.wscale >= 0) {
      this.#flags[flow]! |= Flag.wscaleOk;
      this.#sndWscale[flow] = o.wscale;
    }
    if (o.sackPermitted) this.#flags[flow]! |= Flag.sackOk;
    if (o.hasTs) {
      this.#flags[flow]! |= Flag.tsOk;
      this.#tsRecent[flow] = o.tsVal;
      // The MSS option does not count options (RFC 6691): what is left for payload.
      this.#mss[flow]! -= TCP_TIMESTAMPS_BYTES;
    }
    // A hop limit that no system starts with: the guest forwards for somebody behind it, over devices that take no such frames, and would
    // have to cut each into segments, which costs more than is gained.
    const atSource = p.ttl === 64 || p.ttl === 128 || p.ttl === 255;
    if (this.#ctx.guest.bigTcp && atSource) this.#flags[flow]! |= Flag.big;
  }

  /** SYN-ACK sent, waiting for the ACK of it. */
  #onSynReceived(p: Packet, flow: number, headerBytes: number): void {
    const u8 = this.#ctx.u8;
    const flags = tcpFlags(u8, p.transportAt);
    const seq = tcpSeq(u8, p.transportAt);
    if (flags & TcpFlag.rst) {
      if (seq === this.#rcvNxt[flow]) this.#abortHost(flow);
      return this.#free(p);
    }
    if (flags & TcpFlag.syn) {
      if (seq !== this.#irs[flow]) return this.#free(p);
      const ours = (this.#iss[flow]! + 1) >>> 0;
      if (flags & TcpFlag.ack && tcpAck(u8, p.transportAt) === ours) {
        // Simultaneous open: the guest's SYN,ACK answers our SYN (RFC 9293 figure 7).
        this.#establish(flow, ours, seq, tcpWindow(u8, p.transportAt));
        this.#sndWnd[flow] = tcpWindow(u8, p.transportAt);
        this.#wantAck(flow);
      } else this.#sendSyn(flow);
      return this.#free(p);
    }
    if (!(flags & TcpFlag.ack)) return this.#free(p);
    const ack = tcpAck(u8, p.transportAt);
    if (ack !== (this.#iss[flow]! + 1) >>> 0) {
      // RFC 9293 section 3.10.7.4, fifth check: an unacceptable ACK answers RST and the state stays.
      this.#sendReset(flow, ack);
      return this.#free(p);
    }
    this.#establish(flow, ack, seq, tcpWindow(u8, p.transportAt));
    this.#onEstablished(p, flow, headerBytes);
  }

  /** Our SYN to the guest (a published port) is out. */
  #onSynSent(p: Packet, flow: number, headerBytes: number): void {
    const u8 = this.#ctx.u8;
    const flags = tcpFlags(u8, p.transportAt);
    const ack = tcpAck(u8, p.transportAt);
    const ackOk = (flags & TcpFlag.ack) !== 0 && ack === (this.#iss[flow]! + 1) >>> 0;
    if (flags & TcpFlag.ack && !ackOk) {
      if (!(flags & TcpFlag.rst)) this.#sendReset(flow, ack);
      return this.#free(p);
    }
    if (flags & TcpFlag.rst) {
      if (ackOk) this.#abortHost(flow);
      return this.#free(p);
    }
    if (flags & TcpFlag.syn) {
      const seq = tcpSeq(u8, p.transportAt);
      this.#irs[flow] = seq;
      this.#rcvNxt[flow] = (seq + 1) >>> 0;
      this.#rcvAdv[flow] = this.#rcvNxt[flow]!;
      this.#readSynOptions(p, flow, headerBytes);
      if (ackOk) {
        this.#establish(flow, ack, seq, tcpWindow(u8, p.transportAt));
        // The window of a SYN is never scaled (RFC 7323 section 2.2).
        this.#sndWnd[flow] = tcpWindow(u8, p.transportAt);
        this.#wantAck(flow);
      } else {
        // Simultaneous open (RFC 9293 figure 7).
        this.#state[flow] = State.synReceived;
        this.#sendSyn(flow);
      }
    }
    this.#free(p);
  }

  #establish(flow: number, ack: number, seq: number, window: number): void {
    this.#state[flow] = State.established;
    this.#sndUna[flow] = ack;
    this.#sndNxt[flow] = ack;
    this.#sndMax[flow] = ack;
    this.#sndWnd[flow] = this.#flags[flow]! & Flag.wscaleOk ? window << this.#sndWscale[flow]! : window;
    this.#sndWl1[flow] = seq;
    this.#sndWl2[flow] = ack;
    this.#tries[flow] = 0;
    this.#rto[flow] = RTO_INITIAL_MS;
    this.#ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.retransmit);
    this.#ctx.timers.arm(flow * TIMER_KINDS + TimerKind.idle, this.#ctx.now + KEEPALIVE_IDLE_MS);
    this.#wantCredit(flow);
  }

  /** RFC 9293 section 3.10.7.4, for everything from ESTABLISHED on. */
  #onEstablished(p: Packet, flow: number, headerBytes: number): void {
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const flags = tcpFlags(u8, p.transportAt);
    const payloadBytes = p.transportBytes - headerBytes;
    let seq = tcpSeq(u8, p.transportAt);
    const rcvNxt = this.#rcvNxt[flow]!;

    this.#tsEcr = 0;
    if (this.#flags[flow]! & Flag.tsOk && !this.#takeTimestamp(flow, p, headerBytes, seq, flags)) {
      return this.#free(p);
    }
    if (flags & (TcpFlag.rst | TcpFlag.syn)) {
      // RFC 5961: only the exact next sequence number resets; anything else in the window is challenged.
      if (flags & TcpFlag.rst) {
        if (seq === rcvNxt) this.#abortHost(flow);
        else if (seqGt(seq, rcvNxt) && seqLt(seq, this.#rcvAdv[flow]!)) this.#wantAck(flow);
      } else this.#wantAck(flow);
      return this.#free(p);
    }
    if (!(flags & TcpFlag.ack)) return this.#free(p);

    if (!this.#onAck(flow, p, headerBytes, seq, payloadBytes, flags)) return this.#free(p);

    if (payloadBytes === 0 && !(flags & TcpFlag.fin)) {
      // A keep-alive or an old empty segment wants to hear where we are.
      if (seqLt(seq, rcvNxt)) this.#wantAck(flow);
      return this.#free(p);
    }

    // Payload: cut what was seen before and what lies beyond the window.
    let fin = (flags & TcpFlag.fin) !== 0;
    let skip = 0;
    let len = payloadBytes;
    const old = seqDiff(rcvNxt, seq);
    if (old > 0) {
      if (old > len || (old === len && !fin) || this.#flags[flow]! & Flag.guestFin) {
        this.#wantAck(flow);
        return this.#free(p);
      }
      skip = old;
      len -= old;
      seq = rcvNxt;
    }
    const room = seqDiff(this.#rcvAdv[flow]!, seq);
    if (len > room) {
      fin = false;
      len = room;
      this.#wantAck(flow);
      if (len <= 0) return this.#free(p);
    }
    if (this.#flags[flow]! & Flag.guestFin) {
      // Beyond its own FIN: nothing there can be valid.
      this.#wantAck(flow);
      return this.#free(p);
    }
    if (len > 0 && this.#queuedTotal > this.#queuedBudget && this.#queued[flow]! >= RCV_LIMIT_FLOOR) {
      // Memory is short and this flow has its share: unacknowledged, the guest keeps it for us.
      ctx.counters[Counter.poolDry]!++;
      this.#wantAck(flow);
      return this.#free(p);
    }

    let slotA = p.slotA;
    let slotB = p.slotB;
    let at = p.transportAt - ctx.pool.slotAt(slotA) + headerBytes + skip;
    const inA = p.transportBytesInA - headerBytes - skip;
    if (inA <= 0 && slotB !== NO_SLOT && len > 0) {
      // All of slotA is headers and old bytes.
      ctx.freeReaderSlots(slotA, NO_SLOT);
      slotA = slotB;
      slotB = NO_SLOT;
      at = -inA;
    } else if (slotB !== NO_SLOT && len <= inA) {
      ctx.freeReaderSlots(NO_SLOT, slotB);
      slotB = NO_SLOT;
    }

    if (seq !== rcvNxt) {
      ctx.counters[Counter.tcpOutOfOrder]!++;
      this.#wantAck(flow);
      ctx.counters[Counter.tcpDupAcksSent]!++;
      if (!this.#oooInsert(flow, seq, len, slotA, slotB, at, fin)) ctx.freeReaderSlots(slotA, slotB);
      this.#flushAck(flow);
      return;
    }
    if (len > 0) {
      this.#countBusy(flow);
      this.#toHost(flow, slotA, slotB, at, len);
      this.#rcvNxt[flow] = (seq + len) >>> 0;
    } else ctx.freeReaderSlots(slotA, slotB);
    if (fin) this.#onGuestFin(flow);
    if (this.#oooHead[flow] !== NONE) {
      this.#oooDrain(flow);
      this.#wantAck(flow);
    }
  }

  /**
   * PAWS and the timestamp to echo (RFC 7323 sections 4.3 and 5.3).
   * @returns false for a segment that is older than one seen before: acknowledged, not looked at
   */
  #takeTimestamp(flow: number, p: Packet, headerBytes: number, seq: number, flags: number): boolean {
    if (headerBytes < TCP_MIN_BYTES + TCP_TIMESTAMPS_BYTES) return true;
    const u8 = this.#ctx.u8;
    const at = p.transportAt + TCP_MIN_BYTES;
    let tsVal: number;
    // NOP NOP timestamps 10, as everybody writes it: no walk through the options.
    if (readU32(u8, at) === 0x0101080a) {
      tsVal = readU32(u8, at + 4);
      this.#tsEcr = readU32(u8, at + 8);
    } else {
      tcpOptions(u8, p.transportAt, headerBytes, this.#opts);
      if (!this.#opts.hasTs) return true;
      tsVal = this.#opts.tsVal;
      this.#tsEcr = this.#opts.tsEcr;
    }
    const newer = (tsVal - this.#tsRecent[flow]!) | 0;
    if (newer < 0) {
      if (flags & TcpFlag.rst) return true;
      this.#wantAck(flow);
      return false;
    }
    if (seqLeq(seq, this.#lastAckSent[flow]!)) this.#tsRecent[flow] = tsVal;
    return true;
  }

  /** Bytes of the timestamps option in every segment of the flow but SYN. */
  #tsBytes(flow: number): number {
    return this.#flags[flow]! & Flag.tsOk ? TCP_TIMESTAMPS_BYTES : 0;
  }

  /** Our timestamp clock: milliseconds from a random start. */
  #tsNow(): number {
    return (Math.floor(this.#ctx.now) + this.#ctx.plan.isnKey[3]) >>> 0;
  }

  /** Keep the number of busy flows, and with it each one's share of the memory for queues. */
  #countBusy(flow: number): void {
    const epoch = Math.floor(this.#ctx.now / BUSY_EPOCH_MS) | 0;
    if (epoch !== this.#epoch) {
      this.#busyBefore = epoch - this.#epoch === 1 ? this.#busy : 0;
      this.#busy = 0;
      this.#epoch = epoch;
    }
    if (this.#busyEpoch[flow] === epoch) return;
    this.#busyEpoch[flow] = epoch;
    this.#busy++;
    const busy = this.#busy > this.#busyBefore ? this.#busy : this.#busyBefore;
    this.#limitCap = Math.min(this.#limitMax, Math.floor(this.#queuedBudget / busy));
  }

  #onGuestFin(flow: number): void {
    this.#rcvNxt[flow] = (this.#rcvNxt[flow]! + 1) >>> 0;
    this.#flags[flow]! |= Flag.guestFin;
    this.#oooClear(flow);
    this.#wantAck(flow);
    this.#command(flow, ToHost.finish);
    this.#closeWhenDone(flow);
  }

  /** @returns false when the segment's ACK is beyond anything sent: its payload is not looked at */
  #onAck(
    flow: number,
    p: Packet,
    headerBytes: number,
    seq: number,
    payloadBytes: number,
    flags: number,
  ): boolean {
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const ack = tcpAck(u8, p.transportAt);
    const sndUna = this.#sndUna[flow]!;
    if (seqGt(ack, this.#sndMax[flow]!)) {
      this.#wantAck(flow);
      return false;
    }
    const window = tcpWindow(u8, p.transportAt);
    const scaled = this.#flags[flow]! & Flag.wscaleOk ? window << this.#sndWscale[flow]! : window;
    const oldWindow = this.#sndWnd[flow]!;
    const progress = seqGt(ack, sndUna);

    if (progress) this.#onProgress(flow, ack);
    // RFC 9293: an older segment must not change the window. One that acknowledges more may, even when it is a repetition: the old
    // window counted from the new sndUna would reach too far (Linux: tcp_may_update_window).
    if (
      progress ||
      (ack === sndUna &&
        (seqLt(this.#sndWl1[flow]!, seq) || (this.#sndWl1[flow] === seq && seqLeq(this.#sndWl2[flow]!, ack))))
    ) {
      this.#sndWl1[flow] = seq;
      this.#sndWl2[flow] = ack;
      if (scaled !== oldWindow) {
        this.#sndWnd[flow] = scaled;
        this.#wantCredit(flow);
        if (oldWindow === 0) this.#onWindowOpened(flow);
      }
    }
    if (progress) this.#wantCredit(flow);
    else if (
      ack === sndUna &&
      payloadBytes === 0 &&
      !(flags & TcpFlag.fin) &&
      this.#sndMax[flow] !== sndUna &&
      scaled === oldWindow
    ) {
      this.#onDuplicateAck(flow, p, headerBytes);
    }
    // An ACK that moves on and still has blocks shows the next hole.
    if (progress && headerBytes > TCP_MIN_BYTES + this.#tsBytes(flow) && this.#flags[flow]! & Flag.sackOk) {
      this.#retransmitHoles(flow, p, headerBytes);
    }
    return true;
  }

  #onProgress(flow: number, ack: number): void {
    const now = this.#ctx.now;
    const acked = seqDiff(ack, this.#sndUna[flow]!);
    this.#sndUna[flow] = ack;
    this.#ctx.flows.toGuestBytes[flow]! += acked;
    if (acked > IP_MAX_BYTES) this.#bigLosses[flow] = 0;
    if (seqLt(this.#sndNxt[flow]!, ack)) this.#sndNxt[flow] = ack;
    const flags = this.#flags[flow]!;
    if (flags & Flag.timing && seqGeq(ack, this.#timedSeq[flow]!)) {
      this.#flags[flow]! &= ~Flag.timing;
      const ms = now - this.#timedAt[flow]!;
      // The echo belongs to the segment that this ACK answers; when the ACK of the timed one was lost, that is a later one.
      const echoMs = this.#tsEcr === 0 ? ms : ((this.#tsNow() - this.#tsEcr) >>> 0) + 1;
      this.#onRttSample(flow, ms < echoMs ? ms : echoMs);
    }
    this.#tries[flow] = 0;
    this.#dupAcks[flow] = 0;
    this.#flags[flow]! &= ~(Flag.probed | Flag.windowProbe);
    if (flags & Flag.inRecovery) {
      if (seqGeq(ack, this.#recover[flow]!)) {
        this.#flags[flow]! &= ~Flag.inRecovery;
        this.#cwnd[flow] = this.#ssthresh[flow]!;
      } else if (seqLt(this.#rtxNxt[flow]!, ack)) {
        this.#rtxNxt[flow] = ack;
        if (!(flags & Flag.sackOk))
          this.#retransmitRange(flow, ack, Math.min(this.#mss[flow]!, seqDiff(this.#recover[flow]!, ack)));
      }
    } else {
      const cwnd = this.#cwnd[flow]!;
      if (cwnd < CWND_MAX) {
        this.#cwnd[flow] =
          cwnd < this.#ssthresh[flow]!
            ? cwnd + acked
            : cwnd + Math.max(1, Math.floor((this.#mss[flow]! * acked) / cwnd));
      }
    }
    // Not finSent: a time-out may have taken that back while the ACK was on its way. Nothing above sndMax gets here.
    if (flags & Flag.hostEof && ack === (this.#finSeq(flow) + 1) >>> 0) {
      this.#flags[flow]! |= Flag.finSent | Flag.finAcked;
      this.#closeWhenDone(flow);
    }
    if (this.#state[flow] === State.established) this.#armRetransmit(flow);
  }

  #onRttSample(flow: number, ms: number): void {
    recordHistogram(this.#ctx.counters, Histogram.guestRtt, ms * 1000);
    // RFC 6298 section 2.
    if (this.#srtt[flow] === 0) {
      this.#srtt[flow] = ms;
      this.#rttvar[flow] = ms / 2;
    } else {
      this.#rttvar[flow] = 0.75 * this.#rttvar[flow]! + 0.25 * Math.abs(this.#srtt[flow]! - ms);
      this.#srtt[flow] = 0.875 * this.#srtt[flow]! + 0.125 * ms;
    }
    this.#rto[flow] = Math.max(RTO_MIN_MS, Math.min(RTO_MAX_MS, this.#srtt[flow]! + 4 * this.#rttvar[flow]!));
  }

  /**
   * Frames to a TAP never overtake one another, so the first duplicate ACK that shows a SACK block is a loss; without SACK the
   * three of RFC 5681 are asked for, since other things look like one.
   */
  #onDuplicateAck(flow: number, p: Packet, headerBytes: number): void {
    const n = ++this.#dupAcks[flow]!;
    if (headerBytes > TCP_MIN_BYTES + this.#tsBytes(flow) && this.#flags[flow]! & Flag.sackOk) {
      this.#retransmitHoles(flow, p, headerBytes);
      return;
    }
    if (n === 3 && !(this.#flags[flow]! & Flag.inRecovery)) {
      this.#enterRecovery(flow);
      this.#retransmitRange(flow, this.#sndUna[flow]!, this.#mss[flow]!);
    }
  }

  #enterRecovery(flow: number): void {
    const inFlight = seqDiff(this.#sndMax[flow]!, this.#sndUna[flow]!);
    this.#flags[flow] = (this.#flags[flow]! | Flag.inRecovery) & ~(Flag.timing | Flag.big);
    this.#recover[flow] = this.#sndMax[flow]!;
    this.#rtxNxt[flow] = this.#sndUna[flow]!;
    this.#ssthresh[flow] = Math.max(CWND_FLOOR, inFlight >>> 1);
    this.#cwnd[flow] = this.#ssthresh[flow]!;
    this.#ctx.counters[Counter.tcpFastRetransmits]!++;
    this.#wantCredit(flow);
  }

  /** Read again what lies in front of and between the SACK blocks of this ACK, as far as it was not read again before. */
  #retransmitHoles(flow: number, p: Packet, headerBytes: number): void {
    const o = this.#opts;
    tcpOptions(this.#ctx.u8, p.transportAt, headerBytes, o);
    if (o.sackCount === 0) return;
    const sndUna = this.#sndUna[flow]!;
    const sndMax = this.#sndMax[flow]!;
    // At most four blocks: insertion sort by left edge, invalid ones left out (RFC 2018 section 4 allows DSACK below sndUna).
    const left = this.#sackLeft;
    const right = this.#sackRight;
    let n = 0;
    for (let i = 0; i < o.sackCount; i++) {
      const l = o.sackLeft[i]!;
      const r = o.sackRight[i]!;
      if (!seqLt(l, r) || !seqGt(l, sndUna) || seqGt(r, sndMax)) continue;
      let j = n++;
      for (; j > 0 && seqLt(l, left[j - 1]!); j--) {
        left[j] = left[j - 1]!;
        right[j] = right[j - 1]!;
      }
      left[j] = l;
      right[j] = r;
    }
    if (n === 0) return;
    if (!(this.#flags[flow]! & Flag.inRecovery)) this.#enterRecovery(flow);
    let from = sndUna;
    for (let i = 0; i < n; i++) {
      if (seqLt(from, this.#rtxNxt[flow]!)) from = this.#rtxNxt[flow]!;
      if (seqLt(from, left[i]!)) {
        this.#retransmitRange(flow, from, seqDiff(left[i]!, from));
        this.#rtxNxt[flow] = left[i]!;
      }
      if (seqLt(from, right[i]!)) from = right[i]!;
    }
  }

  /** Ask host-io for bytes [seq, seq + bytes) again; what is beyond the end of the stream is the FIN's turn. */
  #retransmitRange(flow: number, seq: number, bytes: number): void {
    const ctx = this.#ctx;
    ctx.counters[Counter.tcpRetransmits]!++;
    this.#flags[flow]! &= ~Flag.timing;
    const dataEnd = this.#flags[flow]! & Flag.finSent ? this.#finSeq(flow) : this.#sndMax[flow]!;
    const n = Math.min(bytes, seqDiff(dataEnd, seq));
    if (n <= 0) {
      if (this.#flags[flow]! & Flag.finSent) this.#sendFin(flow);
      return;
    }
    this.#rewind(flow, seq, n);
  }

  /** Have host-io peek again from `seq` on. @param bytes  only so many, 0: everything */
  #rewind(flow: number, seq: number, bytes: number): void {
    // What was acknowledged goes first: host-io does not rewind over it.
    this.#flushCredit(flow);
    const out = this.#ctx.toHost;
    const at = reserveMessage(out, ToHost.rewind, flow);
    out.words[at + W.arg0] = this.#offset(flow, seq);
    out.words[at + W.arg1] = bytes;
    out.commit();
  }

  /** Ask for everything again from the oldest unacknowledged byte on. */
  #rewindAll(flow: number): void {
    this.#sndNxt[flow] = this.#sndUna[flow]!;
    this.#flags[flow]! &= ~(Flag.finSent | Flag.timing);
    this.#rewind(flow, this.#sndUna[flow]!, 0);
    this.#wantCredit(flow);
    this.#maybeSendFin(flow);
  }

  /** If a probe's byte was not taken, send from there at once; the probe timer's patience is not for what is sent from now on. */
  #onWindowOpened(flow: number): void {
    this.#tries[flow] = 0;
    if (this.#flags[flow]! & Flag.windowProbe) {
      this.#flags[flow]! &= ~Flag.windowProbe;
      if (this.#sndNxt[flow] !== this.#sndUna[flow]) this.#rewindAll(flow);
    }
    this.#armRetransmit(flow);
  }

  /** The guest talks on a connection that we have closed towards the host. */
  #onClosing(p: Packet, flow: number): void {
    const flags = tcpFlags(this.#ctx.u8, p.transportAt);
    if (flags & TcpFlag.rst) return;
    if (this.#flags[flow]! & Flag.reset) this.#sendReset(flow, tcpAck(this.#ctx.u8, p.transportAt));
    else if (flags & TcpFlag.fin)
      this.#emit(flow, this.#sndNxt[flow]!, TcpFlag.ack, this.#ctx.guest.scratchAt, 0, 0, 0);
  }

  // --------------------------------------------------------------------------------------- out-of-order segments

  /** @returns false when it was not kept (too many, or nothing new in it): the caller frees the slots */
  #oooInsert(
    flow: number,
    seq: number,
    len: number,
    slotA: number,
    slotB: number,
    at: number,
    fin: boolean,
  ): boolean {
    if (this.#oooFree === NONE || this.#oooCount[flow]! >= OOO_PER_FLOW) return false;
    if (this.#oooSmall >= this.#oooSmallMax || this.#oooLarge >= this.#oooLargeMax) return false;
    if (len === 0 && !fin) return false;
    // Find the entry after which this one belongs; nearly always the last.
    let prev = NONE;
    let next = this.#oooHead[flow]!;
    const tail = this.#oooTail[flow]!;
    if (tail !== NONE && seqLeq(this.#oooSeq[tail]!, seq)) {
      prev = tail;
      next = NONE;
    } else {
      while (next !== NONE && seqLeq(this.#oooSeq[next]!, seq)) {
        prev = next;
        next = this.#oooNext[next]!;
      }
    }
    const end = (seq + len) >>> 0;
    if (prev !== NONE) {
      const prevEnd = (this.#oooSeq[prev]! + this.#oooLen[prev]!) >>> 0;
      // Whole overlap or a head that is there already: keep the older bytes and let the guest send the rest again.
      if (seqGt(prevEnd, seq)) return false;
    }
    let kept = len;
    let keepFin = fin;
    if (next !== NONE && seqGt(end, this.#oooSeq[next]!)) {
      kept = seqDiff(this.#oooSeq[next]!, seq);
      keepFin = false;
      if (kept <= 0) return false;
    }
    const e = this.#oooFree;
    this.#oooFree = this.#oooNext[e]!;
    this.#oooSeq[e] = seq;
    this.#oooLen[e] = kept;
    this.#oooSlotA[e] = slotA;
    this.#oooSlotB[e] = slotB;
    this.#oooAt[e] = at;
    this.#oooFin[e] = keepFin ? 1 : 0;
    this.#oooNext[e] = next;
    if (prev === NONE) this.#oooHead[flow] = e;
    else this.#oooNext[prev] = e;
    if (next === NONE) this.#oooTail[flow] = e;
    this.#oooCount[flow]!++;
    this.#oooCountSlots(e, 1);
    return true;
  }

  #oooRelease(flow: number, e: number): void {
    this.#oooHead[flow] = this.#oooNext[e]!;
    if (this.#oooHead[flow] === NONE) this.#oooTail[flow] = NONE;
    this.#oooNext[e] = this.#oooFree;
    this.#oooFree = e;
    this.#oooCount[flow]!--;
    this.#oooCountSlots(e, -1);
  }

  #oooCountSlots(e: number, by: number): void {
    if (this.#ctx.pool.isSmall(this.#oooSlotA[e]!)) this.#oooSmall += by;
    else this.#oooLarge += by;
    if (this.#oooSlotB[e] !== NO_SLOT) this.#oooLarge += by;
  }

  #oooDrain(flow: number): void {
    const pool = this.#ctx.pool;
    for (;;) {
      const e = this.#oooHead[flow]!;
      if (e === NONE) return;
      const rcvNxt = this.#rcvNxt[flow]!;
      const seq = this.#oooSeq[e]!;
      if (seqGt(seq, rcvNxt)) return;
      this.#oooRelease(flow, e);
      const skip = seqDiff(rcvNxt, seq);
      const len = this.#oooLen[e]! - skip;
      const fin = this.#oooFin[e] === 1;
      let slotA = this.#oooSlotA[e]!;
      let slotB = this.#oooSlotB[e]!;
      if (len < 0 || (len === 0 && !fin)) {
        this.#ctx.freeReaderSlots(slotA, slotB);
        continue;
      }
      if (len > 0) {
        let at = this.#oooAt[e]! + skip;
        const over = at - pool.slotBytes(slotA);
        if (over >= 0) {
          this.#ctx.freeReaderSlots(slotA, NO_SLOT);
          slotA = slotB;
          slotB = NO_SLOT;
          at = over;
        }
        this.#toHost(flow, slotA, slotB, at, len);
        this.#rcvNxt[flow] = (rcvNxt + len) >>> 0;
      } else this.#ctx.freeReaderSlots(slotA, slotB);
      if (fin) {
        this.#onGuestFin(flow);
        return;
      }
    }
  }

  #oooClear(flow: number): void {
    for (let e = this.#oooHead[flow]!; e !== NONE; e = this.#oooHead[flow]!) {
      this.#oooRelease(flow, e);
      this.#ctx.freeReaderSlots(this.#oooSlotA[e]!, this.#oooSlotB[e]!);
    }
  }

  // ------------------------------------------------------------------------------------------------ to the host

  #toHost(flow: number, slotA: number, slotB: number, slotOffset: number, len: number): void {
    const out = this.#ctx.toHost;
    const at = out.reserve();
    const w = out.words;
    w[at + W.op] = ToHost.send;
    w[at + W.flow] = flow;
    w[at + W.slotA] = slotA;
    w[at + W.slotB] = slotB;
    w[at + W.at] = slotOffset;
    w[at + W.len] = len;
    out.commit();
    this.#queued[flow]! += len;
    this.#queuedTotal += len;
    this.#ctx.flows.fromGuestBytes[flow]! += len;
  }

  #command(flow: number, op: number): void {
    const out = this.#ctx.toHost;
    const at = reserveMessage(out, op, flow);
    const w = out.words;
    w[at + W.arg0] = 0;
    out.commit();
  }

  /** Close or reset the host socket; the flow rests until host-io has answered. */
  #closeHost(flow: number, op: number): void {
    if (this.#state[flow] === State.closing) return;
    this.#oooClear(flow);
    this.#flushCredit(flow);
    this.#state[flow] = State.closing;
    if (op === ToHost.reset) this.#flags[flow]! |= Flag.reset;
    this.#ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.retransmit);
    this.#ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.idle);
    this.#command(flow, op);
  }

  /** The guest's side is gone: RST to the host's peer. */
  #abortHost(flow: number): void {
    this.#closeHost(flow, ToHost.reset);
  }

  /** Both sides get RST. */
  #abortBoth(flow: number): void {
    this.#sendReset(flow, this.#sndNxt[flow]!);
    this.#closeHost(flow, ToHost.reset);
  }

  #closeWhenDone(flow: number): void {
    const both = Flag.guestFin | Flag.finAcked;
    if ((this.#flags[flow]! & both) !== both || this.#state[flow] !== State.established) return;
    this.#flushAck(flow);
    this.#closeHost(flow, ToHost.close);
  }

  // ---------------------------------------------------------------------------------------------- from the host

  /** A message of host-io about a TCP flow (or an accepted connection). Host-io's slots in it are given back here. */
  onMessage(op: number, words: Uint32Array, at: number): void {
    const flow = words[at + W.flow]!;
    // What goes to the guest because of it comes after the data before it.
    if (op !== ToShard.data) this.flushRun();
    switch (op) {
      case ToShard.data:
        return this.#onData(flow, words, at);
      case ToShard.sent:
        return this.#onSent(flow, words[at + W.arg0]!, words[at + W.arg1] === 1);
      case ToShard.opened:
        return this.#onOpened(flow);
      case ToShard.openFailed:
        return this.#onOpenFailed(flow, words[at + W.arg0]!);
      case ToShard.eof:
        if (this.#state[flow] !== State.established && this.#state[flow] !== State.synSent) return;
        this.#flags[flow]! |= Flag.hostEof;
        this.#eofOffset[flow] = words[at + W.arg0]!;
        if (this.#state[flow] === State.established) this.#maybeSendFin(flow);
        return;
      case ToShard.error:
        if (this.#state[flow] === State.closing || this.#state[flow] === State.free) return;
        return this.#abortBoth(flow);
      case ToShard.closed:
        return this.#onClosed(flow);
      case ToShard.accepted:
        return this.#onAccepted(words, at);
    }
  }

  #onOpened(flow: number): void {
    if (this.#state[flow] !== State.connecting) return;
    this.#flags[flow]! &= ~Flag.dns;
    this.#eofOffset[flow] = 0;
    this.#state[flow] = State.synReceived;
    this.#sendSyn(flow);
  }

  #onOpenFailed(flow: number, errno: number): void {
    if (this.#state[flow] !== State.connecting) return;
    const ctx = this.#ctx;
    if (this.#flags[flow]! & Flag.dns) {
      const resolvers = this.#resolversOf(flow);
      resolvers.markBad(this.#recover[flow]!, ctx.now);
      // The next one is asked when `closed` has come, or that would end the new attempt.
      if (++this.#eofOffset[flow]! < resolvers.count) return;
    }
    // host-io has closed the socket with the failure: `closed` is on its way behind this message.
    this.#state[flow] = State.closing;
    if (errno === Errno.ETIMEDOUT) return; // the guest's own SYN timer says the same
    const v6 = this.#flags[flow]! & Flag.v6;
    const honest = ctx.plan.policy.connectFailure === 'honest';
    if (honest && (errno === Errno.ENETUNREACH || errno === Errno.EHOSTUNREACH || errno === Errno.ENETDOWN)) {
      const net = errno !== Errno.EHOSTUNREACH;
      // ICMP: 3/0 network, 3/1 host (RFC 792); ICMPv6: 1/0 no route, 1/3 address (RFC 4443 section 3.1).
      tcpUnreachableToGuest(ctx, flow, v6 ? 1 : 3, net ? 0 : v6 ? 3 : 1, this.#irs[flow]!);
      return;
    }
    this.#flags[flow]! |= Flag.reset;
    this.#sendReset(flow, 0);
  }

  #onClosed(flow: number): void {
    if (this.#state[flow] === State.free) return;
    if (this.#state[flow] === State.connecting) return this.#openResolver(flow);
    const ctx = this.#ctx;
    this.#queuedTotal -= this.#queued[flow]!;
    this.#queued[flow] = 0;
    this.#oooClear(flow);
    ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.retransmit);
    ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.idle);
    this.#state[flow] = State.free;
    // A flow may still stand on the ack or credit list: `free` makes the flush pass it over.
    this.#flags[flow]! &= Flag.ackPending | Flag.creditPending;
    ctx.counters[Counter.tcpClosed]!++;
    ctx.flows.remove(flow);
  }

  #onAccepted(words: Uint32Array, at: number): void {
    const ctx = this.#ctx;
    const token = words[at + W.arg0]!;
    // Tap-side addresses: guest in words 0..3, peer as the guest sees it in 4..7; host-io hashed the same tuple.
    const family = words[at + W.arg3]! === 6 ? 6 : 4;
    this.#words[0] = words[at + W.flow]!;
    this.#words[1] = words[at + W.at]!;
    this.#words[2] = words[at + W.len]!;
    this.#words[3] = words[at + W.arg2]!;
    for (let i = 0; i < 4; i++) this.#words[4 + i] = words[at + W.addr + i]!;
    const peerAndTarget = words[at + W.ports]!;
    const ports = ((peerAndTarget << 16) | (peerAndTarget >>> 16)) >>> 0;
    const hash = words[at + W.arg4]!;
    const taken = ctx.flows.find(hash, this.#words, 0, this.#words, 4, ports, IpProtocol.tcp) >= 0;
    const flow = taken ? -1 : ctx.flows.insert(hash, this.#words, 0, this.#words, 4, ports, IpProtocol.tcp);
    const out = ctx.toHost;
    const o = reserveMessage(out, flow < 0 ? ToHost.refuse : ToHost.adopt, flow < 0 ? 0 : flow);
    const w = out.words;
    w[o + W.arg0] = token;
    out.commit();
    if (flow < 0) {
      ctx.counters[Counter.flowTableFull]!++;
      return;
    }
    this.#reset(flow, family);
    this.#mss[flow] = 536;
    this.#irs[flow] = 0;
    this.#rcvNxt[flow] = 0;
    this.#rcvAdv[flow] = 0;
    this.#sndWnd[flow] = 0;
    this.#eofOffset[flow] = 0;
    this.#state[flow] = State.synSent;
    ctx.counters[Counter.tcpAccepted]!++;
    this.#sendSyn(flow);
  }

  /** Peeked bytes from host-io: in order, a repetition that was asked for, or stale after a rewind. */
  #onData(flow: number, words: Uint32Array, at: number): void {
    const ctx = this.#ctx;
    const slot = words[at + W.slotA]!;
    let len = words[at + W.len]!;
    let payloadAt = ctx.pool.slotAt(slot) + words[at + W.at]!;
    const again = words[at + W.arg1] === DataKind.again;
    if (words[at + W.arg1] === DataKind.last && this.#state[flow] === State.established) {
      this.#flags[flow]! |= Flag.hostEof;
      this.#eofOffset[flow] = (words[at + W.arg0]! + len) >>> 0;
    }
    if (this.#state[flow] !== State.established) return ctx.freeHostSlots(slot, NO_SLOT);
    let seq = (this.#iss[flow]! + 1 + words[at + W.arg0]!) >>> 0;
    const from = again ? this.#sndUna[flow]! : this.#sndNxt[flow]!;
    const old = seqDiff(from, seq);
    if (old > 0) {
      // Its head was acknowledged meanwhile.
      seq = from;
      payloadAt += old;
      len -= old;
    }
    if (len <= 0 || (!again && seq !== from) || (again && seqGt((seq + len) >>> 0, this.#sndMax[flow]!))) {
      return ctx.freeHostSlots(slot, NO_SLOT);
    }
    const end = (seq + len) >>> 0;
    let flags: number = TcpFlag.ack | TcpFlag.psh;
    const fresh = seqGt(end, this.#sndMax[flow]!);
    if (fresh && !(this.#flags[flow]! & Flag.timing)) {
      this.#flags[flow]! |= Flag.timing;
      this.#timedSeq[flow] = end;
      this.#timedAt[flow] = ctx.now;
    }
    if (!again) {
      this.#sndNxt[flow] = end;
      if (fresh) this.#sndMax[flow] = end;
    } else if (seqGt(end, this.#sndNxt[flow]!)) this.#sndNxt[flow] = end;
    // Known to be the last bytes: the FIN rides on them, which saves a frame and, in the guest, a wake-up.
    if (this.#sndNxt[flow] === end && this.#takeFin(flow)) flags |= TcpFlag.fin;
    if (again || !(this.#flags[flow]! & Flag.big)) {
      this.#emit(flow, seq, flags, payloadAt - this.#headBytes(flow, len), 0, len, 0);
      ctx.freeHostSlots(slot, NO_SLOT);
    } else this.#hold(flow, seq, flags, slot, payloadAt, len);
    if (!ctx.timers.isArmed(flow * TIMER_KINDS + TimerKind.retransmit)) this.#armRetransmit(flow);
    this.#maybeSendFin(flow);
  }

  /** Bytes of all headers from IP's on in front of a segment. They go there in place: host-io received behind HEADROOM_BYTES. */
  #headBytes(flow: number, payloadBytes: number): number {
    const tcpBytes = TCP_MIN_BYTES + this.#tsBytes(flow);
    if (!(this.#flags[flow]! & Flag.v6)) return 20 + tcpBytes;
    return IPV6_BYTES + (tcpBytes + payloadBytes > IP_MAX_BYTES ? IPV6_JUMBO_BYTES : 0) + tcpBytes;
  }

  /** Fresh payload that may share a frame with what follows it. The slot is given back when the frame is sent, by flushRun() at the latest. */
  #hold(flow: number, seq: number, flags: number, slot: number, payloadAt: number, len: number): void {
    if (this.#runCount > 0 && (flow !== this.#runFlow || seq !== (this.#runSeq + this.#runBytes) >>> 0)) {
      this.flushRun();
    }
    const i = this.#runCount++;
    if (i === 0) {
      this.#runFlow = flow;
      this.#runSeq = seq;
      this.#runBytes = 0;
    }
    this.#runFlags = flags;
    this.#runAt[i] = payloadAt;
    this.#runLen[i] = len;
    this.#runSlot[i] = slot;
    this.#runBytes += len;
    // Only a frame's last segment may be shorter than the MSS.
    if (i + 1 === RUN_PIECES || flags & TcpFlag.fin || len % this.#mss[flow]! !== 0) this.flushRun();
  }

  /** Send what is held. Called at the end of each batch of messages too: nothing waits for company. */
  flushRun(): void {
    const count = this.#runCount;
    if (count === 0) return;
    this.#runCount = 0;
    const ctx = this.#ctx;
    const flow = this.#runFlow;
    const first = this.#runLen[0]!;
    const more = this.#runBytes - first;
    for (let i = 1; i < count; i++) ctx.guest.addPiece(this.#runAt[i]!, this.#runLen[i]!);
    const ipAt = this.#runAt[0]! - this.#headBytes(flow, this.#runBytes);
    const r = this.#emit(flow, this.#runSeq, this.#runFlags, ipAt, 0, first, more);
    if (r < 0 && count > 1) {
      // Refused, for its size or for want of memory for it: piece by piece, from now on too.
      this.#flags[flow]! &= ~Flag.big;
      let seq = this.#runSeq;
      for (let i = 0; i < count; i++) {
        const len = this.#runLen[i]!;
        const flags = i + 1 === count ? this.#runFlags : this.#runFlags & ~TcpFlag.fin;
        this.#emit(flow, seq, flags, this.#runAt[i]! - this.#headBytes(flow, len), 0, len, 0);
        seq = (seq + len) >>> 0;
      }
    }
    for (let i = 0; i < count; i++) ctx.freeHostSlots(this.#runSlot[i]!, NO_SLOT);
  }

  #onSent(flow: number, bytes: number, empty: boolean): void {
    const state = this.#state[flow];
    this.#queued[flow]! -= bytes;
    this.#queuedTotal -= bytes;
    if (state !== State.established) return;
    if (empty) {
      this.#flags[flow]! &= ~Flag.hostBlocked;
      // The socket keeps up: let more wait, while memory allows.
      if (bytes > 0 && this.#rcvLimit[flow]! < this.#limitMax) {
        this.#rcvLimit[flow] = Math.min(this.#rcvLimit[flow]! * 2, this.#limitMax);
      }
    } else this.#flags[flow]! |= Flag.hostBlocked;
    this.#wantAck(flow);
  }

  // ---------------------------------------------------------------------------------------------- to the guest

  #offset(flow: number, seq: number): number {
    return (seq - this.#iss[flow]! - 1) >>> 0;
  }

  /** Sequence number of our FIN; meaningful once the end of the host's stream is known. */
  #finSeq(flow: number): number {
    return (this.#iss[flow]! + 1 + this.#eofOffset[flow]!) >>> 0;
  }

  /** Is our FIN next? It then counts as sent. */
  #takeFin(flow: number): boolean {
    const flags = this.#flags[flow]!;
    if (!(flags & Flag.hostEof) || flags & Flag.finSent) return false;
    if (this.#sndNxt[flow] !== this.#finSeq(flow)) return false;
    this.#flags[flow]! |= Flag.finSent;
    this.#sndNxt[flow] = (this.#sndNxt[flow]! + 1) >>> 0;
    if (seqGt(this.#sndNxt[flow]!, this.#sndMax[flow]!)) this.#sndMax[flow] = this.#sndNxt[flow]!;
    return true;
  }

  #maybeSendFin(flow: number): void {
    if (!this.#takeFin(flow)) return;
    this.#sendFin(flow);
    this.#armRetransmit(flow);
  }

  #sendFin(flow: number): void {
    this.#emit(flow, this.#finSeq(flow), TcpFlag.fin | TcpFlag.ack, this.#ctx.guest.scratchAt, 0, 0, 0);
  }

  /** SYN (to the guest) or SYN-ACK, by state; arms its repetition. */
  #sendSyn(flow: number): void {
    const ctx = this.#ctx;
    const v6 = this.#flags[flow]! & Flag.v6;
    const ipBytes = v6 ? 40 : 20;
    const at = ctx.guest.scratchAt;
    const initial = this.#state[flow] === State.synSent;
    const mss = Math.min(ctx.plan.addresses.mtu - ipBytes - TCP_MIN_BYTES, 65535);
    const wscale = initial || this.#flags[flow]! & Flag.wscaleOk ? RCV_WSCALE : -1;
    const sack = initial || (this.#flags[flow]! & Flag.sackOk) !== 0;
    const optionsAt = at + ipBytes + TCP_MIN_BYTES;
    let optionBytes = tcpSynOptionsWrite(ctx.u8, optionsAt, mss, wscale, sack);
    if (initial || this.#flags[flow]! & Flag.tsOk) {
      const echo = initial ? 0 : this.#tsRecent[flow]!;
      optionBytes += tcpTimestampsWrite(ctx.u8, optionsAt + optionBytes, this.#tsNow(), echo);
    }
    const iss = this.#iss[flow]!;
    this.#sndNxt[flow] = (iss + 1) >>> 0;
    this.#sndMax[flow] = this.#sndNxt[flow]!;
    this.#emit(flow, iss, initial ? TcpFlag.syn : TcpFlag.syn | TcpFlag.ack, at, optionBytes, 0, 0);
    ctx.timers.arm(flow * TIMER_KINDS + TimerKind.retransmit, ctx.now + this.#rto[flow]!);
  }

  /** RST for a flow. @param seq  its sequence number: what the guest says it expects */
  #sendReset(flow: number, seq: number): void {
    this.#ctx.counters[Counter.tcpResetSent]!++;
    this.#emit(flow, seq, TcpFlag.rst | TcpFlag.ack, this.#ctx.guest.scratchAt, 0, 0, 0);
  }

  /** RST for a segment of no flow (RFC 9293 section 3.10.7.1): everything mirrored from it. */
  #resetUnknown(p: Packet, headerBytes: number, flags: number): void {
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const t = p.transportAt;
    const at = ctx.guest.scratchAt;
    const ipBytes = p.family === 4 ? 20 : 40;
    const hasAck = (flags & TcpFlag.ack) !== 0;
    const seq = hasAck ? tcpAck(u8, t) : 0;
    const segLen =
      p.transportBytes - headerBytes + (flags & TcpFlag.syn ? 1 : 0) + (flags & TcpFlag.fin ? 1 : 0);
    const ack = hasAck ? 0 : (tcpSeq(u8, t) + segLen) >>> 0;
    const rst = hasAck ? TcpFlag.rst : TcpFlag.rst | TcpFlag.ack;
    tcpWrite(u8, at + ipBytes, readU16(u8, t + 2), readU16(u8, t), seq, ack, TCP_MIN_BYTES, rst, 0);
    this.#finishIp(at, p.addr, 4, p.addr, 0, p.family === 6, TCP_MIN_BYTES);
    ctx.counters[Counter.tcpResetSent]!++;
    this.#sendIp(at, ipBytes, p.family === 6, TCP_MIN_BYTES, 0, 0, 0);
  }

  /** IP header in front of a TCP segment, pseudo-header sum into the checksum field. */
  #finishIp(
    at: number,
    src: Uint32Array,
    s: number,
    dst: Uint32Array,
    d: number,
    v6: boolean,
    tcpBytes: number,
  ): void {
    const u8 = this.#ctx.u8;
    if (v6) {
      let ipBytes = IPV6_BYTES;
      if (tcpBytes > IP_MAX_BYTES) {
        ipv6Write(u8, at, 0, Ipv6Next.hopByHop, 255, 0);
        ipv6JumboWrite(u8, at + IPV6_BYTES, IpProtocol.tcp, IPV6_JUMBO_BYTES + tcpBytes);
        ipBytes += IPV6_JUMBO_BYTES;
      } else ipv6Write(u8, at, tcpBytes, IpProtocol.tcp, 255, 0);
      addressWrite(u8, at + IPV6_SRC, src, s);
      addressWrite(u8, at + IPV6_DST, dst, d);
      writeU16(
        u8,
        at + ipBytes + 16,
        foldSum(pseudoSum6At(u8, at + IPV6_SRC, at + IPV6_DST, IpProtocol.tcp, tcpBytes)),
      );
    } else {
      // A total length of 0 stands for one that the field cannot say: Linux takes that of a GSO frame (iph_totlen).
      const totalLen = 20 + tcpBytes > IP_MAX_BYTES ? 0 : 20 + tcpBytes;
      ipv4Write(u8, at, totalLen, IpProtocol.tcp, src[s + 3]!, dst[d + 3]!, 255, 0, 0x4000);
      writeU16(u8, at + 20 + 16, foldSum(pseudoSum4(src[s + 3]!, dst[d + 3]!, IpProtocol.tcp, tcpBytes)));
    }
  }

  /**
   * @param moreBytes  payload in pieces that the guest link holds already
   * @returns 0 or -errno: the frame was not taken
   */
  #sendIp(
    at: number,
    ipBytes: number,
    v6: boolean,
    tcpHeaderLen: number,
    payloadBytes: number,
    moreBytes: number,
    mss: number,
  ): number {
    if (moreBytes > 0) {
      return this.#ctx.guest.sendPieces(
        at,
        ipBytes + tcpHeaderLen + payloadBytes,
        v6 ? EtherType.ipv6 : EtherType.ipv4,
        ipBytes,
        16,
        v6 ? VnetGso.tcpv6 : VnetGso.tcpv4,
        mss,
        ipBytes + tcpHeaderLen,
      );
    }
    const gso = payloadBytes > mss && payloadBytes > 0;
    return this.#ctx.guest.send(
      at,
      ipBytes + tcpHeaderLen + payloadBytes,
      v6 ? EtherType.ipv6 : EtherType.ipv4,
      ipBytes,
      16,
      gso ? (v6 ? VnetGso.tcpv6 : VnetGso.tcpv4) : VnetGso.none,
      gso ? mss : 0,
      ipBytes + tcpHeaderLen,
      0,
      0,
    );
  }

  /**
   * Build and send one segment of a flow. It carries the current acknowledgement and window, so a pending ACK is done with it.
   * @param at  offset of the IP header: payload, and options after the timestamps, lie behind the headers already
   * @param moreBytes  payload in pieces that the guest link holds already
   * @returns 0 or -errno: the frame was not taken
   */
  #emit(
    flow: number,
    seq: number,
    flags: number,
    at: number,
    optionBytes: number,
    payloadBytes: number,
    moreBytes: number,
  ): number {
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const v6 = (this.#flags[flow]! & Flag.v6) !== 0;
    const ports = ctx.flows.ports[flow]!;
    const tsBytes = flags & TcpFlag.syn ? 0 : this.#tsBytes(flow);
    const headerBytes = TCP_MIN_BYTES + tsBytes + optionBytes;
    const tcpBytes = headerBytes + payloadBytes + moreBytes;
    const ipBytes = v6 ? IPV6_BYTES + (tcpBytes > IP_MAX_BYTES ? IPV6_JUMBO_BYTES : 0) : 20;
    let window = 0;
    let ack = 0;
    if (flags & TcpFlag.ack) {
      ack = this.#rcvNxt[flow]!;
      if (!(flags & TcpFlag.rst)) window = this.#window(flow, (flags & TcpFlag.syn) !== 0);
      this.#flags[flow]! &= ~Flag.ackPending;
      this.#lastAckSent[flow] = ack;
    } else window = Math.min(65535, this.#rcvLimit[flow]!);
    tcpWrite(u8, at + ipBytes, ports & 0xffff, ports >>> 16, seq, ack, headerBytes, flags, window);
    if (tsBytes > 0)
      tcpTimestampsWrite(u8, at + ipBytes + TCP_MIN_BYTES, this.#tsNow(), this.#tsRecent[flow]!);
    this.#finishIp(at, ctx.flows.addr, flow * 8 + 4, ctx.flows.addr, flow * 8, v6, tcpBytes);
    return this.#sendIp(at, ipBytes, v6, headerBytes, payloadBytes, moreBytes, this.#mss[flow]!);
  }

  /** The window field to advertise now; notes the right edge. It never moves back (RFC 9293 section 3.8.6). */
  #window(flow: number, syn: boolean): number {
    const rcvNxt = this.#rcvNxt[flow]!;
    // Two segments at the least: a guest whose MSS does not fit the window waits for its probe timer.
    const limit = Math.max(Math.min(this.#rcvLimit[flow]!, this.#limitCap), 2 * this.#mss[flow]!);
    const free = limit - this.#queued[flow]!;
    const promised = seqDiff(this.#rcvAdv[flow]!, rcvNxt);
    let bytes = free > promised ? free : promised;
    if (bytes < 0) bytes = 0;
    let field: number;
    if (syn || !(this.#flags[flow]! & Flag.wscaleOk)) {
      field = bytes > 65535 ? 65535 : bytes;
      bytes = field;
    } else {
      // Rounded down, the edge may seem to move back by less than the scale's grain, as RFC 7323 section 2.4 allows. Rounded up, it
      // would creep on with every segment, and a guest that sends single bytes would never see the window close.
      field = bytes >>> RCV_WSCALE;
      if (field > 65535) field = 65535;
      bytes = field << RCV_WSCALE;
    }
    const edge = (rcvNxt + bytes) >>> 0;
    if (seqGt(edge, this.#rcvAdv[flow]!)) this.#rcvAdv[flow] = edge;
    return field;
  }

  #wantAck(flow: number): void {
    if (this.#flags[flow]! & Flag.ackPending) return;
    this.#flags[flow]! |= Flag.ackPending;
    if (this.#ackCount < this.#ackList.length) this.#ackList[this.#ackCount++] = flow;
    else this.#flushAck(flow);
  }

  #flushAck(flow: number): void {
    if (!(this.#flags[flow]! & Flag.ackPending)) return;
    this.#flags[flow]! &= ~Flag.ackPending;
    const state = this.#state[flow];
    if (state !== State.established) return;
    const ctx = this.#ctx;
    let optionBytes = 0;
    const at = ctx.guest.scratchAt;
    if (this.#oooHead[flow] !== NONE && this.#flags[flow]! & Flag.sackOk) {
      const count = this.#sackBlocks(flow);
      const optionsAt = at + (this.#flags[flow]! & Flag.v6 ? 40 : 20) + TCP_MIN_BYTES + this.#tsBytes(flow);
      optionBytes = tcpSackWrite(ctx.u8, optionsAt, this.#sackLeft, this.#sackRight, count);
    }
    this.#emit(flow, this.#sndNxt[flow]!, TcpFlag.ack, at, optionBytes, 0, 0);
  }

  /**
   * The ranges that wait out of order, newest first as far as the tail tells (RFC 2018 section 4: the block of the segment that
   * caused the ACK comes first; arrivals are nearly always at the end).
   */
  #sackBlocks(flow: number): number {
    const left = this.#sackLeft;
    const right = this.#sackRight;
    let n = 0;
    let e = this.#oooHead[flow]!;
    while (e !== NONE) {
      const l = this.#oooSeq[e]!;
      // A FIN counts one, or a lone one would make an empty block.
      let r = (l + this.#oooLen[e]! + this.#oooFin[e]!) >>> 0;
      e = this.#oooNext[e]!;
      while (e !== NONE && this.#oooSeq[e] === r) {
        r = (r + this.#oooLen[e]! + this.#oooFin[e]!) >>> 0;
        e = this.#oooNext[e]!;
      }
      if (n < SACK_BLOCKS) {
        left[n] = l;
        right[n] = r;
        n++;
      } else {
        // Keep the lowest ones: they are what the guest must fill first; the last place goes to the highest.
        left[n - 1] = l;
        right[n - 1] = r;
      }
    }
    if (n > 1) {
      const l = left[n - 1]!;
      const r = right[n - 1]!;
      left[n - 1] = left[0]!;
      right[n - 1] = right[0]!;
      left[0] = l;
      right[0] = r;
    }
    return n;
  }

  #wantCredit(flow: number): void {
    if (this.#flags[flow]! & Flag.creditPending) return;
    this.#flags[flow]! |= Flag.creditPending;
    if (this.#creditCount < this.#creditList.length) this.#creditList[this.#creditCount++] = flow;
    else this.#flushCredit(flow);
  }

  /** Tell host-io what was acknowledged and how far it may peek. */
  #flushCredit(flow: number): void {
    if (!(this.#flags[flow]! & Flag.creditPending)) return;
    this.#flags[flow]! &= ~Flag.creditPending;
    if (this.#state[flow] !== State.established) return;
    const sndWnd = this.#sndWnd[flow]!;
    const cwnd = this.#cwnd[flow]!;
    this.#sendCredit(flow, sndWnd < cwnd ? sndWnd : cwnd);
    if (sndWnd === 0 && this.#sndMax[flow] === this.#sndUna[flow]) this.#armPersist(flow);
  }

  #sendCredit(flow: number, bytes: number): void {
    const out = this.#ctx.toHost;
    const at = out.reserve();
    const w = out.words;
    const una = this.#offset(flow, this.#sndUna[flow]!);
    // Once our FIN is acknowledged sndUna lies one beyond the stream.
    const consumed = this.#flags[flow]! & Flag.finAcked ? this.#eofOffset[flow]! : una;
    w[at + W.op] = ToHost.credit;
    w[at + W.flow] = flow;
    w[at + W.slotA] = NO_SLOT;
    w[at + W.slotB] = NO_SLOT;
    w[at + W.arg0] = (una + bytes) >>> 0;
    w[at + W.arg1] = consumed;
    w[at + W.arg2] = this.#readLimit(flow);
    out.commit();
  }

  /** Payload bytes of the largest frame for this flow: whole segments as far as one IP packet of 65535 bytes reaches. */
  #readLimit(flow: number): number {
    const mss = this.#mss[flow]!;
    if (!this.#ctx.guest.hasVnet) return mss;
    const headers = (this.#flags[flow]! & Flag.v6 ? 0 : 20) + TCP_MIN_BYTES + this.#tsBytes(flow);
    const most = 65535 - headers;
    return mss * Math.max(1, Math.floor(most / mss));
  }

  /** End of the round: one ACK and one credit a flow, whatever happened to it. */
  flush(): number {
    const n = this.#ackCount + this.#creditCount;
    for (let i = 0; i < this.#creditCount; i++) this.#flushCredit(this.#creditList[i]!);
    this.#creditCount = 0;
    for (let i = 0; i < this.#ackCount; i++) this.#flushAck(this.#ackList[i]!);
    this.#ackCount = 0;
    return n;
  }

  // ---------------------------------------------------------------------------------------------------- timers

  /** Tail loss probe first (RFC 8985 section 7 in spirit), then the retransmission time-out. */
  #armRetransmit(flow: number): void {
    const id = flow * TIMER_KINDS + TimerKind.retransmit;
    if (this.#sndMax[flow] === this.#sndUna[flow]) {
      if (this.#sndWnd[flow] === 0) this.#armPersist(flow);
      else this.#ctx.timers.cancel(id);
      return;
    }
    let ms = this.#rto[flow]! * 2 ** this.#tries[flow]!;
    if (ms > RTO_MAX_MS) ms = RTO_MAX_MS;
    if (this.#mayProbe(flow)) ms = Math.min(ms, Math.max(PROBE_MIN_MS, 2 * this.#srtt[flow]!));
    this.#ctx.timers.arm(id, this.#ctx.now + ms);
  }

  /** One segment may wait for the guest's delayed ACK, 40 ms or more: nothing is wrong yet. Two are acknowledged at once. */
  #mayProbe(flow: number): boolean {
    if (this.#flags[flow]! & (Flag.probed | Flag.windowProbe) || this.#tries[flow] !== 0) return false;
    return seqDiff(this.#sndMax[flow]!, this.#sndUna[flow]!) > this.#mss[flow]!;
  }

  #armPersist(flow: number): void {
    const id = flow * TIMER_KINDS + TimerKind.retransmit;
    if (this.#ctx.timers.isArmed(id)) return;
    const ms = Math.min(PROBE_MAX_MS, RTO_MIN_MS * 2 ** Math.min(this.#tries[flow]!, 10));
    this.#ctx.timers.arm(id, this.#ctx.now + ms);
  }

  onTimer(flow: number, kind: number): void {
    if (kind === TimerKind.idle) return this.#onIdle(flow);
    switch (this.#state[flow]) {
      case State.synReceived:
      case State.synSent:
        if (++this.#tries[flow]! > SYN_TRIES) return this.#abortBoth(flow);
        this.#rto[flow] = Math.min(this.#rto[flow]! * 2, RTO_MAX_MS);
        return this.#sendSyn(flow);
      case State.established:
        return this.#onRetransmitTimer(flow);
    }
  }

  #onRetransmitTimer(flow: number): void {
    const ctx = this.#ctx;
    const inFlight = seqDiff(this.#sndMax[flow]!, this.#sndUna[flow]!);
    if (inFlight === 0) {
      // Zero window: allow one byte beyond it. If the host has sent any, it goes out and the guest must answer.
      if (this.#sndWnd[flow] !== 0) return;
      ctx.counters[Counter.tcpZeroWindow]!++;
      if (this.#tries[flow]! < 255) this.#tries[flow]!++;
      this.#flags[flow]! |= Flag.windowProbe;
      this.#sendCredit(flow, 1);
      return this.#armPersist(flow);
    }
    // Should something in the guest drop such frames, what is sent from now on gets through.
    if (++this.#bigLosses[flow]! >= BIG_LOSSES) this.#flags[flow]! &= ~Flag.big;
    if (this.#mayProbe(flow)) {
      this.#flags[flow]! |= Flag.probed;
      this.#retransmitRange(flow, this.#sndUna[flow]!, Math.min(inFlight, this.#readLimit(flow)));
      return this.#armRetransmit(flow);
    }
    ctx.counters[Counter.tcpRtoFired]!++;
    if (this.#sndWnd[flow] !== 0 || this.#tries[flow]! < RTO_TRIES - 1) {
      if (++this.#tries[flow]! > RTO_TRIES) return this.#abortBoth(flow);
    }
    this.#ssthresh[flow] = Math.max(CWND_FLOOR, inFlight >>> 1);
    this.#cwnd[flow] = CWND_FLOOR;
    this.#flags[flow]! &= ~Flag.inRecovery;
    this.#dupAcks[flow] = 0;
    this.#rewindAll(flow);
    if (this.#sndWnd[flow] === 0) {
      this.#flushCredit(flow);
      this.#flags[flow]! |= Flag.windowProbe;
      this.#sendCredit(flow, 1);
    }
    this.#armRetransmit(flow);
  }

  /** Nothing heard for long: ask the guest's kernel whether the connection lives (RFC 9293 section 3.8.4). */
  #onIdle(flow: number): void {
    if (this.#state[flow] !== State.established) return;
    const ctx = this.#ctx;
    const id = flow * TIMER_KINDS + TimerKind.idle;
    const quiet = ctx.now - this.#lastSeen[flow]!;
    if (quiet < KEEPALIVE_IDLE_MS) return ctx.timers.arm(id, this.#lastSeen[flow]! + KEEPALIVE_IDLE_MS);
    if (quiet > KEEPALIVE_IDLE_MS + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_MS) return this.#abortBoth(flow);
    this.#emit(flow, (this.#sndUna[flow]! - 1) >>> 0, TcpFlag.ack, ctx.guest.scratchAt, 0, 0, 0);
    ctx.timers.arm(id, ctx.now + KEEPALIVE_INTERVAL_MS);
  }

  /** For reports. */
  stateOf(flow: number): FlowState {
    const state = this.#state[flow]!;
    if (state !== State.established) return REPORTED[state]!;
    const flags = this.#flags[flow]!;
    if (!(flags & (Flag.guestFin | Flag.finSent))) return FlowState.established;
    return flags & Flag.guestFin ? FlowState.closeWait : FlowState.finWait;
  }

  /** Payload bytes that the guest has acknowledged. */
  deliveredBytes(flow: number): number {
    // A FIN is acknowledged as one byte more.
    return this.#ctx.flows.toGuestBytes[flow]! - (this.#flags[flow]! & Flag.finAcked ? 1 : 0);
  }

  /** Connections that exist now, whatever their state. */
  get count(): number {
    let n = 0;
    for (let i = 0; i < this.#state.length; i++) if (this.#state[i] !== State.free) n++;
    return n;
  }
}
