/**
 * What the egress policy costs a new flow: without a policy, with few rules, with 10,000 rules of several
 * shapes, and beside reading the rules one after the other. One operation is one look-up, of a destination
 * that a rule matches or that none does, in turn.
 */
import Benchmark from 'benchmark';
import { addressParse } from '../src/proto/address.ts';
import { Destination } from '../src/workers/flow/addressing.ts';
import { Egress } from '../src/workers/flow/egress.ts';
import { EGRESS_NAMES_BYTES, EgressNames } from '../src/workers/flow/egress-names.ts';
import {
  compileEgress,
  EgressPolicy,
  EgressProto,
  type EgressRule,
  type EgressTarget,
} from '../src/workers/flow/egress-policy.ts';
import { ops, sink } from './ops.ts';

const LOOK_UPS = 1024;
const RULES = 10_000;
const NO_REPORTS = { isDue: () => false, tell: () => {} };

const rule = (targets: EgressTarget[], ports: [number, number][] = []): EgressRule => ({
  allow: false,
  protocols: EgressProto.tcp | EgressProto.udp,
  targets,
  ports,
  line: 0,
});
const prefix = (ipv4: number, bits: number): EgressTarget => ({
  kind: 'prefix',
  words: [0, 0, 0xffff, (ipv4 & (-1 << (32 - bits))) >>> 0],
  bits: 96 + bits,
  family: 4,
});
/** Addresses that are spread over the whole space (multiplicative hash). */
const spread = (i: number): number => Math.imul(i + 1, 2654435761) >>> 0;

const blocks = (lengths: number[]) => (i: number) => rule([prefix(spread(i), lengths[i % lengths.length]!)]);
const SHAPES: readonly (readonly [string, number, (i: number) => EgressRule])[] = [
  ['10 rules', 10, blocks([24])],
  [`${RULES} rules, /24`, RULES, blocks([24])],
  [`${RULES} rules, 17 lengths (/16 to /32)`, RULES, blocks(Array.from({ length: 17 }, (_, i) => 16 + i))],
  [
    `${RULES} rules with names`,
    RULES,
    (i) => rule([{ kind: 'name', name: `host${i}.example.org`, below: i % 2 === 0 }]),
  ],
  [
    `${RULES} rules, all for any, each another port`,
    RULES,
    (i) => rule([{ kind: 'word', word: 'any' }], [[i + 1, i + 1]]),
  ],
];

/** Rule after rule: what the hash tables are for. */
function scan(rules: readonly EgressRule[], address: number, port: number): number {
  for (let i = 0; i < rules.length; i++) {
    const { targets, ports } = rules[i]!;
    const [target] = targets;
    if (target?.kind !== 'prefix') continue;
    const mask = -1 << (128 - target.bits);
    if ((target.words[3] & mask) !== (address & mask)) continue;
    if (ports.length === 0 || ports.some(([a, b]) => port >= a && port <= b)) return i;
  }
  return rules.length;
}

export function build(): Benchmark.Suite {
  const suite = new Benchmark.Suite();
  const words = new Uint32Array(4);
  if (!addressParse('192.0.2.1', words, 0)) throw new Error('address');
  const over = (look: (address: number, i: number) => number) => {
    let at = 0;
    return () => {
      let x = 0;
      for (let n = 0; n < LOOK_UPS; n++) {
        at = (at + 619) % (2 * RULES);
        words[3] = spread(at);
        x ^= look(words[3]!, at);
      }
      sink.value ^= x;
    };
  };
  const none = new Egress(undefined, NO_REPORTS);
  suite.add(
    'no policy',
    over(() => Number(none.refuses(words, 0, Destination.world, EgressProto.tcp, 443, 0))),
    ops(LOOK_UPS),
  );
  for (const [name, count, make] of SHAPES) {
    const names = new EgressNames(new SharedArrayBuffer(EGRESS_NAMES_BYTES));
    const rules = Array.from({ length: count }, (_, i) => make(i));
    const policy = new EgressPolicy(compileEgress({ rules, defaultAllow: true }), names);
    if (policy.hasNames) {
      // 2,000 addresses that the forwarder answered, each with a name of five labels.
      for (let i = 0; i < 2000; i++) {
        words[3] = spread(i * 10);
        const labels = ['a', 'b', `host${i}`, 'example', 'org'];
        const wire = Uint8Array.from(labels.flatMap((label) => [label.length, ...Buffer.from(label)]));
        names.learn(wire, 0, wire.length, words, 0, 3600, 1);
      }
    }
    suite.add(
      name,
      over((_, i) => policy.decide(words, 0, false, EgressProto.tcp, (i & 0x3fff) + 1, 1)),
      ops(LOOK_UPS),
    );
    if (name.endsWith('/24'))
      suite.add(
        `${name}, one after the other`,
        over((address, i) => scan(rules, address, i)),
        ops(LOOK_UPS),
      );
  }
  return suite;
}
