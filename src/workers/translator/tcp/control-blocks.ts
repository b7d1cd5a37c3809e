/**
 * Transmission control blocks (RFC 9293 section 3.3.1): what TCP remembers of each connection. One typed
 * array a variable, indexed by flow; memory of a flow that has never been is never touched. Variables have
 * the RFC's names, "guest" is the peer.
 *
 * Stream offsets (u32, modulo) name bytes towards the guest: offset = seq - iss - 1.
 *
 * What belongs to one part alone lies there: receive buffers, the queues of segments out of order.
 */

import { seqGt } from '../../../proto/seq.ts';
import { TCP_TIMESTAMPS_BYTES } from '../../../proto/tcp.ts';

/**
 * Connection states. Half-closed ones are `established` with flags, since the two directions are independent
 * here.
 */
export const TcbState = {
  free: 0,
  connecting: 1,
  synReceived: 2,
  synSent: 3,
  established: 4,
  /** The connection is over for the guest; the flow waits for host-io's `closed`. Not RFC 9293's CLOSING. */
  awaitingClosed: 5,
} as const;

export const TcbFlag = {
  /** The guest's FIN has arrived in order. */
  guestFin: 1 << 0,
  /** host-io said where the host's stream ends (eofOffset). */
  hostEof: 1 << 1,
  /** Our FIN is out (sndNxt counts it). */
  finSent: 1 << 2,
  /** The guest acknowledged our FIN. */
  finAcked: 1 << 3,
  /** On the lists of tcp/pending.ts. */
  ackPending: 1 << 4,
  creditPending: 1 << 5,
  /** From a loss until `recover` is acknowledged. */
  inRecovery: 1 << 6,
  /** A tail loss probe was sent since the last progress. */
  probed: 1 << 7,
  /** A byte beyond a closed window is out as a probe. */
  windowProbe: 1 << 8,
  sackOk: 1 << 9,
  wscaleOk: 1 << 10,
  /** Closed by RST: late segments of the guest get RST again, not ACK. */
  reset: 1 << 11,
  /**
   * Connecting to a resolver: resolverAttempt() and resolverIndex() hold. Cleared when the host's socket is
   * connected.
   */
  dns: 1 << 12,
  /** timedSeq and timedAt are of a segment whose round trip is being measured. */
  timing: 1 << 13,
  v6: 1 << 14,
  /** Both sides sent timestamps in their SYN: every segment carries them (RFC 7323 section 3). */
  tsOk: 1 << 15,
  /** Frames to the guest may be longer than 64 KiB. */
  big: 1 << 16,
  /**
   * Payload was dropped or refused for want of memory: the window is closed until the host's socket takes
   * more.
   */
  heldBack: 1 << 17,
  /** The guest's FIN follows the provisional bytes. */
  finProvisional: 1 << 18,
} as const;

/** No flow, no entry of a list. */
export const NONE = -1;
/** A tiny MSS would only make us slow. */
export const MSS_MIN = 64;
/**
 * Towards a kernel on the same machine 200 ms is plenty; RFC 6298's whole second would be a visible stall.
 */
export const RTO_MIN_MS = 200;
export const RTO_MAX_MS = 60_000;
export const RTO_INITIAL_MS = 1000;
const CWND_START = 1024 * 1024;
export const CWND_MAX = 64 * 1024 * 1024;

