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
import { ETH_BYTES } from '../../proto/ethernet.ts';
import {
  VNET_BYTES,
  VnetFlag,
  VnetGso,
  vnetFinishChecksum,
  vnetFlags,
  vnetWrite,
} from '../../proto/vnethdr.ts';
import type { LinePlan } from '../engine-plan.ts';
import { FifoStore, type FrameFifo } from './frame-fifo.ts';
import { LossModel, MAX_NORMAL, MAX_PARETO, Random } from './random.ts';

/** Longest frame: vnet and Ethernet header, and the largest IP packet. */
export const MAX_FRAME_BYTES = VNET_BYTES + ETH_BYTES + 65_535;
/** Of most lines, without VLAN tag and frame check sequence. */
const ETHERNET_FRAME_BYTES = 1514;
/** Memory of a line, at the least and at the most. */
const MIN_BYTES = 1 << 20;
const MAX_BYTES = 64 << 20;
/** Memory of a line without a rate, and with a delay. */
const NO_RATE_BYTES = 4 << 20;
const NO_RATE_DELAY_BYTES = 16 << 20;
/** Memory for frames that others overtake. */
const LATE_BYTES = 1 << 20;
/**
 * Longest time that the packets of one frame take on the line. They arrive together, with the last of them, so
 * the first one is late by nearly as much.
 */
const MAX_FRAME_MS = 0.1;
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
  if (bytesPerSecond === Number.POSITIVE_INFINITY) return longestMs > 0 ? NO_RATE_DELAY_BYTES : NO_RATE_BYTES;
  const inFlight = ((longestMs + SLACK_MS) / 1000) * bytesPerSecond;
  const bytes = Math.ceil(inFlight + queueBytes + burstBytes + 2 * MAX_FRAME_BYTES);
  return Math.min(MAX_BYTES, Math.max(MIN_BYTES, bytes));
}

