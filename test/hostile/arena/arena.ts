/**
 * The arena: an attack beside ordinary traffic, in the test bed.
 *
 *   guest                            engine          peer
 *   witness ─── old, connect, udp, dns ────────────▶ servers of the bed
 *   guest-servers ◀─── old, connect, udp ─────────── witness, through published ports
 *   attacker and its counterpart, on either side, depending on the attack
 *
 * Three periods ("windows") of some seconds are compared: before the attack, during it, and after its end.
 * The result for each: figures of the witnesses, resident memory, descriptors and processor time of the
 * engine's threads, and number of log lines.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { type Bed, type Inside, makeBed, supportProgram } from '../../support/bed.ts';
import { ourPasta, repoRoot } from '../../support/engines.ts';
import { HOST4, PEER4, PORT } from '../../support/ports.ts';
import { eventually, killTree, openFiles, rssKib, type Started, sleepMs } from '../../support/process.ts';
import { ATTACKS, type AttackName } from './attacks.ts';
import type { Tally } from './witness.ts';

/** Published ports of the host, and their targets. */
export const PUBLISHED = { echo: 8081, once: 8082, attack: 8080 } as const;
export const INSIDE = { echo: 81, once: 82, attack: 80 } as const;
const PORTS = Object.keys(INSIDE) as (keyof typeof INSIDE)[];

export const FRONTS = ['run', 'pasta', 'slirp4netns', 'stock pasta', 'stock slirp4netns'] as const;
export type Front = (typeof FRONTS)[number];

/** A window begins when its state has lasted this long. */
const SETTLE_MS = 1000;
/** A witness prints the figures of a second at most this long after it. */
const WITNESS_DELAY_MS = 3200;
const SECOND_MS = 1000;
const SET_MS = 60_000;
const READY_MS = 10_000;
const TICK_MS = 10;
const GUEST_SEND_BYTES = 512 * 1024;

export interface Sides {
  readonly outbound: Readonly<Record<'old' | 'connect' | 'udp' | 'dns', Tally>>;
  readonly inbound: Readonly<Record<'old' | 'connect' | 'udp' | 'dns', Tally>>;
}

export interface Window extends Sides {
  readonly rssMiB: number;
  readonly descriptors: number;
  /** Share of a processor, by thread name. */
  readonly threads: Readonly<Record<string, number>>;
  /** Total number of lines that the engine has logged. */
  readonly logLines: number;
  /** Gbit/s of one iperf3 stream, if requested. */
  readonly upGbits?: number;
  readonly downGbits?: number;
}

export interface ArenaOptions {
  readonly front: Front;
  /** Thread plan of `run`; the drop-ins choose their own. */
  readonly plan: string;
  readonly attack: AttackName;
  readonly size: number;
  readonly windowSeconds: number;
  readonly mtu?: number;
  readonly splice?: boolean;
  /** Measure the rate of a stream in each window. */
  readonly iperf?: boolean;
  /** The stock tools' programs. */
  readonly stockPasta?: string;
  readonly stockSlirp?: string;
}

export interface ArenaResult {
  readonly before: Window;
  readonly during: Window;
  readonly after: Window;
  /** Time until all attackers have printed "set". */
  readonly setMs: number;
  readonly log: string;
}

/** A guest of any front end, with the arena's ports published. */
interface ArenaGuest extends Inside {
  readonly resolver: string;
  enginePids(): number[];
  log(): string;
  stop(): Promise<void>;
}

