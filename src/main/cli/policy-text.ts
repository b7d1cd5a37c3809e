/**
 * The egress policy as people write it: a file with one rule for each line (--policy), and the values of
 * --allow and --deny. docs/policy.md is the users' text.
 *
 *     # comment
 *     deny  host                                   # all protocols and ports
 *     allow tcp,udp  10.0.0.0/8,fd00::/8  53,443
 *     allow tcp      *.example.org        443
 *     default deny
 *
 *     --allow 10.0.0.0/8:443,[2001:db8::/32]:1-1023/udp,*.example.org
 *
 * Without a `default` line the default is deny if any rule allows, else allow.
 */
import { addressText } from '../../proto/address.ts';
import {
  ANY_PROTO,
  EgressProto,
  type EgressRule,
  type EgressRules,
  type EgressTarget,
  type EgressWord,
  MAX_EGRESS_RULES,
  MAX_EGRESS_TARGETS,
  PORT_PROTOS,
} from '../../workers/flow/egress-policy.ts';
import { parsePrefix, quoted, UsageError } from './values.ts';

/** Longest text of a policy, in characters. */
export const MAX_POLICY_CHARS = 8 * 1024 * 1024;

const WORDS: readonly EgressWord[] = ['any', 'host', 'private', 'internet', 'multicast'];
const PROTOCOLS = ['tcp', 'udp', 'icmp', 'dns', 'any'] as const;
const EXAMPLE = 'write for example 10.0.0.0/8, 2001:db8::/32, *.example.org or any';

/** Rules of a text or of options; `defaultAllow` only where the text says so. */
export interface PolicyPart {
  readonly rules: readonly EgressRule[];
  readonly defaultAllow?: boolean;
}

/** The policy of options and of a file: the rules of the options come first. */
export function joinPolicy(options: readonly EgressRule[], file: PolicyPart = { rules: [] }): EgressRules {
  const rules = [...options, ...file.rules];
  return { rules, defaultAllow: file.defaultAllow ?? !rules.some(({ allow }) => allow) };
}

/**
 * Parse the text of a policy.
 * @param name  in front of each error
 * @throws UsageError with one line that names file, line and word
 */
