// @vitest: beside
/**
 * The client of the API socket, and how it finds instances: sockets of well-behaved and of hostile servers.
 */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { askFlows, askStats } from '../../src/main/api/answers.ts';
import { ApiError, askApi, cleanTexts, oneLine } from '../../src/main/api/client.ts';
import { listInstances, namedInstances } from '../../src/main/api/instances.ts';
import { autoSocketPath, findSockets, type Surroundings } from '../../src/main/api/socket-directory.ts';
import { histogramsText } from '../../src/main/host/stats.ts';

const INFO = {
  ...{ program: 'bucatini run', version: '1.2', pid: 17, interface: 'eth0', mtu: 1500, threads: ['packets'] },
  ...{ ipv4: { guest: '10.0.2.100', prefixLen: 24, gateway: '10.0.2.2' }, forwards: 0, uptimeMs: 5 },
};
/** Above the kernel's highest process id. */
const NO_PID = 4_999_999;

let root: string;
let servers: Server[];
let sockets: Socket[];
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'instances-'));
  servers = [];
  sockets = [];
});
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  for (const server of servers) server.close();
  rmSync(root, { recursive: true });
});

/** A server at `path`. @param answer  to a request; undefined: none, and the connection stays open */
async function serve(path: string, answer: (request: string) => string | undefined): Promise<string> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    socket.on('data', (data) => {
      const text = answer(data.toString());
      if (text !== undefined) socket.end(text);
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return path;
}
const saying = (value: unknown) => () => JSON.stringify({ return: value });

/** The socket of a process that has ended: the file stays. */
async function leave(path: string, ageMs: number): Promise<string> {
  const { spawnSync } = await import('node:child_process');
  const script =
    "require('net').createServer().listen(process.argv[1],()=>process.kill(process.pid,'SIGKILL'))";
  spawnSync(process.execPath, ['-e', script, path]);
  const then = new Date(Date.now() - ageMs);
  utimesSync(path, then, then);
  return path;
}

const surroundings = (env: NodeJS.ProcessEnv = {}): Surroundings => {
  mkdirSync(`${root}/run`, { recursive: true });
  mkdirSync(`${root}/tmp`, { recursive: true });
  return { env, uid: process.geteuid!(), runUser: `${root}/run`, tmp: `${root}/tmp` };
};

describe('client', () => {
  const ask = (path: string, options = {}) => askApi(path, 'info', undefined, { timeoutMs: 300, ...options });
  const kindOf = (path: string, options = {}) =>
    ask(path, options).then(
      () => 'answer',
      (error: unknown) => (error instanceof ApiError ? error.kind : error),
    );

  it('request and answer', async () => {
    const requests: string[] = [];
    const path = await serve(`${root}/s`, (request) => {
      requests.push(request);
      return '{"return":{"a":1}}';
    });
    expect(await askApi(path, 'list_flows', { after: 3 })).toEqual({ a: 1 });
    expect(requests).toEqual(['{"execute":"list_flows","arguments":{"after":3}}']);
  });

  it('what a server may do wrong: an error of its kind, in bounded time', async () => {
    expect(await kindOf(`${root}/none`)).toBe('gone');
    expect(await kindOf(await leave(`${root}/left`, 0))).toBe('gone');
    expect(await kindOf(root)).toBe('gone');
    expect(await kindOf(await serve(`${root}/silent`, () => undefined))).toBe('timeout');
    expect(await kindOf(await serve(`${root}/empty`, () => ''))).toBe('closed');
    for (const [i, text] of [
      'x',
      'null',
      '7',
      '{}',
      '{"error":null}',
      '{"error":{}}',
      '['.repeat(1e6),
      `{"return":${'['.repeat(1e5)}${']'.repeat(1e5)}}`,
      `{"return":${'{"a":'.repeat(1e5)}1${'}'.repeat(1e5)}}`,
    ].entries())
      expect(await kindOf(await serve(`${root}/bad${i}`, () => text))).toBe('malformed');
    const long = await serve(`${root}/long`, () => `{"return":"${'x'.repeat(5000)}"}`);
    expect(await kindOf(long, { maxBytes: 4096 })).toBe('malformed');
    const refusing = await serve(`${root}/r`, () => '{"error":{"desc":"no\\u001b[2J\\nway"}}');
    await expect(ask(refusing)).rejects.toThrow('no\ufffd[2J way');
  });

  it('a server that sends one byte at a time, for ever: ends with the time limit', async () => {
    const path = `${root}/drip`;
    const server = createServer((socket) => {
      sockets.push(socket);
      socket.on('error', () => {});
      const timer = setInterval(() => socket.write('{'), 20);
      socket.on('close', () => clearInterval(timer));
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const before = performance.now();
    expect(await kindOf(path)).toBe('timeout');
    expect(performance.now() - before).toBeLessThan(1500);
  });

  it('texts: characters that a terminal obeys are replaced, in names too', () => {
    expect(cleanTexts({ 'a\x1b': ['\x07b\x9b', { c: 'd\u202ee\nf\tg' }], n: 1, z: null })).toEqual({
      ...{ 'a\ufffd': ['\ufffdb\ufffd', { c: 'd\ufffde\nf\tg' }], n: 1, z: null },
    });
    expect(oneLine('a\n\nb\tc')).toBe('a b c');
    expect(({} as Record<string, unknown>).x).toBeUndefined();
    expect(cleanTexts(JSON.parse('{"__proto__":{"x":1}}'))).not.toHaveProperty('x');
  });

  it('counts that no engine has: the tables are made all the same', async () => {
    const buckets = Array.from({ length: 1000 }, () => [1e300, 1e300]);
    const answer = { counters: { drops: 1e300 }, histograms: [{ name: 'h', unit: 'us', help: '', buckets }] };
    const stats = await askStats(await serve(`${root}/many`, saying(answer)), {});
    expect(histogramsText(stats.histograms)).toContain('h');
  });

  it('flows: several pages; a server that never ends its list', async () => {
    const page = (ids: number[], more: boolean) => ({ flows: ids.map((id) => ({ id, proto: 'tcp' })), more });
    const good = await serve(`${root}/good`, (request) =>
      saying(JSON.parse(request).arguments.after === -1 ? page([1, 2], true) : page([3], false))(),
    );
    expect((await askFlows(good, 10, {})).flows.map(({ id }) => id)).toEqual([1, 2, 3]);
    expect(await askFlows(good, 2, {})).toMatchObject({ flows: [{ id: 1 }, { id: 2 }], more: true });
    const endless = await serve(`${root}/endless`, saying(page([5], true)));
    expect((await askFlows(endless, 10, {})).flows).toHaveLength(2);
    const odd = await serve(
      `${root}/odd`,
      saying({ flows: [null, 7, { id: 'x', bytes_to_guest: -1 }], more: 1 }),
    );
    expect((await askFlows(odd, 10, {})).flows[2]).toMatchObject({ id: 0, proto: '', bytes_to_guest: 0 });
  });
});

describe('--api-socket auto', () => {
  it('XDG_RUNTIME_DIR, else /run/user, else /tmp: a directory of this user alone', async () => {
    const env = { XDG_RUNTIME_DIR: `${root}/xdg` };
    mkdirSync(env.XDG_RUNTIME_DIR, { mode: 0o700 });
    expect(await autoSocketPath('run', surroundings(env))).toBe(
      `${root}/xdg/bucatini/run-${process.pid}.sock`,
    );
    expect(await autoSocketPath('pasta', surroundings({ XDG_RUNTIME_DIR: 'relative' }))).toBe(
      `${root}/tmp/bucatini-${process.getuid!()}/pasta-${process.pid}.sock`,
    );
    mkdirSync(`${root}/run/1234`);
    expect(await autoSocketPath('attach', surroundings({ XDG_RUNTIME_DIR: '/nonexistent' }))).toBe(
      `${root}/run/1234/bucatini/attach-${process.pid}.sock`,
    );
  });

  it('a directory that others can use, a link, a file, another owner: refused', async () => {
    const name = `${root}/tmp/bucatini-${process.getuid!()}`;
    const refused = () =>
      expect(autoSocketPath('run', surroundings())).rejects.toThrow(/not a directory of this user/);
    surroundings();
    mkdirSync(name);
    chmodSync(name, 0o755);
    await refused();
    rmSync(name, { recursive: true });
    mkdirSync(`${root}/mine`, { mode: 0o700 });
    symlinkSync(`${root}/mine`, name);
    await refused();
    rmSync(name);
    mkdirSync(name, { mode: 0o700 });
    await expect(autoSocketPath('run', { ...surroundings(), uid: 12345 })).rejects.toThrow(/bucatini-/);
    const long = { XDG_RUNTIME_DIR: join(root, 'x'.repeat(90)) };
    mkdirSync(long.XDG_RUNTIME_DIR);
    await expect(autoSocketPath('run', surroundings(long))).rejects.toThrow(/longer than 107 bytes/);
  });

  it('sockets of ended processes: removed by the next program, unless they are new or somebody listens', async () => {
    const env = { XDG_RUNTIME_DIR: `${root}/xdg` };
    const directory = `${root}/xdg/bucatini`;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const old = await leave(`${directory}/run-${NO_PID}.sock`, 60_000);
    const fresh = await leave(`${directory}/run-${NO_PID + 1}.sock`, 0);
    const used = await serve(`${directory}/run-${NO_PID + 2}.sock`, saying(INFO));
    utimesSync(used, 1, 1);
    const [other] = [await leave(`${directory}/other.sock`, 60_000)];
    await autoSocketPath('run', surroundings(env));
    expect([old, fresh, used, other].map((path) => existsSync(path))).toEqual([false, true, true, true]);
    expect(findSockets(surroundings(env)).map(({ pid }) => pid)).toEqual([NO_PID + 1, NO_PID + 2]);
  });

  it('a process of another PID namespace has our id: its socket is left alone, and both are found', async () => {
    const env = { XDG_RUNTIME_DIR: `${root}/xdg` };
    mkdirSync(`${root}/xdg/bucatini`, { recursive: true, mode: 0o700 });
    const theirs = await serve(`${root}/xdg/bucatini/run-${process.pid}.sock`, saying(INFO));
    const ours = await autoSocketPath('run', surroundings(env));
    expect(ours).not.toBe(theirs);
    await serve(ours, saying(INFO));
    expect(findSockets(surroundings(env))).toEqual(
      [ours, theirs].map((path) => ({ path, program: 'run', pid: process.pid })),
    );
  });

  it('instances: all are asked at once; one that hangs, lies or is gone harms no other', async () => {
    const env = { XDG_RUNTIME_DIR: `${root}/xdg` };
    const directory = `${root}/xdg/bucatini`;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const finding = { surroundings: surroundings(env), timeoutMs: 400 };
    for (const pid of [11, 12, 13]) await serve(`${directory}/run-${pid}.sock`, () => undefined);
    await serve(`${directory}/pasta-20.sock`, saying({ ...INFO, program: 'bucatini pasta', pid: 99 }));
    const lies = {
      program: 'x\x1b]0;owned\x07',
      threads: 'no',
      pid: 'seven',
      ipv4: 7,
      mtu: {},
      uptimeMs: -1,
    };
    await serve(`${directory}/run-30.sock`, saying(lies));
    const gone = await leave(`${directory}/run-${NO_PID}.sock`, 60_000);
    const before = performance.now();
    const found = await listInstances(finding);
    expect(performance.now() - before).toBeLessThan(1200);
    expect(found.map(({ pid, program }) => [pid, program])).toEqual([
      ...[11, 12, 13].map((pid) => [pid, 'run']),
      [20, 'pasta'],
      [30, 'run'],
    ]);
    expect(found[0]).toMatchObject({ problem: 'no answer within 0.4 s' });
    expect(found[3]!.info).toMatchObject({ program: 'bucatini pasta', interface: 'eth0', mtu: 1500 });
    expect(found[4]!.info).toMatchObject({
      program: 'x\ufffd]0;owned\ufffd',
      pid: 0,
      threads: [],
      uptimeMs: 0,
    });
    expect(existsSync(gone)).toBe(false);
    const named = await namedInstances(['20', `${directory}/run-30.sock`, '/nonexistent'], finding);
    expect(named.map(({ pid, problem }) => [pid, problem])).toEqual([
      [20, undefined],
      [0, undefined],
      [0, 'nobody listens on this socket'],
    ]);
    await expect(namedInstances(['77'], finding)).rejects.toThrow(/^77: no instance/);
  });
});
