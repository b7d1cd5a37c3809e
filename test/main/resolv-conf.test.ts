// @vitest: beside
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FileWatch } from '../../src/main/host/file-watch.ts';
import { parseResolvConf, resolvConfText } from '../../src/main/host/resolv-conf.ts';
import { followResolvConf } from '../../src/main/host/resolver-watch.ts';
import { DescriptorWaits } from '../support/descriptor-waits.ts';
import { eventually, sleepMs } from '../support/process.ts';

describe('resolv.conf', () => {
  it('parsed as by C libraries', () => {
    const text = [
      '# nameserver 192.0.2.99',
      'nameserver 127.0.0.53',
      'nameserver\tfe80::1%eth0   # trailing',
      '  nameserver 2001:db8::53',
      'nameserver',
      'search first.example',
      'search second.example third.example',
      'options edns0 trust-ad',
      'options ndots:2',
      '; comment',
      'sortlist 192.0.2.0',
    ].join('\n');
    expect(parseResolvConf(text)).toEqual({
      nameservers: ['127.0.0.53', 'fe80::1%eth0', '2001:db8::53'],
      search: ['second.example', 'third.example'],
      options: ['edns0', 'trust-ad', 'ndots:2'],
    });
  });

  it('# and ;: begin a comment, on a line of their own and after words', () => {
    expect(parseResolvConf('search a.example ; b.example')).toMatchObject({ search: ['a.example'] });
    expect(parseResolvConf('search a.example # b.example')).toMatchObject({ search: ['a.example'] });
    expect(parseResolvConf(';nameserver 192.0.2.1\n #nameserver 192.0.2.2')).toMatchObject({
      nameservers: [],
    });
    expect(parseResolvConf('nameserver 192.0.2.1;x')).toMatchObject({ nameservers: ['192.0.2.1'] });
  });

  it('an empty file, a domain line, no final newline: parsed', () => {
    expect(parseResolvConf('')).toEqual({ nameservers: [], search: [], options: [] });
    expect(parseResolvConf('domain example.org')).toMatchObject({ search: ['example.org'] });
  });

  it('written for COMMAND: nameserver is our forwarder, other lines are kept', () => {
    const host = { nameservers: ['127.0.0.53'], search: ['a.example', 'b.example'], options: ['ndots:2'] };
    expect(resolvConfText(['169.254.1.1'], host)).toBe(
      'nameserver 169.254.1.1\nsearch a.example b.example\noptions ndots:2\n',
    );
    expect(resolvConfText(['169.254.1.1'], { nameservers: [], search: [], options: [] })).toBe(
      'nameserver 169.254.1.1\n',
    );
  });
});

describe('following resolv.conf', () => {
  let dir: string;
  let waits: DescriptorWaits;
  let files: FileWatch;
  let stop = (): void => {};
  const seen: string[] = [];
  beforeEach(() => {
    waits = new DescriptorWaits();
    files = new FileWatch(waits);
    dir = mkdtempSync(`${tmpdir()}/resolv-`);
    seen.length = 0;
  });
  afterEach(() => {
    stop();
    waits.stop();
    files.close();
    rmSync(dir, { recursive: true });
  });
  const follow = (): void => {
    stop = followResolvConf(files, ['192.0.2.1'], (list) => seen.push(list.join(' ')), `${dir}/resolv.conf`);
  };
  const sees = (list: string): Promise<unknown> =>
    eventually(`${list} after ${seen}`, 3000, () => seen.at(-1) === list);

  it('written in place, replaced by rename, removed and created: each change is noticed', async () => {
    writeFileSync(`${dir}/resolv.conf`, 'nameserver 192.0.2.1\n');
    follow();
    writeFileSync(`${dir}/resolv.conf`, 'nameserver 192.0.2.2\n');
    await sees('192.0.2.2');
    writeFileSync(`${dir}/new`, 'nameserver 192.0.2.3\nnameserver ::1\n');
    renameSync(`${dir}/new`, `${dir}/resolv.conf`);
    await sees('192.0.2.3 ::1');
    rmSync(`${dir}/resolv.conf`);
    writeFileSync(`${dir}/resolv.conf`, 'nameserver 192.0.2.4\n');
    await sees('192.0.2.4');
  });

  it('a symbolic link whose target changes: noticed', async () => {
    mkdirSync(`${dir}/run`);
    writeFileSync(`${dir}/run/stub.conf`, 'nameserver 192.0.2.1\n');
    symlinkSync('run/stub.conf', `${dir}/resolv.conf`);
    follow();
    writeFileSync(`${dir}/run/stub.new`, 'nameserver 192.0.2.2\n');
    renameSync(`${dir}/run/stub.new`, `${dir}/run/stub.conf`);
    await sees('192.0.2.2');
  });

  it('changed between the caller and the watch: noticed', async () => {
    writeFileSync(`${dir}/resolv.conf`, 'nameserver 192.0.2.2\n');
    follow();
    await sees('192.0.2.2');
  });

  it('no inotify instance is left: the resolvers of the start stay', async () => {
    writeFileSync(`${dir}/resolv.conf`, 'nameserver 192.0.2.1\n');
    files.close();
    follow();
    writeFileSync(`${dir}/resolv.conf`, 'nameserver 192.0.2.2\n');
    await sleepMs(300);
    expect(seen).toEqual([]);
  });

  it('a change of other lines: no notification', async () => {
    writeFileSync(`${dir}/resolv.conf`, 'nameserver 192.0.2.1\n');
    follow();
    writeFileSync(`${dir}/resolv.conf`, 'nameserver 192.0.2.1\nsearch example.org\n');
    await sleepMs(300);
    expect(seen).toEqual([]);
  });
});
