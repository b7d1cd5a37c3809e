/**
 * The matrix: every cell that can be measured, in order of measurement, and the time that it takes. Data and
 * arithmetic only.
 *
 * A cell's id describes it: WORKLOAD-...-MTU, e.g. tcp-4-up-65520. `--only` accepts any leading part of it,
 * up to a dash.
 */
import type { CellInfo, PeerInfo } from './result.ts';

const UP_DOWN = ['up', 'down'] as const;
export const DIRECTIONS = [...UP_DOWN, 'both'] as const;
/** Seen from the guest: up is from the guest, down to it. */
export type Direction = (typeof DIRECTIONS)[number];
export type Family = 4 | 6;

/** A line to emulate, with the same properties in both directions. */
export interface Line {
  readonly delayMs: number;
  readonly rateMbit: number;
  readonly queueKib: number;
  /** Packets lost at random, per cent. */
  readonly lossPercent: number;
}

/** 500 Mbit/s and 20 ms round trip, with a queue of 1.7 bandwidth-delay products (of 1.2 MiB). */
export const LINES = {
  clean: { delayMs: 10, rateMbit: 500, queueKib: 2048, lossPercent: 0 },
  lossy: { delayMs: 10, rateMbit: 500, queueKib: 2048, lossPercent: 0.1 },
} as const satisfies Record<string, Line>;

export type Traffic =
  | {
      readonly kind: 'tcp';
      readonly direction: Direction;
      readonly streams: number;
      readonly family: Family;
      /** Total offered load; null: as fast as possible. */
      readonly paceMbit: number | null;
      readonly line: Line | null;
      /** The peer connects to a published port. */
      readonly inbound: boolean;
      /** Pairs of iperf3 processes among which the streams are divided. */
      readonly processes: number;
    }
  | {
      readonly kind: 'udp';
      readonly direction: 'up' | 'down';
      readonly datagramBytes: number;
      /** null: as fast as possible. */
      readonly offerMbit: number | null;
    }
  | { readonly kind: 'request'; readonly bytes: number }
  | { readonly kind: 'connect'; readonly inbound: boolean }
  | { readonly kind: 'flows'; readonly count: number }
  | { readonly kind: 'torrent' }
  | { readonly kind: 'start' }
  | { readonly kind: 'idle' };

export interface Cell extends CellInfo {
  readonly rounds: number;
  /** `newest`: of several builds of a stock tool only the last one named; for cells without a target. */
  readonly who: 'all' | 'newest';
  readonly quick: boolean;
  /**
   * Adjacent cells with the same word take turns round by round, because targets compare them with each
   * other.
   */
  readonly together: string | null;
  /** Each measurement starts a guest of its own, and begins at once. */
  readonly fresh: boolean;
  readonly traffic: Traffic;
}

/**
 * Time beyond a cell's seconds (nsenter, start and end of iperf3), time to start a guest, and time of one
 * start in a cell of `start`.
 */
const OVERHEAD_SECONDS = 0.5;
const GUEST_SECONDS = 1.5;
const START_SECONDS = 0.25;
const WARM_UP_SECONDS = 1;
export const ROUNDS = 3;
/**
 * Most targets are about one stream, and its figures vary most where other machines share the processors.
 */
const ROUNDS_ONE_STREAM = 5;
/** In three seconds a single loss changes the figure noticeably. */
const ROUNDS_LOSSY = 6;
/** A start each: more of them would make the whole matrix too long. `--rounds` gives what a comparison needs. */
const ROUNDS_FIRST = 2;
export const BOTH_MTUS = [65520, 1500] as const;
/** Starts per measurement in a cell of `start`; their median is the figure. */
export const STARTS = 5;
export const TORRENT = { peers: 200, datagramBytes: 1200, mbitEachWay: 200 } as const;

type Draft = Pick<Cell, 'id' | 'text' | 'traffic'> & Partial<Cell>;

function tcp(over: Partial<Extract<Traffic, { kind: 'tcp' }>>): Traffic {
  return {
    kind: 'tcp',
    direction: 'up',
    streams: 1,
    family: 4,
    paceMbit: null,
    line: null,
    inbound: false,
    processes: 1,
    ...over,
  };
}

const DIRECTION_WORDS = { up: 'up', down: 'down', both: 'both ways at once' } as const;

