// @vitest: beside
/** Queries for ipv4only.arpa to a resolver on the loopback interface, and which of its datagrams are answers. */
import dgram from 'node:dgram';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Nat64Query } from '../../src/main/host/nat64-query.ts';
import { openQuerySocket } from '../../src/main/host/nat64-wish.ts';
import { addressText } from '../../src/proto/address.ts';
import { close } from '../../src/sys/io.ts';
import { ip4, ip6 } from '../support/packets.ts';
import { eventually, sleepMs } from '../support/process.ts';

const LOCAL = '127.0.0.1';
/** Header without id, question: ipv4only.arpa, AAAA, IN. */
const QUESTION = [
  ...[0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0],
  ...[8, ...Buffer.from('ipv4only'), 4, ...Buffer.from('arpa'), 0, 0, 28, 0, 1],
];
const record = (type: number, ttlS: number, data: readonly number[]): number[] => [
  ...[0xc0, 0x0c, 0, type, 0, 1, 0, 0, ttlS >> 8, ttlS & 255, 0, data.length],
  ...data,
];

let server: dgram.Socket;
let stranger: dgram.Socket;
let query: Nat64Query;
let asked: { readonly message: Buffer; readonly port: number }[];
beforeEach(async () => {
  asked = [];
  server = dgram.createSocket('udp4');
  stranger = dgram.createSocket('udp4');
  server.on('message', (message, from) => asked.push({ message, port: from.port }));
  await new Promise<void>((resolve) => server.bind(0, LOCAL, resolve));
  query = new Nat64Query(openQuerySocket(), undefined, server.address().port);
});
afterEach(() => {
  server.close();
  stranger.close();
  close(query.fd);
});

const ask = async (): Promise<Buffer> => {
  const count = asked.length;
  expect(query.ask([LOCAL])).toEqual([0]);
  await eventually('the query', 2000, () => asked.length > count);
  return asked.at(-1)!.message;
};
/** An answer to a query: flags, the number of records, records. */
const answer = (to: Buffer, records: readonly (readonly number[])[], rcode = 0): Buffer => {
  const message = Buffer.from(to);
  message.writeUInt16BE(0x8180 | rcode, 2);
  message.writeUInt16BE(records.length, 6);
  return Buffer.concat([message, Buffer.from(records.flat())]);
};
const send = (message: Buffer, from = server): Promise<void> =>
  new Promise((resolve) => from.send(message, asked.at(-1)!.port, LOCAL, () => resolve()));
const received = () => eventually('an answer', 2000, () => query.receive());

it('the query, and an answer: its IPv6 addresses and their least TTL', async () => {
  const message = await ask();
  expect([...message.subarray(2)]).toEqual(QUESTION);
  await send(
    answer(message, [
      record(28, 600, ip6('64:ff9b::c000:aa')),
      record(1, 5, ip4('192.0.0.170')),
      record(28, 300, ip6('64:ff9b::c000:ab')),
    ]),
  );
  const { addresses, ...rest } = await received();
  expect(rest).toEqual({ resolver: 0, isDefinite: true, ttlS: 300 });
  expect([0, 4].map((w) => addressText(addresses, w))).toEqual(['64:ff9b::c000:aa', '64:ff9b::c000:ab']);
});

it('no records and NXDOMAIN are answers; an error of the server is not one about addresses', async () => {
  const message = await ask();
  for (const [rcode, isDefinite] of [
    [0, true],
    [3, true],
    [2, false],
    [5, false],
  ] as const) {
    await send(answer(message, [], rcode));
    expect(await received()).toMatchObject({ isDefinite, addresses: new Uint32Array(0) });
  }
});

it('what is no answer is passed over: other id, question, sender, a query, pieces', async () => {
  const old = await ask();
  const message = await ask();
  const records = [record(28, 600, ip6('2001:db8::c000:aa'))];
  const good = answer(message, records);
  const otherName = Buffer.from(good);
  otherName[14]! ^= 1;
  const otherId = answer(old, records);
  otherId.writeUInt16BE(message.readUInt16BE(0) ^ 1, 0);
  for (const bad of [
    otherName,
    otherId,
    message,
    good.subarray(0, 11),
    good.subarray(0, 20),
    Buffer.alloc(0),
  ])
    await send(bad);
  await send(good, stranger);
  await sleepMs(20);
  expect(query.receive()).toBeUndefined();
  await send(good.subarray(0, good.length - 1));
  expect(await received(), 'a record is cut off').toMatchObject({ addresses: new Uint32Array(0) });
});

it('resolvers that are no addresses, or that the host cannot reach, are not asked', () => {
  expect(query.ask(['not an address', LOCAL, 'fe80::1%987654'])).toEqual([1]);
});
