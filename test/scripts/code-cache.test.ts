/** A start uses the compile cache in dist/cache that scripts/build.ts wrote. Runs from dist/. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { expect, it } from 'vitest';
import { repoRoot } from '../main/source-tree.ts';
import { describeNeeding, findTool, requireNamespaces } from '../support/require.ts';

const cache = `${repoRoot}/dist/cache`;

describeNeeding('code cache', [requireNamespaces], () => {
  it('root of a user namespace, as the launcher is: the entry and its options are not compiled again', () => {
    expect(existsSync(cache), `${cache} is missing; run npm run build`).toBe(true);
    const node = [process.execPath, `${repoRoot}/dist/main/bucatini.js`, 'run', '--version'];
    const { stdout, stderr } = spawnSync(findTool('unshare')!, ['-Ur', '--', ...node], {
      encoding: 'utf8',
      env: { NODE_DEBUG_NATIVE: 'COMPILE_CACHE' },
      timeout: 20_000,
    });
    const said = stdout + stderr;
    for (const file of ['start.js', 'cli-texts.js']) {
      const about = said.split('\n').filter((line) => line.includes(`/dist/main/${file}`));
      expect(about.join('\n'), file).toMatch(/accepted/);
    }
  });

  it('files of the build: readable by any user', () => {
    const [dir] = readdirSync(cache).filter((name) => name.endsWith('-0'));
    const modes = readdirSync(`${cache}/${dir}`).map(
      (file) => statSync(`${cache}/${dir}/${file}`).mode & 0o777,
    );
    expect(modes.filter((mode) => mode === 0o644).length).toBeGreaterThan(4);
  });
});
