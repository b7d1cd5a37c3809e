// bundle: rare
/**
 * The main thread's side of a capture: takes packet blocks out of the rings of all packet threads
 * (capture-memory.ts), in the order of their times, and passes them to a sink (capture-sink.ts). While frames
 * come, the rings are looked at every DRAIN_MS; otherwise a packet thread wakes the main thread.
 *
 * Each thread's blocks are in order. Of two threads, one may publish a block a moment after the other has
 * published a later one: with several threads, blocks younger than SETTLE_MS wait.
 */
import { availableParallelism, machine, release, type } from 'node:os';
import {
  interfaceBlock,
  PACKET_HEADER_BYTES,
  PacketWord,
  PCAP_RECORD_BYTES,
  pcapHeader,
  sectionBlock,
  statisticsBlock,
  type TimeWords,
  timeNanoseconds,
  timeSeconds,
  timeWrite,
} from '../../proto/pcapng.ts';
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
  captureMemory,
  GAP,
  RING_BYTES,
  RING_MASK,
  RingWord,
  ringAt,
  ringControl,
} from './capture-memory.ts';
import type { CaptureSink, SinkFile, SinkTotals } from './capture-sink.ts';

const DRAIN_MS = 10;
const SETTLE_MS = 20;
/** When so much of a ring is in use, no block waits: the ring would be full before. */
const SETTLE_BYTES = RING_BYTES / 4;
const IDLE_MS = 60_000;
/** How long the end of a capture waits for the reader of a pipe. */
const END_WAIT_MS = 500;
const STAGE_BYTES = 1024 * 1024;
/** Room for the longest block, behind which a stage is full. */
const LONGEST_BLOCK_BYTES = 512 * 1024;

export type CaptureFormat = 'pcap' | 'pcapng';

/** What a capture file says about itself, and what is captured. */
export interface CapturePlan {
  readonly format: CaptureFormat;
  readonly snapBytes: number;
  readonly filter?: { readonly text: string; readonly program: Int32Array } | undefined;
  /** Name and version of the program. */
  readonly application: string;
  readonly interfaceName: string;
  readonly description: string;
  readonly ipv4?: Uint8Array | undefined;
  readonly ipv6?: Uint8Array | undefined;
}

/** What the capture asks the engine for. */
export interface CaptureSource {
  /** Packet threads. */
  readonly threads: number;
  readonly areLanes: boolean;
  /** Sums of all threads. */
  counters(): Readonly<Record<string, number>>;
  /** Of the interface inside; undefined: not known yet. */
  mac(): Uint8Array | undefined;
  /** Write a line to the log. */
  warn(text: string): void;
}

