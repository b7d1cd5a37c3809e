// bundle: rare
/**
 * `bucatini doctor --container NAME`: why one container, or the namespace of one process, has no network. It
 * examines the container from outside through /proc, asks its resolvers from inside, and changes nothing.
 */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
} from 'node:fs';
import { basename } from 'node:path';
import { programCommand } from '#runtime/program';
import { parseResolvConf, readResolvConf } from '../host/resolv-conf.ts';
import type { ContainerReport } from './container-probe.ts';
import { otherProcesses, type RunningEngine, runningEngines } from './engine-process.ts';
import { type Finding, fail, note, ok } from './finding.ts';
import {
  addresses4,
  addresses6,
  defaultRoute4,
  defaultRoute6,
  interfaceNames,
  type Listening,
  listening,
} from './proc-net.ts';

/** A port that the container manager publishes. */
interface PublishedPort {
  readonly protocol: string;
  readonly inside: number;
  readonly outside: number;
}

/** What is examined. */
interface Target {
  /** Process in the container's namespaces. */
  readonly pid: number;
  /** Network mode of the container manager: "pasta", "bridge"; undefined for a plain process. */
  readonly mode?: string;
  readonly published: readonly PublishedPort[];
  /** The file that the container sees as /etc/resolv.conf. */
  readonly resolvConf: string;
  /** Where the manager has mounted the network namespace; often only in a mount namespace of its own. */
  readonly namespacePath?: string;
}

const MANAGERS = ['podman', 'docker'] as const;
/** For programs that are run: one that ignores SIGTERM must not keep us. */
const LIMITS = { timeout: 20_000, killSignal: 'SIGKILL' } as const;
/** A resolv.conf that is longer is cut. */
const RESOLV_CONF_BYTES = 64 * 1024;
/** Most resolvers that are asked: the C libraries use three. */
const MAX_RESOLVERS = 8;

/**
 * Do the checks in turn.
 * @param name  of a container, or its id; or the number of a process
 * @param env   with the PATH in which the container manager is
 */
export function* examineContainer(name: string, env: NodeJS.ProcessEnv): Generator<Finding> {
  const found = find(name, env);
  yield found.finding;
  const { target } = found;
  if (target === undefined) return;
  const namespace = yield* checkNamespace(target);
  if (namespace !== 'own') return;
  yield checkEngine(target);
  yield checkInterface(target.pid);
  yield* checkAddresses(target.pid);
  yield* checkInside(target);
  yield* checkPublished(target);
  yield* checkHost();
}

