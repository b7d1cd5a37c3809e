/**
 * Rules that every frame to the guest must keep, in any state of the connection. A frame is checked when it
 * is sent, before the link can lose it.
 */
import { Ack, type DecodedFrame, decodeFrame, ETH, flagNames, Rst, Syn, seqDist, VNET } from './wire.ts';

interface Flow {
  ack: number;
  edge: number;
  scale: number;
  iss: number;
  synced: boolean;
  /** Last timestamp; undefined: none yet. */
  tsVal: number | undefined;
}

export class FrameChecker {
  readonly #vnet: boolean;
  readonly #mtu: number;
  readonly #flows = new Map<string, Flow>();
  frames = 0;
  bytes = 0;
  largest = 0;

  constructor(vnet: boolean, mtu: number) {
    this.#vnet = vnet;
    this.#mtu = mtu;
  }

  /** @throws Error when the frame breaks a rule */
  check(frame: Uint8Array): DecodedFrame {
    const d = decodeFrame(frame, this.#vnet);
    this.frames++;
    this.bytes += d.frameBytes;
    if (d.frameBytes > this.largest) this.largest = d.frameBytes;
    if (frame.length - (this.#vnet ? VNET : 0) > this.#mtu + ETH && d.gsoSize === 0) {
      throw new Error(`a frame of ${d.frameBytes} bytes is above the MTU ${this.#mtu} and has no GSO`);
    }
    const s = d.tcp;
    if (s === null) return d;
    const key = `${s.srcPort}-${s.dstPort}-${[...d.src]}`;
    const what = `${flagNames(s.flags)} seq ${s.seq} ack ${s.ack} window ${s.window}`;
    if (s.flags & Syn) {
      const edge = (s.ack + s.window) >>> 0;
      this.#flows.set(key, {
        ack: s.ack,
        edge,
        scale: s.options.wscale ?? 0,
        iss: s.seq,
        synced: (s.flags & Ack) !== 0,
        tsVal: s.options.timestamps?.[0],
      });
      return d;
    }
    const flow = this.#flows.get(key);
    if (flow === undefined || s.flags & Rst || !(s.flags & Ack)) return d;
    if (!flow.synced) {
      flow.synced = true;
      flow.ack = s.ack;
      flow.edge = s.ack;
    }
    const tsVal = s.options.timestamps?.[0];
    // The guest drops a segment with an older timestamp (RFC 7323 section 5).
    if (tsVal !== undefined && flow.tsVal !== undefined && seqDist(tsVal, flow.tsVal) < 0)
      throw new Error(`timestamps go back from ${flow.tsVal} to ${tsVal}: ${what}`);
    flow.tsVal = tsVal;
    if (seqDist(s.ack, flow.ack) < 0) throw new Error(`ACK goes back from ${flow.ack}: ${what}`);
    flow.ack = s.ack;
    const edge = (s.ack + s.window * 2 ** flow.scale) >>> 0;
    // RFC 7323 section 2.4: the right edge may move back by less than one unit of the scale, never by more.
    // A window may be closed when memory is short (receive-buffers.ts).
    if (s.window > 0 && seqDist(edge, flow.edge) <= -(2 ** flow.scale)) {
      throw new Error(`the window's right edge goes back by ${seqDist(flow.edge, edge)}: ${what}`);
    }
    if (seqDist(edge, flow.edge) > 0) flow.edge = edge;
    for (const [left, right] of s.options.sack ?? []) {
      if (seqDist(right, left) <= 0) throw new Error(`empty SACK block: ${what}`);
      if (seqDist(left, s.ack) <= 0) throw new Error(`SACK block at or below the ACK: ${what}`);
    }
    return d;
  }
}
