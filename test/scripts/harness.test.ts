// @vitest: beside
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { parseOptions, UsageError } from '../../perf/harness/options.ts';
import { removeEmpty, tryOutputs, writeOutput } from '../../perf/harness/outputs.ts';
import { parseResult } from '../../perf/harness/result.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const harness = fileURLToPath(new URL('../../scripts/iperf-harness.sh', import.meta.url));
const run = (...args: string[]) => spawnSync('sh', [harness, ...args], { encoding: 'utf8' });

describe('options', () => {
  const parse = (...argv: string[]) => parseOptions(argv);

  it('defaults: the whole matrix at both MTUs, with the stock tools', () => {
    expect(parse()).toMatchObject({
      mode: 'full',
      only: null,
      rounds: null,
      seconds: null,
      mtus: [65520, 1500],
      line: null,
      soakMinutes: null,
      showPlan: false,
    });
    expect(parse()?.peers.map(({ name }) => name)).toEqual(['direct', 'bucatini', 'pasta', 'slirp4netns']);
  });

  it('--quick and --full exclude each other', () => {
    expect(parse('--quick', '--seconds', '2')).toMatchObject({ mode: 'quick', seconds: 2 });
    expect(() => parse('--quick', '--full')).toThrow(UsageError);
  });

  it('--wan and --tcp-wmem: parsed field by field', () => {
    expect(parse('--wan', '10,500,8192,0.1')?.line).toEqual({
      delayMs: 10,
      rateMbit: 500,
      queueKib: 8192,
      lossPercent: 0.1,
    });
    expect(parse('--tcp-wmem', '4096,65536,1048576')?.tcpWmem).toBe('4096 65536 1048576');
  });

  it('--only: accepts the beginning of an id up to a dash, refuses unknown cells', () => {
    expect(parse('--only', 'tcp-1,udp-1400-500')?.only).toEqual(['tcp-1', 'udp-1400-500']);
    expect(() => parse('--only', 'tcp-2')).toThrow("no cell 'tcp-2'");
    expect(() => parse('--only', 'line-own')).toThrow("no cell 'line-own'");
    expect(parse('--only', 'line-own', '--wan', '5,100,1024,0')?.only).toEqual(['line-own']);
  });

  it('--peers: built-in names, thread plans, and other builds by file', () => {
    expect(
      parse('--peers', 'bucatini,bucatini-pipeline,pasta-new=/opt/p/pasta,slirp-new=/s,bucatini-old=/b')
        ?.peers,
    ).toEqual([
      { name: 'bucatini', kind: 'bucatini', path: null, threads: 'auto' },
      { name: 'bucatini-pipeline', kind: 'bucatini', path: null, threads: 'pipeline' },
      { name: 'pasta-new', kind: 'pasta', path: '/opt/p/pasta', threads: 'auto' },
      { name: 'slirp-new', kind: 'slirp4netns', path: '/s', threads: 'auto' },
      { name: 'bucatini-old', kind: 'bucatini', path: '/b', threads: 'auto' },
    ]);
  });

  it('--peers: those that switch sockets', () => {
    expect(parse('--peers', 'bucatini-switch,bypass4netns=/b,bucatini-switch-old=/o')?.peers).toEqual([
      { name: 'bucatini-switch', kind: 'bucatini', path: null, threads: 'auto', switchesSockets: true },
      { name: 'bypass4netns', kind: 'bypass4netns', path: '/b', threads: 'auto' },
      { name: 'bucatini-switch-old', kind: 'bucatini', path: '/o', threads: 'auto', switchesSockets: true },
    ]);
    expect(parse('--peers', 'bypass4netns')?.peers).toMatchObject([{ kind: 'bypass4netns', path: null }]);
  });

  it('--peers: bucatini with a number of lanes', () => {
    expect(parse('--peers', 'bucatini-lanes-4')?.peers).toEqual([
      { name: 'bucatini-lanes-4', kind: 'bucatini', path: null, threads: 'lanes=4' },
    ]);
    expect(() => parse('--peers', 'bucatini-lanes-9')).toThrow('want a whole number from 1 to 8');
    expect(() => parse('--peers', 'bucatini-lanes-0')).toThrow("no peer 'bucatini-lanes-0'");
  });

  it.each([
    [1, ['1']],
    [2, ['1', '2']],
    [6, ['1', '2', '4', '6']],
    [64, ['1', '2', '4', '8']],
  ])('--scaling on %i cores: direct and %j lanes, at the large MTU', (cores, lanes) => {
    const parsed = parseOptions(['--scaling'], cores);
    expect(parsed).toMatchObject({ mode: 'scaling', scalingCores: cores, mtus: [65520] });
    expect(parsed?.peers.map(({ name }) => name)).toEqual([
      'direct',
      ...lanes.map((count) => `bucatini-lanes-${count}`),
    ]);
  });

  it('--scaling: other peers, MTUs and some of its cells; not with another mode', () => {
    const parsed = parse(
      '--scaling',
      '--peers',
      'bucatini-pipeline',
      '--mtu',
      '1500',
      '--only',
      'scaling-16',
    );
    expect(parsed).toMatchObject({ mode: 'scaling', mtus: [1500], only: ['scaling-16'] });
    expect(parsed?.peers).toMatchObject([{ threads: 'pipeline' }]);
    expect(() => parse('--scaling', '--quick')).toThrow('--scaling and --quick: one of the two');
    expect(() => parse('--scaling', '--soak')).toThrow('--scaling and --soak: one of the two');
    expect(() => parse('--scaling', '--only', 'tcp-1')).toThrow("no cell 'tcp-1'");
    expect(() => parse('--only', 'scaling-16')).toThrow("no cell 'scaling-16'");
    expect(parse()?.scalingCores).toBeNull();
  });

  it('--soak: with or without minutes', () => {
    expect(parse('--soak')?.soakMinutes).toBe(10);
    expect(parse('--soak', '--idle', '3')).toMatchObject({ soakMinutes: 10, idleSeconds: 3 });
    expect(parse('--soak', '30')?.soakMinutes).toBe(30);
  });

  it.each([
    [['--rounds', '0'], '--rounds 0'],
    [['--seconds', 'x'], '--seconds x'],
    [['--seconds', '1.5'], '--seconds 1.5'],
    [['--mtu', '1500,99999'], '--mtu 99999'],
    [['--mtu', '1500,1500'], '--mtu'],
    [['--peers', 'direct,vde'], "no peer 'vde'"],
    [['--peers', 'constructor'], "no peer 'constructor'"],
    [['--peers', 'pasta,pasta'], "'pasta' is named twice"],
    [['--peers', 'vde=/bin/vde'], 'NAME=FILE'],
    [['--peers', 'pasta-new='], 'NAME=FILE'],
    [['--wan', '10,500'], '--wan 10,500'],
    [['--tcp-wmem', '1,2'], '--tcp-wmem 1,2'],
    [['--soak', '0'], '--soak 0'],
    [['--fast'], '--fast'],
    [['more'], 'more'],
  ])('%j: refused by name', (argv, words) => {
    expect(() => parse(...argv)).toThrow(UsageError);
    expect(() => parse(...argv)).toThrow(words);
  });
});

