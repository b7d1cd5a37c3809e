// @vitest: beside
/** Names and files watched through one inotify instance. */
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FILE_CHANGES, FileWatch, NAME_CHANGES } from '../../src/main/host/file-watch.ts';
import { DescriptorWaits } from '../support/descriptor-waits.ts';
import { eventually, sleepMs } from '../support/process.ts';

const WITHIN_MS = 3000;
const SETTLED_MS = 50;

describe('FileWatch', () => {
  let dir = '';
  let waits: DescriptorWaits;
  let files: FileWatch;
  let seen: string[];
  beforeEach(() => {
    dir = mkdtempSync(`${tmpdir()}/file-watch-`);
    waits = new DescriptorWaits();
    files = new FileWatch(waits);
    seen = [];
  });
  afterEach(() => {
    waits.stop();
    files.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const watch = (path: string, name: string, changes: number, says = name): (() => void) | undefined =>
    files.watch(path, name, changes, () => seen.push(says));
  const sees = (what: string): Promise<unknown> =>
    eventually(`${what}; seen: ${seen}`, WITHIN_MS, () => seen.includes(what));
  const instances = (): number =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:inotify';
      } catch {
        return false; // the descriptor of this listing
      }
    }).length;

  it('nothing is watched: no inotify instance; much is watched: one', () => {
    const before = instances();
    const other = new FileWatch(waits);
    expect(instances()).toBe(before);
    mkdirSync(`${dir}/sub`);
    for (const path of [dir, `${dir}/sub`, '/']) other.watch(path, 'x', NAME_CHANGES, () => {});
    expect(instances()).toBe(before + 1);
    other.close();
    expect(instances()).toBe(before);
  });

  it('a name appears, disappears, is replaced: reported each time; other names are not', async () => {
    watch(dir, 'a', NAME_CHANGES);
    const steps = [
      () => mkdirSync(`${dir}/a`),
      () => rmdirSync(`${dir}/a`),
      () => writeFileSync(`${dir}/b`, ''),
      () => renameSync(`${dir}/b`, `${dir}/a`),
      () => renameSync(`${dir}/a`, `${dir}/c`),
    ];
    const counts: number[] = [];
    for (const step of steps) {
      step();
      await sleepMs(SETTLED_MS);
      counts.push(seen.length);
    }
    expect(counts).toEqual([1, 2, 2, 3, 4]);
  });

  it('a file is written: reported with FILE_CHANGES, not with NAME_CHANGES', async () => {
    mkdirSync(`${dir}/names`);
    for (const file of ['a', 'names/b']) writeFileSync(`${dir}/${file}`, '');
    watch(dir, 'a', FILE_CHANGES);
    watch(`${dir}/names`, 'b', NAME_CHANGES);
    for (const file of ['a', 'names/b']) writeFileSync(`${dir}/${file}`, 'x');
    await sees('a');
    await sleepMs(SETTLED_MS);
    expect(seen).not.toContain('b');
  });

  it('a file itself, whatever its name: reported', async () => {
    writeFileSync(`${dir}/a`, '');
    watch(`${dir}/a`, '', FILE_CHANGES, 'file');
    writeFileSync(`${dir}/a`, 'x');
    await sees('file');
  });

  it('two watch one directory: each gets its own name; one ends, the other goes on', async () => {
    const endA = watch(dir, 'a', NAME_CHANGES);
    watch(dir, 'b', NAME_CHANGES);
    mkdirSync(`${dir}/b`);
    await sees('b');
    expect(seen).toEqual(['b']);
    endA?.();
    mkdirSync(`${dir}/a`);
    rmdirSync(`${dir}/b`);
    await eventually(`b twice; seen: ${seen}`, WITHIN_MS, () => seen.length === 2);
    expect(seen).toEqual(['b', 'b']);
  });

  it('the directory is removed: reported, then nothing more of it', async () => {
    mkdirSync(`${dir}/sub`);
    watch(`${dir}/sub`, 'a', NAME_CHANGES);
    rmdirSync(`${dir}/sub`);
    await sees('a');
    await sleepMs(SETTLED_MS);
    const before = seen.length;
    mkdirSync(`${dir}/sub/a`, { recursive: true });
    await sleepMs(SETTLED_MS);
    expect(seen.length).toBe(before);
  });

  it('the caller ends its watch when it is called: nothing more', async () => {
    const end = files.watch(dir, 'a', NAME_CHANGES, () => {
      seen.push('a');
      end?.();
    });
    mkdirSync(`${dir}/a`);
    rmdirSync(`${dir}/a`);
    await sees('a');
    await sleepMs(SETTLED_MS);
    expect(seen).toEqual(['a']);
  });

  it('many events of other names: few wake-ups, and the last change is reported', async () => {
    watch(dir, 'wanted', NAME_CHANGES);
    const until = performance.now() + 200;
    for (let i = 0; performance.now() < until; i++) {
      mkdirSync(`${dir}/${i}`);
      await sleepMs(0);
    }
    mkdirSync(`${dir}/wanted`);
    await sees('wanted');
    expect(waits.reports).toBeLessThan(40);
  });

  const queueLength = Number(readFileSync('/proc/sys/fs/inotify/max_queued_events', 'utf8'));
  it.skipIf(queueLength > 100_000)(
    "the kernel's queue overflows: all look",
    async () => {
      writeFileSync(`${dir}/a`, '');
      mkdirSync(`${dir}/busy`);
      watch(`${dir}/busy`, 'none', NAME_CHANGES, 'busy');
      watch(dir, 'a', NAME_CHANGES);
      for (let i = 0; i < queueLength; i += 2) {
        mkdirSync(`${dir}/busy/x`);
        rmdirSync(`${dir}/busy/x`);
      }
      rmSync(`${dir}/a`); // its event is lost
      await sees('a');
      await sees('busy');
    },
    120_000,
  );

  it('a path that does not exist: undefined', () => {
    expect(watch(`${dir}/none`, 'a', NAME_CHANGES)).toBeUndefined();
  });

  it('stopped: no more calls', async () => {
    watch(dir, 'a', NAME_CHANGES);
    files.stop();
    mkdirSync(`${dir}/a`);
    await sleepMs(SETTLED_MS);
    expect(seen).toEqual([]);
  });

  it('closed: watches nothing any more', () => {
    files.close();
    expect(watch(dir, 'a', NAME_CHANGES)).toBeUndefined();
  });
});
