/**
 * Cost of each packet thread, and the throughput to expect with more cores, from two `--stats` tables of the
 * pipeline plan.
 *
 *   iperf3 -s -B 127.0.0.1 &
 *   bin/bucatini run --threads pipeline=1 --stats -- sleep 2 2>idle.txt
 *   bin/bucatini run --threads pipeline=1 --stats --host-loopback 192.0.2.1 -- iperf3 -J -c 192.0.2.1 >iperf.json 2>load.txt
 *   scripts/node.sh perf/scaling.ts --idle idle.txt --iperf iperf.json load.txt
 *
 * The processor time in the idle table is that of the threads' start, and is subtracted. With t_i ns per byte
 * in thread i and e ns per byte in both iperf3 processes, N shards on C cores carry at most the minimum of
 *
 *   1 / t_reader    N / t_shard    1 / t_hostIo    C / (t_reader + t_shard + t_hostIo + e)      bytes a nanosecond
 *
 * For one flow N is 1, because a flow belongs to one shard. The model assumes constant costs per byte: it has
 * no term for caches and memory bandwidth that more threads share, and none for clock rates, so it is an
 * upper bound.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

const CORES = [2, 4, 8, 16];
/** Reader and host I/O. Every other core has one shard. */
const FIXED_THREADS = 2;

type Counters = ReadonlyMap<string, number>;

/** Columns of a `--stats` table by heading. A table without columns for threads has only `value`. */
function parseStats(text: string, name: string): ReadonlyMap<string, Counters> {
  const cells = (line: string): string[] => line.trim().split(/\s{2,}/);
  const lines = text.split('\n');
  const headAt = lines.findIndex((line) => /^counter\s+value/.test(line));
  if (headAt < 0) throw new Error(`${name}: no table of --stats in it`);
  const columns = cells(lines[headAt] ?? '').slice(1);
  const threads = new Map(columns.map((column) => [column, new Map<string, number>()]));
  for (const line of lines.slice(headAt + 1)) {
    const [counter = '', ...values] = cells(line);
    if (values.length !== columns.length) break;
    for (const [c, value] of values.entries())
      threads.get(columns[c] ?? '')?.set(counter, Number(value.replaceAll(',', '')));
  }
  return threads;
}

const cpuUs = (counters: Counters | undefined): number =>
  (counters?.get('cpuUserUs') ?? 0) + (counters?.get('cpuSystemUs') ?? 0);

interface Iperf {
  readonly end?: {
    readonly sum_sent?: { readonly bytes: number; readonly seconds: number };
    readonly cpu_utilization_percent?: { readonly host_total: number; readonly remote_total: number };
  };
}

function main(): void {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { idle: { type: 'string' }, iperf: { type: 'string' } },
  });
  const [load] = positionals;
  if (values.idle === undefined || values.iperf === undefined || load === undefined)
    throw new Error('usage: perf/scaling.ts --idle IDLE.txt --iperf IPERF.json LOAD.txt');
  const idle = parseStats(readFileSync(values.idle, 'utf8'), values.idle);
  const busy = parseStats(readFileSync(load, 'utf8'), load);
  const { end } = JSON.parse(readFileSync(values.iperf, 'utf8')) as Iperf;
  const sent = end?.sum_sent;
  const ends = end?.cpu_utilization_percent;
  if (!sent?.bytes || ends === undefined)
    throw new Error(`${values.iperf}: no end.sum_sent or processor time in it`);

  const endsNs = (((ends.host_total + ends.remote_total) / 100) * sent.seconds * 1e9) / sent.bytes;
  const names = [...busy.keys()].filter((name) => name !== 'value');
  const costs = (names.length > 0 ? names : ['value']).map((name) => {
    const used = (cpuUs(busy.get(name)) - cpuUs(idle.get(name))) / 1e6;
    return {
      name: name === 'value' ? 'fused' : name,
      share: used / sent.seconds,
      nsPerByte: (used * 1e9) / sent.bytes,
    };
  });
  const gbit = (bytesPerNs: number): string => (bytesPerNs * 8).toFixed(1);
  console.log(
    `Measured: ${gbit(sent.bytes / sent.seconds / 1e9)} Gbit/s; both iperf3 ends ${endsNs.toFixed(3)} ns/B.\n`,
  );
  console.log('| thread | busy, of one core | ns/B | alone would carry, Gbit/s |\n|---|--:|--:|--:|');
  for (const { name, share, nsPerByte } of costs)
    console.log(`| ${name} | ${share.toFixed(2)} | ${nsPerByte.toFixed(3)} | ${gbit(1 / nsPerByte)} |`);

  const total = costs.reduce((sum, cost) => sum + cost.nsPerByte, endsNs);
  const isShard = (name: string): boolean => name.startsWith('shard');
  const shardNs = costs.filter(({ name }) => isShard(name)).reduce((sum, cost) => sum + cost.nsPerByte, 0);
  /** The lowest bound: of the slowest thread, or of the work of all threads on all cores. */
  const bound = (shards: number, cores: number): { rate: number; by: string } =>
    [
      ...costs
        .filter(({ name }) => !isShard(name))
        .map(({ name, nsPerByte }) => ({ rate: 1 / nsPerByte, by: name })),
      ...(shardNs > 0 ? [{ rate: shards / shardNs, by: shards > 1 ? 'shards' : 'shard' }] : []),
      { rate: cores / total, by: 'cores, ends included' },
    ].reduce((least, next) => (next.rate < least.rate ? next : least));
  console.log(
    '\n| cores | one flow, Gbit/s | held by | many flows, shards | Gbit/s | held by |\n|--:|--:|---|--:|--:|---|',
  );
  for (const cores of CORES) {
    const shards = shardNs > 0 ? Math.max(1, cores - FIXED_THREADS) : 0;
    const one = bound(1, cores);
    const many = bound(shards, cores);
    console.log(
      `| ${cores} | ${gbit(one.rate)} | ${one.by} | ${shards || '-'} | ${gbit(many.rate)} | ${many.by} |`,
    );
  }
}

try {
  main();
} catch (error) {
  console.error(`scaling: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
