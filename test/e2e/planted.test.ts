/**
 * Files and variables by which a caller would change how Bun or Node runs, planted where the front ends are
 * started: none has an effect on the front end, and COMMAND gets every variable.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { repoRoot } from '../main/source-tree.ts';
import { eventually, killTree, start, threadStatus } from '../support/process.ts';
import { describeNeeding, tapNeeds } from '../support/require.ts';

const BUN_EXECUTABLE = `${repoRoot}/dist/bun/bucatini`;
const RUNTIMES = existsSync(BUN_EXECUTABLE) ? ['bun', 'node'] : ['node'];
/** Other programs may listen on thousands of ports of this machine. */
const NO_PORTS = ['-t', 'none', '-u', 'none', '-T', 'none', '-U', 'none'];
/** Root of the machine would become nobody. */
const AS_OURSELVES = ['--runas', `${process.getuid!()}:${process.getgid!()}`];

const base = mkdtempSync(`${tmpdir()}/bucatini-planted-`);
afterAll(() => rmSync(base, { recursive: true, force: true }));
const cwd = `${base}/directory`;
const home = `${base}/home`;
/** A file here is the effect of something planted. */
const effects = `${base}/effects`;

const PRELOADS = [
  'bunfig',
  'home-bunfig',
  'options',
  'dotenv',
  'inspect',
  'node-options',
  'package',
  'paths',
];
const preload = (name: string): string => `${cwd}/${name}.cjs`;

beforeAll(() => {
  for (const dir of [cwd, home, effects]) mkdirSync(dir);
  for (const name of PRELOADS)
    writeFileSync(
      preload(name),
      `require('node:fs').writeFileSync(${JSON.stringify(`${effects}/${name}`)}, '');\n`,
    );
  writeFileSync(`${cwd}/bunfig.toml`, `preload = ["./bunfig.cjs"]\n`);
  writeFileSync(`${home}/.bunfig.toml`, `preload = [${JSON.stringify(preload('home-bunfig'))}]\n`);
  for (const name of ['.env', '.env.local', '.env.development', '.env.production', '.env.test'])
    writeFileSync(
      `${cwd}/${name}`,
      `DOTENV=1\nBUN_OPTIONS="--preload ${preload('dotenv')}"\nNODE_OPTIONS="--require ${preload('dotenv')}"\n`,
    );
  writeFileSync(
    `${cwd}/package.json`,
    JSON.stringify({ type: 'commonjs', imports: { '#runtime/*': './package.cjs', '#*': './package.cjs' } }),
  );
  writeFileSync(
    `${cwd}/tsconfig.json`,
    JSON.stringify({ compilerOptions: { baseUrl: '.', paths: { '*': ['./paths.cjs'] } } }),
  );
});

/**
 * Variables that Bun 1.4.5 or Node 26 was seen to obey: each of the first group changed what a process without
 * launcher printed, wrote or returned.
 */
const variables = (): Record<string, string> => ({
  BUN_OPTIONS: `--preload ${preload('options')}`,
  BUN_INSPECT: `ws+unix://${effects}/inspect.sock`,
  BUN_INSPECT_PRELOAD: preload('inspect'),
  BUN_BE_BUN: '1',
  BUN_JSC_dumpOptions: '1',
  BUN_JSC_noSuchOption: '1',
  BUN_BYTECODE_ORDER_OUT: `${effects}/order`,
  BUN_BYTECODE_DIGEST_OUT: `${effects}/digest`,
  MIMALLOC_VERBOSE: '1',
  SIMDUTF_FORCE_IMPLEMENTATION: 'none',
  NODE_OPTIONS: `--require ${preload('node-options')}`,
  NODE_V8_COVERAGE: `${effects}/coverage`,
  NODE_REDIRECT_WARNINGS: `${effects}/warnings`,
  NODE_DEBUG: 'module,net,worker',

  BUN_CRASH_REPORT_URL: 'http://127.0.0.1:9/',
  BUN_ENABLE_CRASH_REPORTING: '1',
  BUN_INSPECT_CONNECT_TO: '127.0.0.1:9',
  BUN_INSPECT_NOTIFY: `unix://${effects}/notify`,
  BUN_CONFIG_VERBOSE_FETCH: '1',
  BUN_RUNTIME_TRANSPILER_CACHE_PATH: `${effects}/cache`,
  BUN_TRACE: `${effects}/trace`,
  BUN_GARBAGE_COLLECTOR_LEVEL: '2',
  BUN_FEATURE_FLAG_INTERNAL_FOR_TESTING: '1',
  BUN_DESTRUCT_VM_ON_EXIT: '1',
  BUN_FEATURE_FLAG_NO_ORPHANS: '1',
  DO_NOT_TRACK: '0',
  JSC_SIGNAL_FOR_GC: '10',
  JavaScriptCoreUseJIT: '0',
  Malloc: '1',
  WTF_numberOfProcessorCores: '1',
  WebKitMallocForceEnabled: '1',
  GLIBCXX_TUNABLES: 'x',
  NODE_CHANNEL_FD: '77',
  NODE_UNIQUE_ID: '3',
  NODE_EXTRA_CA_CERTS: `${effects}/none`,
  UV_THREADPOOL_SIZE: '1',
  UV_USE_IO_URING: '1',
  OPENSSL_CONF: `${effects}/none`,
  FORCE_COLOR: '1',
  http_proxy: 'http://127.0.0.1:9',
});

