/** The figures of perf/memory/main.ts as a text table. Pure. */
import type { Activity, Memory } from './sample.ts';

/** Memory per instance: of the engine, and of the processes around COMMAND. */
export interface InstanceMemory {
  readonly engine: Memory;
  readonly helpers: Memory;
}

/** One round of one peer. */
export interface PeerFigures {
  readonly peer: string;
  readonly one: InstanceMemory;
  /** Number of instances in `all`. */
  readonly count: number;
  /** Mean of one of them; null: not measured. */
  readonly all: InstanceMemory | null;
  /** What the first instance did from its start to its figures. */
  readonly minute: Activity;
  /** Context switches in the window after that. */
  readonly idleWakes: number;
}

const HEAD = ['peer', 'n', 'RSS', 'PSS', 'private', 'anonymous', 'helpers', 'CPU ms', 'wakes', 'then'];

const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
};

/**
 * One line for one instance of a peer, another for several. Memory is in MiB per instance, medians of the
 * rounds. `helpers` is the private memory of the processes around COMMAND. `CPU ms` and `wakes` are what the
 * first instance did from its start to its figures, `then` are its context switches in the window after them.
 */
export function table(figures: readonly PeerFigures[]): string {
  const rows = [HEAD];
  for (const name of new Set(figures.map(({ peer }) => peer))) {
    const rounds = figures.filter(({ peer }) => peer === name);
    const middle = (value: (one: PeerFigures) => number, digits: number): string =>
      median(rounds.map(value)).toFixed(digits);
    const memory = (of: (one: PeerFigures) => InstanceMemory): string[] => [
      ...(['rss', 'pss', 'private', 'anonymous'] as const).map((key) =>
        middle((one) => of(one).engine[key] / 1024, 1),
      ),
      middle((one) => of(one).helpers.private / 1024, 1),
    ];
    const activity = [
      middle(({ minute }) => minute.cpuMs, 0),
      middle(({ minute }) => minute.switches, 0),
      middle(({ idleWakes }) => idleWakes, 0),
    ];
    rows.push([name, '1', ...memory(({ one }) => one), ...activity]);
    if (rounds.every(({ all }) => all !== null))
      rows.push([name, `${rounds[0]!.count}`, ...memory(({ all }) => all!), '', '', '']);
  }
  const widths = HEAD.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, c) => (c === 0 ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
