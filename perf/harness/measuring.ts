/**
 * Executes a plan: for each MTU starts every peer, then measures batch by batch of cells, round by round,
 * peer by peer, every second round in reverse (A B C, C B A). A peer that does not start is left out, one
 * that ends is started again; the notes say so.
 */

import { quiet } from './machine.ts';
import { batches, cellSeconds, needsWarmUp, type Plan, type PlannedCell, STARTS } from './matrix.ts';
import type { Guest, Peer } from './peers.ts';
import { sleep } from './processes.ts';
import { Progress } from './progress.ts';
import { METRIC_NAMES, METRICS, type Measurement } from './result.ts';
import { type Context, failure, type Outcome, toolDied } from './workloads/context.ts';
import { iperf, tcp, udp } from './workloads/iperf.ts';
import { idle, start, torrent } from './workloads/others.ts';
import { connections, flows, request } from './workloads/streams.ts';
import type { World } from './world.ts';

export interface Log {
  readonly measurements: Measurement[];
  /** Remarks for the reader of the tables. */
  readonly notes: string[];
}

const REACH_TIMEOUT_MS = 15_000;
const REACH_TRY_MS = 4000;
/**
 * A tool is not idle immediately after its start: our runtime compiles and collects garbage for some seconds.
 */
const SETTLE_MS = 5000;

/** Wait until a new guest reaches the peer. @returns the obstacle, or null */
async function reaches(context: Context): Promise<string | null> {
  const end = performance.now() + REACH_TIMEOUT_MS;
  for (;;) {
    const { error } = await iperf(context, 4, false, ['-n', '1K'], REACH_TRY_MS);
    if (error === undefined) return null;
    if (context.abort.aborted || performance.now() > end) {
      const words = context.guest.words();
      return `${error}${words === '' ? '' : `; it said: ${words.split('\n').slice(-3).join(' / ')}`}`;
    }
  }
}

/** Start a guest and wait until it reaches the peer. @throws Error with the obstacle */
export async function startGuest(world: World, peer: Peer, mtu: number, abort: AbortSignal): Promise<Guest> {
  const guest = await peer.start(world, mtu);
  const obstacle = await reaches({ world, guest, abort });
  if (obstacle === null) return guest;
  await guest.stop();
  throw new Error(obstacle);
}

/** Run the workload of a cell. */
async function perform(context: Context, peer: Peer, cell: PlannedCell): Promise<Outcome> {
  const { traffic } = cell;
  switch (traffic.kind) {
    case 'tcp':
      return tcp(context, traffic, cell);
    case 'udp':
      return udp(context, traffic, cell);
    case 'request':
      return request(context, traffic, cell);
    case 'connect':
      return connections(context, traffic, cell);
    case 'flows':
      return flows(context, traffic, cell);
    case 'torrent':
      return torrent(context, traffic, cell);
    case 'start':
      return start(context.world, peer, cell.mtu, STARTS, context.abort);
    case 'idle':
      return failure('all guests are measured at once');
  }
}

const message = (error: unknown): string => (error instanceof Error ? error.message : `${error}`);

/** The main figure, for the progress line. */
function figure(outcome: Outcome): string {
  for (const metric of METRIC_NAMES) {
    const value = outcome.values[metric];
    if (value === undefined) continue;
    const { digits, label } = METRICS[metric];
    return `${value.toFixed(digits)} ${label}${outcome.error === null ? '' : ` (${outcome.error})`}`;
  }
  return outcome.error ?? '-';
}

export interface Measuring {
  readonly world: World;
  readonly plan: Plan;
  readonly peers: readonly Peer[];
  /** Longest wait for an idle machine before each measurement. */
  readonly idleSeconds: number;
  readonly log: Log;
  readonly abort: AbortSignal;
}

export async function measureAll(measuring: Measuring): Promise<void> {
  await new Run(measuring).all();
}

class Run {
  readonly #o: Measuring;
  readonly #progress: Progress;
  readonly #guests = new Map<Peer, Guest>();
  /** Failed starts at the current MTU, with the reason. */
  readonly #failedStarts = new Map<Peer, string>();

  constructor(measuring: Measuring) {
    this.#o = measuring;
    const { cells, seconds } = measuring.plan;
    const steps = cells.reduce(
      (sum, cell) => sum + (cell.traffic.kind === 'idle' ? 1 : cell.rounds * cell.peers.length),
      0,
    );
    this.#progress = new Progress(steps, seconds);
  }

  async all(): Promise<void> {
    const { world, plan, abort } = this.#o;
    let mtu = 0;
    for (const batch of batches(plan.cells)) {
      const [first] = batch;
      if (!first) continue;
      if (first.mtu !== mtu) {
        mtu = first.mtu;
        await this.#startAll(mtu);
      }
      if (abort.aborted) return;
      if (first.traffic.kind === 'idle') await this.#allIdle(first);
      else {
        await world.useLine(first.traffic.kind === 'tcp' ? first.traffic.line : null);
        await this.#batch(batch);
      }
    }
    await world.useLine(null);
    await this.#stopAll();
  }

