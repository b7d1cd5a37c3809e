// bundle: thread packet-thread
/**
 * Entry of every packet thread: a piscina worker for shards, a plain Worker for reader, host-io and the fused thread. Builds
 * its stages from the plan and runs the reactor until the engine stops. It never returns to the event loop before that: no timers,
 * no console here; the log goes through a ring, control messages come on a port that is looked at when `mail` changes.
 */
import { availableParallelism } from 'node:os';
import {
  isMainThread,
  type MessagePort,
  parentPort,
  receiveMessageOnPort,
  workerData,
} from 'node:worker_threads';
import { Counter, countersView } from '../ring/counters.ts';
import { Doorbell } from '../ring/doorbell.ts';
import { type Layout, sleepingAt, stopRequested } from '../ring/layout.ts';
import { FramePool, Ownership, SlotStack } from '../ring/pool.ts';
import { CheckedRingProducer, RingConsumer, RingProducer } from '../ring/spsc.ts';
import { keepCapabilities } from '../sys/capability.ts';
import { EPOLLET, EPOLLIN, EPOLLRDHUP } from '../sys/constants.ts';
import { findEventRings } from '../sys/event-rings.ts';
import { eventfdWrite, reserveDescriptors } from '../sys/io.ts';
import { scopeAbstractSockets } from '../sys/landlock.ts';
import { errnoText } from '../sys/libc.ts';
import { addressOf, mapLargeArrays } from '../sys/memory.ts';
import { flowCapabilities, USER_CHANGE } from './capabilities.ts';
import type { EnginePlan, HostChange, ListenerPlan, SplicePlan } from './engine-plan.ts';
import { type FlowPage, type FlowSource, flowPage, NO_FLOWS } from './flow-report.ts';
import { HostIo } from './host-io/host-io.ts';
import { type ListenFailure, listenerCount } from './host-io/listener-table.ts';
import { Owner } from './link/slot-owner.ts';
import { LogLevel, LogWriter } from './log-ring.ts';
import { Notice, Notices } from './notices.ts';
import type { TaskFollows } from './packet-worker.ts';
import { PcapWriter } from './pcap.ts';
import { DATAGRAM_PORTS_AT, LinkRing, PORTS, SEEN_AT, SEEN_WORDS, slotShares, threadPlan } from './plan.ts';
import { Reactor } from './reactor.ts';
import { ShortLook } from './short-look.ts';
import { Splice } from './splice/splice.ts';
import type { Stage } from './stage.ts';
import { TapReader } from './tap-reader.ts';
import { Shard } from './translator/shard.ts';

/** For so many the table of descriptors is left as it is. */
const FEW_LISTENERS = 128;
/** Open beside the listeners, at most, when they are made. */
const OTHER_DESCRIPTORS = 128;

/** What a packet thread is given at its start. */
export interface ThreadTask {
  readonly thread: number;
  readonly plan: EnginePlan;
  readonly sab: SharedArrayBuffer;
  readonly layout: Layout;
  /** eventfd of each packet thread's doorbell. */
  readonly doorbellFds: readonly number[];
  /** Shared by all: plan.ts, SIDE_BYTES. */
  readonly side: SharedArrayBuffer;
  readonly port: MessagePort;
  readonly pcapFd: number;
}

/** thread -> main. `stopped`: its stages are closed and it touches nothing shared any more; V8's own tidying is still to come. */
export type ThreadReport =
  /** `eventRings` from the only packet thread: those of all loops, its own and the main thread's. */
  | { readonly kind: 'ready'; readonly eventRings?: readonly number[] }
  | { readonly kind: 'stopped' }
  | { readonly kind: 'failed'; readonly message: string }
  /** The answer to `listeners` and `changeListeners`, and before `ready` from the host-io thread. */
  | { readonly kind: 'listening'; readonly failures: readonly ListenFailure[] }
  /** The answer to `watch`: there is something to read, or an error. */
  | { readonly kind: 'readable'; readonly fd: number }
  /** The answer to `flows`. */
  | { readonly kind: 'flows'; readonly page: FlowPage };
