/**
 * Histograms that packet threads fill. The counts of log-linear buckets lie in the thread's counter block
 * (counters.ts), so recording a value is one plain addition without allocation. The main thread reads
 * [value, count] pairs for hdr-histogram-js.
 *
 * Bucket b of a value v, four buckets per power of two (error at most 1/8 of the value):
 *
 *     v  0 1 2 3 | 4 5 6 7 | 8 10 12 14 | 16 20 24 28 | ...
 *     b  0 1 2 3 | 4 5 6 7 | 8  9 10 11 | 12 13 14 15 | ...      b = 4 * log2 + next two bits
 */
export interface HistogramInfo {
  readonly name: string;
  readonly unit: 'us' | 'frames';
  readonly help: string;
}

const SUB_BITS = 2;
const SUB = 1 << SUB_BITS;
/** Up to 2^27: 134 s in microseconds. */
const MAX_BITS = 27;
export const HISTOGRAM_BUCKETS = (MAX_BITS - SUB_BITS + 1) * SUB;

/** To add a histogram, add one line here and call recordHistogram(). */
const TABLE = {
  guestRtt: ['us', 'From a TCP segment sent to the guest to its acknowledgement'],
  hostConnect: ['us', 'From connect() on a host socket to its success'],
  busyRound: ['us', 'A round of a packet thread that had work: the longest a ready packet waits for others'],
  tapBatch: ['frames', 'Frames that one round read from the TAP'],
} as const satisfies Record<string, readonly [HistogramInfo['unit'], string]>;

export type HistogramName = keyof typeof TABLE;

export const HISTOGRAMS: readonly HistogramInfo[] = Object.entries(TABLE).map(([name, [unit, help]]) => ({
  name,
  unit,
  help,
}));
export const HISTOGRAM_WORDS = HISTOGRAMS.length * HISTOGRAM_BUCKETS;

/** First bucket of a histogram, counted from the start of the histograms. */
export const Histogram = Object.freeze(
  Object.fromEntries(HISTOGRAMS.map((info, index) => [info.name, index * HISTOGRAM_BUCKETS])),
) as Readonly<Record<HistogramName, number>>;

/** Bucket of a value. A negative value counts as 0, one that is too large as the last bucket's. */
export function histogramBucket(value: number): number {
  const v = value > 0 ? Math.min(value, 2 ** MAX_BITS - 1) | 0 : 0;
  if (v < SUB) return v;
  const bits = 31 - Math.clz32(v);
  return ((bits - SUB_BITS + 1) << SUB_BITS) | ((v >>> (bits - SUB_BITS)) & (SUB - 1));
}

/** The middle of the values that a bucket counts. */
export function histogramValue(bucket: number): number {
  if (bucket < SUB) return bucket;
  const bits = (bucket >>> SUB_BITS) + SUB_BITS - 1;
  const step = 2 ** (bits - SUB_BITS);
  return 2 ** bits + (bucket & (SUB - 1)) * step + Math.floor(step / 2);
}