const environment = (runtime: string): Record<string, string> => ({
  PATH: process.env.PATH!,
  HOME: home,
  XDG_CONFIG_HOME: home,
  ...variables(),
  BUCATINI_RUNTIME: runtime,
});

const program = (name: string): string => `${repoRoot}/bin/${name}`;

/** The directories are as the test made them. */
const expectNoEffect = (): void => {
  expect(readdirSync(effects)).toEqual([]);
  expect(readdirSync(home)).toEqual(['.bunfig.toml']);
  expect(
    readdirSync(cwd)
      .filter((name) => !PRELOADS.some((known) => name === `${known}.cjs`))
      .sort(),
  ).toEqual(
    ['.env', '.env.development', '.env.local', '.env.production', '.env.test'].concat([
      'bunfig.toml',
      'package.json',
      'tsconfig.json',
    ]),
  );
};

describe.skipIf(!RUNTIMES.includes('bun'))('without a launcher', () => {
  /** Whether the executable by itself, in an empty directory, shows an effect of a variable. */
  const shows = (name: string): boolean => {
    const run = (env: NodeJS.ProcessEnv) =>
      spawnSync(BUN_EXECUTABLE, ['bucatini', 'doctor', '--version'], {
        cwd: '/',
        encoding: 'utf8',
        env: { PATH: process.env.PATH, ...env },
        timeout: 10_000,
      });
    const [plain, planted] = [run({}), run({ [name]: variables()[name] })];
    const wrote = readdirSync(effects);
    for (const file of wrote) rmSync(`${effects}/${file}`, { recursive: true });
    return (
      wrote.length > 0 ||
      planted.stdout + planted.stderr + planted.status !== plain.stdout + plain.stderr + plain.status
    );
  };
  it.each(
    ['BUN_OPTIONS', 'BUN_BE_BUN', 'BUN_JSC_dumpOptions', 'BUN_BYTECODE_ORDER_OUT'].concat('MIMALLOC_VERBOSE'),
  )('%s has an effect, which these tests would notice', (name) => {
    expect(shows(name)).toBe(true);
  });

  it('no file of the directory is read', () => {
    const { stdout, stderr } = spawnSync(BUN_EXECUTABLE, ['bucatini', 'doctor', '--version'], {
      cwd,
      encoding: 'utf8',
      env: { PATH: process.env.PATH, HOME: home, XDG_CONFIG_HOME: home },
    });
    expect({ stdout, stderr }).toEqual({ stdout: expect.stringMatching(/^bucatini [0-9.]+\n$/), stderr: '' });
    expectNoEffect();
  });
});

