// @vitest: beside
/** The end of a namespace, seen by its name or by its process. Ordinary files stand for those of nsfs. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FileWatch } from '../../src/main/host/file-watch.ts';
import { holdNamespace, NamespaceWatch } from '../../src/main/host/namespace-watch.ts';
import { DescriptorWaits } from '../support/descriptor-waits.ts';
import { eventually, sleepMs } from '../support/process.ts';

const WITHIN_MS = 3000;
const SETTLED_MS = 50;

describe('NamespaceWatch', () => {
  let dir = '';
  let waits: DescriptorWaits;
  let files: FileWatch;
  let watch: NamespaceWatch | undefined;
  let gone: number;
  beforeEach(() => {
    dir = mkdtempSync(`${tmpdir()}/namespace-watch-`);
    writeFileSync(`${dir}/net`, '');
    waits = new DescriptorWaits();
    files = new FileWatch(waits);
    gone = 0;
  });
  afterEach(() => {
    watch?.stop();
    waits.stop();
    files.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const start = (path = `${dir}/net`, pid?: number): void => {
    const held = holdNamespace({ path, ...(pid !== undefined && { pid }) });
    watch = new NamespaceWatch(held, waits, files, () => gone++);
  };
  const isGone = (): Promise<unknown> => eventually('it is gone', WITHIN_MS, () => gone === 1);

  it('the file is unlinked: gone, once', async () => {
    start();
    expect(watch?.polls).toBe(false);
    rmSync(`${dir}/net`);
    await isGone();
    writeFileSync(`${dir}/net`, '');
    rmSync(`${dir}/net`);
    await sleepMs(SETTLED_MS);
    expect(gone).toBe(1);
  });

  it('the file is replaced by another one: gone', async () => {
    writeFileSync(`${dir}/other`, '');
    start();
    renameSync(`${dir}/other`, `${dir}/net`);
    await isGone();
  });

  it('the directory of the file is removed: gone', async () => {
    mkdirSync(`${dir}/sub`);
    writeFileSync(`${dir}/sub/net`, '');
    start(`${dir}/sub/net`);
    rmSync(`${dir}/sub`, { recursive: true });
    await isGone();
  });

  it('other files come and go: it stays', async () => {
    start();
    writeFileSync(`${dir}/other`, '');
    rmSync(`${dir}/other`);
    await sleepMs(SETTLED_MS);
    expect(gone).toBe(0);
  });

  it('the file is unlinked before the watch starts: gone at once', () => {
    const held = holdNamespace({ path: `${dir}/net` });
    rmSync(`${dir}/net`);
    watch = new NamespaceWatch(held, waits, files, () => gone++);
    expect(gone).toBe(1);
  });

  it('no inotify instance is left: a timer looks', async () => {
    files.close();
    start();
    expect(watch?.polls).toBe(true);
    rmSync(`${dir}/net`);
    await isGone();
  });

  it('a process: gone when it ends', async () => {
    const child = spawn('sleep', ['60'], { stdio: 'ignore' });
    await once(child, 'spawn');
    start(`/proc/${child.pid}/ns/net`, child.pid);
    expect(watch?.polls).toBe(false);
    await sleepMs(SETTLED_MS);
    expect(gone).toBe(0);
    child.kill('SIGKILL');
    await isGone();
  });

  it.each([true, false])(
    'the process ends before the watch starts (named by number: %j): gone',
    async (byNumber) => {
      const child = spawn('sleep', ['60'], { stdio: 'ignore' });
      await once(child, 'spawn');
      const held = holdNamespace({
        path: `/proc/${child.pid}/ns/net`,
        ...(byNumber && { pid: child.pid! }),
      });
      child.kill('SIGKILL');
      await once(child, 'exit');
      watch = new NamespaceWatch(held, waits, files, () => gone++);
      expect(held.identity).toMatch(/^[0-9]+:[0-9]+$/);
      await isGone();
    },
  );
});
