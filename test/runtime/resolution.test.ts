// @vitest: beside
/**
 * Each runtime gets its own modules of src/runtime: in the test process, and in threads and processes of it.
 */
import { spawnSync } from 'node:child_process';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { runtimeText } from '#runtime/program';
import { ON_BUN } from '../support/runtime.ts';

const NAME = ON_BUN ? /^Bun \d+\.\d+\.\d+$/ : /^Node \d+\.\d+\.\d+$/;
const program = new URL('./resolution.worker.ts', import.meta.url);

it('the test process: its modules are those of its runtime', async () => {
  expect(runtimeText()).toMatch(NAME);
  const { RUNTIME_CALLS } = await import('#runtime/system-calls');
  expect(Object.keys(RUNTIME_CALLS).some((who) => who.includes('JavaScriptCore'))).toBe(ON_BUN);
});

it('a thread: its modules are those of its runtime', async () => {
  const worker = new Worker(program);
  const text = await new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  expect(text).toMatch(NAME);
});

it('a process: its modules are those of its runtime', () => {
  const { stdout, stderr } = spawnSync(process.execPath, [program.pathname], { encoding: 'utf8' });
  expect({ stdout: stdout.trim(), stderr }).toEqual({ stdout: expect.stringMatching(NAME), stderr: '' });
});