function throughput(mtu: number): Draft[] {
  const drafts: Draft[] = [];
  for (const streams of [1, 4, 16])
    for (const direction of DIRECTIONS)
      drafts.push({
        id: `tcp-${streams}-${direction}`,
        text: `TCP, ${streams} stream${streams === 1 ? '' : 's'}, ${DIRECTION_WORDS[direction]}`,
        traffic: tcp({ streams, direction }),
        seconds: streams === 1 && direction !== 'both' ? 2 : 1,
        rounds: streams === 1 && direction !== 'both' ? ROUNDS_ONE_STREAM : ROUNDS,
        together: 'streams',
        quick: (streams === 1 && direction !== 'both') || (mtu === BOTH_MTUS[0] && streams === 4),
      });
  for (const direction of ['up', 'down'] as const)
    drafts.push({
      id: `tcp6-1-${direction}`,
      text: `TCP over IPv6, 1 stream, ${direction}`,
      traffic: tcp({ family: 6, direction }),
      seconds: 2,
      rounds: ROUNDS_ONE_STREAM,
      together: 'streams',
      quick: mtu === BOTH_MTUS[0],
    });
  for (const direction of ['up', 'down'] as const)
    drafts.push({
      id: `inbound-1-${direction}`,
      text: `TCP to a published port, 1 stream, ${direction}`,
      traffic: tcp({ inbound: true, direction }),
      quick: mtu === BOTH_MTUS[0] && direction === 'up',
    });
  for (const direction of ['up', 'down'] as const)
    drafts.push({
      id: `paced-${direction}`,
      text: `TCP paced at 1 Gbit/s, ${direction}`,
      traffic: tcp({ paceMbit: 1000, direction }),
      seconds: 2,
      who: mtu === BOTH_MTUS[0] ? 'all' : 'newest',
      quick: mtu === BOTH_MTUS[0],
    });
  return drafts;
}

/** Numbers of streams of `--scaling`. */
export const SCALING_STREAMS = [1, 4, 16, 64] as const;
/** `auto` takes as many lanes at most. */
export const MAX_LANES = 8;

/** Numbers of lanes to measure: 1, 2, 4 ... up to the number of processors, which is the last. */
export function scalingLanes(cores: number): number[] {
  const most = Math.max(1, Math.min(cores, MAX_LANES));
  return [...[1, 2, 4].filter((lanes) => lanes < most), most];
}

/**
 * Cells of `--scaling`. iperf3 before 3.16 has one thread for all of its streams: with one process at each end
 * that thread would be the bottleneck. So there is a pair of processes for each lane, the same for every peer.
 */
function scaling(cores: number): Draft[] {
  const pairs = 2 ** Math.ceil(Math.log2(Math.max(...scalingLanes(cores))));
  return SCALING_STREAMS.flatMap((streams) =>
    UP_DOWN.map((direction) => ({
      id: `scaling-${streams}-${direction}`,
      text: `TCP, ${streams} stream${streams === 1 ? '' : 's'}, ${direction}`,
      traffic: tcp({ streams, direction, processes: Math.min(streams, pairs) }),
      seconds: 2,
      together: 'streams',
    })),
  );
}

/**
 * Cells over an emulated line. The caller's own line has a name of its own, because no target is about it.
 */
function lines(own: Line | null): Draft[] {
  const those: Readonly<Record<string, Line>> = own === null ? LINES : { own };
  return Object.entries(those).flatMap(([name, used]) =>
    (['up', 'down'] as const).map((direction) => {
      return {
        id: `line-${name}-${direction}`,
        text: `TCP over ${used.rateMbit} Mbit/s, ${2 * used.delayMs} ms round trip, ${used.lossPercent} % loss, ${direction}`,
        traffic: tcp({ direction, line: used }),
        seconds: 3,
        rounds: used.lossPercent > 0 ? ROUNDS_LOSSY : ROUNDS,
        who: 'newest' as const,
        quick: name !== 'lossy',
      };
    }),
  );
}

/** Offered loads, from one that every tool carries to one that no tool carries. */
const OFFERS_MBIT: readonly (readonly [bytes: number, offers: readonly (number | null)[]])[] = [
  [64, [10, 30, 60, null]],
  [512, [100, 250, 500, null]],
  [1400, [250, 500, 1000, 2000, null]],
  [8192, [500, 2000, null]],
];

function udp(): Draft[] {
  return OFFERS_MBIT.flatMap(([datagramBytes, offers]) =>
    offers.flatMap((offerMbit) =>
      (['up', 'down'] as const).map((direction) => {
        // These cells have a target; the others show at which load the losses begin.
        const isKey =
          (datagramBytes === 1400 && (offerMbit === 500 || offerMbit === null)) ||
          (datagramBytes === 64 && offerMbit === null);
        return {
          id: `udp-${datagramBytes}-${offerMbit ?? 'full'}-${direction}`,
          text: `UDP, ${datagramBytes} B, ${offerMbit === null ? 'full offer' : `${offerMbit} Mbit/s offered`}, ${direction}`,
          traffic: { kind: 'udp' as const, datagramBytes, offerMbit, direction },
          rounds: isKey ? ROUNDS : 1,
          who: isKey ? ('all' as const) : ('newest' as const),
          quick: isKey && datagramBytes === 1400,
        };
      }),
    ),
  );
}

