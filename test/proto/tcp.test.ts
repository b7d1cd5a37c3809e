// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { finishSum, onesSum, pseudoSum4 } from '../../src/proto/checksum.ts';
import { Drop } from '../../src/proto/drop.ts';
import {
  newTcpOptions,
  TCP_CHECKSUM,
  TCP_MAX_BYTES,
  TCP_MIN_BYTES,
  TcpFlag,
  type TcpOptions,
  tcpAck,
  tcpChecksum,
  tcpDstPort,
  tcpFlags,
  tcpHeaderBytes,
  tcpOptions,
  tcpSackWrite,
  tcpSeq,
  tcpSrcPort,
  tcpSynOptionsWrite,
  tcpUrgent,
  tcpWindow,
  tcpWrite,
} from '../../src/proto/tcp.ts';
import { FRAME_AT as AT, poolWith, readsOnlyItsFrame, slice, u8, u16, u32, wire } from './vector.ts';

const syn = wire(`
  c3 50 00 50   // srcPort 50000, dstPort 80
  12 34 56 78   // seq
  00 00 00 00   // ack
  a0 02 fa f0   // dataOffset 10, SYN, window 64240
  00 00 00 00   // checksum, urgent
  02 04 05 b4   // MSS 1460
  04 02         // SACK permitted
  08 0a 00 01 02 03 00 00 00 00   // timestamps: val 0x10203, ecr 0
  01            // NOP
  03 03 07      // window scale 7
`);
const sack = wire(`
  00 50 c3 50 00 00 00 01 12 34 56 79
  d0 10 01 f5 00 00 00 00    // dataOffset 13, ACK
  01 01 08 0a 00 00 00 05 00 00 00 09   // NOP NOP timestamps 5, 9
  01 01 05 12                           // NOP NOP SACK, 2 blocks
  ff ff ff f0 00 00 00 10               // across the wrap
  00 00 01 00 00 00 02 00
`);

const options = (header: Uint8Array, into: TcpOptions = newTcpOptions()): unknown => {
  const pool = poolWith(header);
  tcpOptions(pool, AT, tcpHeaderBytes(pool, AT, header.length), into);
  const { sackLeft, sackRight, ...rest } = into;
  const blocks = Array.from({ length: into.sackCount }, (_, i) => [sackLeft[i], sackRight[i]]);
  return { ...rest, blocks };
};
const none = {
  mss: 0,
  wscale: -1,
  sackPermitted: false,
  hasMptcp: false,
  hasTs: false,
  tsVal: 0,
  tsEcr: 0,
  sackCount: 0,
  blocks: [],
};

/** A header with these option bytes, padded with END. */
const withOptions = (text: string): Uint8Array => {
  const bytes = wire(text);
  const header = new Uint8Array(TCP_MIN_BYTES + ((bytes.length + 3) & ~3));
  header[12] = (header.length >>> 2) << 4;
  header.set(bytes, TCP_MIN_BYTES);
  return header;
};

describe('tcpHeaderBytes', () => {
  it('accepts headers of 20 to 60 bytes', () => {
    for (let words = 5; words <= 15; words++) {
      const header = new Uint8Array(60);
      header[12] = words << 4;
      expect(tcpHeaderBytes(poolWith(header), AT, 60)).toBe(words * 4);
    }
    expect(TCP_MAX_BYTES).toBe(60);
  });

  it.each<[string, number, number, number]>([
    ['19 bytes', 0x50, 19, Drop.short],
    ['dataOffset 4', 0x40, 20, Drop.tcpOffset],
    ['dataOffset 0', 0x00, 20, Drop.tcpOffset],
    ['dataOffset beyond the segment', 0x60, 23, Drop.tcpOffset],
  ])('drops %s', (_name, offset, avail, drop) => {
    const header = new Uint8Array(60);
    header[12] = offset;
    expect(tcpHeaderBytes(poolWith(header), AT, avail)).toBe(drop);
  });
});

