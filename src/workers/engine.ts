/**
 * Starts and stops the packet threads of a plan. Runs on the main thread, which never touches a packet.
 */

import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import {
  channel,
  type HeldProgram,
  listenOn,
  onClose,
  type Port,
  startPool,
  type ThreadPool,
} from '#runtime/threads';
import { dropName } from '../proto/drop.ts';
import { macParse } from '../proto/ethernet.ts';
import type { Pref64 } from '../proto/ndp.ts';
import {
  COUNTERS,
  type CounterName,
  countersSum,
  countersView,
  DROP_BASE,
  DROP_MAX,
  HISTOGRAM_BASE,
} from '../ring/counters.ts';
import {
  HISTOGRAM_BUCKETS,
  HISTOGRAMS,
  Histogram,
  type HistogramInfo,
  type HistogramName,
  histogramValue,
} from '../ring/histograms.ts';
import { CONTROL_BYTES, controlViews, type Layout, requestStop } from '../ring/layout.ts';
import { EFD_CLOEXEC, EFD_NONBLOCK, Errno } from '../sys/constants.ts';
import { close, eventfd, eventfdWrite } from '../sys/io.ts';
import { errnoText } from '../sys/libc.ts';
import { raiseOpenFiles } from '../sys/process.ts';
import type { Capture, CaptureSource } from './capture/capture-writer.ts';
import { ElasticLanes } from './elastic-lanes.ts';
import { engineMemory } from './engine-memory.ts';
import type {
  EgressPlan,
  EnginePlan,
  HostChange,
  ListenerPlan,
  ShapingPlan,
  ThreadsPlan,
} from './engine-plan.ts';
import { divideBuckets } from './flow/flow-owner.ts';
import { type FlowPage, NO_FLOWS } from './flow/flow-report.ts';
import { SocketNames } from './flow/socket-names.ts';
import { countFlows, type FlowCount, type FlowList, type FlowPages, listFlows } from './flow-list.ts';
import { LaneGrowth } from './lane-growth.ts';
import { stageDropName } from './link/stage-drop.ts';
import type { ListenFailure } from './listen/listener-table.ts';
import type { CaptureShare, SlotCount, ThreadMessage, ThreadReport, ThreadTask } from './packet-thread.ts';
import { type BootedThread, bootPacketThread, holdPacketProgram, packetProgram } from './packet-worker.ts';
import { laneCount, startedThreads, type ThreadPlan, threadPlan } from './placement.ts';
import { LOG_LEVELS } from './thread/log-levels.ts';
import { LogReader } from './thread/log-ring.ts';

const RING_DESCRIPTORS = 2048;
const LOG_BYTES = 16 * 1024;
const LOG_WAIT_MS = 60_000;
/** In this time all threads must be ready, on a loaded machine too. */
const START_LIMIT_MS = 60_000;
/** A line that several lanes write is printed once in this time, a little less than Notices has. */
const REPEAT_MS = 9_000;
/** Most lines that are remembered for that. */
const MAX_LINES = 64;
/** In this time the thread of a lane that opens must be ready. */
const LANE_LIMIT_MS = 10_000;
/** After a failed start: how long to wait for the threads to end. */
const GIVE_UP_MS = 1000;

