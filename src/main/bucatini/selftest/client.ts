// bundle: process selftest-client
/**
 * COMMAND of the selftest: does each step inside the namespace and prints one JSON line for it. The function
 * of a step returns its figure, or throws an error with the reason.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import dgram from 'node:dgram';
import { resolve4, resolve6 } from 'node:dns/promises';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { promisify } from 'node:util';
import { patternSlice } from './pattern.ts';
import { OUTSIDE, OUTSIDE_NAME, PEER, PORT } from './world.ts';

/** The result of one step. */
export interface StepReport {
  readonly step: string;
  readonly ok: boolean;
  /** The figure, or why it failed. */
  readonly text: string;
}

/** The first report says that COMMAND runs. The parent measures how long that took. */
const STARTED = 'bucatini run';

const STEP_LIMIT_MS = 10_000;
const TRANSFER_BYTES = 16 << 20;
const MEASURE_MS = 1000;
const DATAGRAM_BYTES = [0, 1, 1472, 1473, 9000, 65507];

async function ping(family: 4 | 6, address: string): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)('ping', [
      `-${family}`,
      '-n',
      '-c',
      '3',
      '-i',
      '0.2',
      '-W',
      '3',
      address,
    ]);
    const average = /= [\d.]+\/([\d.]+)\//.exec(stdout)?.[1];
    return `${average ?? '?'} ms (ping)`;
  } catch (error) {
    const { code, stdout } = error as { code?: unknown; stdout?: string };
    if (code !== 'ENOENT') throw new Error(stdout?.trim().split('\n').at(-1) || String(error));
    const { pingOnce } = await import('./ping.ts');
    return `${pingOnce(family, address, 3000).toFixed(2)} ms (our own code: there is no ping program)`;
  }
}

async function resolve(family: 4 | 6, expected: string): Promise<string> {
  const startedAt = performance.now();
  // Use resolv.conf only: getaddrinfo may ask services of the real host (nss-resolve, nscd).
  const [address] = await (family === 4 ? resolve4 : resolve6)(OUTSIDE_NAME);
  if (address !== expected) throw new Error(`${OUTSIDE_NAME} is ${address}, not ${expected}`);
  return `${address} in ${(performance.now() - startedAt).toFixed(1)} ms`;
}

function patternHash(bytes: number): string {
  const hash = createHash('sha256');
  for (let at = 0; at < bytes; ) {
    const piece = patternSlice(at, Math.min(1 << 20, bytes - at));
    hash.update(piece);
    at += piece.length;
  }
  return hash.digest('hex');
}

async function download(host: string): Promise<string> {
  const startedAt = performance.now();
  const [response] = (await once(
    http.get({ host, path: `/bytes/${TRANSFER_BYTES}`, agent: false }),
    'response',
  )) as [http.IncomingMessage];
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const piece of response as AsyncIterable<Buffer>) {
    bytes += piece.length;
    hash.update(piece);
  }
  return compare(bytes, hash.digest('hex'), startedAt);
}

async function upload(host: string): Promise<string> {
  const startedAt = performance.now();
  const headers = { 'content-length': TRANSFER_BYTES };
  const request = http.request({ host, path: '/upload', method: 'PUT', agent: false, headers });
  const answered = once(request, 'response') as Promise<[http.IncomingMessage]>;
  for (let at = 0; at < TRANSFER_BYTES; ) {
    const piece = patternSlice(at, Math.min(65536, TRANSFER_BYTES - at));
    at += piece.length;
    if (!request.write(piece)) await once(request, 'drain');
  }
  request.end();
  const [response] = await answered;
  const { bytes, sha256 } = JSON.parse(await text(response)) as { bytes: number; sha256: string };
  return compare(bytes, sha256, startedAt);
}

function compare(bytes: number, sha256: string, startedAt: number): string {
  if (bytes !== TRANSFER_BYTES) throw new Error(`${bytes} bytes of ${TRANSFER_BYTES} arrived`);
  if (sha256 !== patternHash(TRANSFER_BYTES)) throw new Error('the SHA-256 differs');
  return `${TRANSFER_BYTES >> 20} MiB, SHA-256 equal, ${(performance.now() - startedAt).toFixed(0)} ms`;
}

async function text(stream: AsyncIterable<Buffer>): Promise<string> {
  let all = '';
  for await (const piece of stream) all += piece;
  return all;
}

async function echoDatagrams(type: 'udp4' | 'udp6', address: string): Promise<string> {
  const socket = dgram.createSocket(type);
  try {
    socket.connect(PORT.echo, address);
    await once(socket, 'connect');
    for (const bytes of DATAGRAM_BYTES) {
      const sent = Buffer.from(patternSlice(bytes, bytes));
      socket.send(sent);
      const [back] = (await once(socket, 'message')) as [Buffer];
      if (!back.equals(sent))
        throw new Error(`${bytes} bytes were sent, ${back.length} different ones came back`);
    }
    return `${DATAGRAM_BYTES.join(', ')} bytes`;
  } finally {
    socket.close();
  }
}

