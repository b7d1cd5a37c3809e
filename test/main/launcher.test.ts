import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { helpText, overviewText } from '../../src/main/bucatini/cli-texts.ts';
import { COMMAND_NAMES } from '../../src/main/bucatini/commands.ts';
import { describeNeeding, findTool, requireNamespaces } from '../support/require.ts';
import { makeSourceTree, type SourceTree, VERSION } from './source-tree.ts';

let tree: SourceTree;
beforeAll(() => {
  tree = makeSourceTree();
});
afterAll(() => tree.remove());

interface Result {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const launch = (
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; program?: string } = {},
): Result =>
  spawnSync(options.program ?? tree.program, args, {
    encoding: 'utf8',
    cwd: options.cwd ?? '/',
    env: options.env ?? { PATH: '/usr/bin:/bin' },
    timeout: 20_000,
  });

it("the launcher's list of subcommands matches the option table", () => {
  const list = /^commands='(.*)'$/m.exec(readFileSync(`${tree.root}/bin/bucatini`, 'utf8'))?.[1];
  expect(list?.split(' ')).toEqual(COMMAND_NAMES);
});

describe('launcher without Node', () => {
  it('--help and --version, on top and of each command, with an empty environment and no Node installed', () => {
    rmSync(`${tree.root}/node_modules`);
    try {
      expect(launch(['--help'], { env: {} })).toMatchObject({
        status: 0,
        stdout: overviewText(),
        stderr: '',
      });
      expect(launch(['help'], { env: {} }).stdout).toBe(overviewText());
      for (const version of ['--version', '-V', 'version'])
        expect(launch([version], { env: {} }).stdout).toBe(`bucatini ${VERSION}\n`);
      for (const command of COMMAND_NAMES) {
        expect(launch([command, '--help'], { env: {} })).toMatchObject({
          status: 0,
          stdout: helpText(command),
        });
        for (const args of [
          [command, '-h'],
          ['help', command],
          ['--help', command],
        ])
          expect(launch(args, { env: {} }).stdout).toBe(helpText(command));
        expect(launch([command, '--version'], { env: {} }).stdout).toBe(`bucatini ${VERSION}\n`);
      }
      const without = launch(['doctor']);
      expect(without).toMatchObject({ status: 1, stdout: '' });
      expect(without.stderr).toMatch(/^bucatini: no Node runtime .* run npm ci there.*\n$/);
    } finally {
      symlinkSync(new URL('../../node_modules', import.meta.url).pathname, `${tree.root}/node_modules`);
    }
  });

  it('started by links, absolute and relative, from another directory, with CDPATH set: works', () => {
    const dir = `${tree.root}/links`;
    mkdirSync(`${dir}/deep`, { recursive: true });
    symlinkSync(tree.program, `${dir}/absolute`);
    symlinkSync('../absolute', `${dir}/deep/chained`);
    symlinkSync('../../bin/bucatini', `${dir}/deep/relative`);
    symlinkSync(`${tree.root}/bin`, `${dir}/bin-link`);
    for (const program of ['absolute', 'deep/chained', 'deep/relative', 'bin-link/bucatini']) {
      const env = { CDPATH: '/usr' };
      expect(launch(['--version'], { program: `${dir}/${program}`, env }).stdout).toBe(
        `bucatini ${VERSION}\n`,
      );
      expect(launch(['--version'], { program: `./${program}`, cwd: dir, env }).stdout).toBe(
        `bucatini ${VERSION}\n`,
      );
    }
    const named = spawnSync('/bin/sh', ['bucatini', '--version'], {
      cwd: `${tree.root}/bin`,
      encoding: 'utf8',
    });
    expect(named.stdout).toBe(`bucatini ${VERSION}\n`);
    const byPath = spawnSync('/bin/sh', ['-c', 'bucatini --version'], {
      env: { PATH: `${tree.root}/bin` },
      encoding: 'utf8',
    });
    expect(byPath.stdout).toBe(`bucatini ${VERSION}\n`);
  });

  it('installed as a dependency: finds Node beside the package', () => {
    const modules = `${tree.root}/app/node_modules`;
    const installed = makeSourceTree(`${modules}/bucatini`);
    rmSync(`${installed.root}/node_modules`);
    const cpu = process.arch === 'arm64' ? 'arm64' : 'x64';
    mkdirSync(`${modules}/node-linux-${cpu}/bin`, { recursive: true });
    writeFileSync(`${modules}/node-linux-${cpu}/bin/node`, '#!/bin/sh\necho "hoisted $#"\n', { mode: 0o755 });
    expect(launch(['doctor'], { program: installed.program }).stdout).toBe('hoisted 2\n');
  });

  it('nothing, an unknown command, no build: one line, status 1', () => {
    for (const [args, text] of [
      [[], 'no command given'],
      [['frobnicate'], 'frobnicate: unknown command; write bucatini run, '],
      [['help', 'frobnicate'], 'frobnicate: unknown command; write bucatini run, '],
      [['runn'], 'runn: unknown command; did you mean run\\?'],
      [['dcotor'], 'dcotor: unknown command; did you mean doctor\\?'],
      [['self'], 'self: unknown command; did you mean selftest\\?'],
      [['bug_report'], 'bug_report: unknown command; did you mean bug-report\\?'],
      [['help', 'atach'], 'atach: unknown command; did you mean attach\\?'],
      [['*'], '\\*: unknown command; write'],
      [['--frobnicate'], '--frobnicate: unknown command'],
    ] as const) {
      const result = launch(args);
      expect(result.status).toBe(1);
      expect(result.stderr).toMatch(new RegExp(`^bucatini: ${text}[^\n]*\n$`));
    }
    const bare = makeSourceTree();
    rmSync(`${bare.root}/dist`, { recursive: true });
    expect(launch(['run', 'true'], { program: bare.program }).stderr).toMatch(
      /^bucatini: .* run npm run build in [^\n]*\n$/,
    );
    expect(launch(['--help'], { program: bare.program }).stderr).toMatch(
      /^bucatini: .* run npm run build in [^\n]*\n$/,
    );
    bare.remove();
  });
});

