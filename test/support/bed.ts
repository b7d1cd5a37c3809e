/**
 * The test bed: two network namespaces that an ordinary user may create, without access to the machine's
 * network.
 *
 *   the guest                        "host"                                 "peer": the outside world
 *   ┌────────────┐  TAP  ┌────────┐  ┌──────────────────────────────┐ veth ┌──────────────────────────────────┐
 *   │ commands   │───────│ engine │──│ 10.77.0.1/24      fd77::1/64 │──────│ 10.77.0.2, .254  fd77::2, fd77::fe│
 *   └────────────┘       └────────┘  │ default via .254 and ::fe    │      │ servers: peer-server.ts           │
 *                                    └──────────────────────────────┘      └──────────────────────────────────┘
 *
 * Host and peer share one user, mount and PID namespace. Its first process (bed-up.sh) runs until the pipe
 * from the test process closes. When the test process ends, for any reason, the kernel kills all processes of
 * the bed. The engine runs as user 1000 of a nested user namespace, without any capability over the bed.
 *
 * Process ids are those that the test process sees, for signals and /proc. `bed.pidSeenInside` converts one
 * for a command line in the bed.
 */
import { readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { type Engine, type EngineOptions, engine, type Launch, repoRoot } from './engines.ts';
import { PEER4 } from './ports.ts';
import {
  childrenOf,
  commandLine,
  descendantsOf,
  eventually,
  type Finished,
  isAlive,
  killTree,
  openFiles,
  pidInside,
  processName,
  type RunOptions,
  runToEnd,
  type Started,
  start,
} from './process.ts';

/**
 * Where a command runs: "host" and "peer" as root of the bed, "user" in the host's network as an ordinary
 * user.
 */
export type Where = 'host' | 'user' | 'peer';

export interface BedOptions {
  readonly vethMtu?: number;
  /** Addresses in the host's resolv.conf. */
  readonly resolver?: string;
  /** Created by root of the machine in its own user namespace: for programs that need subordinate ids. */
  readonly privileged?: boolean;
  /**
   * Routes without a congestion control: pasta copies the default route of the host, and netavark 2 fails on
   * one with a congestion control.
   */
  readonly plainRoutes?: boolean;
}

export interface Bed {
  /** A directory in memory that exists only in the bed. */
  readonly ramDir: string;
  run(where: Where, argv: readonly string[], options?: RunOptions): Promise<Finished>;
  start(where: Where, argv: readonly string[], options?: RunOptions): Started;
  /** Write a file in the bed's mount namespace. */
  write(path: string, content: string): void;
  /** Start the engine with a guest of its own. */
  engine(options?: EngineOptions): Promise<Guest>;
  /** Start the engine for a namespace that the caller has created. */
  attach(where: Where, options: EngineOptions, target: string): Started;
  /** The engine's own processes, found by their name. */
  enginePids(started: Started, name?: string): number[];
  /** Start `engine run OPTIONS -- COMMAND`. @returns the process; nothing is awaited */
  launch(options: EngineOptions, command: readonly string[]): Started;
  /** A namespace without network, created by the ordinary user; removed by `close`. */
  emptyGuest(): Promise<EmptyGuest>;
  /** Running processes of the bed as "PID COMMAND LINE", with the ids that they have in the bed. */
  processes(): string[];
  pidSeenInside(pid: number): number;
  /** Mount table of the bed. */
  mounts(): Promise<string>;
  close(): Promise<void>;
}

/**
 * Whether a line of Bed.processes() is the process of a front end. Its command line is `node
 * .../dist/main/pasta/main.js ...` on Node and `.../dist/bun/bucatini pasta/main ...` on Bun.
 */
export const isFrontEnd = (line: string, name: 'pasta' | 'slirp4netns'): boolean =>
  new RegExp(`[ /]${name}/main(\\.js)?( |$)`).test(line);

export interface Inside {
  /** Run a command in the guest. */
  inside(argv: readonly string[], options?: RunOptions): Promise<Finished>;
  startInside(argv: readonly string[], options?: RunOptions): Started;
}

export interface EmptyGuest extends Inside {
  readonly pid: number;
  end(): Promise<void>;
}

export interface Guest extends Inside {
  /** The process that holds the TAP. */
  readonly enginePid: number;
  readonly commandPid: number;
  readonly started: Started;
  /** All processes of the engine, without the guest's command. */
  enginePids(): number[];
  /** End the engine by SIGTERM. @returns its status */
  stop(): Promise<number>;
}

const START_TIMEOUT_MS = 10_000;
const STOP_TIMEOUT_MS = 5_000;

/** A Node program of test/support, as a command line. */
export const supportProgram = (file: string, ...args: (string | number)[]): string[] => [
  'sh',
  `${repoRoot}/scripts/node.sh`,
  `${repoRoot}/test/support/${file}`,
  ...args.map(String),
];

let serial = 0;

/**
 * The directory where the bed mounts its tmpfs: empty on any Debian, and outside the source tree.
 */
const ramDir = (): string =>
  ['/mnt', '/media', '/srv'].find((dir) => !realpathSync(repoRoot).startsWith(`${dir}/`)) ?? '/mnt';

export async function makeBed(options: BedOptions = {}): Promise<Bed> {
  const ram = ramDir();
  const namespaces = [
    ...(options.privileged ? [] : ['--user', '--map-root-user']),
    ...['--net', '--mount', '--pid', '--fork', '--mount-proc'],
  ];
  const keeper = start([
    'unshare',
    ...namespaces,
    '--kill-child',
    '--propagation',
    'private',
    '--',
    'sh',
    `${repoRoot}/test/support/bed-up.sh`,
    ram,
    String(options.vethMtu ?? 1500),
    options.resolver ?? PEER4,
    options.plainRoutes ? 'plain' : 'cubic',
  ]);
  const guests = new Set<Started>();

  const failed = (what: string): Error => new Error(`test bed: ${what}\n${keeper.printed().stderr}`);
  const keepers = await Promise.race([
    eventually('the test bed is up', START_TIMEOUT_MS, () => {
      const out = keeper.printed().stdout;
      const pidOf = (who: string): string => new RegExp(`^${who} (\\d+)$`, 'm').exec(out)?.[1] ?? '';
      return out.endsWith('up\n') && { peer: pidOf('peer'), user: pidOf('user') };
    }).catch((e: Error) => {
      killTree(keeper.pid);
      throw failed(e.message);
    }),
    keeper.exited.then((status) => {
      throw failed(`its first process ended with status ${status}`);
    }),
  ]);
  const init = childrenOf(keeper.pid)[0]!;
  const procInside = `/proc/${init}/root/proc`;

  const enter = (pid: number, net: string, argv: readonly string[]): string[] => [
    'nsenter',
    '-t',
    String(pid),
    ...(options.privileged ? [] : ['-U']),
    '-m',
    '-p',
    net,
    '--preserve-credentials',
    '--',
    ...argv,
  ];
  const asUser = ['nsenter', '-t', keepers.user, '-U', '--preserve-credentials', '--'];
  const command = (where: Where, argv: readonly string[]): string[] => {
    if (where === 'peer') return enter(init, `--net=${procInside}/${keepers.peer}/ns/net`, argv);
    return enter(init, '-n', where === 'user' ? [...asUser, ...argv] : argv);
  };

  const startAt = (where: Where, argv: readonly string[], runOptions?: RunOptions): Started =>
    start(command(where, argv), runOptions);
  const insideOf = (pid: number): Inside => ({
    inside: (argv, runOptions) => runToEnd(enter(pid, '-n', argv), runOptions),
    startInside: (argv, runOptions) => start(enter(pid, '-n', argv), runOptions),
  });
  const startEngine = (launch: Launch, where: Where = 'user'): Started => {
    const started = startAt(where, launch.argv, { env: { HOME: ram, ...launch.env } });
    guests.add(started);
    started.exited.then(() => guests.delete(started));
    return started;
  };
  /** A process in the bed with exactly this command line. */
  const findProcess = (root: number, argv: readonly string[]): number | undefined =>
    [...descendantsOf(root), ...descendantsOf(init)].find(
      (pid) => commandLine(pid).join('\0') === argv.join('\0'),
    );

  const enginePids = (started: Started, name = engine.processName): number[] =>
    [started.pid, ...descendantsOf(started.pid)].filter((pid) => processName(pid).startsWith(name));

  const guestOf = async (engineOptions: EngineOptions): Promise<Guest> => {
    const marker = `1000000.${String(++serial).padStart(6, '0')}`;
    const tool = engineOptions.engine ?? engine;
    const launch = tool.run(engineOptions, ['sh', '-c', `echo inside; exec sleep ${marker}`]);
    const started = startEngine(launch);
    const told = (): string =>
      `${launch.argv.join(' ')}\n${started.printed().stdout}\n${started.printed().stderr}`;
    const commandPid = await Promise.race([
      eventually('the engine starts its command', START_TIMEOUT_MS, () =>
        started.printed().stdout.includes('inside\n')
          ? findProcess(started.pid, ['sleep', marker])
          : undefined,
      ).catch((e: Error) => {
        killTree(started.pid);
        throw new Error(`${e.message}: ${told()}`);
      }),
      started.exited.then((status) => {
        throw new Error(`the engine ended with status ${status}: ${told()}`);
      }),
    ]);
    const holdsTap = (pid: number): boolean => openFiles(pid).includes('/dev/net/tun');
    const enginePid = await eventually(
      `a process called ${tool.processName} holds the TAP: ${told()}`,
      2000,
      () => enginePids(started, tool.processName).find(holdsTap),
    );
    const inside = insideOf(commandPid);
    if (!engineOptions.unconfigured) await setRoutes(inside);
    return {
      ...inside,
      enginePid,
      commandPid,
      started,
      enginePids: () => enginePids(started, tool.processName).filter((pid) => pid !== commandPid),
      async stop() {
        if (isAlive(enginePid)) process.kill(enginePid, 'SIGTERM');
        const late = setTimeout(() => killTree(started.pid), STOP_TIMEOUT_MS);
        const status = await started.exited;
        clearTimeout(late);
        killTree(commandPid); // an engine may leave it behind
        return status;
      },
    };
  };

  const bed: Bed = {
    ramDir: ram,
    run: (where, argv, runOptions) => runToEnd(command(where, argv), runOptions),
    start: startAt,
    write: (path, content) => writeFileSync(`/proc/${init}/root${path}`, content),
    engine: (engineOptions = {}) => guestOf(engineOptions),
    attach: (where, engineOptions, target) => startEngine(engine.attach(engineOptions, target), where),
    enginePids,
    launch: (engineOptions, argv) => startEngine(engine.run(engineOptions, argv)),
    async emptyGuest() {
      const marker = `2000000.${String(++serial).padStart(6, '0')}`;
      const started = startAt('user', ['unshare', '--user', '--map-root-user', '--net', 'sleep', marker]);
      const pid = await eventually('an empty namespace is there', START_TIMEOUT_MS, () =>
        findProcess(started.pid, ['sleep', marker]),
      );
      return {
        ...insideOf(pid),
        pid,
        async end() {
          if (isAlive(pid)) process.kill(pid, 'SIGKILL');
          await started.exited;
        },
      };
    },
    processes: () =>
      readdirSync(procInside)
        .filter((name) => /^\d+$/.test(name))
        .flatMap((pid) => {
          const line = readOrEmpty(`${procInside}/${pid}/cmdline`).split('\0').join(' ');
          const zombie = /^State:\s+[ZX]/m.test(readOrEmpty(`${procInside}/${pid}/status`));
          return line === '' || zombie ? [] : [`${pid} ${line}`];
        }),
    pidSeenInside: (pid) => pidInside(pid, 1),
    mounts: async () => (await bed.run('host', ['cat', '/proc/self/mounts'])).stdout,
    async close() {
      for (const guest of guests) killTree(guest.pid);
      keeper.process.stdin?.end();
      const late = setTimeout(() => killTree(keeper.pid), STOP_TIMEOUT_MS);
      await keeper.exited;
      clearTimeout(late);
    },
  };

  const peer = bed.start('peer', supportProgram('peer-server.ts'));
  await Promise.race([
    eventually("the peer's servers listen", START_TIMEOUT_MS, () => peer.printed().stdout.includes('ready')),
    peer.exited.then((status) => {
      throw new Error(`the peer's servers ended with status ${status}: ${peer.printed().stderr}`);
    }),
  ]).catch(async (e: Error) => {
    await bed.close();
    throw e;
  });
  return bed;
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // the process ended
  }
}

/** Set congestion control cubic, and further options, on all routes of the guest. */
export async function setRoutes(guest: Inside, ...options: readonly string[]): Promise<void> {
  await guest.inside(['sh', `${repoRoot}/test/support/route-cubic.sh`, ...options]);
}

/** Run a command in the guest. @throws Error with its output when the status is not 0 */
export async function succeed(guest: Inside, argv: readonly string[], options?: RunOptions): Promise<string> {
  return checked(argv, await guest.inside(argv, options));
}

/** Run a command in the bed. @throws Error with its output when the status is not 0 */
export async function succeedIn(
  bed: Bed,
  where: Where,
  argv: readonly string[],
  options?: RunOptions,
): Promise<string> {
  return checked(argv, await bed.run(where, argv, options));
}

function checked(argv: readonly string[], finished: Finished): string {
  if (finished.status === 0) return finished.stdout;
  throw new Error(`status ${finished.status}: ${argv.join(' ')}\n${finished.stdout}\n${finished.stderr}`);
}

export type { Engine, EngineOptions };
