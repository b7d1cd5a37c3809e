// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { finishSum, onesSumPieces } from '../../src/proto/checksum.ts';
import { Drop } from '../../src/proto/drop.ts';
import {
  VNET_BYTES,
  VnetFlag,
  VnetGso,
  vnetCheck,
  vnetCsumOffset,
  vnetCsumStart,
  vnetFinishChecksum,
  vnetFlags,
  vnetGsoSize,
  vnetGsoType,
  vnetHdrLen,
  vnetWrite,
} from '../../src/proto/vnethdr.ts';
import { FRAME_AT as AT, poolWith, slice, u8, u16, wire } from './vector.ts';

const tso = wire(`
  01        // flags: needsCsum
  01        // gsoType: tcpv4
  42 00     // hdrLen 66
  a8 05     // gsoSize 1448
  22 00     // csumStart 34: Ethernet + IPv4
  10 00     // csumOffset 16: TCP
  00 00     // numBuffers
`);

const read = (pool: Uint8Array): number[] => [
  vnetFlags(pool, AT),
  vnetGsoType(pool, AT),
  vnetHdrLen(pool, AT),
  vnetGsoSize(pool, AT),
  vnetCsumStart(pool, AT),
  vnetCsumOffset(pool, AT),
];

it('reads and writes the vector', () => {
  const pool = poolWith(tso);
  expect(read(pool)).toEqual([VnetFlag.needsCsum, VnetGso.tcpv4, 66, 1448, 34, 16]);
  expect(vnetCheck(pool, AT, 65226)).toBe(0);
  const written = poolWith(new Uint8Array(VNET_BYTES).fill(0xff));
  vnetWrite(written, AT, VnetFlag.needsCsum, VnetGso.tcpv4, 66, 1448, 34, 16);
  expect(slice(written, AT, VNET_BYTES)).toEqual(tso);
});

it('decode(encode(x)) = x, other bytes unchanged', () => {
  fc.assert(
    fc.property(u8, u8, u16, u16, u16, u16, (...fields) => {
      const pool = poolWith(new Uint8Array(VNET_BYTES));
      vnetWrite(pool, AT, ...fields);
      expect(read(pool)).toEqual(fields);
      expect([pool[AT - 1], pool[AT + VNET_BYTES]]).toEqual([0xa5, 0xa5]);
    }),
  );
});

type Fields = [
  flags: number,
  gsoType: number,
  hdrLen: number,
  gsoSize: number,
  csumStart: number,
  csumOffset: number,
];

it.each<[string, Fields, number]>([
  ['a plain frame', [0, VnetGso.none, 0, 0, 0, 0], 0],
  ['a plain frame with stale fields', [VnetFlag.dataValid, VnetGso.none, 9999, 9, 9999, 9999], 0],
  ['a partial checksum', [VnetFlag.needsCsum, VnetGso.none, 0, 0, 34, 6], 0],
  ['a checksum field as the last two bytes', [VnetFlag.needsCsum, VnetGso.none, 0, 0, 92, 6], 0],
  ['a checksum field one byte past the end', [VnetFlag.needsCsum, VnetGso.none, 0, 0, 93, 6], Drop.vnetCsum],
  ['checksum fields at their largest', [VnetFlag.needsCsum, VnetGso.none, 0, 0, 65535, 65535], Drop.vnetCsum],
  ['TSO for IPv6 with ECN', [VnetFlag.needsCsum, VnetGso.tcpv6 | VnetGso.ecn, 74, 1428, 54, 16], 0],
  ['USO', [VnetFlag.needsCsum, VnetGso.udpL4, 42, 29, 34, 6], 0],
  ['UFO', [VnetFlag.needsCsum, VnetGso.udp, 42, 29, 34, 6], 0],
  ['USO with ECN', [1, VnetGso.udpL4 | VnetGso.ecn, 42, 29, 34, 6], Drop.vnetGsoType],
  ['ECN without GSO', [0, VnetGso.ecn, 0, 0, 0, 0], Drop.vnetGsoType],
  ['GSO type 2', [0, 2, 42, 29, 34, 6], Drop.vnetGsoType],
  ['GSO type of a tunnel', [0, 0x21, 42, 29, 34, 6], Drop.vnetGsoType],
  ['gsoSize 0', [1, VnetGso.tcpv4, 54, 0, 34, 16], Drop.vnetGsoSize],
  ['hdrLen beyond the frame', [1, VnetGso.tcpv4, 101, 29, 34, 16], Drop.vnetHdrLen],
  ['hdrLen of the whole frame', [1, VnetGso.tcpv4, 100, 29, 34, 16], 0],
])('check of 100 bytes: %s', (_name, fields, result) => {
  const pool = poolWith(new Uint8Array(VNET_BYTES));
  vnetWrite(pool, AT, ...fields);
  expect(vnetCheck(pool, AT, 100)).toBe(result);
});

