/**
 * The engines that the end-to-end tests can run. The default is bucatini. `E2E_ENGINE=pasta` runs the same
 * tests with passt's pasta (E2E_PASTA: its path), to distinguish an error of the engine from an error of a
 * test.
 */
import { fileURLToPath } from 'node:url';

export interface EngineOptions {
  /** Thread plan: "fused", "pipeline=2", "lanes=2"; engines without plans ignore it. */
  readonly plan?: string;
  readonly mtu?: number;
  /** "[ADDRESS:]HOSTPORT[:PORT][/udp]" */
  readonly publish?: readonly string[];
  /** The guest's address for the host's loopback. */
  readonly hostLoopback?: string;
  /** Frames lost inside the engine, as fractions. */
  readonly impair?: {
    readonly fromGuest: number;
    readonly toGuest: number;
    readonly seed: number;
    /** Each reader of several lanes passes one frame in so many through a wrong lane. */
    readonly wrongLane?: number;
    /** Lanes open and are given up in turn, after so many ms each. */
    readonly lanesTurn?: number;
    /** From this share of processor time on a lane is busy. */
    readonly busyShare?: number;
  };
  /** Leave the interface down and without addresses: the guest's own client configures it. */
  readonly unconfigured?: boolean;
  /** Further options, in the syntax of the engine. */
  readonly extra?: readonly string[];
  /** An engine other than that of the whole run. */
  readonly engine?: Engine;
}

export interface Launch {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

export interface Engine {
  readonly name: string;
  /** Process name, as in ps. */
  readonly processName: string;
  readonly plans: readonly string[];
  /** Descriptors that the engine may keep open for later connections. */
  readonly spareDescriptors: number;
  /** Features; tests of a missing one are skipped with a reason. */
  readonly can: {
    readonly impair: boolean;
    /** Reports an unreachable network to the guest by ICMP, not by RST. */
    readonly honestUnreachable: boolean;
    /** DNS works without options when the host's resolver listens on loopback. */
    readonly loopbackResolver: boolean;
    /** `run` passes SIGTERM to its command and returns the command's status. */
    readonly forwardsSignals: boolean;
    /** The command is not process 1 of its PID namespace: signals from inside that namespace can kill it. */
    readonly ordinaryCommand: boolean;
  };
  run(options: EngineOptions, command: readonly string[]): Launch;
  /** `target`: a process id, or the path of a network namespace of our own user namespace. */
  attach(options: EngineOptions, target: string): Launch;
}

const QUICK = process.env.E2E_QUICK === '1';
/** @returns `value`, or `quick` in quick runs during development */
export const full = (value: number, quick: number): number => (QUICK ? quick : value);

export const repoRoot = fileURLToPath(new URL('../../', import.meta.url)).replace(/\/$/, '');

const wantedPlans = (process.env.E2E_PLANS ?? 'fused,pipeline=2,lanes=2').split(',');

/** @returns number of packet threads that bucatini has in a plan: "fused", "pipeline=2", "lanes=2" */
export function packetThreadsOf(plan: string): number {
  const [kind, number] = plan.split('=');
  if (kind === 'fused') return 1;
  return kind === 'lanes' ? Number(number) : Number(number) + 2;
}

function bucatini(): Engine {
  const program = `${repoRoot}/bin/bucatini`;
  const flags = (o: EngineOptions): string[] => {
    const argv: string[] = [];
    if (o.plan !== undefined) argv.push('--threads', o.plan);
    if (o.mtu !== undefined) argv.push('--mtu', String(o.mtu));
    for (const p of o.publish ?? []) argv.push('--publish', p);
    if (o.hostLoopback !== undefined) argv.push('--host-loopback', o.hostLoopback);
    if (o.unconfigured) argv.push('--no-configure');
    argv.push(...(o.extra ?? []));
    return argv;
  };
  const env = (o: EngineOptions): Record<string, string> =>
    o.impair
      ? {
          BUCATINI_TEST_IMPAIR: Object.entries(o.impair)
            .map(([name, value]) => `${name}=${value}`)
            .join(','),
        }
      : {};
  return {
    name: 'bucatini',
    processName: 'bucatini',
    plans: wantedPlans,
    spareDescriptors: 0,
    can: {
      impair: true,
      honestUnreachable: true,
      loopbackResolver: true,
      forwardsSignals: true,
      ordinaryCommand: true,
    },
    run: (o, command) => ({ argv: [program, 'run', ...flags(o), '--', ...command], env: env(o) }),
    attach: (o, target) => ({ argv: [program, 'attach', ...flags(o), target], env: env(o) }),
  };
}

function pasta(program: string): Engine {
  const flags = (o: EngineOptions): string[] => {
    const argv = ['--foreground', '--quiet', '--no-map-gw', '-T', 'none', '-U', 'none'];
    argv.push(o.unconfigured ? '--dhcp-dns' : '--config-net');
    if (o.mtu !== undefined) argv.push('--mtu', String(o.mtu));
    const publish = { tcp: [] as string[], udp: [] as string[] };
    for (const p of o.publish ?? []) {
      const [ports = '', proto = 'tcp'] = p.split('/');
      publish[proto === 'udp' ? 'udp' : 'tcp'].push(ports);
    }
    argv.push('-t', publish.tcp.join(',') || 'none', '-u', publish.udp.join(',') || 'none');
    if (o.hostLoopback !== undefined) argv.push('--map-host-loopback', o.hostLoopback);
    argv.push(...(o.extra ?? []));
    return argv;
  };
  return {
    name: 'pasta',
    processName: 'pasta',
    plans: ['stock'],
    spareDescriptors: 128,
    can: {
      impair: false,
      honestUnreachable: false,
      loopbackResolver: false,
      forwardsSignals: false,
      ordinaryCommand: false,
    },
    run: (o, command) => ({ argv: [program, ...flags(o), '--', ...command], env: {} }),
    attach: (o, target) => ({
      argv: [
        program,
        ...flags(o),
        ...(target.startsWith('/') ? ['--netns-only', '--netns', target] : [target]),
      ],
      env: {},
    }),
  };
}

export const engine: Engine =
  process.env.E2E_ENGINE === 'pasta' ? pasta(process.env.E2E_PASTA ?? 'pasta') : bucatini();
/** Our bin/pasta, run with the same options as passt's pasta. */
export const ourPasta: Engine = pasta(`${repoRoot}/bin/pasta`);
