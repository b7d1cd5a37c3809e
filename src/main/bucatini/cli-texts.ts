// bundle: texts
/**
 * Help, version and docs/cli.md, all from the option table. The build writes help and version into
 * dist/texts; the launcher prints them from there without starting the runtime.
 */
import {
  bashCompletion,
  fishCompletion,
  type OperandKind,
  type ProgramWithCommands,
  zshCompletion,
} from '../cli/completion.ts';
import { namesOf } from '../cli/option-fields.ts';
import {
  defaultText,
  type Example,
  helpLines,
  manExamples,
  manHead,
  manLines,
  manProse,
  manSeeAlso,
  roff,
  shellScriptPrinting,
  wrap,
} from '../cli/option-texts.ts';
import { BENCH_OPTIONS } from './bench-options.ts';
import { COMMAND_NAMES, type CommandName } from './commands.ts';
import { type OptionSpec, OPTIONS as START_OPTIONS } from './options.ts';

/** Of all commands. */
const OPTIONS: readonly OptionSpec[] = [...START_OPTIONS, ...BENCH_OPTIONS].sort(
  (a, b) => Number(a.group === 'General') - Number(b.group === 'General'),
);

interface CommandText {
  readonly operands: string;
  readonly summary: string;
  readonly about: string;
}

const TEXTS: Readonly<Record<CommandName, CommandText>> = {
  run: {
    operands: '[OPTIONS] [--] [COMMAND [ARG...]]',
    summary: 'Run a command in a new network namespace that reaches the outside.',
    about:
      'Runs COMMAND (default: your shell) in a new user, network, PID and mount namespace with an interface, addresses, routes and a resolver. Needs no privileges. Inside you are root (user id 0), but only there: files that you make belong to you outside. Ends when COMMAND ends, with its status (128+N when signal N killed it, 127 when it does not exist, 126 when it cannot be executed). Errors of bucatini itself give status 1.',
  },
  attach: {
    operands: '[OPTIONS] PID | NETNS-PATH',
    summary: 'Connect an existing network namespace.',
    about:
      'Connects the network namespace of process PID, or the one at NETNS-PATH (for example /run/netns/NAME). Runs until that namespace is gone, or until SIGTERM or SIGINT; the status is then 0. Prints "ready" on standard error once traffic flows.',
  },
  doctor: {
    operands: '[--container NAME]',
    summary: 'Check what this host allows, or why a container has no network.',
    about:
      'Tries everything that bucatini needs and prints one line per check: ok, note (works, but slower or with less) or FAIL, with the remedy. The status is 1 when `bucatini run` cannot work here. With --container it examines one container instead, whichever program connects it: its namespace, engine, interface, addresses, routes, resolvers (each is asked from inside) and published ports; the status is 1 when one of these fails.',
  },
  selftest: {
    operands: '',
    summary: 'Build a small test network and send real traffic through bucatini.',
    about:
      'Makes two network namespaces (this needs no root, and nothing outside them is touched), and starts `bucatini run` in one and servers in the other. Then it pings, resolves names, downloads and uploads with checksums over IPv4 and IPv6, and measures the throughput. The status is 1 when a step failed.',
  },
  top: {
    operands: '[OPTIONS] [PID | API-SOCKET...]',
    summary: 'Show rates, flows, drops and threads of running instances, renewed every second.',
    about:
      'Shows the instances with these process ids or API sockets; without operands all instances of this user that were started with --api-socket auto. Keys: q quit, s and S sort by the next or previous column, r reverse, / filter, p pause, n and N next or previous instance, arrows and Page Up or Down scroll, h help. If standard output is not a terminal, or TERM is dumb, each screen is printed below the last. NO_COLOR is respected. docs/watch.md describes the columns.',
  },
  flows: {
    operands: '[OPTIONS] [PID | API-SOCKET...]',
    summary: 'List the flows of running instances: TCP connections, UDP conversations, pings.',
    about:
      'Lists the flows of the instances with these process ids or API sockets; without operands those of all instances of this user that were started with --api-socket auto. The status is 1 when an instance did not answer, or when there is none. docs/watch.md describes the columns.',
  },
  ports: {
    operands: '[OPTIONS] [PID | API-SOCKET...]',
    summary: 'List the published ports of running instances, and those that could not be bound.',
    about: 'Operands and status as those of `bucatini flows`.',
  },
  stats: {
    operands: '[OPTIONS] [PID | API-SOCKET...]',
    summary: 'Print the counters and latency percentiles of running instances.',
    about:
      'Prints what --stats prints at the end. With --watch each table after the first has the changes per second instead. Operands and status as those of `bucatini flows`. docs/counters.md explains the counters.',
  },
  policy: {
    operands: '[OPTIONS] [PID | API-SOCKET...] | test [OPTIONS] FILE ADDR[:PORT]|NAME[:PORT]',
    summary:
      'Print the egress policy of running instances, or explain what a policy says about a destination.',
    about:
      'Without `test`: prints the egress policy that is in force; operands and status as those of `bucatini flows`. policy test: reads FILE, the rules of an egress policy, and prints which of them decides when a program inside connects to the destination. An IPv6 address with a port stands in brackets. For a NAME it prints whether our DNS forwarder answers the query, and which rule decides about the addresses that it answers. The status is 0 if the destination is allowed, 2 if it is denied, 1 for errors. docs/policy.md describes the file.',
  },
  metrics: {
    operands: '[OPTIONS] [PID | API-SOCKET]...',
    summary: 'Print or serve the metrics of running instances, for Prometheus.',
    about:
      'Asks instances of `bucatini`, `pasta` and `slirp4netns` by their API sockets, and prints their metrics in the text format of Prometheus, with labels for each instance: its process id, program, and the name of its container where Podman runs it. Without operands it asks all instances of this user that were started with --api-socket auto. An instance that does not answer is reported on standard error, and as 0 in bucatini_instance_up; the status is then 1. With --listen it serves the same by HTTP, asked anew for each request: one scrape for all containers of a user (docs/metrics.md).',
  },
  'switch-agent': {
    operands: '--socket PATH [OPTIONS] [BASE.json]',
    summary: 'Switch outgoing TCP of containers that Podman starts to sockets of the host.',
    about:
      "Serves the containers whose OCI runtime (crun or runc) sends the listener of their seccomp profile to PATH: connect() of a TCP socket to a destination beyond the host gets a socket of the host, with the host's own speed; everything else goes through the container's network as before. --print-profile prints the profile for `podman run --security-opt seccomp=FILE`; `bucatini switch-over --switch-sockets` sets it up for all containers of a user. Runs until SIGTERM or SIGINT; its service manager keeps the listeners over a restart. docs/switching.md says what it costs and what it cannot do.",
  },
  'switch-over': {
    operands: '[OPTIONS]',
    summary: "Make this user's Podman and Buildah use bucatini's pasta and slirp4netns.",
    about:
      "Links bucatini's pasta, slirp4netns and pesto into XDG_DATA_HOME/bucatini/helpers (default: ~/.local/share/bucatini/helpers). Writes XDG_CONFIG_HOME/containers/containers.conf.d/50-bucatini.conf (default: below ~/.config), which makes Podman and Buildah look there first. With --switch-sockets it also writes a seccomp profile for all containers of this user and a user unit of systemd for `bucatini switch-agent`, which has to be started before the next container (docs/switching.md). Prints each change; a second run changes nothing. If a file or link that it did not make, or that was edited since, is in the way, switch-over names it, changes nothing, and exits with status 1. Running containers keep their network.",
  },
  'switch-back': {
    operands: '',
    summary: 'Undo switch-over.',
    about:
      'Removes exactly what switch-over made: the configuration file, the links, what --switch-sockets added, and those directories that it made and that are empty. If one of these files was edited since, switch-back names it, removes nothing, and exits with status 1. Works without dist and node_modules, too.',
  },
  bench: {
    operands: '[OPTIONS] [NEW.json]',
    summary: 'Measure throughput, latency and cost beside pasta, slirp4netns and a bare link.',
    about:
      'Measures bucatini, pasta, slirp4netns and a bare veth in turn (A B C, C B A, ...), in namespaces of its own, and prints a report in Markdown: medians, spread, ratios, and which targets were reached. Needs iperf3 and iproute2, but no privileges. Progress goes to standard error; Ctrl-C ends it with a report of what was measured so far. --plan lists the cells. The status is 2 for errors in the options, 3 when a check or a soak failed. The README in perf/ of the repository explains the cells and the result.',
  },
  'bug-report': {
    operands: '[API-SOCKET...]',
    summary: 'Print the facts about this machine that a bug report needs.',
    about:
      'Prints versions, the result of `doctor`, kernel settings, and for each running `bucatini`, `pasta` and `slirp4netns` that this user can see its options, age, memory, threads and descriptors. Leaves out addresses, names, paths, commands, and all data that went through. With API-SOCKET it also prints the counters of that engine.',
  },
};

