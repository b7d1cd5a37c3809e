/**
 * Timers of one thread: a hierarchical timer wheel in typed arrays. A timer is a number, by convention flow *
 * kinds + kind.
 *
 *   level 0   64 slots of 1 tick          ┌─┬─┬─┬ ─ ─ ┬─┐   a slot is a doubly linked list of timer ids;
 *   level 1   64 slots of 64 ticks        └─┴─┴─┴ ─ ─ ┴─┘   a 64-bit map per level says which are not empty
 *   level 2   64 slots of 4096 ticks
 *   level 3   64 slots of 2^18 ticks      4 ms ticks: 18 hours; longer deadlines go round level 3 again
 *
 * A slot of level n is emptied into the lower levels when its first tick comes; the timers of a slot of level
 * 0 fire. The maps show the next slot with entries, so that advancing over hours costs as little as over
 * milliseconds.
 *
 * Lazy moves: to postpone or cancel a timer only stores the new state. The list entry stays, and is moved or
 * dropped when its slot comes. TCP postpones its retransmission timer with every acknowledgement, so this is
 * the frequent case. The cost is at most one early wake-up per entry left in its old slot.
 *
 * A timer never fires before its deadline and, if advance() is called in time, less than one tick after it.
 * Ticks are int32 and wrap; deadlines may lie up to 2^31 ticks ahead (99 days of 4 ms).
 */
const LEVELS = 4;
const SLOT_BITS = 6;
const SLOTS = 1 << SLOT_BITS;
const SLOT_MASK = SLOTS - 1;
/** Greatest distance in ticks that level 3 can hold. */
const MAX_DELTA_TICKS = 2 ** (LEVELS * SLOT_BITS) - 1;
const FARTHEST_TICKS = 2 ** 31 - 1;
const NONE = -1;

/**
 * Steps from slot `from` to the next slot set in the map, 1..64 (64: `from` itself); 0 when the map is empty.
 */
function stepsToNext(low: number, high: number, from: number): number {
  if ((low | high) === 0) return 0;
  // Rotate the map right by from + 1 so that the slot after `from` is bit 0, then count trailing zeros.
  const turn = (from + 1) & SLOT_MASK;
  const swap = turn >= 32;
  const l = swap ? high : low;
  const h = swap ? low : high;
  const bits = turn & 31;
  const turnedLow = bits === 0 ? l : (l >>> bits) | (h << (32 - bits));
  if (turnedLow !== 0) return 32 - Math.clz32(turnedLow & -turnedLow);
  const turnedHigh = bits === 0 ? h : (h >>> bits) | (l << (32 - bits));
  return 64 - Math.clz32(turnedHigh & -turnedHigh);
}

/** Timers with ids from 0 on, each armed for one deadline at most. */
export class TimerWheel {
  readonly #tickMs: number;
  /** The present tick, up to which all timers have fired: counted from time 0, and the same as int32. */
  #tickCount: number;
  #tick: number;
  /** Due tick of an armed timer. */
  readonly #due: Int32Array;
  /** Due tick by which the entry was put into its list; never after #due. */
  readonly #linkedDue: Int32Array;
  /**
   * 1 + the list that holds the timer, level << SLOT_BITS | slot; 0: none. So a table that was never used is all
   * zeros, and its memory is not touched.
   */
  readonly #list: Int16Array;
  readonly #armed: Uint8Array;
  readonly #next: Int32Array;
  readonly #prev: Int32Array;
  readonly #first = new Int32Array(LEVELS * SLOTS).fill(NONE);
  /** Two words per level: bit s is set when slot s has entries. */
  readonly #map = new Int32Array(LEVELS * 2);

  /**
   * @param timers  timer ids are 0 .. timers-1
   * @param tickMs  resolution
   * @param startMs  the present time, on the clock that deadlines and advance() use
   */
  constructor(timers: number, tickMs = 4, startMs = 0) {
    this.#tickMs = tickMs;
    this.#tickCount = Math.floor(startMs / tickMs);
    this.#tick = this.#tickCount | 0;
    this.#due = new Int32Array(timers);
    this.#linkedDue = new Int32Array(timers);
    this.#list = new Int16Array(timers);
    this.#armed = new Uint8Array(timers);
    this.#next = new Int32Array(timers);
    this.#prev = new Int32Array(timers);
  }

