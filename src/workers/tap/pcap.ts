/**
 * Writes frames to a pcap file (the classic format, LINKTYPE_ETHERNET 1; draft-ietf-opsawg-pcap). Each packet
 * thread writes the frames that it handles, by one writev(2) each: made for debugging, not for speed.
 */
import {
  realTime,
  TIMESPEC_BYTES,
  TIMESPEC_NANOSECONDS_WORD,
  TIMESPEC_SECONDS_WORD,
} from '../../sys/clock.ts';
import { Errno } from '../../sys/constants.ts';
import { cutEnd, write, writev } from '../../sys/io.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import { IOVEC_BYTES, IOVEC_WORDS, iovecWrite } from '../../sys/socket.ts';

const HEADER_BYTES = 24;
const RECORD_BYTES = 16;
/** Pieces of one frame after its first, as in guest-link.ts. */
const MAX_PIECES = 128;
/** Index of the lock word. */
const LOCK = 1;

export class PcapWriter {
  readonly #fd: number;
  readonly #head = new NativeBuffer(RECORD_BYTES);
  readonly #time = new NativeBuffer(TIMESPEC_BYTES);
  readonly #iov = new NativeBuffer((2 + MAX_PIECES) * IOVEC_BYTES);
  readonly #baseAddress: number;
  readonly #lock: Int32Array;
  readonly #onLost: (errno: number) => void;

  /**
   * @param fd  open file, positioned at its end (O_APPEND: several threads write whole records)
   * @param baseAddress  of the pool's memory
   * @param lock  word 1 is 1 while one of the threads that share the file writes to it
   * @param onLost  called when a record could not be written, with the errno
   */
  constructor(fd: number, baseAddress: number, lock?: Int32Array, onLost?: (errno: number) => void) {
    this.#fd = fd;
    this.#baseAddress = baseAddress;
    this.#lock = lock ?? new Int32Array(new SharedArrayBuffer(8));
    this.#onLost = onLost ?? (() => {});
  }

  /** Write the file header, once per file. @returns 0 or -errno */
  static begin(fd: number): number {
    const h = new NativeBuffer(HEADER_BYTES);
    h.u32[0] = 0xa1b23c4d; // nanosecond timestamps
    h.u16[2] = 2;
    h.u16[3] = 4;
    h.u32[4] = 262144;
    h.u32[5] = 1;
    const r = write(fd, h.address, HEADER_BYTES);
    if (r >= 0 && r < HEADER_BYTES) return -Errno.ENOSPC;
    return r < 0 ? r : 0;
  }

  /**
   * Record one Ethernet frame of one or two pieces. A failed write loses the record, never the frame.
   * @param at,moreAt  offsets of the pieces from baseAddress
   * @param bytes,moreBytes  their lengths; moreBytes 0: one piece
   */
  frame(at: number, bytes: number, moreAt: number, moreBytes: number): void {
    this.#begin(at, bytes, moreBytes);
    iovecWrite(this.#iov.u32, 2 * IOVEC_WORDS, this.#baseAddress + moreAt, moreBytes);
    this.#put(moreBytes > 0 ? 3 : 2, bytes + moreBytes);
  }

  /**
   * Record a frame whose further pieces are iovecs.
   * @param at,bytes  the first piece, as of frame()
   * @param iov,first,count  `count` iovecs from word `first` on
   * @param moreBytes  sum of their lengths
   */
  framePieces(
    at: number,
    bytes: number,
    iov: Uint32Array,
    first: number,
    count: number,
    moreBytes: number,
  ): void {
    this.#begin(at, bytes, moreBytes);
    const words = Math.min(count, MAX_PIECES) * IOVEC_WORDS;
    for (let i = 0; i < words; i++) this.#iov.u32[2 * IOVEC_WORDS + i] = iov[first + i]!;
    this.#put(2 + words / IOVEC_WORDS, bytes + moreBytes);
  }

  /**
   * Write the record as a whole or not at all: if the disk is full, the part that was written is cut off
   * before another thread can append.
   */
  #put(iovCount: number, frameBytes: number): void {
    while (Atomics.compareExchange(this.#lock, LOCK, 0, 1) !== 0) Atomics.wait(this.#lock, LOCK, 1, 1);
    const r = writev(this.#fd, this.#iov.address, iovCount);
    const short = r >= 0 && r < RECORD_BYTES + frameBytes;
    if (short) cutEnd(this.#fd, r);
    Atomics.store(this.#lock, LOCK, 0); // release: the file ends with a whole record
    Atomics.notify(this.#lock, LOCK, 1);
    if (r < 0) this.#onLost(-r);
    else if (short) this.#onLost(Errno.ENOSPC);
  }

  #begin(at: number, bytes: number, moreBytes: number): void {
    // Read for each frame, not once per round: that costs little compared with the write, and frames of one
    // batch keep their distance in time.
    realTime(this.#time.address);
    const h = this.#head.u32;
    h[0] = this.#time.u32[TIMESPEC_SECONDS_WORD]!;
    h[1] = this.#time.u32[TIMESPEC_NANOSECONDS_WORD]!;
    h[2] = bytes + moreBytes;
    h[3] = bytes + moreBytes;
    iovecWrite(this.#iov.u32, 0, this.#head.address, RECORD_BYTES);
    iovecWrite(this.#iov.u32, IOVEC_WORDS, this.#baseAddress + at, bytes);
  }
}
