// bundle: rare
/** `bucatini policy test`: which rule of an egress policy decides about a destination. */
import { addressParse } from '../../proto/address.ts';
import { domainLabels, domainWrite } from '../../proto/domain-name.ts';
import { RouteSocket } from '../../sys/netlink.ts';
import { EGRESS_NAMES_BYTES, EgressNames } from '../../workers/flow/egress-names.ts';
import {
  compileEgress,
  EgressPolicy,
  EgressProto,
  type EgressRule,
  type EgressRules,
} from '../../workers/flow/egress-policy.ts';
import { joinPolicy, ruleText } from '../cli/policy-text.ts';
import { named, parseCount, quoted, UsageError } from '../cli/values.ts';
import { readPolicy } from '../host/egress-control.ts';
import { hostPrefixes } from '../host/host-prefixes.ts';
import { print } from '../process/output.ts';
import type { Settings } from './options.ts';

type Proto = keyof typeof EgressProto;

/** The status of a destination that is denied. */
const DENIED = 2;
const USAGE = 'write bucatini policy test FILE ADDR:PORT';

/**
 * Run `bucatini policy test`.
 * @param operands  file and destination
 * @returns the exit status
 * @throws UsageError
 */
export function policyTest(settings: Settings, operands: readonly string[]): number {
  if (settings.json || settings.watch !== undefined)
    throw new UsageError(
      `--${settings.json ? 'json' : 'watch'}: is an option of bucatini policy without test`,
    );
  const [file, to, extra] = operands;
  if (extra !== undefined) throw new UsageError(`${quoted(extra)}: one operand too many; ${USAGE}`);
  if (file === undefined || to === undefined)
    throw new UsageError(`${file === undefined ? 'FILE' : 'ADDR:PORT'} is missing; ${USAGE}`);
  const rules = joinPolicy([], readPolicy(file));
  const { text, allowed } = explain(rules, to, settings, ownPrefixes());
  print(text);
  return allowed ? 0 : DENIED;
}

/** What is this host itself: the word `host` is about it. */
function ownPrefixes(): Uint32Array {
  const host = new RouteSocket();
  try {
    return hostPrefixes(host);
  } finally {
    host.close();
  }
}

/** A destination as it is written: ADDR, ADDR:PORT, [ADDR]:PORT, NAME, NAME:PORT. @throws UsageError */
function parseDestination(text: string): { readonly host: string; readonly port: number } {
  const [, bracketed, plain = '', port] =
    /^(?:\[([^\]]*)\]|([^:]*|[^[\]]*:[^[\]]*:[^[\]]*?))(?::([0-9]*))?$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === '') throw new UsageError(`${quoted(text)}: write ADDR:PORT, [ADDR]:PORT or NAME:PORT`);
  if (port === undefined) return { host, port: 0 };
  return { host, port: named(`${quoted(text)}: port`, port, () => parseCount(port, 1, 65535, '443')) };
}

