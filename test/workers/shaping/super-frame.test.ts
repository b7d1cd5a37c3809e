// @vitest: beside
/** GSO frames that are cut for a line: headers of each part, and what the line does to the packets. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { finishSum, foldSum, onesSum, pseudoSum4, pseudoSum6At } from '../../../src/proto/checksum.ts';
import { ipv4ChecksumOk } from '../../../src/proto/ipv4.ts';
import { VNET_BYTES, VnetFlag, VnetGso, vnetFinishChecksum, vnetWrite } from '../../../src/proto/vnethdr.ts';
import { COUNTER_WORDS, Counter } from '../../../src/ring/counters.ts';
import type { LinePlan } from '../../../src/workers/engine-plan.ts';
import { Lines } from '../../../src/workers/shaping/lines.ts';
import { SuperFrame } from '../../../src/workers/shaping/super-frame.ts';
import { OPEN_LINE } from './line-plan.ts';

const IP_AT = VNET_BYTES + 14;
const FLAGS = 0x99; // CWR, ACK, PSH, FIN
const SEQ = 0xffff_fff0;

interface Kind {
  readonly isV6: boolean;
  readonly isTcp: boolean;
}

/** Ethernet, IP and transport header: 54 bytes or more with the vnet header. */
const headOf = ({ isV6, isTcp }: Kind): number => IP_AT + (isV6 ? 40 : 20) + (isTcp ? 32 : 8);

/** A frame as a kernel makes it; byte i of the payload is i * 7. */
function superFrame(kind: Kind, payloadBytes: number, gsoSize: number): Uint8Array {
  const { isV6, isTcp } = kind;
  const head = headOf(kind);
  const u8 = new Uint8Array(head + payloadBytes);
  const view = new DataView(u8.buffer);
  const upperAt = IP_AT + (isV6 ? 40 : 20);
  const upperBytes = u8.length - upperAt;
  const gsoType = isTcp ? (isV6 ? VnetGso.tcpv6 : VnetGso.tcpv4) : VnetGso.udpL4;
  const field = isTcp ? 16 : 6;
  vnetWrite(u8, 0, VnetFlag.needsCsum, gsoType, head - VNET_BYTES, gsoSize, upperAt - VNET_BYTES, field);
  view.setUint16(IP_AT - 2, isV6 ? 0x86dd : 0x0800);
  const protocol = isTcp ? 6 : 17;
  if (isV6) {
    u8.set([0x60, 0, 0, 0, upperBytes >> 8, upperBytes & 255, protocol, 64], IP_AT);
    u8.set([0xfd, 0, 1], IP_AT + 8);
    u8.set([0x20, 1, 2], IP_AT + 24);
  } else {
    u8.set([0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 2, 192, 0, 2, 1], IP_AT);
    view.setUint16(IP_AT + 2, u8.length - IP_AT);
    view.setUint16(IP_AT + 10, finishSum(onesSum(u8, IP_AT, 20, 0)));
  }
  if (isTcp) {
    view.setUint32(upperAt + 4, SEQ);
    u8[upperAt + 12] = 8 << 4;
    u8[upperAt + 13] = FLAGS;
  } else view.setUint16(upperAt + 4, upperBytes);
  const sum = pseudo(u8, isV6, protocol, upperBytes);
  view.setUint16(upperAt + field, foldSum(sum));
  for (let i = 0; i < payloadBytes; i++) u8[head + i] = i * 7;
  return u8;
}

function pseudo(u8: Uint8Array, isV6: boolean, protocol: number, upperBytes: number): number {
  const view = new DataView(u8.buffer, u8.byteOffset);
  return isV6
    ? pseudoSum6At(u8, IP_AT + 8, IP_AT + 24, protocol, upperBytes)
    : pseudoSum4(view.getUint32(IP_AT + 12), view.getUint32(IP_AT + 16), protocol, upperBytes);
}

