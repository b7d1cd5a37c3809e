// bundle: rare
/**
 * `bucatini flows`, `ports`, `stats` and `policy`: ask running instances by their API sockets, and print the
 * answers as tables or as JSON, once or repeatedly. All instances are asked at the same time.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  askFlows,
  askPolicy,
  askPorts,
  askStats,
  type FlowsAnswer,
  type PortAnswer,
  type PortsAnswer,
  type StatsAnswer,
} from '../api/answers.ts';
import { ApiError } from '../api/client.ts';
import { type Instance, namedInstances } from '../api/instances.ts';
import { tableText } from '../cli/table.ts';
import { durationText } from '../cli/units.ts';
import { UsageError } from '../cli/values.ts';
import { say } from '../host/log.ts';
import { countersText, histogramsText, perSecond, throughputText } from '../host/stats.ts';
import { print } from '../process/output.ts';
import { FLOW_COLUMNS, filterRows, flowTable, sortRows } from './flow-rows.ts';
import type { Settings } from './options.ts';

export type WatchCommand = 'flows' | 'ports' | 'stats' | 'policy';

/** How long an instance may take for one page of its answer. */
const ANSWER_MS = 5000;
/** Most flows of an instance in one output. */
const MAX_FLOWS = 200_000;

/** The answer of one instance. `json` is printed with --json, `text` without. */
interface Told {
  readonly json: Readonly<Record<string, unknown>>;
  readonly text: string;
}

type Asks = (instance: Instance, settings: Settings) => Promise<Told>;

/**
 * Run one of the commands.
 * @param operands  process ids and paths of API sockets; none: all instances of this user
 * @returns the exit status: 1 if an instance did not answer, or if there is none
 * @throws Error with one line for the user
 */
export async function watch(
  command: WatchCommand,
  settings: Settings,
  operands: readonly string[],
): Promise<number> {
  if (settings.sort === 'rate')
    throw new UsageError('--sort rate: only bucatini top measures rates; write for example --sort bytes');
  const ask = asks(command);
  for (let round = 0; ; round++) {
    let instances: readonly Instance[];
    try {
      instances = await namedInstances(operands);
    } catch (error) {
      if (!(error instanceof ApiError) || round === 0) throw error;
      instances = [];
    }
    const all = await Promise.all(instances.map((instance) => askOne(instance, ask, settings)));
    const lost = all.filter(({ problem }) => problem !== undefined).length;
    const ended = instances.length === 0 || (round > 0 && operands.length > 0 && lost === all.length);
    if (ended && round > 0 && operands.length > 0) return 0;
    if (instances.length === 0 && settings.watch === undefined) return none(settings);
    if (!output(settings, all)) return 0; // nobody reads any more
    if (settings.watch === undefined) return lost === 0 ? 0 : 1;
    await sleep(settings.watch * 1000);
  }
}

function none(settings: Settings): number {
  if (settings.json) print(`${JSON.stringify({ timeMs: Date.now(), instances: [] })}\n`);
  say(
    'no running instance of this user was started with --api-socket auto; start one so, or name an API socket',
  );
  return 1;
}

interface Answered {
  readonly instance: Instance;
  readonly told?: Told;
  readonly problem?: string;
}

async function askOne(instance: Instance, ask: Asks, settings: Settings): Promise<Answered> {
  if (instance.problem !== undefined) return { instance, problem: instance.problem };
  try {
    return { instance, told: await ask(instance, settings) };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return { instance, problem: error.message };
  }
}

/** @returns whether it could be written; only with --watch is it no error that nobody reads */
function output(settings: Settings, all: readonly Answered[]): boolean {
  const text = settings.json ? jsonText(all) : peopleText(all, settings.watch !== undefined);
  try {
    print(text);
    return true;
  } catch (error) {
    if (settings.watch === undefined) throw error;
    return false;
  }
}

function jsonText(all: readonly Answered[]): string {
  const instances = all.map(({ instance, told, problem }) => ({
    program: instance.info?.program ?? instance.program,
    pid: instance.pid,
    socket: instance.path,
    ...(problem === undefined ? told?.json : { problem }),
  }));
  return `${JSON.stringify({ timeMs: Date.now(), instances })}\n`;
}

function peopleText(all: readonly Answered[], repeats: boolean): string {
  const parts = all.map(
    ({ instance, told, problem }) => `${headingText(instance)}\n${told?.text ?? `  ${problem}\n`}`,
  );
  if (repeats) parts.unshift(`== ${new Date().toTimeString().slice(0, 8)}\n`);
  if (all.length === 0) parts.push('no instances\n');
  return `${parts.join('\n')}${repeats ? '\n' : ''}`;
}

/** "bucatini run, process 1234: eth0, 192.0.2.2, 2001:db8::2, up 2:03" */
export function headingText({ info, program, pid, path }: Instance): string {
  if (info === undefined) return `${program}${pid === 0 ? '' : `, process ${pid}`}: ${path}`;
  const network = [info.interface, info.ipv4?.guest, info.ipv6?.guest].filter((part) => part !== undefined);
  return `${info.program}, process ${pid}: ${[...network, `up ${durationText(info.uptimeMs)}`].join(', ')}`;
}

