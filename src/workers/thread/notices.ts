/**
 * Log lines that traffic can cause, limited to one of each kind in ten seconds. The next line of a kind gives
 * the number of lines that were held back. Code that handles packets has a Notices and no other log.
 */
const INTERVAL_MS = 10_000;

export type Log = (level: 'error' | 'warning' | 'info' | 'debug', text: string) => void;

/** Kinds of lines. A new kind is one line here. */
export const Notice = {
  tableFull: 0,
  pingForbidden: 1,
  noPeekOffset: 2,
  acceptFailed: 3,
  acceptInsideFailed: 4,
  descriptorsShort: 5,
  slotsOut: 6,
  slotsBack: 7,
  queuesFull: 8,
  connectsGaveWay: 9,
  groupsFull: 10,
  groupRate: 11,
  groupFailed: 12,
  egressDenied: 13,
} as const;
export type Notice = (typeof Notice)[keyof typeof Notice];
export const NOTICES = 14;

export class Notices {
  readonly #log: Log;
  readonly #now: () => number;
  readonly #lastMs = new Float64Array(NOTICES).fill(Number.NEGATIVE_INFINITY);
  readonly #heldBack = new Float64Array(NOTICES);

  constructor(log: Log, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#now = now;
  }

  /**
   * Whether tell() would write a line of this kind now: for lines whose text has to be made. If not, the line
   * is counted as held back.
   */
  isDue(kind: Notice): boolean {
    if (this.#now() - this.#lastMs[kind]! >= INTERVAL_MS) return true;
    this.#heldBack[kind]!++;
    return false;
  }

  /**
   * Write the line, or count it as held back.
   * @param text  a constant where lines of this kind are frequent, so that nothing is allocated
   */
  tell(kind: Notice, level: 'warning' | 'info', text: string): void {
    if (!this.isDue(kind)) return;
    this.#lastMs[kind] = this.#now();
    const heldBack = this.#heldBack[kind]!;
    this.#heldBack[kind] = 0;
    this.#log(level, heldBack === 0 ? text : `${text} (${heldBack} more times since the last such line)`);
  }
}
