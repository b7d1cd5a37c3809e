/** The forwarding rules of the command line. */
import { readFileSync } from 'node:fs';
import { UsageError } from '../cli/values.ts';
import type { PastaConf } from './conf.ts';
import { RuleTable } from './forward-rules.ts';
import { Message } from './messages.ts';
import { applyPortSpec, ephemeralPorts, type PortRange } from './port-spec.ts';

/** The rules of both directions. */
export interface PortRules {
  readonly inbound: RuleTable;
  readonly outbound: RuleTable;
}

/**
 * The rules of -t, -u (host to namespace) and -T, -U (namespace to host). An option that is not given is
 * `auto`.
 * @param ephemeral  the kernel's range of ephemeral ports
 * @throws ForwardError with pasta's message
 */
export function portRules(conf: PastaConf, ephemeral: PortRange = readEphemeralPorts()): PortRules {
  const limits = { ipv4: conf.ipv4, ipv6: conf.ipv6, tcp: conf.tcp, udp: conf.udp };
  const rules = { inbound: new RuleTable('HOST', limits), outbound: new RuleTable('SPLICE', limits) };
  for (const { option, spec, written } of conf.ports) {
    applyPortSpec(written, protocolOf(option), spec, tableOf(rules, option), ephemeral);
  }
  for (const option of ['t', 'u', 'T', 'U'] as const) {
    if (conf.ports.some((given) => given.option === option) || !conf[protocolOf(option)]) continue;
    applyPortSpec(`-${option}`, protocolOf(option), 'auto', tableOf(rules, option), ephemeral);
  }
  return rules;
}

const protocolOf = (option: 't' | 'u' | 'T' | 'U'): 'tcp' | 'udp' =>
  option === 't' || option === 'T' ? 'tcp' : 'udp';

const tableOf = (rules: PortRules, option: 't' | 'u' | 'T' | 'U'): RuleTable =>
  option === 't' || option === 'u' ? rules.inbound : rules.outbound;

function readEphemeralPorts(): PortRange {
  try {
    return ephemeralPorts(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8'));
  } catch {
    return ephemeralPorts(undefined);
  }
}

/**
 * Refuse outbound rules with a target address: an outbound connection goes to the same loopback address on
 * the host. The command line cannot ask for another, the control socket can.
 * @throws UsageError
 */
export function refuseOutboundTarget(outbound: RuleTable): void {
  const target = outbound.rules.find((rule) => rule.target !== '')?.target;
  if (target !== undefined)
    throw new UsageError(
      Message.unsupported(`a port forwarded out to ${target}`, 'only to the same address'),
    );
}

/** Whether the engine needs sockets inside the namespace, for spliced connections. */
export const needsSockets = (conf: PastaConf, rules: PortRules): boolean =>
  conf.confPath !== undefined ||
  (conf.spliceOnly && conf.apiSocket !== undefined) ||
  rules.outbound.rules.length > 0 ||
  (conf.splice && rules.inbound.rules.length > 0);
