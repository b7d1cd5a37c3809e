// @vitest: beside
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { captureFilter } from '../../src/main/cli/capture-filter.ts';
import { ACCEPT, FILTER_WORDS, FrameFilter, FrameHeaders, REJECT } from '../../src/proto/frame-filter.ts';
import { echoPacket, ip4, udpPacket } from '../support/packets.ts';

const frame = (type: number, packet: ArrayLike<number>): Uint8Array =>
  Uint8Array.from([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, type >>> 8, type & 0xff, ...Array.from(packet)]);
const udp = (src: string, dst: string, sport: number, dport: number, payload = 0): Uint8Array =>
  frame(src.includes(':') ? 0x86dd : 0x0800, udpPacket(src, sport, dst, dport, new Uint8Array(payload)));
/** The same packet as TCP: the filter looks at protocol number and ports only. */
const tcp = (...args: Parameters<typeof udp>): Uint8Array => {
  const bytes = udp(...args);
  bytes[args[0].includes(':') ? 20 : 23] = 6;
  return bytes;
};
const arp = frame(0x0806, [
  0,
  1,
  8,
  0,
  6,
  4,
  0,
  1,
  ...Array(6).fill(1),
  ...ip4('192.0.2.1'),
  ...Array(6).fill(0),
  ...ip4('192.0.2.9'),
]);

const FRAMES: readonly (readonly [frame: Uint8Array, fromGuest: boolean])[] = [
  [udp('192.0.2.1', '198.51.100.7', 5353, 53), true],
  [udp('198.51.100.7', '192.0.2.1', 53, 5353, 900), false],
  [tcp('192.0.2.1', '203.0.113.9', 40_000, 443), true],
  [tcp('2001:db8::1', '2001:db8::2', 80, 8080, 1400), false],
  [udp('2001:db8::1', '2001:db8:ffff::2', 443, 9), true],
  [arp, true],
  [frame(0x88cc, [1, 2, 3]), false],
  [Uint8Array.of(1, 2, 3), true],
];

function matches(text: string, bytes: Uint8Array, fromGuest: boolean, dropped = false): boolean {
  const headers = new FrameHeaders();
  headers.read(bytes, 0, bytes.length, bytes.length, fromGuest);
  return new FrameFilter(captureFilter(text)).matches(headers, dropped);
}
const taken = (text: string): number[] =>
  FRAMES.flatMap(([bytes, fromGuest], i) => (matches(text, bytes, fromGuest) ? [i] : []));

it.each([
  ['udp', [0, 1, 4]],
  ['tcp', [2, 3]],
  ['ip', [0, 1, 2]],
  ['ip6', [3, 4]],
  ['arp', [5]],
  ['icmp or icmp6', []],
  ['port 53', [0, 1]],
  ['src port 53', [1]],
  ['dst port 53', [0]],
  ['udp port 443', [4]],
  ['tcp port 443', [2]],
  ['portrange 50-100', [0, 1, 3]],
  ['tcp dst portrange 8000-8080', [3]],
  ['port 53 or 443', [0, 1, 2, 4]],
  ['tcp port 53 or 443', [2]],
  ['host 192.0.2.1', [0, 1, 2, 5]],
  ['src host 192.0.2.1', [0, 2, 5]],
  ['dst 192.0.2.1', [1]],
  ['host 192.0.2.9', [5]],
  ['net 198.51.100.0/24', [0, 1]],
  ['net 0.0.0.0/0', [0, 1, 2, 5]],
  ['net 2001:db8::/47', [3, 4]],
  ['dst net 2001:db8:ffff::/48', [4]],
  ['host 2001:db8::2', [3]],
  ['inbound', [1, 3, 6]],
  ['outbound', [0, 2, 4, 5, 7]],
  ['greater 500', [1, 3]],
  ['less 20', [6, 7]],
  ['not ip and not ip6', [5, 6, 7]],
  ['!(ip||ip6)&&outbound', [5, 7]],
  ['tcp or udp and port 9', [2, 3, 4]],
  ['(tcp or udp) and port 9', [4]],
  ['not not tcp', [2, 3]],
  ['dropped', []],
  ['not dropped', [0, 1, 2, 3, 4, 5, 6, 7]],
])('%s', (text, expected) => expect(taken(text)).toEqual(expected));

it('ICMP, and fragments after the first, which have no ports', () => {
  const ping = frame(0x0800, echoPacket('192.0.2.1', '192.0.2.2', 8, 7, 1, []));
  expect([matches('icmp', ping, true), matches('port 0', ping, true)]).toEqual([true, false]);
  const later = udp('192.0.2.1', '192.0.2.2', 5353, 53);
  later[14 + 7] = 1;
  expect([matches('udp', later, true), matches('port 53', later, true)]).toEqual([true, false]);
});