/** The container or process with this name. */
function find(name: string, env: NodeJS.ProcessEnv): { finding: Finding; target?: Target } {
  if (/^[0-9]{1,10}$/.test(name) && readlink(`/proc/${name}/ns/pid`) !== undefined) {
    const pid = Number(name);
    const target = { pid, published: [], resolvConf: `/proc/${pid}/root/etc/resolv.conf` };
    return { finding: ok('container', `process ${pid}, ${readText(`/proc/${pid}/comm`).trim()}`), target };
  }
  const refusals: string[] = [];
  for (const manager of MANAGERS) {
    const ran = spawnSync(manager, ['container', 'inspect', name], {
      encoding: 'utf8',
      env,
      ...LIMITS,
    });
    if ((ran.error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') continue;
    if (ran.status !== 0) {
      refusals.push(`${manager}: ${(ran.stderr || ran.error?.message || 'failed').trim().split('\n')[0]}`);
      continue;
    }
    return fromManager(manager, name, ran.stdout);
  }
  const why = refusals.join('; ') || 'neither podman nor docker is in PATH, and there is no such process';
  return {
    finding: fail('container', `${name}: ${why}; write a name of "podman ps", or the number of a process`),
  };
}

/** @param text  what `MANAGER container inspect NAME` printed */
export function fromManager(
  manager: string,
  name: string,
  text: string,
): { finding: Finding; target?: Target } {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    // Said below.
  }
  const inspected = list(parsed)[0];
  if (typeof inspected !== 'object' || inspected === null)
    return { finding: fail('container', `${manager} container inspect ${name}: prints no JSON`) };
  // Other versions may leave out any of it.
  const { State, HostConfig, NetworkSettings, ResolvConfPath } = object(inspected);
  const state = object(State);
  const [status = 'unknown', reason = ''] = [string(state.Status), string(state.Error)];
  const pid = Number.isSafeInteger(state.Pid) ? Math.max(0, state.Pid as number) : 0;
  if (pid === 0) {
    const exit = typeof state.ExitCode === 'number' ? ` with status ${state.ExitCode}` : '';
    const because = reason === '' ? '' : ` (${reason})`;
    return {
      finding: fail(
        'container',
        `${name} does not run: ${status}${exit}${because}; see ${manager} logs ${name}, then ${manager} start ${name}`,
      ),
    };
  }
  const mode = string(object(HostConfig).NetworkMode);
  const { SandboxKey, Ports } = object(NetworkSettings);
  const namespacePath = string(SandboxKey);
  const target: Target = {
    pid,
    ...(mode !== undefined && { mode }),
    ...(namespacePath && { namespacePath }),
    published: Object.entries(object(Ports)).flatMap(([key, hosts]) => {
      const [inside = '', protocol = 'tcp'] = key.split('/');
      return list(hosts).map((host) => ({
        protocol,
        inside: Number(inside),
        outside: Number(string(object(host).HostPort)),
      }));
    }),
    resolvConf: string(ResolvConfPath) || `/proc/${pid}/root/etc/resolv.conf`,
  };
  return {
    finding: ok(
      'container',
      `${name}, ${manager}, process ${pid}, ${status}, network mode ${mode ?? 'unknown'}`,
    ),
    target,
  };
}

type Json = Readonly<Record<string, unknown>>;

const object = (value: unknown): Json => (typeof value === 'object' && value !== null ? (value as Json) : {});
const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
const string = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);

/** @returns whether the target has a network namespace of its own that can be examined */
function* checkNamespace({ pid, mode }: Target): Generator<Finding, 'own' | 'none'> {
  const theirs = readlink(`/proc/${pid}/ns/net`);
  if (theirs === undefined) {
    yield fail('namespace', `process ${pid} is gone, or another user's: run this as the user who started it`);
    return 'none';
  }
  if (theirs === readlink('/proc/self/ns/net')) {
    yield note('namespace', "it is this host's own: no engine is involved, the host's network is used");
    return 'none';
  }
  if (mode === 'none') {
    yield fail('namespace', 'was made with --network none: there is only loopback; leave that option out');
    return 'none';
  }
  yield ok('namespace', theirs);
  return 'own';
}

/** Names of the stock engines' processes. */
const STOCK_ENGINE = /^(?:pasta|passt|slirp4netns)(?:\.avx2)?$/;

function stockEngines(): RunningEngine[] {
  return otherProcesses()
    .map(({ pid, words: [file = '', ...args] }) => ({ pid, name: basename(file), args }))
    .filter(({ name }) => STOCK_ENGINE.test(name));
}

function checkEngine({ pid, mode = '', namespacePath }: Target): Finding {
  const namespace = inode(`/proc/${pid}/ns/net`);
  const engines = [
    ...runningEngines().map((engine) => ({ engine, text: `bucatini's ${engine.name}` })),
    ...stockEngines().map((engine) => ({ engine, text: `${engine.name} (not bucatini's)` })),
  ];
  const serves = ({ pid: engine, name, args }: RunningEngine): boolean =>
    args.some((word) => {
      const path = word.replace(/^--netns=/, '');
      return path === namespacePath || (namespace !== undefined && leadsTo(path, namespace));
    }) ||
    // `bucatini run` and `pasta COMMAND` have made the namespace themselves, for a child.
    (/^(?:bucatini|pasta)/.test(name) && isAncestor(engine, pid));
  const own = engines.find(({ engine }) => serves(engine));
  if (own !== undefined) return ok('engine', `${own.text}, process ${own.engine.pid}`);
  // Containers on bridge networks share an engine, that of the namespace with the bridges.
  const shared = engines.find(({ engine }) => engine.args.some((word) => word.includes('/rootless-netns/')));
  if (!/^(?:pasta|slirp4netns|$)/.test(mode) && shared !== undefined)
    return ok('engine', `${shared.text}, process ${shared.engine.pid}, for all bridge networks of this user`);
  return fail(
    'engine',
    'no pasta or slirp4netns of this user serves this namespace: it has ended, or never started; start the container again, and look at its first messages (podman --log-level debug start)',
  );
}

