// bundle: thread packet-thread
/**
 * Entry of every packet thread: of a pool's threads for the shards (startPool), of single threads for reader,
 * host-io and the fused plan (startThread). A packet thread builds its stages (assembly.ts) and runs the
 * reactor until the engine stops. Until then it does not return to the event loop, so it has no timers and no
 * console. Log lines go through a ring in shared memory; messages of the main thread are read from a port
 * whenever ControlViews.messageCount changes.
 */
import { type HeldProgram, onFirstMessage, type Port, receive, startHeldProgram } from '#runtime/threads';
import type { Pref64 } from '../proto/ndp.ts';
import { Counter, countersView } from '../ring/counters.ts';
import { Doorbell } from '../ring/doorbell.ts';
import { controlViews, type Layout, sleepingAt, stopRequested } from '../ring/layout.ts';
import { keepCapabilities } from '../sys/capability.ts';
import { EPOLLIN, EPOLLRDHUP, Errno } from '../sys/constants.ts';
import { checked } from '../sys/error.ts';
import { findEventRings } from '../sys/event-rings.ts';
import { eventfdWrite, reserveDescriptors } from '../sys/io.ts';
import { scopeAbstractSockets } from '../sys/landlock.ts';
import { errnoText } from '../sys/libc.ts';
import { mapLargeArrays } from '../sys/memory.ts';
import { attachQueue, detachQueue } from '../sys/tap-queue.ts';
import { Assembly, type ThreadStages, threadStages } from './assembly.ts';
import type { CaptureTask } from './capture/capture-memory.ts';
import { FrameCapture } from './capture/frame-capture.ts';
import type { EgressPlan, EnginePlan, HostChange, ListenerPlan, ShapingPlan } from './engine-plan.ts';
import { type FlowPage, flowPage, NO_FLOWS } from './flow/flow-report.ts';
import { isnKeyOfThread } from './flow/isn-key.ts';
import type { GiveRequest } from './flow-mover.ts';
import type { HostIo } from './host-io/host-io.ts';
import { type ListenFailure, listenerCount } from './listen/listener-table.ts';
import { laneCount, queueFd, startedThreads, threadPlan } from './placement.ts';
import { flowCapabilities, USER_CHANGE } from './thread/capabilities.ts';
import { LogLevel, LogWriter } from './thread/log-ring.ts';
import { Notices } from './thread/notices.ts';
import { PrePoll } from './thread/pre-poll.ts';
import { Reactor } from './thread/reactor.ts';

/** For more listeners than this the kernel's table of descriptors is enlarged first, once. */
const FEW_LISTENERS = 128;
/** A share of processor time that is not worth a report to the main thread, after one that said the same. */
const CALM_SHARE = 0.05;
/** Most rounds of the reader before its queue is detached. */
const DRAIN_ROUNDS = 64;
const NO_SLOTS: SlotCount = { small: 0, large: 0 };
/** Most other descriptors that are open when listeners are made. */
const OTHER_DESCRIPTORS = 128;

/** What a packet thread needs to capture frames. */
export interface CaptureShare {
  readonly task: CaptureTask;
  /** Memory of SocketNames; absent: the capture has no comments. */
  readonly names?: SharedArrayBuffer;
}

/** First message to a packet thread. */
export interface ThreadTask {
  readonly thread: number;
  readonly plan: EnginePlan;
  readonly sab: SharedArrayBuffer;
  readonly layout: Layout;
  /** eventfd of each packet thread's doorbell. */
  readonly doorbellFds: readonly number[];
  /** Memory of ControlViews, which all threads share. */
  readonly control: SharedArrayBuffer;
  readonly port: Port;
  /** Frames are captured from the start. */
  readonly capture?: CaptureShare;
  /** Number of processors: in the sandbox a thread cannot find it out. */
  readonly processors: number;
  /** The thread was started in the sandbox, by `startThread`. */
  readonly inSandbox?: true;
}

