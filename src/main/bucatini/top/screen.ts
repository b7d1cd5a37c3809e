// bundle: rare
/** The screen of `bucatini top` as lines of text, for any size of the terminal. Pure. */
import { shortAge, shortBytes, shortMicroseconds, shortRate } from '../../cli/short-units.ts';
import { bytesText, durationText, rateText } from '../../cli/units.ts';
import { type FlowRow, filterRows, remoteText, retransmitsOf, sortRows, UNKNOWN } from '../flow-rows.ts';
import type { SortKey } from '../options.ts';
import type { Measured } from './sample.ts';

/** What the user has chosen. */
export interface TopView {
  /** Path of the instance that is shown alone; absent: all. */
  readonly chosen?: string;
  readonly sort: SortKey;
  readonly reversed: boolean;
  readonly filter: string;
  /** The filter while it is typed. */
  readonly typed?: string;
  readonly paused: boolean;
  /** Rows of flows above the screen. */
  readonly scroll: number;
  readonly help: boolean;
}

export interface ScreenSize {
  readonly columns: number;
  readonly rows: number;
}

/** How a line is drawn, where the terminal can. */
export type LineStyle = 'title' | 'head' | 'alert' | 'plain' | 'foot';

export interface ScreenLine {
  readonly text: string;
  readonly style: LineStyle;
}

/** The instances that a view shows. */
export const shownInstances = (all: readonly Measured[], { chosen }: TopView): readonly Measured[] => {
  const one = all.filter(({ path }) => path === chosen);
  return one.length > 0 ? one : all;
};

/** The rows that a view shows, in its order. */
export const shownRows = (all: readonly Measured[], view: TopView): readonly FlowRow[] =>
  sortRows(
    filterRows(
      shownInstances(all, view).flatMap(({ rows }) => rows),
      view.typed ?? view.filter,
    ),
    view.sort,
    view.reversed,
  );

const HELP = [
  'q, ^C         quit',
  's, S          sort by the next, the previous column',
  'r             reverse the order',
  '/             filter: type words, Enter keeps them, Escape removes them',
  'p, blank      pause',
  'n, N          next, previous instance; behind the last one: all',
  'arrows, Page Up, Page Down, Home, End   scroll',
  'h, ?          this help',
  '',
  'FROM, TO      bit/s from and to the guest',
  'BYTES         payload of both directions',
  "RTT           of the host's socket, by its kernel",
  'RETX          segments sent again, to the remote end and to the guest',
  'drops         packets lost by cause: docs/counters.md explains the causes',
  'threads       share of one processor',
];

/**
 * The whole screen.
 * @returns at most `rows` lines of at most `columns` characters, all printable ASCII
 */
export function screenLines(
  all: readonly Measured[],
  view: TopView,
  { columns, rows }: ScreenSize,
  now: Date,
): ScreenLine[] {
  const foot: ScreenLine = { text: footText(view, columns), style: 'foot' };
  const head = headLines(all, view, columns, rows, now);
  const room = Math.max(0, rows - head.length - 1);
  const body = view.help
    ? HELP.slice(0, room).map((text): ScreenLine => ({ text, style: 'plain' }))
    : flowLines(all, view, columns, room);
  while (body.length < room) body.push({ text: '', style: 'plain' });
  return [...head, ...body, foot]
    .slice(0, Math.max(0, rows))
    .map(({ text, style }) => ({ text: clipped(text, columns), style }));
}

/** The screen as plain text: all rows of flows, no keys. @param columns  of the terminal; absent: not cut */
export function plainText(all: readonly Measured[], view: TopView, now: Date, columns = 1000): string {
  const size = { columns, rows: Number.POSITIVE_INFINITY };
  const head = headLines(all, view, size.columns, size.rows, now);
  const lines = [...head, ...flowLines(all, view, size.columns, size.rows)];
  return lines.map(({ text }) => `${clipped(text, columns).trimEnd()}\n`).join('');
}

/** Most flow rows that a scroll may leave above the screen. */
export function maxScroll(all: readonly Measured[], view: TopView, size: ScreenSize): number {
  const head = headLines(all, view, size.columns, size.rows, new Date(0)).length;
  return Math.max(0, shownRows(all, view).length - Math.max(1, size.rows - head - 2));
}

