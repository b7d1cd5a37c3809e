/** Tables that the Markdown and the HTML report share. Pure. */
import { matrix } from '../matrix.ts';
import { type CellInfo, METRICS, type Result } from '../result.ts';
import { Figures, ratio, type Summary } from './statistics.ts';
import { figure, type Unit, unitFor } from './units.ts';
import { boundText, judgeTargets } from './verdicts.ts';

export interface Table {
  readonly head: readonly string[];
  /** Number of leading columns with text; the others have figures. */
  readonly words: number;
  readonly rows: readonly (readonly string[])[];
}

export interface Section {
  readonly workload: string;
  readonly title: string;
  readonly cells: readonly string[];
  readonly table: Table;
  /** The cells of `--scaling`, which have a table and a plot of their own. */
  readonly isScaling: boolean;
}

const DASH = '-';
const times = (value: number | null): string => (value === null ? DASH : value.toFixed(2));

const failedText = (failed: number, rounds: number): string =>
  failed === 0 ? '' : ` (${failed} of ${failed + rounds} failed)`;

const spread = ({ low, high, rounds }: Summary, unit: Unit, failed: number): string =>
  `${unit.text(low)}–${unit.text(high)}${failedText(failed, rounds)}`;

export const WORKLOAD_TITLES: Readonly<Record<string, string>> = {
  tcp: 'TCP throughput',
  tcp6: 'TCP over IPv6',
  inbound: 'Published ports: the peer connects in',
  paced: 'CPU at a paced 1 Gbit/s',
  line: 'A long line',
  udp: 'UDP: offered load, loss and jitter',
  rr: 'Request and response',
  connect: 'Connections',
  torrent: 'Many small UDP flows: a torrent',
  start: 'Start of a container',
  first: 'The first second after a start',
  idle: 'Nothing to do',
  flows: 'Many idle flows beside a busy one',
  scaling: 'Scaling with lanes',
};

const SCALING = 'scaling';
const ONE_LANE = 'lanes=1';

/** Throughput by number of lanes, relative to one lane of the same cell. */
function scalingTable(figures: Figures): Table {
  const { peers, cells } = figures.result;
  const oneLane = peers.find(({ threads }) => threads === ONE_LANE)?.name;
  const gbit = (mbit: number): string => (mbit / 1000).toFixed(2);
  const rows = cells
    .filter(({ workload }) => workload === SCALING)
    .flatMap((cell) =>
      peers.flatMap(({ name, threads }) => {
        if (figures.of(cell.id, name).length === 0) return [];
        const summary = figures.summary(cell.id, name, 'mbit');
        const mbit = summary?.median ?? null;
        const one = oneLane === undefined ? null : figures.median(cell.id, oneLane, 'mbit');
        const failed = figures.failedRounds(cell.id, name, 'mbit');
        return [
          [
            `${cell.text}, MTU ${cell.mtu}`,
            threads ?? name,
            summary === null ? 'failed' : gbit(summary.median),
            summary === null
              ? DASH
              : `${gbit(summary.low)}–${gbit(summary.high)}${failedText(failed, summary.rounds)}`,
            times(ratio(mbit, one)),
            figure(figures.median(cell.id, name, 'cpuSecondsPerGib'), 'cpuSecondsPerGib'),
            times(ratio(mbit, figures.directMedian(cell.id, 'mbit'))),
          ],
        ];
      }),
    );
  return {
    head: ['cell', 'threads', 'Gbit/s', 'min–max', `/ ${ONE_LANE}`, 'CPU s/GiB', '/ direct'],
    words: 2,
    rows,
  };
}

/** The targets whose cells this run measured; null when there are none. */
export function targetTable(figures: Figures): Table | null {
  const rows = judgeTargets(figures)
    .filter(({ reached }) => reached !== null)
    .map(({ target, measured, bound, reached }) => {
      const unit = unitFor(target.metric, [Math.max(measured ?? 0, bound ?? 0)]);
      const text = (value: number | null): string => (value === null ? DASH : unit.text(value));
      return [
        `${target.text}${target.isStretch ? ' (stretch)' : ''}`,
        `${unit.label} ${boundText(target)}`,
        text(bound),
        text(measured),
        reached ? 'yes' : '**no**',
      ];
    });
  if (rows.length === 0) return null;
  return { head: ['what', 'bound', 'in figures', 'measured', 'reached'], words: 2, rows };
}

/** The verdicts in one sentence. */
export function targetSummary(figures: Figures): string {
  const verdicts = judgeTargets(figures).filter(({ target }) => !target.isStretch);
  const reached = verdicts.filter((verdict) => verdict.reached === true).length;
  const missed = verdicts.filter((verdict) => verdict.reached === false).length;
  const open = verdicts.length - reached - missed;
  const targets = `${reached} target${reached === 1 ? '' : 's'} (stretch goals left aside)`;
  return `${targets} reached, ${missed} missed${open === 0 ? '' : `; ${open} others not measured in this run`}.`;
}

