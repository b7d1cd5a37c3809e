/**
 * The TCP of a guest: small, complete, and independent of the translator's code. It sends and receives a part
 * of the pattern, checks every received byte, and checks rules of RFC 9293 for the translator: no byte beyond
 * the window, no segment above the MSS, no option that was not offered.
 *
 * Internal positions are stream offsets as plain numbers (FIN counts one). Sequence numbers exist only in
 * segments.
 */

import type { Clock } from './clock.ts';
import { FROM_GUEST_FROM, patternCopy, patternMatches, TO_GUEST_FROM } from './fake-host.ts';
import {
  Ack,
  type Endpoints,
  encodeFrame,
  Fin,
  flagNames,
  Psh,
  Rst,
  type Segment,
  Syn,
  segment,
  seqAdd,
  seqDist,
} from './wire.ts';

export interface GuestOptions {
  readonly clock: Clock;
  readonly endpoints: Endpoints;
  readonly srcPort?: number;
  readonly dstPort?: number;
  readonly vnet: boolean;
  readonly mtu?: number;
  readonly iss?: number;
  /** MSS option; null: not sent. Default: from the MTU. */
  readonly mss?: number | null;
  /** null: no option. */
  readonly wscale?: number | null;
  readonly sack?: boolean;
  readonly timestamps?: boolean;
  readonly rcvBuf?: number;
  /** Send frames of up to 64 KiB, as with TSO (needs vnet). */
  readonly tso?: boolean;
  readonly delackMs?: number;
  readonly sendBytes?: number;
  /** Bytes that must have arrived before the peer's FIN. */
  readonly expectBytes?: number;
  /** Bytes per millisecond that the application reads. */
  readonly readPerMs?: number;
  readonly readFromMs?: number;
  /** Close after the last byte, or only after the peer's FIN. */
  readonly closeWhen?: 'sent' | 'eof' | 'never';
  transmit(frame: Uint8Array): void;
}

const RTO_MS = 200;
const RTO_MAX_MS = 10_000;

export class GuestTcp {
  readonly #o: GuestOptions;
  readonly #clock: Clock;
  readonly iss: number;
  readonly #sendBytes: number;
  readonly #rcvBuf: number;
  readonly #ourWscale: number | null;
  state: 'closed' | 'syn-sent' | 'syn-received' | 'established' | 'reset' = 'closed';

  // Sending.
  irs = 0;
  una = 0;
  nxt = 0;
  /** One past the highest offset ever sent. */
  max = 0;
  sndWnd = 0;
  sndMss = 536;
  #sndScale = 0;
  #wl1 = 0;
  #wl2 = 0;
  #cwnd = 14_600;
  #ssthresh = Number.POSITIVE_INFINITY;
  #dupAcks = 0;
  #recover = -1;
  #rtxNext = 0;
  #sacked: [number, number][] = [];
  #tries = 0;
  #timer = 0;
  #timerArmed = false;
  #persist = 0;
  sackOk = false;
  tsOk = false;
  #tsRecent = 0;
  #lastAckSent = 0;
  retransmits = 0;
  timeouts = 0;

  // Receiving.
  rcvNxt = 0;
  rcvFinAt = -1;
  #ooo: [number, number][] = [];
  #lastOoo = -1;
  #appRead = 0;
  #edge = 0;
  /** Highest right edge that was advertised. */
  edgeTold = 0;
  #unacked = 0;
  #delack = 0;
  #delackArmed = false;
  #reading = false;
  /** Times at which in-order bytes arrived. */
  lastProgressAt = 0;
  longestStallMs = 0;
  gotRst = false;
  rstSeq = 0;
  readonly startedAt: number;
  doneAt = 0;

