/** `bucatini doctor` from dist/: it starts a program of its own, which the build must contain. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const program = fileURLToPath(new URL('../../bin/bucatini', import.meta.url));

describe('the built doctor', () => {
  it('the TAP probe passes, as the build contains its file', { timeout: 60_000 }, () => {
    const { stdout } = spawnSync(program, ['doctor'], { encoding: 'utf8' });
    expect(stdout).toMatch(/^ok {4}TAP +created one in a new namespace$/m);
  });
});
