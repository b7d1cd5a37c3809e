/**
 * What a start consists of: wall time, processor time and a timeline of processes, of several tools in turn.
 *
 *   scripts/node.sh perf/start.ts --pasta FILE --slirp4netns FILE [--build NAME=ROOT[,VARIABLE=VALUE]...]
 *     [--rounds N] [--only run,switch,pasta,slirp] [--user UID] [--wait SECONDS] [--timeline]
 *
 *   run      `bucatini run -- true`, from the first exec until the exit of the launcher's process
 *   switch   `bucatini run --switch-sockets -- true`, likewise
 *   pasta    `pasta --config-net -q -- true`, likewise
 *   slirp    `slirp4netns -c -r FD PID tap0`, until the ready byte, then SIGKILL
 *
 * `here` is this tree; --build adds another one, or another runtime: node=ROOT,BUCATINI_RUNTIME=node. Rounds are
 * interleaved, their order is reversed round by round, and each run waits for a quiet machine first (--wait,
 * default 3 s). Tools run as --user (root's default: 65534). Processor time is that of all processes until
 * they are reaped (wait4), of slirp with its end by SIGKILL. --timeline adds rounds with the kernel's process
 * events, and for our tools with BUCATINI_TEST_LAPS, whose laps are put between the events.
 */
import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { close, pipe2, read } from '../src/sys/io.ts';
import { NativeBuffer } from '../src/sys/memory.ts';
import { kill } from '../src/sys/process.ts';
import { quiet } from './harness/machine.ts';
import { becomeSubreaper, type Ended, waitFor } from './start-watch/children.ts';
import { type ProcessEvent, ProcessEvents } from './start-watch/process-events.ts';

const KINDS = ['run', 'switch', 'pasta', 'slirp'] as const;
type Kind = (typeof KINDS)[number];

/** One kind of start of one tool or build. */
interface Subject {
  readonly name: string;
  readonly kind: Kind;
  readonly program: string;
  readonly ours: boolean;
  readonly env: NodeJS.ProcessEnv;
}

/** What one start took. */
interface Run {
  readonly wallMs: number;
  readonly cpuMs: number;
}

const USAGE = `usage: scripts/node.sh perf/start.ts --pasta FILE --slirp4netns FILE [--build NAME=ROOT[,VARIABLE=VALUE]...]
         [--rounds N] [--only run,switch,pasta,slirp] [--user UID] [--wait SECONDS] [--timeline]
`;

const { values: options } = commandLine({
  options: {
    help: { type: 'boolean', short: 'h', default: false },
    pasta: { type: 'string' },
    slirp4netns: { type: 'string' },
    build: { type: 'string', multiple: true, default: [] },
    rounds: { type: 'string', default: '12' },
    only: { type: 'string', default: KINDS.join() },
    user: { type: 'string', default: process.getuid!() === 0 ? '65534' : '' },
    wait: { type: 'string', default: '3' },
    timeline: { type: 'boolean', default: false },
  },
});
if (options.help) {
  process.stdout.write(USAGE);
  process.exit(0);
}
const rounds = Number(options.rounds);
const user = options.user === '' ? {} : { uid: Number(options.user), gid: Number(options.user) };
const scratch = mkdtempSync(join(tmpdir(), 'bucatini-start-'));
const outputFile = join(scratch, 'output');

/** parseArgs(); an error ends the process with one line. */
function commandLine<const T extends ParseArgsConfig>(config: T): ReturnType<typeof parseArgs<T>> {
  try {
    return parseArgs(config);
  } catch (error) {
    process.stderr.write(`start: ${(error as Error).message.split('. ')[0]} (--help: usage)\n`);
    process.exit(2);
  }
}

function subjects(): readonly Subject[] {
  const trees = [
    `here=${fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '')}`,
    ...options.build,
  ].map((text) => {
    const [tree = '', ...variables] = text.split(',');
    const at = tree.indexOf('=');
    const env = Object.fromEntries(variables.map((pair) => pair.split(/=(.*)/s, 2)));
    return { name: tree.slice(0, at), root: tree.slice(at + 1), env };
  });
  const of = (kind: Kind, stock: string | undefined): Subject[] => [
    ...trees.map(({ name, root, env }) => ({
      name: `${kind} ${name}`,
      kind,
      program: `${root}/bin/${{ run: 'bucatini', switch: 'bucatini', pasta: 'pasta', slirp: 'slirp4netns' }[kind]}`,
      ours: true,
      env,
    })),
    ...(stock === undefined ? [] : [{ name: `${kind} stock`, kind, program: stock, ours: false, env: {} }]),
  ];
  const wanted = options.only.split(',');
  return [
    ...of('run', undefined),
    ...of('switch', undefined),
    ...of('pasta', options.pasta),
    ...of('slirp', options.slirp4netns),
  ].filter(({ kind }) => wanted.includes(kind));
}