/** Send everything, shut down this side, and still receive the whole echo. */
async function halfClose(host: string): Promise<string> {
  const socket = net.connect({ host, port: PORT.echo, allowHalfOpen: true });
  const sent = patternSlice(0, 1 << 20);
  socket.end(sent);
  const pieces: Buffer[] = [];
  for await (const piece of socket as AsyncIterable<Buffer>) pieces.push(piece);
  if (!Buffer.concat(pieces).equals(sent)) throw new Error('the echo differs from what was sent');
  return '1 MiB back after the end was sent';
}

async function refused(host: string): Promise<string> {
  const startedAt = performance.now();
  const socket = net.connect({ host, port: 1 });
  const code = await new Promise<string>((done) => {
    socket.on('connect', () => done('a connection'));
    socket.on('error', (error: NodeJS.ErrnoException) => done(error.code ?? error.message));
  });
  socket.destroy();
  if (code !== 'ECONNREFUSED') throw new Error(`a closed port gave ${code}`);
  return `ECONNREFUSED in ${(performance.now() - startedAt).toFixed(1)} ms`;
}

async function published(host: string, caller: string): Promise<string> {
  const server = net.createServer((socket) =>
    socket.end(`hello ${socket.remoteAddress?.replace('::ffff:', '')}`),
  );
  server.listen(PORT.published);
  await once(server, 'listening');
  try {
    const [response] = (await once(
      http.get({ host, path: `/call/${PORT.published}`, agent: false }),
      'response',
    )) as [http.IncomingMessage];
    const answer = await text(response as AsyncIterable<Buffer>);
    if (answer !== `hello ${caller}`) throw new Error(`the caller got "${answer}", not "hello ${caller}"`);
    return `a call from ${caller} came in with that address`;
  } finally {
    server.close();
  }
}

async function measureDownload(host: string): Promise<string> {
  const socket = net.connect({ host, port: PORT.source });
  await once(socket, 'connect');
  let bytes = 0;
  const startedAt = performance.now();
  await new Promise<void>((done, fail) => {
    socket.on('data', (piece: Buffer) => {
      bytes += piece.length;
    });
    socket.on('error', fail);
    socket.on('end', () => fail(new Error('the connection ended')));
    setTimeout(done, MEASURE_MS);
  });
  const ms = performance.now() - startedAt;
  socket.destroy();
  return rate(bytes, ms);
}

async function measureUpload(host: string): Promise<string> {
  const socket = net.connect({ host, port: PORT.sink, allowHalfOpen: true });
  await once(socket, 'connect');
  const piece = patternSlice(0, 1 << 18);
  const startedAt = performance.now();
  while (performance.now() - startedAt < MEASURE_MS) {
    if (!socket.write(piece)) await once(socket, 'drain');
  }
  socket.end();
  const bytes = Number(await text(socket as AsyncIterable<Buffer>));
  return rate(bytes, performance.now() - startedAt);
}

function rate(bytes: number, ms: number): string {
  if (bytes === 0) throw new Error('no byte arrived');
  return `${((bytes * 8) / ms / 1e6).toFixed(2)} Gbit/s`;
}

async function step(name: string, work: () => Promise<string>): Promise<void> {
  const limit = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => limit.reject(new Error(`not done after ${STEP_LIMIT_MS / 1000} s`)),
    STEP_LIMIT_MS,
  );
  let report: StepReport;
  try {
    report = { step: name, ok: true, text: await Promise.race([work(), limit.promise]) };
  } catch (error) {
    report = { step: name, ok: false, text: (error as Error).message };
  }
  clearTimeout(timer);
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

await step(STARTED, async () => '');
for (const [family, host, caller] of [
  [4, OUTSIDE.v4, PEER.v4],
  [6, OUTSIDE.v6, PEER.v6],
] as const) {
  const ip = `IPv${family}`;
  await step(`${ip} ping`, () => ping(family, host));
  await step(`${ip} name`, () => resolve(family, host));
  await step(`${ip} download`, () => download(host));
  await step(`${ip} upload`, () => upload(host));
  await step(`${ip} half-close`, () => halfClose(host));
  await step(`${ip} refusal`, () => refused(host));
  await step(`${ip} UDP echo`, () => echoDatagrams(family === 4 ? 'udp4' : 'udp6', host));
  await step(`${ip} published`, () => published(host, caller));
  await step(`${ip} speed down`, () => measureDownload(host));
  await step(`${ip} speed up`, () => measureUpload(host));
}
process.exit(0);