/** Messages of a packet thread to the main thread. */
export type ThreadReport =
  /** `eventRings`: those of all event loops, the main thread's too; only where one packet thread starts. */
  | { readonly kind: 'ready'; readonly eventRings?: readonly number[] }
  /**
   * The thread has closed its stages and no longer accesses shared memory. The JavaScript engine may not have
   * ended yet.
   */
  | { readonly kind: 'stopped' }
  | { readonly kind: 'failed'; readonly message: string }
  /** The answer to `listeners` and `changeListeners`; the host-io thread also sends it before `ready`. */
  | { readonly kind: 'listening'; readonly failures: readonly ListenFailure[] }
  /** Only of lanes: processor time of the thread by time, and the flows that it has. */
  | { readonly kind: 'load'; readonly share: number; readonly flows: number }
  /** The answer to `give`; `left`: buckets that the lane still has, where all were to go. */
  | { readonly kind: 'gave'; readonly left: number; readonly flows: number; readonly all: boolean }
  /** The answer to `egress`: how many flows the new policy has ended. */
  | { readonly kind: 'egress'; readonly ended: number }
  /** The answer to `share`. */
  | { readonly kind: 'shared' }
  /** The answer to `queue`. errno 0: done. */
  | { readonly kind: 'queue'; readonly errno: number }
  /** The answer to `watch`: there is something to read, or an error. */
  | { readonly kind: 'readable'; readonly fd: number }
  /** The answer to `flows`. */
  | { readonly kind: 'flows'; readonly page: FlowPage }
  /** The answer to `slots`: those of the thread's stages that are not free. */
  | { readonly kind: 'slots'; readonly used: SlotCount };
/** A number of slots of each kind. */
export interface SlotCount {
  readonly small: number;
  readonly large: number;
}

/** Messages of the main thread to a packet thread. */
export type ThreadMessage =
  | { readonly kind: 'slots' }
  | { readonly kind: 'resolvers'; readonly list: readonly string[] }
  | { readonly kind: 'host'; readonly change: HostChange }
  /** Capture frames from now on; absent: no more. */
  | { readonly kind: 'capture'; readonly capture?: CaptureShare }
  /** The egress policy is another one; absent: none. */
  | { readonly kind: 'egress'; readonly plan?: EgressPlan }
  | { readonly kind: 'shaping'; readonly plan: ShapingPlan }
  /** NAT64 prefixes that router advertisements offer from now on. */
  | { readonly kind: 'pref64'; readonly list: readonly Pref64[] }
  | { readonly kind: 'listeners'; readonly list: readonly ListenerPlan[] }
  | {
      readonly kind: 'changeListeners';
      readonly remove: readonly ListenerPlan[];
      readonly add: readonly ListenerPlan[];
    }
  /**
   * To the host-io thread only: report once when `fd` is readable, or with `hangUp` when its other end is
   * closed. `fd` must stay open as long as the engine runs.
   */
  | { readonly kind: 'watch'; readonly fd: number; readonly hangUp?: boolean }
  /**
   * To a thread that is in the network namespace of the flows' sockets: start a further packet thread, which
   * inherits namespaces, capabilities and filter. The main thread may be in the guest's namespace
   * (main/host/netns.ts). The port of `task` goes to the new thread. A failure to start is reported there.
   */
  | {
      readonly kind: 'startThread';
      readonly program: HeldProgram;
      readonly name: string;
      readonly task: ThreadTask & { readonly inSandbox: true };
    }
  /** To a lane: give this share of its buckets and of its traffic to other lanes; 1: all. */
  | ({ readonly kind: 'give' } & GiveRequest)
  /** To a lane: the first one is about to listen on UDP ports that flows of this lane may be bound to. */
  | { readonly kind: 'share'; readonly list: readonly ListenerPlan[] }
  /** To a lane: attach its queue of the TAP, or detach it. */
  | { readonly kind: 'queue'; readonly attached: boolean }
  /** To the thread of the section only (flow-report.ts). */
  | {
      readonly kind: 'flows';
      readonly section: number;
      readonly from: number;
      readonly limit: number;
    };

