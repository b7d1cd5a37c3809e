// @vitest: beside
import { describe, expect, it } from 'vitest';
import type { HostDump } from '../../../src/main/pasta/address-plan.ts';
import { engineChange, lateConfig, missingConfig } from '../../../src/main/pasta/follow.ts';
import * as k from '../../../src/sys/constants.ts';
import { address, HOST, link, parsed, plan, route } from './host-dump.ts';

const NOTHING: HostDump = { ...HOST, links: [link(1, 'lo', true)], addresses: [], routes: [] };
const NO_DEFAULT: HostDump = { ...HOST, routes: HOST.routes.filter((r) => r.prefixLen > 0) };
const bare = { addresses: [], routes: [] };

describe('what a family still lacks in the namespace', () => {
  it('a host with addresses and routes: nothing', () => {
    expect(missingConfig(plan(''))).toEqual([]);
  });
  it('a host without default route: a default route of each family', () => {
    expect(missingConfig(plan('', NO_DEFAULT))).toEqual([
      { family: 4, address: false, route: true },
      { family: 6, address: false, route: true },
    ]);
  });
  it('a host without network: an IPv6 address; local mode has a default route', () => {
    expect(missingConfig(plan('', NOTHING))).toEqual([{ family: 6, address: true, route: false }]);
  });
  it('a family that is off: nothing', () => {
    expect(missingConfig(plan('-4', NO_DEFAULT)).map((l) => l.family)).toEqual([4]);
  });
});

describe('what is added when the host changes', () => {
  it('the host gets its default route: the routes of that family, no address', () => {
    const [lack] = missingConfig(plan('', NO_DEFAULT));
    const added = lateConfig(lack!, plan('').inside, bare);
    expect(added.addresses).toEqual([]);
    expect(added.routes.map((r) => `${r.dst}/${r.prefixLen}`)).toEqual(['0.0.0.0/0', '10.77.0.0/24']);
  });
  it('the host still has no default route: nothing', () => {
    const [lack] = missingConfig(plan('', NO_DEFAULT));
    expect(lateConfig(lack!, plan('', NO_DEFAULT).inside, bare)).toMatchObject({ routes: [], gateways: [] });
    expect(lack).toMatchObject({ route: true });
  });
  it('the guest has set a default route of its own: nothing, then or later', () => {
    const [lack] = missingConfig(plan('', NO_DEFAULT));
    const own = { addresses: [], routes: [route(7, '0.0.0.0/0', { gateway: '10.77.0.253' })] };
    expect(lateConfig(lack!, plan('').inside, own).routes).toEqual([]);
    expect(lack).toMatchObject({ route: false });
  });
  it('only a link-local IPv6 address in the namespace: the planned address is added', () => {
    const [lack] = missingConfig(plan('', NOTHING));
    const now = { addresses: [address(7, 'fe80::7/64', { scope: k.RT_SCOPE_LINK })], routes: [] };
    const added = lateConfig(lack!, plan('').inside, now);
    expect(added.addresses.map((a) => a.address)).toEqual(['fd77::1']);
    expect([...added.routes, ...added.gateways]).toEqual([]);
  });
});

describe('updates to the engine', () => {
  const moved: HostDump = {
    ...HOST,
    addresses: [
      address(3, '198.51.100.7/24'),
      address(3, 'fd91::7/64'),
      address(3, 'fe80::7/64', { scope: k.RT_SCOPE_LINK }),
    ],
    routes: [route(3, '0.0.0.0/0', { gateway: '198.51.100.1' }), route(3, '::/0', { gateway: 'fd91::1' })],
  };
  const told = (line: string, host: HostDump) =>
    engineChange(parsed(line), plan(line), host, plan(line, host));

  it('the host moves to another interface: its scope and its addresses', () => {
    expect(told('', moved)).toEqual({ linkLocalScope: 3, self4: '198.51.100.7', self6: 'fd91::7' });
  });
  it('the host gets another address: the guest keeps its own', () => {
    const more = { ...HOST, addresses: [address(2, '10.77.0.200/32'), ...HOST.addresses] };
    expect(told('', more)).toMatchObject({ self4: '10.77.0.1', self6: 'fd77::1' });
  });
  it('the host gets its first default route: DHCPv4 offers it, unless DHCP is off', () => {
    const before = { ...HOST, routes: HOST.routes.filter((r) => r.gateway !== '10.77.0.254') };
    const late = (line: string, now: HostDump) =>
      engineChange(parsed(line), plan(line, before), now, plan(line, now));
    expect(late('-i eth0', HOST)).toMatchObject({ dhcpGateway: '10.77.0.254' });
    expect(late('-i eth0', before)).not.toHaveProperty('dhcpGateway');
    expect(late('-i eth0 --no-dhcp', HOST)).not.toHaveProperty('dhcpGateway');
    expect(told('', HOST)).not.toHaveProperty('dhcpGateway');
  });
  it('addresses of the command line: do not change', () => {
    expect(told('-a 192.0.2.2', moved)).not.toHaveProperty('self4');
  });
});