/** main -> thread. */
export type ThreadMail =
  | { readonly kind: 'resolvers'; readonly list: readonly string[] }
  | { readonly kind: 'host'; readonly change: HostChange }
  | { readonly kind: 'listeners'; readonly list: readonly ListenerPlan[] }
  | {
      readonly kind: 'changeListeners';
      readonly remove: readonly ListenerPlan[];
      readonly add: readonly ListenerPlan[];
    }
  /** To the host-io thread alone: tell once when `fd` is readable, or with `hangUp` when its other end is closed. It must stay open as long as the engine runs. */
  | { readonly kind: 'watch'; readonly fd: number; readonly hangUp?: boolean }
  /** To the section's thread alone (flow-report.ts). */
  | {
      readonly kind: 'flows';
      readonly section: number;
      readonly from: number;
      readonly limit: number;
    };

const WATCH = EPOLLIN | EPOLLET;

export default function runThread(task: ThreadTask): void {
  try {
    new PacketThread(task).run();
  } catch (cause) {
    const message = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
    task.port.postMessage({ kind: 'failed', message } satisfies ThreadReport);
  }
}

class PacketThread {
  readonly #task: ThreadTask;
  readonly #i32: Int32Array;
  readonly #doorbells: Doorbell[];
  readonly #counters: Float64Array;
  readonly #seen: Uint32Array;
  readonly #log: LogWriter;
  readonly #stages: Stage[] = [];
  readonly #order: Stage[] = [];
  readonly #reactor: Reactor;
  readonly #mail: Int32Array;
  /** Of descriptors that the main thread waits for: the token is the descriptor. */
  readonly #readable: number;
  #mailSeen = 0;
  #shards: Shard[] = [];
  #fatal: string | null = null;
  #hostIo: HostIo | null = null;
  /** Sections of flow-report.ts that are this thread's. */
  readonly #flowSources = new Map<number, FlowSource>();