it('--help: lists every option and peer; a bad option: one line, status 2', () => {
  const help = run('--help');
  expect(help.status).toBe(0);
  for (const word of [
    '--rounds',
    '--wan',
    '--only',
    '--soak',
    '--scaling',
    'bucatini-pipeline',
    'bucatini-lanes-N',
    'slirp4netns',
    'NAME=FILE',
    'torrent',
  ])
    expect(help.stdout).toContain(word);
  const bad = run('--rounds', 'many');
  expect(bad).toMatchObject({
    status: 2,
    stdout: '',
    stderr: expect.stringMatching(/^iperf-harness: --rounds many: .*\n$/),
  });
});

describe('files to write', () => {
  const dir = mkdtempSync(join(tmpdir(), 'harness-'));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const file = join(dir, 'there.json');

  it.each([
    [['--json', '/nonexistent/x.json'], '--json /nonexistent/x.json: no such directory'],
    [['--html', '/nonexistent/x.html'], '--html /nonexistent/x.html: no such directory'],
    [['--json', '/'], '--json /: is a directory'],
    [['--json', file, '--html', '/nonexistent/x.html'], '--html /nonexistent/x.html: no such directory'],
    [['--json', file, '--html', file], `--json and --html: ${file} is one file for both`],
    [['--json', ''], '--json: want the name of a file'],
  ])('%j: one line before any measurement, no file is created', (argv, words) => {
    const { status, stdout, stderr } = run('--only', 'tcp', '--peers', 'direct', ...argv);
    expect({ status, stdout, stderr }).toEqual({
      status: 2,
      stdout: '',
      stderr: `iperf-harness: ${words}\n`,
    });
    expect(readdirSync(dir)).toEqual([]);
  });

  it('a run without results: files of an earlier run are kept, its own empty file is removed', () => {
    writeFileSync(file, 'old');
    const other = join(dir, 'other.html');
    const made = tryOutputs([
      { flag: '--json', file },
      { flag: '--html', file: other },
    ]);
    expect(made).toEqual([other]);
    expect(readFileSync(file, 'utf8')).toBe('old');
    removeEmpty([...made, file]);
    expect(readdirSync(dir)).toEqual(['there.json']);
  });

  it('a file cannot be written at the end: one line, its text is kept elsewhere, the other file is written', () => {
    const said = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    try {
      const lost = { flag: '--json', file: join(dir, 'gone', 'r.json') } as const;
      expect(writeOutput(lost, 'figures')).toBe(false);
      expect(writeOutput({ flag: '--html', file: join(dir, 'r.html') }, 'page')).toBe(true);
      const [line] = said.mock.calls.map(([text]) => `${text}`);
      const [, instead = ''] =
        /^iperf-harness: --json .*: no such directory; written to (\S+)\n$/.exec(line ?? '') ?? [];
      expect(readFileSync(instead, 'utf8')).toBe('figures');
      rmSync(instead);
      expect(readFileSync(join(dir, 'r.html'), 'utf8')).toBe('page');
    } finally {
      said.mockRestore();
    }
  });
});

