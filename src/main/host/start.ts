/**
 * How every front end that runs an engine starts, serves and ends. `run`, `attach`, `pasta` and `slirp4netns`
 * differ in the hooks in the right column. A hook with a question mark is optional.
 *
 *   step                                       hook
 *   ────                                       ────
 *   open the sockets that watch the host       nat64?
 *   begin to set up the namespace (netns.ts)
 *   load the engine's modules
 *   namespace made                             startCommand?    start COMMAND's chain, which waits
 *   TAP made                                   plan             describe the engine to start
 *                                              openCapture?     describe the capture to start with it
 *   start the engine
 *   interface configured                       configured
 *   engine started                             engineStarted?
 *   follow the host's network and resolvers    following
 *   open the API socket                        openApi?
 *   serve the engine's metrics                 metrics?
 *                                              beforeSandbox    load and open what is needed later
 *   detach from host and caller (host/sandbox.ts)
 *   enter the sandbox                          enterSandbox?    do something before or after
 *                                              ready            let COMMAND run, inform the caller
 *   two seconds later: drop mapped code (idle-memory.ts)
 *   wait for the first end                     ends, engineFailed?
 *                                              served?
 *   stop everything                            stop?, then the engine, then afterEngine?
 *
 * A thread that opens host sockets must have been started before the main thread moves into the namespace
 * (netns.ts). So the watch of the host is opened first, and the front end has booted a packet thread before
 * it calls serve().
 */
import { startFinished } from '#runtime/program';
import { SIGUSR1 } from '../../sys/constants.ts';
import { DeferredClose } from '../../sys/deferred-close.ts';
import type { RouteSocket } from '../../sys/netlink.ts';
import { signalUnblock } from '../../sys/process.ts';
import type * as EngineModule from '../../workers/engine.ts';
import type { CaptureStart, EngineHandle } from '../../workers/engine.ts';
import type { EnginePlan } from '../../workers/engine-plan.ts';
import type { BootedThread } from '../../workers/packet-worker.ts';
import type { ApiSocket } from '../api/socket.ts';
import { closeInheritedOnExec, fewDescriptors } from '../process/inherited-descriptors.ts';
import type { SwitchedConnections } from '../switching/switched-connections.ts';
import { FileWatch } from './file-watch.ts';
import { type Followed, type Following, followHost } from './follow.ts';
import { HostWatch } from './host-watch.ts';
import { IdleMemory } from './idle-memory.ts';
import type { Log } from './log.ts';
import type * as Nat64Module from './nat64.ts';
import { type Nat64Wish, openQuerySocket } from './nat64-wish.ts';
import type { Netns, NetnsError, SocketsInside } from './netns.ts';
import { detachFromHost, enterSandbox, type Leaving, type SandboxPlan } from './sandbox.ts';
import { Stopwatch } from './stopwatch.ts';

export type EngineLoaded = typeof EngineModule;
export type SetUpStep = 'namespace' | 'tap' | 'configured';

/** The server of --metrics, which listens since before the namespace was set up (main/metrics/endpoint.ts). */
export interface MetricsEndpoint {
  /** Answer requests from now on; before, they wait. Call it before the root is exchanged. */
  serve(engine: EngineHandle, switched: SwitchedConnections | undefined): void;
  /** For SandboxPlan.removable. */
  readonly directories: readonly number[];
  close(): void;
}

/** What a front end needs in the sandbox. serve() adds its own directories to `readable` and `removable`. */
export interface Sandbox extends Omit<Leaving, 'eventRings' | 'log'>, Partial<SandboxPlan> {}

/**
 * The hooks of a front end. `Job` is the input of the namespace's set-up, `Made` its report about the TAP.
 */
export interface FrontEnd<Job extends SocketsInside, Made> {
  readonly log: Log;
  /** A packet thread started before the main thread may move, so it stays in the host's network namespace. */
  readonly booted: BootedThread;
  readonly netns: Netns<Job, Made>;
  readonly job: Job;
  /** Closed by serve(). */
  readonly metrics?: MetricsEndpoint | undefined;
  /** Read when the engine has started. Absent: no socket switching. */
  readonly switched?: SwitchedConnections | undefined;
  /**
   * Gives the descriptors of the TAP's queues if its namespace ends with this process: the kernel may then
   * close them after our end (sys/deferred-close.ts). Absent: the namespace belongs to another program.
   */
  readonly tapOfOurs?: ((made: Made) => readonly number[]) | undefined;

  /** How to find the NAT64 prefix of the host's network; absent: it does not matter. */
  readonly nat64?: Nat64Wish | undefined;

