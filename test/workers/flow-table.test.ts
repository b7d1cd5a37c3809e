// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FlowTable, NO_FLOW } from '../../src/workers/flow/flow-table.ts';
import type { FlowTuple } from '../../src/workers/flow/flow-tuple.ts';

/** A key from a small set, so that runs have repeated keys, colliding hashes and full tables. */
const keyArb: fc.Arbitrary<FlowTuple> = fc
  .record({ host: fc.nat(3), remote: fc.nat(3), ports: fc.nat(2), udp: fc.boolean(), bucket: fc.nat(5) })
  .map(({ host, remote, ports, udp, bucket }) => ({
    // Few hashes, some at the table's end so that runs wrap round; also distinct keys of one hash.
    hash: (bucket % 2 === 0 ? 0xfffffffe + (bucket >>> 1) : bucket) >>> 0,
    addr: Uint32Array.of(0, 0, 0xffff, host, 0, 0, 0xffff, remote),
    ports,
    proto: udp ? 17 : 6,
  }));

const text = (key: FlowTuple): string => `${key.hash}/${key.addr.join('.')}/${key.ports}/${key.proto}`;

describe('FlowTable', () => {
  it('any order of inserts and removals: behaves as a Map with distinct ids', () => {
    let removals = 0;
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 24 }),
        fc.array(fc.tuple(fc.constantFrom('insert', 'remove', 'detach', 'release', 'find'), keyArb), {
          maxLength: 300,
          size: 'max',
        }),
        (maxFlows, steps) => {
          const table = new FlowTable(maxFlows);
          const model = new Map<string, number>();
          const resting: number[] = []; // detached, id not free yet
          for (const [step, key] of steps) {
            const known = model.get(text(key)) ?? -1;
            expect(table.find(key)).toBe(known);
            if (step === 'insert' && known < 0) {
              const id = table.insert(key);
              if (model.size + resting.length === maxFlows) expect(id).toBe(NO_FLOW);
              else {
                expect(id).toBeGreaterThanOrEqual(0);
                expect(id).toBeLessThan(maxFlows);
                expect([...model.values(), ...resting]).not.toContain(id);
                model.set(text(key), id);
              }
            } else if (step === 'remove' && known >= 0) {
              removals++;
              table.remove(known);
              model.delete(text(key));
            } else if (step === 'detach' && known >= 0) {
              removals++;
              table.detach(known);
              model.delete(text(key));
              resting.push(known);
            } else if (step === 'release' && resting.length > 0) {
              table.release(resting.shift()!);
            }
            expect(table.count).toBe(model.size);
          }
        },
      ),
      { numRuns: 500 },
    );
    // Without a removal of an existing key the property would not test removal.
    expect(removals).toBeGreaterThan(100);
  });

  it('an id: gives the key of its flow', () => {
    const table = new FlowTable(4);
    const tuple = {
      addr: Uint32Array.of(1, 2, 3, 4, 5, 6, 7, 8),
      hash: 0xdeadbeef,
      ports: 0xffff0050,
      proto: 6,
    };
    const id = table.insert(tuple);
    expect([...table.addr.subarray(id * 8, id * 8 + 8)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(table.ports[id]).toBe(0xffff0050);
    expect(table.proto[id]).toBe(6);
    expect(table.hash[id]).toBe(0xdeadbeef);
    expect(table.find(tuple)).toBe(id);
    for (let word = 0; word < 8; word++) {
      const addr = tuple.addr.slice();
      addr[word]! ^= 1;
      expect(table.find({ ...tuple, addr })).toBe(NO_FLOW);
    }
  });

  it('a freed id: used again after all other free ids', () => {
    const table = new FlowTable(4);
    const key = (n: number): FlowTuple => ({ hash: n, addr: new Uint32Array(8), ports: n, proto: 6 });
    const first = table.insert(key(0));
    table.remove(first);
    const later = [table.insert(key(1)), table.insert(key(2)), table.insert(key(3))];
    expect(later).not.toContain(first);
    expect(table.insert(key(4))).toBe(first);
    expect(table.insert(key(5))).toBe(NO_FLOW);
  });

  it('short flows one after another: each id is used again after 1,024 others', () => {
    const table = new FlowTable(32_768);
    const key = (n: number): FlowTuple => ({ hash: n, addr: new Uint32Array(8), ports: n, proto: 6 });
    const standing = Array.from({ length: 100 }, (_, n) => table.insert(key(n)));
    const givenAt = new Map<number, number>();
    let highest = 0;
    let shortestRest = Number.POSITIVE_INFINITY;
    for (let n = 0; n < 100_000; n++) {
      const id = table.insert(key(1000 + n));
      if (standing.includes(id)) throw new Error(`id ${id} given twice`);
      shortestRest = Math.min(shortestRest, n - (givenAt.get(id) ?? Number.NEGATIVE_INFINITY));
      givenAt.set(id, n);
      if (id > highest) highest = id;
      table.remove(id);
    }
    // Pages of the tables by id: not for all 32,768 ids.
    expect(highest).toBeLessThanOrEqual(100 + 1025);
    expect(shortestRest).toBeGreaterThanOrEqual(1024);
  });

  it('ids freed in any order: as many flows as ids can exist again', () => {
    const table = new FlowTable(3000);
    const key = (n: number): FlowTuple => ({ hash: n, addr: new Uint32Array(8), ports: n, proto: 6 });
    const freed = Array.from({ length: 2500 }, (_, n) => table.insert(key(n)));
    for (const id of freed.reverse()) table.remove(id);
    const ids = new Set(Array.from({ length: 3000 }, (_, n) => table.insert(key(n))));
    expect(ids.size).toBe(3000);
    expect(ids.has(NO_FLOW)).toBe(false);
    expect(table.insert(key(3000))).toBe(NO_FLOW);
  });

  it('removed or released twice: refused', () => {
    const table = new FlowTable(2);
    const id = table.insert({ hash: 1, addr: new Uint32Array(8), ports: 1, proto: 6 });
    table.remove(id);
    expect(() => table.detach(id)).toThrow('not in the table');
    expect(() => table.release(id)).toThrow('twice');
  });
});
