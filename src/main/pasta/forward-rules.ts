/**
 * Forwarding rules, from the port options and the control socket: one table per direction, whose rules must
 * not conflict.
 *
 * A rule is {protocol, address, interface, first..last, to, target, flags}. We listen on ports first..last;
 * a connection to port p is forwarded to port p - first + to. Two rules conflict when they have the same
 * protocol, a common port and the same address; a wildcard address equals every address of its family.
 * Interface and target are not compared.
 */
import { addressParse, addressText } from '../../proto/address.ts';
import type { ListenerPlan } from '../../workers/engine-plan.ts';
import { ForwardMessage as M } from './forward-messages.ts';

export type Protocol = 'tcp' | 'udp';

/** From the host into the namespace (-t, -u), or from the namespace's loopback to the host's (-T, -U). */
export type Direction = 'HOST' | 'SPLICE';

/** One rule; the comment at the head of this file says what the fields mean together. */
export interface ForwardRule {
  readonly proto: Protocol;
  /** '' = any address of both families; "0.0.0.0" and "::" = any of one. Canonical text. */
  readonly address: string;
  /** Interface to accept from; '' = any. */
  readonly interface: string;
  readonly first: number;
  readonly last: number;
  /** Port that `first` is forwarded to. */
  readonly to: number;
  /** Address inside; '' = the namespace's own. */
  readonly target: string;
  /** Ports that cannot be bound are skipped ("best effort"). */
  readonly weak: boolean;
  /** Each port is open only while something listens on it on the other side. */
  readonly scan: boolean;
}

/** A rule whose ports cannot be opened. */
export interface RuleFailure {
  readonly rule: ForwardRule;
  /** One line for the user. */
  readonly reason: string;
}

/** Its message is one or more lines for the user, worded as passt words them. */
export class ForwardError extends Error {
  override readonly name = 'ForwardError';
}

/** Most rules per direction. */
export const MAX_RULES = 255;
/** Most listening sockets per direction. */
export const MAX_LISTENERS = 327_680;
export const MAX_PORT = 65535;

/** The families and protocols that rules of a table may have. */
export interface RuleLimits {
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  readonly tcp: boolean;
  readonly udp: boolean;
}

/** Ports as text: `80` or `80-81`. */
const portsText = (first: number, last: number): string => (first === last ? `${first}` : `${first}-${last}`);

/** A rule as passt lists it: `TCP [*]%lo:80-81  =>  8080-8081  (best effort) (auto-scan)`. */
export function ruleText(rule: ForwardRule): string {
  const flags = `${rule.weak ? ' (best effort)' : ''}${rule.scan ? ' (auto-scan)' : ''}`;
  const device = rule.interface === '' ? '' : `%${rule.interface}`;
  const target = rule.target === '' ? '' : `${rule.target}:`;
  return (
    `${rule.proto.toUpperCase()} [${rule.address === '' ? '*' : rule.address}]${device}:` +
    `${portsText(rule.first, rule.last)}  =>  ${target}${portsText(rule.to, rule.to + rule.last - rule.first)} ${flags}`
  );
}

/** Where a rule listens, as error messages name it: `*%lo/80-81`. */
export function ruleWhere(rule: ForwardRule, first = rule.first, last = rule.last): string {
  const device = rule.interface === '' ? '' : `%${rule.interface}`;
  return `${rule.address === '' ? '*' : rule.address}${device}/${portsText(first, last)}`;
}

/** Family of a canonical address; 0 for '', which means both. */
const familyOf = (address: string): 0 | 4 | 6 => (address === '' ? 0 : address.includes(':') ? 6 : 4);

/** Whether two listening addresses ('': any of both families) overlap. */
function addressesOverlap(a: string, b: string): boolean {
  if (a === '' || b === '') return true;
  if (familyOf(a) !== familyOf(b)) return false;
  return a === b || a === '0.0.0.0' || b === '0.0.0.0' || a === '::' || b === '::';
}

/** Whether a datagram or connection could match both rules. */
export function rulesConflict(a: ForwardRule, b: ForwardRule): boolean {
  return (
    a.proto === b.proto && addressesOverlap(a.address, b.address) && a.first <= b.last && b.first <= a.last
  );
}

/** The rules of one direction. */
export class RuleTable {
  readonly direction: Direction;
  readonly limits: RuleLimits;
  readonly #rules: ForwardRule[] = [];

  constructor(direction: Direction, limits: RuleLimits) {
    this.direction = direction;
    this.limits = limits;
  }