export function parsePolicyText(text: string, name: string): PolicyPart {
  const fail = (line: number, why: string): never => {
    throw new UsageError(`${name}: ${line > 0 ? `line ${line}: ` : ''}${why}`);
  };
  if (text.length > MAX_POLICY_CHARS) fail(0, `is longer than ${MAX_POLICY_CHARS >>> 20} MiB`);
  const rules: EgressRule[] = [];
  let targets = 0;
  /** A prefix has a list of the port ranges of each of its rules. */
  let pairs = 0;
  let defaultAllow: boolean | undefined;
  text.split('\n').forEach((whole, i) => {
    const line = i + 1;
    const words = whole
      .replace(/#.*/, '')
      .split(/[ \t\r]+/)
      .filter((word) => word !== '');
    if (words.length === 0) return;
    try {
      if (words[0] === 'default') {
        if (defaultAllow !== undefined) throw new UsageError('default: is given twice; write it once');
        defaultAllow = parseDefault(words);
        return;
      }
      const rule = parseRule(words, line);
      rules.push(rule);
      targets += rule.targets.length;
      pairs += rule.targets.length * rule.ports.length;
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      fail(line, error.message);
    }
    if (rules.length > MAX_EGRESS_RULES) fail(line, `more than ${MAX_EGRESS_RULES} rules; leave some out`);
    if (targets > MAX_EGRESS_TARGETS / 8)
      fail(line, `more than ${MAX_EGRESS_TARGETS / 8} targets in all; leave some out`);
    if (pairs > MAX_EGRESS_TARGETS)
      fail(line, `more than ${MAX_EGRESS_TARGETS} pairs of a target and a port range; leave some out`);
  });
  return defaultAllow === undefined ? { rules } : { rules, defaultAllow };
}

function parseDefault(words: readonly string[]): boolean {
  const [, action = '', extra] = words;
  if (action !== 'allow' && action !== 'deny')
    throw new UsageError(`default ${quoted(action)}: write default allow or default deny`);
  if (extra !== undefined) throw unexpected(extra);
  return action === 'allow';
}

const unexpected = (word: string): UsageError =>
  new UsageError(`${quoted(word)}: one word too many; write allow|deny [PROTOCOL] TARGET [PORTS]`);

/** allow|deny [PROTOCOL[,PROTOCOL]] TARGET[,TARGET] [PORT[-PORT][,PORT[-PORT]]] */
function parseRule(words: readonly string[], line: number): EgressRule {
  const [action, ...rest] = words as [string, ...string[]];
  if (action !== 'allow' && action !== 'deny')
    throw new UsageError(`${quoted(action)}: a line begins with allow, deny, default or #`);
  // `allow any` names the target, `allow any 10.0.0.0/8` a protocol.
  const isProtocol =
    rest[0]?.split(',').every((word) => (PROTOCOLS as readonly string[]).includes(word)) &&
    (rest[0] !== 'any' || (rest[1] !== undefined && !/^[0-9,-]+$/.test(rest[1])));
  const [targets, ports, extra] = isProtocol ? rest.slice(1) : rest;
  if (targets === undefined) throw new UsageError(`${words.join(' ')}: names no target; ${EXAMPLE}`);
  if (extra !== undefined) {
    if (!isProtocol && !/^[0-9]/.test(ports!))
      throw new UsageError(`${quoted(rest[0]!)}: not one of the protocols ${PROTOCOLS.join(', ')}`);
    throw unexpected(extra);
  }
  if (!isProtocol && ports !== undefined && !/^[0-9]/.test(ports) && !isTarget(targets))
    throw new UsageError(`${quoted(targets)}: not one of the protocols ${PROTOCOLS.join(', ')}`);
  const ranges = ports === undefined ? [] : ports.split(',').map(parsePorts);
  return {
    allow: action === 'allow',
    protocols: parseProtocols(isProtocol ? rest[0]! : undefined, ranges.length > 0),
    targets: targets.split(',').map(parseTarget),
    ports: ranges,
    line,
  };
}

function parseProtocols(text: string | undefined, hasPorts: boolean): number {
  if (text === undefined || text === 'any') return hasPorts ? PORT_PROTOS : ANY_PROTO;
  let bits = 0;
  for (const word of text.split(',')) {
    if (word === 'any') throw new UsageError(`${quoted(text)}: any includes the others; write any alone`);
    bits |= EgressProto[word as keyof typeof EgressProto];
  }
  if (hasPorts && bits & ~PORT_PROTOS)
    throw new UsageError(`${quoted(text)}: only tcp and udp have ports; leave the ports out`);
  return bits;
}

function parsePorts(text: string): readonly [number, number] {
  const [, first, last = first] = /^([0-9]{1,5})(?:-([0-9]{1,5}))?$/.exec(text) ?? [];
  if (first === undefined)
    throw new UsageError(`${quoted(text)}: not a port; write for example 443, 1-1023 or 80,443`);
  const range = [Number(first), Number(last)] as const;
  if (range[0] < 1 || range[0] > 65535 || range[1] < 1 || range[1] > 65535)
    throw new UsageError(`${quoted(text)}: a port is a number from 1 to 65535`);
  if (range[1] < range[0])
    throw new UsageError(`${quoted(text)}: the range ends before it starts; write ${range[1]}-${range[0]}`);
  return range;
}

function parseTarget(text: string): EgressTarget {
  const word = WORDS.find((known) => known === text);
  if (word !== undefined) return { kind: 'word', word };
  if (text.includes(':') || /^[0-9.]+(\/.*)?$/.test(text)) return parsePrefixTarget(text);
  return parseName(text);
}

function isTarget(text: string): boolean {
  try {
    parseTarget(text);
    return true;
  } catch {
    return false;
  }
}

function parsePrefixTarget(text: string): EgressTarget {
  if (/^[^/]*:[^/]*\/[0-9]+:/.test(text))
    throw new UsageError(
      `${quoted(text)}: with ports, an IPv6 prefix stands in brackets, for example [2001:db8::/32]:443`,
    );
  return { kind: 'prefix', ...parsePrefix(text, EXAMPLE) };
}

/** A domain name, `*.NAME`, or a name of one label with a dot at its end. */
function parseName(text: string): EgressTarget {
  const below = text.startsWith('*.');
  const name = (below ? text.slice(2) : text).toLowerCase();
  const bare = name.endsWith('.') ? name.slice(0, -1) : name;
  const labels = bare.split('.');
  // In resolvers' data there are underscores (RFC 2782); other characters are written in Punycode.
  const wellFormed = labels.every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label));
  if (!wellFormed || bare.length > 253 || /^[0-9]+$/.test(labels.at(-1)!))
    throw new UsageError(
      `${quoted(text)}: not a prefix, a domain name or one of ${WORDS.join(', ')}; ${EXAMPLE}`,
    );
  if (labels.length === 1 && bare === name && !below)
    throw new UsageError(
      `${quoted(text)}: not one of ${WORDS.join(', ')}; a domain name of one word has a dot at its end: ${quoted(`${text}.`)}`,
    );
  return { kind: 'name', name: bare, below };
}

