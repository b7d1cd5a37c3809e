/**
 * What the packet threads and the main thread share while frames are captured: one SharedArrayBuffer, with a
 * ring for each packet thread. The rings hold packet blocks of pcapng (proto/pcapng.ts) as they go into the
 * file, and gaps.
 *
 *   +0    wake, sleeping, active (int32)
 *   then for each thread, two lines:  +0 head, +4 lost, +8 accepted (int32)   +64 tail (int32)
 *   then for each thread RING_BYTES
 *
 * Head and tail count bytes modulo 2^32. A block never wraps: a gap comes in front of it, one word with
 * GAP and the gap's length, that word included.
 *
 * Ordering: a thread writes a block, then stores head; the main thread reads head, then the block, then
 * stores tail.
 */
import { addressOf } from '../../sys/memory.ts';

export const RING_BYTES = 8 * 1024 * 1024;
export const RING_MASK = RING_BYTES - 1;
/** In the first word of a gap; no block type has it. */
export const GAP = 0x8000_0000;

const LINE_BYTES = 64;
const CONTROL_BYTES = 2 * LINE_BYTES;
/** Words of the common part. */
export const CaptureWord = {
  /** Counts up when the main thread has something to do. */
  wake: 0,
  /** 1: the main thread waits for `wake` to change, and has seen all rings empty. */
  sleeping: 1,
  /** 0: the capture has ended; packet threads write nothing more. */
  active: 2,
} as const;
/** Words of a thread's part, from its first. */
export const RingWord = { head: 0, lost: 1, accepted: 2, tail: LINE_BYTES / 4 } as const;

/** What a packet thread needs to capture frames, as plain data. */
export interface CaptureTask {
  readonly memory: SharedArrayBuffer;
  /** Packet threads. */
  readonly threads: number;
  /** Most bytes of a frame that are kept. */
  readonly snapBytes: number;
  /** Of captureFilter(); absent: all frames. */
  readonly filter?: Int32Array;
  /** Options of pcapng: direction, comments. */
  readonly options: boolean;
  /** Which thread captured a frame is an option, too: the engine has lanes. */
  readonly queues: boolean;
  /**
   * How long a packet thread waits for room in its ring before frames are lost: regular files take whatever
   * comes, while the reader of a pipe may stand still.
   */
  readonly waitMs: number;
}

/** Memory for `threads` packet threads. Pages take memory once they are used. */
export const captureMemory = (threads: number): SharedArrayBuffer =>
  new SharedArrayBuffer(LINE_BYTES + threads * (CONTROL_BYTES + RING_BYTES));

/** First word of a thread's control words. */
export const ringControl = (thread: number): number => (LINE_BYTES + thread * CONTROL_BYTES) >>> 2;

/** Byte offset of a thread's ring. */
export const ringAt = (threads: number, thread: number): number =>
  LINE_BYTES + threads * CONTROL_BYTES + thread * RING_BYTES;

/** Native address of the memory. */
export const captureAddress = (memory: SharedArrayBuffer): number => addressOf(new Uint8Array(memory));
