/** What a report shows, in which order: chapters with charts, percentile curves and tables. Pure. */
import { type CellInfo, METRICS, type Metric } from '../result.ts';
import type { Figures } from './statistics.ts';
import { inMatrixOrder, lossTable, type Section, sections, type Table } from './tables.ts';
import { type Unit, unitFor } from './units.ts';

/** A tool's figure in one group of a chart. */
export interface Bar {
  readonly peer: string;
  /** null: the tool failed, and `word` says so. */
  readonly value: number | null;
  readonly low: number;
  readonly high: number;
  readonly text: string;
  /** Spread and rounds, or the error. */
  readonly detail: string;
}

export interface Group {
  readonly title: string;
  readonly bars: readonly Bar[];
}

/** Groups of bars with one scale. */
export interface Chart {
  readonly title: string;
  /** Unit, and which direction is better. */
  readonly unit: string;
  readonly note: string | null;
  readonly groups: readonly Group[];
}

export interface Chapter {
  /** For links to it. */
  readonly id: string;
  readonly title: string;
  readonly charts: readonly Chart[];
  /** Cells with percentile curves, and their titles. */
  readonly curves: readonly { readonly cell: string; readonly title: string }[];
  readonly loss: Table | null;
  readonly sections: readonly Section[];
}

interface Draft {
  readonly title: string;
  readonly metric: Metric;
  readonly cells: readonly CellInfo[];
  /** A group's title, without the MTU. */
  readonly group?: (cell: CellInfo) => string;
  readonly note?: string;
  /** Add the rate to a figure of processor time, which means little for a transfer that stalls. */
  readonly withRate?: boolean;
}

const words = (text: string): string => text.replaceAll('`', '');
const withoutTcp = ({ text }: CellInfo): string => words(text).replace(/^TCP(, | over | to a )?/, '');
const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

function bar(figures: Figures, cell: string, peer: string, draft: Draft, unit: Unit): Bar[] {
  const { metric } = draft;
  const summary = figures.summary(cell, peer, metric);
  if (summary === null) {
    if (figures.of(cell, peer).length === 0) return [];
    const error = figures.error(cell, peer);
    // Other metrics were measured: this one does not apply to the tool.
    if (error === null) return [];
    return [{ peer, value: null, low: 0, high: 0, text: 'failed', detail: error }];
  }
  const { median, low, high, rounds } = summary;
  const rate = draft.withRate === true ? figures.median(cell, peer, 'mbit') : null;
  const at = rate === null ? null : unitFor('mbit', [rate]);
  const failed = figures.failedRounds(cell, peer, metric);
  return [
    {
      ...{ peer, value: median, low, high },
      text: `${unit.text(median)}${rate === null || at === null ? '' : ` at ${at.text(rate)} ${at.label}`}`,
      detail:
        `${unit.label}: median ${unit.text(median)}` +
        (rounds === 1 ? ', one round' : `, ${unit.text(low)} to ${unit.text(high)} in ${rounds} rounds`) +
        (failed === 0 ? '' : `, ${failed} more failed`),
    },
  ];
}

/** null: nothing was measured. */
function chart(figures: Figures, draft: Draft): Chart | null {
  const { title, metric, cells, group = ({ text }) => capital(words(text)) } = draft;
  const unit = figures.unit(
    cells.map(({ id }) => id),
    metric,
  );
  const mtus = new Set(cells.map(({ mtu }) => mtu));
  const groups = cells.flatMap((cell) => {
    const bars = figures.result.peers.flatMap(({ name }) => bar(figures, cell.id, name, draft, unit));
    const name = capital(group(cell));
    return bars.length === 0
      ? []
      : [{ title: mtus.size > 1 ? `${name ? `${name}, ` : ''}MTU ${cell.mtu}` : name, bars }];
  });
  if (groups.length === 0) return null;
  const { better } = METRICS[metric];
  return { title, unit: `${unit.label}, ${better} is better`, note: draft.note ?? null, groups };
}

const CHAPTERS: readonly {
  readonly id: string;
  readonly title: string;
  readonly workloads: readonly string[];
}[] = [
  { id: 'throughput', title: 'Throughput', workloads: ['tcp', 'tcp6', 'inbound', 'flows', 'first', 'line'] },
  { id: 'latency', title: 'Latency and connections', workloads: ['rr', 'connect'] },
  { id: 'udp', title: 'UDP', workloads: ['udp', 'torrent'] },
  { id: 'cpu', title: 'Processor time', workloads: ['paced'] },
  { id: 'start', title: 'Start and memory', workloads: ['start', 'idle'] },
  { id: 'scaling', title: 'Scaling with lanes', workloads: ['scaling'] },
];

