// @vitest: beside
import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  ARP_BYTES,
  ARP_SENDER_MAC,
  ARP_TARGET_MAC,
  ArpOp,
  arpCheck,
  arpOp,
  arpReplyWrite,
  arpRequestWrite,
  arpSenderIp,
  arpTargetIp,
} from '../../src/proto/arp.ts';
import { Drop } from '../../src/proto/drop.ts';
import { FRAME_AT as AT, mac, poolWith, readsOnlyItsFrame, slice, u32, wire } from './vector.ts';

const request = wire(`
  00 01 08 00         // hardware: Ethernet, protocol: IPv4
  06 04 00 01         // 6- and 4-byte addresses, op: request
  9a 55 9a 55 9a 55   // senderMac
  0a 00 02 02         // senderIp 10.0.2.2
  00 00 00 00 00 00   // targetMac: unknown
  0a 00 02 64         // targetIp 10.0.2.100
`);

it('fields of the vector', () => {
  const pool = poolWith(request);
  expect(arpCheck(pool, AT, 46)).toBe(0); // padded to the Ethernet minimum
  expect([arpOp(pool, AT), arpSenderIp(pool, AT), arpTargetIp(pool, AT)]).toEqual([
    ArpOp.request,
    0x0a000202,
    0x0a000264,
  ]);
  expect(slice(pool, AT + ARP_SENDER_MAC, 6)).toEqual(wire('9a 55 9a 55 9a 55'));
});

it('a request as in the vector', () => {
  const pool = poolWith(new Uint8Array(ARP_BYTES));
  arpRequestWrite(pool, AT, wire('9a 55 9a 55 9a 55'), 0x0a000202, 0x0a000264);
  expect(slice(pool, AT, ARP_BYTES)).toEqual(request);
});

it.each<[string, number, number, number, number]>([
  ['27 bytes', 0, 0, 27, Drop.short],
  ['another hardware', 1, 6, 28, Drop.arpFormat],
  ['another protocol', 2, 0x86, 28, Drop.arpFormat],
  ['8-byte MACs', 4, 8, 28, Drop.arpFormat],
  ['16-byte addresses', 5, 16, 28, Drop.arpFormat],
  ['op 0', 7, 0, 28, Drop.arpOp],
  ['op 3 (RARP)', 7, 3, 28, Drop.arpOp],
])('drops %s', (_name, index, value, avail, drop) => {
  const pool = poolWith(request);
  pool[AT + index] = value;
  expect(arpCheck(pool, AT, avail)).toBe(drop);
});

it('decode(encode(x)) = x, other bytes unchanged', () => {
  fc.assert(
    fc.property(mac, u32, mac, u32, (senderMac, senderIp, targetMac, targetIp) => {
      const pool = poolWith(new Uint8Array(ARP_BYTES));
      arpReplyWrite(pool, AT, senderMac, senderIp, targetMac, targetIp);
      expect(arpCheck(pool, AT, ARP_BYTES)).toBe(0);
      expect([arpOp(pool, AT), arpSenderIp(pool, AT), arpTargetIp(pool, AT)]).toEqual([
        ArpOp.reply,
        senderIp,
        targetIp,
      ]);
      expect(slice(pool, AT + ARP_SENDER_MAC, 6)).toEqual(senderMac);
      expect(slice(pool, AT + ARP_TARGET_MAC, 6)).toEqual(targetMac);
      expect([pool[AT - 1], pool[AT + ARP_BYTES]]).toEqual([0xa5, 0xa5]);
    }),
  );
});

it('never reads outside its frame', () => {
  readsOnlyItsFrame([request], (pool, at, bytes) => {
    const result = arpCheck(pool, at, bytes);
    return result < 0 ? result : [arpOp(pool, at), arpSenderIp(pool, at), arpTargetIp(pool, at)];
  });
});