export interface EngineHandle {
  /** End all packet threads and close their descriptors. The TAP's descriptor stays open for the caller. */
  stop(): Promise<void>;
  /**
   * Descriptors of the io_uring rings of all event loops (sys/event-rings.ts); only where one packet thread
   * starts.
   */
  readonly eventRings: readonly number[] | undefined;
  /**
   * Per port of the host: the number of UDP sockets of flows that are bound to it and not connected. Such a
   * socket looks like a service's. Borrowed: changes at any time.
   */
  readonly datagramPorts: Uint8Array;
  /** Let the packet threads carry packets. Needed only with EnginePlan.waitsForBegin. */
  begin(): void;
  /** Resolves with the cause when a packet thread fails. The engine does not work without it: stop it. */
  readonly failed: Promise<Error>;
  /** Sums over all threads, by name; lost packets as `drop.<cause>`. Counters that are 0 are left out. */
  counters(): Record<string, number>;
  /** Add counters of another process, which `source` reads, to the sums of counters(). */
  countBeside(source: () => Partial<Readonly<Record<CounterName, number>>>): void;
  /** The same per packet thread, with its name: `packets`, or `reader`, `shard N`, `host-io`, or `lane N`. */
  threadCounters(): readonly ThreadCounters[];
  /** Histograms of all threads: [value, count] pairs, values rising. Empty histograms are left out. */
  histograms(): readonly EngineHistogram[];
  /** The host's resolvers have changed. @param list  addresses, as AddressPlan.resolvers */
  setResolvers(list: readonly string[]): void;
  /** Offer these NAT64 prefixes in router advertisements, at once and from now on; none at the start. */
  setPref64(list: readonly Pref64[]): void;
  /** Change the emulated lines. Without effect if EnginePlan.shaping was absent. */
  setShaping(plan: ShapingPlan): void;
  /** The host's network has changed. */
  hostChanged(change: HostChange): void;
  /**
   * Let the host-io thread wait for a descriptor: the runtime's event loop cannot do it for most kinds.
   * @param fd  must stay open until the engine has stopped
   * @param onReadable  called once, when there is something to read or an error
   * @returns a function that arms the watch again. An event that came in between is reported then
   */
  watchReadable(fd: number, onReadable: () => void): () => void;
  /**
   * Let the host-io thread wait until the other end of a pipe or socket is closed.
   * @param fd  must stay open until the engine has stopped
   * @param onHangUp  called once
   */
  watchHangUp(fd: number, onHangUp: () => void): void;
  /**
   * Listen on the ports of `list` and stop listening on all others. Connections that exist stay open.
   * @returns the ports that could not be bound; the others are open
   */
  setListeners(list: readonly ListenerPlan[]): Promise<readonly ListenFailure[]>;
  /**
   * Stop listening on the ports of `remove`, then listen on those of `add`. All other listeners stay.
   * @returns the ports of `add` that could not be bound; their index is that in `add`
   */
  changeListeners(
    remove: readonly ListenerPlan[],
    add: readonly ListenerPlan[],
  ): Promise<readonly ListenFailure[]>;
  /**
   * Replace the egress policy. New flows are subject to the new one; flows that exist and that it denies are
   * ended; all others are left alone.
   * @param plan  undefined: none. Its `names` are those of the plan before
   * @returns how many flows were ended, when all packet threads have it
   */
  setEgress(plan: EgressPlan | undefined): Promise<number>;
  /** What only the packet threads know. Asks each of them. */
  measure(): Promise<EngineMeasures>;
  /**
   * Capture frames from now on.
   * @throws Error with a text of one line: a capture runs already, or its file cannot be written
   */
  startCapture(start: CaptureStart): void;
  /** End the capture; resolves when its file is complete. @returns whether one was running */
  stopCapture(): Promise<boolean>;
  /** Write out the frames that a capture keeps in memory. @returns one line about it; undefined: no capture runs */
  dumpCapture(): string | undefined;
  /** At most `limit` flows in the order of their ids, beginning after the id `after` (-1: with the first). */
  listFlows(after: number, limit: number): Promise<FlowList>;
}

/** A published port could not be bound at the start. */
export class ListenError extends Error {
  override readonly name = 'ListenError';
  readonly listener: ListenerPlan;
  readonly failure: ListenFailure;

  constructor(listener: ListenerPlan, failure: ListenFailure) {
    const port = failure.port === 0 ? `${listener.port}-${listener.lastPort}` : `${failure.port}`;
    const where = listener.address === '' ? port : `${listener.address}:${port}`;
    super(
      `cannot publish ${listener.proto} port ${where}: ${errnoText(failure.errno)}${privilegedPortRemedy(failure, listener)}`,
    );
    this.listener = listener;
    this.failure = failure;
  }
}

