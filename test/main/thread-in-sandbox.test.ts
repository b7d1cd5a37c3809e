/**
 * A thread that is started in the sandbox, by one that never returns to its event loop. On Node; with Bun only
 * programs in its executable can be started there.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ON_BUN } from '../support/runtime.ts';
import type { LateThread } from './fixtures/thread-in-sandbox.ts';

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

describe.skipIf(ON_BUN)('a thread that is started in the sandbox', () => {
  const directory = mkdtempSync(`${tmpdir()}/late-`);
  const program = `${directory}/late-thread.js`;
  afterAll(() => rmSync(directory, { recursive: true }));

  /** One file, as the build makes programs of threads. */
  beforeAll(async () => {
    const runtime = at('../../src/runtime/node/');
    const bundle = await rolldown({
      input: at('./fixtures/late-thread.ts'),
      external: /^(node:|koffi|@koromix)/,
      platform: 'node',
      resolve: {
        alias: Object.fromEntries(
          readdirSync(runtime).map((file) => [`#runtime/${file.replace(/\.ts$/, '')}`, `${runtime}${file}`]),
        ),
      },
    });
    await bundle.write({ file: program, format: 'esm' });
    await bundle.close();
  });

  it('has the native library, and the capabilities and the filter of its creator; no file is needed', () => {
    const args = ['-Ur', '-m', '--propagation', 'slave', '--', process.execPath];
    const run = spawnSync('unshare', [...args, at('./fixtures/thread-in-sandbox.ts'), program], {
      encoding: 'utf8',
      env: { ...process.env, BUCATINI_OWN_MOUNTS: '1', NODE_OPTIONS: '', NODE_COMPILE_CACHE: directory },
    });
    expect(run).toMatchObject({ stderr: '', signal: null, status: 0 });
    const threads: readonly LateThread[] = JSON.parse(run.stdout);
    expect(threads).toHaveLength(3);
    for (const thread of threads)
      expect(thread).toEqual({
        tid: expect.any(Number),
        permitted: '0',
        socketMade: true,
        status: [
          'Name: late',
          ...['CapInh', 'CapPrm', 'CapEff'].map((set) => `${set}: 0000000000000000`),
          'NoNewPrivs: 1',
          'Seccomp: 2',
        ],
      });
  });
});
