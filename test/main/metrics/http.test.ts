// @vitest: beside
/** The HTTP server of metrics, over real sockets. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { parseListenAddress } from '../../../src/main/cli/listen-address.ts';
import type { Family } from '../../../src/main/metrics/families.ts';
import { MAX_HEAD_BYTES, parseHead } from '../../../src/main/metrics/http-request.ts';
import { MetricsServer } from '../../../src/main/metrics/http-server.ts';
import { eventually } from '../../support/process.ts';

let dir: string;
let path: string;
const servers: MetricsServer[] = [];
const errors: string[] = [];
beforeAll(() => {
  dir = mkdtempSync(`${tmpdir()}/bucatini-metrics-`);
  path = `${dir}/m.sock`;
});
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
  errors.length = 0;
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const FAMILY: Family = {
  ...({ name: 'bucatini_x_total', type: 'counter', help: 'Something', labels: [] } as const),
  samples: [{ labels: {}, value: 7 }],
};

const LIMITS = { headMs: 200, answerMs: 400 };
async function serve(
  families: () => Promise<readonly Family[]> = async () => [FAMILY],
  limits = { headMs: 10_000, answerMs: 10_000 },
): Promise<void> {
  const server = new MetricsServer({ families, onError: (error) => errors.push(error.message), limits });
  await server.listen(parseListenAddress(`unix:${path}`), '--metrics');
  servers.push(server);
}

/** Everything that the server answers to `text` until it closes. */
function send(text: string | Buffer, onOpen: (socket: Socket) => void = () => {}): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(path);
    let answer = '';
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.on('close', () => resolve(answer));
    socket.on('error', () => {});
    socket.write(text);
    onOpen(socket);
  });
}
const get = (target: string, ...fields: string[]): Promise<string> =>
  send(`GET ${target} HTTP/1.1\r\nHost: x\r\n${fields.map((field) => `${field}\r\n`).join('')}\r\n`);
const status = (answer: string): number => Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1]);