/**
 * Parse a value of --allow or --deny: TARGET[:PORT[-PORT]][/PROTOCOL], several separated by commas. An IPv6
 * prefix with ports stands in brackets.
 * @throws UsageError; option and value are not in its message
 */
export function parsePolicyItems(text: string, allow: boolean): readonly EgressRule[] {
  return text.split(',').map((item) => {
    if (item === '') throw new UsageError(`an item of the list is empty; ${EXAMPLE}`);
    const [, head, protocol] = /^(.*)\/(tcp|udp|icmp|dns)$/.exec(item) ?? [undefined, item];
    const [, unknown] = /\/([a-z][a-z0-9-]*)$/i.exec(head!) ?? [];
    if (unknown !== undefined)
      throw new UsageError(
        protocol === undefined
          ? `${quoted(item)}: ${quoted(unknown)} is not one of the protocols tcp, udp, icmp, dns`
          : `${quoted(item)}: has two protocols; write one item for each`,
      );
    const bracket = /^\[([^\]]*)\](\/[0-9]+)?(?::(.*))?$/.exec(head!);
    let target = head!;
    let ports: string | undefined;
    if (bracket !== null) {
      target = `${bracket[1]}${bracket[2] ?? ''}`;
      ports = bracket[3];
      if (!target.includes(':')) throw new UsageError(`${quoted(item)}: only IPv6 stands in brackets`);
    } else if (head!.split(':').length === 2) [target, ports] = head!.split(':') as [string, string];
    else if (/^[0-9]+(-[0-9]+)?$/.test(item))
      throw new UsageError(
        `${quoted(item)}: is no target; write the target in front of each port, as in 10.0.0.0/8:${item}`,
      );
    const ranges = ports === undefined ? [] : [parsePorts(ports)];
    return {
      allow,
      protocols: parseProtocols(protocol, ranges.length > 0),
      targets: [parseTarget(target)],
      ports: ranges,
      line: 0,
    };
  });
}

/** A rule in the form of the file. */
export function ruleText({ allow, protocols, targets, ports }: EgressRule): string {
  const names = Object.entries(EgressProto)
    .filter(([, bit]) => protocols & bit)
    .map(([name]) => name);
  const isAny = protocols === ANY_PROTO || (ports.length > 0 && protocols === PORT_PROTOS);
  const words = [allow ? 'allow' : 'deny'];
  // Without ports, tcp,udp is not the same as no protocol.
  if (!isAny) words.push(names.join(','));
  words.push(targets.map(targetText).join(','));
  if (ports.length > 0)
    words.push(ports.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(','));
  return words.join(' ');
}

function targetText(target: EgressTarget): string {
  if (target.kind === 'word') return target.word;
  if (target.kind === 'name') {
    if (target.below) return `*.${target.name}`;
    return target.name.includes('.') ? target.name : `${target.name}.`;
  }
  const words = Uint32Array.from(target.words);
  return `${addressText(words, 0)}/${target.family === 4 ? target.bits - 96 : target.bits}`;
}

/** A policy as the text of a file. */
export const policyText = ({ rules, defaultAllow }: EgressRules): string =>
  [...rules.map(ruleText), `default ${defaultAllow ? 'allow' : 'deny'}`, ''].join('\n');
