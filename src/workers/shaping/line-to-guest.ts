/**
 * The stage at the end of the lines to the guest: writes frames to the TAP when they arrive. The shard puts
 * them on the line (tap/guest-link.ts).
 */
import { ETH_BYTES } from '../../proto/ethernet.ts';
import { Counter } from '../../ring/counters.ts';
import { write } from '../../sys/io.ts';
import type { ShapingPlan } from '../engine-plan.ts';
import type { Stage } from '../thread/stage.ts';
import { Lines, wakeMs } from './lines.ts';

/** Most frames per round: other stages must not wait for long. */
const BATCH_FRAMES = 64;

/** The end of the lines from the guest (TapReader). */
interface FromGuest {
  readonly lines: Lines | null;
  /** It has no memory for frames now, so there is no use in waking for them. */
  readonly isDry: boolean;
}

export class LineToGuest implements Stage {
  readonly name = 'line to guest';
  readonly lines: Lines;
  /** Lines in both directions, and what takes the frames of the other one. */
  readonly #own: readonly Lines[];
  #both: readonly Lines[];
  #fromGuest: FromGuest | null = null;
  readonly #fd: number;
  readonly #counters: Float64Array;

  readonly #headBytes: number;

  /**
   * @param fd  the TAP
   * @param vnetBytes  in front of each of its frames, VNET_BYTES or 0
   */
  constructor(plan: ShapingPlan, fd: number, vnetBytes: number, counters: Float64Array) {
    this.lines = new Lines(plan, 'toGuest', counters, vnetBytes);
    this.#headBytes = vnetBytes + ETH_BYTES;
    this.#own = [this.lines];
    this.#both = this.#own;
    this.#fd = fd;
    this.#counters = counters;
  }

  /** Wake the thread for the other direction too: frames of both share wake-ups. */
  alsoWakeFor(fromGuest: FromGuest): void {
    this.#fromGuest = fromGuest;
    this.#both = [this.lines, fromGuest.lines!];
  }

  poll(now: number): number {
    const counters = this.#counters;
    for (let frames = 0; ; frames++) {
      const line = frames < BATCH_FRAMES ? this.lines.due(now) : null;
      if (line === null) return frames;
      const bytes = line.frameBytes;
      const r = write(this.#fd, line.frameAddress, bytes);
      line.release();
      counters[Counter.tapWrites]!++;
      if (r < 0) counters[Counter.tapWriteErrors]!++;
      else {
        counters[Counter.framesToGuest]!++;
        counters[Counter.bytesToGuest]! += bytes - this.#headBytes;
      }
    }
  }

  sleepMs(now: number): number {
    return wakeMs(this.#fromGuest?.isDry ? this.#own : this.#both) - now;
  }

  hasInput(): boolean {
    return false; // frames come from a stage of the same thread, which has then done work
  }

  close(): void {}
}
