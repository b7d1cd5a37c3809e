// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addressParse, addressWrite } from '../../src/proto/address.ts';
import { finishSum, onesSum } from '../../src/proto/checksum.ts';
import { Drop } from '../../src/proto/drop.ts';
import {
  ICMP_BYTES,
  IcmpType,
  IcmpUnreachable,
  icmpCheck,
  icmpChecksumWrite,
  icmpCode,
  icmpEchoId,
  icmpEchoIdWrite,
  icmpEchoReplyInPlace,
  icmpEchoSeq,
  icmpErrorWrite,
  icmpType,
} from '../../src/proto/icmp.ts';
import { Icmp6Type, icmp6Check, icmp6ChecksumWrite } from '../../src/proto/icmpv6.ts';
import { IPV6_DST, IPV6_SRC, ipv6Write } from '../../src/proto/ipv6.ts';
import { icmpInfo } from './fields.ts';
import { FRAME_AT as AT, poolWith, readsOnlyItsFrame, slice, u16, u32, wire } from './vector.ts';

const ping = wire(`
  08 00 00 00   // type 8 (echo request), code 0, checksum filled below
  12 34 00 01   // ident 0x1234, sequence 1
  61 62 63 64 65   // data, odd length
`);

describe('ICMP', () => {
  const checked = poolWith(ping);
  icmpChecksumWrite(checked, AT, ping.length);
  const echo = slice(checked, AT, ping.length);

  it('fields of an echo request', () => {
    const pool = poolWith(echo);
    expect(icmpCheck(pool, AT, echo.length)).toBe(0);
    expect([icmpType(pool, AT), icmpCode(pool, AT), icmpEchoId(pool, AT), icmpEchoSeq(pool, AT)]).toEqual([
      IcmpType.echoRequest,
      0,
      0x1234,
      1,
    ]);
    // 0800 + 1234 + 0001 + 6162 + 6364 + 6500 = 143fb, folded 43fc, complement bc03
    expect(slice(pool, AT + 2, 2)).toEqual(wire('bc 03'));
  });

  it('short or corrupt: dropped', () => {
    const pool = poolWith(echo);
    expect(icmpCheck(pool, AT, 7)).toBe(Drop.short);
    pool[AT + 9]! ^= 0x40;
    expect(icmpCheck(pool, AT, echo.length)).toBe(Drop.icmpChecksum);
  });

  it('echo reply, any data: the checksum is right', () => {
    fc.assert(
      fc.property(u16, u16, fc.uint8Array({ maxLength: 100 }), (ident, sequence, data) => {
        const message = Uint8Array.from([
          8,
          0,
          0,
          0,
          ident >>> 8,
          ident & 255,
          sequence >>> 8,
          sequence & 255,
          ...data,
        ]);
        const pool = poolWith(message);
        icmpChecksumWrite(pool, AT, message.length);
        expect(icmpEchoReplyInPlace(pool, AT, message.length, IcmpType.echoReply)).toBe(message.length);
        expect(icmpCheck(pool, AT, message.length)).toBe(0);
        expect([icmpType(pool, AT), icmpEchoId(pool, AT), icmpEchoSeq(pool, AT)]).toEqual([
          IcmpType.echoReply,
          ident,
          sequence,
        ]);
        expect(slice(pool, AT + 8, data.length)).toEqual(data);
      }),
    );
  });

  it('a corrupt request: the checksum of the reply is wrong too', () => {
    const pool = poolWith(echo);
    pool[AT + 9]! ^= 0x40;
    icmpEchoReplyInPlace(pool, AT, echo.length, IcmpType.echoReply);
    expect(icmpCheck(pool, AT, echo.length)).toBe(Drop.icmpChecksum);
  });

  it('another identifier is written: the checksum stays right', () => {
    fc.assert(
      fc.property(u16, (ident) => {
        const pool = poolWith(echo);
        icmpEchoIdWrite(pool, AT, ident);
        return icmpEchoId(pool, AT) === ident && icmpCheck(pool, AT, echo.length) === 0;
      }),
    );
  });

  it('an error: quotes the packet, all fields and checksums are right', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 128 }), u32, (quoted, info) => {
        const pool = poolWith(new Uint8Array(400));
        pool.set(quoted, AT + 200);
        const bytes = icmpErrorWrite(
          pool,
          AT,
          IcmpType.unreachable,
          IcmpUnreachable.fragmentationNeeded,
          info,
          AT + 200,
          quoted.length,
        );
        expect(bytes).toBe(ICMP_BYTES + quoted.length);
        icmpChecksumWrite(pool, AT, bytes);
        expect(icmpCheck(pool, AT, bytes)).toBe(0);
        expect([icmpType(pool, AT), icmpCode(pool, AT), icmpInfo(pool, AT)]).toEqual([3, 4, info]);
        expect(slice(pool, AT + 8, quoted.length)).toEqual(quoted);
        expect(pool[AT + bytes]).toBe(0);
      }),
    );
  });

  it('an error written over the packet that it quotes: the same bytes', () => {
    const pool = poolWith(Uint8Array.from({ length: 64 }, (_, i) => i));
    const bytes = icmpErrorWrite(pool, AT, IcmpType.timeExceeded, 0, 0, AT, 28);
    icmpChecksumWrite(pool, AT, bytes);
    expect(slice(pool, AT + 8, 28)).toEqual(Uint8Array.from({ length: 28 }, (_, i) => i));
    expect(icmpCheck(pool, AT, bytes)).toBe(0);
  });

  it('never reads outside its frame', () => {
    readsOnlyItsFrame([echo], (pool, at, bytes) => {
      const result = icmpCheck(pool, at, bytes);
      return result < 0 ? result : [icmpType(pool, at), icmpCode(pool, at), icmpInfo(pool, at)];
    });
  });
});

