/**
 * Transmission control blocks (RFC 9293 section 3.3.1): the variables of each connection. One typed array per
 * variable, indexed by flow; the memory of a flow id that was never given is never touched. Variables have
 * the RFC's names; the guest is the remote TCP.
 *
 * Stream offsets (u32, modulo 2^32) number the bytes towards the guest: offset = seq - iss - 1.
 *
 * Variables that only one part uses are in that part: receive buffers, queues of out-of-order segments.
 */

import { seqGt } from '../../../proto/seq.ts';
import { TCP_TIMESTAMPS_BYTES } from '../../../proto/tcp.ts';
import type { FlowState } from '../../flow/flow-state.ts';

/**
 * Connection states. Half-closed connections are `established` with flags, as the two directions are
 * independent here.
 */
export const TcbState = {
  free: 0,
  connecting: 1,
  synReceived: 2,
  synSent: 3,
  established: 4,
  /** The connection has ended for the guest (RFC 9293's CLOSED); the flow waits for host-io's `closed`. */
  awaitingClosed: 5,
} as const;

/** Bits of `flags`. */
export const TcbFlag = {
  /** The guest's FIN has arrived in order. */
  guestFin: 1 << 0,
  /** The end of the host's stream is known (eofOffset). */
  hostEof: 1 << 1,
  /** Our FIN is sent (sndNxt counts it). */
  finSent: 1 << 2,
  /** The guest acknowledged our FIN. */
  finAcked: 1 << 3,
  /** The flow is in the ACK list, or the credit list, of unsent-segments.ts. */
  ackPending: 1 << 4,
  creditPending: 1 << 5,
  /** Fast recovery: from a loss until `recover` is acknowledged. */
  inRecovery: 1 << 6,
  /** A tail loss probe was sent since the last ACK of new bytes. */
  probed: 1 << 7,
  /** A byte beyond a closed window was requested as a probe. */
  windowProbe: 1 << 8,
  /** Both sides sent SACK-permitted, or window scale, in their SYN. */
  sackOk: 1 << 9,
  wscaleOk: 1 << 10,
  /** Closed by RST: later segments of the guest are answered by RST, not ACK. */
  reset: 1 << 11,
  /**
   * Connecting to a resolver: resolverAttempt() and resolverIndex() hold. Cleared when the host's socket is
   * connected.
   */
  dns: 1 << 12,
  /** A segment's round-trip time is being measured: timedSeq and timedAt are set. */
  timing: 1 << 13,
  /** The flow's addresses are IPv6. */
  v6: 1 << 14,
  /** Both sides sent timestamps in their SYN: every segment carries them (RFC 7323 section 3). */
  tsOk: 1 << 15,
  /** Frames to the guest may be longer than 64 KiB (BIG TCP). */
  big: 1 << 16,
  /**
   * Payload was dropped or refused for lack of memory: the window is closed until the host's socket accepts
   * more.
   */
  heldBack: 1 << 17,
  /** The guest's FIN has arrived behind provisional bytes; it is handled when these are accepted. */
  finProvisional: 1 << 18,
  /** The guest has sent an urgent byte that was not passed to host-io yet: rcvUp is set. */
  urgentFromGuest: 1 << 19,
  /** The peer has sent an urgent byte: sndUp is set. */
  urgentToGuest: 1 << 20,
  /** The connection came in through a published port: the egress policy is not about it. */
  accepted: 1 << 21,
} as const;

/**
 * The part of the TOS that is carried to the host's socket: TCP's ECN is between the two ends of each side.
 */
export const DSCP_MASK = 0xfc;
/** No flow, or no list entry. */
export const NONE = -1;
/** A smaller MSS of the guest is raised to this: it would cost too many segments. */
export const MSS_MIN = 64;
/** RFC 6298's minimum of 1 s would be a visible stall; 200 ms suffices for a guest on the same machine. */
export const RTO_MIN_MS = 200;
/** RFC 6298 section 2: (2.5), at least 60 s; (2.1), before the first round-trip time. */
export const RTO_MAX_MS = 60_000;
export const RTO_INITIAL_MS = 1000;
/** Greatest congestion window, in bytes. */
export const CWND_MAX = 64 * 1024 * 1024;

