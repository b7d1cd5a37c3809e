/**
 * Blocks of a pcapng file (draft-ietf-opsawg-pcapng-05), little endian, and the headers of the older pcap
 * format (draft-ietf-opsawg-pcap). Pure.
 *
 *   block    u32 type | u32 length | body ... | u32 length        length: of all, a multiple of 4
 *   option   u16 code | u16 bytes  | value, padded to 4 bytes ... code 0, bytes 0: the last one
 *
 *   enhanced packet: +0 type 6  +4 length  +8 interface  +12 time, high word  +16 low word
 *                    +20 captured bytes  +24 bytes of the frame  +28 frame, padded; options; length
 */

export const BlockType = { section: 0x0a0d0d0a, interface: 1, statistics: 5, packet: 6 } as const;

/** Option codes. Those of one kind of block have the same numbers as others of another kind. */
export const PcapngOption = {
  comment: 1,
  sectionHardware: 2,
  sectionOs: 3,
  sectionApplication: 4,
  interfaceName: 2,
  interfaceDescription: 3,
  interfaceIpv4: 4,
  interfaceIpv6: 5,
  interfaceMac: 6,
  interfaceTimeResolution: 9,
  interfaceFilter: 11,
  packetFlags: 2,
  packetDropCount: 4,
  packetQueue: 6,
  statisticsStart: 2,
  statisticsEnd: 3,
  statisticsReceived: 4,
  statisticsInterfaceDrops: 5,
  statisticsAccepted: 6,
  statisticsSystemDrops: 7,
  statisticsDelivered: 8,
} as const;

/** epb_flags: bits 0-1 direction, bits 2-4 kind of destination. */
export const PacketFlag = {
  inbound: 1,
  outbound: 2,
  unicast: 1 << 2,
  multicast: 2 << 2,
  broadcast: 3 << 2,
} as const;

export const LINKTYPE_ETHERNET = 1;
/** Bytes of a packet block in front of the frame. */
export const PACKET_HEADER_BYTES = 28;
/** Header of an option. */
export const OPTION_BYTES = 4;

const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
/** pcap with time stamps in nanoseconds. */
const PCAP_MAGIC_NS = 0xa1b23c4d;
export const PCAP_HEADER_BYTES = 24;
export const PCAP_RECORD_BYTES = 16;

export const padded = (bytes: number): number => (bytes + 3) & ~3;

/** Most bytes of a comment: its length is a u16. */
const MAX_TEXT_BYTES = 0xfff0;

/** One block, put together piece by piece. Cold: for all blocks but those of packets. */
class BlockBuilder {
  readonly #parts: Uint8Array[] = [];
  readonly #type: number;

  constructor(type: number) {
    this.#type = type;
  }

  u32(...values: readonly number[]): this {
    this.#parts.push(new Uint8Array(Uint32Array.from(values).buffer));
    return this;
  }

  /** An option; without a value it is left out. @param value  text, bytes, or a 64-bit number below 2^53 */
  option(code: number, value: string | Uint8Array | number | undefined): this {
    if (value === undefined || value === '') return this;
    const bytes =
      typeof value === 'number'
        ? new Uint8Array(Uint32Array.of(value % 2 ** 32, Math.floor(value / 2 ** 32)).buffer)
        : typeof value === 'string'
          ? new TextEncoder().encode(value).subarray(0, MAX_TEXT_BYTES)
          : value;
    const part = new Uint8Array(OPTION_BYTES + padded(bytes.length));
    new Uint16Array(part.buffer).set([code, bytes.length]);
    part.set(bytes, OPTION_BYTES);
    this.#parts.push(part);
    return this;
  }

  bytes(): Uint8Array {
    this.u32(0); // the end of the options
    const body = this.#parts.reduce((sum, part) => sum + part.length, 0);
    const block = new Uint8Array(12 + body);
    const words = new Uint32Array(block.buffer);
    words[0] = this.#type;
    words[1] = block.length;
    let at = 8;
    for (const part of this.#parts) {
      block.set(part, at);
      at += part.length;
    }
    words[at >>> 2] = block.length;
    return block;
  }
}

export interface SectionInfo {
  readonly hardware?: string | undefined;
  readonly os?: string | undefined;
  readonly application?: string | undefined;
  readonly comment?: string | undefined;
}

/** A Section Header Block, of unknown length. */
export function sectionBlock({ hardware, os, application, comment }: SectionInfo): Uint8Array {
  return new BlockBuilder(BlockType.section)
    .u32(BYTE_ORDER_MAGIC, 1 /* version 1.0 */, 0xffff_ffff, 0xffff_ffff)
    .option(PcapngOption.comment, comment)
    .option(PcapngOption.sectionHardware, hardware)
    .option(PcapngOption.sectionOs, os)
    .option(PcapngOption.sectionApplication, application)
    .bytes();
}