/** Run a packet thread until the engine stops, or it fails, which it reports. */
export default function runThread(task: ThreadTask): void {
  try {
    new PacketThread(task).run();
  } catch (cause) {
    const message = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
    task.port.postMessage({ kind: 'failed', message } satisfies ThreadReport);
  }
}

/** Start another packet thread. A failure is reported on its port. */
function startPacketThread(program: HeldProgram, name: string, task: ThreadTask): void {
  try {
    startHeldProgram(program, name, task, [task.port]);
  } catch (cause) {
    const message = `${name} could not be started: ${cause instanceof Error ? cause.message : String(cause)}`;
    task.port.postMessage({ kind: 'failed', message } satisfies ThreadReport);
  }
}

class PacketThread {
  readonly #task: ThreadTask;
  readonly #i32: Int32Array;
  readonly #log: LogWriter;
  readonly #assembly: Assembly;
  readonly #built: ThreadStages;
  readonly #reactor: Reactor;
  readonly #messageCount: Int32Array;
  /** Handler of descriptors for which the main thread waits; the token is the descriptor. */
  readonly #readable: number;
  /** The thread has the published ports. */
  readonly #listens: boolean;
  #messagesSeen = 0;
  /** The last report of a load said that there is next to none. */
  #wasCalm = true;
  #fatal: string | null = null;

