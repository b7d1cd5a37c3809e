/**
 * scripts/iperf-harness.sh: bucatini beside the stock tools, interleaved, in namespaces of its own.
 *
 *   outside: check the command line and what is here, make user, network, mount and PID namespaces, start itself there
 *   inside:  build the bed, then for each MTU start every peer, go round them N times, stop them; print the report
 *
 * The PID namespace is the cleaner: when its first process (we, inside) ends, whatever way, the kernel ends
 * all that was started in it, and with the last process the namespaces, the links and the addresses go too.
 */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { DIRECTIONS, type Measurement, measure, reaches } from './measure.ts';
import { helpText, type Options, parseOptions, UsageError } from './options.ts';
import { DIRECT, type Guest, PEERS, type Peer } from './peers.ts';
import { run, stopAll } from './processes.ts';
import { table } from './report.ts';
import { buildWorld, namespacesForbidden } from './world.ts';

const INSIDE = 'BUCATINI_HARNESS_INSIDE';
/** Descriptor of the pipe whose end tells the inside that the outside is gone or wants an end. */
const LIFELINE_FD = 3;
/** What a measurement takes beyond its seconds, until we have seen one. */
const OVERHEAD_SECONDS = 0.6;

const say = (text: string): void => {
  process.stderr.write(`${text}\n`);
};
const names = PEERS.map((peer) => peer.name);
const repository = fileURLToPath(new URL('../../', import.meta.url));

async function outside(argv: readonly string[]): Promise<number> {
  const options = parseOptions(argv, names);
  if (options === null) {
    console.log(helpText(names));
    return 0;
  }
  for (const [program, name] of [
    ['iperf3', 'iperf3'],
    ['ip', 'iproute2'],
    ['unshare', 'util-linux'],
    ['nsenter', 'util-linux'],
  ] as const)
    if ((await run([program, '-V'])).status === null && (await run([program, '--version'])).status === null)
      throw new UsageError(`${program} is missing: apt-get install ${name} (or scripts/setup.sh perf)`);
  const forbidden = await namespacesForbidden();
  if (forbidden !== null) throw new UsageError(forbidden);
  // Where /proc may not be mounted anew (some containers) we do without the PID namespace and kill what we started.
  const pidNamespace = ['-pf', '--mount-proc', '--kill-child'];
  const hasPidNamespace = (await run(['unshare', '-Urnm', ...pidNamespace, 'true'])).status === 0;
  const child = spawn(
    'unshare',
    [
      '-Urnm',
      ...(hasPidNamespace ? pidNamespace : []),
      process.execPath,
      ...process.execArgv,
      fileURLToPath(import.meta.url),
      ...argv,
    ],
    { stdio: ['inherit', 'inherit', 'inherit', 'pipe'], env: { ...process.env, [INSIDE]: '1' } },
  );
  // Ctrl-C reaches the inside by the terminal; anything else by the end of this pipe.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(name, () => {
      const lifeline = child.stdio[LIFELINE_FD];
      if (lifeline && 'end' in lifeline) lifeline.end();
    });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (status, signal) => resolve(status ?? (signal === 'SIGINT' ? 130 : 1)));
  });
}

/** CPU, cores, kernel, Node, governor, commit, date: what a figure means nothing without. */
async function machineLine(): Promise<string> {
  const governor = (() => {
    try {
      return readFileSync('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor', 'utf8').trim();
    } catch {
      return 'none';
    }
  })();
  const commit =
    (
      await run(['git', '-c', 'safe.directory=*', '-C', repository, 'rev-parse', '--short', 'HEAD'])
    ).stdout.trim() || 'unknown';
  return [
    cpus()[0]?.model ?? 'unknown CPU',
    `${availableParallelism()} cores`,
    `Linux ${release()}`,
    `Node ${process.versions.node}`,
    `governor ${governor}`,
    `commit ${commit}`,
    new Date().toISOString().slice(0, 10),
    `load ${loadavg()[0]?.toFixed(2)} at the start`,
  ].join(', ');
}

interface Run {
  readonly measurements: Measurement[];
  /** What the reader must know beside the tables. */
  readonly notes: string[];
}

class Progress {
  readonly #began = performance.now();
  readonly #total: number;
  readonly #guessSeconds: number;
  #done = 0;

  constructor(total: number, seconds: number) {
    this.#total = total;
    this.#guessSeconds = seconds + OVERHEAD_SECONDS;
  }

