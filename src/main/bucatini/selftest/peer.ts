// bundle: process peer
/**
 * The peer: a process in a network namespace of its own. It prints "new" when it runs, waits for a line (the
 * veth has been moved in), prints "ready" when its servers listen, and exits when its standard input ends.
 *
 *   HTTP   GET /bytes/N     N bytes of the pattern
 *          PUT /upload      {"bytes", "sha256"} of the body
 *          GET /call/PORT   connects to that port of the host, and answers with the text received from there
 *   TCP    echo, sink (answers the byte count at the end), source (sends until closed)
 *   UDP    echo, DNS
 */
import { createHash } from 'node:crypto';
import dgram from 'node:dgram';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { createInterface } from 'node:readline';
import { addressParse, addressWrite } from '../../../proto/address.ts';
import { RouteSocket } from '../../../sys/netlink.ts';
import { patternSlice } from './pattern.ts';
import { configureEnd, HOST, OUTSIDE, OUTSIDE_NAME, PEER, PORT, tuneNamespace } from './world.ts';

function sendPattern(to: http.ServerResponse, bytes: number): void {
  to.writeHead(200, { 'content-length': bytes });
  let at = 0;
  const more = (): void => {
    while (at < bytes) {
      const piece = patternSlice(at, Math.min(65536, bytes - at));
      at += piece.length;
      if (!to.write(piece)) {
        to.once('drain', more);
        return;
      }
    }
    to.end();
  };
  more();
}

const web = http.createServer(async (request, response) => {
  const [, what, argument] = (request.url ?? '').split('/');
  if (what === 'bytes') {
    sendPattern(response, Number(argument));
  } else if (what === 'upload') {
    const hash = createHash('sha256');
    let bytes = 0;
    for await (const piece of request as AsyncIterable<Buffer>) {
      bytes += piece.length;
      hash.update(piece);
    }
    response.end(JSON.stringify({ bytes, sha256: hash.digest('hex') }));
  } else if (what === 'call') {
    const address = request.socket.remoteAddress?.startsWith('::ffff:') ? HOST.v4 : HOST.v6;
    const call = net.connect(Number(argument), address);
    let text = '';
    call.on('data', (piece: Buffer) => {
      text += piece;
    });
    call.on('error', (error) => {
      text = error.message;
    });
    call.on('close', () => response.end(text));
  } else {
    response.writeHead(404).end();
  }
});

const echo = net.createServer({ allowHalfOpen: true }, (socket) => socket.on('error', () => {}).pipe(socket));

const sink = net.createServer({ allowHalfOpen: true }, (socket) => {
  let bytes = 0;
  socket.on('error', () => {});
  socket.on('data', (piece: Buffer) => {
    bytes += piece.length;
  });
  socket.on('end', () => socket.end(String(bytes)));
});

const source = net.createServer((socket) => {
  const piece = patternSlice(0, 1 << 18);
  const more = (): void => {
    while (socket.writable && socket.write(piece));
  };
  socket.on('error', () => {});
  socket.on('drain', more);
  more();
});

/** Answer an A or AAAA query for OUTSIDE_NAME; NXDOMAIN for any other name. RFC 1035 section 4. */
export function dnsAnswer(query: Buffer): Buffer {
  const labels: string[] = [];
  let at = 12;
  while (query[at]! > 0) {
    labels.push(query.toString('latin1', at + 1, at + 1 + query[at]!));
    at += 1 + query[at]!;
  }
  const type = query.readUInt16BE(at + 1);
  const question = query.subarray(12, at + 5);
  const known = labels.join('.').toLowerCase() === OUTSIDE_NAME;
  const address = !known
    ? undefined
    : type === 1
      ? addressBytes(OUTSIDE.v4).subarray(12)
      : type === 28
        ? addressBytes(OUTSIDE.v6)
        : undefined;
  const header = Buffer.alloc(12);
  query.copy(header, 0, 0, 2);
  // Response, recursion desired and available; NXDOMAIN is 3.
  header.writeUInt16BE(0x8180 | (known ? 0 : 3), 2);
  header.writeUInt16BE(1, 4);
  if (address === undefined) return Buffer.concat([header, question]);
  header.writeUInt16BE(1, 6);
  const record = Buffer.alloc(12);
  record.writeUInt16BE(0xc00c, 0); // the name is the question's
  record.writeUInt16BE(type, 2);
  record.writeUInt16BE(1, 4);
  record.writeUInt32BE(60, 6);
  record.writeUInt16BE(address.length, 10);
  return Buffer.concat([header, question, record, address]);
}

/** The 16 bytes of an address; an IPv4 address is the last four. */
function addressBytes(text: string): Buffer {
  const words = new Uint32Array(4);
  addressParse(text, words, 0);
  const bytes = Buffer.alloc(16);
  addressWrite(bytes, 0, words, 0);
  return bytes;
}

async function serve(): Promise<void> {
  const tcp = [
    [web, PORT.http],
    [echo, PORT.echo],
    [sink, PORT.sink],
    [source, PORT.source],
  ] as const;
  for (const [server, port] of tcp) {
    server.listen(port, '::');
    await once(server, 'listening');
  }
  // One socket for each address: an answer must come from the address that was asked.
  for (const [type, address] of [
    ['udp4', OUTSIDE.v4],
    ['udp6', OUTSIDE.v6],
  ] as const) {
    for (const [port, answer] of [
      [PORT.echo, (message: Buffer) => message],
      [PORT.dns, dnsAnswer],
    ] as const) {
      const socket = dgram.createSocket(type);
      socket.on('message', (message, from) => socket.send(answer(message), from.port, from.address));
      socket.bind(port, address);
      await once(socket, 'listening');
    }
  }
}

const input = createInterface(process.stdin);
input.on('close', () => process.exit(0));
tuneNamespace();
console.log('new');
await once(input, 'line');
configureEnd(new RouteSocket(), PEER, true);
await serve();
console.log('ready');
