// bundle: rare
/**
 * `bucatini bug-report`: prints the facts that a bug report needs, as one text to paste. It contains nothing
 * that identifies people or their networks: addresses, names, paths and commands are left out. Engines are
 * examined from outside, through /proc; if the user names an API socket, the engine is also asked for its
 * counters.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { availableParallelism, cpus, freemem, release, totalmem } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageRoot } from '#runtime/program';
import type { EngineHistogram, ThreadCounters } from '../../workers/engine.ts';
import { askApi } from '../api/client.ts';
import { getopt, type OptionShape } from '../cli/getopt.ts';
import { countersText, histogramsText } from '../host/stats.ts';
import { OPTIONS as PASTA_OPTIONS } from '../pasta/options.ts';
import { print } from '../process/output.ts';
import { OPTIONS as SLIRP_OPTIONS } from '../slirp4netns/options.ts';
import { examine } from './doctor.ts';
import { OPTIONS } from './options.ts';
import { runtimeChoice } from './runtime-choice.ts';
import { isSwitchedOver, podmanPasta } from './switch-over.ts';

/** What `stats` of an API socket returns (api.ts). */
interface EngineStats {
  readonly counters: Readonly<Record<string, number>>;
  readonly threads: readonly ThreadCounters[];
  readonly histograms: readonly EngineHistogram[];
}

const MIB = 1 << 20;
/** Other programs that may cause a fault, and their option that prints the version. */
const RELATED_PROGRAMS = [
  ['podman', '--version'],
  ['buildah', '--version'],
  ['rootlesskit', '--version'],
  ['crun', '--version'],
  ['netavark', '--version'],
  ['pasta', '--version'],
  ['slirp4netns', '--version'],
] as const;
const SETTINGS = [
  'kernel/apparmor_restrict_unprivileged_userns',
  'kernel/unprivileged_userns_clone',
  'user/max_user_namespaces',
  'net/ipv4/ip_unprivileged_port_start',
  'net/ipv4/ping_group_range',
  'net/core/rmem_max',
  'net/core/wmem_max',
  'net/ipv4/tcp_rmem',
  'net/ipv4/tcp_wmem',
];

/**
 * Print the report.
 * @param version     of the package
 * @param apiSockets  sockets of engines whose counters are included
 * @returns 0, also if facts are missing: the report says so
 */
export async function bugReport(
  version: string,
  apiSockets: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<number> {
  const out: string[] = ['## Versions', ''];
  out.push(row('bucatini', version), row('runtime', runtimeChoice()), row('kernel', release()));
  const pretty = /^PRETTY_NAME="?([^"\n]*)/m.exec(read('/etc/os-release'))?.[1];
  out.push(row('distribution', pretty ?? 'unknown'));
  out.push(row('processors', `${availableParallelism()} of ${cpus()[0]?.model.trim() ?? 'unknown'}`));
  out.push(row('memory', `${mib(totalmem())} MiB, ${mib(freemem())} free`));
  for (const [name, option] of RELATED_PROGRAMS) {
    // Podman's helpers may exist only in its own directories.
    const tried = ['', '/usr/libexec/podman/', '/usr/lib/podman/']
      .map((helpers) => spawnSync(`${helpers}${name}`, [option], { encoding: 'utf8', env, timeout: 5000 }))
      .find(({ error }) => error === undefined);
    const line = tried === undefined ? 'missing' : tried.stdout.split('\n')[0]!;
    out.push(row(name, withoutAddresses(line)));
  }
  out.push(row('security modules', read('/sys/kernel/security/lsm').trim() || 'unknown'));

  out.push(...switchLines(env));

  out.push('', '## Doctor', '');
  for (const { grade, subject, text } of examine())
    out.push(`${grade.padEnd(6)}${subject.padEnd(18)}${withoutPaths(withoutAddresses(text))}`);

  out.push('', '## Kernel settings', '');
  for (const path of SETTINGS) {
    const value = read(`/proc/sys/${path}`).trim().replace(/\s+/g, ' ');
    out.push(row(path.replaceAll('/', '.'), value || 'missing'));
  }

  const engines = runningEngines();
  out.push('', `## Running engines: ${engines.length}`, '', ...engines.flatMap(engineLines));
  for (const path of apiSockets) out.push(...(await statsLines(path)));
  print(`${out.join('\n').trimEnd()}\n`);
  return 0;
}

