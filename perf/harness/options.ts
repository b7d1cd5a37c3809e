/**
 * The harness's command line: one table gives parsing, defaults and the help text.
 */
import { parseArgs } from 'node:util';

/** A line to emulate between the two namespaces; the same in both directions. */
export interface Line {
  readonly delayMs: number;
  readonly rateMbit: number;
  readonly queueKib: number;
  /** Frames lost at random, per cent. */
  readonly lossPercent: number;
}

export interface Options {
  readonly rounds: number;
  readonly seconds: number;
  readonly mtus: readonly number[];
  /** null: every peer that is here. */
  readonly peers: readonly string[] | null;
  readonly streams: number;
  readonly ipv6: boolean;
  /** Longest wait for a quiet machine before each measurement; 0: none. */
  readonly idleSeconds: number;
  readonly json: string | null;
  /** net.ipv4.tcp_wmem of the host namespace; null: the kernel's own. */
  readonly tcpWmem: string | null;
  readonly wan: Line | null;
}

/** What the command line got wrong, in a sentence; or a wish for the help text. */
export class UsageError extends Error {}

interface Row {
  readonly flag: string;
  readonly value: string | null;
  readonly help: string;
}

const TABLE: readonly Row[] = [
  { flag: 'rounds', value: 'N', help: 'times through all peers (3)' },
  { flag: 'seconds', value: 'S', help: 'length of each measurement (3)' },
  { flag: 'mtu', value: 'N,N', help: 'MTUs of the TAP (65520,1500); the veth beneath has 1500' },
  { flag: 'peers', value: 'A,B', help: 'which to measure (all that are here); --help lists the names' },
  { flag: 'streams', value: 'N', help: 'parallel TCP streams (1)' },
  { flag: 'ipv6', value: null, help: 'over IPv6 instead of IPv4' },
  {
    flag: 'tcp-wmem',
    value: 'MIN,DEFAULT,MAX',
    help: "send buffers of the host namespace, e.g. 4096,4194304,16777216 (the kernel's; pasta's uploads like more)",
  },
  {
    flag: 'idle',
    value: 'S',
    help: 'on a shared machine: wait until it is 90 % idle before each, S s at most (0)',
  },
  { flag: 'json', value: 'FILE', help: 'write every single measurement there' },
  { flag: 'quick', value: null, help: '1 round of 1 s at MTU 65520, unless said otherwise' },
  {
    flag: 'wan',
    value: 'DELAY_MS,RATE_MBIT,QUEUE_KIB,LOSS',
    help: 'through an emulated line, e.g. 10,500,8192,0 (delay each way; loss in per cent)',
  },
  { flag: 'help', value: null, help: 'this text' },
];

export function helpText(peerNames: readonly string[]): string {
  const left = TABLE.map((row) => `  --${row.flag}${row.value === null ? '' : ` ${row.value}`}`);
  const width = Math.max(...left.filter((l) => l.length < 24).map((l) => l.length));
  const rows = TABLE.map((row, i) => {
    const head = left[i] ?? '';
    return head.length > width
      ? `${head}\n${' '.repeat(width)}  ${row.help}`
      : `${head.padEnd(width)}  ${row.help}`;
  });
  return [
    'usage: scripts/iperf-harness.sh [OPTION...]',
    '',
    'Measures TCP throughput of bucatini (each thread plan), pasta, slirp4netns and a bare veth with iperf3, in turn',
    '(A B C, A B C, ...), both directions, and prints a Markdown table of medians, spread and ratios.',
    '',
    ...rows,
    '',
    `peers: ${peerNames.join(' ')}`,
    "PASTA_NEW=FILE in the environment adds `pasta-new`, another pasta than the system's.",
    'Progress goes to standard error; Ctrl-C ends it with a table of what was measured so far.',
  ].join('\n');
}

function positive(flag: string, text: string, max: number): number {
  const n = Number(text);
  if (!(n > 0 && n <= max)) throw new UsageError(`--${flag} ${text}: want a number above 0, at most ${max}`);
  return n;
}

function whole(flag: string, text: string, min: number, max: number): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < min || n > max)
    throw new UsageError(`--${flag} ${text}: want a whole number from ${min} to ${max}`);
  return n;
}

function line(text: string): Line {
  const fields = text.split(',').map(Number);
  const [delayMs = -1, rateMbit = -1, queueKib = -1, lossPercent = -1] = fields;
  if (
    fields.length !== 4 ||
    !(delayMs >= 0 && rateMbit > 0 && queueKib >= 64 && lossPercent >= 0 && lossPercent < 100)
  )
    throw new UsageError(
      `--wan ${text}: want DELAY_MS,RATE_MBIT,QUEUE_KIB,LOSS, e.g. 10,500,8192,0 (queue from 64 KiB)`,
    );
  return { delayMs, rateMbit, queueKib, lossPercent };
}

function threeSizes(text: string): string {
  const sizes = text.split(',');
  if (sizes.length !== 3) throw new UsageError(`--tcp-wmem ${text}: want MIN,DEFAULT,MAX in bytes`);
  return sizes.map((size) => whole('tcp-wmem', size, 1, 2 ** 31 - 1)).join(' ');
}

/** @throws UsageError naming the option and what it takes. `null`: the help text was asked for. */
export function parseOptions(argv: readonly string[], peerNames: readonly string[]): Options | null {
  const spec: Record<string, { type: 'string' | 'boolean' }> = {};
  for (const row of TABLE) spec[row.flag] = { type: row.value === null ? 'boolean' : 'string' };
  let values: Record<string, string | boolean | undefined>;
  try {
    ({ values } = parseArgs({ args: [...argv], options: spec, strict: true, allowPositionals: false }));
  } catch (error) {
    throw new UsageError(`${error instanceof Error ? error.message : error} (--help lists the options)`);
  }
  if (values.help === true) return null;
  const text = (flag: string, otherwise: string): string => {
    const value = values[flag];
    return typeof value === 'string' ? value : otherwise;
  };
  const quick = values.quick === true;
  const peers = typeof values.peers === 'string' ? values.peers.split(',') : null;
  const unknown = peers?.find((name) => !peerNames.includes(name));
  if (unknown !== undefined)
    throw new UsageError(`--peers: no peer '${unknown}'; there are ${peerNames.join(' ')}`);
  return {
    rounds: whole('rounds', text('rounds', quick ? '1' : '3'), 1, 1000),
    seconds: positive('seconds', text('seconds', quick ? '1' : '3'), 3600),
    mtus: text('mtu', quick ? '65520' : '65520,1500')
      .split(',')
      .map((mtu) => whole('mtu', mtu, 1280, 65520)),
    peers,
    streams: whole('streams', text('streams', '1'), 1, 128),
    ipv6: values.ipv6 === true,
    idleSeconds: whole('idle', text('idle', '0'), 0, 3600),
    json: typeof values.json === 'string' ? values.json : null,
    tcpWmem: typeof values['tcp-wmem'] === 'string' ? threeSizes(values['tcp-wmem']) : null,
    wan: typeof values.wan === 'string' ? line(values.wan) : null,
  };
}
