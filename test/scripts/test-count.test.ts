import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';

const script = fileURLToPath(new URL('../../scripts/test-count.ts', import.meta.url));
const dir = mkdtempSync(join(tmpdir(), 'count-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function count(report: unknown, status = 0) {
  const path = join(dir, 'report.json');
  writeFileSync(path, typeof report === 'string' ? report : JSON.stringify(report));
  const done = spawnSync(process.execPath, [script, path, `${status}`], { encoding: 'utf8' });
  return { lastLine: done.stdout.trimEnd().split('\n').at(-1), status: done.status };
}

const report = (
  passed: number,
  failed: number,
  pending: number,
  todo: number,
  testResults: unknown[] = [],
) => ({
  numPassedTests: passed,
  numFailedTests: failed,
  numPendingTests: pending,
  numTodoTests: todo,
  testResults,
});

it('all passed: todo and pending count as skipped', () => {
  expect(count(report(7, 0, 2, 1))).toEqual({ lastLine: '7 passed, 0 failed, 3 skipped', status: 0 });
});

it('a failed test: counted, status 1', () => {
  const file = { name: 'a.test.ts', status: 'failed', assertionResults: [{ status: 'failed' }] };
  expect(count(report(7, 1, 0, 0, [file]), 1)).toEqual({
    lastLine: '7 passed, 1 failed, 0 skipped',
    status: 1,
  });
});

it('a file that did not load: one failure', () => {
  const file = { name: 'a.test.ts', status: 'failed', assertionResults: [] };
  expect(count(report(7, 0, 0, 0, [file]), 1)).toEqual({
    lastLine: '7 passed, 1 failed, 0 skipped',
    status: 1,
  });
});

it('runner failed with no failed test, or left no report: still a failure', () => {
  expect(count(report(7, 0, 0, 0), 1)).toEqual({ lastLine: '7 passed, 1 failed, 0 skipped', status: 1 });
  expect(count('')).toEqual({ lastLine: '0 passed, 1 failed, 0 skipped', status: 1 });
});
