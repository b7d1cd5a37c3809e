/**
 * Performance targets: one table, checked by every report. A target is reached when
 *
 *     value  >= | > | <=  factor * reference + plus
 *
 * with the medians of one run. `value` is that of `peer` in `cell`. The reference is a median in the cells
 * `than` (default: the same cell), the best if there are several.
 */
import { BOTH_MTUS } from './matrix.ts';
import type { Metric } from './result.ts';

export type Reference =
  | 'direct'
  | 'best'
  | 'newest-pasta'
  | 'newest-slirp4netns'
  | 'newest-bypass4netns'
  | 'ours'
  | 'fixed';

export interface Target {
  readonly text: string;
  /** Whose figure it is about; absent: bucatini's. */
  readonly peer?: string;
  readonly cell: string;
  readonly metric: Metric;
  readonly op: '>=' | '>' | '<=';
  readonly reference: Reference;
  /** For the reference 'fixed': the bound itself. */
  readonly factor: number;
  readonly plus?: number;
  readonly than?: readonly string[];
  /**
   * Throughput that is required for a figure of processor time to count: the time of a stalled transfer does
   * not show its cost. It applies to the other tools, and with `leastMbit` to bucatini too.
   */
  readonly carrying?: { readonly leastMbit: number } | { readonly shareOfOurs: number };
  /** An aim beyond the target; not reaching it is not a failure. */
  readonly isStretch?: boolean;
}

type Row = Omit<Target, 'text' | 'cell' | 'metric'> & { readonly text?: string };
type Over = Partial<Row>;

const target = (cell: string, metric: Metric, what: string, row: Row): Target => ({
  cell,
  metric,
  ...row,
  text: row.text ?? what,
});
const atLeast = (reference: Reference, factor: number, over: Over = {}): Row => ({
  op: '>=',
  reference,
  factor,
  ...over,
});
const atMost = (reference: Reference, factor: number, over: Over = {}): Row => ({
  op: '<=',
  reference,
  factor,
  ...over,
});
const above = (reference: Reference, factor = 1): Row => ({ op: '>', reference, factor });

/**
 * Processor time per GiB hardly depends on the rate unless a tool idles between stalls. A tenth of bucatini's
 * rate separates the two cases, and still admits tools with half or a third of its rate.
 */
const TENTH_OF_OUR_RATE = { shareOfOurs: 0.1 } as const;
/** 1 Gbit/s is offered; iperf3's pacing varies by up to a tenth. */
const PACED_RATE = { leastMbit: 900 } as const;

const SWITCHED = { peer: 'bucatini-switch' } as const;

const [LARGE, SMALL] = BOTH_MTUS;
const UP_DOWN = ['up', 'down'] as const;

/** [MTU, direction, factor of direct, factor of the best stock tool] */
const SINGLE_STREAM = [
  [LARGE, 'up', 0.55, 1],
  [LARGE, 'down', 0.75, 1],
  [SMALL, 'up', 0.5, 10],
  [SMALL, 'down', 0.7, 10],
] as const;

