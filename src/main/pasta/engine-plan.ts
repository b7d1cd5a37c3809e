/** From options and the namespace's TAP to an engine plan. Reads the number of processors, otherwise pure. */
import {
  DEFAULT_POLICY,
  type EnginePlan,
  type ListenerPlan,
  type MulticastPlan,
  type ServicePolicy,
} from '../../workers/engine-plan.ts';
import { parseImpairment } from '../cli/impairment.ts';
import { threadsAndPool, threadsOfLine } from '../host/threads.ts';
import { launcherVariable } from '../process/launcher-env.ts';
import type { PastaConf } from './conf.ts';
import { MAX_LISTENERS } from './forward-rules.ts';
import type { PastaTap } from './netns-setup.ts';

/** Listening sockets of both directions; their tables cost nothing until used. */
const MAX_LISTENING = 2 * MAX_LISTENERS;
/** 853 is DNS over TLS (RFC 7858), which is forwarded unchanged. */
const DNS_PORTS = [53, 853];

/**
 * Make the engine plan.
 * @param made     what the set-up of the namespace made
 * @param sockets  memory shared with the thread that makes sockets inside (splice/socket-source.ts);
 *   undefined: nothing is spliced
 */
export function pastaEnginePlan(
  conf: PastaConf,
  made: PastaTap,
  listeners: readonly ListenerPlan[],
  sockets: SharedArrayBuffer | undefined,
  keys: Pick<EnginePlan, 'hashKey' | 'isnKey'>,
  logLevel: EnginePlan['logLevel'],
  multicast: MulticastPlan | undefined,
): EnginePlan {
  const impairment = parseImpairment(launcherVariable('BUCATINI_TEST_IMPAIR'));
  return {
    // With --splice-only there is no TAP but only loopback ports: one thread is enough.
    ...threadsAndPool(threadsOfLine(conf.shaping), made.tap),
    addresses: made.network.addresses,
    policy: { ...policyOf(conf, made), ...(multicast && { multicast }) },
    listeners,
    listenerCapacity: MAX_LISTENING,
    ...(sockets && { splice: { sockets, hostLoToNsLo: conf.hostLoToNsLo } }),
    ...(made.tap && { tap: made.tap }),
    ...keys,
    ...(impairment && { impairment }),
    ...(conf.shaping && { shaping: conf.shaping }),
    logLevel,
  };
}

function policyOf(conf: PastaConf, made: PastaTap): ServicePolicy {
  const optional = {
    hostname: conf.hostname || undefined,
    fqdn: conf.fqdn || undefined,
    outboundAddress4: conf.outbound4,
    outboundAddress6: conf.outbound6,
    outboundInterface4: conf.outboundIf4,
    outboundInterface6: conf.outboundIf6,
  };
  const given = Object.entries(optional).filter(([, value]) => value !== undefined);
  return {
    ...DEFAULT_POLICY,
    tcp: conf.tcp,
    udp: conf.udp,
    icmp: conf.icmp,
    // Without a gateway there is no router to offer.
    dhcp: conf.dhcp && made.network.hasGateway4,
    dhcpv6: conf.dhcpv6,
    ndp: conf.ndp,
    ra: conf.ra && conf.ndp,
    arp: 'any',
    gateway: 'world',
    dhcpDns: conf.dhcpDns,
    dhcpSearch: conf.dhcpSearch,
    offerMtu: conf.mtu !== 0,
    dnsPorts: DNS_PORTS,
    connectFailure: 'rst',
    outboundToLoopback: true, // as passt's pasta: -o also applies to what the gateway's address is mapped to
    freebind: conf.freebind,
    ...Object.fromEntries(given),
  };
}