export class Line {
  #plan: LinePlan;
  readonly #store: FifoStore;
  readonly #vnetBytes: number;
  #fifo: FrameFifo;
  /** Frames that others overtake, for the rest of their delay; null: there have been none. */
  #late: FrameFifo | null = null;
  /** Number of the first frame of the fifo that has not left. */
  #mid = 0;
  /** Bytes and packets from mid on. */
  #waiting = 0;
  #waitingPackets = 0;
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
   * @param vnetBytes  in front of each frame, VNET_BYTES or 0
   */
  constructor(plan: LinePlan, seed: number, store = new FifoStore(), vnetBytes = 0) {
    this.#plan = plan;
    this.#vnetBytes = vnetBytes;
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
    this.#waitingPackets = 0;
    for (let n = from.tail; n < from.head; n++) {
      const length = from.bytes(n);
      const at = to.room(length);
      if (at < 0) {
        this.dropped++;
        continue;
      }
      to.u8.set(from.u8.subarray(from.at(n), from.at(n) + length), at);
      const [lineBytes, packets] = [from.lineBytes(n), from.packets(n)];
      to.push(length, lineBytes, packets, from.whenMs(n), from.extraMs(n), from.mark(n));
      if (n < this.#mid) mid++;
      else {
        this.#waiting += lineBytes;
        this.#waitingPackets += packets;
      }
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
   * How many of the packets of a GSO frame may stay together in one frame, so that neither effects nor times
   * differ from those of single packets, by more than MAX_FRAME_MS.
   * @param packets    how many there are
   * @param lineBytes  of each, Ethernet header included
   * @returns 1 at the least
   */
  packetsTogether(packets: number, lineBytes: number, now: number): number {
    const plan = this.#plan;
    const isSingle =
      plan.jitterMs + plan.duplicate + plan.reorder + plan.corrupt > 0 ||
      this.#loss.isOn ||
      lineBytes - ETH_BYTES > plan.maxPacketBytes;
    if (isSingle || packets === 1) return 1;
    if (plan.bytesPerSecond === Number.POSITIVE_INFINITY) return packets;
    this.#advance(now);
    const byTime = Math.floor((MAX_FRAME_MS * plan.bytesPerSecond) / 1000 / lineBytes);
    const byBytes = Math.floor((plan.queueBytes - this.#waiting) / lineBytes);
    return Math.max(1, Math.min(packets, byTime, byBytes, plan.queuePackets - this.#waitingPackets));
  }

  /** How long the packets of one frame may take on the line, in ms: their first one is late by nearly as much. */
  get frameMs(): number {
    const { bytesPerSecond } = this.#plan;
    const isTogether = bytesPerSecond * MAX_FRAME_MS >= 2 * ETHERNET_FRAME_BYTES * 1000;
    return isTogether && bytesPerSecond < Number.POSITIVE_INFINITY ? MAX_FRAME_MS : 0;
  }

  /** Most bytes for one GSO frame: a quarter of what may wait. */
  get mostFrameBytes(): number {
    const { bytesPerSecond, queueBytes } = this.#plan;
    return bytesPerSecond === Number.POSITIVE_INFINITY ? MAX_FRAME_BYTES : queueBytes >> 2;
  }

  /**
   * A frame comes to the line. If it is carried, the caller writes it at openAddress (or to u8 at openAt) and
   * calls commit() next.
   * @param bytes      of the frame, vnet header included, MAX_FRAME_BYTES at the most
   * @param lineBytes  of its packets, each with an Ethernet header
   * @param packets    no more than packetsTogether()
   * @returns a Fate
   */
  open(bytes: number, lineBytes: number, packets: number, now: number): number {
    const plan = this.#plan;
    if (this.#loss.loses()) return Fate.lost;
    if (packets === 1 && lineBytes - ETH_BYTES > plan.maxPacketBytes) return Fate.tooLong;
    if (!this.#takes(lineBytes, packets, now)) return Fate.full;
    this.#isLate = false;
    this.#openAt = this.#fifo.room(bytes);
    return this.#openAt < 0 ? Fate.full : Fate.carried;
  }

  /** Whether the queue takes some packets: one always, if none waits. */
  #takes(lineBytes: number, packets: number, now: number): boolean {
    this.#advance(now);
    if (this.#waitingPackets === 0) return true;
    const { queuePackets, queueBytes } = this.#plan;
    return this.#waitingPackets + packets <= queuePackets && this.#waiting + lineBytes <= queueBytes;
  }

  /** Whether the queue would take some packets now, and there is memory for them. */
  hasRoom(lineBytes: number, packets: number, now: number): boolean {
    const bytes = lineBytes + packets * this.#vnetBytes;
    return this.#takes(lineBytes, packets, now) && this.#fifo.room(bytes) >= 0;
  }

  get openAt(): number {
    return this.#openAt;
  }

  get openAddress(): number {
    return this.#fifo.address + this.#openAt;
  }

  /** The frame for which open() was called last is written. @param bytes,lineBytes,packets  as there */
  commit(bytes: number, lineBytes: number, packets: number, now: number): void {
    const plan = this.#plan;
    if (plan.corrupt > 0 && this.#corrupt.share() < plan.corrupt) this.#corruptFrame(bytes);
    this.#enter(bytes, lineBytes, packets, now);
    if (plan.duplicate > 0 && this.#duplicate.share() < plan.duplicate) {
      const from = this.#openAt;
      const at = this.#fifo.room(bytes);
      if (at < 0) return;
      this.#fifo.u8.copyWithin(at, from, from + bytes);
      this.#enter(bytes, lineBytes, packets, now);
      this.duplicated++;
    }
  }

  #enter(bytes: number, lineBytes: number, packets: number, now: number): void {
    const plan = this.#plan;
    let extraMs = plan.delayMs;
    if (plan.jitterMs > 0) extraMs += plan.jitterMs * this.#jitter.deviation(plan.distribution);
    let mark = 0;
    if (plan.reorder > 0 && this.#reorder.share() < plan.reorder) {
      mark = OVERTAKEN;
      this.reordered++;
    }
    this.#fifo.push(bytes, lineBytes, packets, now, extraMs > 0 ? extraMs : 0, mark);
    this.#waiting += lineBytes;
    this.#waitingPackets += packets;
  }

  /** One bit of the IP packet, header or payload, changes. All checksums are completed before. */
  #corruptFrame(bytes: number): void {
    const { u8 } = this.#fifo;
    const at = this.#openAt;
    if (this.#vnetBytes > 0 && (vnetFlags(u8, at) & VnetFlag.needsCsum) !== 0) {
      vnetFinishChecksum(u8, at, bytes - VNET_BYTES, 0, 0);
      vnetWrite(u8, at, 0, VnetGso.none, 0, 0, 0, 0);
    }
    const ipAt = this.#vnetBytes + ETH_BYTES;
    const bit = Math.floor(this.#corrupt.share() * (bytes - ipAt) * 8);
    u8[at + ipAt + (bit >> 3)]! ^= 1 << (bit & 7);
    this.corrupted++;
  }

  /** When the frame with number n leaves, in ms, if #clockMs were clockMs; sets nothing. */
  #leavesMs(n: number, clockMs: number): number {
    const plan = this.#plan;
    const fifo = this.#fifo;
    const arrivedMs = fifo.whenMs(n);
    const startMs = clockMs > arrivedMs ? clockMs : arrivedMs;
    const perMs = plan.bytesPerSecond / 1000;
    const leavesMs = startMs + (fifo.lineBytes(n) - plan.burstBytes) / perMs;
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
      const bytes = fifo.lineBytes(this.#mid);
      this.#clockMs =
        (this.#clockMs > arrivedMs ? this.#clockMs : arrivedMs) + bytes / (plan.bytesPerSecond / 1000);
      const dueMs = leavesMs + fifo.extraMs(this.#mid);
      if (dueMs > this.#lastDueMs) this.#lastDueMs = dueMs;
      fifo.setWhenMs(this.#mid, this.#lastDueMs);
      this.#waiting -= bytes;
      this.#waitingPackets -= fifo.packets(this.#mid);
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
      clockMs = (clockMs > arrivedMs ? clockMs : arrivedMs) + fifo.lineBytes(n) / perMs;
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
    late.push(bytes, fifo.lineBytes(fifo.tail), 1, dueMs > lastMs ? dueMs : lastMs, 0, 0);
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
