// bundle: rare
/**
 * Options of `bucatini bench` and of scripts/iperf-harness.sh, which are the same program
 * (perf/harness/options.ts reads them). They are apart from options.ts, which every start loads.
 */
import type { OptionSpec } from './options.ts';

const COMMANDS = ['bench'] as const;

const option = (name: string, value: string | undefined, help: string, standard?: string): OptionSpec => ({
  name,
  ...(value !== undefined && { value }),
  group: 'Measurement',
  help,
  ...(standard !== undefined && { default: standard }),
  commands: COMMANDS,
});

export const DEFAULT_PEERS = 'direct,bucatini,pasta,slirp4netns';

/** In the order of the help. */
export const BENCH_OPTIONS: readonly OptionSpec[] = [
  option('quick', undefined, 'One round of the most telling cells, in less than 5 minutes.'),
  option('full', undefined, 'The whole matrix, in less than 45 minutes. This is the default.'),
  option(
    'only',
    'CELL,CELL',
    'These cells of the matrix, by id or its beginning, for example tcp-1,udp-1400-500,line.',
  ),
  option(
    'scaling',
    undefined,
    'bucatini with 1, 2, 4 ... lanes, as many as processors (8 at most), and direct: 1, 4, 16 and 64 streams, MTU 65520.',
  ),
  option('plan', undefined, 'Print what would be measured and how long it takes, and end.'),
  option(
    'soak',
    'MINUTES',
    'Mixed load on bucatini for so long (4 at least, 10 if MINUTES is left out), with memory and descriptors every 10 s, and a verdict.',
  ),
  option(
    'compare',
    'OLD.json',
    'Compare this run with an earlier result. With NEW.json as operand: compare the two files, and measure nothing.',
  ),
  option(
    'check',
    undefined,
    'Exit with status 3 when a target is missed; with --compare when a figure is worse beyond the spread of its rounds, or a target is no longer reached.',
  ),
  {
    ...option(
      'require',
      'CELL:METRIC>=N',
      "Exit with status 3 unless bucatini's median is so, for example tcp-1-up-65520:mbit>=10000 or rr-64-65520:p95Us<=150.",
    ),
    repeatable: true,
  },
  option(
    'peers',
    'A,B',
    'What to measure: direct, bucatini, bucatini-fused, bucatini-pipeline, bucatini-lanes-N, bucatini-switch, pasta, slirp4netns, bypass4netns, and NAME=FILE for another build of one, where NAME begins with bucatini, pasta, slirp or bypass4netns.',
    DEFAULT_PEERS,
  ),
  option('mtu', 'N,N', 'MTUs of the TAP. The veth below has 1500.', '65520,1500'),
  option('rounds', 'N', 'Number of times that all peers take their turn.', '3, or 1 with --quick'),
  option('seconds', 'N', 'Length of each measurement.', '1 to 3'),
  option(
    'wan',
    'DELAY_MS,RATE_MBIT,QUEUE_KIB,LOSS',
    'This line in the cells named line, instead of the two of the matrix, for example 10,500,2048,0. The delay is that of each way, the loss in per cent.',
  ),
  option(
    'tcp-wmem',
    'MIN,DEFAULT,MAX',
    'Send buffers of the host namespace, for example 4096,4194304,16777216: uploads of pasta need large ones.',
    "the kernel's",
  ),
  option(
    'idle',
    'S',
    'On a shared machine: wait before each measurement until it is 90 % idle, S seconds at most.',
    '0',
  ),
  option('json', 'FILE', 'Write the result to FILE: every single measurement.'),
  option('html', 'FILE', 'Write the report with charts to FILE, one page that needs no network.'),
  option('csv', 'FILE', 'Write every single figure to FILE, one in a line.'),
];
