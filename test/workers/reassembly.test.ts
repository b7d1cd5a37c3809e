// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { writeU16 } from '../../src/proto/be.ts';
import { finishSum, onesSum } from '../../src/proto/checksum.ts';
import { Counter } from '../../src/ring/counters.ts';
import { NO_SLOT } from '../../src/ring/pool.ts';
import { Reassembler } from '../../src/workers/tap/reassembly.ts';
import { ip6, ipPacket, pattern, readIp, udpPacket } from '../support/packets.ts';
import { ShardRig, TEST_PLAN } from '../support/shard-rig.ts';

const SRC = '10.0.2.15';
const DST = '192.0.2.9';
const SRC6 = 'fd00::15';
const DST6 = '2001:db8::9';
const MF = 0x2000;

interface Part {
  readonly from: number;
  readonly to: number;
}

/** Cut an upper-layer message at multiples of 8. */
function parts(bytes: number, size: number): Part[] {
  const out: Part[] = [];
  for (let from = 0; from < bytes; from += size) out.push({ from, to: Math.min(from + size, bytes) });
  return out;
}

function fragment4(
  upper: Uint8Array,
  part: Part,
  ident = 7,
  more = part.to < upper.length,
  protocol = 17,
): Uint8Array {
  const flagsFrag = (more ? MF : 0) | (part.from >> 3);
  return ipPacket(SRC, DST, protocol, upper.subarray(part.from, part.to), { ident, flagsFrag });
}

function fragment6(upper: Uint8Array, part: Part, ident = 7, more = part.to < upper.length): Uint8Array {
  const head = [17, 0, (part.from >> 8) & 0xff, (part.from & 0xf8) | (more ? 1 : 0), 0, 0, 0, ident];
  return ipPacket(SRC6, DST6, 44, [...head, ...upper.subarray(part.from, part.to)]);
}

class Bench {
  readonly rig = new ShardRig({ ...TEST_PLAN, pool: { ...TEST_PLAN.pool, largeSlots: 256 } });
  readonly r = new Reassembler({
    pool: this.rig.pool,
    slots: this.rig.large,
    counters: this.rig.ctx.counters,
  });

  /** Push one packet as a frame in slots. @returns the whole IP packet if this completes one */
  push(ip: Uint8Array, now = 0): Uint8Array | null {
    const p = this.rig.packet(ip);
    const inA = Math.min(ip.length, this.rig.pool.slotBytes(p.slotA) - 26);
    const slot = this.r.push(p.ipAt, inA, ip.length, p.slotB, p.family, now);
    this.rig.ctx.freeReaderSlots(p.slotA, p.slotB);
    if (slot === NO_SLOT) return null;
    expect(this.rig.pool.isSmall(slot)).toBe(false);
    const at = this.rig.pool.slotAt(slot) + this.r.frameAt;
    const whole = this.rig.u8.slice(at + 14, at + this.r.frameBytes);
    this.rig.ctx.freeReaderSlots(slot, NO_SLOT);
    return whole;
  }

  get dropped(): number {
    return this.rig.counter(Counter.fragmentsDropped);
  }
}

const upperOf = (bytes: number): Uint8Array => udpPacket(SRC, 5000, DST, 9, pattern(bytes - 8)).slice(20);