/** Rows of flows on a screen. */
export const pageRows = (all: readonly Measured[], view: TopView, size: ScreenSize): number =>
  Math.max(1, size.rows - headLines(all, view, size.columns, size.rows, new Date(0)).length - 2);

function headLines(
  all: readonly Measured[],
  view: TopView,
  columns: number,
  rows: number,
  now: Date,
): ScreenLine[] {
  const shown = shownInstances(all, view);
  const lines: ScreenLine[] = [{ text: titleText(all, shown, view, columns, now), style: 'title' }];
  if (all.length === 0) {
    lines.push({
      text: 'no running instance of this user was started with --api-socket auto',
      style: 'alert',
    });
    return lines;
  }
  // A small screen keeps room for some flows.
  if (rows >= 4) lines.push({ text: rateLine(shown), style: 'plain' });
  if (rows >= 7) lines.push(dropLine(shown));
  if (rows >= 9) lines.push({ text: threadLine(shown), style: 'plain' });
  const problem = shown.find((instance) => instance.problem !== undefined)?.problem;
  if (shown.length === 1 && problem !== undefined)
    lines.push({ text: `no answer: ${problem}`, style: 'alert' });
  if (shown.length > 1) lines.push(...instanceLines(shown, Math.floor(Math.min(rows, 300) / 3)));
  return lines;
}

function titleText(
  all: readonly Measured[],
  shown: readonly Measured[],
  view: TopView,
  columns: number,
  now: Date,
): string {
  const [only] = shown;
  const right = view.paused ? 'PAUSED' : now.toTimeString().slice(0, 8);
  let left = `bucatini top  ${all.length === 1 ? '1 instance' : `all ${all.length} instances`}`;
  if (shown.length === 1 && only !== undefined) {
    const { info } = only;
    const address = info?.ipv4?.guest ?? info?.ipv6?.guest;
    const network = [info?.interface, address].filter((part) => part !== undefined).join(' ');
    const place = all.length > 1 ? `  (${all.indexOf(only) + 1} of ${all.length})` : '';
    left = `bucatini top  ${nameOf(only)}  ${network}  up ${durationText(only.uptimeMs)}${place}`;
  }
  const room = Math.min(columns, 120);
  if (left.length + 2 + right.length > room) return left;
  return `${left.padEnd(room - right.length)}${right}`;
}

const nameOf = ({ name, pid }: Measured): string => (pid === 0 ? name : `${name} ${pid}`);

const sum = (all: readonly Measured[], value: (one: Measured) => number): number =>
  all.reduce((total, one) => total + value(one), 0);

function rateLine(shown: readonly Measured[]): string {
  const parts = [
    `from guest ${rateText(sum(shown, (one) => one.fromGuestRate))} (${bytesText(sum(shown, (one) => one.fromGuestBytes))})`,
    `to guest ${rateText(sum(shown, (one) => one.toGuestRate))} (${bytesText(sum(shown, (one) => one.toGuestBytes))})`,
  ];
  const spliced = sum(shown, (one) => one.splicedBytes);
  if (spliced > 0)
    parts.push(`past the TAP ${rateText(sum(shown, (one) => one.splicedRate))} (${bytesText(spliced)})`);
  return parts.join('   ');
}

function dropLine(shown: readonly Measured[]): ScreenLine {
  const protos = new Map<string, number>();
  for (const { rows } of shown)
    for (const { flow } of rows) protos.set(flow.proto, (protos.get(flow.proto) ?? 0) + 1);
  const flows = sum(shown, (one) => one.rows.length);
  const more = shown.some(({ moreFlows }) => moreFlows) ? ' at least' : '';
  const kinds = [...protos].sort().map(([proto, count]) => `${proto} ${count}`);
  const flowsPart = `flows${more} ${flows}${kinds.length > 0 ? `: ${kinds.join(', ')}` : ''}`;
  const causes = new Map<string, number>();
  for (const { drops } of shown)
    for (const { cause, count } of drops) causes.set(cause, (causes.get(cause) ?? 0) + count);
  const lost = [...causes.values()].reduce((total, count) => total + count, 0);
  const perSecond = sum(shown, (one) => one.drops.reduce((total, drop) => total + drop.perSecond, 0));
  const list = [...causes].sort((a, b) => b[1] - a[1]).map(([cause, count]) => `${cause} ${count}`);
  const rate = perSecond > 0 ? ` (${perSecond.toFixed(1)}/s)` : '';
  const dropsPart = `drops ${lost}${rate}${list.length > 0 ? `: ${list.join(', ')}` : ''}`;
  return { text: `${flowsPart}   ${dropsPart}`, style: perSecond > 0 ? 'alert' : 'plain' };
}