/** Advice for EACCES at a port that is reserved for root on this host; empty for another cause. */
function privilegedPortRemedy({ errno, port }: ListenFailure, listener: ListenerPlan): string {
  const failed = port || listener.port;
  if (errno !== Errno.EACCES) return '';
  let start: number;
  try {
    start = Number(readFileSync('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'utf8'));
  } catch {
    start = 1024; // the kernel's default
  }
  if (!(failed < start)) return '';
  const high = failed + 8000;
  return `; ports below ${start} are root's on this host: publish ${high}:${listener.targetPort + failed - listener.port}, or as root: sysctl -w net.ipv4.ip_unprivileged_port_start=${failed}`;
}

export interface ThreadCounters {
  readonly thread: string;
  readonly counters: Record<string, number>;
}

/** The answer to EngineHandle.measure(). */
export interface EngineMeasures {
  /** Live flows; combinations that there are none of are left out. */
  readonly flows: readonly FlowCount[];
  /** Slots of the pool, and those that are not free. */
  readonly pool: Readonly<Record<'small' | 'large', { readonly slots: number; readonly used: number }>>;
}

export interface EngineHistogram extends HistogramInfo {
  readonly buckets: readonly (readonly [value: number, count: number])[];
}

/**
 * Makes a capture for the engine, and opens its file.
 * @throws Error with a text of one line
 */
export type CaptureStart = (source: CaptureSource) => Capture;

export interface EngineOptions {
  onLog?(level: 'error' | 'warning' | 'info' | 'debug', text: string): void;
  /** Frames are captured from the start. */
  readonly capture?: CaptureStart | undefined;
  /** A packet thread that is booting already: it becomes thread 0 (fused, or the pipeline's reader). */
  readonly booted?: BootedThread;
}

/** Random keys for EnginePlan.hashKey and isnKey, from the kernel. @throws Error */
export function engineKeys(): Pick<EnginePlan, 'hashKey' | 'isnKey'> {
  // Without node:crypto: loading it would take a noticeable part of a container's start time.
  const b = Buffer.alloc(24);
  const fd = openSync('/dev/urandom', 'r');
  const got = readSync(fd, b);
  closeSync(fd);
  if (got !== b.length) throw new Error(`/dev/urandom gave ${got} of ${b.length} bytes`);
  const w = (i: number): number => b.readUInt32LE(i * 4);
  return { hashKey: [w(0), w(1)], isnKey: [w(2), w(3), w(4), w(5)] };
}

/**
 * Start the engine. Resolves when every thread is ready and every published port is bound.
 * @throws ListenError for a port that could not be bound, Error with a text of one line for another cause
 */
export async function startEngine(plan: EnginePlan, options: EngineOptions = {}): Promise<EngineHandle> {
  const engine = new Engine(plan, options);
  await engine.start();
  return engine;
}

class Engine implements EngineHandle {
  readonly #plan: EnginePlan;
  readonly #options: EngineOptions;
  readonly #threads: ThreadPlan;
  readonly #sab: SharedArrayBuffer;
  readonly #layout: Layout;
  readonly #i32: Int32Array;
  readonly #control = new SharedArrayBuffer(CONTROL_BYTES);
  readonly #views = controlViews(this.#control);
  readonly #doorbellFds: readonly number[];
  /** The capture that runs. */
  #capture: Capture | undefined;
  #captureShare: CaptureShare | undefined;
  #beside: (() => Partial<Readonly<Record<CounterName, number>>>) | undefined;
  readonly #logs: LogReader;
  #logLoop: Promise<void> | undefined;
  /** Lines of the last REPEAT_MS, and when they came. */
  readonly #lines = new Map<string, number>();
  /** Runs the shards of a pipeline. */
  #pool: ThreadPool | undefined;
  /** By thread. */
  readonly #ports: Port[] = [];
  readonly #threadsReady: Promise<void>[] = [];
  /** By thread: resolves when it has reported that it stopped, or has ended. */
  readonly #ended: Promise<unknown>[] = [];
  readonly #failure = Promise.withResolvers<Error>();
  #stopping = false;
  /** Opens lanes and gives them up; only where they are elastic. */
  #lanes: ElasticLanes | undefined;
  /** Changes of the plan since the start, for lanes that open later; undefined: none. */
  #resolvers: readonly string[] | undefined;
  #pref64: readonly Pref64[] | undefined;
  #hostChange: HostChange | undefined;
  /** Holds the policy once it was changed. */
  #egress: { readonly plan?: EgressPlan } | undefined;
  /** Lane whose thread is being started; -1: none. */
  #opening = -1;
  /** Ends the wait for that thread. */
  #abandonOpening: (() => void) | undefined;
  /** Requests that wait for an answer, oldest first; the first one is for the listeners of the plan. */
  readonly #listening: PromiseWithResolvers<readonly ListenFailure[]>[] = [Promise.withResolvers()];
  /** By thread: requests `share` that wait for an answer, oldest first. */
  readonly #sharing: readonly PromiseWithResolvers<void>[][];
  /** By thread: requests that wait for an answer, oldest first. */
  readonly #flowPages: readonly PromiseWithResolvers<FlowPage>[][];
  /** By thread: requests `slots` that wait for an answer, oldest first. */
  readonly #slotsAsked: readonly PromiseWithResolvers<SlotCount>[][];
  /** By thread: requests `egress` that wait for an answer, oldest first. */
  readonly #egressTaken: readonly PromiseWithResolvers<number>[][];
  readonly #onReadable = new Map<number, () => void>();
  readonly failed = this.#failure.promise;
  readonly datagramPorts = this.#views.datagramPorts;
  eventRings: readonly number[] | undefined;

  constructor(plan: EnginePlan, options: EngineOptions) {
    this.#plan = plan;
    this.#options = options;
    const threads = threadPlan(plan.threads);
    this.#threads = threads;
    // Each flow and each published port needs a descriptor. The runtimes raise the limit too, but do not
    // document it.
    raiseOpenFiles();
    const { sab, layout } = engineMemory(plan, { ringDescriptors: RING_DESCRIPTORS, logBytes: LOG_BYTES });
    this.#sab = sab;
    this.#layout = layout;
    this.#i32 = new Int32Array(sab, 0, Math.floor(sab.byteLength / 4));
    const guestMac = plan.addresses.guestMac === undefined ? null : macParse(plan.addresses.guestMac);
    if (plan.threads.kind === 'lanes') divideBuckets(this.#views.laneOf, startedThreads(plan.threads));
    // Broadcast reaches the guest until its MAC is known.
    this.#views.neighbours[0] = guestMac === null ? 1 : 0;
    this.#views.guestMac.set(guestMac ?? [0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    this.#doorbellFds = Array.from({ length: threads.threads }, () => {
      const fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
      if (fd < 0) throw new Error(`eventfd: errno ${-fd}`);
      return fd;
    });
    this.#flowPages = Array.from({ length: threads.threads }, () => []);
    this.#sharing = Array.from({ length: threads.threads }, () => []);
    this.#slotsAsked = Array.from({ length: threads.threads }, () => []);
    this.#egressTaken = Array.from({ length: threads.threads }, () => []);
    this.#logs = new LogReader(sab, layout);
    if (options.capture !== undefined) this.#makeCapture(options.capture);
  }

  /** A thread has ended. While the engine stops that is no failure. */
  readonly #threadFailed = (error: Error): void => {
    if (!this.#stopping) this.#failure.resolve(error);
  };

  /** To be called once. @throws as startEngine() */
  async start(): Promise<void> {
    const { shards } = this.#threads;
    const firstListening = this.#listening[0]!.promise;
    if (this.#plan.threads.kind === 'pipeline') {
      this.#pool = await startPool(packetProgram(), shards);
      void this.#pool.failed.then(this.#threadFailed);
    }
    for (let thread = 0; thread < startedThreads(this.#plan.threads); thread++) this.#startThread(thread);
    this.#logLoop = this.#readLogs();
    // However the process ends, Node joins its threads first, and packet threads sleep in system calls.
    process.once('exit', this.#endThreads);
    try {
      await this.#ready(firstListening);
      if (laneCount(this.#plan.threads) > 1) this.#watchLanes();
    } catch (cause) {
      await Promise.race([this.stop(), new Promise((resolve) => setTimeout(resolve, GIVE_UP_MS))]);
      if (cause instanceof ListenError) throw cause;
      throw new Error(firstLine(cause), { cause });
    }
  }

  /** Prepare for lanes that open later. To be called before the sandbox is entered. */
  /** Divide the load among the lanes, and open and close those that are elastic. */
  #watchLanes(): void {
    const { lanes, first = lanes } = this.#plan.threads as Extract<ThreadsPlan, { kind: 'lanes' }>;
    const program = first < lanes ? holdPacketProgram() : undefined;
    this.#lanes = new ElasticLanes(new LaneGrowth(first, lanes, this.#plan.impairment?.busyShare), first, {
      start: (lane) => this.#startLane(lane, program!),
      post: (lane, message) => this.#postTo(lane, message),
      tell: (level, text) => this.#options.onLog?.(level, text),
    });
    const turnMs = this.#plan.impairment?.lanesTurnMs;
    if (turnMs !== undefined) this.#lanes.takeTurns(turnMs);
  }

  /**
   * Start the thread of a lane while the engine runs. The first packet thread does it, as the main thread may
   * be in the guest's network namespace.
   * @throws Error with a text of one line; the engine goes on without the lane
   */
  async #startLane(lane: number, program: HeldProgram): Promise<void> {
    const { port1, port2 } = channel();
    this.#ports[lane] = port1;
    this.#opening = lane;
    const ready = Promise.withResolvers<void>();
    const stopped = Promise.withResolvers<void>();
    const timer = setTimeout(() => ready.reject(new Error('its thread is not ready')), LANE_LIMIT_MS);
    this.#abandonOpening = () => ready.reject(new Error('the engine stops'));
    listenOn(port1, (report: ThreadReport) => this.#onReport(lane, report, ready, stopped));
    onClose(port1, () => {
      stopped.resolve();
      ready.reject(new Error('its thread has ended'));
    });
    const task = { ...this.#task(lane, port2), inSandbox: true } as const;
    // stop() waits for a thread that is being started, too: it must not find its descriptors closed.
    this.#ended.push(stopped.promise);
    this.#postTo(0, { kind: 'startThread', program, name: `packet thread ${lane}`, task }, [port2]);
    try {
      await ready.promise;
    } catch (cause) {
      stopped.resolve();
      this.#ports.length = lane;
      port1.close();
      for (const asked of this.#flowPages[lane]!.splice(0)) asked.resolve(NO_FLOWS);
      for (const asked of this.#sharing[lane]!.splice(0)) asked.resolve();
      for (const asked of this.#egressTaken[lane]!.splice(0)) asked.resolve(0);
      for (const asked of this.#slotsAsked[lane]!.splice(0)) asked.resolve({ small: 0, large: 0 });
      throw cause;
    } finally {
      clearTimeout(timer);
      this.#opening = -1;
      this.#abandonOpening = undefined;
    }
    if (this.#resolvers !== undefined) this.#postTo(lane, { kind: 'resolvers', list: this.#resolvers });
    if (this.#pref64 !== undefined) this.#postTo(lane, { kind: 'pref64', list: this.#pref64 });
    if (this.#hostChange !== undefined) this.#postTo(lane, { kind: 'host', change: this.#hostChange });
    if (this.#egress !== undefined) void this.#askForEgress(lane, this.#egress);
  }

  #task(thread: number, port: Port): ThreadTask {
    return {
      ...{ thread, plan: this.#plan, sab: this.#sab, layout: this.#layout, port },
      ...{ doorbellFds: this.#doorbellFds, control: this.#control },
      ...(this.#captureShare && { capture: this.#captureShare }),
      processors: availableParallelism(),
    };
  }

  #startThread(thread: number): void {
    const { port1, port2 } = channel();
    this.#ports.push(port1);
    const ready = Promise.withResolvers<void>();
    ready.promise.catch(() => {}); // #ready() may no longer wait for it
    this.#threadsReady.push(ready.promise);
    const stopped = Promise.withResolvers<void>();
    listenOn(port1, (report: ThreadReport) => this.#onReport(thread, report, ready, stopped));
    const task = this.#task(thread, port2);
    const { hostThread } = this.#threads;
    if (this.#pool !== undefined && thread !== 0 && thread !== hostThread) {
      const run = this.#pool.run(task, [port2]).catch(this.#threadFailed);
      this.#ended.push(Promise.race([run, stopped.promise]));
      return;
    }
    const { worker, failed } =
      (thread === 0 ? this.#options.booted : undefined) ?? bootPacketThread(`packet thread ${thread}`);
    // The thread may have failed already, before its events are listened to here.
    void failed.then((error) => {
      stopped.resolve();
      this.#threadFailed(error);
    });
    worker.onExit(() => stopped.resolve());
    this.#ended.push(stopped.promise);
    worker.post(task, [port2]);
  }

  #onReport(
    thread: number,
    report: ThreadReport,
    ready: PromiseWithResolvers<void>,
    stopped: PromiseWithResolvers<void>,
  ): void {
    if (report.kind === 'ready') {
      this.eventRings ??= report.eventRings;
      ready.resolve();
    } else if (report.kind === 'stopped') stopped.resolve();
    else if (report.kind === 'listening') this.#listening.shift()?.resolve(report.failures);
    else if (report.kind === 'shared') this.#sharing[thread]!.shift()?.resolve();
    else if (report.kind === 'egress') this.#egressTaken[thread]!.shift()?.resolve(report.ended);
    else if (report.kind === 'readable') this.#onReadable.get(report.fd)?.();
    else if (report.kind === 'flows') this.#flowPages[thread]!.shift()?.resolve(report.page);
    else if (report.kind === 'slots') this.#slotsAsked[thread]!.shift()?.resolve(report.used);
    else if (report.kind !== 'failed') this.#lanes?.onReport(thread, report);
    else {
      const error = new Error(report.message);
      ready.reject(error);
      // A lane that cannot be opened does not end the engine (#startLane).
      if (this.#opening !== thread) this.#failure.resolve(error);
    }
  }

  /** Wait until all threads are ready and all listeners that must not fail are bound. */
  async #ready(firstListening: Promise<readonly ListenFailure[]>): Promise<void> {
    // A thread may end before it is ready and without a report (out of memory, a module that does not load).
    const early = this.failed.then((error) => {
      throw error;
    });
    early.catch(() => {});
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      late.reject(new Error(`packet threads are not ready after ${START_LIMIT_MS / 1000} s`));
    }, START_LIMIT_MS);
    try {
      const ready = Promise.all([Promise.all(this.#threadsReady), firstListening]);
      const [, failures] = await Promise.race([ready, early, late.promise]);
      const { listeners } = this.#plan;
      const failure = failures.find((f) => !listeners[f.index]!.mayFail);
      if (failure !== undefined) throw new ListenError(listeners[failure.index]!, failure);
    } finally {
      clearTimeout(timer);
    }
  }

  async #readLogs(): Promise<void> {
    while (!this.#stopping) {
      this.#drainLogs();
      await this.#logs.wait(LOG_WAIT_MS);
    }
  }

  #drainLogs(): void {
    this.#logs.drain((level, text) => {
      if (this.#isNew(text)) this.#options.onLog?.(LOG_LEVELS[level] ?? 'info', text);
    });
  }

  /** Several lanes may report the same event: whether no line of this text came in the last REPEAT_MS. */
  #isNew(text: string): boolean {
    if (this.#plan.threads.kind !== 'lanes') return true;
    const now = performance.now();
    for (const [line, ms] of this.#lines) if (now - ms > REPEAT_MS) this.#lines.delete(line);
    if (this.#lines.has(text)) return false;
    if (this.#lines.size < MAX_LINES) this.#lines.set(text, now);
    return true;
  }

  begin(): void {
    Atomics.store(this.#views.begun, 0, 1);
    Atomics.notify(this.#views.begun, 0);
  }

  readonly #endThreads = (): void => {
    requestStop(this.#i32, this.#layout);
    this.begin();
    for (const fd of this.#doorbellFds) eventfdWrite(fd);
  };

  async stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#lanes?.stop();
    this.#onReadable.clear();
    this.#endThreads();
    // Ring the log bell so that the log loop wakes and sees the stop.
    const bell = this.#layout.logBellAt >>> 2;
    Atomics.add(this.#i32, bell, 1);
    Atomics.notify(this.#i32, bell);
    // The first thread may have ended before it read that it is to start another one.
    const late = setTimeout(() => this.#abandonOpening?.(), GIVE_UP_MS);
    await Promise.all(this.#ended);
    clearTimeout(late);
    await this.#logLoop;
    this.#drainLogs();
    for (const port of this.#ports) port.close();
    await this.#pool?.destroy();
    process.off('exit', this.#endThreads);
    for (const fd of this.#doorbellFds) close(fd);
    await this.#capture?.end();
  }

  #post(message: ThreadMessage): void {
    for (const port of this.#ports) port.postMessage(message);
    Atomics.add(this.#views.messageCount, 0, 1);
    for (const fd of this.#doorbellFds) eventfdWrite(fd);
  }

  #postTo(thread: number, message: ThreadMessage, ports: readonly Port[] = []): void {
    this.#ports[thread]!.postMessage(message, ports as never);
    Atomics.add(this.#views.messageCount, 0, 1); // all threads share the count; the others find no message
    eventfdWrite(this.#doorbellFds[thread]!);
  }

  /** @param added  rules whose ports are to be bound */
  async #askForListeners(
    message: ThreadMessage,
    added: readonly ListenerPlan[],
  ): Promise<readonly ListenFailure[]> {
    if (this.#plan.threads.kind === 'lanes' && added.some(({ proto }) => proto === 'udp')) {
      const lanes = this.#ports.map((_, lane) => lane).slice(1);
      await Promise.all(lanes.map((lane) => this.#askToShare(lane, added)));
    }
    const answer = Promise.withResolvers<readonly ListenFailure[]>();
    this.#listening.push(answer);
    this.#post(message);
    return answer.promise;
  }

  /** A lane makes UDP ports sharable that its flows' sockets are bound to. */
  #askToShare(lane: number, list: readonly ListenerPlan[]): Promise<void> {
    const answer = Promise.withResolvers<void>();
    this.#sharing[lane]!.push(answer);
    this.#postTo(lane, { kind: 'share', list });
    return answer.promise;
  }

  readonly #askForFlows: FlowPages = (section, from, limit) => {
    const { shards, shardThread, hostThread } = this.#threads;
    const thread = section < shards ? shardThread(section) : hostThread;
    if (this.#ports[thread] === undefined) return Promise.resolve(NO_FLOWS); // a lane that was never opened
    const answer = Promise.withResolvers<FlowPage>();
    this.#flowPages[thread]!.push(answer);
    this.#postTo(thread, { kind: 'flows', section, from, limit });
    return answer.promise;
  };

  counters(): Record<string, number> {
    const counters = namedCounters(countersSum(this.#sab, this.#layout));
    const lost = this.#capture?.lostByWriting ?? 0;
    if (lost > 0) counters.pcapLost = (counters.pcapLost ?? 0) + lost;
    for (const [name, value] of Object.entries(this.#beside?.() ?? {}))
      if (value > 0) counters[name] = (counters[name] ?? 0) + value;
    return counters;
  }

  countBeside(source: () => Partial<Readonly<Record<CounterName, number>>>): void {
    this.#beside = source;
  }

  #makeCapture(start: CaptureStart): void {
    const { threads, shards } = this.#threads;
    const { guestMac } = this.#views;
    const capture = start({
      threads,
      areLanes: this.#plan.threads.kind === 'lanes',
      counters: () => this.counters(),
      // Broadcast stands for a MAC that is not known yet.
      mac: () => (guestMac[0] === 0xff ? undefined : guestMac.slice()),
      warn: (text) => this.#options.onLog?.('warning', text),
    });
    this.#capture = capture;
    this.#captureShare = {
      task: capture.task,
      ...(capture.task.options && {
        names: new SharedArrayBuffer(SocketNames.bytes(shards * this.#plan.pool.flows)),
      }),
    };
    capture.start();
  }

  startCapture(start: CaptureStart): void {
    if (this.#capture !== undefined && !this.#capture.hasEnded) throw new Error('a capture runs already');
    this.#makeCapture(start);
    this.#post({ kind: 'capture', capture: this.#captureShare! });
  }

  async stopCapture(): Promise<boolean> {
    const capture = this.#capture;
    if (capture === undefined || capture.hasEnded) return false;
    this.#captureShare = undefined;
    this.#post({ kind: 'capture' });
    await capture.end();
    return true;
  }

  dumpCapture(): string | undefined {
    return this.#capture?.hasEnded === false ? this.#capture.dump() : undefined;
  }

  threadCounters(): readonly ThreadCounters[] {
    const { threadName } = this.#threads;
    return Array.from({ length: this.#ports.length }, (_, thread) => ({
      thread: threadName(thread),
      counters: namedCounters(countersView(this.#sab, this.#layout, thread)),
    }));
  }

  histograms(): readonly EngineHistogram[] {
    const sum = countersSum(this.#sab, this.#layout);
    return HISTOGRAMS.map((info) => {
      const buckets: [number, number][] = [];
      for (let b = 0; b < HISTOGRAM_BUCKETS; b++) {
        const count = sum[HISTOGRAM_BASE + Histogram[info.name as HistogramName] + b]!;
        if (count > 0) buckets.push([histogramValue(b), count]);
      }
      return { ...info, buckets };
    }).filter((h) => h.buckets.length > 0);
  }

  setResolvers(list: readonly string[]): void {
    this.#post({ kind: 'resolvers', list });
    this.#resolvers = list;
  }

  setPref64(list: readonly Pref64[]): void {
    this.#post({ kind: 'pref64', list });
    this.#pref64 = list;
  }

  setShaping(plan: ShapingPlan): void {
    this.#post({ kind: 'shaping', plan });
  }

  hostChanged(change: HostChange): void {
    this.#post({ kind: 'host', change });
    // The index of the interface says that there is none now, where it is absent.
    const { linkLocalScope: _, ...before } = this.#hostChange ?? {};
    this.#hostChange = { ...before, ...change };
  }

  async setEgress(plan: EgressPlan | undefined): Promise<number> {
    const egress = plan === undefined ? {} : { plan };
    this.#egress = egress;
    const ended = await Promise.all(this.#ports.map((_, thread) => this.#askForEgress(thread, egress)));
    return ended.reduce((sum, n) => sum + n, 0);
  }

  #askForEgress(thread: number, egress: { readonly plan?: EgressPlan }): Promise<number> {
    const answer = Promise.withResolvers<number>();
    this.#egressTaken[thread]!.push(answer);
    this.#postTo(thread, { kind: 'egress', ...egress });
    return answer.promise;
  }

  watchHangUp(fd: number, onHangUp: () => void): void {
    this.#onReadable.set(fd, onHangUp);
    this.#postTo(this.#threads.hostThread, { kind: 'watch', fd, hangUp: true });
  }

  watchReadable(fd: number, onReadable: () => void): () => void {
    this.#onReadable.set(fd, onReadable);
    const wait = (): void => {
      if (!this.#stopping) this.#postTo(this.#threads.hostThread, { kind: 'watch', fd });
    };
    wait();
    return wait;
  }

  setListeners(list: readonly ListenerPlan[]): Promise<readonly ListenFailure[]> {
    return this.#askForListeners({ kind: 'listeners', list }, list);
  }

  changeListeners(
    remove: readonly ListenerPlan[],
    add: readonly ListenerPlan[],
  ): Promise<readonly ListenFailure[]> {
    return this.#askForListeners({ kind: 'changeListeners', remove, add }, add);
  }

  async measure(): Promise<EngineMeasures> {
    const [flows, ...used] = await Promise.all([
      countFlows(this.#askForFlows, this.#threads.shards),
      ...this.#ports.map((_, thread) => this.#askForSlots(thread)),
    ]);
    const { smallSlots, largeSlots } = this.#layout;
    const sum = (kind: keyof SlotCount): number => used.reduce((n, slots) => n + slots[kind], 0);
    return {
      flows,
      pool: {
        small: { slots: smallSlots, used: sum('small') },
        large: { slots: largeSlots, used: sum('large') },
      },
    };
  }

  #askForSlots(thread: number): Promise<SlotCount> {
    const answer = Promise.withResolvers<SlotCount>();
    this.#slotsAsked[thread]!.push(answer);
    this.#postTo(thread, { kind: 'slots' });
    return answer.promise;
  }

  listFlows(after: number, limit: number): Promise<FlowList> {
    return listFlows(this.#askForFlows, this.#threads.shards, after, limit);
  }
}

function namedCounters(words: Float64Array): Record<string, number> {
  const named: Record<string, number> = {};
  COUNTERS.forEach((info, i) => {
    if (words[i] !== 0) named[info.name] = words[i]!;
  });
  for (let cause = 1; cause <= DROP_MAX; cause++) {
    const n = words[DROP_BASE + cause]!;
    if (n === 0) continue;
    const name = dropName(-cause);
    named[`drop.${name === 'unknown' ? stageDropName(-cause) : name}`] = n;
  }
  return named;
}

function firstLine(cause: unknown): string {
  const text = cause instanceof Error ? cause.message : String(cause);
  const line = text.split('\n', 1)[0] ?? text;
  return line.startsWith('Error: ') ? line.slice(7) : line;
}