describeNeeding('planted files and variables', tapNeeds, () => {
  describe.each(RUNTIMES)('%s', (runtime) => {
    const options = () => ({ cwd, env: environment(runtime), encoding: 'utf8' as const, timeout: 25_000 });

    it.each([
      ['run', 'bucatini', ['run', '--', 'env', '-0']],
      ['pasta', 'pasta', [...AS_OURSELVES, ...NO_PORTS, '--config-net', '--quiet', '--', 'env', '-0']],
    ] as const)('%s: no effect; COMMAND gets every variable', (_name, launcher, args) => {
      const { stdout, stderr, status } = spawnSync(program(launcher), args, options());
      expect(stderr).toBe('');
      expect(status).toBe(0);
      const got = Object.fromEntries(
        stdout
          .split('\0')
          .filter(Boolean)
          .map((entry) => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)]),
      );
      const { PWD: _, OLDPWD: __, ...rest } = got;
      const { BUCATINI_RUNTIME: ___, ...wanted } = environment(runtime);
      expect(rest).toEqual(wanted);
      expectNoEffect();
    });

    it.each([
      ['doctor', ['doctor'], /^ok /m],
      ['bug-report', ['bug-report'], /^## Versions/m],
      ['switch-back', ['switch-back'], /^Nothing to do/m],
    ] as const)('%s: no effect', (_name, args, text) => {
      const { stdout, stderr } = spawnSync(program('bucatini'), args, options());
      expect(stderr).toBe('');
      expect(stdout).toMatch(text);
      expect(stdout).not.toMatch(/JSC|mimalloc/);
      expectNoEffect();
    });

    it.each([
      ['run', 'bucatini', ['run', '--', 'sleep', '2']],
      ['pasta', 'pasta', [...AS_OURSELVES, ...NO_PORTS, '--config-net', '--quiet', '--', 'sleep', '2']],
      ['slirp4netns', 'slirp4netns', ['--target-type=bess', `${home}.sock`]],
    ] as const)(
      '%s: SIGUSR1 at any time of the start ends it; no port for a debugger',
      async (_name, launcher, args) => {
        for (const delayMs of [0, 10, 30, 60]) {
          const started = start([program(launcher), ...args], { env: { BUCATINI_RUNTIME: runtime } });
          await eventually('the runtime runs', 5_000, () =>
            /bucatini|node/.test(readlinkSync(`/proc/${started.pid}/exe`)),
          );
          await new Promise((resolve) => setTimeout(resolve, delayMs));
          started.process.kill('SIGUSR1');
          const status = await started.exited;
          const { stderr } = await started.output();
          expect(stderr).not.toMatch(/debugger|inspector/i);
          expect(status).toBe(138);
        }
      },
    );

    // 7 s: once, as the launcher does the same for both.
    it.skipIf(runtime !== RUNTIMES[0])('selftest: no effect', { timeout: 90_000 }, () => {
      const { stdout, stderr } = spawnSync(program('bucatini'), ['selftest'], {
        ...options(),
        timeout: 80_000,
      });
      expect(stderr).toBe('');
      expect(stdout).toMatch(/^selftest passed/m);
      expectNoEffect();
    });

    it.each([
      ['attach', 'bucatini', (pid: string) => ['attach', pid]],
      [
        'pasta PID',
        'pasta',
        (pid: string) => [...AS_OURSELVES, ...NO_PORTS, '--config-net', '--quiet', '-f', pid],
      ],
      ['slirp4netns', 'slirp4netns', (pid: string) => ['-c', pid, 'tap0']],
    ] as const)('%s: no effect', async (_name, launcher, args) => {
      const target = spawn('unshare', ['-Urn', 'sh', '-c', 'echo there; exec sleep 1000'], {
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      await new Promise((resolve) => target.stdout!.once('data', resolve));
      const argv = [
        'env',
        '-C',
        cwd,
        '-i',
        ...Object.entries(environment(runtime)).map((entry) => entry.join('=')),
      ];
      const started = start([...argv, program(launcher), ...args(String(target.pid))]);
      try {
        await eventually('its sandbox is closed', 15_000, () => {
          if (started.process.exitCode !== null) throw new Error(started.printed().stderr);
          return threadStatus(started.pid).every(({ seccomp }) => seccomp === 2);
        });
        const own = readFileSync(`/proc/${started.pid}/comm`, 'latin1').trim();
        expect(own).toBe(launcher);
        started.process.kill('SIGTERM');
        await started.exited;
        const { stdout, stderr } = await started.output();
        expect(stdout + stderr).not.toMatch(/JSC|mimalloc|inspect|error/i);
        expectNoEffect();
      } finally {
        killTree(started.pid);
        target.kill('SIGKILL');
      }
    });
  });
});
