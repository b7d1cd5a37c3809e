/**
 * When lanes are added and given up. Pure: times and loads come in, decisions go out; engine.ts carries them
 * out.
 *
 *   lanes are busy for BUSY_MS, one of them has two        -> as many lanes open, one after another; each gets
 *   flows or more, and no other lane is calm                  its part of the buckets and of the traffic
 *   the same, but another lane is calm                     -> the busy lane gives that lane half of its
 *                                                             buckets and of its traffic
 *   one lane less would have carried all for CALM_MS       -> the last lane gives all away (flow-mover.ts). Once
 *                                                             it has no flows, its queue is detached, and its
 *                                                             thread sleeps
 *
 * No constant load opens and closes lanes in turn: n lanes, b of them busy, become n + b at a sum of loads of at
 * least BUSY_SHARE * b + CALM_SHARE * (n - b), and of n + b lanes the last one is given up at
 * CALM_SHARE * (n + b - 1) at the most, which is less for b below 8.
 */

/** Processor time of a lane's thread by time, above which the lane is busy. */
const BUSY_SHARE = 0.75;
const BUSY_MS = 400;
/** A lane with a load up to this is calm. At this mean load of the remaining lanes the last one is given up. */
const CALM_SHARE = 0.4;
const CALM_MS = 10_000;
/** After lanes have opened: the first samples are not what they will carry. */
const SETTLE_MS = 500;
/** A load that was not reported for so long is over: a lane that sleeps reports nothing. */
const STALE_MS = 3000;
/** How often a lane that is given up is asked whether it has flows: at first, and at most. */
const ASK_MS = 1000;
const ASK_MAX_MS = 60_000;

export type Decision =
  /** Start or attach lane `lane`. */
  | { readonly kind: 'open'; readonly lane: number }
  /** Lane `lane` gives all that it has to the lanes before it. */
  | { readonly kind: 'giveUp'; readonly lane: number }
  /** Lane `lane` gives half of what it has to lane `to`. */
  | { readonly kind: 'spread'; readonly lane: number; readonly to: number }
  | { readonly kind: 'none' };

const NONE: Decision = { kind: 'none' };

interface Load {
  share: number;
  flows: number;
  atMs: number;
  /** Busy since then; Infinity: it is not. */
  busySinceMs: number;
}

export class LaneGrowth {
  readonly #busyShare: number;
  readonly #calmShare: number;
  #most: number;
  readonly #least: number;
  readonly #loads: Load[] = [];
  #active: number;
  /** So many lanes are to be active once the one that opens is. */
  #wanted = 0;
  /** A lane is being opened. */
  #opening = false;
  #settledMs = Number.NEGATIVE_INFINITY;
  #calmSinceMs = Number.POSITIVE_INFINITY;
  /** The last lane is being given up; when it is asked again, and after how long the time after that. */
  #givingUp = false;
  #askAtMs = 0;
  #askMs = ASK_MS;
  /** The queue of the last lane is being detached. */
  #closing = false;

  /**
   * @param least  lanes that are there from the start and stay
   * @param most  lanes at the most
   * @param busyShare  for tests: instead of BUSY_SHARE; half of it is calm then
   */
  constructor(least: number, most: number, busyShare?: number) {
    this.#busyShare = busyShare ?? BUSY_SHARE;
    this.#calmShare = busyShare === undefined ? CALM_SHARE : busyShare / 2;
    this.#least = least;
    this.#most = most;
    this.#active = least;
  }

  /** Lanes that get new flows, and the last one also while it is given up. */
  get active(): number {
    return this.#active;
  }

