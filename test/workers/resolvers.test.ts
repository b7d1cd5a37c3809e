// @vitest: beside
import { describe, expect, it } from 'vitest';
import { Resolvers } from '../../src/workers/translator/resolvers.ts';

describe('Resolvers', () => {
  it('one address with two zones: two resolvers; a zone of other addresses: ignored', () => {
    const r = new Resolvers(['fe80::1%2', 'fe80::1%3', '2001:db8::1%4', '192.0.2.1%5', 'fe80::1%eth0']);
    expect([...r.zones.subarray(0, r.count)]).toEqual([2, 3, 0, 0, 0]);
    r.markBad(0, 0);
    r.update(['fe80::1%3', 'fe80::1%2']);
    expect([r.pickUntried(1, 0), r.pickUntried(1, 1)]).toEqual([0, 1]);
    r.update(['fe80::1%9', 'fe80::1%2']);
    expect(r.pick(1, 0)).toBe(0);
    r.update(['fe80::1%2', 'fe80::1%9']);
    expect(r.pick(1, 0)).toBe(1);
  });

  it('pick: the first without failure, else by attempt; update: keeps the state of remaining ones', () => {
    const r = new Resolvers(['192.0.2.1', 'not an address', 'fe80::1%eth0', '192.0.2.3']);
    expect(r.count).toBe(3);
    expect(r.pick(0, 0)).toBe(0);
    r.markBad(0, 0);
    expect(r.pick(100, 1)).toBe(1);
    r.update(['192.0.2.3', '192.0.2.1']);
    expect(r.pick(100, 0)).toBe(0);
    r.markBad(0, 100);
    expect([r.pick(200, 0), r.pick(200, 1), r.pick(200, 2)]).toEqual([0, 1, 0]);
    expect(r.pick(30_050, 0)).toBe(1);
    expect(new Resolvers([]).pick(0, 0)).toBe(-1);
  });
});
