/**
 * Runs the micro-benchmarks: every bench/*.bench.ts exports `build(): Benchmark.Suite`.
 *
 *   npm run bench                       all, table on the terminal
 *   npm run bench -- ring timer         files whose name contains one of the words
 *   npm run bench -- --record flow      also write bench/results/<name>.json
 *   npm run bench -- --rounds 5 --seconds 0.3
 *
 * The members of a suite take turns (--rounds), so that a machine that becomes slower in between affects all
 * of them. A figure is the median of the samples of all rounds, its spread the range between the quartiles.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import Benchmark from 'benchmark';
import type { OpsOptions } from './ops.ts';

const BENCH = import.meta.dirname;

interface Result {
  readonly name: string;
  readonly nsPerOp: number;
  /** First and third quartile of the samples. */
  readonly quartilesNs: readonly [number, number];
  readonly samples: number;
  /** nsPerOp divided by nsPerOp of the suite's first member. */
  readonly ratio: number;
}

function quantile(sorted: readonly number[], q: number): number {
  const at = (sorted.length - 1) * q;
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

function firstLine(file: string): string | null {
  try {
    return readFileSync(file, 'utf8').split('\n')[0] ?? null;
  } catch {
    return null; // not every machine has the file
  }
}

function git(...args: string[]): string | null {
  try {
    return execFileSync('git', args, {
      cwd: BENCH,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return null; // an unpacked release has no git history
  }
}

/** The machine and the commit that the figures were measured on. */
function machineLine(): Record<string, string | number | null> {
  const dirty = git('status', '--porcelain', '--untracked-files=no', '--', '../src', '.');
  return {
    cpu: os.cpus()[0]?.model.trim() ?? null,
    cores: os.availableParallelism(),
    load1: Math.round(os.loadavg()[0]! * 10) / 10,
    kernel: os.release(),
    arch: os.arch(),
    node: process.version,
    governor: firstLine('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor'),
    commit: `${git('rev-parse', '--short', 'HEAD') ?? 'unknown'}${dirty ? ' with local changes' : ''}`,
    date: new Date().toISOString().slice(0, 10),
  };
}

async function runOnce(suite: Benchmark.Suite): Promise<void> {
  await new Promise<void>((resolve) => {
    suite.on('complete', () => {
      suite.off('complete');
      resolve();
    });
    suite.run({ async: true });
  });
}

async function measure(file: string, rounds: number): Promise<Result[]> {
  const module = (await import(path.join(BENCH, file))) as {
    build(): Benchmark.Suite | Promise<Benchmark.Suite>;
  };
  const suite = await module.build();
  const members = suite.map((bench: Benchmark) => bench) as unknown as Benchmark[];
  const samples = members.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    await runOnce(suite);
    members.forEach((bench, i) => {
      if (bench.error) throw new Error(`${file}: ${bench.name} failed`, { cause: bench.error });
      const opsPerCall = (bench as unknown as Partial<OpsOptions>).opsPerCall ?? 1;
      for (const seconds of bench.stats.sample) samples[i]!.push((seconds * 1e9) / opsPerCall);
    });
  }
  const end = (module as { finish?: () => void }).finish;
  if (end) end();
  const medians = samples.map((list) =>
    quantile(
      list.sort((a, b) => a - b),
      0.5,
    ),
  );
  return members.map((bench, i) => ({
    name: bench.name ?? `#${i}`,
    nsPerOp: medians[i]!,
    quartilesNs: [quantile(samples[i]!, 0.25), quantile(samples[i]!, 0.75)],
    samples: samples[i]!.length,
    ratio: medians[i]! / medians[0]!,
  }));
}

function format(ns: number): string {
  if (ns < 100) return `${ns.toFixed(2)} ns`;
  if (ns < 100_000) return `${ns.toFixed(0)} ns`;
  return `${(ns / 1000).toFixed(0)} us`;
}

function printTable(title: string, results: readonly Result[]): void {
  const width = Math.max(...results.map((result) => result.name.length));
  console.log(`\n${title}`);
  for (const { name, nsPerOp, quartilesNs, samples, ratio } of results) {
    const spread = `${format(quartilesNs[0])} .. ${format(quartilesNs[1])}`;
    console.log(
      `  ${name.padEnd(width)}  ${format(nsPerOp).padStart(10)}  ${ratio.toFixed(2).padStart(6)}x  ${spread.padStart(22)}  ${samples} samples`,
    );
  }
}

const USAGE = `usage: npm run bench -- [OPTION...] [WORD...]

Measures the hot functions, file by file of bench/; with WORDs the files whose name contains one of them.

  --rounds N     times through each file's members, in turn (3)
  --seconds S    of each member in each round (0.5)
  --record       also write bench/results/NAME.json
  --help         this text
`;

/** Report an error in the command line in one line, without a stack trace, and exit. */
function usageError(text: string): never {
  process.stderr.write(`bench: ${text} (--help lists the options)\n`);
  process.exit(2);
}

function commandLine() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        record: { type: 'boolean', default: false },
        rounds: { type: 'string', default: '3' },
        seconds: { type: 'string', default: '0.5' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
  } catch (error) {
    return usageError(error instanceof Error ? error.message : `${error}`);
  }
}

const { values, positionals } = commandLine();
if (values.help) {
  process.stdout.write(USAGE);
  process.exit(0);
}
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
if (!(Number.isInteger(rounds) && rounds >= 1))
  usageError(`--rounds ${values.rounds}: want a count of 1 or more`);
if (!(seconds > 0)) usageError(`--seconds ${values.seconds}: want a time above 0`);
Benchmark.options.maxTime = seconds;

const files = readdirSync(BENCH)
  .filter((file) => file.endsWith('.bench.ts'))
  .filter((file) => positionals.length === 0 || positionals.some((word) => file.includes(word)))
  .sort();
if (files.length === 0) usageError(`no file of bench/ has a name with: ${positionals.join(', ')}`);

const machine = machineLine();
console.log(
  Object.entries(machine)
    .map(([key, value]) => `${key}: ${value ?? 'unknown'}`)
    .join(', '),
);
for (const file of files) {
  const name = file.slice(0, -'.bench.ts'.length);
  const results = await measure(file, rounds);
  printTable(name, results);
  if (values.record) {
    const record = { name, machine, rounds, secondsPerRound: seconds, results };
    mkdirSync(path.join(BENCH, 'results'), { recursive: true });
    writeFileSync(path.join(BENCH, 'results', `${name}.json`), `${JSON.stringify(record, null, 2)}\n`);
  }
}
