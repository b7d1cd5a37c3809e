/**
 * The servers of the test bed's peer, in one process; prints "ready" when all listen. Ports in ports.ts.
 *
 *   HTTP   GET /bytes/N      the first N bytes of the pattern
 *          PUT /upload       answers {bytes, sha256, maxGapMs, ms}; maxGapMs is the longest time without a byte
 *          GET /source       the client's address
 *          GET /result/ID    the outcome of a script (waits until it has ended)
 *   TCP    echo, script, reset, close, once
 *   UDP    echo
 *   DNS    both protocols
 */
import { createHash } from 'node:crypto';
import dgram from 'node:dgram';
import http from 'node:http';
import net from 'node:net';
import { serveDns } from './dns-server.ts';
import { patternSlice } from './pattern.ts';
import { PEER4, PEER6, PORT } from './ports.ts';
import { type Outcome, scriptServer } from './tcp-script.ts';

const RESULT_WAIT_MS = 60_000;

const outcomes = new Map<string, Outcome>();
const waiting = new Map<string, http.ServerResponse>();

function sendBytes(res: http.ServerResponse, bytes: number): void {
  res.writeHead(200, { 'content-length': bytes });
  let at = 0;
  const more = (): void => {
    while (at < bytes) {
      const piece = patternSlice(at, Math.min(1 << 20, bytes - at));
      at += piece.length;
      if (!res.write(piece)) {
        res.once('drain', more);
        return;
      }
    }
    res.end();
  };
  more();
}

function takeUpload(req: http.IncomingMessage, res: http.ServerResponse): void {
  const hash = createHash('sha256');
  const startedAt = performance.now();
  let lastAt = startedAt;
  let maxGapMs = 0;
  let bytes = 0;
  const mark = (): void => {
    const now = performance.now();
    if (now - lastAt > maxGapMs) maxGapMs = now - lastAt;
    lastAt = now;
  };
  req.on('data', (chunk: Buffer) => {
    mark();
    bytes += chunk.length;
    hash.update(chunk);
  });
  req.on('end', () => {
    mark();
    const ms = Math.round(performance.now() - startedAt);
    res.end(JSON.stringify({ bytes, sha256: hash.digest('hex'), maxGapMs: Math.round(maxGapMs), ms }));
  });
}

const web = http.createServer((req, res) => {
  const [, what = '', arg = ''] = (req.url ?? '').split('/');
  if (what === 'bytes') sendBytes(res, Number(arg));
  else if (what === 'upload') takeUpload(req, res);
  else if (what === 'source') res.end((req.socket.remoteAddress ?? '').replace(/^::ffff:/, ''));
  else if (what === 'result') {
    const outcome = outcomes.get(arg);
    if (outcome) res.end(JSON.stringify(outcome));
    else {
      waiting.set(arg, res);
      setTimeout(() => waiting.delete(arg) && res.writeHead(504).end('{}'), RESULT_WAIT_MS).unref();
    }
  } else res.writeHead(404).end();
});
web.requestTimeout = 0;

const script = scriptServer((id, outcome) => {
  outcomes.set(id, outcome);
  waiting.get(id)?.end(JSON.stringify(outcome));
  waiting.delete(id);
});

const tcp = (port: number, serve: (socket: net.Socket) => void): Promise<void> =>
  listen(
    net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      socket.on('error', () => {});
      serve(socket);
    }),
    port,
  );
const listen = (server: net.Server, port: number): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port, host: '::', backlog: 4096 }, resolve);
  });

const udpEcho = dgram.createSocket({ type: 'udp6', recvBufferSize: 1 << 22, sendBufferSize: 1 << 22 });
udpEcho.on('message', (data, from) => udpEcho.send(data, from.port, from.address));

await Promise.all([
  listen(web, PORT.http),
  listen(script, PORT.script),
  tcp(PORT.echo, (socket) => socket.pipe(socket)),
  tcp(PORT.reset, (socket) => socket.resetAndDestroy()),
  tcp(PORT.close, (socket) => socket.end().resume()),
  tcp(PORT.once, (socket) => socket.once('data', (chunk) => socket.end(chunk).resume())),
  new Promise<void>((resolve) => udpEcho.bind(PORT.echo, '::', resolve)),
  serveDns('peer', [PEER4, PEER6]),
]);
process.stdout.write('ready\n');
