/**
 * One connection, step by step: a test sends single segments of the guest and gets the answers as short texts
 * with relative sequence numbers (both SYNs have number 0):
 *
 *   SYN,ACK 0 ack 1        seq 0, no payload, acknowledges the guest's SYN
 *   PSH,ACK 1+100 ack 6    100 bytes from 1 on
 *   RST 7                  seq 7, no ACK
 */

import { FrameChecker } from './checker.ts';
import { Clock } from './clock.ts';
import { SimEngine, type SimOptions } from './engine.ts';
import { type FakeSocket, FROM_GUEST_FROM, patternCopy, patternMatches, TO_GUEST_FROM } from './fake-host.ts';
import { endpoints } from './transfer.ts';
import {
  Ack,
  type DecodedFrame,
  ETH,
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
  type TcpOptionsModel,
  Urg,
  VNET,
} from './wire.ts';

const FLAGS: Record<string, number> = { SYN: Syn, ACK: Ack, FIN: Fin, RST: Rst, PSH: Psh, URG: Urg };

export interface SegmentOptions {
  /** Number of bytes of the guest's stream, from the offset that the sequence number gives. */
  readonly bytes?: number;
  readonly payload?: Uint8Array;
  readonly window?: number;
  readonly options?: TcpOptionsModel;
  readonly urgent?: number;
  readonly badChecksum?: boolean;
  readonly gsoSize?: number;
}

export interface ScriptOptions extends Partial<SimOptions> {
  readonly family?: 4 | 6;
  readonly guestIss?: number;
  /** Of the guest's SYN. */
  readonly options?: TcpOptionsModel;
  readonly window?: number;
  /** Do not check windows and ACKs of the frames to the guest. */
  readonly unchecked?: boolean;
}

export const SYN_OPTIONS: TcpOptionsModel = { mss: 1460, wscale: 7, sackPermitted: true };

export class Script {
  readonly clock = new Clock(5000);
  readonly engine: SimEngine;
  readonly iss: number;
  readonly #o: ScriptOptions;
  readonly #vnet: boolean;
  readonly #checker: FrameChecker;
  readonly #frames: DecodedFrame[] = [];
  readonly sockets: FakeSocket[] = [];
  /** Ports of the guest's next segments. */
  srcPort = 40000;
  dstPort = 80;
  remote: string | null = null;
  /** Source address of the guest's segments; null: the guest's address. */
  guest: string | null = null;
  /** Initial sequence number of the translator, once its SYN was decoded. */
  ourIss = 0;
  /** The window scale that the translator announced. */
  ourScale = 0;
  /** Sets the outcome of each connect(). Default: it succeeds at once. */
  onOpen: (socket: FakeSocket) => void = (socket) => socket.connectAfter(0.1);

  constructor(o: ScriptOptions = {}) {
    this.#o = o;
    this.#vnet = o.vnet ?? true;
    this.iss = o.guestIss ?? 0x2000_0000;
    this.#checker = new FrameChecker(this.#vnet, o.mtu ?? 1500);
    this.engine = new SimEngine({
      clock: this.clock,
      ...o,
      onFrame: (frame) => {
        const d = this.#checker.check(frame);
        if (d.tcp !== null && d.tcp.flags & Syn) {
          this.ourIss = d.tcp.seq;
          this.ourScale = d.tcp.options.wscale ?? 0;
        }
        this.#frames.push(d);
      },
      onOpen: (socket) => {
        this.sockets.push(socket);
        this.onOpen(socket);
      },
    });
  }

  get socket(): FakeSocket {
    const socket = this.sockets[this.sockets.length - 1];
    if (socket === undefined) throw new Error('nothing was connected');
    return socket;
  }

  /** Send a segment of the guest, with sequence and acknowledgement numbers relative to the SYNs. */
  send(flags: string, seq: number, ack: number | null, o: SegmentOptions = {}): this {
    const bits = flags.split(',').reduce((sum, name) => sum | FLAGS[name]!, 0);
    let payload = o.payload ?? new Uint8Array(o.bytes ?? 0);
    if (o.bytes !== undefined) {
      payload = new Uint8Array(o.bytes);
      patternCopy(FROM_GUEST_FROM, seq - 1, payload);
    }
    const s: Segment = segment({
      flags: bits,
      srcPort: this.srcPort,
      dstPort: this.dstPort,
      seq: seqAdd(this.iss, seq),
      ack: ack === null ? 0 : seqAdd(this.ourIss, ack),
      window: o.window ?? this.#o.window ?? 65535,
      urgent: o.urgent ?? 0,
      options: o.options ?? {},
      payload,
    });
    const frame = encodeFrame(endpoints(this.#o.family ?? 4, this.remote, this.guest), s, {
      vnet: this.#vnet,
      partial: this.#vnet && !o.badChecksum,
      gsoSize: o.gsoSize ?? 0,
      pad: !this.#vnet,
    });
    if (o.badChecksum) frame[frame.length - 1]! ^= 1;
    this.engine.fromGuest(frame);
    return this;
  }