describe('ICMPv6', () => {
  /** An IPv6 header followed by `message`, with its checksum. */
  const packet = (message: Uint8Array, dst = '2001:db8::1'): Uint8Array => {
    const pool = new Uint8Array(40 + message.length);
    const words = new Uint32Array(8);
    addressParse('fd00::64', words, 0);
    addressParse(dst, words, 4);
    ipv6Write(pool, 0, message.length, 58, 64, 0);
    addressWrite(pool, IPV6_SRC, words, 0);
    addressWrite(pool, IPV6_DST, words, 4);
    pool.set(message, 40);
    icmp6ChecksumWrite(pool, 0, 40, message.length);
    return pool;
  };
  const ICMP_AT = AT + 40;
  const echo = packet(wire('80 00 00 00 12 34 00 07 61 62 63'));

  it('fields and checksum of an echo request', () => {
    const pool = poolWith(echo);
    expect(icmp6Check(pool, AT, ICMP_AT, 11)).toBe(0);
    expect([icmpType(pool, ICMP_AT), icmpCode(pool, ICMP_AT)]).toEqual([Icmp6Type.echoRequest, 0]);
    expect([icmpEchoId(pool, ICMP_AT), icmpEchoSeq(pool, ICMP_AT)]).toEqual([0x1234, 7]);
    // pseudo: fd00 + 0064 + 2001 + 0db8 + 0001 + 000b + 003a; message: 8000 + 1234 + 0007 + 6162 + 6300
    // 12b63 + 1569d = 28200, folded 8202, complement 7dfd
    expect(slice(pool, ICMP_AT + 2, 2)).toEqual(wire('7d fd'));
  });

  it('short, corrupt, or with other addresses: dropped', () => {
    const pool = poolWith(echo);
    expect(icmp6Check(pool, AT, ICMP_AT, 7)).toBe(Drop.short);
    pool[AT + IPV6_DST + 15]! ^= 1;
    expect(icmp6Check(pool, AT, ICMP_AT, 11)).toBe(Drop.icmp6Checksum);
  });

  it('echo reply between the same two addresses: the checksum is right', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (data) => {
        const request = packet(Uint8Array.from([128, 0, 0, 0, 1, 2, 3, 4, ...data]));
        const bytes = 8 + data.length;
        const pool = poolWith(request);
        expect(icmpEchoReplyInPlace(pool, ICMP_AT, bytes, Icmp6Type.echoReply)).toBe(bytes);
        pool.copyWithin(AT + IPV6_DST, AT + IPV6_SRC, AT + IPV6_DST);
        pool.set(request.subarray(IPV6_DST, 40), AT + IPV6_SRC);
        expect(icmp6Check(pool, AT, ICMP_AT, bytes)).toBe(0);
        expect(icmpType(pool, ICMP_AT)).toBe(Icmp6Type.echoReply);
      }),
    );
  });

  it('an error: quotes the packet; the checksum is right once the addresses are known', () => {
    const pool = poolWith(new Uint8Array(300));
    pool.set(packet(new Uint8Array(48)).subarray(0, 40), AT);
    pool.set(echo, AT + 150);
    const bytes = icmpErrorWrite(pool, ICMP_AT, Icmp6Type.packetTooBig, 0, 1280, AT + 150, echo.length);
    expect(bytes).toBe(8 + echo.length);
    expect(finishSum(onesSum(pool, ICMP_AT + 2, 2, 0))).toBe(0xffff);
    icmp6ChecksumWrite(pool, AT, ICMP_AT, bytes);
    expect(icmp6Check(pool, AT, ICMP_AT, bytes)).toBe(0);
    expect([icmpType(pool, ICMP_AT), icmpInfo(pool, ICMP_AT)]).toEqual([2, 1280]);
    expect(slice(pool, ICMP_AT + 8, echo.length)).toEqual(echo);
  });

  it('never reads outside its frame', () => {
    readsOnlyItsFrame([echo], (pool, at, bytes) =>
      bytes < 40 ? null : icmp6Check(pool, at, at + 40, bytes - 40),
    );
  });
});
