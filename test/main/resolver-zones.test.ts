// @vitest: beside
import { describe, expect, it } from 'vitest';
import { ResolverZones, withIndexes } from '../../src/main/host/resolver-zones.ts';
import { SysError } from '../../src/sys/error.ts';

const LINKS = [
  { index: 1, name: 'lo' },
  { index: 2, name: 'eth0' },
  { index: 7, name: 'wlan0' },
];

describe('withIndexes', () => {
  it.each([
    ['192.0.2.1', ['192.0.2.1']],
    ['fe80::1', ['fe80::1']],
    ['fe80::1%eth0', ['fe80::1%2']],
    ['FEBF::1%wlan0', ['FEBF::1%7']],
    ['fe80::1%7', ['fe80::1%7']],
    ['fe80::1%gone', []],
    ['fe80::1%', []],
    ['fe80::1%0', []],
    ['2001:db8::53%eth0', ['2001:db8::53']],
    ['2001:db8::53%gone', ['2001:db8::53']],
    ['169.254.1.1%eth0', ['169.254.1.1']],
  ])('%s', (text, expected) => {
    expect(withIndexes([text], LINKS)).toEqual(expected);
  });

  it('an interface whose name is a number is meant before its index', () => {
    expect(withIndexes(['fe80::1%7'], [{ index: 4, name: '7' }])).toEqual(['fe80::1%4']);
  });
});

describe('ResolverZones', () => {
  const zones = (nameservers: readonly string[], links: () => typeof LINKS = () => LINKS) => {
    const told: (readonly string[])[] = [];
    const given = withIndexes(nameservers, LINKS);
    return { told, zones: new ResolverZones(nameservers, given, links, (list) => told.push(list)) };
  };

  it('an interface that comes again has another index: the engine is told, and only then', () => {
    const t = zones(['192.0.2.1', 'fe80::1%eth0']);
    t.zones.setLinks(LINKS);
    expect(t.told).toEqual([]);
    t.zones.setLinks([{ index: 1, name: 'lo' }]);
    t.zones.setLinks([{ index: 9, name: 'eth0' }]);
    t.zones.setLinks([{ index: 9, name: 'eth0' }]);
    expect(t.told).toEqual([['192.0.2.1'], ['192.0.2.1', 'fe80::1%9']]);
  });

  it('resolv.conf names others: their interfaces are looked up', () => {
    const t = zones(['192.0.2.1']);
    t.zones.setNameservers(['fe80::2%wlan0']);
    expect(t.told).toEqual([['fe80::2%7']]);
  });

  it('no zones: the host is not asked for its links', () => {
    const t = zones(['192.0.2.1'], () => {
      throw new Error('asked');
    });
    t.zones.setNameservers(['192.0.2.2', 'fe80::1']);
    t.zones.setLinks([]);
    expect(t.told).toEqual([['192.0.2.2', 'fe80::1']]);
  });

  it('links that cannot be told: the others serve until the host changes again', () => {
    const t = zones(['192.0.2.1'], () => {
      throw new SysError('RTM_GETLINK', '', 12);
    });
    t.zones.setNameservers(['192.0.2.2', 'fe80::2%eth0']);
    t.zones.setLinks(LINKS);
    expect(t.told).toEqual([['192.0.2.2'], ['192.0.2.2', 'fe80::2%2']]);
  });
});