/** What the rules say about a destination. */
export function explain(
  rules: EgressRules,
  to: string,
  options: Pick<Settings, 'protocol' | 'name' | 'nat64'>,
  hosts: Uint32Array,
): { readonly text: string; readonly allowed: boolean } {
  const whole = new Uint32Array(4);
  const isAddress = addressParse(to, whole, 0);
  const { host, port } = isAddress ? { host: to, port: 0 } : parseDestination(to);
  const proto = (options.protocol ?? (port === 0 ? 'icmp' : 'tcp')) as Proto;
  if (port === 0 && (proto === 'tcp' || proto === 'udp'))
    throw new UsageError(`${quoted(to)}: ${proto} has ports; write ${to.includes(':') ? `[${to}]` : to}:443`);
  if (port !== 0 && (proto === 'icmp' || proto === 'dns'))
    throw new UsageError(`${quoted(to)}: ${proto} has no ports; leave the port out`);
  const names = new EgressNames(new SharedArrayBuffer(EGRESS_NAMES_BYTES));
  const trusted = typeof options.nat64 === 'object' ? options.nat64 : [];
  const compiled = new EgressPolicy(compileEgress(rules, hosts, { trusted, found: [] }), names);
  const words = new Uint32Array(4);
  const place = `${proto} ${to}`;
  if (addressParse(host, words, 0)) {
    if (options.name !== undefined) {
      const { bytes, length } = wireName(options.name, '--name ');
      names.learn(bytes, 0, length, words, 0, 60, names.now(performance.now()));
    }
    const verdict = compiled.decide(words, 0, false, EgressProto[proto], port, 0);
    const of = options.name === undefined ? '' : ` (an address of ${options.name})`;
    return { text: `${place}${of}: ${verdictText(rules, verdict)}\n`, allowed: verdict >= 0 };
  }
  if (options.name !== undefined)
    throw new UsageError(`--name ${quoted(options.name)}: needs an address, not ${quoted(host)}`);
  const { bytes, length } = wireName(host);
  const query = compiled.decideName(bytes, 0, length);
  let text = `query for ${host}: ${verdictText(rules, query)}\n`;
  if (proto === 'dns' || query < 0) return { text, allowed: query >= 0 };
  // An address that no rule but those about all addresses matches: the other rules are listed.
  const { decisive, before } = ruleOfName(rules, host, EgressProto[proto], port);
  const allowed = decisive === undefined ? rules.defaultAllow : decisive.allow;
  text += `${place}: ${decisive === undefined ? defaultText(rules) : ruleVerdict(rules, decisive)}\n`;
  for (const rule of before.filter(({ allow }) => allow !== allowed))
    text += `  unless its address matches ${placeOf(rules, rule)}: ${ruleText(rule)}\n`;
  return { text, allowed };
}

/** The first rule that decides for a name whatever its address is, and those before it that may. */
function ruleOfName(
  rules: EgressRules,
  name: string,
  proto: number,
  port: number,
): { readonly decisive: EgressRule | undefined; readonly before: readonly EgressRule[] } {
  const before: EgressRule[] = [];
  const bare = name.replace(/\.$/, '').toLowerCase();
  for (const rule of rules.rules) {
    if ((rule.protocols & proto) === 0) continue;
    if (rule.ports.length > 0 && !rule.ports.some(([a, b]) => port >= a && port <= b)) continue;
    const decides = rule.targets.some(
      (target) =>
        (target.kind === 'word' && target.word === 'any') ||
        (target.kind === 'name' && (target.below ? bare.endsWith(`.${target.name}`) : bare === target.name)),
    );
    if (decides) return { decisive: rule, before };
    if (rule.targets.some((target) => target.kind !== 'name')) before.push(rule);
  }
  return { decisive: undefined, before };
}

const placeOf = ({ rules }: EgressRules, rule: EgressRule): string =>
  rule.line > 0 ? `line ${rule.line}` : `rule ${rules.indexOf(rule) + 1}`;

const ruleVerdict = (rules: EgressRules, rule: EgressRule): string =>
  `${rule.allow ? 'allowed' : 'denied'} by ${placeOf(rules, rule)}: ${ruleText(rule)}`;

const defaultText = ({ defaultAllow }: EgressRules): string =>
  `${defaultAllow ? 'allowed' : 'denied'} by default, as no rule matches`;

function verdictText(rules: EgressRules, verdict: number): string {
  const rule = rules.rules[verdict < 0 ? -1 - verdict : verdict];
  return rule === undefined ? defaultText(rules) : ruleVerdict(rules, rule);
}

/**
 * @param option  in front of the name in errors; '': an operand
 * @throws UsageError
 */
function wireName(name: string, option = ''): { readonly bytes: Uint8Array; readonly length: number } {
  const labels = domainLabels(name);
  if (labels === null || name.includes('*'))
    throw new UsageError(
      `${option}${quoted(name)}: ${option === '' ? 'is neither an address nor a domain name' : 'is no domain name'}`,
    );
  const bytes = new Uint8Array(255);
  return { bytes, length: domainWrite(bytes, 0, labels) - 1 };
}
