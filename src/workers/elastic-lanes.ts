/**
 * Has lanes of a running engine share their load, opens further ones and gives them up, as LaneGrowth decides.
 * Runs on the main thread.
 */
import type { Decision, LaneGrowth } from './lane-growth.ts';
import type { ThreadMessage, ThreadReport } from './packet-thread.ts';

/** What ElasticLanes needs of the engine. */
export interface LaneHooks {
  /** Start the thread of a lane. Resolves when it is ready. @throws Error with a text of one line */
  start(lane: number): Promise<void>;
  post(lane: number, message: ThreadMessage): void;
  tell(level: 'warning' | 'debug', text: string): void;
}

export type LaneReport = Extract<ThreadReport, { readonly kind: 'load' | 'gave' | 'queue' }>;

export class ElasticLanes {
  readonly #growth: LaneGrowth;
  readonly #hooks: LaneHooks;
  /** Threads that were started, with those of lanes that are given up. */
  #started: number;
  /** Waits for the report `queue` of a lane. */
  #queueSet: PromiseWithResolvers<number> | undefined;
  /** Requests to give a part away that are not answered yet. */
  #sharing = 0;
  #timer: NodeJS.Timeout | undefined;
  #turns: NodeJS.Timeout | undefined;
  #stopped = false;

  /** @param started  lanes that run already */
  constructor(growth: LaneGrowth, started: number, hooks: LaneHooks) {
    this.#growth = growth;
    this.#started = started;
    this.#hooks = hooks;
  }

  onReport(lane: number, report: LaneReport): void {
    if (this.#stopped) return;
    if (report.kind === 'queue') this.#queueSet?.resolve(report.errno);
    else if (report.kind === 'load')
      this.#carryOut(this.#growth.onLoad(lane, report.share, report.flows, performance.now()));
    else if (!report.all) this.#sharing--;
    // While another lane gives a part away, this one may get it.
    else if (report.left === 0 && report.flows === 0 && this.#sharing === 0) void this.#close(lane);
  }

  /** For tests: open a lane or give one up each `ms`, whatever the load is. */
  takeTurns(ms: number): void {
    this.#turns = setInterval(() => this.#carryOut(this.#growth.nextTurn()), ms);
    this.#turns.unref();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearInterval(this.#turns);
  }

  #carryOut(decision: Decision): void {
    if (decision.kind === 'open') void this.#open(decision.lane);
    else if (decision.kind === 'giveUp') {
      const to = Array.from({ length: decision.lane }, (_, lane) => lane);
      this.#give(decision.lane, to, 1);
    } else if (decision.kind === 'spread') this.#give(decision.lane, [decision.to], 0.5);
    this.#wait();
  }

  #give(lane: number, to: readonly number[], share: number): void {
    if (share < 1) this.#sharing++;
    this.#hooks.post(lane, { kind: 'give', to, share });
  }

  /** Loads become stale, and a lane that is given up has to be asked again. */
  #wait(): void {
    const { waitMs } = this.#growth;
    if (this.#timer !== undefined || waitMs === undefined || this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#carryOut(this.#growth.onTime(performance.now()));
    }, waitMs);
    this.#timer.unref();
  }

  async #open(lane: number): Promise<void> {
    try {
      if (lane >= this.#started) {
        await this.#hooks.start(lane);
        this.#started = lane + 1;
      } else if (lane >= this.#growth.active) await this.#setQueue(lane, true);
    } catch (cause) {
      if (this.#stopped) return;
      this.#growth.openFailed();
      const why = cause instanceof Error ? cause.message : String(cause);
      this.#hooks.tell('warning', `lane ${lane} cannot be opened, the number of lanes stays ${lane}: ${why}`);
      return;
    }
    if (this.#stopped) return;
    const next = this.#growth.opened(lane, performance.now());
    this.#hooks.tell('debug', `lane ${lane} opened`);
    for (let from = 0; from < lane; from++) this.#give(from, [lane], 1 / (lane + 1));
    this.#carryOut(next);
  }

  async #close(lane: number): Promise<void> {
    if (!this.#growth.beginClose(lane)) return;
    try {
      await this.#setQueue(lane, false);
    } catch {
      this.#growth.closeFailed(); // it stays attached, and hands over what it gets
      return;
    }
    if (this.#stopped) return;
    this.#growth.closed(performance.now());
    this.#hooks.tell('debug', `lane ${lane} closed`);
    this.#wait();
  }

  async #setQueue(lane: number, attached: boolean): Promise<void> {
    const answer = Promise.withResolvers<number>();
    this.#queueSet = answer;
    this.#hooks.post(lane, { kind: 'queue', attached });
    const errno = await answer.promise;
    this.#queueSet = undefined;
    if (errno !== 0) throw new Error(`TUNSETQUEUE: errno ${errno}`);
  }
}
