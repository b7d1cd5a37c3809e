/** The network of a host as a netlink dump, and pasta's plan for it. */
import { type HostDump, planPasta } from '../../../src/main/pasta/address-plan.ts';
import type { PastaConf } from '../../../src/main/pasta/conf.ts';
import { parsePasta } from '../../../src/main/pasta/parse.ts';
import * as k from '../../../src/sys/constants.ts';
import type { AddressInfo, LinkInfo, RouteInfo } from '../../../src/sys/netlink-messages.ts';

export const link = (index: number, name: string, loopback = false): LinkInfo => ({
  ...{
    index,
    name,
    loopback,
    up: true,
    running: true,
    mac: '',
    mtu: 1500,
    flags: 1,
    txQueueLen: 1,
    kind: '',
  },
});
export const address = (index: number, text: string, more: Partial<AddressInfo> = {}): AddressInfo => {
  const [name = '', length] = text.split('/');
  const family = name.includes(':') ? 6 : 4;
  return { family, address: name, prefixLen: Number(length), index, scope: 0, flags: 0, ...more };
};
export const route = (oif: number | undefined, dst: string, more: Partial<RouteInfo> = {}): RouteInfo => {
  const [name = '', length] = dst.split('/');
  const family = name.includes(':') ? 6 : 4;
  return {
    ...{ family, dst: name, prefixLen: Number(length), table: k.RT_TABLE_MAIN, scope: 0 },
    ...{ type: k.RTN_UNICAST, protocol: 3, priority: 0, flags: 0 },
    ...(oif !== undefined && { oif }),
    ...more,
  };
};

export const HOST: HostDump = {
  links: [link(1, 'lo', true), link(2, 'eth0'), link(3, 'wg0')],
  addresses: [
    address(2, '10.77.0.9/16'),
    address(2, '10.77.0.1/24'),
    address(2, '10.99.0.1/30', { flags: k.IFA_F_DEPRECATED }),
    address(2, 'fd77::1/64'),
    address(2, 'fe80::5/64', { scope: k.RT_SCOPE_LINK }),
    address(3, '10.8.0.2/32', { peer: '10.8.0.1' }),
  ],
  routes: [
    route(2, '0.0.0.0/0', { gateway: '10.77.0.254' }),
    route(2, '10.77.0.0/24'),
    route(3, '10.8.0.0/24'),
    route(2, '::/0', { gateway: 'fd77::fe' }),
    route(2, 'fd77::/64'),
  ],
  hasIpv6: true,
};
export const parsed = (line: string): PastaConf => {
  const outcome = parsePasta(line.split(' ').filter(Boolean));
  if (outcome.kind !== 'go') throw new Error(line);
  return outcome.conf;
};
export const plan = (line = '', host = HOST, nameservers: readonly string[] = ['192.0.2.53']) => {
  return planPasta(parsed(line), host, { nameservers, search: ['bed.test'], options: [] });
};
