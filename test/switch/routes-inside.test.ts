// @vitest: beside
/** Where destinations lie in a container, by texts of /proc/net; and the ranges of --no-switch. */
import { describe, expect, it } from 'vitest';
import { addressParse, sharesPrefix } from '../../src/proto/address.ts';
import { parseRange } from '../../src/switch/destinations.ts';
import { RoutesInside } from '../../src/switch/routes-inside.ts';
import type { Threads } from '../../src/sys/peer-process.ts';

const words = (text: string): Uint32Array => {
  const address = new Uint32Array(4);
  if (!addressParse(text, address, 0)) throw new Error(text);
  return address;
};

const HEAD4 =
  'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                                                       \n';
const row4 = (device: string, to: string, via: string, flags: string, metric: number, mask: string): string =>
  `${device}\t${to}\t${via}\t${flags}\t0\t0\t${metric}\t${mask}\t0\t0\t0                                                                               \n`;
/** default via 10.0.2.2 dev tap0; 10.0.2.0/24 dev tap0; 10.89.0.0/16 dev br0; 192.168.7.0/24 via 10.89.0.9 dev br0 */
const TABLE4 = [
  HEAD4,
  row4('tap0', '00000000', '0202000A', '0003', 0, '00000000'),
  row4('tap0', '0002000A', '00000000', '0001', 0, '00FFFFFF'),
  row4('br0', '0000590A', '00000000', '0001', 0, '0000FFFF'),
  row4('br0', '0007A8C0', '0900590A', '0003', 0, '00FFFFFF'),
  row4('*', '00000CC0', '00000000', '0201', 0, '00FFFFFF'), // unreachable 192.12.0.0/24
].join('');

const row6 = (
  to: string,
  length: string,
  via: string,
  metric: string,
  flags: string,
  device: string,
): string =>
  `${to} ${length} ${'0'.repeat(32)} 00 ${via} ${metric} 00000001 00000000 ${flags} ${device.padStart(8)}\n`;
const NONE = '0'.repeat(32);
const TABLE6 = [
  row6('fd000000000000000000000000000000', '40', NONE, '00000100', '00000001', 'tap0'),
  row6('fd990000000000000000000000000000', '40', NONE, '00000100', '00000001', 'br0'),
  row6(NONE, '00', 'fd000000000000000000000000000001', '00000400', '00000003', 'tap0'),
  row6('fd000000000000000000000000000002', '80', NONE, '00000000', '80200001', 'tap0'),
  row6(NONE, '00', NONE, 'ffffffff', '00200200', 'lo'),
].join('');

function inside(files: Readonly<Record<string, string>>): RoutesInside {
  return new RoutesInside({ read: (path: string) => files[path] ?? '' } as unknown as Threads);
}
const BOTH = { '7/net/route': TABLE4, '7/net/ipv6_route': TABLE6 };

describe('a destination inside', () => {
  it.each([
    ['203.0.113.5', { isOnLink: false }, 'beyond the gateway'],
    ['10.0.2.9', { isOnLink: true }, "on the TAP's own network"],
    ['10.89.3.3', undefined, 'on a bridge'],
    ['192.168.7.7', undefined, 'behind a router of the bridge'],
    ['192.12.0.5', undefined, 'refused by a route'],
    ['2001:db8::5', { isOnLink: false }, 'beyond the IPv6 gateway'],
    ['fd00::9', { isOnLink: true }, "on the TAP's own IPv6 network"],
    ['fd00::2', undefined, 'the address of the container'],
    ['fd99::1', undefined, 'on a bridge, IPv6'],
  ] as const)('%s: %o, %s', (address, expected, where) => {
    const routes = inside(BOTH);
    expect(routes.routeTo(words(address), 7), where).toEqual(expected);
    expect(routes.routeTo(words(address), 7)).toEqual(expected); // the second answer is a kept one
  });

  it('a changed table is noticed at the next destination', () => {
    const files: Record<string, string> = { ...BOTH };
    const routes = inside(files);
    expect(routes.routeTo(words('198.51.100.1'), 7)).toBeDefined();
    files['7/net/route'] = `${TABLE4}${row4('wg0', '006433C6', '00000000', '0001', 0, '00FFFFFF')}`;
    expect(routes.routeTo(words('198.51.100.1'), 7)).toBeUndefined();
  });

  it('without a default route, or without a table, nothing is beyond', () => {
    const only = HEAD4 + row4('tap0', '0002000A', '00000000', '0001', 0, '00FFFFFF');
    expect(inside({ '7/net/route': only }).routeTo(words('10.0.2.9'), 7)).toBeUndefined();
    expect(inside({}).routeTo(words('10.0.2.9'), 7)).toBeUndefined();
    expect(inside({ '7/net/route': 'nonsense\nmore' }).routeTo(words('10.0.2.9'), 7)).toBeUndefined();
  });

  it('of two default routes the one with the lower metric counts', () => {
    const two = [
      HEAD4,
      row4('wlan0', '00000000', '0102000A', '0003', 600, '00000000'),
      row4('tap0', '00000000', '0202000A', '0003', 100, '00000000'),
    ].join('');
    expect(inside({ '7/net/route': two }).routeTo(words('203.0.113.5'), 7)).toEqual({ isOnLink: false });
  });
});

describe('ranges', () => {
  it.each([
    ['10.0.0.0/8', '10.255.1.1', '11.0.0.1'],
    ['192.0.2.7', '192.0.2.7', '192.0.2.8'],
    ['0.0.0.0/0', '8.8.8.8', '2001:db8::1'],
    ['fd00::/8', 'fdff::1', 'fe00::1'],
    ['2001:db8::7/128', '2001:db8::7', '2001:db8::8'],
    ['::/0', '2001:db8::7', undefined],
  ])('%s has %s, and not %s', (range, within, outside) => {
    const { words: prefix, length } = parseRange(range);
    expect(sharesPrefix(prefix, words(within), length)).toBe(true);
    if (outside !== undefined) expect(sharesPrefix(prefix, words(outside), length)).toBe(false);
  });

  it.each(['', '10.0.0.0/33', 'fd00::/129', '10.0.0.0/8/8', 'host', '10.0.0.0/x', '10.0.0.0/'])(
    '%j is refused',
    (text) => {
      expect(() => parseRange(text)).toThrow();
    },
  );
});
