// @vitest: beside
import { describe, expect, it } from 'vitest';
import { planLayout } from '../../src/ring/layout.ts';
import {
  FramePool,
  HEADROOM_BYTES,
  LARGE_SLOT_BYTES,
  NO_SLOT,
  Ownership,
  SlotStack,
  SMALL_SLOT_BYTES,
} from '../../src/ring/pool.ts';

const layout = planLayout({
  smallSlots: 5,
  largeSlots: 3,
  rings: 0,
  ringDescriptors: 2,
  counterBlocks: 1,
  logBytes: 256,
});
const makeSab = (): SharedArrayBuffer => new SharedArrayBuffer(layout.totalBytes);

describe('FramePool', () => {
  it('small slots come first, large ones follow; addresses are base + offset', () => {
    const pool = new FramePool(makeSab(), layout, 0x7f00_0000_0000);
    expect(pool.u8.length).toBe(layout.totalBytes);
    for (let slot = 0; slot < 8; slot++) {
      const at = slot < 5 ? layout.smallAt + slot * 2048 : layout.largeAt + (slot - 5) * 69632;
      expect(pool.slotAt(slot)).toBe(at);
      expect(pool.slotAddress(slot)).toBe(0x7f00_0000_0000 + at);
      expect(pool.isSmall(slot)).toBe(slot < 5);
      expect(pool.slotBytes(slot)).toBe(slot < 5 ? SMALL_SLOT_BYTES : LARGE_SLOT_BYTES);
    }
    expect(pool.slotAt(7) + LARGE_SLOT_BYTES).toBeLessThanOrEqual(pool.u8.length);
  });

  it('headroom holds every header put in front of payload', () => {
    expect(HEADROOM_BYTES).toBeGreaterThanOrEqual(12 + 14 + 40 + 60); // vnet, Ethernet, IPv6, TCP with options
    expect(LARGE_SLOT_BYTES).toBeGreaterThanOrEqual(HEADROOM_BYTES + 65536);
  });
});

describe('SlotStack', () => {
  it('pop: lowest slot first, NO_SLOT when empty; the slot pushed last is popped first', () => {
    const stack = new SlotStack(10, 3);
    expect([stack.pop(), stack.pop(), stack.free, stack.pop(), stack.pop(), stack.free]).toEqual([
      10,
      11,
      1,
      12,
      NO_SLOT,
      0,
    ]);
    stack.push(12);
    stack.push(10);
    expect([stack.free, stack.capacity, stack.pop(), stack.pop(), stack.pop()]).toEqual([
      2,
      3,
      10,
      12,
      NO_SLOT,
    ]);
  });

  it('push beyond the capacity: refused, for a slot was freed twice', () => {
    const stack = new SlotStack(0, 2);
    stack.push(stack.pop());
    expect(() => stack.push(0)).toThrow('slot 0 was freed twice');
  });
});

describe('Ownership', () => {
  it('on: a claim from the owner passes; from another throws with both names', () => {
    const owners = new Ownership(makeSab(), layout, true);
    owners.assign(0, 5, 1);
    owners.assign(5, 3, 2);
    owners.claim(3, 1, 2);
    owners.check(3, 2);
    expect(() => owners.claim(3, 1, 2)).toThrow(
      'small slot 3 belongs to owner 2; owner 1 cannot pass it to owner 2',
    );
    expect(() => owners.claim(7, 1, 3)).toThrow(
      'large slot 7 belongs to owner 2; owner 1 cannot pass it to owner 3',
    );
    expect(() => owners.claim(8, 1, 2)).toThrow('slot 8 does not exist');
    expect(() => owners.assign(0, 1, 1)).toThrow('belongs to owner 1');
    owners.claim(NO_SLOT, 1, 2);
  });

  it('off: nothing is checked, nothing is written', () => {
    const sab = makeSab();
    const owners = new Ownership(sab, layout, false);
    owners.assign(0, 8, 1);
    owners.claim(3, 7, 9);
    expect(new Int32Array(sab, layout.ownershipAt, 8).every((word) => word === 0)).toBe(true);
  });

  it('two views of one buffer see each other', () => {
    const sab = makeSab();
    new Ownership(sab, layout, true).assign(0, 8, 4);
    expect(() => new Ownership(sab, layout, true).check(2, 5)).toThrow('belongs to owner 4');
  });
});
