// bundle: rare
/**
 * The file of --pcap: opens it, or several of them, before the sandbox is entered, in which no file can be
 * opened. Loaded only with the option, and with an API socket for captures that begin later.
 */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { isatty } from 'node:tty';
import { addressParse, addressWrite, isV4Mapped } from '../../proto/address.ts';
import {
  Errno,
  F_SETPIPE_SZ,
  O_APPEND,
  O_CLOEXEC,
  O_CREAT,
  O_NONBLOCK,
  O_TRUNC,
  O_WRONLY,
} from '../../sys/constants.ts';
import { errnoOf } from '../../sys/error.ts';
import { dup3, dupAbove, fcntl, setNonBlocking } from '../../sys/io.ts';
import { errnoText } from '../../sys/libc.ts';
import {
  type CaptureSink,
  FileSink,
  RingSink,
  type SinkFile,
  StreamSink,
} from '../../workers/capture/capture-sink.ts';
import { Capture, type CapturePlan } from '../../workers/capture/capture-writer.ts';
import type { CaptureStart } from '../../workers/engine.ts';
import type { AddressPlan } from '../../workers/engine-plan.ts';
import { captureFilter } from '../cli/capture-filter.ts';
import { type CaptureOptions, isPcapng, MAX_SNAPLEN } from '../cli/capture-options.ts';
import { named, UsageError } from '../cli/values.ts';

/** As much as an ordinary user may set without more (/proc/sys/fs/pipe-max-size). */
const PIPE_BYTES = 1024 * 1024;

/** What the program knows about itself and the interface inside. */
export interface CaptureAbout {
  readonly program: string;
  readonly version: string;
  readonly interfaceName: string;
  readonly addresses: Pick<AddressPlan, 'ipv4' | 'ipv6'>;
}

/** A sink that begin() has to be called of. */
type Begun = CaptureSink & { begin(file: SinkFile): void };

/**
 * Compile a filter.
 * @param name  in front of errors
 * @throws UsageError that names the column
 */
export function parseFilter(text: string | undefined, name: string): CapturePlan['filter'] {
  if (text === undefined) return undefined;
  return { text, program: named(name, text, () => captureFilter(text)) };
}

/** What is captured, and what the file says about it. */
export function capturePlan(
  about: CaptureAbout,
  format: CapturePlan['format'],
  filter: CapturePlan['filter'],
  snaplen = MAX_SNAPLEN,
): CapturePlan {
  const { program, version, interfaceName, addresses } = about;
  return {
    ...{ format, snapBytes: snaplen, filter, interfaceName },
    application: `bucatini ${version}`,
    description: `${program}, process ${process.pid}: inbound is to the guest, outbound from it`,
    ipv4: addressBytes(addresses.ipv4),
    ipv6: addressBytes(addresses.ipv6),
  };
}

/** The address inside, as an option of the interface. @returns undefined: none, or the guest chooses it */
function addressBytes(plan: { guest: string; prefixLen: number } | undefined): Uint8Array | undefined {
  const words = new Uint32Array(4);
  if (plan === undefined || plan.guest === '::' || !addressParse(plan.guest, words, 0)) return undefined;
  const bytes = new Uint8Array(17);
  addressWrite(bytes, 0, words, 0);
  if (!isV4Mapped(words, 0)) {
    bytes[16] = plan.prefixLen;
    return bytes;
  }
  const mask = plan.prefixLen === 0 ? 0 : -1 << (32 - plan.prefixLen);
  return Uint8Array.of(...bytes.subarray(12, 16), mask >>> 24, mask >>> 16, mask >>> 8, mask);
}

/** A capture to an API client: its socket takes the stream. */
export function captureTo(
  sink: CaptureSink & { begin(file: SinkFile): void },
  plan: CapturePlan,
): CaptureStart {
  return (source) => {
    const capture = new Capture(plan, source, sink);
    sink.begin(capture);
    return capture;
  };
}

/**
 * The capture of --pcap.
 * @param option   its name, for errors
 * @param filter   of parseFilter()
 * @param output   of takeStandardOutput(), where the file is "-"
 * @returns what the engine is given; it throws an Error of one line where the file cannot be written
 */
