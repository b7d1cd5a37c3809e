// @vitest: beside
/** The package as other projects use it: what `npm pack` packs, its types, its entry, the ends of its callers, and the examples. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bunExecutable } from '../../scripts/bun.ts';
import { headOf, PAGE, typesDigest } from '../../scripts/library-docs.ts';
import { eventually, isAlive, killTree, runToEnd, start } from '../support/process.ts';
import { describeNeeding, tapNeeds } from '../support/require.ts';
import { gone, socketOf } from './leftovers.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const LIMIT_MS = 60_000;

describeNeeding('the package', tapNeeds, () => {
  let project: string;
  beforeAll(() => {
    project = mkdtempSync(`${tmpdir()}/bucatini-consumer-`);
    cpSync(`${ROOT}test/library/consumer`, project, { recursive: true });
    cpSync(`${ROOT}examples`, `${project}/examples`, { recursive: true });
    const modules = `${project}/node_modules`;
    // A copy: through a link, the compiler would find the modules of this repository.
    mkdirSync(`${modules}/@types`, { recursive: true });
    cpSync(`${ROOT}package.json`, `${modules}/bucatini/package.json`);
    cpSync(`${ROOT}bin`, `${modules}/bucatini/bin`, { recursive: true });
    cpSync(`${ROOT}dist/library`, `${modules}/bucatini/dist/library`, { recursive: true });
    for (const name of ['main', 'bun', 'cache'])
      if (existsSync(`${ROOT}dist/${name}`))
        symlinkSync(`${ROOT}dist/${name}`, `${modules}/bucatini/dist/${name}`);
    symlinkSync(`${ROOT}node_modules`, `${modules}/bucatini/node_modules`);
    symlinkSync(`${ROOT}node_modules/vitest`, `${modules}/vitest`);
    for (const name of ['@types/node', 'undici-types'])
      cpSync(`${ROOT}node_modules/${name}`, `${modules}/${name}`, { recursive: true });
  });
  afterAll(() => rmSync(project, { recursive: true, force: true }));

  it('exports one module, and has the files of it', () => {
    const { exports, files } = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8'));
    expect(Object.keys(exports)).toEqual(['.']);
    for (const file of Object.values(exports['.']) as string[]) {
      expect(existsSync(`${ROOT}${file}`)).toBe(true);
      expect(files).toContain(file.split('/')[1]);
    }
    expect(files.filter((name: string) => name.startsWith('!dist/library'))).toEqual([]);
  });

  it('another project compiles against its types, all of them checked, and runs', async () => {
    const tsc = `${ROOT}node_modules/typescript/bin/tsc`;
    const compiled = await runToEnd([process.execPath, tsc, '-p', project], { timeoutMs: LIMIT_MS });
    expect(compiled).toMatchObject({ status: 0, stdout: '', stderr: '' });
    const ran = await runToEnd([process.execPath, `${project}/out/consumer.js`]);
    expect(ran).toMatchObject({ status: 0, stdout: '0 0 udp 0 number\n', stderr: '' });
  });

  it('docs/library-api.md was written from these types', () => {
    expect(readFileSync(PAGE, 'utf8').split('\n')[0]).toBe(headOf(typesDigest()).trim());
  });

  it('require() loads it, where Node can load an ES module so', async () => {
    const script = "console.log(typeof require('bucatini').createNetwork)";
    expect(await runToEnd([process.execPath, '-e', script])).toMatchObject({ stdout: 'function\n' });
  });

  const bun = bunExecutable(ROOT);
  const runtimes = [['Node', process.execPath] as const, ...(bun ? [['Bun', bun] as const] : [])];
  describe.each(runtimes)('its caller on %s', (_name, runtime) => {
    it('that is killed leaves nothing', async () => {
      const owner = start([runtime, `${project}/owner.ts`]);
      try {
        const said = await eventually(
          'the network is there',
          10_000,
          () => owner.printed().stdout || undefined,
        );
        const pids: number[] = JSON.parse(said);
        expect(pids.every(isAlive)).toBe(true);
        process.kill(owner.pid, 'SIGKILL');
        await gone(pids);
        expect(socketOf(pids[0]!)).toBeUndefined();
      } finally {
        killTree(owner.pid);
      }
    });

    it('that forgets its network can end', async () => {
      const forgets = "import { createNetwork } from 'bucatini'; await createNetwork();";
      const file = `${project}/forgets.mjs`;
      writeFileSync(file, forgets);
      const ended = await runToEnd([runtime, file]);
      expect(ended).toMatchObject({ status: 0, stderr: '' });
    });
  });

  describe.concurrent('its examples', () => {
    const page = readFileSync(`${ROOT}docs/library.md`, 'utf8');
    const programs = [...page.matchAll(/^```js\n(.*?)^```$/gms)].map(([, text], i) => ({ i, text: text! }));
    it.each(programs)('program $i of docs/library.md', async ({ i, text }) => {
      const file = `${project}/program-${i}.mjs`;
      writeFileSync(file, text);
      const ran = await runToEnd([process.execPath, file], { timeoutMs: LIMIT_MS });
      expect(ran).toMatchObject({ status: 0, stderr: '' });
    });

    it('node:test', async () => {
      const ran = await runToEnd(
        [process.execPath, '--test', `${project}/examples/node-test/http.test.mjs`],
        {
          timeoutMs: LIMIT_MS,
        },
      );
      expect(ran.stdout).toMatch(/pass 2\n/);
      expect(ran.status).toBe(0);
    });

    it('Vitest', async () => {
      const vitest = `${ROOT}node_modules/vitest/vitest.mjs`;
      const ran = await runToEnd([process.execPath, vitest, 'run', '--root', `${project}/examples/vitest`], {
        timeoutMs: LIMIT_MS,
        env: { NO_COLOR: '1' },
      });
      expect(ran.stdout).toMatch(/Tests +2 passed/);
      expect(ran.status).toBe(0);
    });
  });
});
