// @vitest: beside
import { describe, expect, it } from 'vitest';
import { address, HOST, link, plan, route } from './host-dump.ts';

describe('the plan of pasta', () => {
  it('no options: a copy of the interface of the first default route', () => {
    const { addresses, interfaceName, inside, warnings } = plan();
    expect(interfaceName).toBe('eth0');
    expect(addresses.ipv4).toEqual({
      ...{ guest: '10.77.0.1', prefixLen: 24, gateway: '10.77.0.254', hostLoopback: '10.77.0.254' },
    });
    expect(addresses.ipv6).toEqual({
      ...{ guest: 'fd77::1', prefixLen: 64, gateway: 'fd77::fe', hostLoopback: 'fd77::fe' },
      ...{ linkLocal: 'fe80::5', linkLocalScope: 2 },
    });
    expect(inside.addresses.map((a) => `${a.address}/${a.prefixLen}`)).toEqual([
      ...['10.77.0.9/16', '10.77.0.1/24', 'fd77::1/64'],
    ]);
    expect(inside.routes.map((r) => `${r.dst}/${r.prefixLen}`)).toEqual([
      ...['0.0.0.0/0', '10.77.0.0/24', '::/0', 'fd77::/64'],
    ]);
    expect(inside.gateways).toEqual([]);
    expect(warnings).toEqual([]);
  });

  it('-i, a point-to-point interface without default route: no gateway, no DHCP', () => {
    const { addresses, inside, hasGateway4, interfaceName } = plan('-4 -i wg0');
    expect({ interfaceName, hasGateway4 }).toEqual({ interfaceName: 'wg0', hasGateway4: false });
    expect(addresses.ipv4).toEqual({ guest: '10.8.0.2', prefixLen: 32, gateway: '169.254.2.2' });
    expect(inside.addresses).toEqual([
      { family: 4, address: '10.8.0.2', prefixLen: 32, peer: '10.8.0.1', scope: 0 },
    ]);
    expect(() => plan('-i nope')).toThrow('Invalid interface name nope: No such device');
  });

  it('-i, an interface without addresses: neither addresses nor name are copied', () => {
    expect(plan('-4 -i bare', { ...HOST, links: [...HOST.links, link(99, 'bare')] }).interfaceName).toBe(
      'tap0',
    );
  });

  it.each([
    ['-a 10.0.0.5', 8],
    ['-a 172.16.0.5', 16],
    ['-a 192.0.2.5', 24],
    ['-a 192.0.2.5/30', 30],
    ['-a 192.0.2.5 -n 28', 28],
    ['-n 28', 28],
  ])('%s: prefix length %i; routes are copied all the same', (line, length) => {
    const { addresses, inside } = plan(line);
    expect(addresses.ipv4?.prefixLen).toBe(length);
    expect(inside.routes).toHaveLength(4);
  });

  it('-a and -g: one address and a default route in that family; a host route to a gateway outside the prefix', () => {
    const near = plan('-a 192.0.2.2 -g 192.0.2.1').inside;
    expect(near.addresses.map((a) => a.address)).toEqual(['192.0.2.2', 'fd77::1']);
    expect(near.routes.every((r) => r.family === 6)).toBe(true);
    expect(near.gateways).toEqual([{ family: 4, gateway: '192.0.2.1', onLink: false }]);
    expect(plan('-g 192.0.2.1').inside.gateways).toEqual([{ family: 4, gateway: '192.0.2.1', onLink: true }]);
    expect(plan('-g fe80::9').inside.gateways).toEqual([{ family: 6, gateway: 'fe80::9', onLink: false }]);
  });

  it("the kernel's route to the internet is in another table: its interface is the template", () => {
    const wg0 = { linkIndex: 3, source: '10.8.0.2', isMain: false };
    const tunnel = plan('-4', { ...HOST, chosen: { 4: wg0 } });
    expect(tunnel.interfaceName).toBe('wg0');
    expect(tunnel.addresses.ipv4).toMatchObject({ guest: '10.8.0.2', gateway: '169.254.2.2' });
    expect(tunnel.inside.routes.map((r) => r.dst)).toEqual(['10.8.0.0']);
    expect(tunnel.inside.gateways).toEqual([{ family: 4, gateway: '169.254.2.2', onLink: true }]);
    expect(tunnel.hasGateway4).toBe(true);
    // In the main table the route itself is copied.
    const main = plan('-4', { ...HOST, chosen: { 4: { linkIndex: 2, source: '10.77.0.9', isMain: true } } });
    expect(main.addresses.ipv4).toMatchObject({ guest: '10.77.0.1', gateway: '10.77.0.254' });
    expect(main.inside.gateways).toEqual([]);
    // An interface without address cannot be the template.
    const bare = plan('-4', { ...HOST, chosen: { 4: { linkIndex: 9, isMain: false } } });
    expect(bare.interfaceName).toBe('eth0');
  });

  it('IPv6 addresses of several kinds: the one that the kernel takes as source', () => {
    const addresses = [...HOST.addresses, address(2, '2001:db8::5/64')];
    const way = { linkIndex: 2, source: '2001:db8::5', isMain: true };
    expect(plan('-6', { ...HOST, addresses, chosen: { 6: way } }).addresses.ipv6?.guest).toBe('2001:db8::5');
  });

  it('a host without network: local mode with a default route', () => {
    const { addresses, inside, interfaceName, info, hasGateway4, templates } = plan('', {
      ...{ links: [link(1, 'lo', true)], addresses: [], routes: [], hasIpv6: true },
    });
    expect(interfaceName).toBe('tap0');
    expect({ hasGateway4, templates }).toEqual({ hasGateway4: true, templates: {} });
    expect(addresses.ipv4).toMatchObject({ guest: '169.254.2.1', prefixLen: 16, gateway: '169.254.2.2' });
    expect(addresses.ipv6).toMatchObject({ gateway: 'fe80::1', linkLocal: 'fe80::1' });
    expect(inside.gateways.map((g) => g.gateway)).toEqual(['169.254.2.2', 'fe80::1']);
    expect(inside.addresses.map((a) => a.address)).toEqual(['169.254.2.1']);
    expect(info).toContain('IPv4: no external interface as template, use local mode');
  });

  it('several next hops: interface of the first, gateway with the highest weight; only routes of one interface are copied', () => {
    const hops = [
      { oif: 2, gateway: '10.77.0.3', weight: 1 },
      { oif: 2, gateway: '10.77.0.4', weight: 9 },
    ];
    const mixed = [hops[0]!, { oif: 3, weight: 1 }];
    const routes = [
      route(undefined, '0.0.0.0/0', { hops }),
      route(undefined, '10.1.0.0/16', { hops: mixed }),
    ];
    const { addresses, inside } = plan('-4', { ...HOST, routes });
    expect(addresses.ipv4?.gateway).toBe('10.77.0.4');
    expect(inside.routes).toEqual([routes[0]]);
  });

  it.each([
    ['', ['192.0.2.53'], ['192.0.2.53'], undefined],
    ['--dns-forward 169.254.1.1', ['192.0.2.53'], ['192.0.2.53'], '169.254.1.1'],
    ['--dns-forward 169.254.1.1', ['127.0.0.53'], ['169.254.1.1'], '169.254.1.1'],
    ['', ['127.0.0.53'], ['10.77.0.254'], '10.77.0.254'],
    ['', ['10.77.0.254'], ['10.77.0.254'], '10.77.0.254'],
    ['--no-map-gw', ['127.0.0.53', '192.0.2.1'], ['192.0.2.1'], undefined],
    ['-D 198.51.100.1', ['127.0.0.53'], ['198.51.100.1'], undefined],
    ['-D none', ['192.0.2.53'], [], undefined],
    ['-D 2001:db8::1', ['192.0.2.53', 'fd77::2'], ['2001:db8::1', '192.0.2.53'], undefined],
    ['-D 198.51.100.1', ['192.0.2.53', 'fd77::2'], ['198.51.100.1', 'fd77::2'], undefined],
    ['-D none -D 198.51.100.1', ['192.0.2.53', 'fd77::2'], ['198.51.100.1', 'fd77::2'], undefined],
    ['-D 198.51.100.1 -D none', ['192.0.2.53', 'fd77::2'], [], undefined],
  ])('%s, the host asks %j: offered %j, forwarded by %s', (line, servers, offered, forward) => {
    const { addresses } = plan(line, HOST, servers);
    expect(addresses.offeredDns).toEqual(offered);
    expect(addresses.ipv4?.dns).toBe(forward);
  });

  it('no resolver can be offered: a warning', () => {
    expect(plan('', HOST, []).warnings).toEqual(["Couldn't get any nameserver address"]);
    expect(plan('-D none', HOST, []).warnings).toEqual([]);
  });

  it('--map-host-loopback and --no-map-gw: set or remove the address of host loopback', () => {
    const mapped = (line: string): (string | undefined)[] => {
      const { ipv4, ipv6 } = plan(line).addresses;
      return [ipv4?.hostLoopback, ipv6?.hostLoopback];
    };
    expect(mapped('--no-map-gw')).toEqual([undefined, undefined]);
    expect(mapped('--map-host-loopback 192.0.2.9')).toEqual(['192.0.2.9', 'fd77::fe']);
    expect(mapped('--no-map-gw --map-host-loopback 192.0.2.9')).toEqual(['192.0.2.9', undefined]);
    expect(mapped('--map-host-loopback none')).toEqual([undefined, undefined]);
  });

  it('no IPv6 in the kernel: a warning; with -6: an error', () => {
    const host = { ...HOST, hasIpv6: false };
    expect(plan('', host).addresses.ipv6).toBeUndefined();
    expect(plan('', host).warnings).toEqual(['IPv6 not supported by kernel: disabled']);
    expect(() => plan('-6', host)).toThrow('IPv6 not supported by kernel');
  });
});
