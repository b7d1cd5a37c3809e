/**
 * flowHash (HalfSipHash-1-3), the same with 2-4 rounds, and an unkeyed hash: the cost of protection against
 * hash flooding.
 */
import Benchmark from 'benchmark';
import { flowHash } from '../src/workers/flow/flow-hash.ts';
import { ops, sink } from './ops.ts';

const FLOWS = 1024;
const K0 = 0x9e3779b9;
const K1 = 0x7f4a7c15;
const KEY = [K0, K1] as const;

const message = new Int32Array(16);

/** HalfSipHash-2-4, written in the same form as halfSipHash13. */
function halfSipHash24(k0: number, k1: number, words: Int32Array, count: number, last: number): number {
  let v0 = k0 | 0;
  let v1 = k1 | 0;
  let v2 = k0 ^ 0x6c796765;
  let v3 = k1 ^ 0x74656462;
  for (let i = 0; i <= count + 2; i++) {
    const m = i < count ? words[i]! : i === count ? last : 0;
    if (i === count + 1) v2 ^= 0xff; // the last two iterations are the four finalization rounds
    v3 ^= m;
    for (let round = 0; round < 2; round++) {
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
    }
    v0 ^= m;
  }
  return (v1 ^ v3) >>> 0;
}

function flowHash24(a: Uint32Array, at: number, ports: number, proto: number, v6: boolean): number {
  let count = 0;
  if (v6) for (; count < 8; count++) message[count] = a[at + count]!;
  else {
    message[count++] = a[at + 3]!;
    message[count++] = a[at + 7]!;
  }
  message[count++] = ports;
  return halfSipHash24(K0, K1, message, count, ((count * 4 + 1) << 24) | proto);
}

/** FNV-1a over words: an attacker can compute collisions, because it has no key. */
function unkeyed(a: Uint32Array, at: number, ports: number, proto: number): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < 8; i++) h = Math.imul(h ^ a[at + i]!, 0x01000193);
  h = Math.imul(h ^ ports, 0x01000193);
  return Math.imul(h ^ proto, 0x01000193) >>> 0;
}

export function build(): Benchmark.Suite {
  const v4 = new Uint32Array(FLOWS * 8);
  const v6 = Uint32Array.from({ length: FLOWS * 8 }, (_, i) => Math.imul(i + 1, 2654435761));
  for (let flow = 0; flow < FLOWS; flow++) {
    v4.set([0, 0, 0xffff, 0x0a000202, 0, 0, 0xffff, Math.imul(flow + 1, 2654435761)], flow * 8);
  }
  const over = (hash: (flow: number) => number) => () => {
    let x = 0;
    for (let flow = 0; flow < FLOWS; flow++) x ^= hash(flow);
    sink.value ^= x;
  };
  return new Benchmark.Suite()
    .add(
      'flowHash, IPv4',
      over((i) => flowHash(KEY, v4, i * 8, v4, i * 8 + 4, i, 6)),
      ops(FLOWS),
    )
    .add(
      'flowHash, IPv6',
      over((i) => flowHash(KEY, v6, i * 8, v6, i * 8 + 4, i, 6)),
      ops(FLOWS),
    )
    .add(
      'with 2-4 rounds, IPv4',
      over((i) => flowHash24(v4, i * 8, i, 6, false)),
      ops(FLOWS),
    )
    .add(
      'with 2-4 rounds, IPv6',
      over((i) => flowHash24(v6, i * 8, i, 6, true)),
      ops(FLOWS),
    )
    .add(
      'unkeyed FNV-1a over words, IPv4',
      over((i) => unkeyed(v4, i * 8, i, 6)),
      ops(FLOWS),
    );
}