  constructor(task: ThreadTask) {
    this.#task = task;
    const { sab, layout, plan, thread } = task;
    mapLargeArrays();
    this.#i32 = new Int32Array(sab, 0, Math.floor(sab.byteLength / 4));
    this.#mail = new Int32Array(task.side, 0, 2);
    this.#seen = new Uint32Array(task.side, SEEN_AT, SEEN_WORDS);
    this.#counters = countersView(sab, layout, thread);
    this.#log = new LogWriter(sab, layout, thread, LogLevel[plan.logLevel]);
    const wakes = this.#counters;
    const ring = (fd: number): void => {
      wakes[Counter.wakes]!++;
      eventfdWrite(fd);
    };
    this.#doorbells = task.doorbellFds.map(
      (fd, i) => new Doorbell(this.#i32, sleepingAt(layout, i) >>> 2, fd, ring),
    );
    // On one processor nothing can come while we look; between the threads of a pipeline looks cost more than they bring (decision 003).
    const looks = plan.threads.kind === 'fused' && availableParallelism() > 1;
    this.#reactor = new Reactor(
      this.#doorbells[thread]!,
      task.doorbellFds[thread]!,
      this.#counters,
      () => this.#stopped(),
      looks ? new ShortLook() : null,
    );
    this.#readable = this.#reactor.handler((fd) => {
      task.port.postMessage({ kind: 'readable', fd } satisfies ThreadReport);
    });
    this.#build();
  }

  #stopped(): boolean {
    const mail = Atomics.load(this.#mail, 0);
    if (mail !== this.#mailSeen) {
      this.#mailSeen = mail;
      this.#readMail();
    }
    return this.#fatal !== null || stopRequested(this.#i32, this.#task.layout);
  }

  #readMail(): void {
    for (;;) {
      const got = receiveMessageOnPort(this.#task.port);
      if (got === undefined) return;
      const mail = got.message as ThreadMail;
      if (mail.kind === 'resolvers') for (const shard of this.#shards) shard.setResolvers(mail.list);
      else if (mail.kind === 'host') {
        for (const shard of this.#shards) shard.hostChanged(mail.change);
        this.#hostIo?.hostChanged(mail.change);
      } else if (mail.kind === 'flows') this.#reportFlows(mail.section, mail.from, mail.limit);
      else if (mail.kind === 'watch') this.#watchForMain(mail.fd, mail.hangUp === true);
      else if (mail.kind === 'changeListeners') {
        if (this.#hostIo !== null) this.#reportListening(this.#hostIo.changeListeners(mail.remove, mail.add));
      } else if (this.#hostIo !== null) this.#listen(this.#hostIo, mail.list);
    }
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
    const source = this.#flowSources.get(section);
    const page = source === undefined ? NO_FLOWS : flowPage(source, from, limit);
    this.#task.port.postMessage({ kind: 'flows', page } satisfies ThreadReport);
  }

  #build(): void {
    const { sab, layout, plan, thread } = this.#task;
    const withTap = plan.tap === undefined ? undefined : { ...plan, tap: plan.tap };
    const threads = threadPlan(plan.threads);
    const shards = threads.shards;
    const pool = new FramePool(sab, layout, addressOf(new Uint8Array(sab)));
    const ownership = new Ownership(sab, layout, plan.debugOwnership === true);
    const shares = slotShares(plan.pool.smallSlots, plan.pool.largeSlots, shards);
    const counters = this.#counters;
    const notices = new Notices((level, text) => this.#log.log(LogLevel[level], text));
    const onLost = (errno: number): void => {
      counters[Counter.pcapLost]!++;
      const why = `--pcap ${plan.pcapFile}: ${errnoText(errno)}: frames are missing from it`;
      notices.tell(Notice.pcapLost, 'warning', why);
    };
    const pcap =
      this.#task.pcapFd >= 0
        ? new PcapWriter(this.#task.pcapFd, pool.baseAddress, this.#mail, onLost)
        : undefined;
    const Producer = ownership.on ? CheckedRingProducer : RingProducer;
    const to = (ring: number, owner: number): RingProducer =>
      new Producer(sab, layout, ring, owner === thread ? null : this.#doorbells[owner]!, counters);
    const from = (ring: number, producer: number): RingConsumer =>
      new RingConsumer(sab, layout, ring, producer === thread ? null : this.#doorbells[producer]!);
    const allShards = Array.from({ length: shards }, (_, i) => i);
    const guestMac = new Uint8Array(this.#task.side, 8, 6);
    const seen = this.#seen;

    if (withTap !== undefined && thread === threads.readerThread) {
      ownership.assign(...shares.readerSmall, Owner.reader);
      ownership.assign(...shares.readerLarge, Owner.reader);
      const reader = new TapReader({
        plan: withTap,
        pool,
        ownership,
        counters,
        smallSlots: new SlotStack(...shares.readerSmall),
        largeSlots: new SlotStack(...shares.readerLarge),
        toShards: allShards.map((s) => to(LinkRing.readerToShard(s), threads.shardThread(s))),
        freed: [
          ...allShards.map((s) => from(LinkRing.shardToReader(s), threads.shardThread(s))),
          from(LinkRing.hostToReader(shards), threads.hostThread),
        ],
        pcap,
        notices,
        onFatal: (text) => {
          this.#fatal = text;
        },
      });
      this.#stages.push(reader);
      this.#reactor.watch(
        this.#reactor.handler(() => reader.onReadable()),
        withTap.tap.fd,
        WATCH,
        0,
      );
    }
    for (const s of allShards) {
      if (withTap === undefined || threads.shardThread(s) !== thread) continue;
      const shard = new Shard({
        shard: s,
        plan: withTap,
        pool,
        ownership,
        counters,
        scratchSlot: shares.scratchLarge[0] + s,
        dnsSlots: [shares.dnsLarge + s * shares.dnsEach, shares.dnsEach],
        guestMac,
        seen,
        fromReader: from(LinkRing.readerToShard(s), threads.readerThread),
        toReader: to(LinkRing.shardToReader(s), threads.readerThread),
        fromHost: from(LinkRing.hostToShard(s), threads.hostThread),
        toHost: to(LinkRing.shardToHost(s), threads.hostThread),
        pcap,
        notices,
      });
      this.#shards.push(shard);
      this.#flowSources.set(s, shard);
      this.#stages.push(shard);
    }
    if (thread === threads.hostThread) {
      ownership.assign(...shares.hostSmall, Owner.hostIo);
      ownership.assign(...shares.hostLarge, Owner.hostIo);
      let handler = -1;
      const splice = plan.splice === undefined ? undefined : this.#buildSplice(plan, plan.splice, notices);
      const host = new HostIo({
        plan,
        pool,
        ownership,
        counters,
        smallSlots: new SlotStack(...shares.hostSmall),
        largeSlots: new SlotStack(...shares.hostLarge),
        toShards: allShards.map((s) => to(LinkRing.hostToShard(s), threads.shardThread(s))),
        fromShards: allShards.map((s) => from(LinkRing.shardToHost(s), threads.shardThread(s))),
        toReader: to(LinkRing.hostToReader(shards), threads.readerThread),
        loopback: splice,
        seen,
        datagramPorts: new Uint8Array(this.#task.side, DATAGRAM_PORTS_AT, PORTS),
        watch: (fd, gid, events) => this.#reactor.watch(handler, fd, events, gid),
        notices,
      });
      handler = this.#reactor.handler((gid, events) => host.onEvents(gid, events));
      this.#hostIo = host;
      this.#stages.push(host);
      if (splice !== undefined) {
        this.#stages.push(splice);
        splice.flowSources.forEach((source, i) => {
          this.#flowSources.set(shards + i, source);
        });
      }
    }
    this.#order.push(...this.#stages);
    // What the sockets said goes to the guest in the same round instead of after another look at the TAP.
    if (plan.threads.kind === 'fused' && withTap !== undefined) this.#order.push(this.#shards[0]!);
  }

  #buildSplice(plan: EnginePlan, splice: SplicePlan, notices: Notices): Splice {
    const reactor = this.#reactor;
    let streams = -1;
    let flows = -1;
    let listeners = -1;
    const stage = new Splice({
      plan,
      splice,
      seen: this.#seen,
      counters: this.#counters,
      bellFd: this.#task.doorbellFds[this.#task.thread]!,
      watchStream: (fd, token, events) => reactor.watch(streams, fd, events, token),
      watchFlow: (fd, token, events) => reactor.watch(flows, fd, events, token),
      watchListener: (fd, token, events) => reactor.watch(listeners, fd, events, token),
      notices,
    });
    streams = reactor.handler((token, events) => stage.onStream(token, events));
    flows = reactor.handler((token) => stage.onFlow(token));
    listeners = reactor.handler((token) => stage.onListener(token));
    return stage;
  }

  run(): void {
    try {
      const { changesUser } = this.#task.plan;
      const dropped = keepCapabilities([...flowCapabilities(), ...(changesUser ? USER_CHANGE : [])]);
      if (dropped < 0) throw new Error(`capset: errno ${-dropped}`);
      scopeAbstractSockets(); // not on kernels before 6.12
      // Now, not behind the sockets of all published ports. Among several threads others may still be booting.
      const alone = threadPlan(this.#task.plan.threads).threads === 1;
      const eventRings = alone ? findEventRings() : undefined;
      // What cannot be listened on is for the front end to judge, which may stop the engine.
      if (this.#hostIo !== null) this.#listen(this.#hostIo, this.#task.plan.listeners);
      this.#task.port.postMessage({
        kind: 'ready',
        ...(eventRings && { eventRings }),
      } satisfies ThreadReport);
      this.#reactor.run(this.#order);
    } finally {
      for (const stage of this.#stages) stage.close();
      this.#reactor.close();
      this.#task.port.postMessage({ kind: 'stopped' } satisfies ThreadReport);
    }
    if (this.#fatal !== null) {
      this.#task.port.postMessage({ kind: 'failed', message: this.#fatal } satisfies ThreadReport);
    }
  }
}

// A plain Worker gets its task as its first message; piscina calls the default export instead (its own workerData is its business).
if (!isMainThread && isTaskFollows(workerData)) parentPort!.once('message', runThread);

function isTaskFollows(data: unknown): data is TaskFollows {
  return typeof data === 'object' && data !== null && 'taskFollows' in data;
}
