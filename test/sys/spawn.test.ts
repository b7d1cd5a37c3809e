// @vitest: beside
/** Processes that are started by clone(2), a list of system calls and execve(2). */

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { Errno, O_CLOEXEC } from '../../src/sys/constants.ts';
import { close, pipe2, read } from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import { exitStatus, type SpawnPlan, spawnProcess } from '../../src/sys/spawn.ts';
import { describeNeeding, namespaceNeeds } from '../support/require.ts';
import { runInNamespaces } from './in-namespaces.ts';

const dir = mkdtempSync(`${tmpdir()}/spawn-`);
afterAll(() => rmSync(dir, { recursive: true }));
const SH = '/bin/sh';

function pipe(): [number, number] {
  const ends = new Int32Array(2);
  expect(pipe2(ends, O_CLOEXEC)).toBe(0);
  return [ends[0]!, ends[1]!];
}

/** @returns the process id or -errno */
function started(plan: SpawnPlan): number {
  const spawned = spawnProcess(plan);
  return 'errno' in spawned ? -spawned.errno : spawned.pid;
}

/** Read a pipe to its end, and close it. */
function readAll(fd: number): string {
  const bytes = new NativeBuffer(64 * 1024);
  const parts: Buffer[] = [];
  for (;;) {
    const count = read(fd, bytes.address, bytes.u8.length);
    if (count <= 0) break;
    parts.push(Buffer.from(bytes.u8.subarray(0, count)));
  }
  close(fd);
  return Buffer.concat(parts).toString();
}

async function statusOf(pid: number): Promise<number> {
  expect(pid).toBeGreaterThan(0);
  for (;;) {
    const status = exitStatus(pid);
    if (status !== undefined) return status;
    await sleep(1);
  }
}

/** Run a program whose standard output is a pipe, and standard input and error are /dev/null. */
async function run(
  plan: Partial<SpawnPlan> & Pick<SpawnPlan, 'argv'>,
): Promise<{ status: number; stdout: string }> {
  const [from, to] = pipe();
  const descriptors = [undefined, to, undefined];
  const pid = started({ file: plan.argv[0]!, env: {}, descriptors, ...plan });
  close(to);
  const stdout = readAll(from);
  return { status: await statusOf(pid), stdout };
}
const sh = (script: string, ...args: string[]) => [SH, '-c', script, 'sh', ...args];

describe('arguments and environment', () => {
  const odd = ['', ' ', 'a b', '"\'\\$`*', 'line\nline', '\t', 'é😀', '-c', '=', 'x'.repeat(100_000)];
  it('argv: every character but NUL arrives, and empty arguments', async () => {
    const { stdout } = await run({ argv: sh('for word; do printf "%s\\0" "$word"; done', ...odd) });
    expect(stdout.split('\0').slice(0, -1)).toEqual(odd);
  });

  it('argv[0] need not be the file', async () => {
    const argv = ['-name', '-c', 'echo "$0"'];
    expect((await run({ file: SH, argv })).stdout).toBe('-name\n');
  });

  it('the environment is exactly the given one; undefined: absent', async () => {
    const env = { A: '1', EMPTY: '', ODD: odd.join('|').slice(0, 1000), UMLÄUT: 'ö', NONE: undefined };
    const { stdout } = await run({ argv: ['/usr/bin/env', '-0'], env });
    const { NONE: _, ...given } = env;
    expect(stdout.split('\0').slice(0, -1).sort()).toEqual(
      Object.entries(given)
        .map(([name, value]) => `${name}=${value}`)
        .sort(),
    );
    expect((await run({ argv: ['/usr/bin/env'] })).stdout).toBe('');
  });

  it('NUL in any text: EINVAL, nothing starts', () => {
    const plan = { file: '/bin/true', argv: ['true'], env: {}, descriptors: [] };
    for (const wrong of [
      { file: '/bin/true\0' },
      { argv: ['true', 'a\0b'] },
      { env: { A: '\0' } },
      { env: { 'A\0': '' } },
      { cwd: '/\0' },
    ])
      expect(started({ ...plan, ...wrong })).toBe(-Errno.EINVAL);
  });

  it('more arguments than the kernel takes: E2BIG', () => {
    const argv = ['true', ...Array.from({ length: 100 }, () => 'x'.repeat(130_000))];
    expect(started({ file: '/bin/true', argv, env: {}, descriptors: [] })).toBe(-Errno.E2BIG);
  });
});

