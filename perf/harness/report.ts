/**
 * From measurements to Markdown: medians, spread, and ratios within the same run. Pure.
 */
import { DIRECTIONS, type Direction, type Measurement } from './measure.ts';

/** A ratio is only as good as its base: the names here are the ones that ratios are taken to. */
export interface Roles {
  readonly direct: string;
  readonly ours: readonly string[];
}

export function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle];
  if (upper === undefined) return null;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2;
}

const DASH = '-';
const number = (n: number | null, digits: number): string => (n === null ? DASH : n.toFixed(digits));
/** Three significant digits are all that such runs have. */
const mbit = (n: number | null): string => number(n, n !== null && n < 10 ? 2 : 0);
const ratio = (n: number | null, base: number | null): string =>
  n === null || base === null || base === 0 ? DASH : (n / base).toFixed(2);

interface Cell {
  readonly median: number | null;
  readonly low: number | null;
  readonly high: number | null;
  readonly cpu: number | null;
  readonly retransmits: number | null;
}

function cell(all: readonly Measurement[], peer: string, direction: Direction): Cell {
  const mine = all.filter((m) => m.peer === peer && m.direction === direction);
  const speeds = mine.map((m) => m.mbit);
  return {
    median: median(speeds),
    low: speeds.length === 0 ? null : Math.min(...speeds),
    high: speeds.length === 0 ? null : Math.max(...speeds),
    cpu: median(mine.flatMap((m) => (m.cpuSecondsPerGib === null ? [] : [m.cpuSecondsPerGib]))),
    retransmits: median(mine.map((m) => m.retransmits)),
  };
}

/** The table of one MTU. "Best peer" is the fastest other tool in that direction, `direct` left aside. */
export function table(all: readonly Measurement[], peers: readonly string[], roles: Roles): string {
  const columns = DIRECTIONS.map((direction) => {
    const cells = new Map(peers.map((peer) => [peer, cell(all, peer, direction)]));
    const others = peers.filter((peer) => peer !== roles.direct && !roles.ours.includes(peer));
    const speeds = others.flatMap((peer) => cells.get(peer)?.median ?? []);
    return {
      cells,
      direct: cells.get(roles.direct)?.median ?? null,
      best: speeds.length === 0 ? null : Math.max(...speeds),
    };
  });
  const side = (name: string) => `${name} Mbit/s | min-max | /direct | /best peer | CPU s/GiB | retr`;
  const lines = [
    `| tool | ${DIRECTIONS.map(side).join(' | ')} |`,
    `|---|${'--:|'.repeat(6 * DIRECTIONS.length)}`,
  ];
  for (const peer of peers) {
    const parts = columns.map(({ cells, direct, best }) => {
      const c = cells.get(peer);
      if (!c || c.median === null) return Array(6).fill(DASH).join(' | ');
      return [
        mbit(c.median),
        `${mbit(c.low)}-${mbit(c.high)}`,
        ratio(c.median, direct),
        ratio(c.median, best),
        number(c.cpu, 2),
        number(c.retransmits, 0),
      ].join(' | ');
    });
    lines.push(`| ${peer} | ${parts.join(' | ')} |`);
  }
  return lines.join('\n');
}