/** The subcommands with their texts, in the order of the help. */
export const COMMANDS = COMMAND_NAMES.map((name) => ({ name, ...TEXTS[name] }));

const INDENT = 26;

/** Text of `bucatini --help`. */
export function overviewText(): string {
  const width = Math.max(...COMMANDS.map((c) => c.name.length)) + 2;
  const lines = COMMANDS.map((c) => `  ${c.name.padEnd(width)}${c.summary}`);
  return [
    'Usage: bucatini COMMAND [ARG...]',
    '',
    'User-mode network engine for rootless containers: connects a network namespace through ordinary sockets of the host.',
    '',
    ...lines,
    '',
    '`bucatini help COMMAND` lists its options; `bucatini version` prints the version.',
    '',
  ].join('\n');
}

/** Text of `bucatini COMMAND --help`. */
export function helpText(command: CommandName): string {
  const { operands, about } = TEXTS[command];
  const out = [`Usage: bucatini ${command} ${operands}`.trimEnd(), '', ...wrap(about, 0)];
  for (const [group, options] of grouped(command)) {
    out.push('', `${group}:`);
    for (const option of options) out.push(...optionLines(option));
  }
  return `${out.join('\n')}\n`;
}

/** Text of `bucatini --version`. */
export const versionText = (version: string): string => `bucatini ${version}\n`;

