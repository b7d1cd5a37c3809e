/** Reads pcapng and pcap files for tests, by their specifications and not by our codec. */

export interface ReadBlock {
  readonly type: number;
  /** By code, in their order. */
  readonly options: readonly (readonly [code: number, value: Buffer])[];
  readonly body: Buffer;
}

export interface ReadFrame {
  /** Nanoseconds since 1970. */
  readonly time: bigint;
  readonly captured: Buffer;
  readonly original: number;
  readonly comments: readonly string[];
  /** epb_flags; 0: none. */
  readonly flags: number;
  readonly queue: number | undefined;
  readonly dropCount: bigint;
}

const FIXED: Readonly<Record<number, number>> = { 168627466: 16, 1: 8, 5: 12 };

/** @throws Error where the file is not a sequence of whole, well-formed blocks */
export function readPcapng(file: Buffer): readonly ReadBlock[] {
  const blocks: ReadBlock[] = [];
  for (let at = 0; at < file.length; ) {
    const type = file.readUInt32LE(at);
    const length = file.readUInt32LE(at + 4);
    if (length % 4 !== 0 || length < 12 || at + length > file.length)
      throw new Error(`block ${blocks.length} at ${at} has length ${length} of ${file.length - at}`);
    if (file.readUInt32LE(at + length - 4) !== length) throw new Error(`block at ${at}: lengths differ`);
    const body = file.subarray(at + 8, at + length - 4);
    const fixed = type === 6 ? 20 + ((body.readUInt32LE(12) + 3) & ~3) : FIXED[type]!;
    blocks.push({ type, body, options: optionsOf(body.subarray(fixed)) });
    at += length;
  }
  return blocks;
}

function optionsOf(bytes: Buffer): ReadBlock['options'] {
  const options: [number, Buffer][] = [];
  if (bytes.length === 0) return options;
  for (let at = 0; ; ) {
    const code = bytes.readUInt16LE(at);
    const length = bytes.readUInt16LE(at + 2);
    if (code === 0) {
      if (at + 4 !== bytes.length) throw new Error('the last option is not the end of its block');
      return options;
    }
    options.push([code, bytes.subarray(at + 4, at + 4 + length)]);
    at += 4 + ((length + 3) & ~3);
  }
}

/** The frames of a pcapng file. */
export const framesOf = (file: Buffer): readonly ReadFrame[] =>
  readPcapng(file)
    .filter(({ type }) => type === 6)
    .map(({ body, options }) => {
      const of = (code: number): Buffer | undefined => options.find(([c]) => c === code)?.[1];
      return {
        time: (BigInt(body.readUInt32LE(4)) << 32n) | BigInt(body.readUInt32LE(8)),
        captured: body.subarray(20, 20 + body.readUInt32LE(12)),
        original: body.readUInt32LE(16),
        comments: options.filter(([code]) => code === 1).map(([, value]) => value.toString()),
        flags: of(2)?.readUInt32LE(0) ?? 0,
        queue: of(6)?.readUInt32LE(0),
        dropCount: of(4)?.readBigUInt64LE(0) ?? 0n,
      };
    });

/** Frames of a pcap file with nanoseconds. @throws Error where it is not one, or ends within a record */
export function readPcap(file: Buffer): readonly Pick<ReadFrame, 'time' | 'captured' | 'original'>[] {
  if (file.readUInt32LE(0) !== 0xa1b23c4d) throw new Error('not the magic number of nanoseconds');
  const frames = [];
  for (let at = 24; at < file.length; ) {
    const length = file.readUInt32LE(at + 8);
    if (at + 16 + length > file.length) throw new Error(`record at ${at} is cut`);
    frames.push({
      time: BigInt(file.readUInt32LE(at)) * 1_000_000_000n + BigInt(file.readUInt32LE(at + 4)),
      captured: file.subarray(at + 16, at + 16 + length),
      original: file.readUInt32LE(at + 12),
    });
    at += 16 + length;
  }
  return frames;
}
