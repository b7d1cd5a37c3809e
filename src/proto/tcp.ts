/**
 * TCP header codec, RFC 9293 section 3.1; options of RFC 7323 (window scale, timestamps) and RFC 2018 (SACK).
 *
 *      0               8               16              24            31
 *  +0 |            srcPort            |            dstPort            |
 *  +4 |                              seq                              |
 *  +8 |                              ack                              |
 *  +12|dataOff|  rsvd |C|E|U|A|P|R|S|F|             window            |
 *  +16|            checksum           |             urgent            |
 *  +20 options, (dataOff - 5) * 4 bytes
 *
 * Invariant: once tcpHeaderBytes() > 0, all fields and options below that length may be read unchecked.
 */
import { readU16, readU32, writeU16, writeU32 } from './be.ts';
import { Drop } from './drop.ts';

export const TCP_MIN_BYTES = 20;
export const TCP_MAX_BYTES = 60;
/** Offset of the checksum field from the header's start; also virtio's csumOffset. */
export const TCP_CHECKSUM = 16;

export const TcpFlag = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32, ece: 64, cwr: 128 } as const;

/** RFC 7323 section 2.3: a larger shift count is treated as 14. */
const TCP_MAX_WSCALE = 14;
/** RFC 2018 section 3: 40 bytes of options have room for at most 4 SACK blocks. */
export const TCP_MAX_SACK = 4;

const TcpOption = {
  end: 0,
  nop: 1,
  mss: 2,
  wscale: 3,
  sackPermitted: 4,
  sack: 5,
  timestamps: 8,
  /** Multipath TCP, RFC 8684 section 3. */
  mptcp: 30,
} as const;

/**
 * Check a header in place. The caller checks the checksum, because it has the pseudo header.
 * @param availBytes bytes of the segment from `at` on. Only the header is read, so the data may lie
 *   elsewhere.
 * @returns header bytes, 20..60, or Drop.short | tcpOffset
 */
export function tcpHeaderBytes(pool: Uint8Array, at: number, availBytes: number): number {
  if (availBytes < TCP_MIN_BYTES) return Drop.short;
  const headerBytes = (pool[at + 12]! >>> 4) << 2;
  if (headerBytes < TCP_MIN_BYTES || headerBytes > availBytes) return Drop.tcpOffset;
  return headerBytes;
}

/** Source port. */
export function tcpSrcPort(pool: Uint8Array, at: number): number {
  return readU16(pool, at);
}

/** Destination port. */
export function tcpDstPort(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 2);
}

/** Sequence number, SEG.SEQ of RFC 9293. */
export function tcpSeq(pool: Uint8Array, at: number): number {
  return readU32(pool, at + 4);
}

/** Acknowledgment number, SEG.ACK; valid only with TcpFlag.ack. */
export function tcpAck(pool: Uint8Array, at: number): number {
  return readU32(pool, at + 8);
}

/** TcpFlag bits. */
export function tcpFlags(pool: Uint8Array, at: number): number {
  return pool[at + 13]!;
}

/** Window field, not scaled. */
export function tcpWindow(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 14);
}

/** Offset of the urgent pointer from the start of the header. */
const TCP_URGENT = 18;

/**
 * Urgent pointer; valid only with TcpFlag.urg. Counted from the segment's first byte to the one behind the
 * urgent byte, as kernels do (RFC 6093 section 3.1).
 */
export function tcpUrgent(pool: Uint8Array, at: number): number {
  return readU16(pool, at + TCP_URGENT);
}

/** Write the urgent pointer. */
export function tcpUrgentWrite(pool: Uint8Array, at: number, urgent: number): void {
  writeU16(pool, at + TCP_URGENT, urgent);
}

/** The checksum field. */
export function tcpChecksum(pool: Uint8Array, at: number): number {
  return readU16(pool, at + TCP_CHECKSUM);
}

/** Options of a segment, filled by tcpOptions. The object is made once and reused. */
export interface TcpOptions {
  /** 0: none. */
  mss: number;
  /** Shift count, 0..14; -1: none. */
  wscale: number;
  sackPermitted: boolean;
  /** Has an option of multipath TCP, of any subtype. */
  hasMptcp: boolean;
  hasTs: boolean;
  tsVal: number;
  tsEcr: number;
  /** Number of blocks in sackLeft and sackRight; entries past it are stale. */
  sackCount: number;
  readonly sackLeft: Uint32Array;
  readonly sackRight: Uint32Array;
}

/** An empty TcpOptions. */
export function newTcpOptions(): TcpOptions {
  return {
    mss: 0,
    wscale: -1,
    sackPermitted: false,
    hasMptcp: false,
    hasTs: false,
    tsVal: 0,
    tsEcr: 0,
    sackCount: 0,
    sackLeft: new Uint32Array(TCP_MAX_SACK),
    sackRight: new Uint32Array(TCP_MAX_SACK),
  };
}

/**
 * Read the options of a header that tcpHeaderBytes has accepted.
 *
 * An option whose length is below 2 or past the end of the header ends the walk; options before it are kept,
 * as in Linux. A known option of the wrong length is skipped, and so is an unknown kind (RFC 9293 section
 * 3.2). A segment is not dropped because of malformed options, so there is no result.
 * @param headerBytes  result of tcpHeaderBytes
 * @param out  filled; every field of an earlier call is replaced, except blocks past sackCount
 */