describe('the working directory', () => {
  it('given; absent: ours; missing: ENOENT', async () => {
    mkdirSync(`${dir}/né w`);
    expect((await run({ argv: sh('pwd'), cwd: `${dir}/né w` })).stdout).toBe(`${dir}/né w\n`);
    expect((await run({ argv: sh('pwd -P') })).stdout).toBe(`${process.cwd()}\n`);
    const missing = { file: SH, argv: ['sh'], env: {}, descriptors: [], cwd: `${dir}/none` };
    expect(started(missing)).toBe(-Errno.ENOENT);
  });
});

describe('descriptors', () => {
  it.each([
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
  ])('permutation %i %i %i of our descriptors: each arrives at its number', async (...order) => {
    const names = ['one', 'two', 'three'];
    const files = names.map((name) => {
      writeFileSync(`${dir}/${name}`, name);
      return openSync(`${dir}/${name}`, 'r');
    });
    const [from, to] = pipe();
    const descriptors: (number | undefined)[] = [undefined, to, undefined];
    for (const [at, i] of order.entries()) descriptors[files[at]!] = files[i];
    const argv = sh('for fd; do cat /proc/self/fd/$fd; echo; done', ...files.map(String));
    const pid = started({
      file: SH,
      argv,
      env: { PATH: '/usr/bin:/bin' },
      descriptors: [...descriptors],
    });
    close(to);
    expect(readAll(from)).toBe(`${order.map((i) => names[i]).join('\n')}\n`);
    expect(await statusOf(pid)).toBe(0);
    for (const fd of files) close(fd);
  });

  it('one descriptor at three numbers; undefined: /dev/null up to 2, nothing beyond', async () => {
    const [from, to] = pipe();
    const argv = sh(
      'echo a; echo b >&2; echo c >&9; cat; for fd in 3 4; do [ -e /proc/self/fd/$fd ] && echo $fd; done',
    );
    const between = [undefined, undefined, undefined, undefined, undefined, undefined];
    const plan = { file: SH, argv, env: { PATH: '/usr/bin:/bin' } };
    const pid = started({ ...plan, descriptors: [undefined, to, to, ...between, to] });
    close(to);
    expect(readAll(from)).toBe('a\nb\nc\n');
    expect(await statusOf(pid)).toBe(1);
  });

  it('one that is not open: EBADF; nothing of ours stays open', () => {
    const before = readdirSync('/proc/self/fd').length;
    const plan = { file: '/bin/true', argv: ['true'], env: {} };
    expect(started({ ...plan, descriptors: [0, 1, 987_654] })).toBe(-Errno.EBADF);
    expect(readdirSync('/proc/self/fd').length).toBe(before);
  });

  it('our own that are close-on-exec, and the copies made for the start: the child has none of them', async () => {
    const [from, to] = pipe();
    const { stdout } = await run({ argv: ['/bin/ls', '/proc/self/fd'] });
    // 3 is the directory that ls reads. What the test runner inherited without close-on-exec comes behind.
    const numbers = stdout.trim().split('\n').map(Number);
    expect(numbers.slice(0, 3)).toEqual([0, 1, 2]);
    expect(numbers).not.toContain(from);
    expect(numbers).not.toContain(to);
    close(from);
    close(to);
  });
});