function once(): Draft[] {
  return [
    ...[1, 64, 1024].map((bytes) => ({
      id: `rr-${bytes}`,
      text: `TCP request and response of ${bytes} B`,
      traffic: { kind: 'request' as const, bytes },
      quick: bytes === 64,
    })),
    {
      id: 'connect-out',
      text: 'connect, request, response, close',
      traffic: { kind: 'connect', inbound: false },
      quick: true,
    },
    {
      id: 'connect-in',
      text: 'connect, request, response, close, to a published port',
      traffic: { kind: 'connect', inbound: true },
    },
    {
      id: 'torrent',
      text: `UDP with ${TORRENT.peers} peers, ${TORRENT.datagramBytes} B, ${TORRENT.mbitEachWay} Mbit/s each way`,
      traffic: { kind: 'torrent' },
      seconds: 3,
      quick: true,
    },
    {
      id: 'start',
      text: `namespace up, true, down (median of ${STARTS})`,
      traffic: { kind: 'start' },
      seconds: 0,
      quick: true,
    },
    ...(['up', 'down'] as const).map((direction) => ({
      id: `first-tcp-${direction}`,
      text: `first second after a start: TCP, 1 stream, ${direction}`,
      traffic: tcp({ direction }),
      rounds: ROUNDS_FIRST,
      who: 'newest' as const,
      fresh: true,
    })),
    {
      id: 'first-udp-up',
      text: 'first second after a start: UDP, 1400 B, full offer, up',
      traffic: { kind: 'udp', datagramBytes: 1400, offerMbit: null, direction: 'up' },
      rounds: ROUNDS_FIRST,
      who: 'newest',
      fresh: true,
    },
    {
      id: 'idle',
      text: 'nothing to do',
      traffic: { kind: 'idle' },
      seconds: 30,
      rounds: 1,
      quick: true,
    },
    ...[1000, 10_000].map((count) => ({
      id: `flows-${count}`,
      text: `one busy TCP stream up beside ${count.toLocaleString('en-US')} idle ones`,
      traffic: { kind: 'flows' as const, count },
      rounds: 1,
      who: 'newest' as const,
    })),
  ];
}

export interface MatrixOptions {
  readonly mtus: readonly number[];
  /** Replaces the two lines of the matrix. */
  readonly line?: Line | null;
  /** Only the cells of `--scaling`, for a machine with so many processors; absent: all others. */
  readonly scalingCores?: number | null;
}

/**
 * All cells, MTU by MTU. Workloads that do not depend on the MTU of the TAP are measured only at the first
 * one, UDP only at the last.
 */
export function matrix(options: MatrixOptions): Cell[] {
  const { mtus, scalingCores = null } = options;
  const cells: Cell[] = [];
  for (const mtu of mtus) {
    const drafts: Draft[] =
      scalingCores !== null
        ? scaling(scalingCores)
        : [
            // First, because idle memory has to be measured before the tools carry traffic.
            ...(mtu === mtus[0] ? once() : []),
            ...throughput(mtu),
            ...lines(options.line ?? null),
            ...(mtu === mtus.at(-1) ? udp() : []),
          ];
    drafts.sort((a, b) => Number(b.id === 'idle') - Number(a.id === 'idle'));
    for (const draft of drafts)
      cells.push({
        rounds: ROUNDS,
        seconds: 1,
        who: 'all',
        quick: false,
        together: null,
        fresh: false,
        ...draft,
        id: `${draft.id}-${mtu}`,
        workload: draft.id.split('-')[0] ?? draft.id,
        mtu,
      });
  }
  return cells;
}

/** Whether `only` is the id, or its beginning up to a dash. */
export const matches = (id: string, only: string): boolean => id === only || id.startsWith(`${only}-`);

export interface PlanOptions extends MatrixOptions {
  readonly mode: 'quick' | 'full' | 'scaling';
  readonly only: readonly string[] | null;
  readonly rounds: number | null;
  readonly seconds: number | null;
}

export interface PlannedCell extends Cell {
  readonly peers: readonly string[];
}

export interface Plan {
  readonly cells: readonly PlannedCell[];
  readonly seconds: number;
}

/** bypass4netns leaves all but TCP to slirp4netns, and is started for each measurement (peers.ts). */
const isBypassed = ({ traffic, fresh }: Cell): boolean =>
  !fresh && ['tcp', 'request', 'connect'].includes(traffic.kind);

/**
 * Names of the peers that take part in a cell. With `newest`, of each stock tool only the build named last.
 */