function drafts(chapter: string, cells: readonly CellInfo[]): Draft[] {
  const of = (...workloads: string[]) => cells.filter(({ workload }) => workloads.includes(workload));
  const like = (id: RegExp) => cells.filter((cell) => id.test(cell.id));
  const mtus = [...new Set(cells.map(({ mtu }) => mtu))];
  switch (chapter) {
    case 'throughput':
      return [
        ...mtus.map((mtu) => ({
          title: `TCP, MTU ${mtu}`,
          metric: 'mbit' as const,
          cells: of('tcp').filter((cell) => cell.mtu === mtu),
          group: withoutTcp,
        })),
        {
          title: 'TCP over IPv6',
          metric: 'mbit',
          cells: of('tcp6'),
          group: (c) => withoutTcp(c).replace(/^IPv6, /, ''),
        },
        {
          title: 'TCP to a published port: the peer connects in',
          metric: 'mbit',
          cells: of('inbound'),
          group: (c) => withoutTcp(c).replace(/^published port, /, ''),
        },
        { title: 'TCP upload beside many idle connections', metric: 'mbit', cells: of('flows') },
        {
          title: 'The first second after a start: TCP',
          metric: 'mbit',
          cells: like(/^first-tcp/),
          group: (c) => words(c.text).replace(/^.*: TCP, /, ''),
        },
        { title: 'TCP over a long line', metric: 'mbit', cells: of('line'), group: withoutTcp },
      ];
    case 'latency':
      return [
        ...(['p50Us', 'p99Us'] as const).map((metric) => ({
          title: `Request and response over TCP: ${metric === 'p50Us' ? 'median' : '99th percentile'} of the time`,
          metric,
          cells: of('rr'),
          group: (c: CellInfo) => words(c.text).replace(/^.*response of /, ''),
        })),
        { title: 'New connections, one after the other', metric: 'perSecond', cells: of('connect') },
      ];
    case 'udp':
      return [
        {
          title: 'UDP at full offer: what arrives',
          metric: 'mbit',
          cells: like(/^udp-\d+-full-/),
          group: (c) =>
            words(c.text)
              .replace(/^UDP, /, '')
              .replace(', full offer', ''),
        },
        {
          title: 'Datagrams of 64 B at full offer: what arrives',
          metric: 'packetsPerSecond',
          cells: like(/^udp-64-full-/),
          group: (c) => words(c.text).replace(/^.*, /, ''),
        },
        {
          title: 'The first second after a start: UDP',
          metric: 'mbit',
          cells: like(/^first-udp/),
          group: (c) => words(c.text).replace(/^.*: UDP, /, ''),
        },
        { title: 'Many small flows', metric: 'mbit', cells: of('torrent') },
      ];
    case 'cpu':
      return [
        {
          title: 'Processor time for each GiB of one TCP stream',
          metric: 'cpuSecondsPerGib',
          cells: like(/^tcp-1-(up|down)-/),
          group: withoutTcp,
          note: 'In seconds of one processor. A transfer that stalls costs little: look at the rate beside the figure.',
          withRate: true,
        },
        {
          title: 'TCP paced at 1 Gbit/s',
          metric: 'cpuPercent',
          cells: of('paced'),
          group: (c) => words(c.text).replace(/^.*, /, ''),
          note: 'In per cent of one processor.',
          withRate: true,
        },
        { title: 'Many small UDP flows', metric: 'cpuPercent', cells: of('torrent'), withRate: true },
      ];
    case 'start':
      return [
        { title: 'Start and end of a network', metric: 'startMs', cells: of('start') },
        { title: 'Memory of an idle instance', metric: 'rssMib', cells: of('idle') },
        {
          title: 'Processor time of an idle instance',
          metric: 'cpuTicks',
          cells: of('idle'),
          note: 'A tick is 10 ms.',
        },
        { title: 'Memory with many idle connections', metric: 'rssMib', cells: of('flows') },
      ];
    default:
      return [];
  }
}

/** The chapters that have something to show. Workloads that no chapter names stand in the last one. */
export function chapters(figures: Figures): Chapter[] {
  const cells = inMatrixOrder(figures.result.cells);
  const tables = sections(figures);
  const known = CHAPTERS.flatMap(({ workloads }) => workloads);
  const others = [...new Set(cells.map(({ workload }) => workload))].filter((name) => !known.includes(name));
  return [...CHAPTERS, { id: 'others', title: 'Others', workloads: others }]
    .map(({ id, title, workloads }) => ({
      ...{ id, title },
      charts: (id === 'others'
        ? others.flatMap((workload) => {
            const own = cells.filter((cell) => cell.workload === workload);
            const metric = own[0] && figures.metrics(own[0].id)[0];
            return metric === undefined ? [] : [{ title: capital(workload), metric, cells: own }];
          })
        : drafts(id, cells)
      ).flatMap((draft) => chart(figures, draft) ?? []),
      curves: cells
        .filter(({ id: cell, workload }) => workloads.includes(workload) && figures.hasDistribution(cell))
        .map((cell) => ({ cell: cell.id, title: capital(words(cell.text)) })),
      loss: id === 'udp' ? lossTable(figures) : null,
      sections: workloads.flatMap((workload) => tables.filter((section) => section.workload === workload)),
    }))
    .filter(({ charts, sections: own }) => charts.length + own.length > 0);
}

/** One stream up and down at each MTU: the chart of the summary. */
export function summaryChart(figures: Figures): Chart | null {
  return chart(figures, {
    title: 'TCP, one stream',
    metric: 'mbit',
    cells: figures.result.cells.filter(({ id }) => /^tcp-1-(up|down)-/.test(id)),
    group: ({ id }) => (id.includes('-up-') ? 'Up, from the guest' : 'Down, to the guest'),
  });
}