export class TcpControlBlocks {
  /** TcbState, TcbFlag. */
  readonly state: Uint8Array;
  readonly flags: Int32Array;
  /** Initial sequence number of ours and of the guest. */
  readonly iss: Uint32Array;
  readonly irs: Uint32Array;
  /** To guest: oldest unacknowledged, next to send, highest ever sent + 1. */
  readonly sndUna: Uint32Array;
  readonly sndNxt: Uint32Array;
  readonly sndMax: Uint32Array;
  /** The guest's receive window in bytes (scaled), its scale, and the segment that set it. */
  readonly sndWnd: Uint32Array;
  readonly sndWscale: Uint8Array;
  readonly sndWl1: Uint32Array;
  readonly sndWl2: Uint32Array;
  /** Payload bytes of a full segment to the guest. */
  readonly mss: Uint16Array;
  /** From guest: next expected, right edge of the window as last advertised. */
  readonly rcvNxt: Uint32Array;
  readonly rcvAdv: Uint32Array;
  /**
   * Of the bytes below rcvNxt, how many at the end are provisional: passed to host-io, not acknowledged
   * (receive-buffers.ts).
   */
  readonly provisional: Uint32Array;
  /** How often host-io refused such bytes, modulo 256. */
  readonly refusals: Uint8Array;
  /** RFC 7323 section 4.3: the guest's timestamp to echo, and the acknowledgement last sent. */
  readonly tsRecent: Uint32Array;
  readonly lastAckSent: Uint32Array;
  /** RFC 5681, bytes; duplicate ACKs in a row. */
  readonly cwnd: Uint32Array;
  readonly ssthresh: Uint32Array;
  readonly dupAcks: Uint16Array;
  /** Recovery ends when this is acknowledged; holes below rtxNxt were sent again already. */
  readonly recover: Uint32Array;
  readonly rtxNxt: Uint32Array;
  /** Where the host's stream ends, as stream offset (TcbFlag.hostEof). */
  readonly eofOffset: Uint32Array;
  /** RFC 6298, milliseconds. */
  readonly srtt: Float64Array;
  readonly rttvar: Float64Array;
  readonly rto: Float64Array;
  /** What an ACK must reach for a round-trip time, and when that segment left. */
  readonly timedSeq: Uint32Array;
  readonly timedAt: Float64Array;
  /** Time-outs, or zero-window probes, in a row. */
  readonly tries: Uint8Array;
  /** When the guest was last heard, monotonic milliseconds. */
  readonly lastSeen: Float64Array;
  /**
   * Timers that found data unacknowledged since an ACK was for more than any frame of at most 64 KiB holds.
   */
  readonly bigLosses: Uint8Array;

  constructor(flows: number) {
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
    this.provisional = new Uint32Array(flows);
    this.refusals = new Uint8Array(flows);
    this.tsRecent = new Uint32Array(flows);
    this.lastAckSent = new Uint32Array(flows);
    this.cwnd = new Uint32Array(flows);
    this.ssthresh = new Uint32Array(flows);
    this.dupAcks = new Uint16Array(flows);
    this.recover = new Uint32Array(flows);
    this.rtxNxt = new Uint32Array(flows);
    this.eofOffset = new Uint32Array(flows);
    this.srtt = new Float64Array(flows);
    this.rttvar = new Float64Array(flows);
    this.rto = new Float64Array(flows);
    this.timedSeq = new Uint32Array(flows);
    this.timedAt = new Float64Array(flows);
    this.tries = new Uint8Array(flows);
    this.lastSeen = new Float64Array(flows);
    this.bigLosses = new Uint8Array(flows);
  }

  /**
   * A new connection, before any segment of it: all but what SYNs tell.
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
    this.cwnd[flow] = CWND_START;
    this.ssthresh[flow] = CWND_MAX;
    this.dupAcks[flow] = 0;
    this.srtt[flow] = 0;
    this.rttvar[flow] = 0;
    this.rto[flow] = RTO_INITIAL_MS;
    this.tries[flow] = 0;
    this.lastSeen[flow] = now;
    this.bigLosses[flow] = 0;
    this.provisional[flow] = 0;
    this.refusals[flow] = 0;
  }

  /** What we acknowledge: the next byte expected, less what is provisional. */
  rcvAcked(flow: number): number {
    return (this.rcvNxt[flow]! - this.provisional[flow]!) >>> 0;
  }

  /** Stream offset of a sequence number of ours. */
  offset(flow: number, seq: number): number {
    return (seq - this.iss[flow]! - 1) >>> 0;
  }

  /** Sequence number of our FIN; meaningful once the end of the host's stream is known. */
  finSeq(flow: number): number {
    return (this.iss[flow]! + 1 + this.eofOffset[flow]!) >>> 0;
  }

  /** Is our FIN next? It then counts as sent. */
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
   * While connecting to a resolver (TcbFlag.dns): number of the attempt, from 0 on. It is kept in `eofOffset`,
   * which has no other use before the host's socket is connected.
   */
  resolverAttempt(flow: number): number {
    return this.eofOffset[flow]!;
  }

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

  setResolverIndex(flow: number, index: number): void {
    this.recover[flow] = index;
  }

  /** Bytes of the timestamps option in every segment of the flow but SYN. */
  tsBytes(flow: number): number {
    return this.flags[flow]! & TcbFlag.tsOk ? TCP_TIMESTAMPS_BYTES : 0;
  }
}
