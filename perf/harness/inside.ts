/**
 * The part of the harness that runs as root of its own namespaces: build the test network, measure, stop all
 * processes, report.
 */
import { Socket } from 'node:net';
import { compared, readResult } from './comparing.ts';
import { describeMachine } from './machine.ts';
import { plan, planText } from './matrix.ts';
import { type Log, measureAll, startGuest } from './measuring.ts';
import { type Options, ownName, parseOptions, UsageError } from './options.ts';
import { printReport, writeOutput } from './outputs.ts';
import { ageNote, makePeers, type Peer } from './peers.ts';
import { stopAll } from './processes.ts';
import { packageDirectory } from './programs.ts';
import { say } from './progress.ts';
import { csv } from './report/csv.ts';
import { CHECK_FAILED, checkFailures } from './report/gate.ts';
import { html } from './report/html.ts';
import { markdown } from './report/markdown.ts';
import { type PeerInfo, type Result, SCHEMA, type Soak } from './result.ts';
import { soak } from './soak.ts';
import { buildWorld } from './world.ts';

/**
 * Descriptor of a pipe from the outside process. It is closed when that process ends or wants this one to
 * end.
 */
export const LIFELINE_FD = 3;

const SIGNAL_STATUS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
const SOAK_MTU = 65520;
const SCALING_NOTE =
  'both ends of every connection run on the same processors as the lanes, in as many pairs of iperf3 processes as there are lanes at most';

async function findPeers(options: Options, notes: string[]): Promise<{ peer: Peer; info: PeerInfo }[]> {
  const found: { peer: Peer; info: PeerInfo }[] = [];
  for (const peer of makePeers(options.peers)) {
    const probed = await peer.probe();
    if ('version' in probed) {
      const { name, kind, threads } = peer;
      found.push({ peer, info: { name, kind, version: probed.version, threads } });
      const note = ageNote(name, probed.version, new Date());
      if (note === null) continue;
      notes.push(note);
      say(note);
    } else {
      notes.push(`${peer.name} is missing: ${probed.missing}`);
      say(`${peer.name} is missing: ${probed.missing}`);
    }
  }
  return found;
}

const modeOf = ({ soakMinutes, only, mode }: Options): string =>
  soakMinutes !== null ? 'soak' : only !== null && mode !== 'scaling' ? 'only' : mode;

/** The options that affect the figures, for the result; no file names. */
function optionRecord(options: Options): Result['options'] {
  const { line } = options;
  return {
    mode: modeOf(options),
    only: options.only?.join() ?? null,
    mtus: options.mtus.join(),
    rounds: options.rounds,
    seconds: options.seconds,
    idleSeconds: options.idleSeconds,
    tcpWmem: options.tcpWmem,
    line: line === null ? null : `${line.delayMs},${line.rateMbit},${line.queueKib},${line.lossPercent}`,
  };
}

/**
 * Replace paths by the peers' names: tools quote their command lines, and a report must not contain local
 * paths.
 */
function withoutPaths(text: string, options: Options): string {
  return options.peers
    .reduce((so, { name, path }) => (path === null ? so : so.replaceAll(path, name)), text)
    .replaceAll(packageDirectory, '');
}

export async function inside(argv: readonly string[]): Promise<number> {
  const options = parseOptions(argv);
  if (options === null) return 2;
  const abort = new AbortController();
  let status = 0;
  const stop = (why: number) => () => {
    status ||= why;
    abort.abort();
  };
  for (const [name, code] of Object.entries(SIGNAL_STATUS)) process.on(name, stop(code));
  const lifeline = new Socket({ fd: LIFELINE_FD, readable: true, writable: false });
  lifeline.on('close', stop(143)).on('error', stop(143)).resume().unref();

  const beganMs = performance.now();
  const log: Log = { measurements: [], notes: [] };
  const machine = await describeMachine();
  const found = await findPeers(options, log.notes);
  const infos = found.map(({ info }) => info);
  const planned = plan(options, infos);
  if (options.scalingCores !== null) log.notes.push(SCALING_NOTE);
  if (options.showPlan) {
    return printReport(planText(planned)) ? 0 : 1;
  }
  let soaked: Soak | null = null;
  try {
    if (found.length === 0) throw new UsageError('none of the peers is here');
    const world = await buildWorld(options.tcpWmem);
    if (options.soakMinutes === null)
      await measureAll({
        ...{ world, plan: planned, peers: found.map(({ peer }) => peer) },
        ...{ idleSeconds: options.idleSeconds, log, abort: abort.signal },
      });
    else {
      const ours = found.find(({ peer }) => peer.kind === 'bucatini');
      if (!ours) throw new UsageError('--soak needs a bucatini among the peers');
      const guest = await startGuest(world, ours.peer, options.mtus[0] ?? SOAK_MTU, abort.signal);
      soaked = await soak({ world, guest, abort: abort.signal }, ours.info.name, options.soakMinutes);
      if (!soaked.passed) status ||= CHECK_FAILED;
    }
  } catch (error) {
    say(`${ownName()}: ${error instanceof Error ? error.message : error}`);
    log.notes.push(`ended by an error: ${error instanceof Error ? error.message : error}`);
    status ||= 1;
  }
  const endedEarly = abort.signal.aborted;
  await stopAll();

  const { cells } = planned;
  const result: Result = {
    schema: SCHEMA,
    date: new Date().toISOString().slice(0, 10),
    mode: modeOf(options),
    machine,
    options: optionRecord(options),
    peers: infos,
    cells: cells
      .filter((cell) => log.measurements.some((m) => m.cell === cell.id))
      .map(({ id, workload, text, mtu, seconds }) => ({ id, workload, text, mtu, seconds })),
    measurements: log.measurements.map((m) => ({
      ...m,
      error: m.error === null ? null : withoutPaths(m.error, options),
    })),
    notes: log.notes.map((note) => withoutPaths(note, options)),
    soak: soaked,
    seconds: Math.round((performance.now() - beganMs) / 1000),
    endedEarly,
  };
  if ((log.measurements.length > 0 || soaked !== null) && !printReport(markdown(result))) status ||= 1;
  const texts = {
    '--json': () => `${JSON.stringify(result, null, 1)}\n`,
    '--html': () => html(result),
    '--csv': () => csv(result),
  };
  for (const output of options.outputs) if (!writeOutput(output, texts[output.flag]())) status ||= 1;
  return judged(result, options) || status;
}

/** Print the comparison with an earlier result and what the check says. @returns the status */
function judged(result: Result, options: Options): number {
  const { compare, check, requirements } = options;
  // A soak has its own verdict.
  if (result.soak !== null || result.measurements.length === 0) return 0;
  const beside = compare === null ? null : compared(readResult(compare.old), compare.old, result, 'this run');
  const printed = beside === null || printReport(`\n${beside.markdown}`) ? 0 : 1;
  if (!check) return printed;
  const failures = checkFailures(result, beside?.comparison ?? null, requirements);
  for (const failure of failures) say(`check: ${failure}`);
  return failures.length > 0 ? CHECK_FAILED : printed;
}