function threadLine(shown: readonly Measured[]): string {
  const threads = shown.flatMap((one) =>
    one.threads.map(({ name, share }) => ({ name: shown.length > 1 ? `${one.pid} ${name}` : name, share })),
  );
  if (threads.length === 0) return 'threads: not visible';
  const total = threads.reduce((all, { share }) => all + share, 0);
  const busy = threads.filter(({ share }) => share >= 0.005).sort((a, b) => b.share - a.share);
  const list = busy.map(({ name, share }) => `${name} ${percent(share)}`).join(', ');
  return `threads ${percent(total)}${list === '' ? '' : `: ${list}`}`;
}

const percent = (share: number): string => `${Math.round(share * 100)}%`;

function instanceLines(shown: readonly Measured[], most: number): ScreenLine[] {
  const head = ['PID', 'PROGRAM', 'FROM', 'TO', 'FLOWS', 'DROPS', 'CPU', 'ADDRESS'];
  const cells = shown
    .slice(0, Math.max(0, most - 2))
    .map((one) => [
      one.pid === 0 ? UNKNOWN : String(one.pid),
      one.name,
      shortRate(one.fromGuestRate),
      shortRate(one.toGuestRate),
      String(one.rows.length),
      String(one.drops.reduce((total, { count }) => total + count, 0)),
      percent(one.threads.reduce((total, { share }) => total + share, 0)),
      one.problem === undefined
        ? (one.info?.ipv4?.guest ?? one.info?.ipv6?.guest ?? '')
        : `no answer: ${one.problem}`,
    ]);
  if (cells.length === 0) return [];
  const widths = head.map((name, c) => Math.max(name.length, ...cells.map((row) => row[c]!.length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, c) => (c === 1 || c === 7 ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!)))
      .join(' ');
  const lines: ScreenLine[] = [{ text: line(head), style: 'head' }];
  cells.forEach((row, i) => {
    lines.push({ text: line(row), style: shown[i]!.problem === undefined ? 'plain' : 'alert' });
  });
  if (shown.length > cells.length)
    lines.push({ text: `and ${shown.length - cells.length} more`, style: 'plain' });
  return lines;
}

/** Names of at most eight characters for the states of docs/api.md. */
const SHORT_STATES: Readonly<Record<string, string>> = {
  connecting: 'connect',
  'syn-received': 'syn-recv',
  established: 'estab',
  'close-wait': 'cls-wait',
  unreplied: 'one-way',
};

interface Column {
  readonly head: string;
  readonly left?: true;
  /** The order by which its head is marked. */
  readonly sort?: SortKey;
  /** The columns with the smallest numbers are left out first; absent: stays. */
  readonly worth?: number;
  text(row: FlowRow): string;
}

