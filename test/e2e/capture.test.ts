// @vitest: beside
/**
 * Captures of `bucatini run` as tshark and capinfos read them: each option, and over the API. What a capture
 * contains does not depend on the thread plan but for the lane; test/workers/capture.test.ts has the rest.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createConnection, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { repoRoot } from '../support/engines.ts';
import { framesOf } from '../support/pcapng-reader.ts';
import { eventually, type Finished, killTree, runToEnd, type Started, start } from '../support/process.ts';
import { describeNeeding, findTool, requireTool, tapNeeds } from '../support/require.ts';

const BUCATINI = `${repoRoot}/bin/bucatini`;
/** Address of the host's loopback inside, and one that the policy denies. */
const HOST = '198.51.100.99';
const DENIED = '198.51.100.98';
const ANSWER_BYTES = 300_000;
/** Unused inside: an echo request to it begins a flow, or is refused; either is a frame. */
const PINGS = `for i in 1 2 3 4 5 6 7 8 9 10; do ping -c 1 -W 1 -s 3000 ${HOST} >/dev/null; done`;

const needs = [
  ...tapNeeds,
  requireTool('tshark', 'apt package tshark'),
  requireTool('capinfos', 'apt package tshark'),
  requireTool('curl', 'apt package curl'),
  requireTool('ping', 'apt package iputils-ping'),
  requireTool('script', 'apt package bsdutils'),
];