export function participants(cell: Cell, peers: readonly Pick<PeerInfo, 'name' | 'kind'>[]): string[] {
  const isLast = (peer: Pick<PeerInfo, 'name' | 'kind'>) =>
    peers.findLast((other) => other.kind === peer.kind) === peer;
  return peers
    .filter(
      (peer) =>
        !(cell.traffic.kind === 'idle' && peer.kind === 'direct') &&
        (peer.kind !== 'bypass4netns' || isBypassed(cell)) &&
        (cell.who === 'all' || peer.kind === 'direct' || peer.kind === 'bucatini' || isLast(peer)),
    )
    .map((peer) => peer.name);
}

/** Seconds that a cell takes, without its warm-up. */
export function cellSeconds(cell: PlannedCell): number {
  const { kind } = cell.traffic;
  if (kind === 'idle') return cell.seconds;
  let each = cell.seconds + OVERHEAD_SECONDS;
  if (kind === 'start') each = STARTS * START_SECONDS;
  if (cell.fresh) each += GUEST_SECONDS;
  // Flows are opened at 2,000 per second, and closed again.
  if (cell.traffic.kind === 'flows') each += 1 + cell.traffic.count / 2000;
  const started = cell.peers.filter((name) => name.startsWith('bypass4netns')).length;
  return cell.rounds * (cell.peers.length * each + started * GUEST_SECONDS);
}

/** Groups of cells that are measured in turn: one cell, or adjacent cells with the same `together`. */
export function batches<C extends Pick<Cell, 'mtu' | 'together'>>(cells: readonly C[]): C[][] {
  const all: C[][] = [];
  for (const cell of cells) {
    const last = all.at(-1);
    const before = last?.[0];
    if (last && cell.together !== null && before?.together === cell.together && before.mtu === cell.mtu)
      last.push(cell);
    else all.push([cell]);
  }
  return all;
}

const WARM_KINDS: readonly string[] = ['tcp', 'udp', 'request', 'connect', 'torrent'];
/**
 * Whether a cell is preceded by a discarded round: the first cell of each kind of traffic and MTU whose guests
 * run already.
 */
export function needsWarmUp(cells: readonly Cell[], index: number): boolean {
  const cell = cells[index];
  if (!cell || cell.fresh || !WARM_KINDS.includes(cell.traffic.kind)) return false;
  return (
    cells.findIndex(
      (other) => !other.fresh && other.mtu === cell.mtu && other.traffic.kind === cell.traffic.kind,
    ) === index
  );
}

export function plan(options: PlanOptions, peers: readonly Pick<PeerInfo, 'name' | 'kind'>[]): Plan {
  const { only, mode } = options;
  const cells = matrix(options)
    .filter((cell) =>
      only === null ? mode !== 'quick' || cell.quick : only.some((o) => matches(cell.id, o)),
    )
    .map((cell) => ({
      ...cell,
      rounds: options.rounds ?? (mode === 'quick' ? 1 : cell.rounds),
      // A quick run measures idle CPU for 5 s, lines for 2 s, and everything else for at most 1 s.
      seconds:
        cell.seconds === 0
          ? 0
          : (options.seconds ??
            (mode === 'quick'
              ? cell.workload === 'line'
                ? 2
                : Math.min(cell.seconds, cell.workload === 'idle' ? 5 : 1)
              : cell.seconds)),
      peers: participants(cell, peers),
    }))
    .filter((cell) => cell.peers.length > 0);
  const mtus = new Set(cells.map((cell) => cell.mtu));
  let seconds = mtus.size * peers.length * GUEST_SECONDS;
  cells.forEach((cell, index) => {
    seconds += cellSeconds(cell);
    if (needsWarmUp(cells, index)) seconds += cell.peers.length * (WARM_UP_SECONDS + OVERHEAD_SECONDS);
  });
  return { cells, seconds };
}

/** The plan as a table, for `--plan`. */
export function planText(planned: Plan): string {
  const rows = planned.cells.map((cell) => [
    cell.id,
    cell.text,
    `${cell.rounds} x ${cell.traffic.kind === 'start' ? `${STARTS} starts` : `${cell.seconds} s`}`,
    cell.peers.join(' '),
    `${Math.ceil(cellSeconds(cell))} s`,
  ]);
  const table = [['cell', 'what', 'rounds', 'peers', 'takes'], ...rows];
  const widths = [0, 1, 2, 3].map((c) => Math.max(...table.map((row) => row[c]?.length ?? 0)));
  const minutes = Math.floor(planned.seconds / 60);
  return [
    ...table.map((row) =>
      row
        .map((field, c) => field.padEnd(widths[c] ?? 0))
        .join('  ')
        .trimEnd(),
    ),
    '',
    `${rows.length} cells, about ${minutes} min ${Math.round(planned.seconds % 60)} s in all, warm-ups and starts included`,
  ].join('\n');
}