it('fields of a SYN', () => {
  const pool = poolWith(syn);
  expect(tcpHeaderBytes(pool, AT, syn.length)).toBe(40);
  expect([tcpSrcPort(pool, AT), tcpDstPort(pool, AT)]).toEqual([50000, 80]);
  expect([tcpSeq(pool, AT), tcpAck(pool, AT)]).toEqual([0x12345678, 0]);
  expect([tcpFlags(pool, AT), tcpWindow(pool, AT), tcpUrgent(pool, AT)]).toEqual([TcpFlag.syn, 64240, 0]);
});

describe('tcpOptions', () => {
  it('all options of a SYN', () => {
    expect(options(syn)).toEqual({
      ...none,
      mss: 1460,
      wscale: 7,
      sackPermitted: true,
      hasTs: true,
      tsVal: 0x10203,
    });
  });

  it('SACK blocks and timestamps', () => {
    expect(options(sack)).toEqual({
      ...none,
      hasTs: true,
      tsVal: 5,
      tsEcr: 9,
      sackCount: 2,
      blocks: [
        [0xfffffff0, 0x10],
        [0x100, 0x200],
      ],
    });
  });

  it('called again: no value of the earlier call remains', () => {
    const reused = newTcpOptions();
    options(syn, reused);
    options(sack, reused);
    expect(options(withOptions(''), reused)).toEqual(none);
  });

  it.each<[string, string, object]>([
    ['a shift above 14 is 14', '03 03 0f', { wscale: 14 }],
    ['END ends the walk', '00 02 04 05 b4', {}],
    ['length 0 ends the walk', '02 04 05 b4 08 00 03 03 07 01', { mss: 1460 }],
    ['length 1 ends the walk', '02 04 05 b4 08 01 03 03 07 01', { mss: 1460 }],
    ['a length past the header ends the walk', '03 03 01 01 02 05 05 b4', { wscale: 1 }],
    ['an option cut by the end of the header is none', '03 03 01 01 01 01 02 04', { wscale: 1 }],
    ['a kind as last byte has no length', '03 03 01 02', { wscale: 1 }],
    ['a known option of the wrong length is skipped', '02 03 05 03 03 02 04 03 00', { wscale: 2 }],
    ['unknown kinds are skipped by length', '1d 05 aa bb cc 22 02 02 04 02 18', { mss: 536 }],
    ['MP_CAPABLE of a SYN', '1e 04 01 01 03 03 07', { hasMptcp: true, wscale: 7 }],
    [
      'four SACK blocks',
      `05 22 ${'00000001 00000002 '.repeat(4)}`,
      { sackCount: 4, blocks: Array(4).fill([1, 2]) },
    ],
    ['SACK without a block', '05 02', {}],
    ['SACK cut within a block', '05 0e 00000001 00000002 00000003', {}],
    ['the last of two', '02 04 01 00 02 04 02 00', { mss: 512 }],
  ])('%s', (_name, text, expected) => {
    expect(options(withOptions(text))).toEqual({ ...none, ...expected });
  });
});

