// @vitest: beside
/** Several MACs behind the TAP: which MAC a frame to an address of the guest's has. */
import { describe, expect, it } from 'vitest';
import { addressParse } from '../../src/proto/address.ts';
import { NEIGHBOUR_WORDS } from '../../src/ring/layout.ts';
import { GuestNeighbours } from '../../src/workers/tap/guest-neighbours.ts';

const FIRST = [2, 0, 0, 0, 0, 1];
const SECOND = [2, 0, 0, 0, 0, 2];
const words = (text: string): Uint32Array => {
  const out = new Uint32Array(4);
  if (!addressParse(text, out, 0)) throw new Error(text);
  return out;
};

function table(guestMac: readonly number[] = FIRST) {
  const mac = Uint8Array.from(guestMac);
  const neighbours = new GuestNeighbours(new Uint32Array(NEIGHBOUR_WORDS), mac);
  const seen = new Uint32Array(14);
  seen.set(words('10.0.2.15'), 0);
  seen.set(words('fd00::15'), 4);
  return {
    neighbours,
    mac,
    learn: (address: string, from: readonly number[], spoken = 3) =>
      neighbours.learn(words(address), 0, Uint8Array.from(from), 0, seen, spoken),
    macOf: (address: string): number[] | null => {
      const out = new Uint8Array(6);
      return neighbours.macOf(words(address), 0, out) ? [...out] : null;
    },
  };
}

describe('neighbours of the guest', () => {
  it('the guest has another MAC: there is still one, and no table', () => {
    const t = table();
    t.learn('10.0.2.15', SECOND);
    expect([...t.mac]).toEqual(SECOND);
    t.learn('0.0.0.0', FIRST, 0);
    expect([...t.mac]).toEqual(FIRST);
    t.learn('::', SECOND, 0);
    expect([...t.mac]).toEqual(SECOND);
    expect(t.neighbours.inUse).toBe(false);
  });

  it('who asks for an address that it does not have yet takes none away', () => {
    for (const none of ['0.0.0.0', '::']) {
      const t = table();
      t.learn(none, SECOND, 1);
      expect([...t.mac]).toEqual(FIRST);
      expect(t.neighbours.inUse).toBe(true);
      expect(t.macOf('10.0.2.15')).toEqual(FIRST);
      expect(t.macOf(none)).toBeNull();
      t.learn('10.0.2.15', SECOND); // it was the guest with another MAC
      expect(t.macOf('10.0.2.15')).toEqual(SECOND);
    }
  });

  it('a member of a bridge speaks first, then the bridge, from an address that was planned: both are known', () => {
    const t = table([255, 255, 255, 255, 255, 255]);
    t.learn('10.0.2.16', SECOND, 0);
    expect([...t.mac]).toEqual(SECOND);
    t.learn('::', FIRST, 0);
    t.learn('10.0.2.15', FIRST, 0);
    expect(t.neighbours.inUse).toBe(true);
    expect(t.macOf('10.0.2.16')).toEqual(SECOND);
    expect(t.macOf('10.0.2.15')).toEqual(FIRST);
  });

  it('another address has another MAC: both are known', () => {
    const t = table();
    t.learn('10.0.2.16', SECOND);
    expect(t.neighbours.inUse).toBe(true);
    expect(t.macOf('10.0.2.16')).toEqual(SECOND);
    expect(t.macOf('10.0.2.15')).toEqual(FIRST);
    expect(t.macOf('fd00::15')).toEqual(FIRST);
    expect(t.macOf('10.0.2.17')).toBeNull();
    expect([...t.mac]).toEqual(FIRST);
    expect(t.neighbours.has(words('10.0.2.16'), 0)).toBe(true);
  });

  it('an address moves to another MAC: the new one counts', () => {
    const t = table();
    t.learn('fd00::16', SECOND);
    expect(t.learn('fd00::16', FIRST)).toBe(true);
    expect(t.learn('fd00::16', FIRST)).toBe(false);
    expect(t.macOf('fd00::16')).toEqual(FIRST);
  });

  it('no address: nothing is entered', () => {
    const t = table();
    t.learn('10.0.2.16', SECOND);
    expect(t.learn('0.0.0.0', [2, 0, 0, 0, 0, 3])).toBe(false);
    expect(t.macOf('0.0.0.0')).toBeNull();
  });

  it('more addresses than places: the newest is known, the table does not grow', () => {
    const t = table();
    for (let i = 0; i < 5000; i++) {
      const address = `10.1.${i >> 8}.${i & 255}`;
      t.learn(address, SECOND);
      expect(t.macOf(address)).toEqual(SECOND);
    }
    let known = 0;
    for (let i = 0; i < 5000; i++) if (t.macOf(`10.1.${i >> 8}.${i & 255}`) !== null) known++;
    expect(known).toBeGreaterThan(60);
    expect(known).toBeLessThan(128);
  });

  it('no MAC is known: the first frame gives it', () => {
    const t = table([255, 255, 255, 255, 255, 255]);
    expect(t.neighbours.isUnknown).toBe(true);
    expect(t.learn('10.0.2.99', SECOND)).toBe(true);
    expect([...t.mac]).toEqual(SECOND);
    expect(t.neighbours.inUse).toBe(false);
  });
});