  constructor(task: ThreadTask) {
    this.#task = task;
    const { sab, layout, plan, thread } = task;
    mapLargeArrays();
    this.#listens = thread === threadPlan(plan.threads).hostThread;
    this.#i32 = new Int32Array(sab, 0, Math.floor(sab.byteLength / 4));
    const control = controlViews(task.control);
    this.#messageCount = control.messageCount;
    const counters = countersView(sab, layout, thread);
    this.#log = new LogWriter(sab, layout, thread, LogLevel[plan.logLevel]);
    const ring = (fd: number): void => {
      counters[Counter.wakes]!++;
      eventfdWrite(fd);
    };
    const doorbells = task.doorbellFds.map(
      (fd, i) => new Doorbell(this.#i32, sleepingAt(layout, i) >>> 2, fd, ring),
    );
    // On one processor no event can come while this thread polls. Between the threads of a pipeline polling
    // costs more than it saves (decision 003). With an emulated line nothing is gained by microseconds.
    const prePolls = plan.threads.kind !== 'pipeline' && task.processors > 1 && plan.shaping === undefined;
    this.#reactor = new Reactor(
      doorbells[thread]!,
      task.doorbellFds[thread]!,
      counters,
      () => this.#stopped(),
      prePolls ? new PrePoll() : null,
      laneCount(plan.threads) > 1 ? (share) => this.#onLoad(share) : null,
      plan.shaping !== undefined,
    );
    this.#readable = this.#reactor.handler((fd) => {
      task.port.postMessage({ kind: 'readable', fd } satisfies ThreadReport);
    });
    const bellOf = (other: number): Doorbell | null => (other === thread ? null : doorbells[other]!);
    const isnKey = isnKeyOfThread(plan.isnKey, performance.timeOrigin);
    this.#assembly = new Assembly({
      plan: { ...plan, isnKey },
      sab,
      layout,
      counters,
      bellOf,
      ownerTables: control,
    });
    const notices = new Notices((level, text) => this.#log.log(LogLevel[level], text));
    this.#built = threadStages(this.#assembly, {
      ...{ thread, reactor: this.#reactor, counters, control, notices },
      bellFd: task.doorbellFds[thread]!,
      onGiven: (request, left) => this.#onGiven(request, left),
      onFatal: (text) => {
        this.#fatal = text;
      },
    });
    if (task.capture !== undefined) this.#setCapture(task.capture);
  }

  #setCapture(share: CaptureShare | undefined): void {
    const { thread, sab, layout } = this.#task;
    const { reader, shards, hostIo } = this.#built;
    const { pool, threads } = this.#assembly;
    const counters = countersView(sab, layout, thread);
    const capture =
      share === undefined ? null : new FrameCapture(share.task, thread, pool.u8, pool.baseAddress, counters);
    reader?.setCapture(capture);
    for (const shard of shards) shard.setCapture(capture, share?.names);
    hostIo?.setCapture(share?.names, threads.hosts > 1 ? thread : 0);
  }

  /** Reads new messages of the main thread. @returns whether to stop */
  #stopped(): boolean {
    const count = Atomics.load(this.#messageCount, 0);
    if (count !== this.#messagesSeen) {
      this.#messagesSeen = count;
      this.#readMessages();
    }
    return this.#fatal !== null || stopRequested(this.#i32, this.#task.layout);
  }

  #readMessages(): void {
    for (;;) {
      const got = receive(this.#task.port);
      if (got === undefined) return;
      const message = got.message as ThreadMessage;
      const { shards, hostIo, splice } = this.#built;
      if (message.kind === 'resolvers') for (const shard of shards) shard.setResolvers(message.list);
      else if (message.kind === 'pref64') for (const shard of shards) shard.setPref64(message.list);
      else if (message.kind === 'host') {
        for (const shard of shards) shard.hostChanged(message.change);
        hostIo?.hostChanged(message.change);
      } else if (message.kind === 'capture') this.#setCapture(message.capture);
      else if (message.kind === 'egress') {
        let ended = splice?.setEgress(message.plan) ?? 0;
        for (const shard of shards) ended += shard.setEgress(message.plan);
        this.#task.port.postMessage({ kind: 'egress', ended } satisfies ThreadReport);
      } else if (message.kind === 'shaping')
        for (const lines of this.#built.lines) lines.configure(message.plan, performance.now());
      else if (message.kind === 'flows') this.#reportFlows(message.section, message.from, message.limit);
      else if (message.kind === 'slots') this.#reportSlots();
      else if (message.kind === 'startThread') startPacketThread(message.program, message.name, message.task);
      else if (message.kind === 'give') this.#built.mover!.give(message, performance.now());
      else if (message.kind === 'queue') this.#setQueue(message.attached);
      else if (message.kind === 'share') {
        hostIo?.shareWithListeners(message.list);
        this.#task.port.postMessage({ kind: 'shared' } satisfies ThreadReport);
      } else if (message.kind === 'watch') this.#watchForMain(message.fd, message.hangUp === true);
      else if (hostIo === null || !this.#listens) continue;
      else if (message.kind === 'changeListeners')
        this.#reportListening(hostIo.changeListeners(message.remove, message.add));
      else this.#listen(hostIo, message.list);
    }
  }

  #onLoad(share: number): void {
    const isCalm = share < CALM_SHARE;
    if (isCalm && this.#wasCalm) return;
    this.#wasCalm = isCalm;
    const flows = this.#built.shards[0]!.flows.count;
    this.#task.port.postMessage({ kind: 'load', share, flows } satisfies ThreadReport);
  }

  #onGiven(request: GiveRequest, left: number): void {
    const flows = this.#built.shards[0]!.flows.count;
    const all = request.share >= 1;
    this.#task.port.postMessage({ kind: 'gave', left, flows, all } satisfies ThreadReport);
  }

  #setQueue(attached: boolean): void {
    const { thread, plan } = this.#task;
    const fd = queueFd(plan.tap!, thread);
    // It may have got buckets, and flows, since it reported that it has none.
    const isEmpty = !this.#assembly.owners.hasAny(thread) && this.#built.shards[0]!.flows.count === 0;
    if (!attached && isEmpty) this.#drainQueue();
    const r = attached ? attachQueue(fd) : isEmpty ? detachQueue(fd) : -Errno.EBUSY;
    this.#task.port.postMessage({ kind: 'queue', errno: -r } satisfies ThreadReport);
  }

  /** Read what the queue has: the kernel drops it when the queue is detached. */
  #drainQueue(): void {
    const { reader } = this.#built;
    for (let round = 0; round < DRAIN_ROUNDS && reader!.poll(performance.now()) > 0; round++);
  }

  #listen(hostIo: HostIo, list: readonly ListenerPlan[]): readonly ListenFailure[] {
    const count = listenerCount(list);
    if (count > FEW_LISTENERS)
      reserveDescriptors(this.#task.doorbellFds[this.#task.thread]!, count + OTHER_DESCRIPTORS);
    const failures = hostIo.listen(list);
    this.#reportListening(failures);
    return failures;
  }

  #reportListening(failures: readonly ListenFailure[]): void {
    this.#task.port.postMessage({ kind: 'listening', failures } satisfies ThreadReport);
  }

  #watchForMain(fd: number, hangUp: boolean): void {
    const r = this.#reactor.watchOnce(this.#readable, fd, fd, hangUp ? EPOLLRDHUP : EPOLLIN);
    if (r < 0) this.#log.log(LogLevel.warning, `epoll_ctl: descriptor ${fd}: ${errnoText(-r)}`);
  }

  #reportFlows(section: number, from: number, limit: number): void {
    const source = this.#built.flowSources.get(section);
    const page = source === undefined ? NO_FLOWS : flowPage(source, from, limit);
    this.#task.port.postMessage({ kind: 'flows', page } satisfies ThreadReport);
  }

  #reportSlots(): void {
    const { reader, hostIo } = this.#built;
    const a = reader?.slotsUsed ?? NO_SLOTS;
    const b = hostIo?.slotsUsed ?? NO_SLOTS;
    const used = { small: a.small + b.small, large: a.large + b.large };
    this.#task.port.postMessage({ kind: 'slots', used } satisfies ThreadReport);
  }

  /** In the sandbox these calls are forbidden, and the thread that started this one has made them. */
  #limitPrivileges(): void {
    const { changesUser } = this.#task.plan;
    const dropped = keepCapabilities([...flowCapabilities(), ...(changesUser ? USER_CHANGE : [])]);
    if (dropped < 0) throw new Error(`capset: errno ${-dropped}`);
    scopeAbstractSockets(); // not on kernels before 6.12
  }

  run(): void {
    try {
      if (!this.#task.inSandbox) this.#limitPrivileges();
      // Searched now: after the listeners are bound there may be thousands of descriptors to look through.
      // Only for a single packet thread: others may still be booting, and their rings would be missing.
      const alone = !this.#task.inSandbox && startedThreads(this.#task.plan.threads) === 1;
      const eventRings = alone ? findEventRings() : undefined;
      // The front end decides whether a port that cannot be bound ends the engine.
      const { hostIo, order } = this.#built;
      if (this.#task.inSandbox)
        checked(attachQueue(queueFd(this.#task.plan.tap!, this.#task.thread)), 'ioctl', 'TUNSETQUEUE');
      if (hostIo !== null && this.#listens) this.#listen(hostIo, this.#task.plan.listeners);
      this.#task.port.postMessage({
        kind: 'ready',
        ...(eventRings && { eventRings }),
      } satisfies ThreadReport);
      if (this.#task.plan.waitsForBegin) Atomics.wait(controlViews(this.#task.control).begun, 0, 0);
      this.#reactor.run(order);
    } finally {
      for (const stage of this.#built.stages) stage.close();
      this.#reactor.close();
      this.#task.port.postMessage({ kind: 'stopped' } satisfies ThreadReport);
    }
    if (this.#fatal !== null) {
      this.#task.port.postMessage({ kind: 'failed', message: this.#fatal } satisfies ThreadReport);
    }
  }
}

// A thread gets its task as its first message, but for those of a pool on Node: piscina calls the default
// export.
onFirstMessage(runThread);