it('an accepted header: its checksum field lies inside the frame', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 12, maxLength: 12 }), fc.nat(70000), (header, frameBytes) => {
      const pool = poolWith(header);
      if (vnetCheck(pool, AT, frameBytes) < 0 || (vnetFlags(pool, AT) & VnetFlag.needsCsum) === 0)
        return true;
      return vnetCsumStart(pool, AT) + vnetCsumOffset(pool, AT) + 2 <= frameBytes;
    }),
  );
});

describe('vnetFinishChecksum', () => {
  /** 12 bytes of header, an Ethernet frame whose inner checksum at 50 + 6 covers 50..end. */
  const frame = (bytes: number): Uint8Array => {
    const u8 = Uint8Array.from({ length: VNET_BYTES + bytes }, (_, i) => (i * 37) & 0xff);
    vnetWrite(u8, 0, VnetFlag.needsCsum, VnetGso.none, 0, 0, 50, 6);
    return u8;
  };

  it.each([
    [100, 100],
    [101, 101],
    [101, 70],
    [101, 71],
  ])(
    '%i bytes, %i of them in the first piece: the sum from csumStart on is right afterwards',
    (bytes, first) => {
      const u8 = new Uint8Array(400);
      const whole = frame(bytes);
      u8.set(whole.subarray(0, VNET_BYTES + first));
      u8.set(whole.subarray(VNET_BYTES + first), 300);
      expect(vnetFinishChecksum(u8, 0, first, 300, bytes - first)).toBe(true);
      // The field held the sum of the pseudo header, which is part of the total; the complement replaces it:
      // folded together they cancel out.
      const seed = (whole[VNET_BYTES + 56]! << 8) | whole[VNET_BYTES + 57]!;
      expect(finishSum(onesSumPieces(u8, VNET_BYTES + 50, first - 50, 300, bytes - first, seed))).toBe(0);
    },
  );

  it('a sum of 0: written as 0xffff, for 0 in UDP means no checksum', () => {
    const u8 = frame(100);
    u8.fill(0, VNET_BYTES + 50);
    u8.set([0xff, 0xff], VNET_BYTES + 60);
    expect(vnetFinishChecksum(u8, 0, 100, 0, 0)).toBe(true);
    expect(Array.from(u8.subarray(VNET_BYTES + 56, VNET_BYTES + 58))).toEqual([0xff, 0xff]);
  });

  it('a field that crosses the end of the first piece: not written', () => {
    const u8 = frame(100);
    expect(vnetFinishChecksum(u8, 0, 57, 57 + VNET_BYTES, 43)).toBe(false);
    expect(u8).toEqual(frame(100));
  });

  it('a field beyond the first piece: not written', () => {
    const u8 = frame(100);
    expect(vnetFinishChecksum(u8, 0, 57, 0, 0)).toBe(false);
    expect(u8).toEqual(frame(100));
  });
});
