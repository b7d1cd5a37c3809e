// bundle: rare
/**
 * What `bucatini top` shows: repeated measurements of instances that come and go. Each instance is asked on
 * its own, by a poller; one that does not answer keeps its last measurement, with the reason, and delays no
 * other.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { askFlows, askStats, type FlowAnswer, type StatsAnswer } from '../../api/answers.ts';
import { ApiError, askApi, oneLine } from '../../api/client.ts';
import { type InstanceInfo, readInfo } from '../../api/instances.ts';
import { type FoundSocket, findSockets, removeOld } from '../../api/socket-directory.ts';
import { carriedBytes } from '../../host/stats.ts';
import type { FlowRow } from '../flow-rows.ts';

/** A thread of an instance's process. */
export interface ThreadLoad {
  readonly name: string;
  /** Share of one processor since the last measurement, 0 to 1. */
  readonly share: number;
}

/** A cause of lost packets. */
export interface DropCause {
  readonly cause: string;
  readonly count: number;
  /** Since the last measurement. */
  readonly perSecond: number;
}

/** One instance as it was measured last. */
export interface Measured {
  readonly path: string;
  /** For people: "run", or the path of a socket whose program is not known yet. */
  readonly name: string;
  /** 0: not known. */
  readonly pid: number;
  readonly info?: InstanceInfo;
  readonly uptimeMs: number;
  /** Bytes of frames through the TAP, and stream bytes past it; and the same per second. */
  readonly fromGuestBytes: number;
  readonly toGuestBytes: number;
  readonly splicedBytes: number;
  readonly fromGuestRate: number;
  readonly toGuestRate: number;
  readonly splicedRate: number;
  readonly rows: readonly FlowRow[];
  /** The instance has more flows than were asked for. */
  readonly moreFlows: boolean;
  /** The largest first. */
  readonly drops: readonly DropCause[];
  /** The busiest first; empty where the process cannot be seen. */
  readonly threads: readonly ThreadLoad[];
  /** Why there was no answer. */
  readonly problem?: string;
}

/** An instance may take so long for each request. */
const ANSWER_MS = 3000;
/** Most flows of one instance: listing them costs its packet threads time. */
const MAX_FLOWS = 4000;
/** USER_HZ, proc_pid_stat(5): 100 on all architectures that we run on. */
const TICKS_PER_SECOND = 100;
/** Names that our programs give their process (process/entry.ts). */
const OUR_PROGRAMS = /^(bucatini|pasta|slirp4netns)$/;

/** What a rate is computed from. */
interface Before {
  readonly atMs: number;
  readonly counters: Readonly<Record<string, number>>;
  readonly flows: ReadonlyMap<string, FlowAnswer>;
  readonly ticks: ReadonlyMap<string, number>;
}

/** The measurements of all instances that were named, or of all of this user. */
export class Sampler {
  readonly #operands: readonly string[];
  readonly #pollers = new Map<string, Poller>();

  /** @param operands  process ids and paths of API sockets; none: all instances of this user */
  constructor(operands: readonly string[]) {
    this.#operands = operands;
  }