  /**
   * A lane reports its load.
   * @param share  processor time by time, 0 to 1
   * @param flows  that it has
   */
  onLoad(lane: number, share: number, flows: number, nowMs: number): Decision {
    const before = this.#isFresh(lane, nowMs) ? this.#loads[lane]!.busySinceMs : Number.POSITIVE_INFINITY;
    const isBusy = share >= this.#busyShare;
    const busySinceMs = isBusy ? Math.min(before, nowMs) : Number.POSITIVE_INFINITY;
    this.#loads[lane] = { share, flows, atMs: nowMs, busySinceMs };
    if (flows >= 2 && this.#isBusy(lane, nowMs)) return this.#more(lane, nowMs);
    return this.#less(nowMs);
  }

  /** To be called at times when a lane is being given up, or loads may have become stale. */
  onTime(nowMs: number): Decision {
    return this.#less(nowMs);
  }

  /** Milliseconds until onTime() is to be called; undefined: it need not be. */
  get waitMs(): number | undefined {
    if (this.#active <= this.#least) return undefined;
    return this.#givingUp ? this.#askMs : STALE_MS;
  }

  /** @param busy  the lane that needs others */
  #more(busy: number, nowMs: number): Decision {
    this.#calmSinceMs = Number.POSITIVE_INFINITY;
    if (this.#opening || this.#closing || nowMs - this.#settledMs < SETTLE_MS) return NONE;
    if (this.#givingUp) {
      this.#givingUp = false;
      this.#opening = true;
      return { kind: 'open', lane: this.#active - 1 };
    }
    let to = 0;
    for (let lane = 1; lane < this.#active; lane++)
      if (this.#share(lane, nowMs) < this.#share(to, nowMs)) to = lane;
    if (this.#share(to, nowMs) <= this.#calmShare) {
      this.#settledMs = nowMs;
      return { kind: 'spread', lane: busy, to };
    }
    if (this.#active >= this.#most) return NONE;
    let busyLanes = 0;
    let flows = 0;
    for (let lane = 0; lane < this.#active; lane++) {
      if (this.#isBusy(lane, nowMs)) busyLanes++;
      flows += this.#loads[lane]?.flows ?? 0;
    }
    this.#wanted = Math.min(this.#most, this.#active + busyLanes, Math.max(flows, this.#active + 1));
    this.#opening = true;
    return { kind: 'open', lane: this.#active };
  }

  /** Whether a lane has been busy for BUSY_MS. */
  #isBusy(lane: number, nowMs: number): boolean {
    return this.#isFresh(lane, nowMs) && nowMs - this.#loads[lane]!.busySinceMs >= BUSY_MS;
  }

  #isFresh(lane: number, nowMs: number): boolean {
    const load = this.#loads[lane];
    return load !== undefined && nowMs - load.atMs < STALE_MS;
  }

  /** @returns the load of a lane; 0 if it reported none lately */
  #share(lane: number, nowMs: number): number {
    return this.#isFresh(lane, nowMs) ? this.#loads[lane]!.share : 0;
  }

  /** The lane of the last `open` works. @returns `open` for the next one, if more than one is needed */
  opened(lane: number, nowMs: number): Decision {
    this.#active = lane + 1;
    if (this.#active < this.#wanted) return { kind: 'open', lane: this.#active };
    this.#opening = false;
    this.#settledMs = nowMs;
    return NONE;
  }

  /** For tests: open the next lane; where all are open, give up the last one; open it again. */
  nextTurn(): Decision {
    if (this.#opening || this.#closing || this.#most === this.#least) return NONE;
    if (this.#givingUp || this.#active < this.#most) {
      const lane = this.#givingUp ? this.#active - 1 : this.#active;
      this.#givingUp = false;
      this.#opening = true;
      return { kind: 'open', lane };
    }
    this.#givingUp = true;
    return { kind: 'giveUp', lane: this.#active - 1 };
  }

  /**
   * A lane that is being given up has no flows. Until closed() or closeFailed() no lane opens.
   * @returns whether its queue is to be detached
   */
  beginClose(lane: number): boolean {
    if (!this.#givingUp || this.#closing || lane !== this.#active - 1) return false;
    this.#closing = true;
    return true;
  }

  /** The lane of the last `open` could not be opened: neither it nor another one is tried again. */
  openFailed(): void {
    this.#most = this.#active;
    this.#opening = false;
  }

  /** The queue could not be detached. The lane is asked again. */
  closeFailed(): void {
    this.#closing = false;
  }

  /** The lane of the last `giveUp` has no buckets and no flows any more, and its queue is detached. */
  closed(nowMs: number): void {
    this.#loads.length = this.#active - 1;
    this.#active--;
    this.#givingUp = false;
    this.#closing = false;
    this.#calmSinceMs = nowMs;
    this.#settledMs = nowMs;
  }

  #less(nowMs: number): Decision {
    if (this.#opening || this.#closing || this.#active <= this.#least) return NONE;
    let sum = 0;
    for (let lane = 0; lane < this.#active; lane++) sum += this.#share(lane, nowMs);
    if (sum > this.#calmShare * (this.#active - 1)) {
      this.#calmSinceMs = Number.POSITIVE_INFINITY;
      return NONE;
    }
    this.#calmSinceMs = Math.min(this.#calmSinceMs, nowMs);
    if (nowMs - this.#calmSinceMs < CALM_MS) return NONE;
    if (!this.#givingUp) {
      this.#givingUp = true;
      this.#askMs = ASK_MS;
    } else if (nowMs < this.#askAtMs) return NONE;
    else this.#askMs = Math.min(2 * this.#askMs, ASK_MAX_MS);
    this.#askAtMs = nowMs + this.#askMs;
    return { kind: 'giveUp', lane: this.#active - 1 };
  }
}