export interface InterfaceInfo {
  /** Most captured bytes of a frame. */
  readonly snapBytes: number;
  readonly name?: string | undefined;
  readonly description?: string | undefined;
  readonly mac?: Uint8Array | undefined;
  /** Four address bytes and four of the mask. */
  readonly ipv4?: Uint8Array | undefined;
  /** Sixteen address bytes and one with the length of the prefix. */
  readonly ipv6?: Uint8Array | undefined;
  /** Text of the filter. */
  readonly filter?: string | undefined;
}

/** An Interface Description Block: Ethernet, times in nanoseconds. */
export function interfaceBlock(info: InterfaceInfo): Uint8Array {
  return new BlockBuilder(BlockType.interface)
    .u32(LINKTYPE_ETHERNET, info.snapBytes)
    .option(PcapngOption.interfaceName, info.name)
    .option(PcapngOption.interfaceDescription, info.description)
    .option(PcapngOption.interfaceIpv4, info.ipv4)
    .option(PcapngOption.interfaceIpv6, info.ipv6)
    .option(PcapngOption.interfaceMac, info.mac)
    .option(PcapngOption.interfaceTimeResolution, Uint8Array.of(9))
    .option(PcapngOption.interfaceFilter, info.filter && `\0${info.filter}`) // 0: a string
    .bytes();
}

/** Two words of a time stamp, high and low: nanoseconds since 1970. */
export type TimeWords = readonly [high: number, low: number];

export interface StatisticsInfo {
  readonly now: TimeWords;
  readonly start: TimeWords;
  readonly end: TimeWords;
  /** Frames that the interface carried. */
  readonly received: number;
  /** Frames that the engine dropped. */
  readonly interfaceDrops: number;
  /** Frames that the filter let pass. */
  readonly accepted: number;
  /** Frames that the capture lost. */
  readonly systemDrops: number;
  /** Frames in the file. */
  readonly delivered: number;
  readonly comment?: string | undefined;
}

/** An Interface Statistics Block of interface 0. */
export function statisticsBlock(info: StatisticsInfo): Uint8Array {
  const time = (words: TimeWords): Uint8Array => new Uint8Array(Uint32Array.from(words).buffer);
  return new BlockBuilder(BlockType.statistics)
    .u32(0, ...info.now)
    .option(PcapngOption.comment, info.comment)
    .option(PcapngOption.statisticsStart, time(info.start))
    .option(PcapngOption.statisticsEnd, time(info.end))
    .option(PcapngOption.statisticsReceived, info.received)
    .option(PcapngOption.statisticsInterfaceDrops, info.interfaceDrops)
    .option(PcapngOption.statisticsAccepted, info.accepted)
    .option(PcapngOption.statisticsSystemDrops, info.systemDrops)
    .option(PcapngOption.statisticsDelivered, info.delivered)
    .bytes();
}

/** The header of a pcap file. */
export function pcapHeader(snapBytes: number): Uint8Array {
  const header = new Uint8Array(PCAP_HEADER_BYTES);
  new Uint32Array(header.buffer).set([PCAP_MAGIC_NS, 2 | (4 << 16), 0, 0, snapBytes, LINKTYPE_ETHERNET]);
  return header;
}

/**
 * Write a time stamp, in nanoseconds, as two words: high, low.
 * @param seconds,nanoseconds  since 1970
 * @param words,w  filled: words[w] and words[w + 1]
 */
export function timeWrite(words: Uint32Array, w: number, seconds: number, nanoseconds: number): void {
  // 64-bit arithmetic in two parts below 2^53: seconds = a * 2^16 + b.
  const a = (seconds >>> 16) * 1e9;
  const low = (a % 0x1_0000) * 0x1_0000 + (seconds & 0xffff) * 1e9 + nanoseconds;
  words[w] = Math.floor(a / 0x1_0000) + Math.floor(low / 0x1_0000_0000);
  words[w + 1] = low % 0x1_0000_0000;
}

/** Seconds of a time stamp, as of timeWrite(). */
export function timeSeconds(high: number, low: number): number {
  const below = Math.max(0, Math.floor((high * 0x1_0000_0000) / 1e9) - 1); // rounded: a little too small
  return below + Math.floor(timeRest(high, low, below) / 1e9);
}

/** Nanoseconds of a time stamp within its second. */
export const timeNanoseconds = (high: number, low: number): number =>
  timeRest(high, low, timeSeconds(high, low));

/** high * 2^32 + low - seconds * 1e9, exact where the result is small. */
function timeRest(high: number, low: number, seconds: number): number {
  timeWrite(scratch, 0, seconds, 0);
  return (high - scratch[0]!) * 0x1_0000_0000 + (low - scratch[1]!);
}

const scratch = new Uint32Array(2);

/** Words of a packet block's header, from the start of the block. */
export const PacketWord = {
  type: 0,
  length: 1,
  interface: 2,
  high: 3,
  low: 4,
  captured: 5,
  original: 6,
} as const;
