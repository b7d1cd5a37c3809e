/**
 * Command lines of the small tools: --help prints the usage, an error is one line, never a stack trace.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const run = (file: string, ...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--no-warnings', fileURLToPath(new URL(`../../${file}`, import.meta.url)), ...args],
    { encoding: 'utf8' },
  );
  return { status, stdout, stderr };
};

describe.each([
  ['bench/run.ts', 'npm run bench'],
  ['perf/render.ts', 'npm run report'],
  ['perf/start.ts', 'scripts/node.sh perf/start.ts'],
  ['test/arm64/main.ts', 'npm run test:arm64'],
])('%s', (file, command) => {
  it.each(['--help', '-h'])('%s', (flag) => {
    const { status, stdout, stderr } = run(file, flag);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toContain(`usage: ${command}`);
  });
});

it.each([
  ['bench/run.ts', ['--nosuch'], 2],
  ['bench/run.ts', ['nosuch'], 2],
  ['bench/run.ts', ['--rounds', 'many'], 2],
  ['bench/run.ts', ['--seconds', '0'], 2],
  ['perf/render.ts', ['--nosuch'], 2],
  ['perf/render.ts', ['--comparison', 'x.json'], 2],
  ['perf/render.ts', ['/nonexistent/x.json'], 1],
  ['perf/render.ts', [fileURLToPath(import.meta.url)], 1],
  ['perf/start.ts', ['--nosuch'], 2],
  ['test/arm64/main.ts', ['--nosuch'], 2],
] as const)('%s %j: one line', (file, args, expected) => {
  const { status, stdout, stderr } = run(file, ...args);
  expect({ status, stdout }).toEqual({ status: expected, stdout: '' });
  expect(stderr).toMatch(/^(bench|report|start|test:arm64): [^\n]+\n$/);
});