  /** @param skipped measurements that will not be made after all, e.g. because a peer did not start */
  step(text: string, skipped = 0): void {
    this.#done += skipped === 0 ? 1 : skipped;
    const spentSeconds = (performance.now() - this.#began) / 1000;
    const left = this.#total - this.#done;
    const each = skipped === 0 && this.#done > 0 ? spentSeconds / this.#done : this.#guessSeconds;
    say(
      `[${`${this.#done}`.padStart(`${this.#total}`.length)}/${this.#total}, ${Math.ceil(left * each)} s left] ${text}`,
    );
  }
}

async function rounds(
  options: Options,
  peers: readonly Peer[],
  result: Run,
  abort: AbortSignal,
): Promise<void> {
  const world = await buildWorld(options);
  const perMtu = peers.length * options.rounds * DIRECTIONS.length;
  const progress = new Progress(perMtu * options.mtus.length, options.seconds);
  for (const mtu of options.mtus) {
    const guests: { peer: Peer; guest: Guest }[] = [];
    for (const peer of peers) {
      if (abort.aborted) return;
      let obstacle: string | null;
      try {
        const guest = await peer.start(world, mtu, options.ipv6);
        obstacle = await reaches(world, guest, abort);
        if (obstacle === null) guests.push({ peer, guest });
        else await guest.stop();
      } catch (error) {
        obstacle = error instanceof Error ? error.message : `${error}`;
      }
      if (obstacle !== null && !abort.aborted) {
        result.notes.push(`${peer.name} at MTU ${mtu} left out: ${obstacle}`);
        progress.step(`MTU ${mtu} ${peer.name}: left out: ${obstacle}`, perMtu / peers.length);
      }
    }
    for (let round = 1; round <= options.rounds; round++) {
      for (const direction of DIRECTIONS) {
        for (const { peer, guest } of guests) {
          const one = await measure(world, guest, options, direction, abort);
          if (abort.aborted) return;
          result.measurements.push({ mtu, round, peer: peer.name, direction, ...one });
          if (one.error !== null)
            result.notes.push(`${peer.name} ${direction} at MTU ${mtu}, round ${round}: ${one.error}`);
          progress.step(
            `MTU ${mtu} round ${round} ${peer.name} ${direction}: ${one.error ?? `${one.mbit.toFixed(0)} Mbit/s`}`,
          );
        }
      }
    }
    for (const { guest } of guests) await guest.stop();
  }
}

function report(
  options: Options,
  peers: readonly Peer[],
  result: Run,
  machine: string,
  versions: readonly string[],
): string {
  const { wan } = options;
  const roles = { direct: DIRECT, ours: PEERS.filter((peer) => peer.isOurs).map((peer) => peer.name) };
  const what = [
    `TCP over ${options.ipv6 ? 'IPv6' : 'IPv4'}`,
    `${options.streams} stream(s)`,
    `${options.rounds} interleaved round(s) of ${options.seconds} s`,
    'cubic',
    ...(options.tcpWmem === null ? [] : [`tcp_wmem ${options.tcpWmem}`]),
    wan
      ? `line of ${wan.rateMbit} Mbit/s, ${wan.delayMs} ms each way, queue ${wan.queueKib} KiB, ${wan.lossPercent} % loss`
      : 'veth of MTU 1500',
  ].join(', ');
  const lines = [`<!-- ${machine} -->`, what, '', `Versions: ${versions.join('; ')}`];
  for (const mtu of options.mtus) {
    const mine = result.measurements.filter((m) => m.mtu === mtu);
    if (mine.length === 0) continue;
    const there = peers.map((peer) => peer.name).filter((name) => mine.some((m) => m.peer === name));
    lines.push('', `TAP MTU ${mtu} (medians; up is from the guest)`, '', table(mine, there, roles));
  }
  if (result.notes.length > 0) lines.push('', ...result.notes.map((note) => `- ${note}`));
  return lines.join('\n');
}

async function inside(argv: readonly string[]): Promise<number> {
  const options = parseOptions(argv, names);
  if (options === null) return 2;
  const abort = new AbortController();
  let status = 0;
  const stop = (why: number) => () => {
    status ||= why;
    abort.abort();
  };
  process.on('SIGINT', stop(130));
  process.on('SIGTERM', stop(143));
  process.on('SIGHUP', stop(129));
  const { Socket } = await import('node:net');
  const lifeline = new Socket({ fd: LIFELINE_FD, readable: true, writable: false });
  lifeline.on('close', stop(143)).on('error', stop(143)).resume().unref();

  const machine = await machineLine();
  const result: Run = { measurements: [], notes: [] };
  const peers: Peer[] = [];
  const versions: string[] = [];
  for (const peer of PEERS) {
    if (options.peers !== null && !options.peers.includes(peer.name)) continue;
    const found = await peer.probe();
    if ('version' in found) {
      peers.push(peer);
      if (!(peer.isOurs && peers.some((p) => p.isOurs && p !== peer)))
        versions.push(`${peer.name}: ${found.version}`);
    } else {
      result.notes.push(`${peer.name} is missing: ${found.missing}`);
      say(`${peer.name} is missing: ${found.missing}`);
    }
  }
  try {
    await rounds(options, peers, result, abort.signal);
  } catch (error) {
    say(`iperf-harness: ${error instanceof Error ? error.message : error}`);
    status = 1;
  }
  if (abort.signal.aborted) result.notes.push('ended early: fewer rounds than asked for');
  await stopAll();
  if (result.measurements.length > 0) console.log(report(options, peers, result, machine, versions));
  if (options.json !== null)
    writeFileSync(options.json, `${JSON.stringify({ machine, options, versions, ...result }, null, 1)}\n`);
  return status;
}

try {
  process.exitCode = await (process.env[INSIDE] === '1' ? inside : outside)(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  say(`iperf-harness: ${error.message}`);
  process.exitCode = 2;
}
if (process.env[INSIDE] === '1') process.exit();
