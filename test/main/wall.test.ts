/** The wall, raised in processes of their own: what works behind it and what ends them. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { wallFilter } from '../../src/main/wall.ts';
import { filterProgram } from '../../src/sys/seccomp.ts';

const fixture = fileURLToPath(new URL('./fixtures/behind-wall.ts', import.meta.url));
let directory = '';

beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/wall-`);
  writeFileSync(`${directory}/wanted`, 'here');
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function behind(what: string): { readonly said: unknown; readonly signal: string | null } {
  const args = ['-Ur', '-m', '--propagation', 'slave', '--', process.execPath, fixture, what, directory];
  const r = spawnSync('unshare', args, {
    encoding: 'utf8',
    env: { ...process.env, BUCATINI_OWN_MOUNTS: '1', NODE_OPTIONS: '' },
  });
  if (r.status !== 0 && r.signal === null) throw new Error(`${what}: status ${r.status}: ${r.stderr}`);
  return { said: r.stdout === '' ? undefined : JSON.parse(r.stdout), signal: r.signal };
}

describe('behind the wall', () => {
  test('there are no files, and none can be made', () => {
    expect(behind('files')).toEqual({ said: ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT'], signal: null });
  });

  test('a held directory gives its files, and nothing above it', () => {
    expect(behind('held')).toEqual({ said: [true, -2, -2], signal: null });
  });

  test('errors can be told and memory grows', () => {
    expect(behind('stack')).toEqual({ said: true, signal: null });
  });

  test.each([
    ...['mount', 'unshare', 'setns', 'pidfd', 'netlink', 'raw', 'unix', 'exec', 'group', 'ptrace', 'limit'],
    ...['ringSetup', 'ringRegister', 'ringElsewhere', 'ringFlags'],
  ])('%s ends the process', (what) => {
    expect(behind(what)).toEqual({ said: undefined, signal: 'SIGSYS' });
  });
});

test('every jump of the filter lands inside it, and every way ends in a verdict', () => {
  const program = filterProgram(
    wallFilter({ readable: [40, 41], listable: [43], removable: [42], signals: true, watchesProcess: false }),
  );
  expect(program.length).toBeLessThan(4096); // BPF_MAXINSNS
  program.forEach(([code, jt, jf, k], i) => {
    if (code === 0x06) return; // a verdict
    const next = code === 0x05 ? [i + 1 + k] : (code & 7) === 5 ? [i + 1 + jt, i + 1 + jf] : [i + 1];
    for (const at of next) expect(at).toBeLessThan(program.length);
    expect(Math.max(jt, jf)).toBeLessThan(256);
  });
});