/** Whether switch-over is in effect, and which pasta Podman uses. */
function switchLines(env: NodeJS.ProcessEnv): string[] {
  const binDir = fileURLToPath(new URL('bin', packageRoot));
  let state: string;
  try {
    state = isSwitchedOver({ env, uid: process.getuid!(), binDir }) ? 'done' : 'not done';
  } catch (error) {
    state = withoutPaths((error as Error).message);
  }
  const found = podmanPasta(env);
  let used = 'unknown: podman info does not say';
  if (found !== undefined) {
    let real = found;
    try {
      real = realpathSync(found);
    } catch {
      // A dangling link is not a launcher of ours.
    }
    used =
      real === `${binDir}/pasta`
        ? 'ours'
        : existsSync(`${dirname(real)}/bucatini`)
          ? "another bucatini's"
          : withoutPaths(found);
  }
  return [row('switch-over', state), row('pasta that Podman uses', used)];
}

/**
 * The counters of an engine; they contain no address, port or name. The path of the socket is not repeated.
 */
async function statsLines(path: string): Promise<string[]> {
  try {
    const { counters, threads, histograms } = (await askApi(path, 'stats')) as EngineStats;
    return ['## Counters', '', countersText(counters, threads), histogramsText(histograms)];
  } catch (error) {
    return ['## Counters', '', `not available: ${(error as Error).message}`, ''];
  }
}

const row = (name: string, value: string): string => `${name.padEnd(46)}${value}`;
const mib = (bytes: number): number => Math.round(bytes / MIB);

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

const ADDRESS =
  /\b\d{1,3}(\.\d{1,3}){3}\b|(?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])|\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b/gi;

/** Replace IPv4, IPv6 and MAC addresses. */
export const withoutAddresses = (text: string): string => text.replace(ADDRESS, 'ADDRESS');
/** Replace paths below directories that belong to people. */
const withoutPaths = (text: string): string =>
  text.replace(/(?<![\w.])\/(?:home|root|Users|mnt|tmp|work)\/[^\s,;)]*/g, 'PATH');

/** Option values that describe behaviour and identify nobody. */
const HARMLESS_VALUE =
  /^(?:auto|none|all|fused|pipeline(?:=\d+)?|lanes=\d+(?:-\d+)?|error|warning|info|debug|[\d:,~-]{1,64})$/;

/** A process that runs an engine. */
export interface RunningEngine {
  readonly pid: number;
  readonly name: string;
  /** Arguments of the program. */
  readonly args: readonly string[];
}

/**
 * Programs of ours that run an engine, by the file that Node was given, or the word that follows the
 * executable with Bun.
 */
const ENGINE_PROGRAM = /(?:\/main\/|\/bun\/bucatini\0)(bucatini|pasta|slirp4netns)(?:\/main)?(?:\.js)?$/;

/** The engine that a command line runs. */
export function engineProgram(words: readonly string[]): Omit<RunningEngine, 'pid'> | undefined {
  for (let at = 1; at < words.length; at++) {
    const name = ENGINE_PROGRAM.exec(`${words[at - 1]}\0${words[at]}`)?.[1];
    if (name !== undefined) return { name, args: words.slice(at + 1) };
  }
  return undefined;
}

/** Running engines whose command line this user may read. */
function runningEngines(): RunningEngine[] {
  const engines: RunningEngine[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const words = read(`/proc/${pid}/cmdline`).split('\0').slice(0, -1);
    const program = engineProgram(words);
    if (program === undefined) continue;
    const { name, args } = program;
    if (name === 'bucatini' && args[0] !== 'run' && args[0] !== 'attach') continue;
    engines.push({ pid, name, args });
  }
  return engines;
}

