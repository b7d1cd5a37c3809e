/**
 * One direction of an emulated line. Pure: the caller passes the time in.
 *
 *   open/commit ─▶ [loss] ─▶ [too long] ─▶ queue ─▶ token bucket ─▶ delay ─▶ due/frameAt/release
 *                                          │ full: lost             └▶ overtaken ones: a little longer
 *
 * Queue and delay are parts of one ring of frames (frame-fifo.ts):
 *
 *     tail ............ mid ............ head
 *     have left, due at    wait for the rate: arrived at
 *
 * When a frame leaves is computed from arrival times and the rate alone, so it does not matter how late the
 * caller looks: a late look delays the frames of that look and no others.
 *
 * The bucket in the form of a virtual clock (the generic cell rate algorithm, ITU-T I.371): `#clockMs` is the
 * time at which a line without burst would have sent all frames; a frame leaves when that time, less the time
 * that the burst takes, has come. Frames stay in order, whatever their jitter is: the delay of a frame is at
 * least that of the one before it, less the time between them. Only `reorder` lets frames overtake others.
 */
import type { LinePlan } from '../engine-plan.ts';
import { FifoStore, type FrameFifo } from './frame-fifo.ts';
import { LossModel, MAX_NORMAL, MAX_PARETO, Random } from './random.ts';

const ETH_BYTES = 14;
/** Longest frame: Ethernet header and the largest MTU of a TAP. */
export const MAX_FRAME_BYTES = 65_535;
/** Memory of a line, at the least and at the most. */
const MIN_BYTES = 1 << 20;
const MAX_BYTES = 64 << 20;
/** Memory of a line with a delay and without a rate. */
const NO_RATE_BYTES = 16 << 20;
/** Memory for frames that others overtake. */
const LATE_BYTES = 1 << 20;
/** Time for which frames have memory, beyond what the line takes, if the thread does not run meanwhile. */
const SLACK_MS = 50;

/** Fate of a frame, from open(). */
export const Fate = { carried: 0, lost: 1, full: 2, tooLong: 3 } as const;

/** frame marks */
const OVERTAKEN = 1;

/** Bytes that the frames of a line can need at a time. */
export function lineBytes(plan: LinePlan): number {
  const { delayMs, jitterMs, distribution, bytesPerSecond, queueBytes, burstBytes } = plan;
  const deviations = { uniform: 1, normal: MAX_NORMAL, pareto: MAX_PARETO }[distribution];
  const longestMs = delayMs + jitterMs * deviations;
  if (bytesPerSecond === Number.POSITIVE_INFINITY) return longestMs > 0 ? NO_RATE_BYTES : MIN_BYTES;
  const inFlight = ((longestMs + SLACK_MS) / 1000) * bytesPerSecond;
  const bytes = Math.ceil(inFlight + queueBytes + burstBytes + 2 * MAX_FRAME_BYTES);
  return Math.min(MAX_BYTES, Math.max(MIN_BYTES, bytes));
}

export class Line {
  #plan: LinePlan;
  readonly #store: FifoStore;
  #fifo: FrameFifo;
  /** Frames that others overtake, for the rest of their delay; null: there have been none. */
  #late: FrameFifo | null = null;
  /** Number of the first frame of the fifo that has not left. */
  #mid = 0;
  /** Bytes from mid on. */
  #waiting = 0;
  #clockMs = 0;
  /** When the frame that left last arrives. */
  #lastDueMs = 0;
  /** due() has found a frame in #late, else in #fifo. */
  #isLate = false;
  #openAt = 0;
  readonly #loss: LossModel;
  readonly #jitter: Random;
  readonly #duplicate: Random;
  readonly #reorder: Random;
  readonly #corrupt: Random;
  /** Effects so far. */
  duplicated = 0;
  reordered = 0;
  corrupted = 0;
  /** Frames that had no room after a change of the plan. */
  dropped = 0;

  /**
   * @param seed   any integer; lines with the same seed and plan do the same to the same frames
   * @param store  for the memory of frames
   */
  constructor(plan: LinePlan, seed: number, store = new FifoStore()) {
    this.#plan = plan;
    this.#store = store;
    this.#fifo = store.take(lineBytes(plan));
    const random = (effect: number): Random => new Random(Math.imul(seed, 0x9e3779b1) + effect * 0x85ebca6b);
    this.#loss = new LossModel(random(1));
    this.#jitter = random(2);
    this.#duplicate = random(3);
    this.#reorder = random(4);
    this.#corrupt = random(5);
    this.#loss.configure(plan.loss);
  }

  /** Memory of the frame of open(), at openAt, and of the frame of due(), at frameAt. */
  get u8(): Uint8Array {
    return this.#isLate ? this.#late!.u8 : this.#fifo.u8;
  }