/** Congestion windows in bytes: initial, and smallest after a loss. */
export interface CwndLimits {
  readonly start: number;
  readonly floor: number;
}

/** Large ones, as the path to the guest is a memory copy. */
export const CWND_OF_COPY: CwndLimits = { start: 1024 * 1024, floor: 64 * 1024 };
/** On an emulated line: ten segments (RFC 6928), and two (RFC 5681 section 3.1), of 1,460 bytes. */
export const CWND_OF_LINE: CwndLimits = { start: 14_600, floor: 2920 };

/** The connections' variables, by flow. */
export class TcpControlBlocks {
  /** TcbState; bits of TcbFlag. */
  readonly state: Uint8Array;
  readonly flags: Int32Array;
  /** Initial sequence numbers: ours, the guest's. */
  readonly iss: Uint32Array;
  readonly irs: Uint32Array;
  /** To guest: oldest unacknowledged, next to send, highest ever sent + 1 (sequence numbers). */
  readonly sndUna: Uint32Array;
  readonly sndNxt: Uint32Array;
  readonly sndMax: Uint32Array;
  /**
   * The guest's receive window in bytes (scaled), its shift count, and sequence and acknowledgement numbers
   * of the segment that set it.
   */
  readonly sndWnd: Uint32Array;
  readonly sndWscale: Uint8Array;
  readonly sndWl1: Uint32Array;
  readonly sndWl2: Uint32Array;
  /** Payload bytes of a full segment to the guest, TCP options subtracted. */
  readonly mss: Uint16Array;
  /** From guest: next sequence number expected, right edge of the window as advertised. */
  readonly rcvNxt: Uint32Array;
  readonly rcvAdv: Uint32Array;
  /**
   * RCV.UP and SND.UP of RFC 9293 section 3.8.5. rcvUp: sequence number behind the guest's urgent byte;
   * sndUp: that of the urgent byte to the guest.
   */
  readonly rcvUp: Uint32Array;
  readonly sndUp: Uint32Array;
  /**
   * How many of the last bytes below rcvNxt are provisional: passed to host-io, not acknowledged
   * (receive-buffers.ts).
   */
  readonly provisional: Uint32Array;
  /** How often host-io refused provisional bytes, modulo 256. */
  readonly refusals: Uint8Array;
  /** RFC 7323 section 4.3: TS.Recent, the guest's timestamp to echo, and Last.ACK.sent. */
  readonly tsRecent: Uint32Array;
  readonly lastAckSent: Uint32Array;
  /** RFC 5681, in bytes; number of consecutive duplicate ACKs. */
  readonly cwnd: Uint32Array;
  readonly ssthresh: Uint32Array;
  readonly dupAcks: Uint16Array;
  /** Fast recovery ends when `recover` is acknowledged; holes below rtxNxt were retransmitted already. */
  readonly recover: Uint32Array;
  readonly rtxNxt: Uint32Array;
  /** Stream offset of the end of the host's stream (TcbFlag.hostEof). */
  readonly eofOffset: Uint32Array;
  /** RFC 6298, milliseconds. srtt 0: no round-trip time was measured yet. */
  readonly srtt: Float64Array;
  readonly rttvar: Float64Array;
  readonly rto: Float64Array;
  /**
   * End of the segment whose round-trip time is measured, and when it was sent, in monotonic milliseconds.
   */
  readonly timedSeq: Uint32Array;
  readonly timedAt: Float64Array;
  /** Segments that this lane sent again, and its time-outs; for captures. */
  readonly resent: Uint32Array;
  /** Consecutive time-outs, or zero-window probes. */
  readonly tries: Uint8Array;
  /** DSCP << 2 of the guest's segments, which the host's socket has too. */
  readonly tos: Uint8Array;
  /** Seconds after which the guest sends a keep-alive on the idle connection; 0: it has sent none. */
  readonly keepAliveSeconds: Uint16Array;
  /** When the guest's last segment arrived, monotonic milliseconds. */
  readonly lastSeen: Float64Array;
  /**
   * How many timers found unacknowledged data since the last ACK for more than IP_MAX_BYTES, which shows that
   * the guest receives frames longer than 64 KiB.
   */
  readonly bigLosses: Uint8Array;
  /** Added to our timestamp clock: the flow comes from a lane whose clock was ahead. */
  readonly tsOffset: Uint32Array;
  /** What moves to another lane as it is. */
  readonly #moved: readonly (Uint8Array | Uint16Array | Uint32Array)[];
  readonly cwndLimits: CwndLimits;
  /** sndNxt when the window shrank last as the queue of the emulated line was full; empty without a line. */
  readonly cwrEnd: Uint32Array;