/** The whole page docs/cli.md. */
export function cliMarkdown(): string {
  const out = [
    '# Command line',
    '',
    '<!-- Made from src/main/bucatini/options.ts by scripts/cli-docs.ts; change the table there and run it again. -->',
    '',
    "Options come before the operands and end at the first word that is not an option, or at `--`. A value follows its option after a space (`--mtu 1500`, `-p 8080:80`), after `=` (`--mtu=1500`) or directly after a short name (`-p8080:80`). An error is one line on standard error, with status 1. `bucatini help COMMAND` and `bucatini COMMAND --help` print this page's part in the terminal, `man bucatini` the whole; `bucatini version` prints the version.",
  ];
  for (const command of COMMANDS) {
    out.push(
      '',
      `## \`bucatini ${command.name} ${command.operands}`.trimEnd().concat('`'),
      '',
      command.about,
    );
    const options = grouped(command.name).flatMap(([, list]) => list);
    out.push('', '| option | meaning | default |', '|---|---|---|');
    for (const option of options) {
      const repeat = option.repeatable ? ' May be repeated.' : '';
      out.push(
        `| ${cell(`\`${signature(option)}\``)} | ${cell(option.help + repeat)} | ${cell(option.default ?? '')} |`,
      );
    }
  }
  return `${out.join('\n')}\n`;
}

/** File name in dist/texts -> content. */
export function generatedTexts(version: string): ReadonlyMap<string, string> {
  const texts = new Map([
    ['bucatini.help.sh', shellScriptPrinting(overviewText())],
    ['bucatini.version.sh', shellScriptPrinting(versionText(version))],
  ]);
  for (const { name } of COMMANDS) texts.set(`bucatini-${name}.help.sh`, shellScriptPrinting(helpText(name)));
  return texts;
}

function grouped(command: CommandName): [string, OptionSpec[]][] {
  const groups = new Map<string, OptionSpec[]>();
  for (const option of OPTIONS) {
    if (!option.commands.includes(command)) continue;
    const list = groups.get(option.group) ?? [];
    list.push(option);
    groups.set(option.group, list);
  }
  return [...groups];
}

function signature(option: OptionSpec): string {
  const names = namesOf(option).join(', ');
  if (option.value === undefined) return names;
  return option.optional ? `${names}[=${option.value}]` : `${names} ${option.value}`;
}

function optionLines(option: OptionSpec): string[] {
  const repeat = option.repeatable ? ' May be repeated.' : '';
  return helpLines(signature(option), option.help + repeat + defaultText(option.default), INDENT);
}

const cell = (text: string): string => text.replaceAll('|', '\\|');

/** The manual page, man(7). */
export function manPage(): string {
  const out = [...manHead('bucatini', 'network for rootless containers and commands'), '.SH SYNOPSIS'];
  for (const [i, { name, operands }] of COMMANDS.entries())
    out.push(...(i > 0 ? ['.br'] : []), `\\fBbucatini ${roff(name)}\\fR${operands && ` ${roff(operands)}`}`);
  out.push('.br', '\\fBbucatini help\\fR [COMMAND]', '.br', '\\fBbucatini version\\fR');
  out.push('.SH DESCRIPTION', ...manProse(...DESCRIPTION));
  out.push('.SH COMMANDS');
  for (const { name, about } of COMMANDS) out.push('.TP', `\\fB${roff(name)}\\fR`, ...manProse(about));
  out.push('.SH OPTIONS', ...manProse(OPTION_RULES));
  for (const group of new Set(OPTIONS.map((option) => option.group))) {
    out.push(`.SS ${group}`);
    for (const option of OPTIONS) {
      if (option.group !== group) continue;
      const repeat = option.repeatable ? ' May be repeated.' : '';
      const help = `${option.help}${repeat}${ofCommands(option)}`;
      out.push(...manLines({ ...option, takesValue: option.value !== undefined, help }, ' '));
    }
  }
  out.push('.SH EXIT STATUS', ...manProse(STATUS), '.SH ENVIRONMENT');
  for (const [name, meaning] of ENVIRONMENT) out.push('.TP', `\\fB${name}\\fR`, ...manProse(meaning));
  out.push(...manExamples(EXAMPLES));
  out.push(...manSeeAlso(['pasta(1)', 'pesto(1)', 'slirp4netns(1)', 'namespaces(7)', 'user_namespaces(7)']));
  return `${out.join('\n')}\n`;
}

/** Which commands take an option, as a sentence; empty for most: `run` and `attach`, or all. */
function ofCommands({ commands }: OptionSpec): string {
  if (commands.length === COMMAND_NAMES.length || commands.join() === 'run,attach') return '';
  return ` Only with ${commands.join(', ')}.`;
}

const DESCRIPTION: readonly string[] = [
  'Connects a network namespace to the network without privileges: through a TAP device inside and ordinary sockets of the host, without bridges or NAT rules. It is the engine of the pasta and slirp4netns commands of the same package, which take the place of the originals under Podman, Buildah, RootlessKit and rootless Docker.',
  'The first word is a command.',
];
const OPTION_RULES =
  'Unless something else is said, these are options of run and attach. Options come before the operands and end at the first word that is not an option, or at --. A value follows after a blank, after = or directly after a short name.';
const STATUS =
  'run: that of COMMAND, 128+N when signal N killed it, 127 when it does not exist, 126 when it cannot be executed. The others: 0 if all went well. 1 for errors of bucatini itself.';
const ENVIRONMENT: readonly (readonly [name: string, meaning: string])[] = [
  ['BUCATINI_RUNTIME', 'bun or node: the JavaScript runtime. Default: Bun where it is installed, else Node.'],
];
const EXAMPLES: readonly Example[] = [
  ['bucatini run -- curl https://example.org/', 'A command in a new namespace, with network.'],
  ['bucatini run -p 8080:80 -- python3 -m http.server 80', 'Port 8080 of the host leads to port 80 inside.'],
  ['bucatini run --deny private -- npm ci', 'A build that cannot reach the local network.'],
  ['bucatini run --delay 100ms --loss 5% -- npm test', 'A test under a bad network.'],
  ['bucatini run --pcap run.pcap -- ping -c 3 192.0.2.1', 'Write all frames to a file for Wireshark.'],
  ['bucatini run --api-socket auto -- ./server', 'A server that `bucatini top` and others find.'],
  ['bucatini top', 'What the instances of this user do, renewed every second.'],
  ['bucatini attach 4711', 'Connect the network namespace of process 4711.'],
  ['bucatini doctor', 'Check what this host allows.'],
  ['bucatini doctor --container web', 'Find out why a container has no network.'],
  ['bucatini switch-over', 'Podman and Buildah of this user use bucatini; switch-back undoes it.'],
];

/** What the operands of a command are, for completion. */
const operandKind = (operands: string): OperandKind =>
  /\bCOMMAND\b/.test(operands) ? 'command' : /FILE|PATH|SOCKET/.test(operands) ? 'files' : 'none';

/** The commands and their options, for completion. */
const completed = (): ProgramWithCommands => ({
  name: 'bucatini',
  commands: COMMANDS.map(({ name, summary, operands }) => {
    const [, word] = /(?:^|\| )([a-z]+) /.exec(operands) ?? [];
    return {
      name,
      summary,
      options: OPTIONS.filter((option) => option.commands.includes(name)),
      operands: operandKind(operands),
      ...(word !== undefined && { words: [word] }),
    };
  }),
});

/** Generated files of the repository (`npm run docs`): path -> content. */
export const generatedDocs = (): ReadonlyMap<string, string> =>
  new Map([
    ['docs/cli.md', cliMarkdown()],
    ['man/bucatini.1', manPage()],
    ['completions/bucatini.bash', bashCompletion(completed())],
    ['completions/_bucatini', zshCompletion(completed())],
    ['completions/bucatini.fish', fishCompletion(completed())],
  ]);
