// @vitest: beside
/**
 * The process ends while packet threads sleep in the kernel. Node joins its threads at exit, so they must be
 * woken.
 */
import { expect, it } from 'vitest';
import { runToEnd } from '../support/process.ts';

const CHILD = new URL('./engine-exit.child.ts', import.meta.url).pathname;
/** A tenth of the longest sleep of a packet thread (MAX_WAIT_MS). */
const END_MS = 1000;

it.each([
  ['fused', 'throw', 1],
  ['fused', 'exit', 7],
  ['pipeline=1', 'throw', 1],
  ['pipeline=1', 'exit', 7],
  ['lanes=2', 'throw', 1],
  ['lanes=2', 'exit', 7],
])('%s, %s: the process exits without delay', { timeout: 30_000 }, async (plan, how, status) => {
  const run = await runToEnd([process.execPath, CHILD, plan, how]);
  const ms = Date.now() - Number(run.stdout);
  expect(run.status, run.stderr).toBe(status);
  expect(ms, 'ms until the process had ended').toBeLessThan(END_MS);
});
