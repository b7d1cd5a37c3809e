/** The port options of the command line as the listeners of an engine plan. */
import { readFileSync } from 'node:fs';
import { UsageError } from '../cli/values.ts';
import type { PastaConf } from './conf.ts';
import { RuleTable } from './forward-rules.ts';
import { Message } from './messages.ts';
import { applyPortSpec, ephemeralPorts, type PortRange } from './port-spec.ts';

export interface PortRules {
  readonly inbound: RuleTable;
  readonly outbound: RuleTable;
}

/**
 * Rules of -t, -u (host to namespace) and -T, -U (the other way), each `auto` where nothing else was said.
 * @throws ForwardError in pasta's words
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
 * What goes out comes out at the loopback address that it went to. The command line cannot say otherwise, the
 * control socket can.
 * @throws UsageError
 */
export function refuseOutboundTarget(outbound: RuleTable): void {
  const target = outbound.rules.find((rule) => rule.target !== '')?.target;
  if (target !== undefined)
    throw new UsageError(
      Message.unsupported(`a port forwarded out to ${target}`, 'only to the same address'),
    );
}

/** Whether sockets inside the namespace are needed: for what goes past the interface. */
export const needsSockets = (conf: PastaConf, rules: PortRules): boolean =>
  conf.confPath !== undefined ||
  (conf.spliceOnly && conf.apiSocket !== undefined) ||
  rules.outbound.rules.length > 0 ||
  (conf.splice && rules.inbound.rules.length > 0);
