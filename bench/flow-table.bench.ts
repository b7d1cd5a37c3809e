/**
 * FlowTable.find for flows that are in the table and for flows that are not, at three table sizes, compared
 * with a Map keyed by strings.
 */
import Benchmark from 'benchmark';
import { flowHash } from '../src/workers/flow/flow-hash.ts';
import { FlowTable } from '../src/workers/flow/flow-table.ts';
import { type FlowTuple, newFlowTuple } from '../src/workers/flow/flow-tuple.ts';
import { ops, sink } from './ops.ts';

const LOOK_UPS = 1024;

interface Keys {
  readonly words: Uint32Array;
  readonly ports: Uint32Array;
  readonly hash: Uint32Array;
}

function makeKeys(count: number, salt: number): Keys {
  const words = new Uint32Array(count * 8);
  const ports = new Uint32Array(count);
  const hash = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    words.set([0, 0, 0xffff, 0x0a000202, 0, 0, 0xffff, Math.imul(i + salt, 2654435761) >>> 0], i * 8);
    ports[i] = (((i * 7) << 16) | 443) >>> 0;
    hash[i] = flowHash([1, 2], words, i * 8, words, i * 8 + 4, ports[i]!, 6);
  }
  return { words, ports, hash };
}

/** Refilled for every look-up, as in the translators. */
const tuple = newFlowTuple(6);

function tupleOf(keys: Keys, i: number): FlowTuple {
  for (let word = 0; word < 8; word++) tuple.addr[word] = keys.words[i * 8 + word]!;
  tuple.ports = keys.ports[i]!;
  tuple.hash = keys.hash[i]!;
  return tuple;
}

const find = (table: FlowTable, keys: Keys, i: number): number => table.find(tupleOf(keys, i));
const insert = (table: FlowTable, keys: Keys, i: number): number => table.insert(tupleOf(keys, i));

const text = (keys: Keys, i: number): string =>
  `${keys.words[i * 8 + 3]}/${keys.words[i * 8 + 7]}/${keys.ports[i]}/6`;

export function build(): Benchmark.Suite {
  const suite = new Benchmark.Suite();
  for (const flows of [10, 1000, 100_000]) {
    const table = new FlowTable(flows + 1);
    const map = new Map<string, number>();
    const keys = makeKeys(flows, 1);
    const absent = makeKeys(flows, 1 << 20);
    for (let i = 0; i < flows; i++) map.set(text(keys, i), insert(table, keys, i));
    // Look up another flow each time, not in insertion order: the stride and the table size are coprime.
    const over = (look: (i: number) => number) => {
      let at = 0;
      return () => {
        let x = 0;
        for (let n = 0; n < LOOK_UPS; n++) {
          at = (at + 619) % flows;
          x ^= look(at);
        }
        sink.value ^= x;
      };
    };
    suite
      .add(
        `find, ${flows} flows`,
        over((i) => find(table, keys, i)),
        ops(LOOK_UPS),
      )
      .add(
        `find what is not there, ${flows} flows`,
        over((i) => find(table, absent, i)),
        ops(LOOK_UPS),
      )
      .add(
        `insert and remove, ${flows} flows`,
        over((i) => {
          const id = insert(table, absent, i);
          table.remove(id);
          return id;
        }),
        ops(LOOK_UPS),
      )
      .add(
        `Map of strings, ${flows} flows`,
        over((i) => map.get(text(keys, i))!),
        ops(LOOK_UPS),
      );
  }
  return suite;
}
