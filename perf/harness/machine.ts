/** The conditions of a measurement: processor, kernel, versions, load. */
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release } from 'node:os';
import { run, sleep } from './processes.ts';
import { packageDirectory } from './programs.ts';
import type { Machine } from './result.ts';

export async function describeMachine(): Promise<Machine> {
  let governor = 'none';
  try {
    governor = readFileSync('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor', 'utf8').trim();
  } catch {
    // A virtual machine has no governor.
  }
  const iperf3 = await run(['iperf3', '--version']);
  return {
    cpu: cpus()[0]?.model ?? 'unknown CPU',
    cores: availableParallelism(),
    kernel: release(),
    node: process.versions.node,
    runtime: launchersRunBun() ? 'Bun' : 'Node',
    governor,
    iperf3: /iperf (\S+)/.exec(iperf3.stdout)?.[1] ?? 'unknown',
    commit: await commitText(),
    loadAtStart: loadavg()[0] ?? 0,
  };
}

/** The commit of a checkout; "package VERSION" of an installed package, which may lie in another repository. */
async function commitText(): Promise<string> {
  if (existsSync(`${packageDirectory}.git`)) {
    const git = [
      'git',
      '-c',
      'safe.directory=*',
      '-C',
      packageDirectory,
      'rev-parse',
      '--short',
      'HEAD',
    ] as const;
    return (await run(git)).stdout.trim() || 'unknown';
  }
  try {
    return `package ${JSON.parse(readFileSync(`${packageDirectory}package.json`, 'utf8')).version}`;
  } catch {
    return 'unknown';
  }
}

/** Whether the launchers of this tree run Bun, as find_runtime in bin/launch.sh decides it. */
const launchersRunBun = (): boolean =>
  process.env.BUCATINI_RUNTIME !== 'node' && existsSync(`${packageDirectory}dist/bun/bucatini`);

const IDLE_SHARE = 0.9;
const IDLE_SAMPLE_MS = 300;

/** Wait until the machine was 90 % idle for 300 ms, at most `seconds`. */
export async function quiet(seconds: number, abort: AbortSignal): Promise<void> {
  const end = performance.now() + seconds * 1000;
  // The first line of /proc/stat: user, nice, system, idle, ... in ticks of all cores together.
  const sample = () => {
    const ticks = readFileSync('/proc/stat', 'latin1').split('\n')[0]?.split(/ +/).slice(1).map(Number) ?? [];
    return { total: ticks.reduce((sum, n) => sum + n, 0), idle: ticks[3] ?? 0 };
  };
  while (performance.now() < end && !abort.aborted) {
    const before = sample();
    await sleep(IDLE_SAMPLE_MS);
    const after = sample();
    if (after.idle - before.idle >= IDLE_SHARE * (after.total - before.total)) return;
  }
}
