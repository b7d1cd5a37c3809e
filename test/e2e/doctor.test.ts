/** `bucatini doctor` from dist/: it starts a program of its own, which the build must contain. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { threadsText } from '../../src/main/bucatini/doctor.ts';
import { autoThreads } from '../../src/workers/placement.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const BUN_EXECUTABLE = `${root}dist/bun/bucatini`;

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

  it('the runtime is the chosen one, else Bun where the build made an executable', () => {
    const bun = chosen === undefined ? existsSync(BUN_EXECUTABLE) : chosen === 'bun';
    expect(stdout).toMatch(bun ? /^ok {4}runtime +Bun [0-9.]+ /m : /^ok {4}runtime +Node [0-9.]+ /m);
  });

  it.runIf(process.env.CI === 'true')('the build made an executable, or Bun does not run here', () => {
    const made = existsSync(BUN_EXECUTABLE);
    expect(made ? '' : readFileSync(`${root}dist/bun/why.txt`, 'utf8')).toMatch(/^$| does not run: /);
  });
});