  /**
   * Change the line. Frames that have left arrive as they would have; those that wait leave at the new rate.
   */
  configure(plan: LinePlan, now: number): void {
    this.#advance(now);
    this.#plan = plan;
    this.#loss.configure(plan.loss);
    // What waits begins anew: neither old debts nor time that passed at the old rate count.
    if (this.#clockMs > now || this.#mid < this.#fifo.head) this.#clockMs = now;
    const bytes = lineBytes(plan);
    if (bytes > this.#fifo.u8.length) this.#grow(bytes);
  }

  #grow(bytes: number): void {
    const from = this.#fifo;
    const to = this.#store.take(bytes);
    let mid = 0;
    this.#waiting = 0;
    for (let n = from.tail; n < from.head; n++) {
      const length = from.bytes(n);
      const at = to.room(length);
      if (at < 0) {
        this.dropped++;
        continue;
      }
      to.u8.set(from.u8.subarray(from.at(n), from.at(n) + length), at);
      to.push(length, from.whenMs(n), from.extraMs(n), from.mark(n));
      if (n < this.#mid) mid++;
      else this.#waiting += length;
    }
    this.#fifo = to;
    this.#mid = mid;
    this.#store.give(from);
  }

  /** The line is no more, and the frames on it are lost. */
  close(): void {
    this.#store.give(this.#fifo);
    if (this.#late !== null) this.#store.give(this.#late);
  }

  /**
   * A frame comes to the line. If it is carried, the caller writes it at openAddress (or to u8 at openAt) and
   * calls commit() next.
   * @param bytes  of the frame, Ethernet header included, MAX_FRAME_BYTES at the most
   * @returns a Fate
   */
  open(bytes: number, now: number): number {
    const plan = this.#plan;
    if (this.#loss.loses()) return Fate.lost;
    if (bytes - ETH_BYTES > plan.maxPacketBytes) return Fate.tooLong;
    this.#advance(now);
    const packets = this.#fifo.head - this.#mid;
    if (packets > 0 && (packets >= plan.queuePackets || this.#waiting + bytes > plan.queueBytes))
      return Fate.full;
    this.#isLate = false;
    this.#openAt = this.#fifo.room(bytes);
    return this.#openAt < 0 ? Fate.full : Fate.carried;
  }

  /** Whether the queue would take a frame. */
  hasRoom(bytes: number, now: number): boolean {
    this.#advance(now);
    const packets = this.#fifo.head - this.#mid;
    const { queuePackets, queueBytes } = this.#plan;
    return packets === 0 || (packets < queuePackets && this.#waiting + bytes <= queueBytes);
  }

  get openAt(): number {
    return this.#openAt;
  }

  get openAddress(): number {
    return this.#fifo.address + this.#openAt;
  }

  /** The frame for which open() was called last is written. */
  commit(bytes: number, now: number): void {
    const plan = this.#plan;
    if (plan.corrupt > 0 && this.#corrupt.share() < plan.corrupt) this.#corruptFrame(bytes);
    this.#enter(bytes, now);
    if (plan.duplicate > 0 && this.#duplicate.share() < plan.duplicate) {
      const from = this.#openAt;
      const at = this.#fifo.room(bytes);
      if (at < 0) return;
      this.#fifo.u8.copyWithin(at, from, from + bytes);
      this.#enter(bytes, now);
      this.duplicated++;
    }
  }

  #enter(bytes: number, now: number): void {
    const plan = this.#plan;
    let extraMs = plan.delayMs;
    if (plan.jitterMs > 0) extraMs += plan.jitterMs * this.#jitter.deviation(plan.distribution);
    let mark = 0;
    if (plan.reorder > 0 && this.#reorder.share() < plan.reorder) {
      mark = OVERTAKEN;
      this.reordered++;
    }
    this.#fifo.push(bytes, now, extraMs > 0 ? extraMs : 0, mark);
    this.#waiting += bytes;
  }

  /** One bit of the IP packet, header or payload, changes. All checksums have been computed before. */
  #corruptFrame(bytes: number): void {
    const bit = Math.floor(this.#corrupt.share() * (bytes - ETH_BYTES) * 8);
    this.#fifo.u8[this.#openAt + ETH_BYTES + (bit >> 3)]! ^= 1 << (bit & 7);
    this.corrupted++;
  }

  /** When the frame with number n leaves, in ms, if #clockMs were clockMs; sets nothing. */
  #leavesMs(n: number, clockMs: number): number {
    const plan = this.#plan;
    const fifo = this.#fifo;
    const arrivedMs = fifo.whenMs(n);
    const startMs = clockMs > arrivedMs ? clockMs : arrivedMs;
    const perMs = plan.bytesPerSecond / 1000;
    const leavesMs = startMs + (fifo.bytes(n) - plan.burstBytes) / perMs;
    return leavesMs > arrivedMs ? leavesMs : arrivedMs;
  }

  /** Let all frames leave that have left by now. */
  #advance(now: number): void {
    const plan = this.#plan;
    const fifo = this.#fifo;
    while (this.#mid < fifo.head) {
      const leavesMs = this.#leavesMs(this.#mid, this.#clockMs);
      if (leavesMs > now) return;
      const arrivedMs = fifo.whenMs(this.#mid);
      const bytes = fifo.bytes(this.#mid);
      this.#clockMs =
        (this.#clockMs > arrivedMs ? this.#clockMs : arrivedMs) + bytes / (plan.bytesPerSecond / 1000);
      const dueMs = leavesMs + fifo.extraMs(this.#mid);
      if (dueMs > this.#lastDueMs) this.#lastDueMs = dueMs;
      fifo.setWhenMs(this.#mid, this.#lastDueMs);
      this.#waiting -= bytes;
      this.#mid++;
    }
  }

  /**
   * When to call due(), in ms; Infinity: no frame is on the line. Frames that come later may change it, but
   * not to an earlier time.
   */
  nextMs(): number {
    const fifo = this.#fifo;
    const late = this.#late;
    let next = Number.POSITIVE_INFINITY;
    if (fifo.tail < this.#mid) next = fifo.whenMs(fifo.tail);
    else if (this.#mid < fifo.head) {
      next = this.#leavesMs(this.#mid, this.#clockMs) + fifo.extraMs(this.#mid);
      if (next < this.#lastDueMs) next = this.#lastDueMs;
    }
    if (late !== null && late.tail < late.head && late.whenMs(late.tail) < next)
      next = late.whenMs(late.tail);
    return next;
  }

  /**
   * When the last of the frames arrives that arrive by untilMs, in ms, as far as they are on the line now;
   * -Infinity: none does. Sets nothing.
   */
  lastMs(untilMs: number): number {
    const fifo = this.#fifo;
    const late = this.#late;
    let last = Number.NEGATIVE_INFINITY;
    if (late !== null && late.tail < late.head && late.whenMs(late.tail) <= untilMs)
      last = late.whenMs(late.tail);
    let n = fifo.tail;
    for (; n < this.#mid; n++) {
      const ms = fifo.whenMs(n);
      if (ms > untilMs) return last;
      if (ms > last) last = ms;
    }
    const perMs = this.#plan.bytesPerSecond / 1000;
    let clockMs = this.#clockMs;
    let dueMs = this.#lastDueMs;
    for (; n < fifo.head; n++) {
      const ms = this.#leavesMs(n, clockMs) + fifo.extraMs(n);
      if (ms > dueMs) dueMs = ms;
      if (dueMs > untilMs) return last;
      if (dueMs > last) last = dueMs;
      const arrivedMs = fifo.whenMs(n);
      clockMs = (clockMs > arrivedMs ? clockMs : arrivedMs) + fifo.bytes(n) / perMs;
    }
    return last;
  }

  /**
   * Whether a frame arrives by now: it is at frameAt in u8 until release().
   */
  due(now: number): boolean {
    this.#advance(now);
    const fifo = this.#fifo;
    const late = this.#late;
    this.#isLate = late !== null && late.tail < late.head && late.whenMs(late.tail) <= now;
    if (this.#isLate) return true;
    while (fifo.tail < this.#mid && fifo.whenMs(fifo.tail) <= now) {
      if (fifo.mark(fifo.tail) !== OVERTAKEN || !this.#holdBack()) return true;
    }
    return false;
  }

  /** Move the oldest frame to #late. @returns false: there is no room */
  #holdBack(): boolean {
    this.#late ??= this.#store.take(LATE_BYTES);
    const fifo = this.#fifo;
    const late = this.#late;
    const bytes = fifo.bytes(fifo.tail);
    const at = late.room(bytes);
    if (at < 0) return false;
    const from = fifo.at(fifo.tail);
    late.u8.set(fifo.u8.subarray(from, from + bytes), at); // rare: only frames that others overtake
    const dueMs = fifo.whenMs(fifo.tail) + this.#plan.reorderMs;
    const lastMs = late.head > late.tail ? late.whenMs(late.head - 1) : 0;
    late.push(bytes, dueMs > lastMs ? dueMs : lastMs, 0, 0);
    fifo.pop();
    return true;
  }

  get frameAt(): number {
    const from = this.#isLate ? this.#late! : this.#fifo;
    return from.at(from.tail);
  }

  get frameAddress(): number {
    const from = this.#isLate ? this.#late! : this.#fifo;
    return from.address + from.at(from.tail);
  }

  get frameBytes(): number {
    const from = this.#isLate ? this.#late! : this.#fifo;
    return from.bytes(from.tail);
  }

  /** The frame of due() has been delivered. */
  release(): void {
    (this.#isLate ? this.#late! : this.#fifo).pop();
    this.#isLate = false;
  }
}