  constructor(flows: number, cwndLimits: CwndLimits = CWND_OF_COPY) {
    this.cwndLimits = cwndLimits;
    this.state = new Uint8Array(flows);
    this.flags = new Int32Array(flows);
    this.iss = new Uint32Array(flows);
    this.irs = new Uint32Array(flows);
    this.sndUna = new Uint32Array(flows);
    this.sndNxt = new Uint32Array(flows);
    this.sndMax = new Uint32Array(flows);
    this.sndWnd = new Uint32Array(flows);
    this.sndWscale = new Uint8Array(flows);
    this.sndWl1 = new Uint32Array(flows);
    this.sndWl2 = new Uint32Array(flows);
    this.mss = new Uint16Array(flows);
    this.rcvNxt = new Uint32Array(flows);
    this.rcvAdv = new Uint32Array(flows);
    this.rcvUp = new Uint32Array(flows);
    this.sndUp = new Uint32Array(flows);
    this.provisional = new Uint32Array(flows);
    this.refusals = new Uint8Array(flows);
    this.tsRecent = new Uint32Array(flows);
    this.lastAckSent = new Uint32Array(flows);
    this.cwnd = new Uint32Array(flows);
    this.ssthresh = new Uint32Array(flows);
    this.dupAcks = new Uint16Array(flows);
    this.recover = new Uint32Array(flows);
    this.cwrEnd = new Uint32Array(cwndLimits === CWND_OF_LINE ? flows : 0);
    this.rtxNxt = new Uint32Array(flows);
    this.eofOffset = new Uint32Array(flows);
    this.srtt = new Float64Array(flows);
    this.resent = new Uint32Array(flows);
    this.rttvar = new Float64Array(flows);
    this.rto = new Float64Array(flows);
    this.timedSeq = new Uint32Array(flows);
    this.timedAt = new Float64Array(flows);
    this.tries = new Uint8Array(flows);
    this.tos = new Uint8Array(flows);
    this.keepAliveSeconds = new Uint16Array(flows);
    this.lastSeen = new Float64Array(flows);
    this.bigLosses = new Uint8Array(flows);
    this.tsOffset = new Uint32Array(flows);
    this.#moved = [
      ...[this.iss, this.irs, this.sndUna, this.sndNxt, this.sndMax, this.sndWnd, this.sndWscale],
      ...[this.sndWl1, this.sndWl2, this.mss, this.rcvNxt, this.rcvAdv, this.refusals, this.tsRecent],
      ...[this.lastAckSent, this.cwnd, this.ssthresh, this.dupAcks, this.recover, this.rtxNxt],
      ...[
        this.eofOffset,
        this.tries,
        this.bigLosses,
        this.rcvUp,
        this.sndUp,
        this.tos,
        this.keepAliveSeconds,
      ],
    ];
  }

  /**
   * Initialise a new connection: all variables but those that the guest's SYN sets.
   * @param iss  our initial sequence number
   * @param now  monotonic milliseconds
   */
  begin(flow: number, family: 4 | 6, iss: number, now: number): void {
    this.flags[flow] = family === 6 ? TcbFlag.v6 : 0;
    this.iss[flow] = iss;
    this.sndUna[flow] = iss;
    this.sndNxt[flow] = iss;
    this.sndMax[flow] = iss;
    this.sndWscale[flow] = 0;
    this.sndWl1[flow] = 0;
    this.sndWl2[flow] = iss;
    this.cwnd[flow] = this.cwndLimits.start;
    this.ssthresh[flow] = CWND_MAX;
    this.dupAcks[flow] = 0;
    this.recover[flow] = iss;
    this.cwrEnd[flow] = iss;
    this.srtt[flow] = 0;
    this.rttvar[flow] = 0;
    this.rto[flow] = RTO_INITIAL_MS;
    this.tries[flow] = 0;
    this.resent[flow] = 0;
    this.tos[flow] = 0;
    this.keepAliveSeconds[flow] = 0;
    this.lastSeen[flow] = now;
    this.bigLosses[flow] = 0;
    this.provisional[flow] = 0;
    this.refusals[flow] = 0;
    this.tsOffset[flow] = 0;
  }

  /**
   * Write the variables of an established connection without provisional bytes. Not written: tsOffset, which
   * depends on the thread's clock, and what is pending or being measured.
   */
  save(flow: number, to: FlowState, now: number): void {
    to.put(this.flags[flow]! & ~(TcbFlag.ackPending | TcbFlag.creditPending | TcbFlag.timing));
    for (const variable of this.#moved) to.put(variable[flow]!);
    to.putNumber(this.srtt[flow]!);
    to.putNumber(this.rttvar[flow]!);
    to.putNumber(this.rto[flow]!);
    to.putNumber(now - this.lastSeen[flow]!);
  }

  /** Read what save() has written: the connection is established, and all its variables but tsOffset are set. */
  restore(flow: number, from: FlowState, now: number): void {
    // A flow id that was freed may still be in the lists of pending ACKs and credits.
    const listed = this.flags[flow]! & (TcbFlag.ackPending | TcbFlag.creditPending);
    this.flags[flow] = from.take() | listed;
    for (const variable of this.#moved) variable[flow] = from.take();
    this.srtt[flow] = from.takeNumber();
    this.rttvar[flow] = from.takeNumber();
    this.rto[flow] = from.takeNumber();
    this.lastSeen[flow] = now - from.takeNumber();
    this.provisional[flow] = 0;
    this.resent[flow] = 0;
    this.state[flow] = TcbState.established;
  }

  /** The acknowledgement number that we send: rcvNxt less the provisional bytes. */
  rcvAcked(flow: number): number {
    return (this.rcvNxt[flow]! - this.provisional[flow]!) >>> 0;
  }

  /** Stream offset of a sequence number of ours. */
  offset(flow: number, seq: number): number {
    return (seq - this.iss[flow]! - 1) >>> 0;
  }

  /** Sequence number of our FIN; valid once the end of the host's stream is known (TcbFlag.hostEof). */
  finSeq(flow: number): number {
    return (this.iss[flow]! + 1 + this.eofOffset[flow]!) >>> 0;
  }

  /** Whether our FIN is the next to send; if so, it is counted as sent. */
  takeFin(flow: number): boolean {
    const flags = this.flags[flow]!;
    if (!(flags & TcbFlag.hostEof) || flags & TcbFlag.finSent) return false;
    if (this.sndNxt[flow] !== this.finSeq(flow)) return false;
    this.flags[flow]! |= TcbFlag.finSent;
    this.sndNxt[flow] = (this.sndNxt[flow]! + 1) >>> 0;
    if (seqGt(this.sndNxt[flow]!, this.sndMax[flow]!)) this.sndMax[flow] = this.sndNxt[flow]!;
    return true;
  }

  /**
   * While connecting to a resolver (TcbFlag.dns): number of the attempt, from 0 on. It is kept in
   * `eofOffset`, which has no other use before the host's socket is connected.
   */
  resolverAttempt(flow: number): number {
    return this.eofOffset[flow]!;
  }

  /** See resolverAttempt(). */
  setResolverAttempt(flow: number, attempt: number): void {
    this.eofOffset[flow] = attempt;
  }

  /**
   * While connecting to a resolver: its index in Resolvers. It is kept in `recover`, which has no other use
   * before the first loss (TcbFlag.inRecovery).
   */
  resolverIndex(flow: number): number {
    return this.recover[flow]!;
  }

  /** See resolverIndex(). */
  setResolverIndex(flow: number, index: number): void {
    this.recover[flow] = index;
  }

  /** Length of the timestamps option in the flow's segments other than SYN: 12 or 0 bytes. */
  tsBytes(flow: number): number {
    return this.flags[flow]! & TcbFlag.tsOk ? TCP_TIMESTAMPS_BYTES : 0;
  }
}
