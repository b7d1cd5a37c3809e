// @vitest: beside
import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  interfaceBlock,
  pcapHeader,
  sectionBlock,
  statisticsBlock,
  timeNanoseconds,
  timeSeconds,
  timeWrite,
} from '../../src/proto/pcapng.ts';
import { readPcapng } from '../support/pcapng-reader.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

// draft-ietf-opsawg-pcapng, figures of the sections 4.1, 4.2 and 4.6, written out by hand.
it('section header: byte-order magic, version 1.0, unknown length, options', () => {
  const expected = [
    ...['0a0d0d0a', '34000000', '4d3c2b1a', '01000000', 'ffffffffffffffff'],
    ...['03000500', '4c696e7578000000', '04000300', '61203100', '00000000', '34000000'],
  ];
  expect(hex(sectionBlock({ os: 'Linux', application: 'a 1' }))).toBe(expected.join(''));
});

it('interface: Ethernet, snaplen, name, nanoseconds; a filter is a string', () => {
  const expected = [
    ...['01000000', '30000000', '01000000', '60000000', '02000200', '74300000'],
    ...['09000100', '09000000', '0b000400', '00617270', '00000000', '30000000'],
  ];
  expect(hex(interfaceBlock({ snapBytes: 96, name: 't0', filter: 'arp' }))).toBe(expected.join(''));
});

it('interface: MAC and addresses', () => {
  const [block] = readPcapng(
    Buffer.from(
      interfaceBlock({
        snapBytes: 1,
        mac: Uint8Array.of(2, 0, 0, 0, 0, 1),
        ipv4: Uint8Array.of(192, 0, 2, 1, 255, 255, 255, 0),
        ipv6: new Uint8Array(17).fill(64, 16),
      }),
    ),
  );
  expect(block!.options.map(([code, value]) => [code, value.length])).toEqual([
    [4, 8],
    [5, 17],
    [6, 6],
    [9, 1],
  ]);
});

it('statistics: 64-bit numbers, times, a comment longer than an option may be is cut', () => {
  const block = statisticsBlock({
    ...{ now: [1, 2], start: [3, 4], end: [5, 6], comment: 'x'.repeat(70_000) },
    ...{ received: 2 ** 40 + 7, interfaceDrops: 0, accepted: 5, systemDrops: 1, delivered: 4 },
  });
  const [{ type, body, options }] = readPcapng(Buffer.from(block)) as [ReturnType<typeof readPcapng>[0]];
  expect([type, body.readUInt32LE(0), body.readUInt32LE(4), body.readUInt32LE(8)]).toEqual([5, 0, 1, 2]);
  const of = (code: number): Buffer => options.find(([c]) => c === code)![1];
  expect(of(1).length).toBe(0xfff0);
  expect([2, 3].map((code) => [of(code).readUInt32LE(0), of(code).readUInt32LE(4)])).toEqual([
    [3, 4],
    [5, 6],
  ]);
  expect([4, 5, 6, 7, 8].map((code) => of(code).readBigUInt64LE(0))).toEqual([
    2n ** 40n + 7n,
    0n,
    5n,
    1n,
    4n,
  ]);
});

it('pcap header', () => {
  expect(hex(pcapHeader(262_144))).toBe('4d3cb2a10200040000000000000000000000040001000000');
});

it('time stamps: 64-bit nanoseconds, there and back', () => {
  const words = new Uint32Array(2);
  const seconds = fc.integer({ min: 0, max: 0xffff_ffff });
  fc.assert(
    fc.property(seconds, fc.integer({ min: 0, max: 999_999_999 }), (s, ns) => {
      timeWrite(words, 0, s, ns);
      const [high, low] = [words[0]!, words[1]!];
      expect((BigInt(high) << 32n) | BigInt(low)).toBe(BigInt(s) * 1_000_000_000n + BigInt(ns));
      expect([timeSeconds(high, low), timeNanoseconds(high, low)]).toEqual([s, ns]);
    }),
  );
});