describeNeeding('captures, read by tshark', needs, () => {
  const dir = mkdtempSync(join(tmpdir(), 'capture-e2e-'));
  let server: Server;
  let port = 0;
  beforeAll(async () => {
    server = createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => socket.end(Buffer.alloc(ANSWER_BYTES)));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    port = (server.address() as { port: number }).port;
  });
  afterAll(() => {
    server?.close();
    rmSync(dir, { recursive: true, force: true });
  });

  const file = (name: string): string => join(dir, name);
  const argvOf = (options: readonly string[], script: string): string[] => {
    const policy = ['--host-loopback', HOST, '--deny', DENIED];
    return [BUCATINI, 'run', '--log-level', 'error', ...policy, ...options, '--', 'sh', '-c', script];
  };
  const run = (options: readonly string[], script: string): Promise<Finished> =>
    runToEnd(argvOf(options, script));
  const tool = (argv: readonly string[]): string => {
    const [name = '', ...rest] = argv;
    const done = spawnSync(findTool(name)!, rest, { encoding: 'utf8' });
    expect(done.status, done.stderr).toBe(0);
    return done.stdout;
  };
  /** Fields of each frame that a display filter lets pass. */
  const fields = (path: string, display: string, ...names: readonly string[]): string[][] =>
    tool(['tshark', '-r', path, '-Y', display, '-T', 'fields', ...names.flatMap((name) => ['-e', name])])
      .trim()
      .split('\n')
      .map((line) => line.split('\t'));

  it('pcapng: interface, directions, lane, what becomes of flows, why a frame was dropped, counters', async () => {
    const path = file('all.pcapng');
    const curl = (address: string): string =>
      `curl -s -m 5 --noproxy '*' --http0.9 http://${address}:${port}/ | wc -c`;
    const ended = await run(['--threads', 'lanes=2', '--pcap', path], `${curl(HOST)}; ${curl(DENIED)}`);
    expect(ended.stdout.trim().split(/\s+/)).toEqual([String(ANSWER_BYTES), '0']);

    const shown = [
      'frame.interface_name',
      'frame.packet_flags_direction',
      'frame.interface_queue',
      'frame.comment',
    ];
    const [[name, fromGuest, lane, begins], [, toGuest, , socket]] = fields(
      path,
      `tcp.port == ${port} && ip.addr == ${HOST} && tcp.flags.syn == 1`,
      ...shown,
    ) as [string[], string[]];
    expect([Number(fromGuest), Number(toGuest), lane]).toEqual([2, 1, expect.stringMatching(/^[01]$/)]);
    expect(name).not.toBe('');
    expect(begins).toMatch(
      new RegExp(`^flow \\d+ begins in lane ${lane}: tcp [\\d.]+:\\d+ > ${HOST}:${port}, of the guest$`),
    );
    expect(socket).toMatch(
      new RegExp(`^host socket of flow \\d+: 127\\.0\\.0\\.1:\\d+, peer 127\\.0\\.0\\.1:${port}$`),
    );
    const [[ends]] = fields(path, 'frame.comment contains "ends"', 'frame.comment') as [string[]];
    expect(ends).toMatch(
      new RegExp(
        `^flow \\d+ ends after [\\d.]+ s: \\d+ bytes from the guest, ${ANSWER_BYTES} to the guest, \\d+ segments sent again, rtt [\\d.]+ ms$`,
      ),
    );
    expect(fields(path, `ip.addr == ${DENIED} && tcp.flags == 2`, 'frame.comment')).toEqual([
      ['dropped: drop.egressPolicy'],
    ]);

    const info = tool(['capinfos', path]);
    expect(info).toMatch(/Capture application: bucatini \d/);
    expect(info).toMatch(/Time precision = nanoseconds/);
    expect(info).toMatch(/Number of stat entries = 1/);
    expect(info).toMatch(/Strict time order: +True/);
    expect(readFileSync(path).includes('\ndrop.egressPolicy 1')).toBe(true);
  });

  it('-: standard output has the capture and nothing else; a filter; COMMAND writes to standard error', async () => {
    const err = file('err');
    const options = ['--pcap', '-', '--pcap-filter', `icmp and dst host ${HOST}`, '--pcap-snaplen', '60'];
    const live = `exec 2>"$0"; "$@" | "$TSHARK" -r - -T fields -e frame.cap_len -e frame.len -e ip.dst`;
    const argv = ['sh', '-c', live, err, ...argvOf(options, `echo of COMMAND; ${PINGS}`)];
    const ended = await runToEnd(argv, { env: { TSHARK: findTool('tshark')! } });
    expect(ended.stdout).toBe(`60\t3042\t${HOST}\n`.repeat(10));
    expect(readFileSync(err, 'utf8')).toContain('of COMMAND\n');
  });

  it('-: refused on a terminal', () => {
    const argv = ['-qec', `${BUCATINI} run --pcap - -- true`, '/dev/null'];
    const done = spawnSync(findTool('script')!, argv, { encoding: 'utf8' });
    expect(done.stdout).toContain('run: --pcap -: standard output is a terminal; write for example');
    expect(done.status).toBe(1);
  });

  it('several files, by size; pcap, too', async () => {
    const rotate = ['--pcap-rotate', 'size=64kib,files=3', '--threads', 'pipeline=2'];
    const ended = await run(['--pcap', file('many.pcap'), ...rotate], `${PINGS}; ${PINGS}`);
    expect(ended.status).toBe(0);
    const many = readdirSync(dir).filter((name) => name.startsWith('many'));
    expect(many.sort()).toEqual(['many_1.pcap', 'many_2.pcap', 'many_3.pcap']);
    let frames = 0;
    for (const name of many) frames += fields(file(name), 'icmp', 'frame.number').length;
    expect(frames).toBeGreaterThan(30);
  });

  it('a ring in memory is written on SIGUSR2, which COMMAND does not get', async () => {
    const path = file('ring.pcapng');
    const child: Started = start(
      argvOf(['--pcap', path, '--pcap-ring', '1mb'], `${PINGS}; echo done; read x; exit 7`),
    );
    try {
      await eventually('COMMAND is done', 10_000, () => child.printed().stdout.includes('done'));
      expect(framesOf(readFileSync(path))).toEqual([]);
      process.kill(child.pid, 'SIGUSR2');
      await eventually('the ring is written', 5000, () => child.printed().stderr.includes('frames written'));
      expect(child.printed().stderr).toMatch(
        /^bucatini: --pcap-ring: \S+ring\.pcapng: \d+ frames written\n$/,
      );
      // The last frame may have been sent and not yet recorded.
      expect(fields(path, 'icmp', 'frame.number').length).toBeGreaterThanOrEqual(19);
      child.process.stdin!.end('\n');
      expect(await child.exited).toBe(7);
    } finally {
      killTree(child.pid);
    }
  });

  it('API: a capture begins while the engine runs, as a stream, and ends on request', async () => {
    const socket = file('api');
    const child = start(argvOf(['--api-socket', socket], `echo up; read x; ${PINGS}; echo done; read x`));
    const ask = (request: object, onData?: (bytes: Buffer) => void): Promise<Buffer> =>
      new Promise((resolve, reject) => {
        const parts: Buffer[] = [];
        const client = createConnection({ path: socket, allowHalfOpen: true }, () =>
          client.write(JSON.stringify(request)),
        );
        client.on('data', (bytes: Buffer) => {
          parts.push(bytes);
          onData?.(bytes);
        });
        client.on('error', reject);
        client.on('end', () => {
          client.end();
          resolve(Buffer.concat(parts));
        });
      });
    try {
      await eventually('COMMAND runs', 10_000, () => child.printed().stdout.includes('up'));
      const bad = { execute: 'start_capture', arguments: { filter: 'tcp and' } };
      expect((await ask(bad)).toString()).toContain('start_capture: filter \\"tcp and\\": column 8:');
      expect((await ask({ execute: 'stop_capture' })).toString()).toContain('no capture runs');
      const begun = Promise.withResolvers<void>();
      const stream = ask({ execute: 'start_capture', arguments: { filter: 'icmp', snaplen: 100 } }, () =>
        begun.resolve(),
      );
      await begun.promise;
      expect((await ask({ execute: 'start_capture' })).toString()).toContain('a capture runs already');
      child.process.stdin!.write('\n');
      await eventually('COMMAND is done', 10_000, () => child.printed().stdout.includes('done'));
      expect((await ask({ execute: 'stop_capture' })).toString()).toBe('{"return":{}}');
      const frames = framesOf(await stream);
      expect(frames.length).toBeGreaterThanOrEqual(20);
      expect(frames.every(({ captured }) => captured.length === 100)).toBe(true);
      child.process.stdin!.end('\n');
      expect(await child.exited).toBe(0);
    } finally {
      killTree(child.pid);
    }
  });
});
