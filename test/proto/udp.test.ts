// @vitest: beside
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { onesSum, pseudoSum4 } from '../../src/proto/checksum.ts';
import { Drop } from '../../src/proto/drop.ts';
import {
  UDP_BYTES,
  udpChecksum,
  udpDstPort,
  udpFinishSum,
  udpHeaderBytes,
  udpLength,
  udpSrcPort,
  udpWrite,
} from '../../src/proto/udp.ts';
import { FRAME_AT as AT, poolWith, readsOnlyItsFrame, slice, u16, wire } from './vector.ts';

const datagram = wire(`
  d4 31 00 35   // srcPort 54321, dstPort 53
  00 0b be ef   // length 11, checksum 0xbeef
  61 62 63      // data
`);

it('fields of the vector', () => {
  const pool = poolWith(datagram);
  expect(udpHeaderBytes(pool, AT, 11)).toBe(UDP_BYTES);
  expect(udpHeaderBytes(pool, AT, 12)).toBe(UDP_BYTES); // padding behind it
  expect([udpSrcPort(pool, AT), udpDstPort(pool, AT), udpLength(pool, AT), udpChecksum(pool, AT)]).toEqual([
    54321, 53, 11, 0xbeef,
  ]);
});

it.each<[string, number, number, number]>([
  ['7 bytes', 8, 7, Drop.short],
  ['length 7', 7, 11, Drop.udpLength],
  ['length 0', 0, 11, Drop.udpLength],
  ['length beyond the packet', 12, 11, Drop.udpLength],
])('drops %s', (_name, length, avail, drop) => {
  const pool = poolWith(datagram);
  pool[AT + 5] = length;
  expect(udpHeaderBytes(pool, AT, avail)).toBe(drop);
});

it('decode(encode(x)) = x, other bytes unchanged', () => {
  fc.assert(
    fc.property(u16, u16, fc.integer({ min: 8, max: 65535 }), (srcPort, dstPort, length) => {
      const pool = poolWith(new Uint8Array(8));
      udpWrite(pool, AT, srcPort, dstPort, length);
      expect(udpHeaderBytes(pool, AT, 65535)).toBe(8);
      expect([
        udpSrcPort(pool, AT),
        udpDstPort(pool, AT),
        udpLength(pool, AT),
        udpChecksum(pool, AT),
      ]).toEqual([srcPort, dstPort, length, 0]);
      expect([pool[AT - 1], pool[AT + 8]]).toEqual([0xa5, 0xa5]);
    }),
  );
});

it('a computed checksum of 0: written as 0xffff', () => {
  expect(udpFinishSum(0xffff)).toBe(0xffff);
  expect(udpFinishSum(0x1234)).toBe(0xedcb);
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 8, maxLength: 40 }), (bytes) => {
      const sum = onesSum(bytes, 0, bytes.length, pseudoSum4(1, 2, 17, bytes.length));
      return udpFinishSum(sum) !== 0;
    }),
  );
});

it('never reads outside its frame', () => {
  readsOnlyItsFrame([datagram], (pool, at, bytes) => {
    const headerBytes = udpHeaderBytes(pool, at, bytes);
    return headerBytes < 0
      ? headerBytes
      : [udpLength(pool, at), Array.from(slice(pool, at, udpLength(pool, at)))];
  });
});
