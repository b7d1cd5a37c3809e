/** From options and the TAP to an engine plan. Reads the number of processors, otherwise pure. */
import { DEFAULT_POLICY, type EnginePlan, type MulticastPlan } from '../../workers/engine-plan.ts';
import { parseImpairment } from '../cli/impairment.ts';
import { threadsAndPool, threadsOfLine } from '../host/threads.ts';
import { launcherVariable } from '../process/launcher-env.ts';
import type { SlirpTap } from './netns-setup.ts';
import { gatewayMac, IPV6, networkAddresses } from './network.ts';
import type { SlirpConf } from './options.ts';

/** libslirp's timeout, for every datagram flow. */
const UDP_TIMEOUT_MS = 240_000;
/** Resolvers of a host whose resolv.conf names none. */
const LOOPBACK_RESOLVERS = ['127.0.0.1', '::1'];

/**
 * Make the engine plan.
 * @param made              the TAP, or the socket that carries frames instead
 * @param listenerCapacity  most listeners at a time
 * @param hostResolvers     addresses of the host's resolvers; zones are interface indexes
 */
export function slirpEnginePlan(
  conf: SlirpConf,
  made: SlirpTap,
  keys: Pick<EnginePlan, 'hashKey' | 'isnKey'>,
  listenerCapacity: number,
  hostResolvers: readonly string[],
  multicast: MulticastPlan | undefined,
): EnginePlan {
  const { gateway, dns, dhcpBegin, guest } = networkAddresses(conf.network);
  const impairment = parseImpairment(launcherVariable('BUCATINI_TEST_IMPAIR'));
  return {
    ...threadsAndPool(threadsOfLine(conf.shaping), made.tap),
    addresses: {
      mtu: conf.mtu,
      mac: gatewayMac(gateway),
      ...(made.guestMac !== undefined && { guestMac: made.guestMac }),
      ipv4: {
        guest,
        prefixLen: conf.network.prefixLen,
        gateway,
        dns,
        dhcpOffer: dhcpBegin,
        ...(conf.hostLoopback && { hostLoopback: gateway }),
      },
      ...(conf.ipv6 && {
        ipv6: {
          guest: '::',
          prefixLen: IPV6.prefixLen,
          advertised: IPV6.prefix,
          gateway: IPV6.gateway,
          linkLocal: IPV6.linkLocal,
          dns: IPV6.dns,
          ...(conf.hostLoopback && { hostLoopback: IPV6.gateway }),
        },
      }),
      resolvers: hostResolvers,
      offeredDns: [dns, ...(conf.ipv6 && conf.dns ? [IPV6.dns] : [])],
      searchDomains: [],
    },
    policy: {
      ...DEFAULT_POLICY,
      udpTimeoutMs: UDP_TIMEOUT_MS,
      udpStreamTimeoutMs: UDP_TIMEOUT_MS,
      udpFiltering: 'endpoint-independent',
      dhcpv6: false,
      dhcpSearch: false,
      offerMtu: false,
      arp: 'ours',
      gateway: 'ours',
      dnsPorts: conf.dns ? [53] : [],
      refusal: 'network',
      outboundToLoopback: true,
      ...(conf.outbound4 !== undefined && { outboundAddress4: conf.outbound4 }),
      ...(conf.outbound6 !== undefined && { outboundAddress6: conf.outbound6 }),
      ...(multicast && { multicast }),
    },
    listeners: [],
    listenerCapacity,
    tap: made.tap,
    ...keys,
    ...(conf.shaping && { shaping: conf.shaping }),
    ...(impairment && { impairment }),
    logLevel: 'warning',
    waitsForBegin: true,
  };
}

/** @param nameservers  those of the host's resolv.conf. @returns the resolvers that get the guest's queries */
export const resolvers = (nameservers: readonly string[]): readonly string[] =>
  nameservers.length > 0 ? nameservers : LOOPBACK_RESOLVERS;