export async function fight(options: ArenaOptions): Promise<ArenaResult> {
  const bed = await makeBed();
  const started: Started[] = [];
  let guest: ArenaGuest | undefined;
  try {
    guest = await startFront(bed, options);
    const at = guest;
    const inGuest = (argv: string[]): Started => keep(at.startInside(argv));
    const atPeer = (argv: string[]): Started => keep(bed.start('peer', argv));
    const keep = (s: Started): Started => {
      started.push(s);
      return s;
    };
    const ready = (s: Started, word: string, ms: number): Promise<unknown> =>
      Promise.race([
        eventually(`"${word}" of a program of the arena`, ms, () => s.printed().stdout.includes(word)),
        s.exited.then((status) => {
          throw new Error(`a program of the arena ended with ${status}: ${s.printed().stderr}`);
        }),
      ]);
    const program = (file: string, ...args: (string | number)[]): string[] =>
      supportProgram(`../hostile/arena/${file}`, ...args);

    // All ends share one kernel and its limit of TCP memory (tcp_mem): memory of the guest's own sockets must
    // not reach it.
    await at.inside(['sh', '-c', `echo '4096 16384 ${GUEST_SEND_BYTES}' >/proc/sys/net/ipv4/tcp_wmem`]);
    await ready(inGuest(program('guest-servers.ts', INSIDE.echo, INSIDE.once)), 'ready', READY_MS);
    const out = inGuest(program('witness.ts', PEER4, PORT.echo, PORT.once, at.resolver));
    const back = atPeer(program('witness.ts', HOST4, PUBLISHED.echo, PUBLISHED.once));
    await ready(out, 'ready', READY_MS);
    await ready(back, 'ready', READY_MS);
    await sleepMs(SETTLE_MS);

    /** Witnesses print with a delay: the figures of the windows are summed at the end. */
    const look = async (): Promise<() => Window> => {
      const rates = options.iperf ? await streamRates(bed, at) : {};
      const from = Date.now();
      const cpuBefore = threadTicks(at.enginePids());
      await sleepMs(options.windowSeconds * 1000);
      const to = Date.now();
      const pids = at.enginePids();
      const seen = {
        threads: shares(cpuBefore, threadTicks(pids), to - from),
        rssMiB: Math.round(pids.reduce((n, pid) => n + rssKib(pid), 0) / 1024),
        descriptors: pids.reduce((n, pid) => n + openFiles(pid).length, 0),
        logLines: at.log().split('\n').length - 1,
      };
      return () => ({
        outbound: tallies(out, from, to),
        inbound: tallies(back, from, to),
        ...seen,
        ...rates,
      });
    };

    const before = await look();
    const attack = ATTACKS[options.attack];
    const setAt = performance.now();
    const sides = { guest: inGuest, peer: atPeer };
    const attackers: Started[] = [];
    for (const { side, argv } of attack.programs(options.size, at.resolver)) {
      const s = sides[side](program('attacker.ts', ...argv));
      attackers.push(s);
      await ready(s, 'set', SET_MS);
    }
    const setMs = Math.round(performance.now() - setAt);
    await sleepMs(SETTLE_MS);
    const during = await look();
    for (const s of attackers.reverse()) {
      s.process.stdin?.end();
      await s.exited;
    }
    await sleepMs(SETTLE_MS);
    const after = await look();
    const end = Date.now();
    await eventually('the figures of the last second', WITNESS_DELAY_MS, () =>
      [out, back].every((witness) => lastSecond(witness) > end - 2 * SECOND_MS),
    ).catch(() => {}); // a second without requests has no line: the window shows it
    return { before: before(), during: during(), after: after(), setMs, log: at.log() };
  } finally {
    for (const s of started) killTree(s.pid);
    await guest?.stop();
    await bed.close();
  }
}

/** @returns the begin of the last second that a witness has printed, Unix time in milliseconds */
function lastSecond(witness: Started): number {
  const line = witness.printed().stdout.split('\n').at(-2) ?? 'ready';
  return line === 'ready' ? 0 : (JSON.parse(line) as { atMs: number }).atMs;
}

/** The sum over the seconds of a witness that lie in a window. */
function tallies(witness: Started, fromMs: number, toMs: number): Sides['outbound'] {
  const sum = (): Tally => ({ asked: 0, answered: 0, maxMs: 0, failed: {} });
  const all = { old: sum(), connect: sum(), udp: sum(), dns: sum() };
  for (const line of witness.printed().stdout.split('\n').slice(1, -1)) {
    const told = JSON.parse(line) as Record<keyof typeof all, Tally> & { atMs: number };
    if (told.atMs < fromMs || told.atMs + SECOND_MS > toMs) continue;
    for (const kind of Object.keys(all) as (keyof typeof all)[]) {
      const [into, one] = [all[kind], told[kind]];
      into.asked += one.asked;
      into.answered += one.answered;
      into.maxMs = Math.max(into.maxMs, one.maxMs);
      for (const [cause, n] of Object.entries(one.failed)) into.failed[cause] = (into.failed[cause] ?? 0) + n;
    }
  }
  return all;
}

/** Processor time by thread, in ticks: "NAME/TID" to ticks. */
function threadTicks(pids: readonly number[]): Map<string, number> {
  const ticks = new Map<string, number>();
  for (const pid of pids) {
    for (const tid of readdirSync(`/proc/${pid}/task`)) {
      try {
        const stat = readFileSync(`/proc/${pid}/task/${tid}/stat`, 'utf8');
        const [, name = '', rest = ''] = /\((.*)\) (.*)/s.exec(stat) ?? [];
        const fields = rest.split(' ');
        ticks.set(`${name}/${tid}`, Number(fields[11]) + Number(fields[12]));
      } catch {
        // the thread ended
      }
    }
  }
  return ticks;
}