/**
 * Cells in the order of the matrix, whatever the order in a file that was put together from several runs. Others
 * follow as they are.
 */
export function inMatrixOrder(cells: readonly CellInfo[]): CellInfo[] {
  const known = matrix({ mtus: [...new Set(cells.map(({ mtu }) => mtu))] }).map(({ id }) => id);
  const place = ({ id }: CellInfo): number => (known.includes(id) ? known.indexOf(id) : known.length);
  return [...cells].sort((a, b) => place(a) - place(b));
}

export function sections(figures: Figures): Section[] {
  const { result } = figures;
  const inOrder = inMatrixOrder(result.cells);
  const workloads = [...new Set(inOrder.map((cell) => cell.workload))];
  return workloads.map((workload) => {
    const cells = inOrder.filter((cell) => cell.workload === workload);
    const title = WORKLOAD_TITLES[workload] ?? workload;
    const section = { workload, title, cells: cells.map(({ id }) => id) };
    if (workload === SCALING) return { ...section, table: scalingTable(figures), isScaling: true };
    const first = cells[0];
    const metrics = first === undefined ? [] : figures.metrics(first.id);
    const main = metrics[0];
    const others = metrics.slice(1);
    const unit =
      main === undefined
        ? null
        : figures.unit(
            cells.map(({ id }) => id),
            main,
          );
    const head = [
      'cell',
      'tool',
      unit?.label ?? '',
      'min–max',
      '/ direct',
      '/ best peer',
      ...others.map((metric) => METRICS[metric].label),
    ];
    const rows = cells.flatMap((cell) =>
      result.peers.flatMap((peer) => {
        if (figures.of(cell.id, peer.name).length === 0) return [];
        // No peer has a figure: the table shows the failures.
        if (main === undefined || unit === null)
          return [[`${cell.text}, MTU ${cell.mtu}`, peer.name, 'failed', ...head.slice(3).map(() => DASH)]];
        const summary = figures.summary(cell.id, peer.name, main);
        const value = summary?.median ?? null;
        return [
          [
            `${cell.text}, MTU ${cell.mtu}`,
            peer.name,
            summary === null ? 'failed' : unit.text(summary.median),
            summary === null ? DASH : spread(summary, unit, figures.failedRounds(cell.id, peer.name, main)),
            times(ratio(value, figures.directMedian(cell.id, main))),
            times(ratio(value, figures.best(cell.id, main)?.median ?? null)),
            ...others.map((metric) => figure(figures.median(cell.id, peer.name, metric), metric)),
          ],
        ];
      }),
    );
    return { ...section, table: { head, words: 2, rows }, isScaling: false };
  });
}

/** Loss of UDP by offered load, a column for each tool. null: no load was offered. */
export function lossTable(figures: Figures): Table | null {
  const { cells, peers } = figures.result;
  const offered = cells.filter(({ id }) => /^udp-\d+-\d+-/.test(id));
  const of = (cell: string, peer: string): string => {
    const value = figures.median(cell, peer, 'lossPercent');
    if (value !== null) return figure(value, 'lossPercent');
    return figures.of(cell, peer).length === 0 ? DASH : 'failed';
  };
  if (offered.length === 0) return null;
  const there = peers.filter(({ name }) => offered.some(({ id }) => figures.of(id, name).length > 0));
  return {
    head: ['loss in per cent', ...there.map(({ name }) => name)],
    words: 1,
    rows: offered.map(({ id, text }) => [
      text.replace(/^UDP, /, ''),
      ...there.map(({ name }) => of(id, name)),
    ]),
  };
}

export function peerTable(result: Result): Table {
  return {
    head: ['tool', 'version', 'threads'],
    words: 3,
    rows: result.peers.map((peer) => [peer.name, peer.version, peer.threads ?? DASH]),
  };
}

export function machineText({ machine }: Pick<Result, 'machine'>): string {
  return [
    machine.cpu,
    `${machine.cores} cores`,
    `Linux ${machine.kernel}`,
    `Node ${machine.node}`,
    `iperf3 ${machine.iperf3}`,
    `governor ${machine.governor}`,
    `commit ${machine.commit}`,
    `load ${machine.loadAtStart.toFixed(2)} at the start`,
  ].join(', ');
}

export function optionsText(result: Result): string {
  const set = Object.entries(result.options).filter(([, value]) => value !== null);
  return set.map(([name, value]) => `${name} ${value}`).join(', ');
}

export const HOW_TO_READ =
  'Medians of interleaved rounds, warm-up dropped; up is from the guest. "Best peer" is the best of the ' +
  'stock tools in that row, direct left aside. CPU and memory are those of the whole process tree of the tool. TCP runs ' +
  'cubic; all ends share the processors.';

export const soakTable = (result: Result): Table | null =>
  result.soak && {
    head: ['second', 'RSS MiB', 'descriptors'],
    words: 0,
    rows: result.soak.samples.map((s) => [`${s.second}`, s.rssMib.toFixed(1), `${s.descriptors}`]),
  };

export { Figures };
