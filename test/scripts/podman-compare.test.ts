/** scripts/podman-compare.sh: its command line. What it measures needs a user with rootless Podman. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const script = fileURLToPath(new URL('../../scripts/podman-compare.sh', import.meta.url));
const compare = (...args: string[]) => spawnSync('bash', [script, ...args], { encoding: 'utf8' });

it('--help lists each option that the script parses', () => {
  const { stdout, status } = compare('--help');
  expect(status).toBe(0);
  for (const name of ['rounds', 'size', 'containers', 'image', 'bucatini', 'stock', 'network'])
    expect(stdout).toMatch(new RegExp(`^ +--${name} `, 'm'));
});

it.each([
  [['--rounds', '0'], "--rounds '0': not a number from 1 to 100"],
  [['--size=x'], "--size 'x': not a number from 16 to 65536"],
  [['--containers'], '--containers needs a value'],
  [['--fast'], "'--fast': unknown option; --help lists them"],
])('%s: one line, status 1', (args, message) => {
  const { stderr, status } = compare(...args);
  expect(stderr).toBe(`podman-compare: ${message}\n`);
  expect(status).toBe(1);
});