export class Capture implements SinkFile {
  readonly task: CaptureTask;
  readonly format: CaptureFormat;
  readonly #plan: CapturePlan;
  readonly #source: CaptureSource;
  /** Asked for once: in the sandbox these cannot be found out. */
  readonly #host = {
    hardware: `${machine()}, ${availableParallelism()} processors`,
    os: `${type()} ${release()}`,
  };
  readonly #sink: CaptureSink;
  readonly #i32: Int32Array;
  readonly #words: Uint32Array;
  readonly #address: number;
  readonly #stage = new NativeBuffer(STAGE_BYTES + LONGEST_BLOCK_BYTES);
  /** Offsets in the stage at which its records begin, and behind the last one. */
  readonly #starts: number[] = [];
  /** Index in #starts of the first record that the sink has not taken, and bytes of it that it has. */
  #taken = 0;
  #takenBytes = 0;
  readonly #time = new NativeBuffer(TIMESPEC_BYTES);
  readonly #now = new Uint32Array(2);
  #lostByWriting = 0;
  #written = 0;
  /** Lines that the log has. */
  readonly #told = new Set<string>();
  #ended = false;
  #whenEnded: Promise<void> | undefined;

  /**
   * @param plan  format and contents
   * @param source  the engine
   * @param sink  where records go
   */
  constructor(plan: CapturePlan, source: CaptureSource, sink: CaptureSink) {
    this.#plan = plan;
    this.format = plan.format;
    this.#source = source;
    this.#sink = sink;
    const memory = captureMemory(source.threads);
    this.#i32 = new Int32Array(memory);
    this.#words = new Uint32Array(memory);
    this.#address = captureAddress(memory);
    this.#i32[CaptureWord.active] = 1;
    this.task = {
      ...{ memory, threads: source.threads, snapBytes: plan.snapBytes },
      ...(plan.filter && { filter: plan.filter.program }),
      options: plan.format === 'pcapng',
      queues: source.areLanes,
      waitMs: sink.waitMs,
    };
  }

  /** Begin to write. The packet threads may have the task already. */
  start(): void {
    this.#whenEnded = this.#run();
  }

  /** Write out what a sink keeps in memory. @returns one line about it */
  dump(): string {
    this.#drain();
    return this.#sink.dump?.(this) ?? 'nothing is kept in memory';
  }

  /** End the capture: the packet threads write no more, what they wrote is written, the file is closed. */
  async end(): Promise<void> {
    if (!this.#ended) {
      this.#ended = true;
      Atomics.store(this.#i32, CaptureWord.active, 0);
      this.#wake();
    }
    await this.#whenEnded;
  }

  get hasEnded(): boolean {
    return this.#ended;
  }

  /** Frames that were captured and could not be written. */
  get lostByWriting(): number {
    return this.#lostByWriting;
  }

  #wake(): void {
    Atomics.add(this.#i32, CaptureWord.wake, 1);
    Atomics.notify(this.#i32, CaptureWord.wake);
  }

  async #run(): Promise<void> {
    const i32 = this.#i32;
    while (!this.#ended) {
      const seen = Atomics.load(i32, CaptureWord.wake);
      const worked = this.#drain();
      this.#warnOfLosses();
      if (this.#sink.hasFailed) break;
      if (!worked) {
        Atomics.store(i32, CaptureWord.sleeping, 1);
        // A block may have been published before the packet thread could see the word.
        if (this.#hasBlocks()) Atomics.store(i32, CaptureWord.sleeping, 0);
      }
      const idle = Atomics.load(i32, CaptureWord.sleeping) === 1;
      const waiting = Atomics.waitAsync(i32, CaptureWord.wake, seen, idle ? IDLE_MS : DRAIN_MS);
      if (waiting.async) await waiting.value;
      // Otherwise timers and sockets of the main thread would wait.
      else await new Promise((resolve) => setImmediate(resolve));
      Atomics.store(i32, CaptureWord.sleeping, 0);
    }
    this.#ended = true;
    Atomics.store(i32, CaptureWord.active, 0);
    const deadline = performance.now() + END_WAIT_MS;
    while (!this.#sink.hasFailed && (this.#drain(true) || this.#isBehind())) {
      if (!this.#isBehind()) continue;
      if (performance.now() > deadline) break;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    this.#lostByWriting += this.#countLeft();
    this.#warnOfLosses();
    this.#sink.end(this);
  }

  /** Records of the stage that the sink has not taken. */
  #isBehind(): boolean {
    return this.#taken < this.#starts.length - 1;
  }

  #hasBlocks(): boolean {
    for (let t = 0; t < this.task.threads; t++) {
      const control = ringControl(t);
      if (Atomics.load(this.#i32, control + RingWord.head) !== this.#i32[control + RingWord.tail])
        return true;
    }
    return this.#isBehind();
  }

  /** Records that nobody will write, at the end: in the stage and in the rings. */
  #countLeft(): number {
    let left = Math.max(0, this.#starts.length - 1 - this.#taken);
    this.#starts.length = 0;
    this.#taken = 0;
    while (this.#fill(true)) {
      left += this.#starts.length - 1;
      this.#starts.length = 0;
    }
    return left;
  }

  /**
   * Move what the rings have to the sink.
   * @param all  the young blocks too
   * @returns whether there was anything
   */
  #drain(all = false): boolean {
    let worked = false;
    // A bound, so that a fast packet thread does not keep the main thread here.
    for (let round = 0; round < 16; round++) {
      if (!this.#isBehind() && !this.#fill(all)) return worked;
      worked = true;
      this.#flush();
      if (this.#isBehind()) return worked;
    }
    return worked;
  }

  #flush(): void {
    const result = this.#sink.take(this, this.#stage.address, this.#starts, this.#taken, this.#takenBytes);
    this.#taken += result.records;
    this.#takenBytes = result.bytes;
  }

  #warnOfLosses(): void {
    const { failure, name } = this.#sink;
    if (failure !== undefined) this.#warnOnce(failure);
    else if (this.#lostByCapture() > 0)
      this.#warnOnce(`${name}: frames come faster than they can be written: frames are missing from it`);
  }

  #warnOnce(text: string): void {
    if (this.#told.has(text)) return;
    this.#told.add(text);
    this.#source.warn(text);
  }

  #lostByCapture(): number {
    let lost = 0;
    for (let t = 0; t < this.task.threads; t++)
      lost += Atomics.load(this.#i32, ringControl(t) + RingWord.lost);
    return lost;
  }

  /** Copy blocks of all rings to the empty stage, oldest first. @returns whether there were any */
  #fill(all: boolean): boolean {
    const starts = this.#starts;
    const i32 = this.#i32;
    const words = this.#words;
    const { threads } = this.task;
    starts.length = 0;
    this.#taken = 0;
    this.#takenBytes = 0;
    const heads: number[] = [];
    const tails: number[] = [];
    for (let t = 0; t < threads; t++) {
      heads.push(Atomics.load(i32, ringControl(t) + RingWord.head));
      tails.push(i32[ringControl(t) + RingWord.tail]!);
    }
    let beforeHigh = 0xffff_ffff;
    let beforeLow = 0;
    const hasRoom = heads.every((head, t) => (head - tails[t]!) >>> 0 < SETTLE_BYTES);
    if (threads > 1 && hasRoom && !all) {
      this.#readClock(-SETTLE_MS);
      beforeHigh = this.#now[0]!;
      beforeLow = this.#now[1]!;
    }
    let end = 0;
    while (end < STAGE_BYTES) {
      let best = -1;
      let bestHigh = 0;
      let bestLow = 0;
      for (let t = 0; t < threads; t++) {
        let w = this.#blockWord(t, tails[t]!);
        while (tails[t] !== heads[t] && words[w]! >= GAP) {
          tails[t] = (tails[t]! + (words[w]! - GAP)) | 0;
          w = this.#blockWord(t, tails[t]!);
        }
        if (tails[t] === heads[t]) continue;
        const high = words[w + PacketWord.high]!;
        const low = words[w + PacketWord.low]!;
        if (best >= 0 && (high > bestHigh || (high === bestHigh && low >= bestLow))) continue;
        best = t;
        bestHigh = high;
        bestLow = low;
      }
      if (best < 0 || bestHigh > beforeHigh || (bestHigh === beforeHigh && bestLow > beforeLow)) break;
      const w = this.#blockWord(best, tails[best]!);
      starts.push(end);
      end = this.#copyRecord(w, end);
      tails[best] = (tails[best]! + words[w + PacketWord.length]!) | 0;
    }
    if (starts.length > 0) starts.push(end);
    for (let t = 0; t < threads; t++) {
      const word = ringControl(t) + RingWord.tail;
      if (i32[word] === tails[t]) continue;
      Atomics.store(i32, word, tails[t]!); // release: the thread may write there again
      Atomics.notify(i32, word);
    }
    return starts.length > 0;
  }

  /** Index in #words of the block at `tail` of a thread's ring. */
  #blockWord(thread: number, tail: number): number {
    return (ringAt(this.task.threads, thread) + (tail & RING_MASK)) >>> 2;
  }

  /** Write the block at word `w` to the stage, in the file's format. @returns the end of it */
  #copyRecord(w: number, end: number): number {
    const words = this.#words;
    const to = this.#stage.address + end;
    if (this.format === 'pcapng') {
      const bytes = words[w + PacketWord.length]!;
      copyBytes(to, this.#address + 4 * w, bytes);
      return end + bytes;
    }
    const captured = words[w + PacketWord.captured]!;
    const high = words[w + PacketWord.high]!;
    const low = words[w + PacketWord.low]!;
    // A frame may end at any byte, so these words are not aligned.
    const { dv } = this.#stage;
    dv.setUint32(end, timeSeconds(high, low), true);
    dv.setUint32(end + 4, timeNanoseconds(high, low), true);
    dv.setUint32(end + 8, captured, true);
    dv.setUint32(end + 12, words[w + PacketWord.original]!, true);
    copyBytes(to + PCAP_RECORD_BYTES, this.#address + 4 * w + PACKET_HEADER_BYTES, captured);
    return end + PCAP_RECORD_BYTES + captured;
  }

  /** The time in #now. @param offsetMs  added */
  #readClock(offsetMs = 0): void {
    realTime(this.#time.address);
    const seconds = this.#time.u32[TIMESPEC_SECONDS_WORD]!;
    const ns = this.#time.u32[TIMESPEC_NANOSECONDS_WORD]! + offsetMs * 1e6;
    timeWrite(this.#now, 0, ns < 0 ? seconds - 1 : seconds, ns < 0 ? ns + 1e9 : ns);
  }

  // SinkFile: what a sink writes around the records of a file.

  now(): TimeWords {
    this.#readClock();
    return [this.#now[0]!, this.#now[1]!];
  }

  wrote(records: number): void {
    this.#written += records;
  }

  lost(records: number): void {
    this.#lostByWriting += records;
  }

  header(): Uint8Array {
    const plan = this.#plan;
    if (plan.format === 'pcap') return pcapHeader(plan.snapBytes);
    const section = sectionBlock({
      ...this.#host,
      application: plan.application,
    });
    const description = interfaceBlock({
      ...{ snapBytes: plan.snapBytes, name: plan.interfaceName, description: plan.description },
      ...{ mac: this.#source.mac(), ipv4: plan.ipv4, ipv6: plan.ipv6, filter: plan.filter?.text },
    });
    return Buffer.concat([section, description]);
  }

  totals(): SinkTotals {
    const counters = this.#source.counters();
    const of = (name: string): number => counters[name] ?? 0;
    let drops = 0;
    for (const [name, count] of Object.entries(counters)) if (name.startsWith('drop.')) drops += count;
    const lost = this.#lostByCapture() + this.#lostByWriting;
    return {
      received: of('framesFromGuest') + of('framesToGuest'),
      drops,
      accepted: this.#written + lost,
      lost,
    };
  }

  statistics(start: TimeWords, before: SinkTotals, isLast: boolean): Uint8Array {
    if (this.format === 'pcap') return new Uint8Array(0);
    const end = this.now();
    const now = this.totals();
    const counters = Object.entries(this.#source.counters());
    const lines = counters.map(([name, count]) => `${name} ${count}`).join('\n');
    return statisticsBlock({
      ...{ now: end, start, end },
      received: now.received - before.received,
      interfaceDrops: now.drops - before.drops,
      accepted: now.accepted - before.accepted,
      systemDrops: now.lost - before.lost,
      delivered: now.accepted - before.accepted - (now.lost - before.lost),
      comment: `${isLast ? 'end of the capture' : 'end of this file'}; counters since the start:\n${lines}`,
    });
  }
}