function shares(before: Map<string, number>, after: Map<string, number>, ms: number): Record<string, number> {
  const result: Record<string, number> = {};
  for (const [name, ticks] of after) {
    const share = ((ticks - (before.get(name) ?? 0)) * TICK_MS) / ms;
    if (share >= 0.01) result[name] = Math.round(share * 100) / 100;
  }
  return result;
}

/** One stream each way for a second. */
async function streamRates(bed: Bed, guest: Inside): Promise<{ upGbits: number; downGbits: number }> {
  const server = bed.start('peer', ['iperf3', '-s', '-p', '5201']);
  try {
    await sleepMs(300);
    const rate = async (...more: string[]): Promise<number> => {
      const argv = [
        'iperf3',
        '-c',
        PEER4,
        '-p',
        '5201',
        '-t',
        '1',
        '-J',
        '--connect-timeout',
        '3000',
        ...more,
      ];
      const { stdout } = await guest.inside(argv, { timeoutMs: 15_000 }).catch(() => ({ stdout: '{}' }));
      const bits = JSON.parse(stdout || '{}').end?.sum_received?.bits_per_second ?? 0;
      return Math.round(bits / 1e7) / 100;
    };
    return { upGbits: await rate(), downGbits: await rate('-R') };
  } finally {
    killTree(server.pid);
  }
}

async function startFront(bed: Bed, o: ArenaOptions): Promise<ArenaGuest> {
  const publish = PORTS.flatMap((name) => {
    const ports = `${PUBLISHED[name]}:${INSIDE[name]}`;
    return name === 'once' ? [ports] : [ports, `${ports}/udp`];
  });
  if (o.front === 'run') {
    const extra = o.splice ? ['--splice'] : [];
    const guest = await bed.engine({ plan: o.plan, publish, extra, ...(o.mtu ? { mtu: o.mtu } : {}) });
    return {
      ...guest,
      resolver: '169.254.1.1',
      log: () => guest.started.printed().stderr,
      stop: async () => void (await guest.stop()),
    };
  }
  if (o.front === 'pasta' || o.front === 'stock pasta') {
    const stock = o.front === 'stock pasta';
    const program = stock ? (o.stockPasta ?? 'pasta') : undefined;
    const tool = program
      ? {
          ...ourPasta,
          run: (...args: Parameters<typeof ourPasta.run>) => {
            const launch = ourPasta.run(...args);
            return { ...launch, argv: [program, ...launch.argv.slice(1)] };
          },
        }
      : ourPasta;
    const extra = ['--dns-forward', '169.254.1.1'];
    const guest = await bed.engine({ engine: tool, publish, extra, ...(o.mtu ? { mtu: o.mtu } : {}) });
    return {
      ...guest,
      resolver: '169.254.1.1',
      log: () => guest.started.printed().stderr,
      stop: async () => void (await guest.stop()),
    };
  }
  const program = o.front === 'slirp4netns' ? `${repoRoot}/bin/slirp4netns` : (o.stockSlirp ?? 'slirp4netns');
  const empty = await bed.emptyGuest();
  const api = `${bed.ramDir}/arena-api`;

  const slirp = bed.start('user', [
    program,
    ...['-c', `--mtu=${o.mtu ?? 65520}`, '-a', api],

    ...[String(bed.pidSeenInside(empty.pid)), 'tap0'],
  ]);
  const configured = async (): Promise<boolean> =>
    (await empty.inside(['ip', '-4', 'addr', 'show', 'tap0'])).stdout.includes('10.0.2.100') &&
    (await bed.run('host', ['test', '-S', api])).status === 0;
  await eventually(`${program} has configured the guest`, READY_MS, configured).catch((e: Error) => {
    throw new Error(`${e.message}: ${slirp.printed().stdout}${slirp.printed().stderr}`);
  });
  await empty.inside(['ip', 'link', 'set', 'lo', 'up']);
  const requests = publish.map((spec) => {
    const [ports = '', proto = 'tcp'] = spec.split('/');
    const [host, inside] = ports.split(':').map(Number);
    return JSON.stringify({
      execute: 'add_hostfwd',
      arguments: { proto, host_addr: '0.0.0.0', host_port: host, guest_port: inside },
    });
  });
  for (const request of requests) {
    const argv = ['sh', '-c', `printf '%s' '${request}' | socat -t2 - UNIX-CONNECT:${api}`];
    const { stdout } = await bed.run('host', argv);
    if (!stdout.includes('"return"')) throw new Error(`add_hostfwd: ${stdout}`);
  }
  return {
    ...empty,
    resolver: '10.0.2.3',
    enginePids: () => bed.enginePids(slirp, 'slirp4netns'),
    log: () => slirp.printed().stderr,
    stop: async () => {
      killTree(slirp.pid);
      await empty.end();
    },
  };
}