/** Whether an argument of an engine is the network namespace: its path, or the number of a process in it. */
const leadsTo = (word: string, namespace: number): boolean =>
  /^[0-9]{1,10}$/.test(word)
    ? inode(`/proc/${word}/ns/net`) === namespace
    : word.startsWith('/') && inode(word) === namespace;

function isAncestor(ancestor: number, pid: number): boolean {
  for (let at = pid; at > 1; ) {
    if (at === ancestor) return true;
    // The parent is the second field after the name in parentheses, proc_pid_stat(5).
    at = Number(
      readText(`/proc/${at}/stat`)
        .replace(/^.*\) /s, '')
        .split(' ')[1] || 0,
    );
  }
  return false;
}

function checkInterface(pid: number): Finding {
  const present = interfaceNames(readText(`/proc/${pid}/net/dev`));
  return present.length > 0
    ? ok('interface', present.join(', '))
    : fail(
        'interface',
        'only loopback: the engine has not configured the namespace; start the container again',
      );
}

function* checkAddresses(pid: number): Generator<Finding> {
  const table = (name: string): string => readText(`/proc/${pid}/net/${name}`);
  const families = [
    ['IPv4', addresses4(table('fib_trie')), defaultRoute4(table('route'))],
    ['IPv6', addresses6(table('if_inet6')), defaultRoute6(table('ipv6_route'))],
  ] as const;
  const works = families.some(([, addresses, route]) => addresses.length > 0 && route !== undefined);
  const host6 = defaultRoute6(readText('/proc/self/net/ipv6_route'));
  for (const [family, addresses, route] of families) {
    if (addresses.length > 0 && route !== undefined)
      yield ok(family, `${addresses.join(', ')}, default route by ${route}`);
    else {
      const lacks = addresses.length === 0 ? 'no address' : `${addresses.join(', ')}, but no default route`;
      if (works)
        yield note(
          family,
          family === 'IPv6' && host6 === undefined ? `${lacks}; this host has no IPv6 route either` : lacks,
        );
      else
        yield fail(
          family,
          `${lacks}: nothing outside can be reached; without --config-net or a DHCP client inside nobody sets it`,
        );
    }
  }
}

/** Ask the container's resolvers from inside. */
function* checkInside({ pid, resolvConf }: Target): Generator<Finding> {
  let text: string;
  try {
    text = readRegular(resolvConf);
  } catch (error) {
    yield note('resolver', `not tried: ${(error as Error).message}`);
    return;
  }
  const nameservers = parseResolvConf(text).nameservers.slice(0, MAX_RESOLVERS);
  if (nameservers.length === 0) {
    yield fail('resolver', "/etc/resolv.conf inside names none; write --dns ADDR for podman or docker's run");
    return;
  }
  const user = readlink(`/proc/${pid}/ns/user`) === readlink('/proc/self/ns/user') ? [] : ['-U'];
  const ran = spawnSync(
    'nsenter',
    [
      ...['-t', `${pid}`, ...user, '-n', '--preserve-credentials', '--'],
      ...[...programCommand('bucatini/container-probe', 'main/bucatini/container-probe'), ...nameservers],
    ],
    { encoding: 'utf8', ...LIMITS },
  );
  let report: ContainerReport;
  try {
    report = JSON.parse(ran.stdout) as ContainerReport;
  } catch {
    const why = (ran.stderr || ran.error?.message || `status ${ran.status}`).trim().split('\n')[0];
    yield note('resolver', `${nameservers.join(', ')}; not tried: ${why}`);
    return;
  }
  yield resolverFinding(report, (readResolvConf()?.nameservers ?? []).join(', '));
  yield report.pingGroups === '1 0'
    ? note(
        'ping inside',
        'only with CAP_NET_RAW; for podman run: --sysctl "net.ipv4.ping_group_range=0 2147483647"',
      )
    : ok('ping inside', `net.ipv4.ping_group_range is ${report.pingGroups}`);
}