/**
 * A process in namespaces of its own, for slirp4netns. Like everything here it does not return to the event
 * loop meanwhile.
 */
function target(): number {
  const pid = spawn('unshare', ['-Urn', 'sleep', '60'], { stdio: 'ignore', ...user }).pid!;
  const ours = readlinkSync('/proc/self/ns/net');
  const comm = (): string => readFileSync(`/proc/${pid}/comm`, 'latin1').trim();
  while (readlinkSync(`/proc/${pid}/ns/net`) === ours || comm() !== 'sleep') pause(2);
  return pid;
}

/** Wait without the event loop. */
function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/**
 * Start once, and wait for the end.
 * @param laps   let a tool of ours print when each of its steps was done
 * @param watch  called with the process id once the process runs; returns when it has seen enough
 */
function once(subject: Subject, laps: boolean, watch?: (pid: number) => void): Run {
  const { kind, program, ours } = subject;
  const output = openSync(outputFile, 'w');
  const pipe = new Int32Array(2);
  const targetPid = kind === 'slirp' ? target() : 0;
  if (kind === 'slirp') pipe2(pipe, 0);
  const argv = {
    run: ['run', '--', 'true'],
    switch: ['run', '--switch-sockets', '--', 'true'],
    pasta: ['--config-net', '-q', '--', 'true'],
    slirp: ['-c', '-r', '3', `${targetPid}`, 'tap0'],
  }[kind];
  const env = { ...process.env, ...subject.env, ...(ours && laps && { BUCATINI_TEST_LAPS: '1' }) };
  const beganMs = performance.now();
  const pid = spawn(program, argv, {
    stdio: ['ignore', output, output, ...(kind === 'slirp' ? [pipe[1]!] : [])],
    env,
    ...user,
  }).pid!;
  if (kind === 'slirp') close(pipe[1]!);
  const byte = new NativeBuffer(8);
  let wallMs = 0;
  watch?.(pid);
  if (kind === 'slirp') {
    const got = read(pipe[0]!, byte.address, 1);
    wallMs = performance.now() - beganMs;
    kill(pid, 9);
    close(pipe[0]!);
    if (got !== 1) throw new Error(`${subject.name}: not ready: ${readFileSync(outputFile, 'utf8')}`);
  }
  const head = waitFor(pid);
  if (kind !== 'slirp') wallMs = performance.now() - beganMs;
  closeSync(output);
  if (kind !== 'slirp' && head.status !== 0)
    throw new Error(`${subject.name}: status ${head.status}: ${readFileSync(outputFile, 'utf8')}`);
  if (targetPid !== 0) {
    kill(targetPid, 9);
    waitFor(targetPid);
  }
  let cpuMs = head.cpuMs;
  for (let orphan: Ended; (orphan = waitFor(-1)).pid > 0; ) cpuMs += orphan.cpuMs;
  return { wallMs, cpuMs };
}

/** A start as labels and times in ms after the first exec. */
function timeline(subject: Subject, events: ProcessEvents): Map<string, number> {
  events.drain();
  const seen: { at: number; label: string }[] = [];
  const names = new Map<number, string>();
  once(subject, true, (head) => {
    const family = new Set([head]);
    const stop = performance.now() + 10_000;
    for (;;) {
      const event = events.next();
      if (event === undefined) {
        if (performance.now() > stop || subject.kind === 'slirp') return;
        continue;
      }
      if (event.kind === 'fork' && family.has(event.parentPid) && event.tid === event.pid) {
        family.add(event.pid);
        names.set(event.pid, names.get(event.parentPid) ?? '');
      }
      if (!family.has(event.pid)) continue;
      note(event);
      if (event.kind === 'exit' && event.tid === head) return;
    }
  });
  function note(event: ProcessEvent): void {
    if (event.kind === 'exec') {
      names.set(event.pid, comm(event.pid) ?? '?');
      seen.push({ at: event.ms, label: `exec ${names.get(event.pid)}` });
    } else if (event.kind === 'name') {
      if (event.tid === event.pid) names.set(event.pid, event.name);
      seen.push({ at: event.ms, label: `name ${event.name}` });
    } else if (event.kind === 'exit' && event.tid === event.pid) {
      seen.push({ at: event.ms, label: `end ${names.get(event.pid) || '?'}` });
    } else if (event.kind === 'fork' && event.tid === event.pid) {
      seen.push({ at: event.ms, label: `fork by ${names.get(event.parentPid) || '?'}` });
    }
  }
  seen.push(...lapsOf(readFileSync(outputFile, 'utf8')));
  const zero = seen.find(({ label }) => label.startsWith('exec'))?.at ?? 0;
  const counts = new Map<string, number>();
  return new Map(
    seen
      .sort((a, b) => a.at - b.at)
      .map(({ at, label }): [string, number] => {
        const count = (counts.get(label) ?? 0) + 1;
        counts.set(label, count);
        return [count === 1 ? label : `${label} #${count}`, at - zero];
      }),
  );
}

