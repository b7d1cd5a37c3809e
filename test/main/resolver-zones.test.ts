// @vitest: beside
import { describe, expect, it } from 'vitest';
import { ResolverZones, withIndexes } from '../../src/main/host/resolver-zones.ts';
import { Errno } from '../../src/sys/constants.ts';
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

  it('a zone of digits: an interface of that name has precedence over the index', () => {
    expect(withIndexes(['fe80::1%7'], [{ index: 4, name: '7' }])).toEqual(['fe80::1%4']);
  });
});

describe('ResolverZones', () => {
  const zones = (nameservers: readonly string[], links: () => typeof LINKS = () => LINKS) => {
    const told: (readonly string[])[] = [];
    const given = withIndexes(nameservers, LINKS);
    return { told, zones: new ResolverZones(nameservers, given, links, (list) => told.push(list)) };
  };

  it('an interface returns with another index: one update to the engine, none before', () => {
    const t = zones(['192.0.2.1', 'fe80::1%eth0']);
    t.zones.setLinks(LINKS);
    expect(t.told).toEqual([]);
    t.zones.setLinks([{ index: 1, name: 'lo' }]);
    t.zones.setLinks([{ index: 9, name: 'eth0' }]);
    t.zones.setLinks([{ index: 9, name: 'eth0' }]);
    expect(t.told).toEqual([['192.0.2.1'], ['192.0.2.1', 'fe80::1%9']]);
  });

  it('resolv.conf changes: the interfaces of the new resolvers are looked up', () => {
    const t = zones(['192.0.2.1']);
    t.zones.setNameservers(['fe80::2%wlan0']);
    expect(t.told).toEqual([['fe80::2%7']]);
  });

  it('no zones: links of the host are not read', () => {
    const t = zones(['192.0.2.1'], () => {
      throw new Error('asked');
    });
    t.zones.setNameservers(['192.0.2.2', 'fe80::1']);
    t.zones.setLinks([]);
    expect(t.told).toEqual([['192.0.2.2', 'fe80::1']]);
  });

  it('links cannot be read: resolvers without a zone are used until the host changes again', () => {
    const t = zones(['192.0.2.1'], () => {
      throw new SysError('RTM_GETLINK', '', Errno.ENOMEM);
    });
    t.zones.setNameservers(['192.0.2.2', 'fe80::2%eth0']);
    t.zones.setLinks(LINKS);
    expect(t.told).toEqual([['192.0.2.2'], ['192.0.2.2', 'fe80::2%2']]);
  });
});