  constructor(options: GuestOptions) {
    this.#o = options;
    this.#clock = options.clock;
    this.iss = options.iss ?? 0x1000_0000;
    this.#sendBytes = options.sendBytes ?? 0;
    this.#rcvBuf = options.rcvBuf ?? 262_144;
    this.#ourWscale = options.wscale === undefined ? 7 : options.wscale;
    this.startedAt = this.#clock.now;
    this.lastProgressAt = this.#clock.now;
  }

  get #mtuMss(): number {
    return (this.#o.mtu ?? 1500) - (this.#o.endpoints.family === 4 ? 40 : 60);
  }

  /** The MSS that we have announced. */
  get rcvMss(): number {
    const mss = this.#o.mss === undefined ? this.#mtuMss : this.#o.mss;
    return mss ?? (this.#o.endpoints.family === 4 ? 536 : 1220);
  }

  /** Bytes of stream received in order. */
  get received(): number {
    return this.rcvFinAt >= 0 && this.rcvNxt > this.rcvFinAt ? this.rcvFinAt : this.rcvNxt;
  }

  get gotFin(): boolean {
    return this.rcvFinAt >= 0 && this.rcvNxt > this.rcvFinAt;
  }

  get finAcked(): boolean {
    return this.una > this.#sendBytes;
  }

  get done(): boolean {
    return this.gotFin && this.finAcked;
  }

  get acked(): number {
    return Math.min(this.una, this.#sendBytes);
  }

  connect(): void {
    this.state = 'syn-sent';
    this.#sendSyn(Syn);
  }

  #sendSyn(flags: number): void {
    const o = this.#o;
    const options: Segment['options'] = {};
    if (o.mss !== null) options.mss = this.rcvMss;
    if (this.#ourWscale !== null) options.wscale = this.#ourWscale;
    if (o.sack ?? true) options.sackPermitted = true;
    if (o.timestamps) options.timestamps = [this.#tsNow(), this.#tsRecent];
    if (flags & Ack && !this.#peerOffered.wscale) delete options.wscale;
    if (flags & Ack && !this.sackOk) delete options.sackPermitted;
    if (flags & Ack && !this.tsOk) delete options.timestamps;
    const window = Math.min(65535, this.#rcvBuf);
    this.#edge = this.#rcvBuf < 65535 ? this.#rcvBuf : 65535;
    this.edgeTold = Math.max(this.edgeTold, window);
    this.#transmit(
      segment({ flags, seq: this.iss, ack: flags & Ack ? this.#ackSeq() : 0, window, options }),
      false,
    );
    const tries = this.#tries;
    this.#arm(Math.min(1000 * 2 ** tries, 16_000));
  }

  #peerOffered = { wscale: false };

  #transmit(s: Segment, gso: boolean): void {
    const o = this.#o;
    s.srcPort = o.srcPort ?? 40000;
    s.dstPort = o.dstPort ?? 80;
    o.transmit(
      encodeFrame(o.endpoints, s, {
        vnet: o.vnet,
        partial: o.vnet,
        gsoSize: gso && s.payload.length > this.#fullSegment ? this.#fullSegment : 0,
        pad: !o.vnet,
      }),
    );
  }

  #ackSeq(): number {
    return seqAdd(this.irs, 1 + this.rcvNxt);
  }

  #window(): number {
    const held = this.received - this.#appRead;
    const edge = this.rcvNxt + Math.max(0, this.#rcvBuf - held);
    if (edge > this.#edge) this.#edge = edge;
    const scale = this.#scaleOn ? this.#ourWscale! : 0;
    const field = Math.min(65535, Math.floor(Math.max(0, this.#edge - this.rcvNxt) / 2 ** scale));
    const told = this.rcvNxt + field * 2 ** scale;
    if (told > this.edgeTold) this.edgeTold = told;
    return field;
  }

  get #scaleOn(): boolean {
    return this.#ourWscale !== null && this.#peerOffered.wscale;
  }

  #tsNow(): number {
    return (0xffff_f000 + Math.floor(this.#clock.now)) >>> 0;
  }

  /** Payload of a full segment of ours. */
  get #fullSegment(): number {
    return Math.min(this.sndMss, this.#mtuMss) - (this.tsOk ? 12 : 0);
  }

  #sendAck(): void {
    this.#emit(Ack, this.nxt, new Uint8Array(0), false);
  }

  #emit(flags: number, offset: number, payload: Uint8Array, gso: boolean): void {
    const options: Segment['options'] = {};
    if (this.sackOk && this.#ooo.length > 0 && payload.length === 0) {
      // The block with the newest segment first (RFC 2018 section 4).
      const blocks = [...this.#ooo];
      const first = blocks.findIndex(([l, r]) => this.#lastOoo >= l && this.#lastOoo < r);
      if (first > 0) blocks.unshift(...blocks.splice(first, 1));
      options.sack = blocks
        .slice(0, 3)
        .map(([l, r]) => [seqAdd(this.irs, 1 + l), seqAdd(this.irs, 1 + r)] as const);
    }
    if (this.tsOk) options.timestamps = [this.#tsNow(), this.#tsRecent];
    this.#unacked = 0;
    this.#delackArmed = false;
    this.#lastAckSent = this.rcvNxt;
    const fields = {
      flags,
      seq: seqAdd(this.iss, 1 + offset),
      ack: this.#ackSeq(),
      window: this.#window(),
      options,
      payload,
    };
    this.#transmit(segment(fields), gso);
  }

  // ------------------------------------------------------------------------------------------------- sending

  #pump(): void {
    if (this.state !== 'established') return;
    const end = this.#sendBytes;
    for (;;) {
      const limit = this.una + Math.min(this.sndWnd, this.#cwnd);
      if (this.nxt < end) {
        let n = Math.min(end, limit) - this.nxt;
        const full = this.#fullSegment;
        if (n <= 0) break;
        // Sender side of silly window avoidance, RFC 9293 section 3.8.6.2.1.
        if (n < full && this.nxt + n < end && this.nxt > this.una && n < this.sndWnd / 2) break;
        const most = this.#o.tso && this.#o.vnet ? Math.max(1, Math.floor(65000 / full)) * full : full;
        if (n > most) n = most;
        else if (n > full && this.nxt + n < end) n -= n % full;
        this.#sendData(this.nxt, n);
        this.nxt += n;
        if (this.nxt > this.max) this.max = this.nxt;
        if (!this.#timerArmed) this.#arm(RTO_MS);
        continue;
      }
      if (this.nxt === end && this.#mayClose()) {
        this.#emit(Fin | Ack, this.nxt, new Uint8Array(0), false);
        this.nxt++;
        if (this.nxt > this.max) this.max = this.nxt;
        if (!this.#timerArmed) this.#arm(RTO_MS);
      }
      break;
    }
    if (this.sndWnd === 0 && this.una === this.max && this.nxt < end + (this.#mayClose() ? 1 : 0))
      this.#armPersist();
  }

  #mayClose(): boolean {
    const when = this.#o.closeWhen ?? 'sent';
    return when === 'sent' || (when === 'eof' && this.gotFin);
  }

  #sendData(offset: number, bytes: number): void {
    const payload = new Uint8Array(bytes);
    patternCopy(FROM_GUEST_FROM, offset, payload);
    this.#emit(offset + bytes === this.#sendBytes ? Psh | Ack : Ack, offset, payload, true);
  }

  #retransmit(offset: number, upTo: number): void {
    this.retransmits++;
    const bytes = Math.min(this.#fullSegment, this.#sendBytes - offset, upTo - offset);
    if (bytes > 0) this.#sendData(offset, bytes);
    else if (this.max > this.#sendBytes) this.#emit(Fin | Ack, this.#sendBytes, new Uint8Array(0), false);
  }

  #arm(ms: number): void {
    const id = ++this.#timer;
    this.#timerArmed = true;
    this.#clock.after(ms, () => {
      if (id === this.#timer && this.#timerArmed) this.#onTimer();
    });
  }

  #disarm(): void {
    this.#timerArmed = false;
  }

  #onTimer(): void {
    this.#timerArmed = false;
    if (this.state === 'syn-sent' || this.state === 'syn-received') {
      if (++this.#tries > 8) return;
      this.#sendSyn(this.state === 'syn-sent' ? Syn : Syn | Ack);
      return;
    }
    if (this.state !== 'established' || this.una === this.max) return;
    this.timeouts++;
    this.#tries++;
    this.#ssthresh = Math.max((this.max - this.una) / 2, 2 * this.sndMss);
    this.#cwnd = this.sndMss;
    this.#recover = -1;
    this.#sacked = [];
    this.#dupAcks = 0;
    this.nxt = this.una;
    if (this.sndWnd === 0) this.#retransmit(this.una, this.una + 1);
    else this.#pump();
    this.#arm(Math.min(RTO_MS * 2 ** this.#tries, RTO_MAX_MS));
  }

  #armPersist(): void {
    const id = ++this.#persist;
    this.#clock.after(Math.min(RTO_MS * 2 ** this.#tries, RTO_MAX_MS), () => {
      if (id !== this.#persist || this.state !== 'established') return;
      if (this.sndWnd !== 0 || this.una !== this.max) return this.#pump();
      this.#tries++;
      // The window probe: one byte beyond the window. It does not count as sent; the answer has the current
      // window.
      if (this.nxt < this.#sendBytes) {
        this.#sendData(this.nxt, 1);
        if (this.nxt + 1 > this.max) {
          this.nxt++;
          this.max = this.nxt;
          this.#arm(Math.min(RTO_MS * 2 ** this.#tries, RTO_MAX_MS));
        }
      } else this.#emit(Ack, this.nxt - 1, new Uint8Array(0), false);
      this.#armPersist();
    });
  }

  /** Abort: RST with the sequence number that the other side expects. */
  reset(): void {
    this.#transmit(
      segment({ flags: Rst | Ack, seq: seqAdd(this.iss, 1 + this.nxt), ack: this.#ackSeq() }),
      false,
    );
    this.state = 'reset';
  }

  // ----------------------------------------------------------------------------------------------- receiving

  receive(s: Segment, gsoSize: number): void {
    const size = gsoSize > 0 ? gsoSize : s.payload.length;
    const mss = this.rcvMss - (this.tsOk ? 12 : 0);
    if (size > mss) throw new Error(`guest: a segment of ${size} bytes, at most ${mss} were asked for`);
    if (s.options.timestamps && !this.#o.timestamps) throw new Error('guest: timestamps were not offered');
    if (s.flags & Rst) return this.#onRst(s);
    if (this.state === 'closed' || this.state === 'reset') {
      // No such connection (RFC 9293 section 3.10.7.1).
      if (s.flags & Ack) this.#transmit(segment({ flags: Rst, seq: s.ack }), false);
      return;
    }
    if (this.state === 'syn-sent') return this.#onSynSent(s);
    if (this.tsOk && !this.#takeTimestamp(s)) return;
    if (s.flags & Syn) {
      // A duplicate SYN,ACK.
      this.#sendAck();
      return;
    }
    if (!(s.flags & Ack)) throw new Error('guest: a segment without ACK');
    if (this.state === 'syn-received') {
      if (s.ack !== seqAdd(this.iss, 1)) return;
      this.#established(s);
    }
    this.#onAck(s);
    this.#onPayload(s);
    this.#pump();
  }

  /** PAWS, RFC 7323 section 5.3. @returns false: too old, answered by an ACK */
  #takeTimestamp(s: Segment): boolean {
    const ts = s.options.timestamps;
    if (ts === undefined) throw new Error('guest: timestamps were agreed on, a segment has none');
    // The echoed time stamp must not be newer than any that we have sent.
    if (seqDist(ts[1], this.#tsNow()) > 0)
      throw new Error(`guest: echoed timestamp ${ts[1]} is ahead of our clock`);
    if (seqDist(ts[0], this.#tsRecent) < 0) {
      this.#sendAck();
      return false;
    }
    const start = this.rcvNxt + seqDist(s.seq, this.#ackSeq());
    if (start <= this.#lastAckSent) this.#tsRecent = ts[0];
    return true;
  }

  #onRst(s: Segment): void {
    if (this.state === 'syn-sent') {
      if (!(s.flags & Ack) || s.ack !== seqAdd(this.iss, 1)) return;
    } else {
      const at = this.rcvNxt + seqDist(s.seq, this.#ackSeq());
      if (at !== this.rcvNxt) {
        // RFC 5961 section 3.2: in the window but not exact: challenge.
        if (at > this.rcvNxt && at < this.#edge) this.#sendAck();
        return;
      }
    }
    this.gotRst = true;
    this.rstSeq = s.seq;
    this.state = 'reset';
    this.#timerArmed = false;
  }

  #onSynSent(s: Segment): void {
    if (!(s.flags & Syn)) return;
    if (s.flags & Ack && s.ack !== seqAdd(this.iss, 1)) return;
    this.irs = s.seq;
    this.#readOptions(s);
    if (s.flags & Ack) {
      this.#established(s);
      this.sndWnd = s.window;
      this.#sendAck();
      this.#pump();
    } else {
      this.state = 'syn-received';
      this.#tries = 0;
      this.#sendSyn(Syn | Ack);
    }
  }

  /** A passive open: the first segment is a SYN from outside. */
  listen(s: Segment): void {
    if (this.state === 'closed') {
      this.irs = s.seq;
      this.#readOptions(s);
      this.state = 'syn-received';
      this.#sendSyn(Syn | Ack);
    } else if (s.flags & Syn && this.state === 'syn-received') this.#sendSyn(Syn | Ack);
    else this.receive(s, 0);
  }

  #readOptions(s: Segment): void {
    const o = s.options;
    const first = !(s.flags & Ack);
    if (o.mss === undefined) throw new Error('guest: SYN without MSS');
    if (o.mss > this.#mtuMss) throw new Error(`guest: MSS ${o.mss} is above the MTU's ${this.#mtuMss}`);
    if (!first && o.wscale !== undefined && this.#ourWscale === null)
      throw new Error('guest: window scale was not offered');
    if (!first && o.sackPermitted && !(this.#o.sack ?? true)) throw new Error('guest: SACK was not offered');
    this.sndMss = o.mss;
    if (o.wscale !== undefined && this.#ourWscale !== null) {
      this.#peerOffered.wscale = true;
      this.#sndScale = o.wscale;
    }
    if (o.timestamps && this.#o.timestamps) {
      this.tsOk = true;
      this.#tsRecent = o.timestamps[0];
    }
    this.sackOk = (this.#o.sack ?? true) && o.sackPermitted === true;
  }

  #established(s: Segment): void {
    this.state = 'established';
    this.#tries = 0;
    this.#disarm();
    this.sndWnd = s.window * (s.flags & Syn ? 1 : 2 ** this.#sndScale);
    this.#wl1 = 0;
    this.#wl2 = 0;
    this.lastProgressAt = this.#clock.now;
    this.#read();
  }

  #onAck(s: Segment): void {
    const ack = this.una + seqDist(s.ack, seqAdd(this.iss, 1 + this.una));
    if (ack > this.max) throw new Error(`guest: ACK of ${ack}, only ${this.max} were ever sent`);
    const seqAt = this.rcvNxt + seqDist(s.seq, this.#ackSeq());
    const wnd = s.window * 2 ** this.#sndScale;
    const oldWnd = this.sndWnd;
    for (const [left, right] of s.options.sack ?? []) {
      if (!this.sackOk) throw new Error('guest: SACK was not agreed on');
      const l = this.una + seqDist(left, seqAdd(this.iss, 1 + this.una));
      const r = this.una + seqDist(right, seqAdd(this.iss, 1 + this.una));
      if (l >= r || r > this.max) throw new Error(`guest: SACK block [${l}, ${r}) of ${this.max} sent`);
      if (l >= this.una) this.#markSacked(l, r);
    }
    if (ack >= this.una && (this.#wl1 < seqAt || (this.#wl1 === seqAt && this.#wl2 <= ack))) {
      this.sndWnd = wnd;
      this.#wl1 = seqAt;
      this.#wl2 = ack;
    }
    if (ack > this.una) {
      const acked = ack - this.una;
      this.una = ack;
      if (this.nxt < ack) this.nxt = ack;
      this.#tries = 0;
      this.#dupAcks = 0;
      this.#sacked = this.#sacked.filter(([, r]) => r > ack).map(([l, r]) => [Math.max(l, ack), r]);
      this.#progress();
      if (this.#recover >= 0 && ack >= this.#recover) {
        this.#recover = -1;
        this.#cwnd = this.#ssthresh;
      } else if (this.#recover >= 0) {
        if (!this.sackOk || this.#sacked.length === 0) this.#retransmit(this.una, this.#recover);
        else this.#nextHole();
      } else
        this.#cwnd += this.#cwnd < this.#ssthresh ? acked : Math.max(1, (this.sndMss * acked) / this.#cwnd);
      if (this.una === this.max) this.#disarm();
      else this.#arm(RTO_MS);
      return;
    }
    if (
      ack === this.una &&
      s.payload.length === 0 &&
      !(s.flags & Fin) &&
      this.max > this.una &&
      wnd === oldWnd
    ) {
      this.#dupAcks++;
      if (this.#recover < 0 && this.#dupAcks === 3) {
        this.#recover = this.max;
        this.#rtxNext = this.una;
        this.#ssthresh = Math.max((this.max - this.una) / 2, 2 * this.sndMss);
        this.#cwnd = this.#ssthresh;
        if (this.sackOk && this.#sacked.length > 0) this.#nextHole();
        else this.#retransmit(this.una, this.#recover);
      } else if (this.#recover >= 0 && this.sackOk) this.#nextHole();
      else if (this.#recover >= 0) this.#cwnd += this.sndMss;
    }
  }

  #markSacked(l: number, r: number): void {
    const list = this.#sacked;
    list.push([l, r]);
    list.sort((a, b) => a[0] - b[0]);
    const merged: [number, number][] = [];
    for (const [a, b] of list) {
      const last = merged[merged.length - 1];
      if (last && a <= last[1]) last[1] = Math.max(last[1], b);
      else merged.push([a, b]);
    }
    this.#sacked = merged;
  }

  #nextHole(): void {
    let from = Math.max(this.una, this.#rtxNext);
    for (const [l, r] of this.#sacked) {
      if (from < l) {
        const upTo = Math.min(l, from + this.#fullSegment);
        this.#rtxNext = upTo;
        this.#retransmit(from, l);
        return;
      }
      if (from < r) from = r;
    }
  }

  #progress(): void {
    const gap = this.#clock.now - this.lastProgressAt;
    if (gap > this.longestStallMs) this.longestStallMs = gap;
    this.lastProgressAt = this.#clock.now;
  }

  #onPayload(s: Segment): void {
    const fin = (s.flags & Fin) !== 0;
    const start = this.rcvNxt + seqDist(s.seq, this.#ackSeq());
    const end = start + s.payload.length;
    if (s.payload.length === 0 && !fin) {
      if (start < this.rcvNxt) this.#sendAck(); // keep-alive
      return;
    }
    if (start < 0 || !patternMatches(TO_GUEST_FROM, start, s.payload)) {
      throw new Error(`guest: wrong bytes in [${start}, ${end}) (${flagNames(s.flags)})`);
    }
    if (fin) {
      if (this.rcvFinAt >= 0 && this.rcvFinAt !== end)
        throw new Error(`guest: FIN at ${end}, before at ${this.rcvFinAt}`);
      if (this.#o.expectBytes !== undefined && end !== this.#o.expectBytes) {
        throw new Error(`guest: FIN at ${end} of ${this.#o.expectBytes}`);
      }
      this.rcvFinAt = end;
    } else if (this.rcvFinAt >= 0 && end > this.rcvFinAt) throw new Error('guest: bytes beyond the FIN');
    if (end > this.#edge) {
      // A window probe. A kernel does not accept its byte, and answers with an ACK.
      this.#sendAck();
      return;
    }
    if (end <= this.rcvNxt && !(fin && end === this.rcvNxt)) {
      this.#sendAck();
      return;
    }
    if (start > this.rcvNxt) {
      this.#lastOoo = start;
      if (s.payload.length > 0) this.#markOoo(start, end);
      if (fin) this.#finWaits = true;
      this.#sendAck();
      return;
    }
    this.#progress();
    const before = this.rcvNxt;
    this.rcvNxt = end;
    const hadHole = this.#ooo.length > 0;
    while (this.#ooo.length > 0 && this.#ooo[0]![0] <= this.rcvNxt) {
      const [, r] = this.#ooo.shift()!;
      if (r > this.rcvNxt) this.rcvNxt = r;
    }
    if (this.rcvFinAt >= 0 && this.rcvNxt === this.rcvFinAt && (fin || hadHole)) {
      // A FIN out of order is kept with the bytes before it.
      if (fin || this.#finWaits) this.rcvNxt++;
    }
    this.#unacked += this.rcvNxt - before;
    this.#read();
    if (hadHole || fin || this.#unacked >= 2 * this.rcvMss || (this.#o.delackMs ?? 0) === 0) this.#sendAck();
    else this.#armDelack();
  }

  #finWaits = false;

  #markOoo(l: number, r: number): void {
    const list = this.#ooo;
    list.push([l, r]);
    list.sort((a, b) => a[0] - b[0]);
    const merged: [number, number][] = [];
    for (const [a, b] of list) {
      const last = merged[merged.length - 1];
      if (last && a <= last[1]) last[1] = Math.max(last[1], b);
      else merged.push([a, b]);
    }
    this.#ooo = merged;
  }

  #armDelack(): void {
    if (this.#delackArmed) return;
    this.#delackArmed = true;
    const id = ++this.#delack;
    this.#clock.after(this.#o.delackMs ?? 40, () => {
      if (id === this.#delack && this.#delackArmed && this.state === 'established') this.#sendAck();
    });
  }

  /** The application reads. */
  #read(): void {
    const rate = this.#o.readPerMs ?? Number.POSITIVE_INFINITY;
    const from = this.#o.readFromMs ?? 0;
    const wait = this.startedAt + from - this.#clock.now;
    if (rate === Number.POSITIVE_INFINITY && wait <= 0) {
      this.#appRead = this.received;
      return;
    }
    if (this.#reading) return;
    this.#reading = true;
    const step = (): void => {
      const oldEdge = this.#edge;
      this.#appRead = Math.min(
        this.received,
        this.#appRead + (rate === Number.POSITIVE_INFINITY ? this.#rcvBuf : rate),
      );
      // Window update when the window has grown enough (RFC 9293 section 3.8.6.2.2), or was 0 before.
      const edge = this.rcvNxt + this.#rcvBuf - (this.received - this.#appRead);
      const worth = Math.min(this.#rcvBuf / 2, this.rcvMss * 2);
      if (edge - oldEdge >= worth && this.state === 'established' && !this.gotFin) this.#sendAck();
      if (this.state !== 'established' || (this.gotFin && this.#appRead >= this.received)) {
        this.#reading = false;
        return;
      }
      this.#clock.after(1, step);
    };
    this.#clock.after(Math.max(wait, 1), step);
  }
}