describe('errors of the program', () => {
  const start = (file: string) => started({ file, argv: [file], env: {}, descriptors: [] });

  it('missing: ENOENT; a directory, or not executable: EACCES; not a program: ENOEXEC; a file as directory: ENOTDIR', () => {
    writeFileSync(`${dir}/plain`, 'text');
    writeFileSync(`${dir}/script`, 'echo x\n');
    chmodSync(`${dir}/script`, 0o755);
    expect([`${dir}/missing`, '', dir, `${dir}/plain`, `${dir}/script`, `${dir}/plain/x`].map(start)).toEqual(
      [-Errno.ENOENT, -Errno.ENOENT, -Errno.EACCES, -Errno.EACCES, -Errno.ENOEXEC, -Errno.ENOTDIR],
    );
  });

  it('100 failures: no child, no zombie, no descriptor is left', () => {
    const before = readdirSync('/proc/self/fd').length;
    for (let i = 0; i < 100; i++) start(`${dir}/missing`);
    expect(readdirSync('/proc/self/fd').length).toBe(before);
    expect(readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8')).not.toMatch(/\d+ \d+ \d+/);
  });
});

describe('the end of the child', () => {
  it.each([0, 1, 2, 126, 127, 128, 255])('exit %i: this status', async (code) => {
    expect((await run({ argv: sh(`exit ${code}`) })).status).toBe(code);
  });

  it.each([
    ['TERM', 15],
    ['KILL', 9],
    ['ABRT', 6],
    ['SEGV', 11],
    ['RTMAX', 64],
  ])('SIG%s: 128 + %i', async (name, number) => {
    expect((await run({ argv: sh(`ulimit -c 0; kill -${name} $$`) })).status).toBe(128 + number);
  });

  it('all signals have their default action and none is blocked, whatever we ignore', async () => {
    process.on('SIGUSR2', () => {});
    const { stdout } = await run({ argv: ['/bin/grep', '-E', 'Sig(Ign|Blk)', '/proc/self/status'] });
    process.removeAllListeners('SIGUSR2');
    expect(stdout.match(/\t0{16}$/gm)).toHaveLength(2);
  });

  it('still runs: undefined; waited for before: ECHILD; not our child: ECHILD', async () => {
    const pid = started({ file: SH, argv: sh('sleep 100'), env: {}, descriptors: [] });
    expect(exitStatus(pid)).toBeUndefined();
    process.kill(pid, 'SIGTERM');
    expect(await statusOf(pid)).toBe(143);
    expect([exitStatus(pid), exitStatus(1)]).toEqual([-Errno.ECHILD, -Errno.ECHILD]);
  });
});

describe('executeProgram()', () => {
  const fixture = new URL('./fixtures/execute.ts', import.meta.url).pathname;
  const execute = (...job: string[]) =>
    spawnSync(process.execPath, [fixture, ...job], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    });

  it('the program takes the place of ours: its arguments, environment, process id and descriptors', () => {
    const { status, stdout, pid } = execute(
      '/bin/sh',
      'sh',
      '-c',
      'echo $$ "$1" "$A"; echo fd 3 >&3',
      'x',
      'é\n',
    );
    expect({ status, stdout }).toEqual({ status: 0, stdout: `${pid} é\n ä b\n` });
  });

  it('it cannot be executed: -errno, and the caller goes on', () => {
    expect(execute('/no/such/program', 'x').stdout).toBe(`${-Errno.ENOENT}\n`);
    expect(execute('/', 'x').stdout).toBe(`${-Errno.EACCES}\n`);
    expect(execute('/bin/sh', 'sh', 'NUL').stdout).toBe(`${-Errno.EINVAL}\n`);
  });
});

interface Ran {
  readonly status: number;
  readonly output: string;
  readonly refused: boolean;
}

describeNeeding('spawnProcess', namespaceNeeds, () => {
  it('signals, descriptors, directory, namespaces, failures: as the plan says', () => {
    const report = runInNamespaces<Record<string, Ran> & { ourMounts: string; passedFd: number }>('spawn.ts');
    const { isolated, ourMounts, passed, passedFd, ...others } = report;
    const ran = (output: string, status = 0): Ran => ({ status, output, refused: false });
    expect(others).toEqual({
      status: ran('', 7),
      signal: ran('', 143),
      environment: ran('x\ny\n/proc'),
      // SigBlk comes first in /proc/PID/status. Signal n is bit n - 1.
      defaults: ran('SigBlk: 0000000000000000\nSigIgn: 0000000000000000'),
      ignores: ran('SigBlk: 0000000000000000\nSigIgn: 0000000000004003'),
      nameTooLong: { ...ran('on'), refused: true },
      missing: { call: 'execve', errno: Errno.ENOENT },
      noDirectory: { call: 'chdir', errno: Errno.ENOENT },
      namespaceAtAssignedNumber: ran('inside'),
      noNamespace: { call: 'setns', errno: Errno.EINVAL },
      // Without a PID namespace of its own that of the host would be shown: it is not ours.
      noProc: { call: 'mount', errno: Errno.EPERM },
    });
    expect(passed!.output.split(' ')).toContain(String(passedFd));
    const [pid, init, name, mounts] = isolated!.output.split('\n');
    expect([pid, init, name]).toEqual(['1', 'sh', 'elsewhere']);
    expect(mounts).not.toBe(ourMounts);
  });
});