/** @param hosts  the host's resolvers, as text; empty if it has none */
export function resolverFinding({ resolvers }: Pick<ContainerReport, 'resolvers'>, hosts: string): Finding {
  const text = resolvers.map(({ address, answer }) => `${address} ${answer ?? 'does not answer'}`).join(', ');
  const answered = resolvers.filter(({ answer }) => answer?.startsWith('answered'));
  if (answered.length === resolvers.length) return ok('resolver', text);
  if (answered.length > 0) return note('resolver', `${text}: names take seconds longer`);
  return fail(
    'resolver',
    `${text}; ${hosts === '' ? 'the host has no resolver either' : `try on the host whether its own (${hosts}) answer, and whether an egress policy denies them`}`,
  );
}

/** The host's and the container's sides of each published port. */
function* checkPublished({ pid, published }: Target): Generator<Finding> {
  if (published.length === 0) return;
  const outside = ports('/proc/self/net');
  const inside = ports(`/proc/${pid}/net`);
  for (const port of published) yield publishedFinding(port, outside, inside);
}

const ports = (directory: string): readonly Listening[] =>
  (['tcp', 'udp'] as const).flatMap((protocol) =>
    [protocol, `${protocol}6`].flatMap((table) => listening(protocol, readText(`${directory}/${table}`))),
  );

/** @param outside  on what the host listens @param inside  on what programs inside listen */
export function publishedFinding(
  port: PublishedPort,
  outside: readonly Listening[],
  inside: readonly Listening[],
): Finding {
  const subject = `port ${port.outside}/${port.protocol}`;
  const on = (list: readonly Listening[], number: number): readonly Listening[] =>
    list.filter((one) => one.protocol === port.protocol && one.port === number);
  if (port.protocol !== 'tcp' && port.protocol !== 'udp')
    return fail(subject, `${port.protocol} cannot be published by a user-mode network; only tcp and udp can`);
  if (on(outside, port.outside).length === 0)
    return fail(
      subject,
      'nobody listens on the host: another program had the port when the container started, or the engine has ended; start the container again',
    );
  const programs = on(inside, port.inside);
  if (programs.length === 0)
    return note(
      subject,
      `nothing inside listens on ${port.protocol} ${port.inside}: the program does not run, or uses another port`,
    );
  if (programs.every(({ loopbackOnly }) => loopbackOnly))
    return note(
      subject,
      `the program inside listens on loopback only: other hosts do not reach it; make it listen on 0.0.0.0 or [::], port ${port.inside}`,
    );
  return ok(subject, `reaches ${port.protocol} ${port.inside} inside`);
}

/** What the host itself lacks. */
function* checkHost(): Generator<Finding> {
  const routes = [
    defaultRoute4(readText('/proc/self/net/route')),
    defaultRoute6(readText('/proc/self/net/ipv6_route')),
  ].filter((route) => route !== undefined);
  yield routes.length > 0
    ? ok('host', `default route by ${[...new Set(routes)].join(', ')}`)
    : note('host', 'this host has no default route: only its own networks can be reached from inside');
}

/**
 * Read the beginning of a file that programs in the container can replace: opening a FIFO would wait.
 * @throws Error
 */
export function readRegular(path: string): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    if (!fstatSync(fd).isFile()) throw new Error(`${path} is not a regular file`);
    const bytes = Buffer.alloc(RESOLV_CONF_BYTES);
    return bytes.toString('utf8', 0, readSync(fd, bytes));
  } finally {
    closeSync(fd);
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // ended in the meantime, or another user's
  }
}

function readlink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

function inode(path: string): number | undefined {
  try {
    return statSync(path).ino;
  } catch {
    return undefined;
  }
}
