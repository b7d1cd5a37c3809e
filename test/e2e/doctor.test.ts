/** `bucatini doctor` from dist/: it starts a program of its own, which the build must contain. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { checkSwitching, threadsText, whyNotReached } from '../../src/main/bucatini/doctor.ts';
import { whyNoLock } from '../../src/main/switching/landlock-support.ts';
import { Errno } from '../../src/sys/constants.ts';
import { autoThreads } from '../../src/workers/placement.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const BUN_EXECUTABLE = `${root}dist/bun/bucatini`;

/** The process at the end of a chain of children. */
function lastDescendant(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ');
  const child = Number(children.at(-1));
  return child === 0 ? pid : lastDescendant(child);
}

describe('the built doctor', () => {
  const { BUCATINI_RUNTIME: chosen } = process.env;
  const { stdout } = spawnSync(`${root}bin/bucatini`, ['doctor'], { encoding: 'utf8', timeout: 60_000 });

  it('the TAP probe passes, as the build contains its file', () => {
    expect(stdout).toMatch(/^ok {4}TAP +created one in a new namespace$/m);
  });

  it('says how many packet threads an engine has', () => {
    expect(stdout).toMatch(/^ok {4}packet threads +one(, up to [2-8] under load)? \([0-9]+ processors?\)$/m);
    expect(threadsText(autoThreads(1), 1)).toBe('one (1 processor)');
    expect(threadsText(autoThreads(16), 16)).toBe('one, up to 8 under load (16 processors)');
  });

  it('says whether --switch-sockets is possible; else what the kernel lacks', () => {
    expect(stdout).toMatch(/^(ok {4}socket switching {2}works|note {2}socket switching {2}.*Landlock)/m);
    const { grade, text } = checkSwitching(whyNoLock(Errno.EINVAL));
    expect([grade, text]).toEqual([
      'note',
      'this kernel cannot deny TCP connects to a process (Landlock, Linux 6.7): --switch-sockets is refused, TCP takes the TAP',
    ]);
    expect(checkSwitching(whyNoLock(Errno.EOPNOTSUPP)).text).toMatch(/^Landlock is not enabled .*lsm=\): /);
    expect(['0', '3', undefined].map(whyNotReached).map((why) => why !== undefined)).toEqual([
      false,
      true,
      false,
    ]);
  });

  it.each([
    ['doctor'],
    ['bug-report'],
    ['switch-back'],
    ['doctor', '--help'],
    ['run', '--mtu', '1500', '--version'],
  ])('%s %s: output that cannot be written: one line, status 1', (...args) => {
    const { status, stderr } = spawnSync(
      '/bin/sh',
      ['-c', 'exec "$0" "$@" >/dev/full', `${root}bin/bucatini`, ...args],
      { encoding: 'utf8', timeout: 60_000, env: { ...process.env, HOME: root, XDG_CONFIG_HOME: '/nowhere' } },
    );
    expect(status).toBe(1);
    expect(stderr).toMatch(/^[^\n]*(no space left on device|I\/O error)\n$/);
  });

  it('--container: of a process that `bucatini run` connects; of one without a network; of nobody', async () => {
    const doctor = (name: string) =>
      spawnSync(`${root}bin/bucatini`, ['doctor', '--container', name], {
        encoding: 'utf8',
        timeout: 60_000,
      });
    const served = spawn(`${root}bin/bucatini`, ['run', '--', 'sh', '-c', 'echo; exec sleep 60']);
    try {
      await once(served.stdout, 'data');
      const found = doctor(`${lastDescendant(served.pid!)}`);
      expect(found.stdout).toMatch(/^ok {4}engine +bucatini's bucatini, process [0-9]+$/m);
      expect(found.stdout).toMatch(/^ok {4}interface /m);
      expect(found.stdout).toMatch(
        /^(ok|note|FAIL) +resolver +\S+ (answered|does not answer|cannot be reached)/m,
      );
    } finally {
      served.kill('SIGTERM');
    }
    const alone = spawn('unshare', ['-Urn', 'sh', '-c', 'echo; exec sleep 60']);
    try {
      await once(alone.stdout, 'data');
      const { stdout, status } = doctor(`${alone.pid}`);
      expect(stdout).toMatch(/^FAIL {2}engine .*start the container again/m);
      expect(stdout).toMatch(/^FAIL {2}interface /m);
      expect(status).toBe(1);
    } finally {
      alone.kill('SIGKILL');
    }
    expect(doctor(`${process.pid}`).stdout).toMatch(/^note {2}namespace .*host's own/m);
    expect(doctor('no-such-container-7').stdout).toMatch(/^FAIL {2}container +no-such-container-7: /);
    expect(doctor('-v').stderr).toBe(
      'bucatini: doctor: --container -v: is not a name; write for example --container web\n',
    );
  }, 60_000);

  it('the runtime is the chosen one, else Bun where the build made an executable', () => {
    const bun = chosen === undefined ? existsSync(BUN_EXECUTABLE) : chosen === 'bun';
    expect(stdout).toMatch(bun ? /^ok {4}runtime +Bun [0-9.]+ /m : /^ok {4}runtime +Node [0-9.]+ /m);
  });

  it.runIf(process.env.CI === 'true')('the build made an executable, or Bun does not run here', () => {
    const made = existsSync(BUN_EXECUTABLE);
    expect(made ? '' : readFileSync(`${root}dist/bun/why.txt`, 'utf8')).toMatch(/^$| does not run: /);
  });
});