  get rules(): readonly ForwardRule[] {
    return this.#rules;
  }

  has(proto: Protocol): boolean {
    return this.#rules.some((rule) => rule.proto === proto);
  }

  /**
   * Add a rule. Where one family is off, the address '' ("any of both") becomes any of the other family.
   * @throws ForwardError with the reason, and the rule on the last line; the table is unchanged
   */
  add(given: ForwardRule): void {
    const { ipv4, ipv6 } = this.limits;
    const rule =
      given.address === '' && ipv4 !== ipv6 ? { ...given, address: ipv4 ? '0.0.0.0' : '::' } : given;
    const reason = this.#objection(rule);
    if (reason !== undefined) throw new ForwardError(`${reason}\n${M.unableToAdd(ruleText(rule))}`);
    this.#rules.push(rule);
  }

  #objection(rule: ForwardRule): string | undefined {
    if (rule.first === 0) return M.fromPortZero;
    if (rule.to === 0 || rule.to + rule.last - rule.first > MAX_PORT) return M.toPortZero;
    if (!this.limits[rule.proto]) return M.protocolOff(rule.proto.toUpperCase());
    const family = familyOf(rule.address);
    const targetFamily = familyOf(rule.target);
    if (family === 4 && !this.limits.ipv4) return M.familyOff(4);
    if (family === 6 && !this.limits.ipv6) return M.familyOff(6);
    if (isMulticastText(rule.target)) return M.multicastTarget(rule.target);
    if (targetFamily !== 0 && family === 0) return M.dualStack(targetFamily, rule.target);
    if (targetFamily !== 0 && targetFamily !== family) {
      return M.crossFamily(family, rule.address, targetFamily, rule.target);
    }
    const other = this.#rules.find((known) => rulesConflict(known, rule));
    if (other !== undefined) return M.conflict(ruleText(rule), ruleText(other));
    if (this.#rules.length === MAX_RULES) return M.tooManyRules(MAX_RULES);
    if (this.#listeners() + rule.last - rule.first + 1 > MAX_LISTENERS) {
      return M.tooManyListeners(MAX_LISTENERS);
    }
    return undefined;
  }

  #listeners(): number {
    return this.#rules.reduce((sum, rule) => sum + rule.last - rule.first + 1, 0);
  }
}

/** Ports that something on the other side listens on, ascending. */
export type ListeningPorts = Readonly<Record<Protocol, readonly number[]>>;

/**
 * The listeners that a rule needs.
 * @param direction  of the rule's table
 * @param splice     connections from loopback addresses are spliced: socket to socket, without the TAP
 * @param listening  a rule with `scan` listens only on these ports, with a listener for each
 */
export function ruleListeners(
  rule: ForwardRule,
  direction: Direction,
  splice: boolean,
  listening: ListeningPorts,
): readonly ListenerPlan[] {
  const listener = (first: number, last: number): ListenerPlan => ({
    proto: rule.proto,
    from: direction === 'HOST' ? 'host' : 'guest',
    address: rule.address,
    ...(rule.interface !== '' && { interface: rule.interface }),
    port: first,
    ...(last > first && { lastPort: last }),
    targetPort: rule.to + first - rule.first,
    ...(rule.target !== '' && { targetAddress: rule.target }),
    ...((rule.weak || rule.scan) && { weak: true }),
    ...(rule.scan && { mayFail: true }),
    path: direction === 'SPLICE' || (splice && rule.target === '') ? 'splice' : 'tap',
  });
  if (!rule.scan) return [listener(rule.first, rule.last)];
  return listening[rule.proto]
    .filter((port) => port >= rule.first && port <= rule.last)
    .map((port) => listener(port, port));
}

/**
 * Canonical text of an IPv4 or IPv6 address, which may stand in brackets. A v4-mapped address becomes IPv4.
 * @returns undefined for text that is no address
 */
export function canonicalAddress(text: string): string | undefined {
  const bare = text.startsWith('[') && text.endsWith(']') ? text.slice(1, -1) : text;
  const words = new Uint32Array(4);
  return addressParse(bare, words, 0) ? addressText(words, 0) : undefined;
}

/** 224.0.0.0/4 or ff00::/8, in canonical text. */
function isMulticastText(address: string): boolean {
  return address.includes(':') ? /^ff[0-9a-f]{2}:/.test(address) : /^2(2[4-9]|3[0-9])\./.test(address);
}
