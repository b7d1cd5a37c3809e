/**
 * Segments to the guest (RFC 9293 section 3.1): TCP and IP headers in front of payload that lies in its slot, or of none, and the frame
 * handed to the guest link. Sequence numbers are the caller's; acknowledgement, window and timestamps are put in here.
 */

import { addressWrite } from '../../../proto/address.ts';
import { readU16, writeU16 } from '../../../proto/be.ts';
import { foldSum, pseudoSum4, pseudoSum6At } from '../../../proto/checksum.ts';
import { EtherType } from '../../../proto/ethernet.ts';
import { IPV4_MIN_BYTES, IpProtocol, Ipv4Flag, ipv4Write } from '../../../proto/ipv4.ts';
import {
  IPV6_BYTES,
  IPV6_DST,
  IPV6_JUMBO_BYTES,
  IPV6_SRC,
  Ipv6Next,
  ipv6JumboWrite,
  ipv6Write,
} from '../../../proto/ipv6.ts';
import {
  TCP_MIN_BYTES,
  TcpFlag,
  tcpAck,
  tcpChecksumAt,
  tcpSeq,
  tcpTimestampsWrite,
  tcpWrite,
} from '../../../proto/tcp.ts';
import { VnetGso } from '../../../proto/vnethdr.ts';
import { Counter } from '../../../ring/counters.ts';
import { ADDR_WORDS } from '../../flow-table.ts';
import type { ShardContext } from '../context.ts';
import type { Packet } from '../packet.ts';
import { ipHeaderBytes } from '../to-guest.ts';
import { TcbFlag, type TcpControlBlocks } from './control-blocks.ts';
import type { ReceiveBuffers } from './receive-buffers.ts';
import type { Timestamps } from './timestamps.ts';

/** Longest IP packet whose length the header can say. */
export const IP_MAX_BYTES = 65535;
/** The largest: nobody on the way is to count hops of ours. */
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
   * Build and send one segment of a flow. It carries the current acknowledgement and window, so a pending ACK is done with it.
   * @param at  offset of the IP header: payload, and options after the timestamps, lie behind the headers already
   * @param moreBytes  payload in pieces that the guest link holds already
   * @returns 0 or -errno: the frame was not taken
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
    const ipBytes = v6 ? IPV6_BYTES + (tcpBytes > IP_MAX_BYTES ? IPV6_JUMBO_BYTES : 0) : IPV4_MIN_BYTES;
    let window = 0;
    let ack = 0;
    if (flags & TcpFlag.ack) {
      ack = tcb.rcvAcked(flow);
      if (!(flags & TcpFlag.rst)) window = this.#buffers.window(flow, (flags & TcpFlag.syn) !== 0);
      tcb.flags[flow]! &= ~TcbFlag.ackPending;
      tcb.lastAckSent[flow] = ack;
    } else window = Math.min(65535, this.#buffers.limit[flow]!);
    tcpWrite(u8, at + ipBytes, ports & 0xffff, ports >>> 16, seq, ack, headerBytes, flags, window);
    if (tsBytes > 0)
      tcpTimestampsWrite(u8, at + ipBytes + TCP_MIN_BYTES, this.#timestamps.now(), tcb.tsRecent[flow]!);
    this.#finishIp(
      at,
      ctx.flows.addr,
      flow * ADDR_WORDS + 4,
      ctx.flows.addr,
      flow * ADDR_WORDS,
      v6,
      tcpBytes,
    );
    return this.#sendIp(at, ipBytes, v6, headerBytes, payloadBytes, moreBytes, tcb.mss[flow]!);
  }

  /** Bytes of all headers from IP's on in front of a segment. They go there in place: host-io received behind HEADROOM_BYTES. */
  headBytes(flow: number, payloadBytes: number): number {
    const tcb = this.#tcb;
    const tcpBytes = TCP_MIN_BYTES + tcb.tsBytes(flow);
    if (!(tcb.flags[flow]! & TcbFlag.v6)) return IPV4_MIN_BYTES + tcpBytes;
    return IPV6_BYTES + (tcpBytes + payloadBytes > IP_MAX_BYTES ? IPV6_JUMBO_BYTES : 0) + tcpBytes;
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
        ipv6Write(u8, at, 0, Ipv6Next.hopByHop, TTL, 0);
        ipv6JumboWrite(u8, at + IPV6_BYTES, IpProtocol.tcp, IPV6_JUMBO_BYTES + tcpBytes);
        ipBytes += IPV6_JUMBO_BYTES;
      } else ipv6Write(u8, at, tcpBytes, IpProtocol.tcp, TTL, 0);
      addressWrite(u8, at + IPV6_SRC, src, s);
      addressWrite(u8, at + IPV6_DST, dst, d);
      writeU16(
        u8,
        at + ipBytes + tcpChecksumAt,
        foldSum(pseudoSum6At(u8, at + IPV6_SRC, at + IPV6_DST, IpProtocol.tcp, tcpBytes)),
      );
    } else {
      // A total length of 0 stands for one that the field cannot say: Linux takes that of a GSO frame (iph_totlen).
      const bytes = IPV4_MIN_BYTES + tcpBytes;
      const totalLen = bytes > IP_MAX_BYTES ? 0 : bytes;
      const flags = Ipv4Flag.dontFragment;
      ipv4Write(u8, at, totalLen, IpProtocol.tcp, src[s + 3]!, dst[d + 3]!, TTL, 0, flags);
      const pseudo = pseudoSum4(src[s + 3]!, dst[d + 3]!, IpProtocol.tcp, tcpBytes);
      writeU16(u8, at + IPV4_MIN_BYTES + tcpChecksumAt, foldSum(pseudo));
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
        tcpChecksumAt,
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
      tcpChecksumAt,
      gso ? (v6 ? VnetGso.tcpv6 : VnetGso.tcpv4) : VnetGso.none,
      gso ? mss : 0,
      ipBytes + tcpHeaderLen,
      0,
      0,
    );
  }

  /** A FIN by itself, the first time or again. */
  sendFin(flow: number): void {
    const tcb = this.#tcb;
    this.emit(flow, tcb.finSeq(flow), TcpFlag.fin | TcpFlag.ack, this.#ctx.guest.scratchAt, 0, 0, 0);
  }

  /** RST for a flow. @param seq  its sequence number: what the guest says it expects */
  sendReset(flow: number, seq: number): void {
    this.#ctx.counters[Counter.tcpResetSent]!++;
    this.emit(flow, seq, TcpFlag.rst | TcpFlag.ack, this.#ctx.guest.scratchAt, 0, 0, 0);
  }

  /** RST for a segment of no flow (RFC 9293 section 3.10.7.1): everything mirrored from it. */
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
    this.#finishIp(at, p.addr, 4, p.addr, 0, p.family === 6, TCP_MIN_BYTES);
    ctx.counters[Counter.tcpResetSent]!++;
    this.#sendIp(at, ipBytes, p.family === 6, TCP_MIN_BYTES, 0, 0, 0);
  }
}