describe('an executable of Bun that does not run', () => {
  const executable = (): string => `${tree.root}/dist/bun/bucatini`;
  beforeAll(() => mkdirSync(`${tree.root}/dist/bun`));
  afterEach(() => rmSync(`${tree.root}/dist/bun/loader`, { force: true }));
  afterAll(() => rmSync(`${tree.root}/dist/bun`, { recursive: true }));
  const remedy = 'npm run build in [^\n]* makes it anew; BUCATINI_RUNTIME=node runs Node instead\n$';

  it.each([['run', '--', 'true'], ['attach', '1'], ['doctor'], ['selftest']])(
    '%s: of another kind of machine, or empty: one line with the remedy, status 1',
    (...args) => {
      writeFileSync(executable(), '', { mode: 0o755 });
      const empty = launch(args);
      expect(empty).toMatchObject({ status: 1, stdout: '' });
      expect(empty.stderr).toMatch(new RegExp(`^bucatini: [^\n]*/dist/bun/bucatini is empty; ${remedy}`));
      writeFileSync(executable(), '\x7fELF');
      writeFileSync(`${tree.root}/dist/bun/loader`, '/lib/ld-nowhere.so.1\n');
      const other = launch(args);
      expect(other).toMatchObject({ status: 1, stdout: '' });
      expect(other.stderr).toMatch(
        new RegExp(`^bucatini: [^\n]*/dist/bun/bucatini is for another kind of machine [^\n]*; ${remedy}`),
      );
    },
  );

  it.each(['doctor', 'selftest', 'bug-report'])(
    '%s: cut off: one line with the remedy, status 1',
    (command) => {
      writeFileSync(executable(), '#!/bin/sh\nkill -BUS $$\n');
      const { status, stdout, stderr } = launch([command]);
      expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
      expect(stderr).toMatch(
        new RegExp(`^bucatini: [^\n]*bucatini does not start \\(status 135\\); ${remedy}`),
      );
    },
  );

  it('BUCATINI_RUNTIME=node: Node runs', () => {
    writeFileSync(executable(), '');
    const result = launch(['doctor', 'now'], { env: { PATH: '/usr/bin:/bin', BUCATINI_RUNTIME: 'node' } });
    expect(result.stderr).toContain('unexpected argument');
  });
});

describe('errors of options, through the whole program', () => {
  for (const args of [
    ['run', '--mtu', 'x', 'true'],
    ['run', '--wibble'],
    ['attach'],
    ['attach', '1', '2'],
    ['attach', '0'],
    ['attach', '/does/not/exist'],
    ['attach', '2147483646'],
    ['doctor', '--mtu', '1500'],
    ['doctor', 'now'],
  ]) {
    it(`${args.join(' ')}: one line, status 1`, () => {
      const result = launch(args);
      expect(result.stderr).toMatch(/^bucatini: [^\n]+\n$/);
      expect(result).toMatchObject({ status: 1, stdout: '' });
    });
  }

  it('NODE_OPTIONS of the caller: no effect', () => {
    const result = launch(['doctor', 'now'], {
      env: { PATH: '/usr/bin:/bin', NODE_OPTIONS: '--require /does/not/exist' },
    });
    expect(result.stderr).toContain('unexpected argument');
  });
});

describeNeeding('the kernel refuses user namespaces', [requireNamespaces], () => {
  /**
   * Inside a user namespace whose limit is 0, without capabilities, as an ordinary user is on a host that
   * forbids them.
   */
  const confined = (limit: string, ...argv: string[]): Result =>
    spawnSync(
      findTool('unshare')!,
      [
        ...[
          '-Ur',
          '-m',
          '--',
          '/bin/sh',
          '-c',
          `${limit}; exec "$0" --bounding-set=-all --inh-caps=-all -- "$@"`,
        ],
        ...[findTool('setpriv')!, ...argv],
      ],
      { encoding: 'utf8', env: { PATH: '/usr/bin:/bin' }, timeout: 20_000 },
    );

  it('run: one line with the sysctl and the remedy, status 1', () => {
    const result = confined('echo 0 >/proc/sys/user/max_user_namespaces', tree.program, 'run', 'true');
    expect(result.stderr).toMatch(
      /^bucatini: user namespaces are disabled [^\n]*sysctl -w user.max_user_namespaces=15000\n$/,
    );
    expect(result).toMatchObject({ status: 1, stdout: '' });
  });

  it('selftest: one line with the sysctl and the remedy, status 1', () => {
    const result = confined('echo 0 >/proc/sys/user/max_user_namespaces', tree.program, 'selftest');
    expect(result.stderr).toMatch(/^bucatini: user namespaces are disabled [^\n]*\n$/);
    expect(result.status).toBe(1);
  });

  it('doctor: prints FAIL and the remedy, status 1', () => {
    const result = confined('echo 0 >/proc/sys/user/max_user_namespaces', tree.program, 'doctor');
    expect(result.stdout).toMatch(/^FAIL +user namespaces .*sysctl -w user.max_user_namespaces=15000$/m);
    expect(result.stdout).toContain('cannot work on this host');
    expect(result.status).toBe(1);
  });
});