  /**
   * Fire `id` once at `deadlineMs`; a deadline in the past fires with the next tick. An armed timer is moved.
   */
  arm(id: number, deadlineMs: number): void {
    let ahead = Math.ceil(deadlineMs / this.#tickMs) - this.#tickCount;
    if (ahead < 1) ahead = 1;
    else if (ahead > FARTHEST_TICKS) ahead = FARTHEST_TICKS;
    const due = (this.#tick + ahead) | 0;
    this.#due[id] = due;
    this.#armed[id] = 1;
    if (this.#list[id] !== 0) {
      // Not before its entry's tick: the entry is moved when that comes.
      if (((due - this.#linkedDue[id]!) | 0) >= 0) return;
      this.#unlink(id);
    }
    this.#link(id);
  }

  /** The timer does not fire until it is armed again. */
  cancel(id: number): void {
    this.#armed[id] = 0;
  }

  /** Whether the timer will fire. */
  isArmed(id: number): boolean {
    return this.#armed[id] === 1;
  }

  /**
   * Time to a timer's deadline, in milliseconds; too small or too large by half a tick at most, below zero too.
   * Infinity: the timer is not armed.
   * @param now  the time of the last advance(), or later
   */
  msUntil(id: number, now: number): number {
    if (this.#armed[id] === 0) return Number.POSITIVE_INFINITY;
    // The due tick is the first one that is not before the deadline.
    const ticks = ((this.#due[id]! - this.#tick) | 0) - 0.5;
    return (this.#tickCount + ticks) * this.#tickMs - now;
  }

  /**
   * Fire all timers that are due at `now`, in the order of due ticks. `fire` may arm and cancel any timer,
   * the one that fires included; a timer that it arms fires in a later tick.
   */
  advance(now: number, fire: (id: number) => void): void {
    const target = Math.floor(now / this.#tickMs);
    while (this.#tickCount < target) {
      const steps = this.#stepsToEvent();
      if (steps === 0 || this.#tickCount + steps > target) {
        this.#moveTo(target);
        return;
      }
      this.#moveTo(this.#tickCount + steps);
      this.#runTick(fire);
    }
  }

  /**
   * Milliseconds from `now` until the next call of advance() that may fire or move a timer; Infinity when the
   * wheel is empty. The value may be too small (higher levels, lazy moves), never too large.
   */
  nextDeadline(now: number): number {
    const steps = this.#stepsToEvent();
    if (steps === 0) return Number.POSITIVE_INFINITY;
    const ms = (this.#tickCount + steps) * this.#tickMs - now;
    return Math.max(ms, 0);
  }

  #moveTo(tickCount: number): void {
    this.#tickCount = tickCount;
    this.#tick = tickCount | 0;
  }

  /** Ticks until the next slot of any level must be emptied; 0 when all are empty. */
  #stepsToEvent(): number {
    const tick = this.#tick;
    let least = 0;
    for (let level = 0; level < LEVELS; level++) {
      const shift = level * SLOT_BITS;
      const slots = stepsToNext(
        this.#map[level * 2]!,
        this.#map[level * 2 + 1]!,
        (tick >>> shift) & SLOT_MASK,
      );
      if (slots === 0) continue;
      // From the present tick to the first tick of the slot that lies `slots` further.
      const steps = (slots << shift) - (tick & ((1 << shift) - 1));
      if (least === 0 || steps < least) least = steps;
    }
    return least;
  }

  #runTick(fire: (id: number) => void): void {
    const tick = this.#tick;
    // Higher levels first: their entries may be due in this tick.
    for (let level = LEVELS - 1; level > 0; level--) {
      const shift = level * SLOT_BITS;
      if ((tick & ((1 << shift) - 1)) !== 0) continue;
      const list = (level << SLOT_BITS) | ((tick >>> shift) & SLOT_MASK);
      for (let id = this.#first[list]!; id !== NONE; id = this.#first[list]!) {
        this.#unlink(id);
        // The entry cannot return to this list: from the slot's first tick, all its entries are due within
        // one turn of the level below.
        if (this.#armed[id] === 1) this.#link(id);
      }
    }
    const list = tick & SLOT_MASK;
    for (let id = this.#first[list]!; id !== NONE; id = this.#first[list]!) {
      this.#unlink(id);
      if (this.#armed[id] === 0) continue;
      if (this.#due[id] !== tick) {
        this.#link(id); // was postponed; it cannot enter this list, as 64 ticks ahead is level 1
        continue;
      }
      this.#armed[id] = 0;
      fire(id);
    }
  }

  /** Put an armed timer into the list for its due tick, which is #tick or later. */
  #link(id: number): void {
    const due = this.#due[id]!;
    const ahead = (due - this.#tick) | 0;
    let level = 0;
    let at = due;
    if (ahead >= 64) {
      if (ahead < 4096) level = 1;
      else if (ahead < 262144) level = 2;
      else {
        level = 3;
        if (ahead > MAX_DELTA_TICKS) at = this.#tick + MAX_DELTA_TICKS;
      }
    }
    const slot = (at >>> (level * SLOT_BITS)) & SLOT_MASK;
    const list = (level << SLOT_BITS) | slot;
    const first = this.#first[list]!;
    this.#next[id] = first;
    this.#prev[id] = NONE;
    if (first !== NONE) this.#prev[first] = id;
    else this.#map[level * 2 + (slot >>> 5)]! |= 1 << (slot & 31);
    this.#first[list] = id;
    this.#list[id] = list + 1;
    this.#linkedDue[id] = due;
  }

  #unlink(id: number): void {
    const list = this.#list[id]! - 1;
    const next = this.#next[id]!;
    const prev = this.#prev[id]!;
    if (next !== NONE) this.#prev[next] = prev;
    if (prev !== NONE) this.#next[prev] = next;
    else {
      this.#first[list] = next;
      if (next === NONE) {
        const slot = list & SLOT_MASK;
        this.#map[(list >>> SLOT_BITS) * 2 + (slot >>> 5)]! &= ~(1 << (slot & 31));
      }
    }
    this.#list[id] = 0;
  }
}