export const TARGETS: readonly Target[] = [
  ...SINGLE_STREAM.flatMap(([mtu, direction, share, times]) => {
    const cell = `tcp-1-${direction}-${mtu}`;
    const what = `TCP, 1 stream, ${direction}, MTU ${mtu}`;
    return [
      target(cell, 'mbit', what, atLeast('direct', share)),
      target(cell, 'mbit', what, times === 1 ? above('best') : atLeast('best', times)),
    ];
  }),
  ...BOTH_MTUS.flatMap((mtu) =>
    [4, 16].flatMap((streams) =>
      UP_DOWN.flatMap((direction) => {
        const cell = `tcp-${streams}-${direction}-${mtu}`;
        const what = `TCP, ${streams} streams, ${direction}, MTU ${mtu}`;
        return [
          target(cell, 'mbit', what, atLeast('ours', 0.9, { than: [`tcp-1-${direction}-${mtu}`] })),
          target(cell, 'mbit', what, above('best')),
        ];
      }),
    ),
  ),
  ...BOTH_MTUS.map((mtu) =>
    target(
      `tcp-1-both-${mtu}`,
      'mbit',
      `TCP, both ways at once, sum against our better single direction, MTU ${mtu}`,
      atLeast('ours', 1, { than: UP_DOWN.map((direction) => `tcp-1-${direction}-${mtu}`) }),
    ),
  ),
  ...BOTH_MTUS.flatMap((mtu) =>
    UP_DOWN.map((direction) =>
      target(
        `tcp6-1-${direction}-${mtu}`,
        'mbit',
        `IPv6 against IPv4, ${direction}, MTU ${mtu}`,
        atLeast('ours', 0.95, { than: [`tcp-1-${direction}-${mtu}`] }),
      ),
    ),
  ),
  ...BOTH_MTUS.flatMap((mtu) =>
    (['clean', 'lossy'] as const).flatMap((line) =>
      UP_DOWN.map((direction) =>
        target(
          `line-${line}-${direction}-${mtu}`,
          'mbit',
          `500 Mbit/s, 20 ms${line === 'lossy' ? ', 0.1 % loss' : ''}, ${direction}, MTU ${mtu}`,
          atLeast('direct', 0.9),
        ),
      ),
    ),
  ),
  ...UP_DOWN.flatMap((direction) => [
    target(
      `tcp-1-${direction}-${LARGE}`,
      'cpuSecondsPerGib',
      `CPU per GiB, ${direction}, MTU ${LARGE}`,
      atMost('best', 1.1, { carrying: TENTH_OF_OUR_RATE }),
    ),
    target(
      `tcp-1-${direction}-${SMALL}`,
      'cpuSecondsPerGib',
      `CPU per GiB, ${direction}, MTU ${SMALL} against ${LARGE}`,
      atMost('ours', 1.2, { than: [`tcp-1-${direction}-${LARGE}`] }),
    ),
  ]),
  ...BOTH_MTUS.flatMap((mtu) =>
    UP_DOWN.map((direction) =>
      target(
        `paced-${direction}-${mtu}`,
        'cpuPercent',
        `CPU at a paced 1 Gbit/s, ${direction}, MTU ${mtu}`,
        atMost('best', 0.5, { carrying: PACED_RATE }),
      ),
    ),
  ),
  target(`torrent-${LARGE}`, 'lossPercent', 'torrent: loss', atMost('direct', 1, { plus: 1 })),
  target(
    `torrent-${LARGE}`,
    'cpuPercent',
    'torrent: CPU',
    atMost('newest-pasta', 0.7, { carrying: TENTH_OF_OUR_RATE }),
  ),
  target(`udp-1400-full-up-${SMALL}`, 'mbit', 'UDP 1400 B, full offer, up', atLeast('best', 2)),
  target(`udp-1400-full-down-${SMALL}`, 'mbit', 'UDP 1400 B, full offer, down', atLeast('best', 1.8)),
  ...UP_DOWN.flatMap((direction) => [
    target(
      `udp-1400-500-${direction}-${SMALL}`,
      'lossPercent',
      `UDP 1400 B at 500 Mbit/s, ${direction}: loss`,
      atMost('direct', 1, { plus: 2 }),
    ),
    target(
      `udp-64-full-${direction}-${SMALL}`,
      'packetsPerSecond',
      `UDP 64 B, ${direction}`,
      atLeast('best', 1.2),
    ),
  ]),
  ...(['p50Us', 'p99Us'] as const).flatMap((metric) => [
    target(`rr-64-${LARGE}`, metric, 'TCP request and response, 64 B', atMost('newest-pasta', 1)),
    target(
      `rr-64-${LARGE}`,
      metric,
      'TCP request and response, 64 B',
      atMost('newest-slirp4netns', 1, { isStretch: true }),
    ),
  ]),
  target(`connect-out-${LARGE}`, 'perSecond', 'connections', atLeast('newest-pasta', 1)),
  target(`start-${LARGE}`, 'startMs', 'start of `true`', atMost('newest-pasta', 1.2)),
  target(`idle-${LARGE}`, 'rssMib', 'RSS idle, 100 MB', atMost('fixed', 95.4)),
  target(`flows-10000-${LARGE}`, 'rssMib', 'RSS with 10,000 idle flows, 200 MB', atMost('fixed', 190.7)),
  target(`flows-10000-${LARGE}`, 'flows', '10,000 idle flows are really there', atLeast('fixed', 10_000)),
  // The kernel's accounting may charge one tick to a process that was only interrupted.
  target(`idle-${LARGE}`, 'cpuTicks', 'CPU idle for 30 s, above noise (one tick)', atMost('fixed', 1)),
  ...BOTH_MTUS.flatMap((mtu) =>
    UP_DOWN.map((direction) =>
      target(
        `tcp-1-${direction}-${mtu}`,
        'mbit',
        `switched sockets: TCP, 1 stream, ${direction}, MTU ${mtu}`,
        atLeast('direct', 0.95, SWITCHED),
      ),
    ),
  ),
  target(
    `rr-64-${LARGE}`,
    'p50Us',
    'switched sockets: TCP request and response, 64 B',
    atMost('direct', 1.1, SWITCHED),
  ),
  target(
    `connect-out-${LARGE}`,
    'perSecond',
    'switched sockets: connections',
    atLeast('newest-bypass4netns', 1, SWITCHED),
  ),
];
