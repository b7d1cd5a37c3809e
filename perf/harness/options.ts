/**
 * The harness's command line: one table gives parsing, defaults and the help text.
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { BENCH_OPTIONS, DEFAULT_PEERS } from '../../src/main/bucatini/bench-options.ts';
import type { OptionSpec } from '../../src/main/bucatini/options.ts';
import {
  BOTH_MTUS,
  type Line,
  MAX_LANES,
  matches,
  matrix,
  type PlanOptions,
  scalingLanes,
} from './matrix.ts';
import { isBuilt } from './programs.ts';
import { parseRequirement, type Requirement } from './report/gate.ts';
import { METRIC_NAMES, type PeerKind } from './result.ts';

/** A file to write the result to. */
export interface Output {
  readonly flag: '--json' | '--html' | '--csv';
  readonly file: string;
}

/** A peer as named on the command line. */
export interface PeerSpec {
  readonly name: string;
  readonly kind: PeerKind;
  /** The program; null: bucatini's launcher in this tree, or the tool on PATH. */
  readonly path: string | null;
  /** bucatini's `--threads`. */
  readonly threads: string;
  /** bucatini's `--switch-sockets`. */
  readonly switchesSockets?: true;
}

export interface Options extends PlanOptions {
  readonly peers: readonly PeerSpec[];
  /** Number of processors for `--scaling`; null: not asked for. */
  readonly scalingCores: number | null;
  /** Longest wait for an idle machine before each measurement; 0: none. */
  readonly idleSeconds: number;
  /** Files to write at the end. */
  readonly outputs: readonly Output[];
  /** net.ipv4.tcp_wmem of the host namespace; null: the kernel's default. */
  readonly tcpWmem: string | null;
  readonly line: Line | null;
  readonly showPlan: boolean;
  readonly soakMinutes: number | null;
  /** Results to compare; without `now` the old one with what is measured. null: no comparison. */
  readonly compare: { readonly old: string; readonly now: string | null } | null;
  /** Status 3 when a target or a requirement is missed, or a figure got worse. */
  readonly check: boolean;
  readonly requirements: readonly Requirement[];
}

/** An error in the command line or a missing prerequisite, in one sentence for the user. */
export class UsageError extends Error {}

type Row = Pick<OptionSpec, 'name' | 'value' | 'help' | 'repeatable'>;

const DEFAULT_SOAK_MINUTES = 10;

const TABLE: readonly Row[] = [...BENCH_OPTIONS, { name: 'help', help: 'Print this text.' }];

/** Own name, in front of messages. */
export const ownName = (): string => (isBuilt ? 'bucatini bench' : 'iperf-harness');

/** The command that started the harness. */
export const programName = (): string => (isBuilt ? 'bucatini bench' : 'scripts/iperf-harness.sh');

export function helpText(): string {
  const left = TABLE.map((row) => `  --${row.name}${row.value === undefined ? '' : ` ${row.value}`}`);
  const width = Math.max(...left.filter((l) => l.length < 24).map((l) => l.length));
  const rows = TABLE.map((row, i) => {
    const head = left[i] ?? '';
    return head.length > width
      ? `${head}\n${' '.repeat(width)}  ${row.help}`
      : `${head.padEnd(width)}  ${row.help}`;
  });
  const workloads = [...new Set(matrix({ mtus: BOTH_MTUS }).map((cell) => cell.workload))];
  return [
    `usage: ${programName()} [OPTION...]`,
    `       ${programName()} --compare OLD.json NEW.json [--check] [--html FILE] [--json FILE]`,
    '',
    'Measures bucatini beside pasta, slirp4netns and a bare veth, in turn (A B C, C B A, ...), in namespaces of its own, and',
    'prints a Markdown report: medians, spread, ratios to direct and to the best peer, and which targets were reached.',
    '',
    ...rows,
    '',
    'Peers: direct, bucatini (threads as it chooses), bucatini-fused, bucatini-pipeline, bucatini-lanes-N, bucatini-switch',
    '(--switch-sockets), pasta, slirp4netns, bypass4netns (with slirp4netns); and NAME=FILE for another build of one, where',
    'NAME begins with bucatini, pasta, slirp or bypass4netns: pasta-new=/opt/passt/pasta.',
    `Cells are named WORKLOAD-...-MTU, the workloads are: ${workloads.join(' ')}; --plan lists them.`,
    'Progress goes to standard error; Ctrl-C ends it with a report of what was measured so far.',
  ].join('\n');
}