const COLUMNS: readonly Column[] = [
  { head: 'PID', worth: 7, text: ({ pid }) => (pid === 0 ? UNKNOWN : String(pid)) },
  { head: 'PROTO', left: true, worth: 3, text: ({ flow }) => flow.proto },
  {
    ...{ head: 'STATE', left: true, sort: 'state', worth: 2 },
    text: ({ flow }) => SHORT_STATES[flow.state] ?? flow.state,
  },
  { head: 'REMOTE', left: true, sort: 'remote', text: ({ flow }) => remoteText(flow) },
  { head: 'FROM', worth: 9, text: (row) => shortRate(row.fromGuestRate) },
  { head: 'TO', worth: 8, text: (row) => shortRate(row.toGuestRate) },
  {
    ...{ head: 'BYTES', sort: 'bytes', worth: 6 },
    text: ({ flow }) => shortBytes(flow.bytes_from_guest + flow.bytes_to_guest),
  },
  {
    ...{ head: 'RTT', sort: 'rtt', worth: 4 },
    text: ({ flow }) => (flow.rtt_us === undefined ? UNKNOWN : shortMicroseconds(flow.rtt_us)),
  },
  {
    ...{ head: 'RETX', sort: 'retransmits', worth: 1 },
    text: ({ flow }) => String(retransmitsOf(flow) ?? UNKNOWN),
  },
  { head: 'AGE', sort: 'age', worth: 5, text: ({ flow }) => shortAge(flow.age_ms) },
];
/** REMOTE is cut to this before a column is left out. */
const MIN_REMOTE = 15;

function flowLines(all: readonly Measured[], view: TopView, columns: number, room: number): ScreenLine[] {
  if (room < 1 || all.length === 0) return [];
  const rows = shownRows(all, view);
  const several = shownInstances(all, view).length > 1;
  const from = Math.min(view.scroll, Math.max(0, rows.length - 1));
  const visible = rows.slice(from, from + Math.max(0, room - 1));
  let chosen = COLUMNS.filter(({ head }) => several || head !== 'PID');
  const widths = new Map(
    chosen.map((column) => {
      let width = headText(column, view).length;
      for (const row of visible) width = Math.max(width, column.text(row).length);
      return [column, width];
    }),
  );
  const widthOf = (list: readonly Column[], remote: number): number =>
    list.reduce(
      (total, c) => total + (c.worth === undefined ? Math.min(remote, widths.get(c)!) : widths.get(c)!),
      0,
    ) +
    list.length -
    1;
  while (chosen.length > 1 && widthOf(chosen, MIN_REMOTE) > columns) {
    const least = Math.min(...chosen.map(({ worth }) => worth ?? Number.POSITIVE_INFINITY));
    chosen = chosen.filter(({ worth }) => worth !== least);
  }
  const others = widthOf(chosen, 0);
  const remote = COLUMNS.find(({ worth }) => worth === undefined)!;
  widths.set(remote, Math.max(1, Math.min(widths.get(remote)!, columns - others)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, c) => {
        const column = chosen[c]!;
        const width = widths.get(column)!;
        // Of an address the end, with the port, says more.
        const text = cell.length > width ? `~${cell.slice(cell.length - width + 1)}` : cell;
        return column.left ? text.padEnd(width) : text.padStart(width);
      })
      .join(' ');
  const lines: ScreenLine[] = [{ text: line(chosen.map((column) => headText(column, view))), style: 'head' }];
  for (const row of visible)
    lines.push({ text: line(chosen.map((column) => column.text(row))), style: 'plain' });
  if (rows.length === 0 && room > 1)
    lines.push({ text: view.filter === '' ? 'no flows' : 'no flow matches the filter', style: 'plain' });
  return lines;
}

/** The column by which the rows are sorted has a mark. */
function headText({ head, sort }: Column, view: TopView): string {
  const { sort: by } = view;
  const marked =
    by === sort ||
    ((head === 'FROM' || head === 'TO') && by === 'rate') ||
    (head === 'BYTES' && /guest/.test(by));
  return marked ? `${head}${view.reversed ? '^' : '*'}` : head;
}

function footText(view: TopView, columns: number): string {
  if (view.typed !== undefined) return `filter: ${view.typed}_`;
  const filter = view.filter === '' ? '' : ` filter:${view.filter}`;
  const next = columns < 90 ? 'n next' : 'n next instance';
  const long = `q quit  s sort:${view.sort}  r reverse  / filter  p pause  ${next}  h help${filter}`;
  if (long.length <= columns) return long;
  return `q quit s sort:${view.sort} / p n h help${filter}`;
}

/** Exactly printable ASCII, at most `columns` characters: other characters have unknown widths. */
const clipped = (text: string, columns: number): string =>
  text.replace(/[^\x20-\x7e]/g, '?').slice(0, Math.max(0, columns));
