/**
 * The options of a capture, in `bucatini` and in `pasta`: --pcap and those that begin with its name. The
 * filter is compiled later (capture-filter.ts), as few starts have one.
 */
import { parseCount, UsageError } from './values.ts';

/** Values of the options, as far as they are given. */
export interface CaptureOptions {
  readonly pcap?: string;
  readonly pcapRotate?: CaptureRotation;
  /** Bytes of memory that hold the last frames. */
  readonly pcapRing?: number;
  readonly pcapSnaplen?: number;
  readonly pcapFilter?: string;
}

export interface CaptureRotation {
  /** Most bytes of a file, and how long it is written; absent: no limit. */
  readonly bytes?: number;
  readonly seconds?: number;
  readonly files: number;
}

type CaptureDraft = { -readonly [K in keyof CaptureOptions]?: CaptureOptions[K] };

/** The longest frame: TCP packets beyond 64 KiB are shorter. */
export const MAX_SNAPLEN = 262_144;
const DEFAULT_FILES = 10;
const MAX_FILES = 1000;
const MIN_FILE_BYTES = 64 * 1024;
const MIN_RING_BYTES = 1_000_000;
const MAX_RING_BYTES = 4e9;
const MAX_SECONDS = 366 * 24 * 3600;
const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  k: 1e3,
  kb: 1e3,
  kib: 1024,
  m: 1e6,
  mb: 1e6,
  mib: 1024 ** 2,
  g: 1e9,
  gb: 1e9,
  gib: 1024 ** 3,
};

/**
 * Parse a number of bytes: 100mb, 64MiB, 5000000.
 * @throws UsageError
 */
export function parseBytes(text: string, min: number, max: number, example: string): number {
  const [, count = '', unit = ''] = /^([0-9]{1,15})([a-z]*)$/i.exec(text) ?? [];
  const factor = count === '' ? undefined : UNITS[unit.toLowerCase()];
  if (factor === undefined) throw new UsageError(`not a number of bytes; write for example ${example}`);
  const bytes = Number(count) * factor;
  if (bytes < min || bytes > max)
    throw new UsageError(`${bytes} bytes; write a size from ${min} to ${max} bytes`);
  return bytes;
}

/** Parse size=SIZE,seconds=N,files=N, in any order. @throws UsageError */
export function parseRotation(text: string): CaptureRotation {
  const given = new Map<string, string>();
  for (const part of text.split(',')) {
    const [, key = '', value = ''] = /^(size|seconds|files)=(.+)$/.exec(part) ?? [];
    if (key === '')
      throw new UsageError(
        `"${part}" is none of size=SIZE, seconds=N, files=N; write for example size=100mb,files=10`,
      );
    if (given.has(key)) throw new UsageError(`${key} is given twice; write it once`);
    given.set(key, value);
  }
  const [size, seconds, files] = ['size', 'seconds', 'files'].map((key) => given.get(key));
  return {
    ...(size !== undefined && { bytes: parseBytes(size, MIN_FILE_BYTES, 1e15, 'size=100mb') }),
    ...(seconds !== undefined && { seconds: parseCount(seconds, 1, MAX_SECONDS, 'seconds=60') }),
    files: files === undefined ? DEFAULT_FILES : parseCount(files, 2, MAX_FILES, 'files=10'),
  };
}

/** Rows of the option tables, without what the tables add. */
export const CAPTURE_OPTIONS = [
  {
    name: 'pcap-rotate',
    value: 'size=SIZE,seconds=N,files=N',
    help: 'Write the frames of --pcap to several files, FILE with a number before its suffix; the next one is begun when one has this size or is this old, and after the last one the first is written again.',
    default: `files=${DEFAULT_FILES}`,
    set: (draft: CaptureDraft, text: string): void => {
      draft.pcapRotate = parseRotation(text);
    },
  },
  {
    name: 'pcap-ring',
    value: 'SIZE',
    help: 'Keep the last frames of --pcap in memory, so many bytes, and write them to FILE on SIGUSR2 and on the API request write_capture.',
    set: (draft: CaptureDraft, text: string): void => {
      draft.pcapRing = parseBytes(text, MIN_RING_BYTES, MAX_RING_BYTES, '64mb');
    },
  },
  {
    name: 'pcap-snaplen',
    value: 'BYTES',
    help: 'Keep only so many bytes of each frame of --pcap.',
    default: `${MAX_SNAPLEN}: all`,
    set: (draft: CaptureDraft, text: string): void => {
      draft.pcapSnaplen = parseCount(text, 14, MAX_SNAPLEN, '96');
    },
  },
  {
    name: 'pcap-filter',
    value: 'EXPR',
    help: 'Capture only frames that match, in the language of tcpdump: [src|dst] host, net, port, portrange, ip, ip6, arp, tcp, udp, icmp, icmp6, less, greater, inbound, outbound, dropped, with and, or, not and parentheses.',
    set: (draft: CaptureDraft, text: string): void => {
      if (text.trim() === '') throw new UsageError('is empty; write for example "tcp port 443"');
      draft.pcapFilter = text;
    },
  },
] as const;

/** Whether the file is a pcapng one: standard output too. */
export const isPcapng = (file: string): boolean => file === '-' || file.endsWith('.pcapng');

/**
 * Check options that depend on one another.
 * @param dashIsOutput  "-" is standard output, not a file of that name
 * @throws UsageError
 */
export function checkCapture(options: CaptureOptions, dashIsOutput: boolean): void {
  const { pcap, pcapRotate, pcapRing } = options;
  for (const [name, value] of [
    ['--pcap-rotate', pcapRotate],
    ['--pcap-ring', pcapRing],
    ['--pcap-snaplen', options.pcapSnaplen],
    ['--pcap-filter', options.pcapFilter],
  ] as const)
    if (value !== undefined && pcap === undefined)
      throw new UsageError(`${name}: needs a file; add --pcap FILE.pcapng`);
  if (pcap === '-' && dashIsOutput && (pcapRotate !== undefined || pcapRing !== undefined))
    throw new UsageError(
      `${pcapRing === undefined ? '--pcap-rotate' : '--pcap-ring'}: not for standard output; write --pcap FILE.pcapng`,
    );
  const limited = pcapRotate?.bytes !== undefined || pcapRotate?.seconds !== undefined;
  if (pcapRing !== undefined && limited)
    throw new UsageError(
      '--pcap-rotate: with --pcap-ring each file has what was in memory; write files=N without size and seconds',
    );
  if (pcapRing === undefined && pcapRotate !== undefined && !limited)
    throw new UsageError('--pcap-rotate: says not when; add size=100mb or seconds=60');
}