describe('a fragmented datagram', () => {
  it.each(['in order', 'reversed', 'last in the middle'])('IPv4, %s: reassembled', (order) => {
    const b = new Bench();
    const upper = upperOf(5003);
    const list = parts(upper.length, 1480).map((part) => fragment4(upper, part));
    if (order === 'reversed') list.reverse();
    if (order === 'last in the middle') list.splice(1, 0, list.pop()!);
    const results = list.map((ip) => b.push(ip));
    expect(results.slice(0, -1)).toEqual(list.slice(1).map(() => null));
    const ip = readIp(results.at(-1)!);
    expect(ip).toMatchObject({ src: SRC, dst: DST, protocol: 17, fragment: 0, ident: 7 });
    expect(ip.upper).toEqual(upper);
    expect(b.rig.missingSlots).toBe(0);
    expect(b.r.busy).toBe(0);
    expect(b.rig.counter(Counter.fragmentsReassembled)).toBe(1);
  });

  it('IPv6: reassembled without the fragment header', () => {
    const b = new Bench();
    const upper = upperOf(4001);
    const results = parts(upper.length, 1448).map((part) => b.push(fragment6(upper, part)));
    const ip = readIp(results.at(-1)!);
    expect(ip).toMatchObject({ src: SRC6, dst: DST6, protocol: 17, fragment: -1 });
    expect(ip.upper).toEqual(upper);
    expect(b.rig.missingSlots).toBe(0);
  });

  it('IPv6 with destination options before the fragment header: kept, its next header is the upper layer', () => {
    const b = new Bench();
    const upper = upperOf(100);
    const part = (from: number, to: number, more: number): number[] => [
      ...[44, 0, 1, 4, 0, 0, 0, 0], // destination options, PadN
      ...[17, 0, from >> 8, (from & 0xf8) | more, 0, 0, 0, 9],
      ...upper.subarray(from, to),
    ];
    expect(b.push(ipPacket(SRC6, DST6, 60, part(64, 100, 0)))).toBeNull();
    const whole = b.push(ipPacket(SRC6, DST6, 60, part(0, 64, 1)))!;
    expect(whole[6]).toBe(60);
    expect(Array.from(whole.slice(40, 48))).toEqual([17, 0, 1, 4, 0, 0, 0, 0]);
    expect(whole.slice(48)).toEqual(upper);
    expect((whole[4]! << 8) | whole[5]!).toBe(108);
  });

  it('IPv6 atomic fragment: passed on at once, others with its identification are not affected', () => {
    const b = new Bench();
    const upper = upperOf(64);
    expect(b.push(fragment6(upper, { from: 0, to: 32 }, 5))).toBeNull();
    const atomic = readIp(b.push(fragment6(upper, { from: 0, to: 64 }, 5, false))!);
    expect(atomic.upper).toEqual(upper);
    expect(b.push(fragment6(upper, { from: 32, to: 64 }, 5))).not.toBeNull();
  });

  it('65,515 bytes of IPv4 payload, the maximum, fragments in two slots: reassembled', () => {
    const b = new Bench();
    const upper = upperOf(65_515);
    let whole: Uint8Array | null = null;
    for (const part of parts(upper.length, 16_000)) whole = b.push(fragment4(upper, part));
    expect(readIp(whole!).upper).toEqual(upper);
    expect(b.rig.missingSlots).toBe(0);
  });

  it('any cut, any order, with repetitions: the datagram exactly once', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 17, max: 3000 }),
        fc.integer({ min: 1, max: 60 }),
        fc.integer(),
        (bytes, size, seed) => {
          const b = new Bench();
          const upper = upperOf(bytes);
          const list = parts(bytes, size * 8);
          fc.pre(list.length > 1);
          const order = [...list, list[Math.abs(seed) % list.length]!];
          // Shuffled, with one part repeated directly.
          let state = seed >>> 0 || 1;
          const repeated = order.pop()!;
          for (let i = order.length - 1; i > 0; i--) {
            state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
            const j = state % (i + 1);
            [order[i], order[j]] = [order[j]!, order[i]!];
          }
          // Not after the last missing part, where it would begin a new datagram.
          const place = order.indexOf(repeated);
          if (place < order.length - 1) order.splice(place, 0, repeated);
          const whole = order.map((part) => b.push(fragment4(upper, part))).filter((r) => r !== null);
          expect(whole).toHaveLength(1);
          expect(readIp(whole[0]!).upper).toEqual(upper);
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('attacks and limits', () => {
  /**
   * Received units of 8 bytes are recorded in words of 32 bits. Fragments end at every position around the
   * borders of the words; one unit overlaps or is repeated.
   */
  it.each([8, 240, 248, 256, 264, 504, 512, 520, 768, 1480, 2048])(
    'fragments of %i bytes: reassembled without overlap or with a repetition, dropped with one overlapping unit',
    (size) => {
      const upper = upperOf(2 * size + 1480 + 5);
      const list = [
        ...parts(2 * size, size),
        ...parts(upper.length - 2 * size, 1480).map(({ from, to }) => ({
          from: from + 2 * size,
          to: to + 2 * size,
        })),
      ];
      const push = (b: Bench, those: readonly Part[]) =>
        those.map((part) => b.push(fragment4(upper, part))).at(-1);
      const whole = new Bench();
      expect(readIp(push(whole, list)!).upper).toEqual(upper);
      const repeated = new Bench();
      expect(
        readIp(push(repeated, [list[0]!, list[1]!, list[1]!, list[0]!, ...list.slice(2)])!).upper,
      ).toEqual(upper);
      expect(repeated.dropped).toBe(0);
      for (const overlap of [
        { from: size - 8, to: 2 * size },
        { from: size, to: 2 * size + 8 },
      ]) {
        const b = new Bench();
        expect(push(b, [list[0]!, ...list.slice(2), overlap])).toBeNull();
        expect(b.dropped).toBe(1);
        expect(b.rig.missingSlots).toBe(0);
      }
      // One unit is missing: not complete.
      const hole = new Bench();
      if (size > 8) {
        expect(push(hole, [{ from: 8, to: size }, ...list.slice(1)])).toBeNull();
        expect(readIp(hole.push(fragment4(upper, { from: 0, to: 8 }))!).upper).toEqual(upper);
      }
    },
  );

  it('a datagram is finished or a new one begins: the oldest still expires', () => {
    const b = new Bench();
    const upper = upperOf(64);
    const [first, second] = [
      { from: 0, to: 32 },
      { from: 32, to: 64 },
    ];
    b.push(fragment4(upper, first, 1), 0);
    b.push(fragment4(upper, first, 2), 10_000);
    b.push(fragment4(upper, first, 3), 20_000);
    expect(b.push(fragment4(upper, second, 1), 20_000)).not.toBeNull();
    b.r.expire(39_999);
    expect(b.r.busy).toBe(2);
    b.r.expire(40_000);
    expect(b.r.busy).toBe(1);
    b.r.expire(50_000);
    expect(b.r.busy).toBe(0);
    b.push(fragment4(upper, first, 4), 60_000);
    b.r.expire(90_000);
    expect(b.r.busy).toBe(0);
    expect(b.rig.missingSlots).toBe(0);
  });

  it('overlap: the datagram is dropped with its later fragments', () => {
    const b = new Bench();
    const upper = upperOf(96);
    const other = upper.map((byte) => byte ^ 0xff);
    b.push(fragment4(upper, { from: 0, to: 48 }));
    expect(b.push(fragment4(other, { from: 40, to: 64 }, 7, true))).toBeNull();
    expect(b.dropped).toBe(1);
    expect(b.rig.missingSlots).toBe(0);
    expect(b.push(fragment4(upper, { from: 48, to: 96 }))).toBeNull();
    expect(b.push(fragment4(upper, { from: 0, to: 48 }))).toBeNull();
    // After the time limit the identification can be used again.
    expect(b.push(fragment4(upper, { from: 0, to: 48 }), 30_001)).toBeNull();
    expect(b.push(fragment4(upper, { from: 48, to: 96 }), 30_001)).not.toBeNull();
  });

  it('same offset: other bytes are an overlap, same bytes a repetition', () => {
    const b = new Bench();
    const upper = upperOf(96);
    b.push(fragment4(upper, { from: 0, to: 48 }));
    b.push(fragment4(upper, { from: 0, to: 48 }));
    expect(b.dropped).toBe(0);
    b.push(
      fragment4(
        upper.map((byte) => byte ^ 1),
        { from: 0, to: 48 },
      ),
    );
    expect(b.dropped).toBe(1);
  });

  it('a last fragment that ends before known bytes, or two different ends: dropped', () => {
    const b = new Bench();
    const upper = upperOf(96);
    b.push(fragment4(upper, { from: 48, to: 80 }, 1, true));
    expect(b.push(fragment4(upper, { from: 0, to: 24 }, 1, false))).toBeNull();
    expect(b.dropped).toBe(1);
    b.push(fragment4(upper, { from: 48, to: 80 }, 2, false));
    b.push(fragment4(upper, { from: 80, to: 88 }, 2, false));
    expect(b.dropped).toBe(2);
  });

  it('beyond 65,535 bytes, no multiple of 8, empty, or a split TCP header: dropped', () => {
    const b = new Bench();
    const upper = upperOf(96);
    const at = (fragment: number, bytes: number, protocol = 17): Uint8Array =>
      ipPacket(SRC, DST, protocol, upper.subarray(0, bytes), { ident: 3, flagsFrag: fragment });
    expect(b.push(at(0x1fff, 16))).toBeNull();
    expect(b.push(at(MF, 13))).toBeNull();
    expect(b.push(at(MF, 0))).toBeNull();
    expect(b.push(at(MF, 16, 6))).toBeNull();
    expect(b.dropped).toBe(4);
    expect(b.r.busy).toBe(0);
  });

  it('more than 16 datagrams at once: the oldest is dropped', () => {
    const b = new Bench();
    const upper = upperOf(96);
    for (let ident = 0; ident < 17; ident++) b.push(fragment4(upper, { from: 0, to: 48 }, ident), ident);
    expect(b.r.busy).toBe(16);
    expect(b.dropped).toBe(1);
    expect(b.push(fragment4(upper, { from: 48, to: 96 }, 1), 20)).not.toBeNull();
    expect(b.push(fragment4(upper, { from: 48, to: 96 }, 0), 20)).toBeNull();
  });

  it('incomplete for 30 s: dropped, the slot is freed', () => {
    const b = new Bench();
    b.push(fragment4(upperOf(96), { from: 0, to: 48 }), 5);
    b.r.expire(30_004);
    expect(b.r.busy).toBe(1);
    b.r.expire(30_005);
    expect(b.r.busy).toBe(0);
    expect(b.rig.missingSlots).toBe(0);
    expect(b.dropped).toBe(1);
  });

  it('no large slot left: the fragment is dropped and counted', () => {
    const b = new Bench();
    const held: number[] = [];
    for (let s = b.rig.large.pop(); s !== NO_SLOT; s = b.rig.large.pop()) held.push(s);
    expect(b.push(fragment4(upperOf(96), { from: 0, to: 48 }))).toBeNull();
    expect(b.dropped).toBe(1);
    for (const s of held) b.rig.large.push(s);
  });

  it('options of the first fragment make the whole exceed 65,535 bytes: dropped, the slot is freed', () => {
    const b = new Bench();
    const upper = upperOf(65_515); // the most with the last fragment's header of 20 bytes
    const [first, ...rest] = parts(upper.length, 16_000);
    for (const part of rest.reverse()) expect(b.push(fragment4(upper, part))).toBeNull();
    const plain = fragment4(upper, first!);
    const withOptions = new Uint8Array(plain.length + 40).fill(1); // no operation
    withOptions.set(plain.subarray(0, 20));
    withOptions.set(plain.subarray(20), 60);
    withOptions[0] = 0x4f;
    withOptions[2] = withOptions.length >> 8;
    withOptions[3] = withOptions.length & 0xff;
    withOptions.fill(0, 10, 12);
    writeU16(withOptions, 10, finishSum(onesSum(withOptions, 0, 60, 0)));
    expect(b.push(withOptions)).toBeNull();
    expect(b.dropped).toBe(1);
    expect(b.r.busy).toBe(0);
    expect(b.rig.missingSlots).toBe(0);
    expect(b.rig.counter(Counter.fragmentsReassembled)).toBe(0);
  });

  it('arbitrary bytes as fragments: no exception, at most 16 slots are held', () => {
    let full = 0;
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(0x3fff), fc.nat(80), fc.nat(31)), { maxLength: 60 }), (list) => {
        const b = new Bench();
        for (const [flagsFrag, bytes, ident] of list) {
          b.push(ipPacket(SRC, DST, 17, pattern(bytes, ident), { ident, flagsFrag }));
        }
        if (b.r.busy === 16) full++;
        expect(b.r.busy).toBeLessThanOrEqual(16);
        expect(b.rig.large.capacity - b.rig.large.free).toBeLessThanOrEqual(16);
        b.r.expire(1e9);
        expect(b.rig.missingSlots).toBe(0);
      }),
      { numRuns: 50 },
    );
    expect(full).toBeGreaterThan(5);
  });
});

it('addresses of the datagram: those of its fragments', () => {
  const b = new Bench();
  const upper = upperOf(64);
  b.push(fragment6(upper, { from: 0, to: 32 }));
  const whole = b.push(fragment6(upper, { from: 32, to: 64 }))!;
  expect(Array.from(whole.slice(8, 40))).toEqual([...ip6(SRC6), ...ip6(DST6)]);
});