  /**
   * Set-up of the namespace failed.
   * @returns the error that serve() throws. Does not return if this process executes another program
   *   (reenter.ts)
   */
  setUpFailed?(error: NetnsError, step: SetUpStep): Error | Promise<Error>;
  /**
   * Start COMMAND's chain. Absent: there is no COMMAND.
   * @param namespaceFd  of the new namespace
   */
  readonly startCommand?: ((namespaceFd: number) => void) | undefined;
  /**
   * Describe the engine to start.
   * @param host  queries the host's network, in whichever namespace the main thread is
   */
  plan(made: Made, engine: EngineLoaded, host: RouteSocket): EnginePlan | Promise<EnginePlan>;
  /** The capture that begins with the engine. Absent, or undefined: none. */
  openCapture?(made: Made): CaptureStart | undefined;
  /**
   * The interface is configured.
   * @param notes  what failed and is not needed for traffic
   */
  configured(notes: readonly string[], made: Made): void;
  /**
   * The engine did not start.
   * @returns the error that serve() throws
   */
  engineNotStarted?(error: Error, engine: EngineLoaded): Error;
  engineStarted?(engine: EngineHandle, made: Made): void | Promise<void>;
  /**
   * What to follow.
   * @returns undefined if changes of the host's network do not matter
   */
  following(engine: EngineHandle, made: Made): Following | undefined;
  openApi?(engine: EngineHandle, made: Made): Promise<ApiSocket | undefined>;
  /**
   * Load modules and open files that are needed later: in the sandbox no module can be loaded and no path
   * resolves.
   * @param files  watches names and files, in the sandbox too; none can be added there
   */
  beforeSandbox(engine: EngineHandle, files: FileWatch, made: Made): Sandbox | Promise<Sandbox>;
  /** Must call `close`, which enters the sandbox. Absent: serve() calls it. */
  enterSandbox?(close: () => void): void;
  ready?(made: Made): void;
  /** Promises of exit statuses: the first that resolves ends the service. */
  ends(): readonly Promise<number>[];
  /**
   * A packet thread failed, or the thread that opens sockets in the namespace.
   * @returns the exit status. @throws Error. Absent: serve() throws `error`
   */
  engineFailed?(error: Error): number;
  /** The service has ended; the engine still runs. */
  served?(status: number, engine: EngineHandle): void;
  /**
   * Called before the engine is stopped, also after a failed start.
   * @param failed  the start or the service failed
   */
  stop?(failed: boolean): void;
  /** Called last: the process ends next. */
  afterEngine?(): void;
}

/**
 * Start, serve until the end, stop everything.
 * @returns the exit status
 * @throws Error whose message is meant for the user
 */
export async function serve<Job extends SocketsInside, Made>(front: FrontEnd<Job, Made>): Promise<number> {
  signalUnblock(SIGUSR1); // bin/launch.sh. The front end has its handlers by now
  const service = new Service(front);
  let failed = true;
  try {
    const status = await service.run();
    failed = false;
    return status;
  } finally {
    await service.end(failed);
  }
}

class Service<Job extends SocketsInside, Made> {
  readonly #front: FrontEnd<Job, Made>;
  readonly #steps = new Stopwatch();
  readonly #deferredClose: DeferredClose | undefined;
  readonly #watch = new HostWatch();
  readonly #querySocket: number;
  #engine: EngineHandle | undefined;
  #files: FileWatch | undefined;
  #followed: Followed | undefined;
  #api: ApiSocket | undefined;
  #tapFds: readonly number[] = [];
  #idleMemory: IdleMemory | undefined;

  constructor(front: FrontEnd<Job, Made>) {
    this.#front = front;
    this.#deferredClose = front.tapOfOurs && new DeferredClose();
    this.#querySocket = front.nat64?.choice === 'auto' ? openQuerySocket() : -1;
  }

