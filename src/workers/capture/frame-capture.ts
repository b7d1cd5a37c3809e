/**
 * A packet thread's side of a capture: writes frames as packet blocks into its ring (capture-memory.ts). The
 * main thread takes them out and writes the file (capture-writer.ts), so that no packet thread waits for a
 * disk or the reader of a pipe.
 *
 * A frame of the guest is recorded when its shard handles it: open() writes the block, then the shard does
 * its work, which may call drop(), and close() adds the options, comments among them. Frames to the guest
 * that are sent in between come behind the open block, and all are published together. The block keeps room
 * for its options; what is left of the room becomes a gap.
 */
import { FrameFilter, FrameHeaders } from '../../proto/frame-filter.ts';
import {
  BlockType,
  OPTION_BYTES,
  PACKET_HEADER_BYTES,
  PacketFlag,
  PacketWord,
  PcapngOption,
  padded,
  timeWrite,
} from '../../proto/pcapng.ts';
import { Counter } from '../../ring/counters.ts';
import {
  realTime,
  TIMESPEC_BYTES,
  TIMESPEC_NANOSECONDS_WORD,
  TIMESPEC_SECONDS_WORD,
} from '../../sys/clock.ts';
import { copyBytes, NativeBuffer } from '../../sys/memory.ts';
import {
  type CaptureTask,
  CaptureWord,
  captureAddress,
  GAP,
  RING_BYTES,
  RING_MASK,
  RingWord,
  ringAt,
  ringControl,
} from './capture-memory.ts';
import { dropComment } from './drop-comment.ts';

/** Most bytes of a comment. */
const COMMENT_BYTES = 400;
/** Flags, queue and drop count; two comments; the end of the options and of the block. */
const OPTION_ROOM = 8 + 8 + 12 + 2 * (OPTION_BYTES + COMMENT_BYTES) + 8;
/** Once so much of the ring is in use, the main thread is woken. */
const WAKE_BYTES = RING_BYTES / 4;

/** Where the shard says what is to be known about a frame's flow. */
export interface FlowComments {
  /** The flow of a frame, which is about to be handled; -1: none. */
  flowOf(headers: FrameHeaders): number;
  /**
   * The comment of a frame, which was handled if it is one of the guest.
   * @param before  of flowOf(); -1: not asked
   * @returns '' for none
   */
  of(headers: FrameHeaders, before: number): string;
}

const Open = { no: 0, yes: 1, lost: 2 } as const;

export class FrameCapture {
  /** Absent in a thread without shards. */
  comments: FlowComments | undefined;
  readonly #pool: Uint8Array;
  readonly #poolAddress: number;
  readonly #counters: Float64Array;
  readonly #snapBytes: number;
  readonly #filter: FrameFilter | null;
  readonly #hasOptions: boolean;
  readonly #queue: number;
  readonly #waitMs: number;
  readonly #i32: Int32Array;
  readonly #words: Uint32Array;
  readonly #bytes: Uint8Array;
  readonly #control: number;
  /** Byte offset of the ring in #bytes, and its native address. */
  readonly #ringAt: number;
  readonly #address: number;
  readonly #time = new NativeBuffer(TIMESPEC_BYTES);
  readonly #headers = new FrameHeaders();
  readonly #encoder = new TextEncoder();
  /** Bytes written, and bytes that the main thread has taken, modulo 2^32. */
  #end: number;
  #tail: number;
  /** The main thread has taken nothing during a wait. */
  #stalled = false;
  #lostSince = 0;
  // The open block.
  #open: number = Open.no;
  readonly #openHeaders = new FrameHeaders();
  #openAt = 0;
  #openOptionsAt = 0;
  /** #end right behind the open block. */
  #openEnd = 0;
  #cause = 0;
  #flow = -1;

  /**
   * @param thread  number of the packet thread
   * @param pool,poolAddress  memory of the frames, and its native address
   * @param counters  of the thread
   */
  constructor(
    task: CaptureTask,
    thread: number,
    pool: Uint8Array,
    poolAddress: number,
    counters: Float64Array,
  ) {
    this.#pool = pool;
    this.#poolAddress = poolAddress;
    this.#counters = counters;
    this.#snapBytes = task.snapBytes;
    this.#filter = task.filter === undefined ? null : new FrameFilter(task.filter);
    this.#hasOptions = task.options;
    this.#queue = task.queues ? thread : -1;
    this.#waitMs = task.waitMs;
    const { memory, threads } = task;
    this.#i32 = new Int32Array(memory);
    this.#words = new Uint32Array(memory);
    this.#bytes = new Uint8Array(memory);
    this.#control = ringControl(thread);
    this.#ringAt = ringAt(threads, thread);
    this.#address = captureAddress(memory) + this.#ringAt;
    // A thread of a lane may end and begin again.
    this.#end = Atomics.load(this.#i32, this.#control + RingWord.head);
    this.#tail = Atomics.load(this.#i32, this.#control + RingWord.tail);
  }

