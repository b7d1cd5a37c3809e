/** scripts/setup.sh with a PATH of few programs, and substitutes for `id` and `apt-get`. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { findTool } from '../support/require.ts';

const setup = fileURLToPath(new URL('../../scripts/setup.sh', import.meta.url));
let dir = '';

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'setup-'));
  for (const name of ['mktemp', 'rm', 'sed', 'sort', 'stat', 'tail', 'tr'])
    symlinkSync(findTool(name) ?? '', join(dir, name));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function program(name: string, body: string): void {
  writeFileSync(join(dir, name), `#!/bin/sh\n${body}\n`);
  chmodSync(join(dir, name), 0o755);
}

const run = (...args: string[]) =>
  spawnSync('/bin/sh', [setup, ...args], { encoding: 'utf8', env: { PATH: dir } });

it('ordinary user, tools missing: one apt-get line on standard output, status 1', () => {
  program('id', 'echo 1000');
  const { status, stdout, stderr } = run('test');
  expect(stdout).toMatch(/^apt-get install -y --no-install-recommends [a-z0-9. -]+\n$/);
  expect(stdout.trim().split(' ')).toEqual(expect.arrayContaining(['curl', 'iperf3', 'socat', 'util-linux']));
  expect(stdout).not.toMatch(/passt|slirp4netns/);
  expect(stderr).toContain("missing for 'test'");
  expect(status).toBe(1);
});

it('each set has its tools: run needs neither iperf3 nor pasta, perf needs pasta but no compiler', () => {
  program('id', 'echo 1000');
  expect(run('run').stdout).toContain('util-linux');
  expect(run('run').stdout).not.toMatch(/iperf3|passt/);
  expect(run('perf').stdout).toMatch(/iperf3.*passt/);
  expect(run('perf').stdout).not.toMatch(/gcc/);
});

it('root without apt-get: lists what to install, status 1', () => {
  program('id', 'echo 0');
  const { status, stderr } = run('run');
  expect(stderr).toMatch(/no apt-get here: .*util-linux/);
  expect(status).toBe(1);
});

it('root: installs missing packages; first try fails: updates the lists and tries again; then checks', () => {
  program('id', 'echo 0');
  // Fails until `update` has run, then installs the packages.
  program(
    'apt-get',
    [
      `echo "$*" >>${dir}/calls`,
      `case $* in *update*) : >${dir}/updated ;; *) [ -e ${dir}/updated ] || exit 100;`,
      `for c in unshare nsenter; do echo >${dir}/$c; /bin/chmod 755 ${dir}/$c; done ;; esac`,
    ].join('\n'),
  );
  const { status, stderr } = run('run');
  expect(stderr).toContain('installing util-linux');
  expect(status).toBe(0);
  const calls = readFileSync(join(dir, 'calls'), 'utf8').trim().split('\n');
  expect(calls.at(-2)).toMatch(/ update /);
  expect(calls.at(-1)).toMatch(/ install -y .*util-linux$/);
  expect(run('run')).toMatchObject({ status: 0, stdout: '', stderr: '' });
});

it('root, apt-get fails: its last lines and the packages, status 1', () => {
  program('id', 'echo 0');
  program('apt-get', 'echo "E: no such mirror" >&2; exit 100');
  const { status, stderr } = run('run');
  expect(stderr).toMatch(/no such mirror[\s\S]*could not install: util-linux/);
  expect(status).toBe(1);
});

it('unknown set: one line, status 2', () => {
  expect(run('everything')).toMatchObject({
    status: 2,
    stderr: expect.stringContaining("unknown set 'everything'"),
  });
});