  async run(): Promise<number> {
    const front = this.#front;
    const nat64 = front.nat64 && import('./nat64.ts');
    nat64?.catch(() => {}); // awaited below
    const { made, engine } = await this.#start();
    await front.engineStarted?.(engine, made);
    const { switched } = front;
    if (switched !== undefined) engine.countBeside(() => switched.counts());
    if (front.startCommand !== undefined) this.#steps.lap('command ready');
    const files = new FileWatch(engine);
    this.#files = files;
    const following = front.following(engine, made);
    if (following !== undefined) this.#followed = this.#follow(following, engine, files, await nat64);
    this.#api = await front.openApi?.(engine, made);
    front.metrics?.serve(engine, switched);
    const sandbox = await front.beforeSandbox(engine, files, made);
    front.log('debug', `start: ${this.#steps.text()}`);
    this.#enterSandbox(engine, {
      ...sandbox,
      ...(following?.configuresNetwork !== undefined && { configuresNetwork: following.configuresNetwork }),
    });
    engine.begin();
    front.ready?.(made);
    this.#idleMemory?.ready();
    this.#steps.lap('ready');
    this.#steps.print();
    const outcome = await Promise.race([engine.failed, front.netns.failed, ...front.ends()]);
    this.#steps.lap('ended');
    const status = outcome instanceof Error ? this.#engineFailed(outcome) : outcome;
    if (!(outcome instanceof Error)) await front.switched?.refresh();
    front.served?.(status, engine);
    return status;
  }

  #follow(
    following: Following,
    engine: EngineHandle,
    files: FileWatch,
    nat64: typeof Nat64Module | undefined,
  ): Followed {
    const { log, nat64: wish } = this.#front;
    const { resolvers } = following;
    const watch = this.#watch;
    const found = wish && nat64?.followNat64(wish, this.#querySocket, engine, watch.host, resolvers, log);
    return followHost(watch, files, engine, following, log, found);
  }

  /** Start the engine and configure the interface at the same time. */
  async #start(): Promise<{ readonly made: Made; readonly engine: EngineHandle }> {
    const front = this.#front;
    const { netns, log } = front;
    netns.start(front.job);
    const loading = import('../../workers/engine.ts');
    loading.catch(() => {}); // awaited below
    if (front.startCommand !== undefined) {
      const namespaceFd = await this.#step('namespace', netns.namespaceFd);
      this.#steps.lap('namespace made');
      closeInheritedOnExec();
      front.startCommand(namespaceFd);
      this.#steps.lap('chain spawned');
    }
    const made = await this.#step('tap', netns.tap);
    this.#steps.lap('TAP made');
    this.#tapFds = front.tapOfOurs?.(made) ?? [];
    const module = await loading;
    const plan = await front.plan(made, module, this.#watch.host);
    const capture = front.openCapture?.(made);
    const starting = module.startEngine(plan, { onLog: log, booted: front.booted, capture });
    starting.catch(() => {});
    front.configured(await this.#step('configured', netns.configured), made);
    const few = fewDescriptors();
    if (few !== undefined) log('warning', few);
    this.#steps.lap('interface configured');
    const started = starting.catch((error: Error) => {
      throw front.engineNotStarted?.(error, module) ?? error;
    });
    // Its listeners may need sockets of the namespace, and wait long for them (workers/splice/splice.ts).
    const engine = await Promise.race([started, netns.failed]);
    if (engine instanceof Error) throw engine;
    this.#steps.lap('engine started');
    this.#engine = engine;
    return { made, engine };
  }

  #step<Result>(step: SetUpStep, done: Promise<Result>): Promise<Result> {
    return done.catch(async (error: NetnsError) => {
      throw (await this.#front.setUpFailed?.(error, step)) ?? error;
    });
  }

  #enterSandbox({ eventRings }: EngineHandle, sandbox: Sandbox): void {
    const front = this.#front;
    this.#idleMemory = new IdleMemory();
    const detached = detachFromHost({ ...sandbox, eventRings, log: front.log });
    const close = (): void =>
      enterSandbox(
        {
          signals: [],
          watchesProcess: false,
          ...sandbox,
          readable: [...(this.#followed?.readable ?? []), ...(sandbox.readable ?? [])],
          removable: [
            ...(this.#api?.directories ?? []),
            ...(front.metrics?.directories ?? []),
            ...(sandbox.removable ?? []),
          ],
        },
        detached,
      );
    if (front.enterSandbox === undefined) close();
    else front.enterSandbox(close);
    startFinished();
    this.#steps.lap('sandbox closed');
    front.log('debug', `start: ${this.#steps.last}`);
  }

  #engineFailed(error: Error): number {
    if (this.#front.engineFailed === undefined) throw error;
    return this.#front.engineFailed(error);
  }

  async end(failed: boolean): Promise<void> {
    const front = this.#front;
    this.#watch.stop();
    this.#files?.stop();
    this.#followed?.stop();
    this.#idleMemory?.stop();
    front.stop?.(failed);
    this.#api?.close();
    front.metrics?.close();
    await endWithin(this.#engine);
    this.#steps.lap('engine stopped');
    this.#steps.print();
    if (this.#tapFds.length > 0) this.#deferredClose?.leave(this.#tapFds);
    front.afterEngine?.();
  }
}

const STOP_LIMIT_MS = 1000;

/** Stop the engine, but wait at most STOP_LIMIT_MS: a thread may hang or have ended by an error. */
export async function endWithin(engine: EngineHandle | undefined): Promise<void> {
  if (engine === undefined) return;
  const limit = new Promise((resolve) => setTimeout(resolve, STOP_LIMIT_MS));
  await Promise.race([engine.stop().catch(() => {}), limit]);
}