  /**
   * Measure every instance that has answered its last question, and wait for the answers.
   * @param waitMs  no longer than this
   * @returns the instances, by process id
   */
  async sample(waitMs: number): Promise<readonly Measured[]> {
    const sockets = this.#sockets();
    for (const path of this.#pollers.keys()) if (!sockets.has(path)) this.#pollers.delete(path);
    for (const [path, socket] of sockets)
      if (!this.#pollers.has(path)) this.#pollers.set(path, new Poller(path, socket));
    const asked = [...this.#pollers.values()].map((poller) => poller.poll());
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, waitMs);
    });
    await Promise.race([Promise.all(asked), limit]);
    clearTimeout(timer);
    return [...this.#pollers.values()]
      .filter((poller) => !poller.isGone)
      .map((poller) => poller.measured)
      .sort((a, b) => a.pid - b.pid || (a.path < b.path ? -1 : 1));
  }

  /** By path; sockets that the user named have no FoundSocket. */
  #sockets(): Map<string, FoundSocket | undefined> {
    const sockets = new Map<string, FoundSocket | undefined>();
    const isPid = (operand: string): boolean => /^[0-9]{1,10}$/.test(operand);
    const all = this.#operands.length === 0;
    const pids = new Set(this.#operands.filter(isPid).map(Number));
    if (all || pids.size > 0)
      for (const socket of findSockets()) if (all || pids.has(socket.pid)) sockets.set(socket.path, socket);
    for (const operand of this.#operands) if (!isPid(operand)) sockets.set(operand, undefined);
    return sockets;
  }
}

class Poller {
  readonly #path: string;
  readonly #found: FoundSocket | undefined;
  #asking: Promise<void> | undefined;
  #info: InstanceInfo | undefined;
  #before: Before | undefined;
  measured: Measured;
  /** The process has ended, and nobody named its socket. */
  isGone = false;

  constructor(path: string, found: FoundSocket | undefined) {
    this.#path = path;
    this.#found = found;
    this.measured = {
      ...{ path, name: found?.program ?? oneLine(path), pid: found?.pid ?? 0, uptimeMs: 0 },
      ...{ fromGuestBytes: 0, toGuestBytes: 0, splicedBytes: 0 },
      ...{ fromGuestRate: 0, toGuestRate: 0, splicedRate: 0 },
      ...{ rows: [], moreFlows: false, drops: [], threads: [], problem: 'has not answered yet' },
    };
  }

  /** Ask for everything, unless an answer is still awaited. */
  poll(): Promise<void> {
    this.#asking ??= this.#measure()
      .catch((error: unknown) => {
        if (!(error instanceof ApiError)) throw error;
        this.#failed(error);
      })
      .finally(() => {
        this.#asking = undefined;
      });
    return this.#asking;
  }

  #failed(error: ApiError): void {
    this.#before = undefined;
    const { rows: _, ...last } = this.measured;
    this.measured = {
      ...{ ...last, rows: [], drops: [], threads: [], problem: error.message },
      ...{ fromGuestRate: 0, toGuestRate: 0, splicedRate: 0 },
    };
    if (error.kind !== 'gone') return;
    // The socket may be another program's next.
    this.#info = undefined;
    if (this.#found === undefined) return;
    removeOld(this.#path);
    this.isGone = true;
  }

  async #measure(): Promise<void> {
    const options = { timeoutMs: ANSWER_MS };
    this.#info ??= readInfo(await askApi(this.#path, 'info', undefined, options));
    const info = this.#info;
    if (info === undefined) throw new ApiError('malformed', 'its answer is not understood');
    const [stats, { flows, more }] = await Promise.all([
      askStats(this.#path, options),
      askFlows(this.#path, MAX_FLOWS, options),
    ]);
    const atMs = performance.now();
    const pid = this.#found?.pid ?? info.pid;
    const before = this.#before;
    const seconds = before === undefined ? 0 : (atMs - before.atMs) / 1000;
    const { fromGuest, toGuest } = carriedBytes(stats.counters);
    const spliced = stats.counters.spliceBytes ?? 0;
    const rate = (now: number, name: string): number => perSecond(now, before?.counters[name] ?? 0, seconds);
    const seen = threadTicks(pid);
    const ticks = seen.size > 0 ? seen : reportedTicks(stats);
    this.#before = {
      ...{ atMs, ticks, counters: stats.counters },
      flows: new Map(flows.map((flow) => [flowKey(flow), flow])),
    };
    this.isGone = false;
    this.measured = {
      ...{ path: this.#path, pid, info },
      name: info.program.replace(/^bucatini /, ''),
      uptimeMs: stats.uptimeMs ?? info.uptimeMs,
      ...{ fromGuestBytes: fromGuest, toGuestBytes: toGuest, splicedBytes: spliced },
      fromGuestRate: rate(fromGuest, 'bytesFromGuest'),
      toGuestRate: rate(toGuest, 'bytesToGuest'),
      splicedRate: rate(spliced, 'spliceBytes'),
      rows: flows.map((flow) => flowRow(flow, pid, before?.flows.get(flowKey(flow)), seconds)),
      moreFlows: more,
      drops: dropCauses(stats.counters, rate),
      threads: threadLoads(ticks, before?.ticks, seconds),
    };
  }
}

/** @returns 0 for the first measurement. A count that is lower than before belongs to another engine. */
const perSecond = (now: number, before: number, seconds: number): number =>
  seconds > 0 ? Math.max(0, now - before) / seconds : 0;

/** What stays the same while the flow exists. */
const flowKey = (flow: FlowAnswer): string =>
  `${flow.proto} ${flow.guest_addr} ${flow.guest_port ?? flow.echo_id} ${flow.remote_addr} ${flow.remote_port} ${flow.path}`;

/** @param before  the same flow, or an earlier one with the same ends */
export function flowRow(
  flow: FlowAnswer,
  pid: number,
  before: FlowAnswer | undefined,
  seconds: number,
): FlowRow {
  const same = before !== undefined && flow.age_ms >= before.age_ms;
  // Of a flow that began since the last measurement, all bytes are of this interval.
  const began = before === undefined && flow.age_ms < seconds * 1000;
  const rate = (now: number, then: number | undefined): number =>
    same || began ? perSecond(now, then ?? 0, seconds) : 0;
  return {
    ...{ flow, pid },
    fromGuestRate: rate(flow.bytes_from_guest, before?.bytes_from_guest),
    toGuestRate: rate(flow.bytes_to_guest, before?.bytes_to_guest),
  };
}

const DROP = 'drop.';

function dropCauses(
  counters: Readonly<Record<string, number>>,
  rate: (now: number, name: string) => number,
): DropCause[] {
  return Object.entries(counters)
    .filter(([name, count]) => name.startsWith(DROP) && count > 0)
    .map(([name, count]) => ({ cause: name.slice(DROP.length), count, perSecond: rate(count, name) }))
    .sort((a, b) => b.count - a.count);
}

function threadLoads(
  ticks: ReadonlyMap<string, number>,
  before: ReadonlyMap<string, number> | undefined,
  seconds: number,
): ThreadLoad[] {
  const loads = new Map<string, number>();
  for (const [key, now] of ticks) {
    const name = key.slice(key.indexOf(' ') + 1);
    const share = perSecond(now, before?.get(key) ?? now, seconds) / TICKS_PER_SECOND;
    loads.set(name, (loads.get(name) ?? 0) + share);
  }
  return [...loads].map(([name, share]) => ({ name, share })).sort((a, b) => b.share - a.share);
}

/** The same of the packet threads alone, by what the engine counts. */
const reportedTicks = ({ threads }: StatsAnswer): Map<string, number> =>
  new Map(
    threads.map(({ thread, counters }) => {
      const us = (counters.cpuUserUs ?? 0) + (counters.cpuSystemUs ?? 0);
      return [`0 ${thread}`, (us * TICKS_PER_SECOND) / 1e6];
    }),
  );

/** Processor time of the threads of a process, in ticks, by "TID NAME". Empty if it is not one of ours. */
function threadTicks(pid: number): Map<string, number> {
  const ticks = new Map<string, number>();
  const task = `/proc/${pid}/task`;
  try {
    if (pid === 0 || !OUR_PROGRAMS.test(readFileSync(`/proc/${pid}/comm`, 'utf8').trim())) return ticks;
    for (const tid of readdirSync(task)) {
      const stat = readFileSync(`${task}/${tid}/stat`, 'utf8');
      // TID (NAME) STATE ...: the name may have blanks and parentheses. utime and stime are fields 14 and 15.
      const [open, close] = [stat.indexOf('('), stat.lastIndexOf(')')];
      const fields = stat.slice(close + 2).split(' ');
      ticks.set(`${tid} ${oneLine(stat.slice(open + 1, close))}`, Number(fields[11]) + Number(fields[12]));
    }
  } catch {
    // The process, or a thread of it, has ended.
  }
  return ticks;
}
