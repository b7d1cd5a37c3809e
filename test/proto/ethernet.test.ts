// @vitest: beside
import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  ETH_BYTES,
  ETH_SRC,
  EtherType,
  etherType,
  etherWrite,
  macParse,
  macText,
} from '../../src/proto/ethernet.ts';
import { FRAME_AT, mac, poolWith, slice, u16, wire } from './vector.ts';

const broadcastArp = wire(`
  ff ff ff ff ff ff   // dst
  9a 55 9a 55 9a 55   // src
  08 06               // etherType: ARP
`);

it('writes and reads the header', () => {
  const pool = poolWith(new Uint8Array(ETH_BYTES));
  etherWrite(pool, FRAME_AT, broadcastArp.subarray(0, 6), broadcastArp.subarray(6, 12), EtherType.arp);
  expect(slice(pool, FRAME_AT, ETH_BYTES)).toEqual(broadcastArp);
  expect(etherType(pool, FRAME_AT)).toBe(EtherType.arp);
  expect(macText(pool, FRAME_AT + ETH_SRC)).toBe('9a:55:9a:55:9a:55');
});

it('decode(encode(x)) = x, other bytes unchanged', () => {
  fc.assert(
    fc.property(mac, mac, u16, (dst, src, type) => {
      const pool = poolWith(new Uint8Array(ETH_BYTES));
      etherWrite(pool, FRAME_AT, dst, src, type);
      expect(slice(pool, FRAME_AT, 6)).toEqual(dst);
      expect(slice(pool, FRAME_AT + ETH_SRC, 6)).toEqual(src);
      expect(etherType(pool, FRAME_AT)).toBe(type);
      expect([pool[FRAME_AT - 1], pool[FRAME_AT + ETH_BYTES]]).toEqual([0xa5, 0xa5]);
      expect(macParse(macText(pool, FRAME_AT))).toEqual(dst);
    }),
  );
});

it('macParse: refuses malformed addresses', () => {
  expect(macParse('9A:55:9a:55:9a:55')).toEqual(wire('9a 55 9a 55 9a 55'));
  for (const text of [
    '',
    '9a:55:9a:55:9a',
    '9a:55:9a:55:9a:55:00',
    '9a-55-9a-55-9a-55',
    '9a:55:9a:55:9a:5',
    'g0:0:0:0:0:0',
  ]) {
    expect(macParse(text), text).toBeNull();
  }
});