function whole(flag: string, text: string, min: number, max: number): number {
  const n = Number(text);
  if (text.trim() === '' || !Number.isInteger(n) || n < min || n > max)
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

const BUILT_IN: Readonly<Record<string, Omit<PeerSpec, 'name' | 'path'>>> = {
  direct: { kind: 'direct', threads: '' },
  bucatini: { kind: 'bucatini', threads: 'auto' },
  'bucatini-fused': { kind: 'bucatini', threads: 'fused' },
  'bucatini-pipeline': { kind: 'bucatini', threads: 'pipeline' },
  'bucatini-switch': { kind: 'bucatini', threads: 'auto', switchesSockets: true },
  pasta: { kind: 'pasta', threads: '' },
  slirp4netns: { kind: 'slirp4netns', threads: '' },
  bypass4netns: { kind: 'bypass4netns', threads: '' },
};

/** Whether a peer's name stands for a tool by itself, without a file. */
export const isBuiltIn = (name: string): boolean =>
  Object.hasOwn(BUILT_IN, name) || /^bucatini-lanes-\d+$/.test(name);

const NAMES_BEGIN_WITH = ['bucatini', 'pasta', 'slirp', 'bypass4netns'] as const;

function peerSpec(text: string): PeerSpec {
  const at = text.indexOf('=');
  if (at < 0) {
    const lanes = /^bucatini-lanes-([1-9]\d*)$/.exec(text)?.[1];
    if (lanes !== undefined)
      return {
        name: text,
        path: null,
        kind: 'bucatini',
        threads: `lanes=${whole('peers', lanes, 1, MAX_LANES)}`,
      };
    const known = Object.hasOwn(BUILT_IN, text) ? BUILT_IN[text] : undefined;
    if (!known)
      throw new UsageError(
        `--peers: no peer '${text}'; there are ${Object.keys(BUILT_IN).join(' ')} bucatini-lanes-N and NAME=FILE`,
      );
    return { name: text, path: null, ...known };
  }
  const [name, path] = [text.slice(0, at), text.slice(at + 1)];
  const kind = NAMES_BEGIN_WITH.find((prefix) => name.startsWith(prefix));
  if (kind === undefined || !/^[a-z0-9.-]+$/.test(name) || path === '')
    throw new UsageError(
      `--peers ${text}: want NAME=FILE with a NAME that begins with bucatini, pasta, slirp or bypass4netns (a-z 0-9 . -)`,
    );
  return {
    ...{ name, path, kind: kind === 'slirp' ? 'slirp4netns' : kind, threads: 'auto' },
    ...(name.startsWith('bucatini-switch') && { switchesSockets: true }),
  };
}

/** Parse a list of peers, as `--peers` has it. @throws UsageError */
export function peerList(text: string): PeerSpec[] {
  const peers = text.split(',').map(peerSpec);
  const twice = peers.find((peer, i) => peers.some((other, j) => j < i && other.name === peer.name));
  if (twice) throw new UsageError(`--peers: '${twice.name}' is named twice`);
  return peers;
}

/** The peers of `--scaling`. Direct shows what the two ends carry by themselves. */
const scalingPeers = (cores: number): string =>
  ['direct', ...scalingLanes(cores).map((lanes) => `bucatini-lanes-${lanes}`)].join();

type Values = Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>;
/** What may stand beside two results to compare. */
const BESIDE_COMPARE = ['compare', 'check', 'require', 'html', 'json', 'help'];

function compareOption(old: string | null, operands: readonly string[], values: Values): Options['compare'] {
  const [now = null, extra] = operands;
  if (old === null && now !== null)
    throw new UsageError(`${now}: unexpected argument (--help lists the options)`);
  if (extra !== undefined) throw new UsageError(`--compare: want one or two files, ${extra} is a third`);
  if (old === null) return null;
  if (old === '' || now === '') throw new UsageError('--compare: want the name of a file');
  const other = Object.keys(values).find((flag) => !BESIDE_COMPARE.includes(flag));
  if (now !== null && other !== undefined)
    throw new UsageError(`--compare with two files measures nothing: leave out --${other}`);
  if (values.soak !== undefined || values.plan !== undefined)
    throw new UsageError(`--compare and --${values.soak !== undefined ? 'soak' : 'plan'}: one of the two`);
  return { old, now };
}

/** @throws UsageError naming the requirement */
export function requirementList(value: Values[string]): Requirement[] {
  const known = matrix({ mtus: BOTH_MTUS });
  return (Array.isArray(value) ? value : []).map((each) => {
    const requirement = parseRequirement(`${each}`);
    if (requirement === null)
      throw new UsageError(
        `--require ${each}: want CELL:METRIC>=NUMBER or <=, e.g. tcp-1-up-65520:mbit>=10000; metrics: ${METRIC_NAMES.join(' ')}`,
      );
    if (
      /-\d+$/.test(requirement.cell) &&
      known.some(({ workload }) => requirement.cell.startsWith(`${workload}-`))
    )
      return requirement;
    throw new UsageError(`--require ${each}: no cell '${requirement.cell}' (--plan lists them)`);
  });
}

/**
 * Parse the command line.
 * @param cores  number of processors, for `--scaling`
 * @returns null when the help text was requested
 * @throws UsageError naming the option and its values
 */
export function parseOptions(argv: readonly string[], cores = availableParallelism()): Options | null {
  const spec: Record<string, { type: 'string' | 'boolean'; multiple?: boolean }> = {};
  for (const row of TABLE)
    spec[row.name] = {
      type: row.value === undefined ? 'boolean' : 'string',
      multiple: row.repeatable === true,
    };
  // `--soak` may have no value.
  const args = argv.map((arg, i) =>
    arg === '--soak' && !/^\d/.test(argv[i + 1] ?? '') ? `--soak=${DEFAULT_SOAK_MINUTES}` : arg,
  );
  let values: Record<string, string | boolean | (string | boolean)[] | undefined>;
  let operands: string[];
  try {
    ({ values, positionals: operands } = parseArgs({
      args,
      options: spec,
      strict: true,
      allowPositionals: true,
    }));
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    // Node adds how a word that begins with a hyphen can be an operand, which no operand here does.
    throw new UsageError(`${text.replace(/ To specify a positional.*$/s, '')} (--help lists the options)`);
  }
  if (values.help === true) return null;
  const text = (flag: string): string | null => {
    const value = values[flag];
    return typeof value === 'string' ? value : null;
  };
  const given = <T>(flag: string, read: (value: string) => T): T | null => {
    const value = text(flag);
    return value === null ? null : read(value);
  };
  const compare = compareOption(text('compare'), operands, values);
  if (values.quick === true && values.full === true)
    throw new UsageError('--quick and --full: one of the two');
  const isScaling = values.scaling === true;
  const exclusive = ['quick', 'full', 'soak', 'wan'].find((flag) => values[flag] !== undefined);
  if (isScaling && exclusive !== undefined)
    throw new UsageError(`--scaling and --${exclusive}: one of the two`);
  const mtus = (text('mtu') ?? (isScaling ? BOTH_MTUS.slice(0, 1) : BOTH_MTUS).join())
    .split(',')
    .map((mtu) => whole('mtu', mtu, 1280, 65520));
  if (new Set(mtus).size !== mtus.length) throw new UsageError('--mtu: the same one twice');
  const only = given('only', (value) => value.split(','));
  const ownLine = given('wan', line);
  const scalingCores = isScaling ? cores : null;
  const cells = matrix({ mtus, line: ownLine, scalingCores });
  const unknown = only?.find((o) => !cells.some((cell) => matches(cell.id, o)));
  if (unknown !== undefined) throw new UsageError(`--only: no cell '${unknown}' (--plan lists them)`);
  const outputs = (['json', 'html', 'csv'] as const).flatMap((flag): Output[] => {
    const file = text(flag);
    if (file === '') throw new UsageError(`--${flag}: want the name of a file`);
    return file === null ? [] : [{ flag: `--${flag}`, file }];
  });
  outputs.forEach(({ flag, file }, i) => {
    const same = outputs.slice(0, i).find((other) => other.file === file);
    if (same) throw new UsageError(`${same.flag} and ${flag}: ${file} is one file for both`);
  });
  const requirements = requirementList(values.require);
  return {
    mode: isScaling ? 'scaling' : values.quick === true ? 'quick' : 'full',
    scalingCores,
    only,
    rounds: given('rounds', (value) => whole('rounds', value, 1, 1000)),
    seconds: given('seconds', (value) => whole('seconds', value, 1, 3600)),
    mtus,
    peers: peerList(text('peers') ?? (isScaling ? scalingPeers(cores) : DEFAULT_PEERS)),
    idleSeconds: whole('idle', text('idle') ?? '0', 0, 3600),
    outputs,
    tcpWmem: given('tcp-wmem', threeSizes),
    line: ownLine,
    showPlan: values.plan === true,
    soakMinutes: given('soak', (value) => whole('soak', value, 1, 24 * 60)),
    compare,
    check: values.check === true || requirements.length > 0,
    requirements,
  };
}