describe('HTTP server of metrics', () => {
  it('/metrics in both formats, / leads there, HEAD has no body', async () => {
    await serve();
    const text = await get('/metrics?x=1');
    expect(text).toMatch(
      /^HTTP\/1\.1 200 OK\r\nContent-Type: text\/plain; version=0\.0\.4; charset=utf-8\r\n/,
    );
    expect(text).toMatch(/\r\n\r\n# HELP bucatini_x_total Something\n# TYPE .*\nbucatini_x_total 7\n$/);
    const open = await get('/metrics', 'Accept: text/plain;q=0.1', 'accept: application/openmetrics-text');
    expect(open).toMatch(/Content-Type: application\/openmetrics-text; version=1\.0\.0; charset=utf-8\r\n/);
    expect(open.endsWith('# EOF\n')).toBe(true);
    expect(await get('/')).toContain('href="/metrics"');
    expect(status(await get('http://host:1/metrics'))).toBe(200);
    const head = await send('HEAD /metrics HTTP/1.0\n\n');
    const [, length] = /Content-Length: (\d+)/.exec(head) ?? [];
    expect(Number(length)).toBe(text.split('\r\n\r\n')[1]!.length);
    expect(head.endsWith('\r\n\r\n')).toBe(true);
  });

  it.each([
    ['POST /metrics HTTP/1.1\r\n\r\n', 405],
    ['GET /other HTTP/1.1\r\n\r\n', 404],
    ['POST /other HTTP/1.1\r\n\r\n', 404],
    ['GET /metrics HTTP/1.1\r\nAccept: application/json\r\n\r\n', 406],
    ['GET /metrics HTTP/2.0\r\n\r\n', 505],
    ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 505],
    ['GET /metrics\r\n\r\n', 400],
    ['GET  /metrics HTTP/1.1\r\n\r\n', 400],
    ['GET metrics HTTP/1.1\r\n\r\n', 400],
    ['GET /metrics HTTP/1.1\r\nno colon\r\n\r\n', 400],
    ['\x16\x03\x01\x02\x00\r\n\r\n', 400],
    [`GET /metrics HTTP/1.1\r\nX: ${'x'.repeat(MAX_HEAD_BYTES)}`, 431],
  ])('%j: %i', async (request, expected) => {
    await serve();
    const answer = await send(request);
    expect(status(answer)).toBe(expected);
    expect(/\r\nAllow: GET, HEAD\r\n/.test(answer)).toBe(expected === 405);
  });

  it('a failure is status 500 and reported', async () => {
    await serve(() => Promise.reject(new Error('broken')));
    expect(status(await get('/metrics'))).toBe(500);
    expect(errors).toEqual(['broken']);
  });

  it('values that do not come are status 500, and asked for again', async () => {
    let asked = 0;
    await serve(() => (asked++ === 0 ? new Promise(() => {}) : Promise.resolve([FAMILY])), LIMITS);
    expect(status(await get('/metrics'))).toBe(500);
    expect(errors).toEqual([`no metrics after ${LIMITS.answerMs / 2000} s`]);
    expect(status(await get('/metrics'))).toBe(200);
  });

  it('requests that come while values are collected share them', async () => {
    let asked = 0;
    let ready = (): void => {};
    await serve(() => {
      asked++;
      return new Promise((resolve) => {
        ready = () => resolve([FAMILY]);
      });
    });
    const answers = [get('/metrics'), get('/metrics')];
    await eventually('asked', 2000, () => asked > 0);
    expect(status(await get('/'))).toBe(200);
    ready();
    expect((await Promise.all(answers)).map(status)).toEqual([200, 200]);
    expect(asked).toBe(1);
  });

  it('clients that send nothing give way to others', async () => {
    await serve();
    const silent = Array.from({ length: 40 }, () => send(''));
    const first = Promise.race(silent);
    expect(status(await get('/metrics'))).toBe(200);
    expect(await first).toBe('');
  });

  it('a head that does not end in time is status 408', async () => {
    await serve(undefined, LIMITS);
    expect(status(await send('GET /metrics HTTP/1.1\r\n'))).toBe(408);
  });

  it('a reader that does not read is cut', async () => {
    const samples = Array.from({ length: 20_000 }, (_, i) => ({
      labels: { i: `${i}${'x'.repeat(50)}` },
      value: i,
    }));
    await serve(async () => [{ ...FAMILY, samples }], LIMITS);
    const startedAt = performance.now();
    await new Promise<void>((resolve) => {
      const socket = connect(path, () => socket.write('GET /metrics HTTP/1.1\r\n\r\n'));
      socket.pause();
      const probe = setInterval(() => {
        // A write to a connection that the server has cut fails.
        socket.write('x');
      }, 20);
      socket.on('error', () => {});
      socket.on('close', () => {
        clearInterval(probe);
        resolve();
      });
    });
    expect(performance.now() - startedAt).toBeGreaterThan(LIMITS.answerMs);
  });

  it('a socket of mode 0600; one that nobody listens on is replaced, anything else is left alone', async () => {
    await serve();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await expect(serve()).rejects.toThrow(/^--metrics unix:.*: another process listens on this socket/);
    expect(status(await get('/metrics'))).toBe(200);
    servers.splice(0)[0]!.close();
    const left = createServer();
    await new Promise<void>((resolve) => left.listen(`${dir}/old.sock`, resolve));
    const { renameSync } = await import('node:fs');
    renameSync(`${dir}/old.sock`, path);
    left.close();
    await serve();
    expect(status(await get('/metrics'))).toBe(200);
    servers.splice(0)[0]!.close();
    writeFileSync(path, 'mine');
    await expect(serve()).rejects.toThrow(/which is not a socket/);
    expect(statSync(path).size).toBe(4);
    rmSync(path);
  });

  it('a port that is taken, and an address that the host does not have', async () => {
    const other = createServer();
    const port = await new Promise<number>((resolve) =>
      other.listen(0, '127.0.0.1', () => resolve((other.address() as { port: number }).port)),
    );
    const listen = (where: string): Promise<void> =>
      new MetricsServer({ families: async () => [], onError: () => {} }).listen(
        parseListenAddress(where),
        '--listen',
      );
    await expect(listen(`${port}`)).rejects.toThrow(
      `--listen 127.0.0.1:${port}: another program listens on this port`,
    );
    await expect(listen('192.0.2.77:9469')).rejects.toThrow('this host does not have the address 192.0.2.77');
    other.close();
  });
});

describe('head of a request', () => {
  it('in whichever pieces it arrives, the result is the same; a part of it has none', () => {
    const text = Buffer.from('\r\nGET /metrics?a HTTP/1.1\r\nAccept: a/b\r\nAccept: c/d\r\n\r\nbody');
    const whole = parseHead(text);
    expect(whole).toEqual({ method: 'GET', path: '/metrics', accept: 'a/b,c/d' });
    const end = text.indexOf('body');
    for (let at = 0; at < end; at++) expect(parseHead(text.subarray(0, at))).toBeUndefined();
    for (let at = end; at <= text.length; at++) expect(parseHead(text.subarray(0, at))).toEqual(whole);
  });

  it('never throws', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void parseHead(Buffer.from(bytes))));
  });
});