  /** The main thread has ended the capture. A stale value does no harm: the frame is written and not read. */
  get #hasEnded(): boolean {
    return this.#i32[CaptureWord.active] === 0;
  }

  /** Take the time for the next toGuest(): before the frame is sent, or its answer might be older. */
  stamp(): void {
    realTime(this.#time.address);
  }

  /**
   * A frame of the guest is about to be handled; close() must follow.
   * @param at,bytes  the first piece, which has the headers
   * @param moreAt,moreBytes  the second one
   */
  open(at: number, bytes: number, moreAt: number, moreBytes: number): void {
    this.#cause = 0;
    if (this.#hasEnded) return;
    const headers = this.#openHeaders;
    headers.read(this.#pool, at, bytes, bytes + moreBytes, true);
    const filter = this.#filter;
    if (
      filter !== null &&
      !filter.matches(headers, false) &&
      !(filter.asksForDrops && filter.matches(headers, true))
    )
      return;
    this.stamp();
    const captured = Math.min(bytes + moreBytes, this.#snapBytes);
    const blockAt = this.#begin(captured, bytes + moreBytes);
    this.#open = blockAt < 0 ? Open.lost : Open.yes;
    if (blockAt < 0) return;
    this.#openAt = blockAt;
    this.#openOptionsAt = this.#copy(blockAt, at, bytes, moreAt, moreBytes, captured);
    this.#openEnd = this.#end;
    this.#flow = this.comments === undefined || !this.#hasOptions ? -1 : this.comments.flowOf(headers);
  }

  /** The open frame, if there is one, is dropped. @param cause  as dropComment() */
  drop(cause: number): void {
    if (this.#open !== Open.no && this.#cause === 0) this.#cause = cause;
  }

  /** The frame of open() was handled. */
  close(): void {
    if (this.#open === Open.no) return;
    const wasWritten = this.#open === Open.yes;
    this.#open = Open.no;
    const cause = this.#cause;
    if (!wasWritten) {
      this.#lose();
      return this.#publish();
    }
    const filter = this.#filter;
    const blockAt = this.#openAt;
    let behind = blockAt;
    if (filter === null || !filter.asksForDrops || filter.matches(this.#openHeaders, cause !== 0))
      behind = this.#finish(blockAt, this.#openOptionsAt, this.#openHeaders, cause, this.#flow);
    const room = this.#openOptionsAt + OPTION_ROOM - behind;
    if (this.#end === this.#openEnd) this.#end = (this.#end - room) | 0;
    else if (room > 0) this.#words[behind >>> 2] = (GAP | room) >>> 0;
    this.#publish();
  }

  /**
   * A frame of the guest that no shard gets.
   * @param at,bytes,moreAt,moreBytes  as of open()
   * @param cause  as dropComment(); 0: it was not dropped
   */
  fromGuest(at: number, bytes: number, moreAt: number, moreBytes: number, cause: number): void {
    this.stamp();
    const headers = this.#headers;
    const blockAt = this.#beginWhole(at, bytes, moreBytes, cause, true);
    if (blockAt < 0) return;
    const captured = this.#words[(blockAt >>> 2) + PacketWord.captured]!;
    const optionsAt = this.#copy(blockAt, at, bytes, moreAt, moreBytes, captured);
    const behind = this.#finish(blockAt, optionsAt, headers, cause, -1);
    this.#end = (this.#end - (optionsAt + OPTION_ROOM - behind)) | 0;
    this.#publish();
  }

  /**
   * A frame that was sent to the guest, at the time of stamp().
   * @param at,bytes  the first piece
   * @param iov,first,count  further pieces: `count` iovecs from word `first` on
   * @param moreBytes  sum of their lengths
   * @param cause  as dropComment(); 0: it was sent
   */
  toGuest(
    at: number,
    bytes: number,
    iov: Uint32Array,
    first: number,
    count: number,
    moreBytes: number,
    cause: number,
  ): void {
    const headers = this.#headers;
    const blockAt = this.#beginWhole(at, bytes, moreBytes, cause, false);
    if (blockAt < 0) return;
    const captured = this.#words[(blockAt >>> 2) + PacketWord.captured]!;
    const optionsAt = this.#copy(blockAt, at, bytes, 0, 0, captured);
    let to = this.#address - this.#ringAt + blockAt + PACKET_HEADER_BYTES + bytes;
    let left = captured - bytes;
    for (let w = first; w < first + 4 * count && left > 0; w += 4) {
      const piece = Math.min(iov[w + 2]!, left);
      copyBytes(to, iov[w]! + iov[w + 1]! * 0x1_0000_0000, piece);
      to += piece;
      left -= piece;
    }
    const behind = this.#finish(blockAt, optionsAt, headers, cause, -1);
    this.#end = (this.#end - (optionsAt + OPTION_ROOM - behind)) | 0;
    this.#publish();
  }

  /** @returns offset in #bytes of a block with its header; -1: the frame is not recorded */
  #beginWhole(at: number, bytes: number, moreBytes: number, cause: number, fromGuest: boolean): number {
    if (this.#hasEnded) return -1;
    const headers = this.#headers;
    headers.read(this.#pool, at, bytes, bytes + moreBytes, fromGuest);
    if (this.#filter !== null && !this.#filter.matches(headers, cause !== 0)) return -1;
    const blockAt = this.#begin(Math.min(bytes + moreBytes, this.#snapBytes), bytes + moreBytes);
    if (blockAt < 0) this.#lose();
    return blockAt;
  }

  /**
   * Reserve a block with room for all options, and write its header, with the time of stamp().
   * @returns its offset in #bytes, or -1: the ring is full
   */
  #begin(captured: number, original: number): number {
    const blockBytes = PACKET_HEADER_BYTES + padded(captured) + OPTION_ROOM;
    const toWrap = RING_BYTES - (this.#end & RING_MASK);
    const gap = blockBytes > toWrap ? toWrap : 0;
    if (!this.#hasRoom(gap + blockBytes)) return -1;
    if (gap > 0) {
      this.#words[(this.#ringAt + (this.#end & RING_MASK)) >>> 2] = (GAP | gap) >>> 0;
      this.#end = (this.#end + gap) | 0;
    }
    const blockAt = this.#ringAt + (this.#end & RING_MASK);
    this.#end = (this.#end + blockBytes) | 0;
    const words = this.#words;
    const w = blockAt >>> 2;
    words[w + PacketWord.type] = BlockType.packet;
    words[w + PacketWord.interface] = 0;
    const time = this.#time.u32;
    timeWrite(words, w + PacketWord.high, time[TIMESPEC_SECONDS_WORD]!, time[TIMESPEC_NANOSECONDS_WORD]!);
    words[w + PacketWord.captured] = captured;
    words[w + PacketWord.original] = original;
    return blockAt;
  }

  /** Copy up to two pieces of a frame into its block. @returns offset of the options in #bytes */
  #copy(
    blockAt: number,
    at: number,
    bytes: number,
    moreAt: number,
    moreBytes: number,
    captured: number,
  ): number {
    const to = this.#address - this.#ringAt + blockAt + PACKET_HEADER_BYTES;
    const inFirst = Math.min(bytes, captured);
    const end = blockAt + PACKET_HEADER_BYTES + padded(captured);
    // The padding; the ring held other blocks before.
    if (captured & 3) this.#words[(end - 4) >>> 2] = 0;
    copyBytes(to, this.#poolAddress + at, inFirst);
    if (moreBytes > 0 && captured > inFirst)
      copyBytes(to + inFirst, this.#poolAddress + moreAt, captured - inFirst);
    return end;
  }

  /**
   * Write the options and the end of a block.
   * @param blockAt,optionsAt  offsets in #bytes
   * @param cause  as dropComment()
   * @returns offset in #bytes behind the block
   */
  #finish(blockAt: number, optionsAt: number, headers: FrameHeaders, cause: number, flow: number): number {
    const words = this.#words;
    let at = optionsAt;
    if (this.#hasOptions) {
      at = this.#optionWord(at, PcapngOption.packetFlags, this.#flagsOf(blockAt, headers.fromGuest));
      if (this.#lostSince > 0) {
        words[at >>> 2] = PcapngOption.packetDropCount | (8 << 16);
        words[(at >>> 2) + 1] = this.#lostSince;
        words[(at >>> 2) + 2] = 0;
        at += OPTION_BYTES + 8;
      }
      if (this.#queue >= 0) at = this.#optionWord(at, PcapngOption.packetQueue, this.#queue);
      if (cause !== 0) at = this.#comment(at, dropComment(cause));
      const text = this.comments === undefined ? '' : this.comments.of(headers, flow);
      if (text !== '') at = this.#comment(at, text);
      words[at >>> 2] = 0;
      at += OPTION_BYTES;
    }
    this.#lostSince = 0;
    at += 4;
    words[(at >>> 2) - 1] = at - blockAt;
    words[(blockAt >>> 2) + PacketWord.length] = at - blockAt;
    this.#counters[Counter.pcapFrames]!++;
    return at;
  }

  /** Direction as the interface inside sees it: the guest's own frames are outbound. */
  #flagsOf(blockAt: number, fromGuest: boolean): number {
    const bytes = this.#bytes;
    const frameAt = blockAt + PACKET_HEADER_BYTES;
    const direction = fromGuest ? PacketFlag.outbound : PacketFlag.inbound;
    if ((bytes[frameAt]! & 1) === 0) return direction | PacketFlag.unicast;
    for (let i = 0; i < 6; i++) if (bytes[frameAt + i] !== 0xff) return direction | PacketFlag.multicast;
    return direction | PacketFlag.broadcast;
  }

  #optionWord(at: number, code: number, value: number): number {
    this.#words[at >>> 2] = code | (4 << 16);
    this.#words[(at >>> 2) + 1] = value;
    return at + OPTION_BYTES + 4;
  }

  #comment(at: number, text: string): number {
    const to = at + OPTION_BYTES;
    const encoded = this.#encoder.encode(text.length > COMMENT_BYTES ? text.slice(0, COMMENT_BYTES) : text);
    const length = Math.min(encoded.length, COMMENT_BYTES);
    for (let i = 0; i < length; i++) this.#bytes[to + i] = encoded[i]!;
    for (let i = length; i < padded(length); i++) this.#bytes[to + i] = 0;
    this.#words[at >>> 2] = PcapngOption.comment | (length << 16);
    return to + padded(length);
  }

  #used(): number {
    return (this.#end - this.#tail) >>> 0;
  }

  #hasRoom(bytes: number): boolean {
    if (this.#used() + bytes <= RING_BYTES) return true;
    const tailWord = this.#control + RingWord.tail;
    const before = this.#tail;
    this.#tail = Atomics.load(this.#i32, tailWord); // acquire: the bytes before it are read
    if (this.#tail !== before) this.#stalled = false;
    if (this.#used() + bytes <= RING_BYTES) return true;
    // With an open block the main thread may have all there is to have.
    if (this.#waitMs === 0 || this.#stalled || this.#open !== Open.no) return false;
    this.#wake();
    Atomics.wait(this.#i32, tailWord, this.#tail, this.#waitMs);
    const after = Atomics.load(this.#i32, tailWord);
    this.#stalled = after === this.#tail;
    this.#tail = after;
    return this.#used() + bytes <= RING_BYTES;
  }

  #lose(): void {
    this.#lostSince++;
    this.#counters[Counter.pcapLost]!++;
    Atomics.add(this.#i32, this.#control + RingWord.lost, 1);
    this.#wake();
  }

  /** Let the main thread see all blocks, unless one is open. */
  #publish(): void {
    if (this.#open !== Open.no) return;
    const i32 = this.#i32;
    Atomics.store(i32, this.#control + RingWord.head, this.#end); // release: the blocks are complete
    if (Atomics.load(i32, CaptureWord.sleeping) === 1) this.#wake();
    else if (this.#used() > WAKE_BYTES) {
      this.#tail = Atomics.load(i32, this.#control + RingWord.tail);
      if (this.#used() > WAKE_BYTES) this.#wake();
    }
  }

  #wake(): void {
    Atomics.store(this.#i32, CaptureWord.sleeping, 0);
    Atomics.add(this.#i32, CaptureWord.wake, 1);
    Atomics.notify(this.#i32, CaptureWord.wake);
  }
}
