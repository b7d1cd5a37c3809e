/**
 * A small DNS server for the test bed, over UDP and TCP: enough of RFC 1035 for real resolvers, with answers
 * of every size. Unknown names get NXDOMAIN. An answer above the client's UDP limit (512 bytes, or the EDNS
 * size) is sent empty with TC set.
 *
 *   peer.bed.test   A, AAAA      the peer
 *   many.bed.test   A            30 records: 508 bytes and more
 *   big.bed.test    TXT          5 strings of 200 bytes: over 512, under 1232
 *   huge.bed.test   TXT          60 strings of 200 bytes: only TCP carries it
 *   who.bed.test    TXT          the server's name and the client's address
 *   *.silent.test                no answer at all
 *   ipv4only.arpa   A, AAAA      AAAA records only of the server dns64, with the prefix 2001:db8:64::/96
 *
 * As a program: `dns-server.ts NAME ADDRESS...` prints "ready" when all sockets are bound, and "ipv4only.arpa"
 * for each UDP query for its AAAA records.
 */
import dgram from 'node:dgram';
import net from 'node:net';
import { ip4, ip6 } from './packets.ts';
import { PEER4, PEER6, PORT } from './ports.ts';

const TYPE = { a: 1, txt: 16, aaaa: 28, opt: 41 } as const;
const RCODE_NXDOMAIN = 3;

type Answer = { readonly type: number; readonly rdata: Buffer };

const txtRdata = (text: string): Buffer => Buffer.concat([Buffer.from([text.length]), Buffer.from(text)]);

function records(server: string, asker: string): Map<string, Answer[]> {
  const a = (address: string): Answer => ({ type: TYPE.a, rdata: Buffer.from(ip4(address)) });
  const aaaa = (address: string): Answer => ({ type: TYPE.aaaa, rdata: Buffer.from(ip6(address)) });
  const ipv4only = [a('192.0.0.170'), a('192.0.0.171')];
  if (server === 'dns64') ipv4only.push(aaaa('2001:db8:64::c000:aa'), aaaa('2001:db8:64::c000:ab'));
  const txt = (text: string): Answer => ({ type: TYPE.txt, rdata: txtRdata(text) });
  return new Map([
    ['peer.bed.test', [a(PEER4), aaaa(PEER6)]],
    ['ipv4only.arpa', ipv4only],
    ['many.bed.test', Array.from({ length: 30 }, (_, i) => a(`10.77.1.${i + 1}`))],
    ['big.bed.test', Array.from({ length: 5 }, (_, i) => txt(String.fromCharCode(97 + i).repeat(200)))],
    ['huge.bed.test', Array.from({ length: 60 }, (_, i) => txt(`${i}`.padEnd(200, 'x')))],
    ['who.bed.test', [txt(`${server} ${asker.replace(/^::ffff:/, '')}`)]],
  ]);
}

/** @returns the answer to a query; undefined when the message is no query. `limitBytes` 0: no limit (TCP) */
function answer(query: Buffer, server: string, asker: string, tcp: boolean): Buffer | undefined {
  if (query.length < 17) return undefined;
  const labels: string[] = [];
  let at = 12;
  for (let len = query[at]!; len !== 0; len = query[at]!) {
    if (len > 63 || at + len + 1 >= query.length) return undefined;
    labels.push(query.toString('latin1', at + 1, at + 1 + len));
    at += len + 1;
  }
  if (labels.at(-2) === 'silent') return undefined;
  const type = query.readUInt16BE(at + 1);
  const questionEnd = at + 5;
  const question = query.subarray(12, questionEnd);
  // The EDNS record, when there is one, is the only additional record of a query: root name, type, UDP size.
  const edns = query.readUInt16BE(10) > 0 && query.readUInt16BE(questionEnd + 1) === TYPE.opt;
  const limitBytes = tcp ? 65535 : edns ? Math.max(512, query.readUInt16BE(questionEnd + 3)) : 512;

  if (import.meta.main && !tcp && type === TYPE.aaaa && labels.join('.') === 'ipv4only.arpa')
    process.stdout.write('ipv4only.arpa\n');
  const known = records(server, asker).get(labels.join('.').toLowerCase());
  const matching = (known ?? []).filter((r) => r.type === type);
  const build = (answers: readonly Answer[], truncated: boolean): Buffer => {
    const head = Buffer.alloc(12);
    query.copy(head, 0, 0, 2);
    // QR, AA, RD copied, RA
    head.writeUInt16BE(
      0x8480 | (query.readUInt16BE(2) & 0x0100) | (truncated ? 0x0200 : 0) | (known ? 0 : RCODE_NXDOMAIN),
      2,
    );
    head.writeUInt16BE(1, 4);
    head.writeUInt16BE(answers.length, 6);
    head.writeUInt16BE(edns ? 1 : 0, 10);
    const parts = [head, question];
    for (const r of answers) {
      const rr = Buffer.alloc(12);
      rr.writeUInt16BE(0xc00c, 0);
      rr.writeUInt16BE(r.type, 2);
      rr.writeUInt16BE(1, 4);
      rr.writeUInt32BE(60, 6);
      rr.writeUInt16BE(r.rdata.length, 10);
      parts.push(rr, r.rdata);
    }
    if (edns) parts.push(Buffer.from([0, 0, TYPE.opt, 0x10, 0, 0, 0, 0, 0, 0, 0]));
    return Buffer.concat(parts);
  };
  const whole = build(matching, false);
  return whole.length <= limitBytes ? whole : build([], true);
}

/** Serve `name` on port 53 of each address, both protocols. */
export async function serveDns(name: string, addresses: readonly string[]): Promise<void> {
  for (const address of addresses) {
    const udp = dgram.createSocket(address.includes(':') ? 'udp6' : 'udp4');
    udp.on('message', (query, from) => {
      const reply = answer(query, name, from.address, false);
      if (reply) udp.send(reply, from.port, from.address);
    });
    await new Promise<void>((resolve) => udp.bind(PORT.dns, address, resolve));

    const tcp = net.createServer((socket) => {
      let pending = Buffer.alloc(0);
      socket.on('error', () => {});
      socket.on('data', (chunk: Buffer) => {
        pending = Buffer.concat([pending, chunk]);
        while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
          const queryBytes = pending.readUInt16BE(0);
          const reply = answer(pending.subarray(2, 2 + queryBytes), name, socket.remoteAddress ?? '', true);
          pending = pending.subarray(2 + queryBytes);
          if (!reply) continue;
          const prefix = Buffer.alloc(2);
          prefix.writeUInt16BE(reply.length);
          socket.write(Buffer.concat([prefix, reply]));
        }
      });
    });
    await new Promise<void>((resolve) => tcp.listen(PORT.dns, address, resolve));
  }
}

if (import.meta.main) {
  const [name = 'dns', ...addresses] = process.argv.slice(2);
  await serveDns(name, addresses);
  process.stdout.write('ready\n');
}