describeE2e('a peer fails', [requireTool('iperf3', 'apt package iperf3')], () => {
  const dir = mkdtempSync(join(tmpdir(), 'harness-'));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const bucatini = fileURLToPath(new URL('../../bin/bucatini', import.meta.url));

  /** A bucatini peer: `before` runs in its guest as root, `beside` runs concurrently ($$ is the tool). */
  function peer(name: string, { before = ':', beside = ':' }): string {
    const file = join(dir, name);
    writeFileSync(
      file,
      `#!/bin/sh
[ "$1" = run ] || exec "${bucatini}" "$@"
for word; do
  shift
  set -- "$@" "$word"
  [ "$word" = -- ] && set -- "$@" sh -c '${before}; exec "$@"' sh
done
( ${beside} ) &
exec "${bucatini}" "$@"
`,
      { mode: 0o755 },
    );
    return `${name}=${file}`;
  }
  const measured = (what: string, named: string, ...more: string[]) => {
    const json = join(dir, 'r.json');
    const done = run(
      '--only',
      what,
      '--peers',
      named,
      '--rounds',
      '1',
      '--mtu',
      '1500',
      '--json',
      json,
      ...more,
    );
    const { measurements, notes } = parseResult(readFileSync(json, 'utf8'), 'r.json');
    return { done, notes, values: measurements[0]?.values, error: measurements[0]?.error };
  };

  it('the guest drops fragments: zero with a note, loss 100 %', () => {
    const frag = '/proc/sys/net/ipv4/ipfrag';
    const deaf = peer('bucatini-deaf', {
      before: `echo 0 >${frag}_low_thresh; echo 0 >${frag}_high_thresh`,
    });
    const { done, values, error, notes } = measured('udp-8192-500-down', deaf);
    expect(done.stdout).toMatch(/\| bucatini-deaf \| 0 \|/);
    expect(values).toMatchObject({ mbit: 0, packetsPerSecond: 0, lossPercent: 100 });
    expect(error).toBe('the receiver got nothing');
    expect(notes.join()).toContain(
      'bucatini-deaf, udp-8192-500-down-1500, round 1: the receiver got nothing',
    );
  });

  it('the tool ends while idle: no figures, not zeros', () => {
    const mortal = peer('bucatini-mortal', { beside: 'sleep 9; kill -9 $$' });
    const { values, error, done } = measured('idle', mortal, '--seconds', '12');
    expect(values).toEqual({});
    expect(error).toMatch(/^the tool died/);
    expect(done.stdout).toMatch(/\| bucatini-mortal \| failed \|/);
  });
});