  /**
   * Send an ICMP error of a router on the guest's side: our segment with the relative number `seq` is too
   * long for its link.
   * @param quotedBytes  quoted bytes of that segment, IP header included
   */
  tooBig(mtu: number, seq: number, quotedBytes = 60): this {
    const v4 = (this.#o.family ?? 4) === 4;
    const back = endpoints(this.#o.family ?? 4, this.remote);
    const lost = segment({
      flags: Ack,
      srcPort: this.dstPort,
      dstPort: this.srcPort,
      seq: seqAdd(this.ourIss, seq),
      ack: 0,
      window: 0,
      urgent: 0,
      options: {},
      payload: new Uint8Array(0),
    });
    const o = { vnet: this.#vnet, partial: false, gsoSize: 0, pad: false };
    const start = this.#vnet ? VNET + ETH : ETH;
    const frameOf = (s: Segment, from: Uint8Array, to: Uint8Array): Uint8Array =>
      encodeFrame({ family: back.family, guest: from, remote: to }, s, o);
    const quoted = frameOf(lost, back.remote, back.guest).subarray(start, start + quotedBytes);
    const ipBytes = v4 ? 20 : 40;
    const frame = new Uint8Array(start + ipBytes + 8 + quoted.length);
    // Link and IP headers as of a segment of the guest's.
    frame.set(frameOf(lost, back.guest, back.remote).subarray(0, start + ipBytes));
    const v = new DataView(frame.buffer);
    if (v4) v.setUint16(start + 2, frame.length - start);
    else v.setUint16(start + 4, frame.length - start - ipBytes);
    frame[start + (v4 ? 9 : 6)] = v4 ? 1 : 58;
    frame.set(v4 ? [3, 4] : [2, 0], start + ipBytes);
    v.setUint32(start + ipBytes + 4, mtu);
    frame.set(quoted, start + ipBytes + 8);
    this.engine.fromGuest(frame);
    return this;
  }

  /** Advance the clock by `ms`. @returns the frames to the guest since the last call, decoded */
  frames(ms = 1): DecodedFrame[] {
    this.clock.advance(ms);
    return this.#frames.splice(0);
  }

  segments(ms = 1): Segment[] {
    return this.frames(ms).map((d) => {
      if (d.tcp === null) throw new Error('not TCP');
      return d.tcp;
    });
  }

  /** frames() as sorted texts; payload is compared with the pattern. */
  out(ms = 1): string[] {
    return this.segments(ms).map((s) => this.text(s));
  }

  text(s: Segment): string {
    const seq = seqDist(s.seq, this.ourIss);
    if (s.payload.length > 0 && !patternMatches(TO_GUEST_FROM, seq - 1, s.payload))
      throw new Error('wrong bytes');
    const len = s.payload.length > 0 ? `+${s.payload.length}` : '';
    const ack = s.flags & Ack ? ` ack ${seqDist(s.ack, this.iss)}` : '';
    const sack =
      s.options.sack?.map(([l, r]) => ` sack ${seqDist(l, this.iss)}-${seqDist(r, this.iss)}`).join('') ?? '';
    return `${flagNames(s.flags)} ${s.flags & Rst && !(s.flags & Ack) ? seqDist(s.seq, this.ourIss) : seq}${len}${ack}${sack}`;
  }

  /** Do the handshake, and discard the frames of it. */
  establish(o: SegmentOptions = {}): this {
    this.send('SYN', 0, null, { options: SYN_OPTIONS, ...o });
    const syn = this.segments(5);
    if (syn.length !== 1 || syn[0]!.flags !== (Syn | Ack)) throw new Error('no SYN,ACK');
    this.send('ACK', 1, 1, { window: o.window ?? this.#o.window ?? 65535 });
    this.frames();
    return this;
  }

  /** Window of a segment to the guest, in bytes. */
  windowOf(s: Segment): number {
    return s.flags & Syn ? s.window : s.window * 2 ** this.ourScale;
  }

  close(): void {
    this.engine.close();
  }
}