export function captureStart(
  options: CaptureOptions & { readonly pcap: string },
  about: CaptureAbout,
  filter: CapturePlan['filter'],
  output?: number,
): CaptureStart {
  const { pcap, pcapRotate, pcapRing, pcapSnaplen } = options;
  const plan = capturePlan(about, isPcapng(pcap) ? 'pcapng' : 'pcap', filter, pcapSnaplen);
  return (source) => {
    const name = `--pcap ${pcap}`;
    const many = pcapRotate === undefined ? [pcap] : numbered(pcap, pcapRotate.files);
    const files =
      output === undefined ? many.map((path) => openFile(path, name)) : [{ fd: output, name: pcap }];
    const isFile = fstatSync(files[0]!.fd).isFile();
    if (!isFile && (pcapRing !== undefined || pcapRotate !== undefined))
      throw new Error(
        `${name}: not a regular file; leave out --pcap-${pcapRing === undefined ? 'rotate' : 'ring'}`,
      );
    let begun: Begun;
    let sink: CaptureSink;
    if (isFile) {
      const rotation = { bytes: pcapRotate?.bytes ?? 0, seconds: pcapRotate?.seconds ?? 0 };
      const regular = new FileSink(name, files, rotation);
      begun = regular;
      sink = pcapRing === undefined ? regular : new RingSink(regular, pcapRing);
    } else {
      fcntl(files[0]!.fd, F_SETPIPE_SZ, PIPE_BYTES); // not a pipe, or not permitted: it stays as it is
      begun = new StreamSink(name, files[0]!.fd);
      sink = begun;
    }
    const capture = new Capture(plan, source, sink);
    begun.begin(capture);
    return capture;
  };
}

/** Names of rotated files: the number comes before the suffix, with leading zeros. */
export function numbered(path: string, files: number): readonly string[] {
  const [, stem = path, suffix = ''] = /^(.*[^/])(\.[^./]+)$/.exec(path) ?? [];
  const digits = String(files).length;
  return Array.from({ length: files }, (_, i) => `${stem}_${String(i + 1).padStart(digits, '0')}${suffix}`);
}

/**
 * Open a file of the capture. Does not wait for the reader of a FIFO: open(2) would block the main thread.
 * @param option  in front of errors
 * @throws Error with a text of one line
 */
function openFile(path: string, option: string): { readonly fd: number; readonly name: string } {
  try {
    const flags = O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NONBLOCK | O_CLOEXEC;
    return { fd: openSync(path, flags, 0o600), name: path };
  } catch (cause) {
    const errno = errnoOf(cause);
    if (errno === Errno.ENXIO)
      throw new Error(`${option}: nobody reads it; start its reader first`, { cause });
    const why = errno === undefined ? String(cause) : errnoText(errno);
    const which = option.endsWith(` ${path}`) ? '' : `${path}: `;
    throw new Error(`${option}: ${which}cannot be written: ${why}`, { cause });
  }
}

/**
 * Take standard output for a capture. Whatever else is written to standard output goes to standard error from
 * now on: COMMAND's output, too. To be called before the outputs are opened again and COMMAND is started.
 * @returns a descriptor that does not block, for captureStart()
 * @throws UsageError: it is a terminal or closed
 */
export function takeStandardOutput(): number {
  if (isatty(1))
    throw new UsageError(
      '--pcap -: standard output is a terminal; write for example --pcap - -- COMMAND | wireshark -k -i -',
    );
  let fd: number;
  try {
    // A file description of our own: its flags do not matter to others that have the same pipe.
    const append = fstatSync(1).isFile() ? O_APPEND : 0;
    fd = openSync('/proc/self/fd/1', O_WRONLY | O_NONBLOCK | O_CLOEXEC | append);
  } catch (cause) {
    // A socket cannot be opened again, nor a pipe of another user.
    fd = dupAbove(1, 3);
    if (fd < 0) throw new UsageError(`--pcap -: standard output: ${errnoText(errnoOf(cause) ?? -fd)}`);
    setNonBlocking(fd);
  }
  if (dup3(2, 1, 0) < 0) {
    const devNull = openSync('/dev/null', 'r+'); // standard error is closed
    dup3(devNull, 1, 0);
    closeSync(devNull);
  }
  return fd;
}