export function tcpOptions(pool: Uint8Array, at: number, headerBytes: number, out: TcpOptions): void {
  out.mss = 0;
  out.wscale = -1;
  out.sackPermitted = false;
  out.hasMptcp = false;
  out.hasTs = false;
  out.tsVal = 0;
  out.tsEcr = 0;
  out.sackCount = 0;
  const end = at + headerBytes;
  let i = at + TCP_MIN_BYTES;
  while (i < end) {
    const kind = pool[i]!;
    if (kind === TcpOption.end) return;
    if (kind === TcpOption.nop) {
      i++;
      continue;
    }
    if (i + 1 >= end) return;
    const optionBytes = pool[i + 1]!;
    if (optionBytes < 2 || i + optionBytes > end) return;
    switch (kind) {
      case TcpOption.mss:
        if (optionBytes === 4) out.mss = readU16(pool, i + 2);
        break;
      case TcpOption.wscale:
        if (optionBytes === 3) {
          const shift = pool[i + 2]!;
          out.wscale = Math.min(shift, TCP_MAX_WSCALE);
        }
        break;
      case TcpOption.sackPermitted:
        if (optionBytes === 2) out.sackPermitted = true;
        break;
      case TcpOption.mptcp:
        out.hasMptcp = true;
        break;
      case TcpOption.sack:
        if (optionBytes >= 10 && (optionBytes & 7) === 2) {
          const count = (optionBytes - 2) >>> 3; // at most 4: 40 bytes of options
          for (let block = 0; block < count; block++) {
            out.sackLeft[block] = readU32(pool, i + 2 + block * 8);
            out.sackRight[block] = readU32(pool, i + 6 + block * 8);
          }
          out.sackCount = count;
        }
        break;
      case TcpOption.timestamps:
        if (optionBytes === 10) {
          out.hasTs = true;
          out.tsVal = readU32(pool, i + 2);
          out.tsEcr = readU32(pool, i + 6);
        }
        break;
    }
    i += optionBytes;
  }
}

/**
 * Write the 20 fixed bytes; checksum and urgent pointer are zero. Each of the nine parameters is a field of
 * the header or its place; callers have them in different places, so no object holds them.
 * @param headerBytes  20 + option bytes, a multiple of 4; the caller writes the options at + 20
 * @param window  value of the window field, already shifted
 */
export function tcpWrite(
  pool: Uint8Array,
  at: number,
  srcPort: number,
  dstPort: number,
  seq: number,
  ack: number,
  headerBytes: number,
  flags: number,
  window: number,
): void {
  writeU16(pool, at, srcPort);
  writeU16(pool, at + 2, dstPort);
  writeU32(pool, at + 4, seq);
  writeU32(pool, at + 8, ack);
  pool[at + 12] = (headerBytes >>> 2) << 4;
  pool[at + 13] = flags;
  writeU16(pool, at + 14, window);
  writeU32(pool, at + 16, 0);
}

/**
 * Write the options of a SYN at `at`, which is the start of the header + 20.
 * @param wscale  shift count, 0..14; -1 leaves the option out
 * @returns option bytes, a multiple of 4
 */
export function tcpSynOptionsWrite(
  pool: Uint8Array,
  at: number,
  mss: number,
  wscale: number,
  sackPermitted: boolean,
): number {
  writeU32(pool, at, (TcpOption.mss << 24) | (4 << 16) | (mss & 0xffff));
  let i = at + 4;
  if (sackPermitted) {
    writeU32(pool, i, (TcpOption.nop << 24) | (TcpOption.nop << 16) | (TcpOption.sackPermitted << 8) | 2);
    i += 4;
  }
  if (wscale >= 0) {
    writeU32(pool, i, (TcpOption.nop << 24) | (TcpOption.wscale << 16) | (3 << 8) | wscale);
    i += 4;
  }
  return i - at;
}

/** Length of a timestamps option with the two NOPs that align it. */
export const TCP_TIMESTAMPS_BYTES = 12;

/** Write a timestamps option with two NOPs in front (RFC 7323 appendix A). @returns TCP_TIMESTAMPS_BYTES */
export function tcpTimestampsWrite(pool: Uint8Array, at: number, tsVal: number, tsEcr: number): number {
  writeU32(pool, at, (TcpOption.nop << 24) | (TcpOption.nop << 16) | (TcpOption.timestamps << 8) | 10);
  writeU32(pool, at + 4, tsVal);
  writeU32(pool, at + 8, tsEcr);
  return TCP_TIMESTAMPS_BYTES;
}

/**
 * Write a SACK option with two NOPs in front, which align the edges (RFC 2018 section 3).
 * @param left,right  edges of the blocks: the first sequence number of a block, and the one after its last
 * @param count  blocks to write, 0..4; the caller makes sure that they fit (2 + 2 + 8 * count <= 40)
 * @returns option bytes, a multiple of 4; 0 for no blocks
 */
export function tcpSackWrite(
  pool: Uint8Array,
  at: number,
  left: Uint32Array,
  right: Uint32Array,
  count: number,
): number {
  if (count === 0) return 0;
  writeU32(pool, at, (TcpOption.nop << 24) | (TcpOption.nop << 16) | (TcpOption.sack << 8) | (2 + count * 8));
  for (let block = 0; block < count; block++) {
    writeU32(pool, at + 4 + block * 8, left[block]!);
    writeU32(pool, at + 8 + block * 8, right[block]!);
  }
  return 4 + count * 8;
}