/** Check a part as a receiver would. */
function checkPart(part: Uint8Array, kind: Kind, first: number, packets: number, all: SuperFrame): void {
  const view = new DataView(part.buffer, part.byteOffset, part.length);
  const upperAt = IP_AT + (kind.isV6 ? 40 : 20);
  const upperBytes = part.length - upperAt;
  expect([part[1], view.getUint16(4, true)]).toEqual(
    packets === 1 ? [0, 0] : [superFrame(kind, 1, 1)[1], all.gsoSize],
  );
  if (kind.isV6) expect(view.getUint16(IP_AT + 4)).toBe(upperBytes);
  else {
    expect(view.getUint16(IP_AT + 2)).toBe(part.length - IP_AT);
    expect(view.getUint16(IP_AT + 4)).toBe((0x1234 + first) & 0xffff);
    expect(ipv4ChecksumOk(part, IP_AT, 20)).toBe(true);
  }
  if (kind.isTcp) {
    expect(view.getUint32(upperAt + 4)).toBe((SEQ + first * all.gsoSize) >>> 0);
    const isLast = first + packets === all.packets;
    expect(part[upperAt + 13]).toBe(FLAGS & (first > 0 ? ~0x80 : ~0) & (isLast ? ~0 : ~0x09));
  } else expect(view.getUint16(upperAt + 4)).toBe(upperBytes);
  const whole = part.slice();
  expect(vnetFinishChecksum(whole, 0, whole.length - VNET_BYTES, 0, 0)).toBe(true);
  const sum = pseudo(whole, kind.isV6, kind.isTcp ? 6 : 17, upperBytes);
  expect(finishSum(onesSum(whole, upperAt, upperBytes, sum))).toBe(0);
  const head = headOf(kind);
  for (let i = head; i < part.length; i += 97)
    expect(part[i]).toBe(((first * all.gsoSize + i - head) * 7) & 255);
}

const kinds = fc.record({ isV6: fc.boolean(), isTcp: fc.boolean() });

it('any parts: lengths, numbers, flags and checksums are right, and all payload is there once', () => {
  fc.assert(
    fc.property(
      kinds,
      fc.integer({ min: 1, max: 20_000 }),
      fc.integer({ min: 40, max: 9000 }),
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
      (kind, payloadBytes, gsoSize, sizes) => {
        const u8 = superFrame(kind, payloadBytes, gsoSize);
        const all = new SuperFrame();
        expect(all.parse(u8, 0, u8.length)).toBe(true);
        expect(all.packets).toBe(Math.ceil(payloadBytes / gsoSize));
        let sum = 0;
        for (let first = 0, i = 0; first < all.packets; i++) {
          const n = Math.min(sizes[i % sizes.length]!, all.packets - first);
          const bytes = all.payloadOf(first, n);
          const from = all.headBytes + first * gsoSize;
          const part = Uint8Array.of(...u8.subarray(0, all.headBytes), ...u8.subarray(from, from + bytes));
          all.writeHeaders(part, 0, first, n);
          checkPart(part, kind, first, n, all);
          expect(all.lineBytes(first, n)).toBe(n * (all.headBytes - VNET_BYTES) + bytes);
          sum += bytes;
          first += n;
        }
        expect(sum).toBe(payloadBytes);
      },
    ),
    { numRuns: 100 },
  );
});

it('what is malformed, or no GSO frame, is not cut; nothing is read beyond the frame', () => {
  const kind = { isV6: false, isTcp: true };
  const good = superFrame(kind, 4000, 1400);
  const all = new SuperFrame();
  const isCut = (change: (u8: Uint8Array) => void, bytes = good.length): boolean => {
    const u8 = good.slice(0, bytes);
    change(u8);
    return all.parse(u8, 0, bytes);
  };
  expect(isCut(() => {})).toBe(true);
  for (let bytes = 0; bytes <= headOf(kind); bytes++) expect(isCut(() => {}, bytes)).toBe(false);
  const changes: ((u8: Uint8Array) => void)[] = [
    (u8) => (u8[0] = 0), // no partial checksum
    (u8) => (u8[1] = VnetGso.none),
    (u8) => (u8[1] = VnetGso.tcpv6), // another family
    (u8) => (u8[1] = VnetGso.udp),
    (u8) => u8.fill(0, 4, 6), // segments of 0 bytes
    (u8) => u8.set([1, 0], 4), // 4,000 packets
    (u8) => (u8[6] = 20), // the transport header in the IP header
    (u8) => u8.fill(0xff, 6, 8),
    (u8) => (u8[IP_AT] = 0x4f),
    (u8) => (u8[IP_AT + 20 + 12] = 0x40), // a TCP header of 16 bytes
  ];
  for (const change of changes) expect(isCut(change), change.toString()).toBe(false);
});