describeE2e('iperf harness', [requireTool('iperf3', 'apt package iperf3')], () => {
  const dir = mkdtempSync(join(tmpdir(), 'harness-'));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('direct only: writes a table, JSON and HTML; no process or file is left', () => {
    const json = join(dir, 'h.json');
    const page = join(dir, 'h.html');
    const only = ['--rounds', '1', '--seconds', '1', '--mtu', '65520', '--peers', 'direct'];
    const done = run(...only, '--only', 'tcp-1-up,tcp-1-down,rr-64', '--json', json, '--html', page);
    expect(done.stderr).toMatch(/\[3\/3, 0 s left\] tcp-1-down-65520 round 1 direct: \d+ Mbit\/s/);
    expect(done.stdout).toMatch(/\| direct \| \d[\d.]* \|/);
    expect(done.status).toBe(0);
    const written = parseResult(readFileSync(json, 'utf8'), 'h.json');
    expect(written.measurements).toHaveLength(3);
    for (const { cell, values, error } of written.measurements) {
      expect(error).toBeNull();
      if (cell.startsWith('rr')) expect(values.p99Us).toBeGreaterThanOrEqual(values.p50Us ?? Infinity);
      else expect(values.mbit).toBeGreaterThan(50);
    }
    const text = readFileSync(page, 'utf8');
    expect(text).toMatch(/<svg[\s\S]*<\/svg>/);
    expect(text).not.toMatch(/https?:|<link|\ssrc=/);
  });

  it('--scaling: several pairs of iperf3 at once, added up; a table and a plot by lanes', () => {
    const json = join(dir, 's.json');
    const page = join(dir, 's.html');
    const what = ['--scaling', '--only', 'scaling-4', '--peers', 'direct,bucatini-lanes-1'];
    const done = run(...what, '--rounds', '1', '--seconds', '1', '--json', json, '--html', page);
    expect(done.status).toBe(0);
    expect(done.stdout).toMatch(
      /^\| TCP, 4 streams, up, MTU 65520 \| lanes=1 \| \d+\.\d\d \| .* \| 1\.00 \| /m,
    );
    expect(done.stdout).not.toContain('## Targets');
    const { mode, measurements } = parseResult(readFileSync(json, 'utf8'), 's.json');
    expect([mode, measurements.length]).toEqual(['scaling', 4]);
    for (const { values, error } of measurements) {
      expect(error).toBeNull();
      expect(values.mbit).toBeGreaterThan(50);
    }
    expect(readFileSync(page, 'utf8')).toMatch(/<svg[\s\S]*lanes[\s\S]*<\/svg>/);
  });

  it('a line of 100 Mbit/s and 5 ms each way: nearly filled, never exceeded', () => {
    const json = join(dir, 'w.json');
    const what = ['--only', 'line', '--wan', '5,100,1024,0', '--peers', 'direct', '--mtu', '1500'];
    const done = run('--rounds', '1', '--seconds', '2', ...what, '--json', json);
    expect(done.status).toBe(0);
    const { measurements } = parseResult(readFileSync(json, 'utf8'), 'w.json');
    expect(measurements.map(({ cell }) => cell)).toEqual(['line-own-up-1500', 'line-own-down-1500']);
    for (const { values } of measurements) {
      expect(values.mbit).toBeGreaterThan(70);
      expect(values.mbit).toBeLessThan(105);
    }
  });

  it('ended early: results so far are reported', async () => {
    const what = ['--only', 'line', '--wan', '5,20,1024,0', '--peers', 'direct', '--mtu', '1500'];
    const child = spawn('sh', [harness, '--rounds', '50', '--seconds', '1', ...what]);
    let out = '';
    child.stdout.on('data', (chunk) => {
      out += chunk;
    });
    await new Promise<void>((resolve, reject) => {
      child.on('exit', () => reject(new Error('ended by itself')));
      let seen = '';
      child.stderr.on('data', (chunk) => {
        seen += chunk;
        if (seen.includes('round 1 direct')) resolve();
      });
    });
    const status = new Promise((resolve) => {
      child.removeAllListeners('exit').on('close', resolve);
    });
    child.kill('SIGTERM');
    expect(await status).toBe(143);
    expect(out).toContain('Ended early');
    expect(out).toMatch(/\| direct \| \d+ \|/);
  });
});