function asks(command: WatchCommand): Asks {
  switch (command) {
    case 'flows':
      return async ({ path }, settings) => {
        const answer = await askFlows(path, MAX_FLOWS, { timeoutMs: ANSWER_MS });
        const chosen = flowsOf(answer, settings);
        return { json: chosen, text: flowsText(chosen) };
      };
    case 'ports':
      return async ({ path }) => {
        const answer = await askPorts(path, { timeoutMs: ANSWER_MS });
        return { json: { ...answer }, text: portsText(answer) };
      };
    case 'policy':
      return async ({ path }) => {
        const policy = await askPolicy(path, { timeoutMs: ANSWER_MS });
        return { json: { policy }, text: policy ?? 'no policy: everything may be reached\n' };
      };
    case 'stats':
      return statsAsker();
  }
}

function flowsOf(
  { flows, more }: FlowsAnswer,
  { sort = 'age', filter = '' }: Settings,
): FlowsAnswer & Told['json'] {
  const rows = flows.map((flow) => ({ flow, pid: 0, fromGuestRate: 0, toGuestRate: 0 }));
  return { flows: sortRows(filterRows(rows, filter), sort).map(({ flow }) => flow), more };
}

function flowsText({ flows, more }: FlowsAnswer): string {
  if (flows.length === 0) return 'no flows\n';
  const rows = flows.map((flow) => ({ flow, pid: 0, fromGuestRate: 0, toGuestRate: 0 }));
  return `${tableText(flowTable(rows), FLOW_COLUMNS)}${more ? 'there are more\n' : ''}`;
}

/** The table of `bucatini ports`. */
export function portsText({ ports, failed }: PortsAnswer): string {
  const rows = [
    ...ports.map((port) => [...portCells(port), port.id === undefined ? 'open' : `open, id ${port.id}`]),
    ...failed.map((port) => [
      ...portCells(port.failed_port === undefined ? port : onePort(port, port.failed_port)),
      `failed: ${port.reason}`,
    ]),
  ];
  if (rows.length === 0) return 'no ports\n';
  return tableText([['PROTO', 'LISTENS ON', 'LEADS TO', 'PATH', 'STATE'], ...rows], 'l');
}

const onePort = ({ last_port: _, ...port }: PortAnswer, failed: number): PortAnswer => ({
  ...port,
  port: failed,
  target_port: port.target_port + failed - port.port,
});

function portCells(port: PortAnswer): string[] {
  const { proto, from, address, port: first, last_port: last = first } = port;
  const range = (a: number, b: number): string => (a === b ? `${a}` : `${a}-${b}`);
  const where = address === '' ? '*' : address.includes(':') ? `[${address}]` : address;
  const device = port.interface === undefined ? '' : `%${port.interface}`;
  const [listener, target] = from === 'guest' ? ['guest', 'host'] : ['host', 'guest'];
  const to = port.target_addr === '' ? target : `${target} ${port.target_addr}`;
  const targets = range(port.target_port, port.target_port + last - first);
  return [proto, `${listener} ${where}${device}:${range(first, last)}`, `${to}:${targets}`, port.path];
}

/** Asks for counters; from the second answer of an instance on, the table has changes per second. */
function statsAsker(): Asks {
  const before = new Map<string, { readonly stats: StatsAnswer; readonly atMs: number }>();
  return async ({ path, info }) => {
    const stats = await askStats(path, { timeoutMs: ANSWER_MS });
    const last = before.get(path);
    const now = { stats, atMs: performance.now() };
    before.set(path, now);
    if (last === undefined) {
      const elapsedMs = stats.uptimeMs ?? info?.uptimeMs ?? 0;
      return { json: { ...stats }, text: statsText(stats, elapsedMs) };
    }
    const seconds = (now.atMs - last.atMs) / 1000;
    const rates = perSecond(stats.counters, last.stats.counters, seconds);
    return { json: { ...stats, perSecond: rates }, text: changesText(stats, rates, seconds) };
  };
}

const statsText = (stats: StatsAnswer, elapsedMs: number): string =>
  `${throughputText(stats.counters, elapsedMs)}\n${countersText(stats.counters, stats.threads)}\n${histogramsText(stats.histograms)}`;

function changesText(
  { counters }: StatsAnswer,
  rates: Readonly<Record<string, number>>,
  seconds: number,
): string {
  const changed = Object.entries(rates).filter(([, rate]) => rate !== 0);
  if (changed.length === 0) return `no counter has changed for ${seconds.toFixed(1)} s\n`;
  const figure = (value: number): string =>
    value.toLocaleString('en-US', { maximumFractionDigits: value < 100 ? 1 : 0 });
  return tableText(
    [
      ['counter', 'value', 'per second'],
      ...changed.map(([name, rate]) => [name, figure(counters[name] ?? 0), figure(rate)]),
    ],
    'lr',
  );
}
