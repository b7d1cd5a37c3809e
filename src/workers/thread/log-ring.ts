/**
 * Log lines of packet threads. A thread that never returns to its event loop cannot use the console: it
 * writes lines into its own byte ring in shared memory, and the main thread drains all rings.
 *
 *   record   0        2       3            3 + n       n <= MAX_TEXT_BYTES, little-endian
 *            | n: u16 | level | text UTF-8 |           may wrap round the end of the ring
 *
 * head and tail are free-running byte counts (int32) as in the descriptor rings. A line that does not fit is
 * dropped and counted, so logging never blocks the thread.
 */
import { type Layout, LINE_BYTES, logRingAt } from '../../ring/layout.ts';
import type { LogLevelName } from './log-levels.ts';

/** Indexes of LOG_LEVELS. */
export const LogLevel = { error: 0, warning: 1, info: 2, debug: 3 } as const satisfies Record<
  LogLevelName,
  number
>;
export type LogLevel = (typeof LogLevel)[keyof typeof LogLevel];

const HEAD = 0;
const DROPPED = 1;
const TAIL = LINE_BYTES / 4;
const CONTROL_BYTES = 2 * LINE_BYTES;
const HEADER_BYTES = 3;
const MAX_TEXT_BYTES = 1000;

export class LogWriter {
  /** Lines of a less severe level are not written. */
  maxLevel: LogLevel;
  readonly #control: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #mask: number;
  readonly #bell: Int32Array;
  readonly #encoder = new TextEncoder();
  readonly #scratch = new Uint8Array(HEADER_BYTES + MAX_TEXT_BYTES);
  #head: number;

  /** @param thread  whose ring to write; the calling thread must be its only writer */
  constructor(sab: SharedArrayBuffer, layout: Layout, thread: number, maxLevel: LogLevel = LogLevel.info) {
    const at = logRingAt(layout, thread);
    this.maxLevel = maxLevel;
    this.#control = new Int32Array(sab, at, CONTROL_BYTES / 4);
    this.#bytes = new Uint8Array(sab, at + CONTROL_BYTES, layout.logBytes);
    this.#mask = layout.logBytes - 1;
    this.#bell = new Int32Array(sab, layout.logBellAt, 1);
    this.#head = Atomics.load(this.#control, HEAD);
  }

  /**
   * Write one line, or drop and count it when the ring is full.
   * @param text  cut off after MAX_TEXT_BYTES of UTF-8
   */
  log(level: LogLevel, text: string): void {
    if (level > this.maxLevel) return;
    const scratch = this.#scratch;
    const textBytes = this.#encoder.encodeInto(text, scratch.subarray(HEADER_BYTES)).written;
    const recordBytes = HEADER_BYTES + textBytes;
    const used = (this.#head - Atomics.load(this.#control, TAIL)) | 0;
    if (used + recordBytes > this.#mask + 1) {
      Atomics.add(this.#control, DROPPED, 1);
    } else {
      scratch[0] = textBytes & 0xff;
      scratch[1] = textBytes >>> 8;
      scratch[2] = level;
      for (let i = 0; i < recordBytes; i++) this.#bytes[(this.#head + i) & this.#mask] = scratch[i]!;
      this.#head = (this.#head + recordBytes) | 0;
      // Release: the record's bytes come before it.
      Atomics.store(this.#control, HEAD, this.#head);
    }
    Atomics.add(this.#bell, 0, 1);
    Atomics.notify(this.#bell, 0);
  }
}

/** The main thread's side of all log rings. */
export class LogReader {
  readonly #controls: Int32Array[] = [];
  readonly #rings: Uint8Array[] = [];
  readonly #mask: number;
  readonly #bell: Int32Array;
  readonly #decoder = new TextDecoder();
  readonly #scratch = new Uint8Array(MAX_TEXT_BYTES);
  #bellSeen: number;

  constructor(sab: SharedArrayBuffer, layout: Layout) {
    for (let thread = 0; thread < layout.counterBlocks; thread++) {
      const at = logRingAt(layout, thread);
      this.#controls.push(new Int32Array(sab, at, CONTROL_BYTES / 4));
      this.#rings.push(new Uint8Array(sab, at + CONTROL_BYTES, layout.logBytes));
    }
    this.#mask = layout.logBytes - 1;
    this.#bell = new Int32Array(sab, layout.logBellAt, 1);
    this.#bellSeen = 0;
  }

  /**
   * Pass every waiting line to `onLine`, thread by thread. A warning gives the number of dropped lines.
   * @returns number of lines passed, warnings included
   */
  drain(onLine: (level: LogLevel, text: string, thread: number) => void): number {
    this.#bellSeen = Atomics.load(this.#bell, 0);
    let lines = 0;
    for (let thread = 0; thread < this.#rings.length; thread++) {
      const control = this.#controls[thread]!;
      const ring = this.#rings[thread]!;
      let tail = Atomics.load(control, TAIL);
      const head = Atomics.load(control, HEAD); // acquire: the bytes before head are written
      while (tail !== head) {
        const textBytes = ring[tail & this.#mask]! | (ring[(tail + 1) & this.#mask]! << 8);
        const level = ring[(tail + 2) & this.#mask]! as LogLevel;
        // TextDecoder does not read shared memory: copy out first.
        for (let i = 0; i < textBytes; i++) {
          this.#scratch[i] = ring[(tail + HEADER_BYTES + i) & this.#mask]!;
        }
        tail = (tail + HEADER_BYTES + textBytes) | 0;
        lines++;
        onLine(level, this.#decoder.decode(this.#scratch.subarray(0, textBytes)), thread);
      }
      Atomics.store(control, TAIL, tail); // release: the bytes before tail may be written again
      const dropped = Atomics.exchange(control, DROPPED, 0);
      if (dropped > 0) {
        lines++;
        onLine(LogLevel.warning, `${dropped} log lines were dropped: the log ring was full`, thread);
      }
    }
    return lines;
  }

  /** Resolves when a line was written since the last drain(), or after `timeoutMs`. */
  async wait(timeoutMs: number): Promise<void> {
    const waiting = Atomics.waitAsync(this.#bell, 0, this.#bellSeen, timeoutMs);
    if (waiting.async) await waiting.value;
  }
}
