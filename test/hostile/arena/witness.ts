/**
 * Ordinary traffic during an attack, with figures of its success: `witness.ts HOST ECHO_PORT ONCE_PORT
 * [RESOLVER]`.
 *
 *   old        one connection, opened first, that exchanges 200 bytes of the pattern every 20 ms
 *   connect    a new connection every 50 ms, 32 bytes there and back
 *   udp        16 bytes to the echo port and back every 20 ms
 *   dns        with RESOLVER: the address of peer.bed.test every 100 ms
 *
 * Prints "ready", then a line of JSON per second, {atMs, old, connect, udp, dns}: begin of the second (Unix
 * time), and for each kind {asked, answered, maxMs, failed: {cause: count}}. An answer counts for the second
 * of its request; the line comes when all requests of the second are answered, or late. Ends with its standard
 * input.
 */
import dgram from 'node:dgram';
import net from 'node:net';
import { patternSlice } from '../../support/pattern.ts';
import { PORT } from '../../support/ports.ts';

const [host = '', echoPort = '', oncePort = '', resolver = ''] = process.argv.slice(2);
/** Later answers count as missing. */
const LATE_MS = 2500;
const SECOND_MS = 1000;
const OLD_BYTES = 200;
const NAME = ['peer', 'bed', 'test'];

export interface Tally {
  asked: number;
  answered: number;
  maxMs: number;
  failed: Record<string, number>;
}
type Kind = 'old' | 'connect' | 'udp' | 'dns';

const beganAt = performance.now();
const beganUnixMs = Date.now();
/** Of each second that was not printed: the tallies, and the number of requests without an outcome. */
const seconds = new Map<number, { readonly tallies: Record<Kind, Tally>; open: number }>();
const fresh = (): Tally => ({ asked: 0, answered: 0, maxMs: 0, failed: {} });

/** Record a request. @returns a function to call once with its outcome; undefined: answered */
function ask(kind: Kind): (cause?: string) => void {
  const askedAt = performance.now();
  const second = Math.floor((askedAt - beganAt) / SECOND_MS);
  let of = seconds.get(second);
  if (!of) {
    of = { tallies: { old: fresh(), connect: fresh(), udp: fresh(), dns: fresh() }, open: 0 };
    seconds.set(second, of);
  }
  const tally = of.tallies[kind];
  tally.asked++;
  of.open++;
  let open = true;
  const end = (cause?: string): void => {
    if (!open) return;
    open = false;
    of.open--;
    clearTimeout(late);
    if (cause === undefined) {
      tally.answered++;
      tally.maxMs = Math.max(tally.maxMs, Math.round(performance.now() - askedAt));
    } else tally.failed[cause] = (tally.failed[cause] ?? 0) + 1;
  };
  const late = setTimeout(() => end('late'), LATE_MS);
  return end;
}

const old = net.connect({ host, port: Number(echoPort), noDelay: true });
let sentBytes = 0;
let gotBytes = 0;
const waiting: { upTo: number; end: (cause?: string) => void }[] = [];
let oldFailure: string | undefined;
const oldFails = (cause: string): void => {
  oldFailure ??= cause;
  for (const { end } of waiting.splice(0)) end(cause);
};
old.on('error', (e: NodeJS.ErrnoException) => oldFails(e.code ?? e.message));
old.on('close', () => oldFails('closed'));
old.on('data', (chunk: Buffer) => {
  if (!chunk.equals(patternSlice(gotBytes, chunk.length))) oldFails('wrong data');
  gotBytes += chunk.length;
  while (waiting[0] !== undefined && waiting[0].upTo <= gotBytes) waiting.shift()!.end();
});
function exchange(): void {
  const end = ask('old');
  if (oldFailure !== undefined) return end(oldFailure);
  if (waiting.length > 500) return end('nothing comes back');
  old.write(patternSlice(sentBytes, OLD_BYTES));
  sentBytes += OLD_BYTES;
  waiting.push({ upTo: sentBytes, end });
}

function connect(): void {
  const end = ask('connect');
  const socket = net.connect({ host, port: Number(oncePort), noDelay: true });
  const want = patternSlice(7, 32);
  let got = Buffer.alloc(0);
  socket.on('connect', () => socket.write(want));
  socket.on('data', (chunk: Buffer) => {
    got = Buffer.concat([got, chunk]);
  });
  socket.on('error', (e: NodeJS.ErrnoException) => end(e.code ?? e.message));
  socket.on('close', () => end(got.equals(want) ? undefined : 'cut short'));
  setTimeout(() => socket.destroy(), LATE_MS);
}

const udp = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4');
const datagrams = new Map<number, (cause?: string) => void>();
let datagramSerial = 0;
udp.on('message', (data) => {
  const serial = data.readUInt32BE(0);
  datagrams.get(serial)?.();
  datagrams.delete(serial);
});
udp.on('error', () => {});
function datagram(): void {
  const payload = Buffer.alloc(16);
  const serial = datagramSerial++;
  payload.writeUInt32BE(serial, 0);
  const end = ask('udp');
  datagrams.set(serial, end);
  setTimeout(() => datagrams.delete(serial), LATE_MS);
  udp.send(payload, Number(echoPort), host, (e) => e && end((e as NodeJS.ErrnoException).code ?? e.message));
}

/** A query for the A record of NAME (RFC 1035 section 4.1). */
function query(id: number): Buffer {
  const labels = NAME.flatMap((label) => [label.length, ...Buffer.from(label)]);
  return Buffer.from([id >>> 8, id & 255, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...labels, 0, 0, 1, 0, 1]);
}
const dns = dgram.createSocket(resolver.includes(':') ? 'udp6' : 'udp4');
const queries = new Map<number, (cause?: string) => void>();
let queryId = 0;
dns.on('message', (data) => {
  const end = queries.get(data.readUInt16BE(0));
  queries.delete(data.readUInt16BE(0));
  const rcode = data[3]! & 15;
  end?.(rcode === 0 ? (data.readUInt16BE(6) > 0 ? undefined : 'no answer') : `rcode ${rcode}`);
});
dns.on('error', () => {});
function lookUp(): void {
  const id = queryId++ & 0xffff;
  const end = ask('dns');
  queries.set(id, end);
  setTimeout(() => queries.delete(id), LATE_MS);
  dns.send(query(id), PORT.dns, resolver, (e) => e && end((e as NodeJS.ErrnoException).code ?? e.message));
}

old.once('connect', () => {
  console.log('ready');
  setInterval(exchange, 20);
  setInterval(connect, 50);
  setInterval(datagram, 20);
  if (resolver !== '') setInterval(lookUp, 100);
  let told = 0;
  setInterval(() => {
    const now = Math.floor((performance.now() - beganAt) / SECOND_MS);
    for (; told < now; told++) {
      const of = seconds.get(told);
      if (of && of.open > 0) return;
      seconds.delete(told);
      if (of) console.log(JSON.stringify({ atMs: beganUnixMs + told * SECOND_MS, ...of.tallies }));
    }
  }, 200);
});
process.stdin.resume().on('end', () => process.exit(0));
