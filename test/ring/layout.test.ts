// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { COUNTER_WORDS } from '../../src/ring/counters.ts';
import {
  allocateShared,
  CONTROL_BYTES,
  controlViews,
  DESC_BYTES,
  LARGE_SLOT_BYTES,
  type LayoutRequest,
  LINE_BYTES,
  logRingAt,
  PAGE_BYTES,
  planLayout,
  requestStop,
  ringControlAt,
  ringSlotsAt,
  SMALL_SLOT_BYTES,
  sleepingAt,
  stopRequested,
} from '../../src/ring/layout.ts';
import { addressOf } from '../../src/sys/memory.ts';

const requestArb: fc.Arbitrary<LayoutRequest> = fc.record({
  smallSlots: fc.nat(100),
  largeSlots: fc.nat(20),
  rings: fc.nat(12),
  ringDescriptors: fc.constantFrom(2, 64, 1024),
  counterBlocks: fc.integer({ min: 1, max: 9 }),
  logBytes: fc.constantFrom(256, 4096),
  skewBytes: fc.nat(511).map((n) => n * 8),
});

describe('planLayout', () => {
  it('any plan: no two parts overlap, each is aligned relative to the skew and ends inside the buffer', () => {
    fc.assert(
      fc.property(requestArb, (request) => {
        const layout = planLayout(request);
        const skew = request.skewBytes!;
        const parts: { name: string; at: number; bytes: number; alignment: number }[] = [];
        const add = (name: string, at: number, bytes: number, alignment: number): void => {
          if (bytes > 0) parts.push({ name, at, bytes, alignment });
        };
        add('stop', layout.stopAt, 4, LINE_BYTES);
        add('log bell', layout.logBellAt, 4, LINE_BYTES);
        for (let thread = 0; thread < layout.counterBlocks; thread++) {
          add(`sleeping ${thread}`, sleepingAt(layout, thread), 4, LINE_BYTES);
          add(
            `counters ${thread}`,
            layout.countersAt + thread * layout.counterBlockBytes,
            COUNTER_WORDS * 8,
            LINE_BYTES,
          );
          add(`log ${thread}`, logRingAt(layout, thread), 2 * LINE_BYTES + layout.logBytes, LINE_BYTES);
        }
        for (let ring = 0; ring < layout.rings; ring++) {
          add(`head of ring ${ring}`, ringControlAt(layout, ring), 8, LINE_BYTES);
          add(`tail of ring ${ring}`, ringControlAt(layout, ring) + LINE_BYTES, 4, LINE_BYTES);
          add(`ring ${ring}`, ringSlotsAt(layout, ring), layout.ringDescriptors * DESC_BYTES, DESC_BYTES);
        }
        add('ownership', layout.ownershipAt, (layout.smallSlots + layout.largeSlots) * 4, 4);
        add('small slots', layout.smallAt, layout.smallSlots * SMALL_SLOT_BYTES, PAGE_BYTES);
        add('large slots', layout.largeAt, layout.largeSlots * LARGE_SLOT_BYTES, PAGE_BYTES);
        parts.sort((a, b) => a.at - b.at);
        let end = skew;
        let previous = 'start';
        for (const { name, at, bytes, alignment } of parts) {
          expect(at, `${name} begins before the end of ${previous}`).toBeGreaterThanOrEqual(end);
          expect((at - skew) % alignment, `${name} at ${at}`).toBe(0);
          end = at + bytes;
          previous = name;
        }
        expect(layout.totalBytes).toBeGreaterThanOrEqual(end);
      }),
    );
  });

  it.each([
    ['ringDescriptors', 48],
    ['ringDescriptors', 0],
    ['logBytes', 1000],
    ['smallSlots', -1],
    ['largeSlots', 1.5],
    ['counterBlocks', 0],
    ['skewBytes', 4096],
    ['skewBytes', 12],
  ])('%s = %d: refused by name', (name, value) => {
    const good = {
      smallSlots: 1,
      largeSlots: 1,
      rings: 1,
      ringDescriptors: 4,
      counterBlocks: 1,
      logBytes: 256,
    };
    expect(() => planLayout({ ...good, [name]: value })).toThrow(`${name} is ${value}`);
  });

  it('4 GiB and more: refused, for offsets are u32', () => {
    const request = { smallSlots: 0, rings: 0, ringDescriptors: 2, counterBlocks: 1, logBytes: 256 };
    expect(planLayout({ ...request, largeSlots: 61_000 }).totalBytes).toBeLessThan(2 ** 32);
    expect(() => planLayout({ ...request, largeSlots: 62_000 })).toThrow('4 GiB');
  });
});

describe('allocateShared', () => {
  it.each([0, 16, 64, 4080])('a buffer %i bytes past a page: slots are page-aligned in memory', (past) => {
    const request = {
      smallSlots: 8,
      largeSlots: 2,
      rings: 2,
      ringDescriptors: 4,
      counterBlocks: 1,
      logBytes: 256,
    };
    const { sab, layout, baseAddress } = allocateShared(request, () => 0x7f00_0000_0000 + past);
    expect((baseAddress + layout.smallAt) % PAGE_BYTES).toBe(0);
    expect((baseAddress + layout.largeAt) % PAGE_BYTES).toBe(0);
    expect((baseAddress + ringSlotsAt(layout, 1)) % DESC_BYTES).toBe(0);
    expect(sab.byteLength).toBeGreaterThanOrEqual(layout.totalBytes);
  });

  it('a real buffer: slots are page-aligned wherever the allocator placed it', () => {
    const request = {
      smallSlots: 64,
      largeSlots: 64,
      rings: 2,
      ringDescriptors: 64,
      counterBlocks: 1,
      logBytes: 256,
    };
    const { sab, layout, baseAddress } = allocateShared(request, addressOf);
    expect(addressOf(new Uint8Array(sab, layout.smallAt, 1)) % PAGE_BYTES).toBe(0);
    expect(addressOf(new Uint8Array(sab, layout.smallAt, 1))).toBe(baseAddress + layout.smallAt);
    expect(addressOf(new Uint8Array(sab, ringSlotsAt(layout, 1), 1)) % DESC_BYTES).toBe(0);
  });

  it('stop flag: clear at first, set once requested', () => {
    const request = {
      smallSlots: 0,
      largeSlots: 0,
      rings: 0,
      ringDescriptors: 2,
      counterBlocks: 1,
      logBytes: 256,
    };
    const { sab, layout } = allocateShared(request, () => 0);
    const i32 = new Int32Array(sab);
    expect(stopRequested(i32, layout)).toBe(false);
    requestStop(i32, layout);
    expect(stopRequested(i32, layout)).toBe(true);
  });
});

describe('control memory', () => {
  it('views: contiguous, without overlap, and they fill the memory', () => {
    const views = Object.values(controlViews(new SharedArrayBuffer(CONTROL_BYTES)));
    let end = 0;
    for (const { byteOffset, byteLength } of views) {
      expect(byteOffset).toBeGreaterThanOrEqual(end);
      end = byteOffset + byteLength;
    }
    expect(end).toBe(CONTROL_BYTES);
  });
});
