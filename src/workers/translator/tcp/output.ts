/**
 * Segments to the guest (RFC 9293 section 3.1): TCP and IP headers are written in front of the payload in its
 * slot, and the frame is passed to the guest link. The caller gives the sequence number; acknowledgement,
 * window and timestamps are added here.
 */

import { readU16 } from '../../../proto/be.ts';
import { IpProtocol } from '../../../proto/ipv4.ts';
import {
  TCP_CHECKSUM,
  TCP_MIN_BYTES,
  TcpFlag,
  tcpAck,
  tcpSeq,
  tcpTimestampsWrite,
  tcpUrgentWrite,
  tcpWrite,
} from '../../../proto/tcp.ts';
import { VnetGso } from '../../../proto/vnethdr.ts';
import { Counter } from '../../../ring/counters.ts';
import { ADDR_WORDS } from '../../flow/flow-table.ts';
import type { EgressFrame } from '../../tap/egress-frame.ts';
import type { ShardContext } from '../context.ts';
import type { Packet } from '../packet.ts';
import { ipHeaderBytes, ipWrite } from '../to-guest.ts';
import { TcbFlag, type TcpControlBlocks } from './control-blocks.ts';
import type { ReceiveBuffers } from './receive-buffers.ts';
import type { Timestamps } from './timestamps.ts';

/** The greatest TTL: TCP segments are not meant to expire on the way. */
const TTL = 255;

export class SegmentOutput {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  readonly #buffers: ReceiveBuffers;
  readonly #timestamps: Timestamps;

  constructor(ctx: ShardContext, tcb: TcpControlBlocks, buffers: ReceiveBuffers, timestamps: Timestamps) {
    this.#ctx = ctx;
    this.#tcb = tcb;
    this.#buffers = buffers;
    this.#timestamps = timestamps;
  }

  /**
   * Build and send one segment of a flow. With TcpFlag.ack it carries the current acknowledgement and window,
   * so no other ACK is pending afterwards. With TcpFlag.urg the last payload byte is urgent.
   * @param at offset of the IP header; the payload, and options after the timestamps, have been written
   *   behind the headers
   * @param moreBytes  payload that the guest link has already, by addPiece()
   * @returns 0, or -errno if the TAP did not take the frame
   */
  emit(
    flow: number,
    seq: number,
    flags: number,
    at: number,
    optionBytes: number,
    payloadBytes: number,
    moreBytes: number,
  ): number {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const v6 = (tcb.flags[flow]! & TcbFlag.v6) !== 0;
    const ports = ctx.flows.ports[flow]!;
    const tsBytes = flags & TcpFlag.syn ? 0 : tcb.tsBytes(flow);
    const headerBytes = TCP_MIN_BYTES + tsBytes + optionBytes;
    const tcpBytes = headerBytes + payloadBytes + moreBytes;
    const ipBytes = ipHeaderBytes(v6 ? 6 : 4, tcpBytes);
    let window = 0;
    let ack = 0;
    if (flags & TcpFlag.ack) {
      ack = tcb.rcvAcked(flow);
      if (!(flags & TcpFlag.rst)) window = this.#buffers.window(flow, (flags & TcpFlag.syn) !== 0);
      tcb.flags[flow]! &= ~TcbFlag.ackPending;
      tcb.lastAckSent[flow] = ack;
    } else window = Math.min(65535, this.#buffers.limit[flow]!);
    tcpWrite(u8, at + ipBytes, ports & 0xffff, ports >>> 16, seq, ack, headerBytes, flags, window);
    if (flags & TcpFlag.urg) tcpUrgentWrite(u8, at + ipBytes, payloadBytes);
    if (tsBytes > 0)
      tcpTimestampsWrite(u8, at + ipBytes + TCP_MIN_BYTES, this.#timestamps.now(flow), tcb.tsRecent[flow]!);
    const f = this.#begin(v6 ? 6 : 4, at + ipBytes, headerBytes, payloadBytes);
    f.addresses(ctx.flows.addr, flow * ADDR_WORDS + 4, ctx.flows.addr, flow * ADDR_WORDS);
    f.moreBytes = moreBytes;
    const mss = tcb.mss[flow]!;
    if (moreBytes > 0 || (payloadBytes > mss && payloadBytes > 0)) {
      f.gsoType = v6 ? VnetGso.tcpv6 : VnetGso.tcpv4;
      f.gsoSize = mss;
    }
    return this.#send(f);
  }

  /**
   * Length of a segment's headers, from IP's on. They are written in front of the payload in place, as
   * host-io received the payload behind HEADROOM_BYTES.
   */
  headBytes(flow: number, payloadBytes: number): number {
    const tcb = this.#tcb;
    const tcpBytes = TCP_MIN_BYTES + tcb.tsBytes(flow);
    return ipHeaderBytes(tcb.flags[flow]! & TcbFlag.v6 ? 6 : 4, tcpBytes + payloadBytes) + tcpBytes;
  }

  /** Begin the link's frame for a segment whose TCP header is at `at`, with payload behind it. */
  #begin(family: 4 | 6, at: number, headerBytes: number, payloadBytes: number): EgressFrame {
    const f = this.#ctx.guest.frame;
    f.begin(family, IpProtocol.tcp);
    f.ttl = TTL;
    f.at = at;
    f.bytes = headerBytes + payloadBytes;
    f.headerBytes = headerBytes;
    f.checksumField = TCP_CHECKSUM;
    return f;
  }

  /** @returns 0, or -errno if the TAP did not take the frame */
  #send(f: EgressFrame): number {
    ipWrite(this.#ctx.u8, f);
    return this.#ctx.guest.send(f);
  }

  /** Send or retransmit a FIN without payload. */
  sendFin(flow: number): void {
    const tcb = this.#tcb;
    this.emit(flow, tcb.finSeq(flow), TcpFlag.fin | TcpFlag.ack, this.#ctx.guest.scratchAt, 0, 0, 0);
  }

  /**
   * Send RST for a flow.
   * @param seq  the RST's sequence number: the one that the guest expects
   */
  sendReset(flow: number, seq: number): void {
    this.#ctx.counters[Counter.tcpResetSent]!++;
    this.emit(flow, seq, TcpFlag.rst | TcpFlag.ack, this.#ctx.guest.scratchAt, 0, 0, 0);
  }

  /**
   * Send RST in answer to a segment of no flow; addresses, ports and numbers follow from the segment (RFC
   * 9293 section 3.10.7.1).
   */
  resetUnknown(p: Packet, headerBytes: number, flags: number): void {
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const t = p.transportAt;
    const at = ctx.guest.scratchAt;
    const ipBytes = ipHeaderBytes(p.family);
    const hasAck = (flags & TcpFlag.ack) !== 0;
    const seq = hasAck ? tcpAck(u8, t) : 0;
    const segLen =
      p.transportBytes - headerBytes + (flags & TcpFlag.syn ? 1 : 0) + (flags & TcpFlag.fin ? 1 : 0);
    const ack = hasAck ? 0 : (tcpSeq(u8, t) + segLen) >>> 0;
    const rst = hasAck ? TcpFlag.rst : TcpFlag.rst | TcpFlag.ack;
    tcpWrite(u8, at + ipBytes, readU16(u8, t + 2), readU16(u8, t), seq, ack, TCP_MIN_BYTES, rst, 0);
    const f = this.#begin(p.family, at + ipBytes, TCP_MIN_BYTES, 0);
    f.addresses(p.addr, 4, p.addr, 0);
    ctx.counters[Counter.tcpResetSent]!++;
    this.#send(f);
  }
}