it('dropped: known only after the frame was handled', () => {
  const [bytes] = FRAMES[0]!;
  expect([
    matches('dropped and udp', bytes, true, true),
    matches('dropped and tcp', bytes, true, true),
  ]).toEqual([true, false]);
  expect(new FrameFilter(captureFilter('tcp or dropped')).asksForDrops).toBe(true);
  expect(new FrameFilter(captureFilter('tcp')).asksForDrops).toBe(false);
});

it.each([
  ['port', 'column 5: the expression ends; it needs a port here, 0 to 65535'],
  ['port 65536', 'column 6: 65536: needs a port here'],
  ['tcp and', 'column 8: the expression ends; it needs a primitive here'],
  ['tcp udp', 'column 5: udp: needs "and" or "or"'],
  ['(tcp', 'column 5: the expression ends; it needs ")" here'],
  ['tcp)', 'column 4: ")": needs "and" or "or"'],
  ['host a.example', 'column 6: a.example: needs an IPv4 or IPv6 address'],
  ['host 10.0.0.0/8', 'column 6: 10.0.0.0/8: needs an IPv4 or IPv6 address'],
  ['net 10.0.0.0/33', 'column 5: 10.0.0.0/33: needs a network'],
  ['net 2001:db8::/129', 'needs a network'],
  ['portrange 5-2', 'column 11: 5-2: needs a range'],
  ['less x', 'column 6: x: needs a number of bytes'],
  ['vlan 5', 'column 1: vlan: is no primitive'],
  ['443', 'column 1: 443: is no primitive'],
  ['port 80 or tcp or x', 'column 19: x: is no primitive'],
  ['& tcp', 'column 1: "&": is no primitive'],
  [`${'('.repeat(101)}tcp`, 'more than 100 parentheses'],
  ['tcp or '.repeat(600), 'more than 1000 words'],
])('%s: one line with the column', (text, reason) => {
  expect(() => captureFilter(text)).toThrow(reason);
});

/** An expression as text, and as a function of a frame. */
interface Expression {
  readonly text: string;
  is(i: number): boolean;
}
const { expression } = fc.letrec<{ expression: Expression }>((tie) => ({
  expression: fc.oneof(
    { maxDepth: 6, withCrossShrink: true },
    fc
      .constantFrom(
        'tcp',
        'udp',
        'ip6',
        'port 53',
        'src host 192.0.2.1',
        'inbound',
        'greater 500',
        'net 198.51.100.0/24',
      )
      .map((text) => ({ text, is: (i: number) => taken(text).includes(i) })),
    tie('expression').map(({ text, is }) => ({ text: `not (${text})`, is: (i: number) => !is(i) })),
    fc.tuple(tie('expression'), tie('expression')).map(([a, b]) => ({
      text: `(${a.text}) and (${b.text})`,
      is: (i: number) => a.is(i) && b.is(i),
    })),
    fc.tuple(tie('expression'), tie('expression')).map(([a, b]) => ({
      text: `(${a.text}) or (${b.text})`,
      is: (i: number) => a.is(i) || b.is(i),
    })),
  ),
}));

it('any nesting of and, or, not means what its parts mean; jumps lead forwards', () => {
  fc.assert(
    fc.property(expression, ({ text, is }) => {
      const program = captureFilter(text);
      for (let i = 0; i < program.length / FILTER_WORDS; i++)
        for (const next of program.subarray(i * FILTER_WORDS + 1, i * FILTER_WORDS + 3))
          expect(next > i || next === ACCEPT || next === REJECT).toBe(true);
      expect(taken(text)).toEqual(FRAMES.flatMap((_, i) => (is(i) ? [i] : [])));
    }),
    { numRuns: 100 },
  );
});

it('every filter in docs/capture.md and docs/api.md is one', () => {
  const docs = ['capture', 'api'].map((name) =>
    readFileSync(new URL(`../../docs/${name}.md`, import.meta.url), 'utf8'),
  );
  const quoted = docs
    .join('')
    .matchAll(/--pcap-filter '([^']+)'|"filter":"([^"]+)"|--pcap-filter ([a-z0-9]+)`/g);
  const filters = [...quoted].map(([, ...texts]) => texts.find((text) => text !== undefined)!);
  expect(filters.length).toBeGreaterThan(5);
  for (const text of filters) expect(captureFilter(text).length).toBeGreaterThan(0);
});

it('any bytes are read without an error', () => {
  const headers = new FrameHeaders();
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), fc.constantFrom(0x0800, 0x86dd, 0x0806), (bytes, type) => {
      if (bytes.length > 14) new DataView(bytes.buffer, bytes.byteOffset).setUint16(12, type);
      headers.read(bytes, 0, bytes.length, bytes.length, true);
      expect(headers.protocol).toBeLessThan(256);
    }),
  );
});