  async #startAll(mtu: number): Promise<void> {
    await this.#stopAll();
    this.#failedStarts.clear();
    for (const peer of this.#o.peers)
      if (!this.#o.abort.aborted && !peer.needsFreshGuest) await this.#guestOf(peer, mtu);
  }

  async #stopAll(): Promise<void> {
    for (const guest of this.#guests.values()) await guest.stop();
    this.#guests.clear();
  }

  async #batch(batch: readonly PlannedCell[]): Promise<void> {
    const { plan, abort } = this.#o;
    for (const cell of batch)
      if (needsWarmUp(plan.cells, plan.cells.indexOf(cell)))
        for (const peer of this.#takingPart(cell))
          if (!abort.aborted) await this.#one({ ...cell, seconds: 1 }, peer);
    const rounds = Math.max(...batch.map((cell) => cell.rounds));
    for (let round = 1; round <= rounds; round++)
      for (const cell of batch) if (round <= cell.rounds && !abort.aborted) await this.#turn(cell, round);
  }

  #takingPart(cell: PlannedCell): readonly Peer[] {
    return this.#o.peers.filter((peer) => cell.peers.includes(peer.name));
  }

  /** @returns the peer's guest, (re)started if it is not running; null if that fails: the notes say why */
  async #guestOf(peer: Peer, mtu: number): Promise<Guest | null> {
    const { world, log, abort } = this.#o;
    const there = this.#guests.get(peer);
    if (there?.alive()) return there;
    if (this.#failedStarts.has(peer)) return null;
    if (there) {
      log.notes.push(
        `${peer.name} at MTU ${mtu} died and was started again; its last words: ${there.words().split('\n').at(-1)}`,
      );
      this.#guests.delete(peer);
      await there.stop();
    }
    try {
      const guest = await startGuest(world, peer, mtu, abort);
      this.#guests.set(peer, guest);
      return guest;
    } catch (error) {
      if (!abort.aborted) {
        this.#failedStarts.set(peer, message(error));
        log.notes.push(`${peer.name} at MTU ${mtu} left out: ${message(error)}`);
      }
      return null;
    }
  }

  async #one(cell: PlannedCell, peer: Peer): Promise<Outcome> {
    const { world, idleSeconds, abort } = this.#o;
    if (cell.fresh || peer.needsFreshGuest) return this.#oneFresh(cell, peer);
    const guest = await this.#guestOf(peer, cell.mtu);
    if (guest === null) return failure(this.#failedStarts.get(peer) ?? 'ended early');
    await quiet(idleSeconds, abort);
    try {
      const outcome = await perform({ world, guest, abort }, peer, cell);
      return guest.alive() ? outcome : toolDied(guest);
    } catch (error) {
      return failure(message(error));
    }
  }

  /** Measure a guest of its own; in a cell of first seconds from its start on. */
  async #oneFresh(cell: PlannedCell, peer: Peer): Promise<Outcome> {
    const { world, idleSeconds, abort } = this.#o;
    await quiet(idleSeconds, abort);
    let guest: Guest | undefined;
    try {
      guest = cell.fresh ? await peer.start(world, cell.mtu) : await startGuest(world, peer, cell.mtu, abort);
      const outcome = await perform({ world, guest, abort }, peer, cell);
      return guest.alive() ? outcome : toolDied(guest);
    } catch (error) {
      return failure(message(error));
    } finally {
      await guest?.stop();
    }
  }

  #record(cell: PlannedCell, peer: string, round: number, outcome: Outcome): void {
    const { log, abort } = this.#o;
    if (abort.aborted) return;
    log.measurements.push({ cell: cell.id, peer, round, ...outcome });
    if (outcome.error !== null) log.notes.push(`${peer}, ${cell.id}, round ${round}: ${outcome.error}`);
  }

  async #turn(cell: PlannedCell, round: number): Promise<void> {
    const { abort } = this.#o;
    const peers = this.#takingPart(cell);
    for (const peer of round % 2 === 0 ? peers.toReversed() : peers) {
      if (abort.aborted) return;
      const outcome = await this.#one(cell, peer);
      this.#record(cell, peer.name, round, outcome);
      if (abort.aborted) return;
      this.#progress.step(
        `${cell.id} round ${round} ${peer.name}: ${figure(outcome)}`,
        cellSeconds(cell) / (cell.rounds * cell.peers.length),
      );
    }
  }

  async #allIdle(cell: PlannedCell): Promise<void> {
    await sleep(SETTLE_MS);
    const there = this.#takingPart(cell).flatMap((peer) => {
      const guest = this.#guests.get(peer);
      return guest ? [{ name: peer.name, guest }] : [];
    });
    for (const [name, outcome] of await idle(there, cell.seconds, this.#o.abort))
      this.#record(cell, name, 1, outcome);
    this.#progress.step(`${cell.id}: ${there.map(({ name }) => name).join(' ')}`, cellSeconds(cell));
  }
}
