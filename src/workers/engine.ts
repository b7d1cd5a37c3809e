/**
 * Starts and stops the packet threads of a plan. Runs on the main thread, which never touches a packet.
 */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { MessageChannel, type MessagePort, SHARE_ENV } from 'node:worker_threads';
import type { Piscina } from 'piscina';
import { dropName } from '../proto/drop.ts';
import { macParse } from '../proto/ethernet.ts';
import {
  COUNTERS,
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
import { allocateShared, requestStop } from '../ring/layout.ts';
import {
  EFD_CLOEXEC,
  EFD_NONBLOCK,
  Errno,
  O_APPEND,
  O_CREAT,
  O_NONBLOCK,
  O_TRUNC,
  O_WRONLY,
} from '../sys/constants.ts';
import { close, eventfd, eventfdWrite, setNonBlocking } from '../sys/io.ts';
import { errnoText } from '../sys/libc.ts';
import { addressOf } from '../sys/memory.ts';
import { raiseOpenFiles } from '../sys/process.ts';
import type { EnginePlan, HostChange, ListenerPlan } from './engine-plan.ts';
import { type FlowList, type FlowPages, listFlows } from './flow-list.ts';
import type { FlowPage } from './flow-report.ts';
import type { ListenFailure } from './host-io/listener-table.ts';
import { stageDropName } from './link/stage-drop.ts';
import { LOG_LEVELS } from './log-levels.ts';
import { LogReader } from './log-ring.ts';
import type { ThreadMail, ThreadReport, ThreadTask } from './packet-thread.ts';
import { type BootedThread, bootPacketThread } from './packet-worker.ts';
import { PcapWriter } from './pcap.ts';
import { DATAGRAM_PORTS_AT, PORTS, SIDE_BYTES, threadPlan } from './plan.ts';

const RING_DESCRIPTORS = 2048;
const LOG_BYTES = 16 * 1024;
const LOG_WAIT_MS = 60_000;
/** For all threads to be ready, on a loaded machine too. */
const START_LIMIT_MS = 60_000;
/** For them to end, where they could not be started. */
const GIVE_UP_MS = 1000;

export interface EngineHandle {
  /** Ends all packet threads and closes what they held; the TAP descriptor stays the caller's. */
  stop(): Promise<void>;
  /** Descriptors of all event loops' rings (event-rings.ts), where there is one packet thread: found before it listened on ports. */
  readonly eventRings: readonly number[] | undefined;
  /** Per port: UDP sockets of flows on the host that are bound to it and not connected, as those of services are. Borrowed, changes. */
  readonly datagramPorts: Uint8Array;
  /** Settles (with the cause) when a packet thread dies; an engine with a dead thread is no engine. */
  readonly failed: Promise<Error>;
  /** Sums over all threads, by name; lost packets as `drop.<cause>`. Counters that are 0 are left out. */
  counters(): Record<string, number>;
  /** The same for each packet thread by itself, with what it runs: `packets`, or `reader`, `shard N`, `host-io`. */
  threadCounters(): readonly ThreadCounters[];
  /** What the packet threads measured: per histogram [value, count] pairs, values rising; empty ones are left out. */
  histograms(): readonly EngineHistogram[];
  /** The host's resolvers have changed. */
  setResolvers(list: readonly string[]): void;
  /** The host's network has changed. */
  hostChanged(change: HostChange): void;
  /**
   * Have the host-io thread wait for a descriptor, as Node's event loop cannot for most kinds.
   * @param fd  stays open until the engine has stopped
   * @param onReadable  called once: there is something to read, or an error
   * @returns to be called for the next time; what comes before that is told then
   */
  watchReadable(fd: number, onReadable: () => void): () => void;
  /**
   * Have the host-io thread wait until the other end of a pipe or socket is closed.
   * @param fd  stays open until the engine has stopped
   * @param onHangUp  called once
   */
  watchHangUp(fd: number, onHangUp: () => void): void;
  /**
   * Listen on the ports of these rules and no others; connections of ports that are no longer listened on go on.
   * @returns what could not be had; the rest is open
   */
  setListeners(list: readonly ListenerPlan[]): Promise<readonly ListenFailure[]>;
  /**
   * Stop listening on some ports, then listen on others as well. All else stays, and is not sent again.
   * @returns what could not be had, by place in `add`
   */
  changeListeners(
    remove: readonly ListenerPlan[],
    add: readonly ListenerPlan[],
  ): Promise<readonly ListenFailure[]>;
  /** Flows in the order of their ids, from behind `after` on (-1: from the first), `limit` at the most. */
  listFlows(after: number, limit: number): Promise<FlowList>;
}

/** A published port could not be had, at the start. */
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

/** What helps against EACCES at a port that this host keeps for root; nothing where something else is the reason. */
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

export interface EngineHistogram extends HistogramInfo {
  readonly buckets: readonly (readonly [value: number, count: number])[];
}

export interface EngineOptions {
  onLog?(level: 'error' | 'warning' | 'info' | 'debug', text: string): void;
  /** A packet thread that boots already; thread 0 (fused, or the pipeline's reader) takes it over. */
  readonly booted?: BootedThread;
}

/** Two keys for EnginePlan.hashKey and isnKey, from the kernel's generator. */
export function engineKeys(): Pick<EnginePlan, 'hashKey' | 'isnKey'> {
  // Not node:crypto: loading it would be a noticeable part of a container's start.
  const b = Buffer.alloc(24);
  const fd = openSync('/dev/urandom', 'r');
  const got = readSync(fd, b);
  closeSync(fd);
  if (got !== b.length) throw new Error(`/dev/urandom gave ${got} of ${b.length} bytes`);
  const w = (i: number): number => b.readUInt32LE(i * 4);
  return { hashKey: [w(0), w(1)], isnKey: [w(2), w(3), w(4), w(5)] };
}

/**
 * Start the engine; resolves when every thread is ready and every published port is bound.
 * @throws Error with one line that says what could not be done
 */
export async function startEngine(plan: EnginePlan, options: EngineOptions = {}): Promise<EngineHandle> {
  const threads = threadPlan(plan.threads);
  raiseOpenFiles(); // a descriptor for each flow and each published port; Node has done it, but does not promise to
  const { sab, layout } = allocateShared(
    {
      smallSlots: plan.pool.smallSlots,
      largeSlots: plan.pool.largeSlots,
      rings: threads.rings,
      ringDescriptors: RING_DESCRIPTORS,
      counterBlocks: threads.threads,
      logBytes: LOG_BYTES,
    },
    addressOf,
  );
  const i32 = new Int32Array(sab, 0, Math.floor(sab.byteLength / 4));
  const side = new SharedArrayBuffer(SIDE_BYTES);
  const mail = new Int32Array(side, 0, 2);
  const guestMac = plan.addresses.guestMac === undefined ? null : macParse(plan.addresses.guestMac);
  // Until the guest has been heard: broadcast reaches it whoever it is.
  new Uint8Array(side, 8, 6).set(guestMac ?? [0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
  const doorbellFds = Array.from({ length: threads.threads }, () => {
    const fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) throw new Error(`eventfd: errno ${-fd}`);
    return fd;
  });
  const pcapFd = plan.pcapFile === undefined ? -1 : openPcap(plan.pcapFile);

  const pool = plan.threads.kind === 'fused' ? undefined : await shardPool(threads.shards);
  const ports: MessagePort[] = [];
  let reportFailure: (error: Error) => void = () => {};
  const failed = new Promise<Error>((resolve) => {
    reportFailure = resolve;
  });
  let stopping = false;
  let eventRings: readonly number[] | undefined;
  // Answers come in the order of the requests; the first is that of the plan's own listeners.
  const listening: PromiseWithResolvers<readonly ListenFailure[]>[] = [Promise.withResolvers()];
  const firstListening = listening[0]!.promise;
  /** By thread, in the order of the requests. */
  const flowPages = Array.from({ length: threads.threads }, (): PromiseWithResolvers<FlowPage>[] => []);
  const onReadable = new Map<number, () => void>();
  /** Of each thread: it has told that it stopped, or it is gone. */
  const ended: Promise<unknown>[] = [];
  const readies: Promise<void>[] = [];

  for (let thread = 0; thread < threads.threads; thread++) {
    const { port1, port2 } = new MessageChannel();
    ports.push(port1);
    const stopped = Promise.withResolvers<void>();
    readies.push(
      new Promise<void>((resolve, reject) => {
        port1.on('message', (report: ThreadReport) => {
          if (report.kind === 'ready') {
            eventRings = report.eventRings;
            resolve();
          } else if (report.kind === 'stopped') stopped.resolve();
          else if (report.kind === 'listening') listening.shift()?.resolve(report.failures);
          else if (report.kind === 'readable') onReadable.get(report.fd)?.();
          else if (report.kind === 'flows') flowPages[thread]!.shift()?.resolve(report.page);
          else {
            const error = new Error(report.message);
            reject(error);
            reportFailure(error);
          }
        });
      }),
    );
    const task: ThreadTask = { thread, plan, sab, layout, doorbellFds, side, port: port2, pcapFd };
    if (pool !== undefined && thread !== threads.readerThread && thread !== threads.hostThread) {
      ended.push(
        pool.run(task, { transferList: [port2] as never }).then(
          () => undefined,
          (error: Error) => {
            if (!stopping) reportFailure(error);
          },
        ),
      );
    } else {
      const { worker, failed: died } =
        (thread === 0 ? options.booted : undefined) ?? bootPacketThread(`packet thread ${thread}`);
      // It may be gone already: its events have been, then.
      void died.then((error) => {
        stopped.resolve();
        reportFailure(error);
      });
      worker.on('exit', () => stopped.resolve());
      ended.push(stopped.promise);
      worker.postMessage(task, [port2]);
    }
  }

  const logs = new LogReader(sab, layout);
  const drain = (): void => {
    logs.drain((level, text) => options.onLog?.(LOG_LEVELS[level] ?? 'info', text));
  };
  const logLoop = (async () => {
    while (!stopping) {
      drain();
      await logs.wait(LOG_WAIT_MS);
    }
  })();

  const endThreads = (): void => {
    requestStop(i32, layout);
    for (const fd of doorbellFds) eventfdWrite(fd);
  };
  // Node joins its threads at the end of the process, whatever brings it, and these sleep in system calls.
  process.once('exit', endThreads);

  const stop = async (): Promise<void> => {
    if (stopping) return;
    stopping = true;
    onReadable.clear();
    endThreads();
    // The log loop sleeps on the bell: an empty line's worth of noise ends it.
    Atomics.add(i32, layout.logBellAt >>> 2, 1);
    Atomics.notify(i32, layout.logBellAt >>> 2);
    await Promise.all(ended);
    await logLoop;
    drain();
    for (const port of ports) port.close();
    await pool?.destroy();
    process.off('exit', endThreads);
    for (const fd of doorbellFds) close(fd);
    if (pcapFd >= 0) closeSync(pcapFd);
  };

  // A thread that dies before it is ready may do so without a report (out of memory, a module that does not load).
  const early = failed.then((error) => {
    throw error;
  });
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    late.reject(new Error(`packet threads are not ready after ${START_LIMIT_MS / 1000} s`));
  }, START_LIMIT_MS);
  try {
    const ready = Promise.all([Promise.all(readies), firstListening]);
    const [, failures] = await Promise.race([ready, early, late.promise]);
    const failure = failures.find((f) => !plan.listeners[f.index]!.mayFail);
    if (failure !== undefined) throw new ListenError(plan.listeners[failure.index]!, failure);
  } catch (cause) {
    early.catch(() => {});
    for (const ready of readies) ready.catch(() => {});
    await Promise.race([stop(), new Promise((resolve) => setTimeout(resolve, GIVE_UP_MS))]);
    if (cause instanceof ListenError) throw cause;
    throw new Error(firstLine(cause), { cause });
  } finally {
    clearTimeout(timer);
  }
  early.catch(() => {});
  for (const ready of readies) ready.catch(() => {});

  const post = (message: ThreadMail): void => {
    for (const port of ports) port.postMessage(message);
    Atomics.add(mail, 0, 1);
    for (const fd of doorbellFds) eventfdWrite(fd);
  };

  const postTo = (thread: number, message: ThreadMail): void => {
    ports[thread]!.postMessage(message);
    Atomics.add(mail, 0, 1); // the others look, and find nothing
    eventfdWrite(doorbellFds[thread]!);
  };

  const askForListeners = (message: ThreadMail): Promise<readonly ListenFailure[]> => {
    const answer = Promise.withResolvers<readonly ListenFailure[]>();
    listening.push(answer);
    post(message);
    return answer.promise;
  };

  const askForFlows: FlowPages = (section, from, limit) => {
    const thread = section < threads.shards ? threads.shardThread(section) : threads.hostThread;
    const answer = Promise.withResolvers<FlowPage>();
    flowPages[thread]!.push(answer);
    postTo(thread, { kind: 'flows', section, from, limit });
    return answer.promise;
  };

  return {
    stop,
    eventRings,
    datagramPorts: new Uint8Array(side, DATAGRAM_PORTS_AT, PORTS),
    failed,
    counters: () => namedCounters(countersSum(sab, layout)),
    threadCounters: () =>
      Array.from({ length: threads.threads }, (_, thread) => ({
        thread: threads.threadName(thread),
        counters: namedCounters(countersView(sab, layout, thread)),
      })),
    histograms: () => {
      const sum = countersSum(sab, layout);
      return HISTOGRAMS.map((info) => {
        const buckets: [number, number][] = [];
        for (let b = 0; b < HISTOGRAM_BUCKETS; b++) {
          const count = sum[HISTOGRAM_BASE + Histogram[info.name as HistogramName] + b]!;
          if (count > 0) buckets.push([histogramValue(b), count]);
        }
        return { ...info, buckets };
      }).filter((h) => h.buckets.length > 0);
    },
    setResolvers: (list) => post({ kind: 'resolvers', list }),
    hostChanged: (change) => post({ kind: 'host', change }),
    watchHangUp: (fd, callback) => {
      onReadable.set(fd, callback);
      postTo(threads.hostThread, { kind: 'watch', fd, hangUp: true });
    },
    watchReadable: (fd, callback) => {
      onReadable.set(fd, callback);
      const wait = (): void => {
        if (!stopping) postTo(threads.hostThread, { kind: 'watch', fd });
      };
      wait();
      return wait;
    },
    setListeners: (list) => askForListeners({ kind: 'listeners', list }),
    changeListeners: (remove, add) => askForListeners({ kind: 'changeListeners', remove, add }),
    listFlows: (after, limit) => listFlows(askForFlows, threads.shards, after, limit),
  };
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

/** Piscina is imported only where there is a pool of shards: its modules are not for the start of the fused plan. */
async function shardPool(shards: number): Promise<Piscina> {
  const { Piscina } = await import('piscina');
  const file = import.meta.url.endsWith('.ts') ? './packet-thread.ts' : './packet-thread.js';
  return new Piscina({
    filename: new URL(file, import.meta.url).href,
    minThreads: shards,
    maxThreads: shards,
    concurrentTasksPerWorker: 1,
    idleTimeout: Number.POSITIVE_INFINITY,
    env: SHARE_ENV,
  });
}

/** Several threads write whole records at its end. A FIFO is not waited for: nothing else would go on, the end included. */
function openPcap(path: string): number {
  let fd: number;
  try {
    fd = openSync(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NONBLOCK, 0o600);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENXIO')
      throw new Error(`--pcap ${path}: nobody reads it; start its reader first`, { cause });
    const { errno } = cause as NodeJS.ErrnoException;
    const why = errno === undefined ? String(cause) : errnoText(-errno);
    throw new Error(`--pcap ${path}: cannot be written: ${why}`, { cause });
  }
  setNonBlocking(fd, false); // a FIFO would take pieces of records
  const r = PcapWriter.begin(fd);
  if (r < 0) throw new Error(`--pcap ${path}: cannot be written: ${errnoText(-r)}`);
  return fd;
}

function firstLine(cause: unknown): string {
  const text = cause instanceof Error ? cause.message : String(cause);
  const line = text.split('\n', 1)[0] ?? text;
  return line.startsWith('Error: ') ? line.slice(7) : line;
}
