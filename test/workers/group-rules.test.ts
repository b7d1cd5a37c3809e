// @vitest: beside
/** Which groups and broadcast addresses are carried. */
import { describe, expect, it } from 'vitest';
import type { MulticastPlan } from '../../src/workers/engine-plan.ts';
import { directedBroadcastOf, GroupKind, GroupRules } from '../../src/workers/flow/group-rules.ts';
import { addressWords } from '../support/packets.ts';

const rules = (groups: MulticastPlan['groups'], all = false): GroupRules =>
  new GroupRules({ all, groups, maxGroups: 20 }, 0x0a0002ff);
const ALL = rules([], true);

it.each([
  ['224.0.0.251', GroupKind.multicast],
  ['239.255.255.250', GroupKind.multicast],
  ['255.255.255.255', GroupKind.broadcast],
  ['10.0.2.255', GroupKind.broadcast],
  ['10.0.3.255', GroupKind.none],
  ['240.0.0.1', GroupKind.none],
  ['ff02::fb', GroupKind.multicast],
  ['ff0e::1', GroupKind.multicast],
  ['ff01::1', GroupKind.none],
  ['ff0f::1', GroupKind.none],
  ['ff00::1', GroupKind.none],
  ['2001:db8::1', GroupKind.none],
])('kind of %s', (text, kind) => expect(ALL.kindOf(addressWords(text), 0)).toBe(kind));

it.each([
  [10 * 2 ** 24, 24, 0x0a0000ff],
  [0xc0000201, 30, 0xc0000203],
  [0xc0000201, 31, 0],
  [0xc0000201, 32, 0],
])('directed broadcast of %i/%i', (address, prefixLen, expected) =>
  expect(directedBroadcastOf(address, prefixLen)).toBe(expected),
);

describe('a list', () => {
  const list = rules([
    { address: '239.1.2.3', port: 5001 },
    { address: 'ff02::fb' },
    { address: '255.255.255.255' },
  ]);
  it.each([
    ['239.1.2.3', 5001, true],
    ['239.1.2.3', 5002, false],
    ['239.1.2.4', 5001, false],
    ['ff02::fb', 5353, true],
    ['ff02::fb', 9, true],
    ['255.255.255.255', 9, true],
    ['10.0.2.255', 9, true],
    ['192.0.2.255', 9, false],
  ])('send to %s port %i: %s', (text, port, may) =>
    expect(list.maySend(addressWords(text), 0, port)).toBe(may),
  );

  it.each([
    ['239.1.2.3', true],
    ['239.1.2.4', false],
    ['ff02::fb', true],
    ['255.255.255.255', false],
  ])('join %s: %s', (text, may) => expect(list.mayJoin(addressWords(text), 0)).toBe(may));
});

it.each([
  '224.0.0.1',
  '224.0.0.2',
  '224.0.0.22',
  'ff02::1',
  'ff02::2',
  'ff02::16',
  'ff02::1:2',
  'ff02::1:ff00:15',
])('all: %s is between the guest and its router, not joined', (text) =>
  expect(ALL.mayJoin(addressWords(text), 0)).toBe(false),
);

it.each([
  ['224.0.0.251', [5353]],
  ['ff02::1:3', [5355]],
  ['239.255.255.250', [1900, 3702, 1982]],
  ['239.9.9.9', []],
])('all: %s is received on %j', (text, ports) => expect(ALL.portsOf(addressWords(text), 0)).toEqual(ports));

it('ports: those of the option come first, well-known ones that it excludes do not', () => {
  const words = addressWords('239.255.255.250');
  expect(rules([{ address: '239.255.255.250', port: 3702 }]).portsOf(words, 0)).toEqual([3702]);
  expect(rules([{ address: '239.255.255.250', port: 9 }], true).portsOf(words, 0)).toEqual([
    9, 1900, 3702, 1982,
  ]);
  expect(rules([{ address: '255.255.255.255', port: 21027 }]).broadcastPorts()).toEqual([21027]);
});