/**
 * The options of an engine: names, and values only if they are harmless. Leaves out everything from the first
 * operand on.
 */
export function optionsText({ name, args }: Pick<RunningEngine, 'name' | 'args'>): string {
  const table = ORIGINALS_OPTIONS[name];
  const { options, error } = getopt<OptionShape>(
    table === undefined ? args.slice(1) : args, // behind the subcommand
    table ?? OWN_OPTIONS,
  );
  const said = options.map(({ option, value }) => {
    if (!option.takesValue) return `--${option.name}`;
    return `--${option.name} ${HARMLESS_VALUE.test(value) ? value : '…'}`;
  });
  const head = table === undefined ? [args[0] ?? ''] : [];
  return [...head, ...said, ...(error === undefined ? [] : ['(the rest is not understood)'])].join(' ');
}

/** Option tables of the programs that take the place of others. */
const ORIGINALS_OPTIONS: Readonly<Record<string, readonly OptionShape[]>> = {
  pasta: PASTA_OPTIONS,
  slirp4netns: SLIRP_OPTIONS,
};

const OWN_OPTIONS: readonly OptionShape[] = OPTIONS.map(({ name, short, value, optional }) => ({
  name,
  ...(short !== undefined && { short }),
  takesValue: value !== undefined && !optional,
}));

function engineLines(engine: RunningEngine): string[] {
  const proc = `/proc/${engine.pid}`;
  const status = read(`${proc}/status`);
  const field = (name: string): string =>
    new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1]?.replace(/\s+/g, ' ') ?? 'unknown';
  const lines = [`${engine.name} ${optionsText(engine)}`];
  lines.push(row('  age', ageText(proc)));
  lines.push(row('  resident memory', field('VmRSS')), row('  threads', field('Threads')));
  lines.push(row('  seccomp, no_new_privs', `${field('Seccomp')}, ${field('NoNewPrivs')}`));
  lines.push(row('  capabilities', field('CapEff')));
  const tasks = list(`${proc}/task`).map((task) => {
    // After the name in parentheses: state is the third field, utime the 14th, stime the 15th,
    // proc_pid_stat(5).
    const fields = read(`${proc}/task/${task}/stat`)
      .replace(/^.*\) /s, '')
      .split(' ');
    return { name: read(`${proc}/task/${task}/comm`).trim(), ticks: Number(fields[11]) + Number(fields[12]) };
  });
  const busy = tasks.filter(({ ticks }) => ticks > 0).map(({ name, ticks }) => `${name} ${ticks / 100}`);
  lines.push(row('  processor time by thread, s', busy.join(', ') || 'none'));
  const kinds = new Map<string, number>();
  for (const fd of list(`${proc}/fd`)) {
    const kind = descriptorKind(`${proc}/fd/${fd}`);
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  const counted = [...kinds].map(([kind, count]) => `${count} ${kind}`).sort();
  lines.push(row('  descriptors', counted.join(', ') || 'permission denied'));
  return [...lines, ''];
}

/**
 * Time since the start of a process. Field 22 of proc_pid_stat(5) is the start, in ticks since the machine's
 * start.
 */
function ageText(proc: string): string {
  const started =
    Number(
      read(`${proc}/stat`)
        .replace(/^.*\) /s, '')
        .split(' ')[19],
    ) / 100;
  const seconds = Number.parseFloat(read('/proc/uptime')) - started;
  return Number.isFinite(seconds) ? `${Math.round(seconds)} s` : 'unknown';
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function descriptorKind(link: string): string {
  let to: string;
  try {
    to = readlinkSync(link);
  } catch {
    return 'closed in the meantime';
  }
  if (to === '/dev/net/tun' || to === '/dev/null') return to;
  return /^(?:anon_inode:)?\[?([a-z]+)/.exec(to)?.[1] ?? 'file';
}