/** The name of a process's main thread; undefined: the process has ended. */
function comm(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'latin1').trim();
  } catch {
    return undefined;
  }
}

/** The laps of our own log (src/main/host/stopwatch.ts), at times of CLOCK_MONOTONIC. */
function lapsOf(log: string): { at: number; label: string }[] {
  const epochMs = performance.timeOrigin + performance.now();
  const monotonicMs = Number(process.hrtime.bigint()) / 1e6;
  // Each line has all laps so far.
  return [...log.matchAll(/laps: (.*), from ([\d.]+)/g)].slice(-1).flatMap(([, text = '', origin]) =>
    text.split(', ').map((lap) => {
      const [, label = '', ms] = /^(.*?) ([\d.]+)(?: ms)?$/.exec(lap) ?? [];
      return { at: Number(origin) - epochMs + monotonicMs + Number(ms), label: `· ${label}` };
    }),
  );
}

const sorted = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b);
const quantile = (values: readonly number[], q: number): number =>
  sorted(values)[Math.min(values.length - 1, Math.floor(q * values.length))] ?? Number.NaN;

/** Print a line for each subject. */
function table(all: readonly Subject[], runs: ReadonlyMap<string, Run[]>): void {
  const digits = (value: number): string => value.toFixed(1).padStart(7);
  console.log(
    `\n${'ms'.padEnd(16)} ${'wall: median (least, quartiles)'.padEnd(38)} ${'CPU: median (least)'.padEnd(22)} ratio of rounds to the last of its kind: wall, CPU (quartiles)`,
  );
  for (const subject of all) {
    const mine = runs.get(subject.name)!;
    const base = runs.get(all.filter(({ kind }) => kind === subject.kind).at(-1)!.name)!;
    const wall = mine.map(({ wallMs }) => wallMs);
    const cpu = mine.map(({ cpuMs }) => cpuMs);
    const ratios = (of: keyof Run): string => {
      const list = mine.map((run, i) => run[of] / base[i]![of]);
      return `${quantile(list, 0.5).toFixed(2)} (${quantile(list, 0.25).toFixed(2)} to ${quantile(list, 0.75).toFixed(2)})`;
    };
    console.log(
      `${subject.name.padEnd(16)} ${digits(quantile(wall, 0.5))} (${digits(quantile(wall, 0))}, ${digits(quantile(wall, 0.25))} -${digits(quantile(wall, 0.75))})  ${digits(quantile(cpu, 0.5))} (${digits(quantile(cpu, 0))})      ${ratios('wallMs')}, ${ratios('cpuMs')}`,
    );
  }
}

async function main(): Promise<void> {
  becomeSubreaper();
  const all = subjects();
  const never = new AbortController().signal;
  const wait = (): Promise<void> => quiet(Number(options.wait), never);
  for (const subject of all) once(subject, false); // fill the page cache
  const runs = new Map(all.map(({ name }): [string, Run[]] => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const subject of round % 2 === 0 ? all : [...all].reverse()) {
      await wait();
      runs.get(subject.name)!.push(once(subject, false));
    }
  }
  table(all, runs);
  if (!options.timeline) return;
  const events = new ProcessEvents();
  for (const subject of all) {
    const marks = new Map<string, number[]>();
    for (let round = 0; round < rounds; round++) {
      await wait();
      for (const [label, ms] of timeline(subject, events)) {
        if (!marks.has(label)) marks.set(label, []);
        marks.get(label)!.push(ms);
      }
    }
    console.log(`\n${subject.name}: ms after the first exec, medians of ${rounds} starts (least)`);
    const usual = [...marks].filter(([, list]) => list.length * 2 >= rounds);
    for (const [label, list] of usual.sort((a, b) => quantile(a[1], 0.5) - quantile(b[1], 0.5)))
      console.log(
        `${quantile(list, 0.5).toFixed(1).padStart(8)} ${`(${quantile(list, 0).toFixed(1)})`.padStart(8)}  ${label}`,
      );
  }
  events.close();
}

try {
  await main();
} finally {
  rmSync(scratch, { recursive: true });
}
process.exit(0);