describe('on a line', () => {
  const KIND = { isV6: false, isTcp: true };
  const EACH = headOf(KIND) - VNET_BYTES + 1448; // 1,514
  interface Arrival {
    readonly ms: number;
    readonly bytes: number;
    readonly packets: number;
    readonly u8: Uint8Array;
  }
  const run = (plan: Partial<LinePlan>, segments: number, counters = new Float64Array(COUNTER_WORDS)) => {
    const line = { ...OPEN_LINE, ...plan };
    const lines = new Lines(
      { seed: 1, rest: { fromGuest: line, toGuest: line }, rules: [] },
      'toGuest',
      counters,
      12,
    );
    const u8 = superFrame(KIND, segments * 1448, 1448);
    lines.frame.u8.set(u8);
    lines.enter(u8.length, 0);
    const list: Arrival[] = [];
    for (let ms = lines.nextMs(); ms < 1e9; ms = lines.nextMs()) {
      const due = lines.due(ms)!;
      const frame = due.u8.slice(due.frameAt, due.frameAt + due.frameBytes);
      const packets = Math.max(1, (frame.length - headOf(KIND)) / 1448);
      list.push({ ms, bytes: frame.length, packets, u8: frame });
      due.release();
    }
    return list;
  };

  it('100 Mbit/s: single packets, each in its time', () => {
    const list = run({ bytesPerSecond: 12.5e6, delayMs: 5 }, 20);
    expect(list.map(({ packets }) => packets)).toEqual(new Array(20).fill(1));
    for (const [i, { ms }] of list.entries()) expect(ms).toBeCloseTo(5 + (i + 1) * (EACH / 12_500), 9);
  });

  it('1 Gbit/s: as many together as take 0.1 ms, at the time of the last', () => {
    const list = run({ bytesPerSecond: 125e6 }, 20);
    expect(list.map(({ packets }) => packets)).toEqual([8, 8, 4]);
    for (const [i, n] of [8, 16, 20].entries()) expect(list[i]!.ms).toBeCloseTo((n * EACH) / 125_000, 9);
  });

  it('a delay alone: all together', () => {
    expect(run({ delayMs: 7 }, 40).map(({ ms, packets }) => [ms, packets])).toEqual([[7, 40]]);
  });

  it('queue: the packets that have room are carried, the others counted', () => {
    const counters = new Float64Array(COUNTER_WORDS);
    const list = run({ bytesPerSecond: 125e6, queueBytes: 10.5 * EACH }, 30, counters);
    expect(list.reduce((sum, { packets }) => sum + packets, 0)).toBe(10);
    expect(counters[Counter.lineFullToGuest]).toBe(20);
    expect(run({ bytesPerSecond: 125e6, queuePackets: 3 }, 30).length).toBe(1);
  });

  it.each<[string, Partial<LinePlan>]>([
    ['loss', { loss: { goodToBad: 0, badToGood: 0, lossGood: 0.3, lossBad: 0 } }],
    ['jitter', { delayMs: 9, jitterMs: 1 }],
    ['duplicate', { duplicate: 0.3 }],
    ['reorder', { reorder: 0.3 }],
  ])('%s: single packets', (_, plan) => {
    const list = run(plan, 40);
    expect(list.length).toBeGreaterThan(15);
    expect(list.every(({ packets }) => packets === 1)).toBe(true);
  });

  it('corrupt: single packets whose checksum is complete, and does not fit', () => {
    for (const { u8, bytes } of run({ corrupt: 1 }, 10)) {
      expect([bytes, u8[0], u8[1]]).toEqual([EACH + VNET_BYTES, 0, 0]);
      const upperAt = IP_AT + 20;
      const sum = onesSum(u8, upperAt, bytes - upperAt, pseudo(u8, false, 6, bytes - upperAt));
      expect(finishSum(sum) === 0 && ipv4ChecksumOk(u8, IP_AT, 20)).toBe(false);
    }
  });

  it('max-packet: by the length of each packet', () => {
    const counters = new Float64Array(COUNTER_WORDS);
    expect(run({ maxPacketBytes: 1499 }, 5, counters)).toHaveLength(0);
    expect(counters[Counter.lineTooLong]).toBe(5);
    expect(run({ maxPacketBytes: 1500 }, 5)).toHaveLength(1);
  });
});