describe('writers', () => {
  it('tcpWrite and tcpSynOptionsWrite', () => {
    const pool = poolWith(new Uint8Array(32));
    const optionBytes = tcpSynOptionsWrite(pool, AT + 20, 1460, 7, true);
    tcpWrite(pool, AT, 80, 50000, 0xfffffffe, 0x12345679, 20 + optionBytes, TcpFlag.syn | TcpFlag.ack, 65535);
    expect(slice(pool, AT, 32)).toEqual(
      wire(`
        00 50 c3 50              // srcPort 80, dstPort 50000
        ff ff ff fe 12 34 56 79  // seq, ack
        80 12 ff ff              // dataOffset 8, SYN ACK, window
        00 00 00 00              // checksum, urgent
        02 04 05 b4              // MSS 1460
        01 01 04 02              // NOP NOP SACK permitted
        01 03 03 07              // NOP window scale 7
      `),
    );
  });

  it('decode(encode(x)) = x, other bytes unchanged', () => {
    fc.assert(
      fc.property(u16, u16, u32, u32, u8, u16, (srcPort, dstPort, seq, ack, flags, window) => {
        const pool = poolWith(new Uint8Array(20));
        tcpWrite(pool, AT, srcPort, dstPort, seq, ack, 20, flags, window);
        expect(tcpHeaderBytes(pool, AT, 20)).toBe(20);
        expect([
          tcpSrcPort(pool, AT),
          tcpDstPort(pool, AT),
          tcpSeq(pool, AT),
          tcpAck(pool, AT),
          tcpFlags(pool, AT),
          tcpWindow(pool, AT),
          tcpChecksum(pool, AT),
          tcpUrgent(pool, AT),
        ]).toEqual([srcPort, dstPort, seq, ack, flags, window, 0, 0]);
        expect([pool[AT - 1], pool[AT + 20]]).toEqual([0xa5, 0xa5]);
      }),
    );
  });

  it('SYN options: decode(encode(x)) = x', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 65535 }),
        fc.integer({ min: -1, max: 14 }),
        fc.boolean(),
        (mss, wscale, sackPermitted) => {
          const header = new Uint8Array(60);
          const optionBytes = tcpSynOptionsWrite(header, 20, mss, wscale, sackPermitted);
          expect(optionBytes % 4).toBe(0);
          tcpWrite(header, 0, 1, 2, 3, 4, 20 + optionBytes, TcpFlag.syn, 5);
          expect(options(header.subarray(0, 20 + optionBytes))).toEqual({
            ...none,
            mss,
            wscale,
            sackPermitted,
          });
        },
      ),
    );
  });

  it('SACK blocks: decode(encode(x)) = x', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(u32, u32), { maxLength: 4 }), (blocks) => {
        const header = new Uint8Array(60);
        const left = Uint32Array.from([...blocks.map(([edge]) => edge), 99]);
        const right = Uint32Array.from([...blocks.map(([, edge]) => edge), 99]);
        const optionBytes = tcpSackWrite(header, 20, left, right, blocks.length);
        expect(optionBytes).toBe(blocks.length === 0 ? 0 : 4 + 8 * blocks.length);
        tcpWrite(header, 0, 1, 2, 3, 4, 20 + optionBytes, TcpFlag.ack, 5);
        expect(options(header.subarray(0, 20 + optionBytes))).toEqual({
          ...none,
          sackCount: blocks.length,
          blocks,
        });
      }),
    );
  });

  it('a SYN with options: its checksum verifies', () => {
    const pool = new Uint8Array(64);
    const headerBytes = 20 + tcpSynOptionsWrite(pool, 20, 1400, 10, true);
    tcpWrite(pool, 0, 1000, 2000, 7, 0, headerBytes, TcpFlag.syn, 65535);
    const pseudo = pseudoSum4(0x0a000264, 0xc0000201, 6, headerBytes);
    const checksum = finishSum(onesSum(pool, 0, headerBytes, pseudo));
    pool[TCP_CHECKSUM] = checksum >>> 8;
    pool[TCP_CHECKSUM + 1] = checksum;
    expect(finishSum(onesSum(pool, 0, headerBytes, pseudo))).toBe(0);
    expect(tcpChecksum(pool, 0)).toBe(checksum);
  });
});

it('never reads outside its frame', () => {
  const out = newTcpOptions();
  readsOnlyItsFrame(
    [syn, sack, withOptions('03 03 07 02'), withOptions('02 04 05 b4 01 01 02 04')],
    (pool, at, bytes) => {
      const headerBytes = tcpHeaderBytes(pool, at, bytes);
      if (headerBytes < 0) return headerBytes;
      tcpOptions(pool, at, headerBytes, out);
      return [
        headerBytes,
        tcpSrcPort(pool, at),
        tcpSeq(pool, at),
        tcpAck(pool, at),
        tcpFlags(pool, at),
        tcpUrgent(pool, at),
        {
          ...out,
          sackLeft: out.sackLeft.slice(0, out.sackCount),
          sackRight: out.sackRight.slice(0, out.sackCount),
        },
      ];
    },
    800,
  );
});
