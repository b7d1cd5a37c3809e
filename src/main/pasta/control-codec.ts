/**
 * The protocol of the control socket (-c), version 2, as passt's client pesto uses it: both ends. Pure.
 * Numbers are big-endian.
 *
 *   server   hello   +0 "basil:s\0"   +8 version u32   +12 bytes of a table's name u32
 *                    +16 bytes of an interface name u32                                              = 20
 *            table   +0 id u8, 0 ends the list   +1 name, 128 bytes   +129 capabilities u32
 *                    +133 count u32   +137 rules
 *   client   table   +0 id u8, 0 ends the list   +1 count u32   +5 rules
 *
 *   rule     +0 address, 16 bytes   +16 target, 16 bytes   +32 interface, 16 bytes
 *            +48 first u16   +50 last u16   +52 to u16   +54 protocol u8   +55 flags u8              = 56
 *
 * IPv4 addresses are v4-mapped; an absent target is all zeros. The layouts were read from the greeting that
 * passt 2026-10-02 sends.
 *
 * Ours alone: a server whose tables have the capability `reports` accepts 255 in place of the 0 that ends the
 * client's tables. It then puts all of the request in force or nothing, and answers with the reasons as text
 * before it closes the connection; no text: all is in force.
 */
import { addressParse, addressRead, addressText, addressWrite } from '../../proto/address.ts';
import { IFNAMSIZ } from '../../sys/constants.ts';
import {
  type Direction,
  type ForwardRule,
  MAX_RULES,
  type RuleLimits,
  type RuleTable,
} from './forward-rules.ts';

const MAGIC = 'basil:s\0';
const VERSION = 2;
const NAME_BYTES = 128;
const HELLO_BYTES = 20;
const RULE_BYTES = 56;

export const TableId: Record<Direction, number> = { HOST: 1, SPLICE: 3 };
const Capability = { ipv4: 1, ipv6: 2, tcp: 4, udp: 8, scan: 16, interfaceName: 32, reports: 64 } as const;
const RuleFlag = { dualStackAny: 1, weak: 2, scan: 4 } as const;
/** passt has two; a server that never ends its list is not listened to for ever. */
const MAX_TABLES = 16;
const END = 0;
const END_AND_REPORT = 255;
const PROTOCOL = { tcp: 6, udp: 17 } as const; // IANA

/** @param address  as text; empty: all zeros */
function writeAddress(out: Buffer, at: number, address: string): void {
  const words = new Uint32Array(4);
  if (address !== '' && addressParse(address, words, 0)) addressWrite(out, at, words, 0);
}

function readAddress(data: Buffer, at: number): string {
  const words = new Uint32Array(4);
  addressRead(data, at, words, 0);
  return addressText(words, 0);
}

/** @returns RULE_BYTES bytes, laid out as above */
export function encodeRule(rule: ForwardRule): Buffer {
  const out = Buffer.alloc(RULE_BYTES);
  writeAddress(out, 0, rule.address);
  writeAddress(out, 16, rule.target);
  out.write(rule.interface, 32, IFNAMSIZ - 1, 'latin1');
  out.writeUInt16BE(rule.first, 48);
  out.writeUInt16BE(rule.last, 50);
  out.writeUInt16BE(rule.to, 52);
  out.writeUInt8(PROTOCOL[rule.proto], 54);
  const { dualStackAny, weak, scan } = RuleFlag;
  out.writeUInt8(
    (rule.address === '' ? dualStackAny : 0) | (rule.weak ? weak : 0) | (rule.scan ? scan : 0),
    55,
  );
  return out;
}

/**
 * Decode one rule.
 * @param at  offset of the rule; RULE_BYTES bytes are there
 * @returns undefined for bytes that are not a rule; RuleTable.add checks ports and families
 */
export function decodeRule(data: Buffer, at: number): ForwardRule | undefined {
  const flags = data.readUInt8(at + 55);
  const protocol = data.readUInt8(at + 54);
  if (flags & ~(RuleFlag.dualStackAny | RuleFlag.weak | RuleFlag.scan)) return undefined;
  if (protocol !== PROTOCOL.tcp && protocol !== PROTOCOL.udp) return undefined;
  const name = data.toString('latin1', at + 32, at + 32 + IFNAMSIZ);
  const end = name.indexOf('\0');
  // Names are printed and logged: none with control characters, though the kernel permits them.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what a terminal would obey
  if (end < 0 || /[/:\s\x00-\x1f\x7f]/.test(name.slice(0, end))) return undefined;
  const first = data.readUInt16BE(at + 48);
  const last = data.readUInt16BE(at + 50);
  if (first > last) return undefined;
  const address = readAddress(data, at);
  const isDual = (flags & RuleFlag.dualStackAny) !== 0;
  if (isDual && address !== '::') return undefined;
  const target = readAddress(data, at + 16);
  return {
    proto: protocol === PROTOCOL.tcp ? 'tcp' : 'udp',
    address: isDual ? '' : address,
    interface: name.slice(0, end),
    first,
    last,
    to: data.readUInt16BE(at + 52),
    target: target === '::' || target === '0.0.0.0' ? '' : target,
    weak: (flags & RuleFlag.weak) !== 0,
    scan: (flags & RuleFlag.scan) !== 0,
  };
}

/** The greeting that the server sends first: hello and the tables in force. */
export function encodeGreeting(tables: readonly RuleTable[]): Buffer {
  const hello = Buffer.alloc(HELLO_BYTES);
  hello.write(MAGIC, 'latin1');
  hello.writeUInt32BE(VERSION, 8);
  hello.writeUInt32BE(NAME_BYTES, 12);
  hello.writeUInt32BE(IFNAMSIZ, 16);
  const parts = tables.flatMap(({ direction, limits, rules }) => {
    const head = Buffer.alloc(1 + NAME_BYTES + 8);
    head.writeUInt8(TableId[direction], 0);
    head.write(direction, 1, 'latin1');
    const can =
      (limits.ipv4 ? Capability.ipv4 : 0) |
      (limits.ipv6 ? Capability.ipv6 : 0) |
      (limits.tcp ? Capability.tcp : 0) |
      (limits.udp ? Capability.udp : 0);
    head.writeUInt32BE(can | Capability.scan | Capability.interfaceName | Capability.reports, 1 + NAME_BYTES);
    head.writeUInt32BE(rules.length, 1 + NAME_BYTES + 4);
    return [head, ...rules.map(encodeRule)];
  });
  return Buffer.concat([hello, ...parts, Buffer.alloc(1)]);
}

/** The result of decoding what a client has sent. */
export type Request =
  /** Not complete yet. */
  | { readonly kind: 'more' }
  | { readonly kind: 'invalid' }
  | {
      readonly kind: 'tables';
      readonly tables: ReadonlyMap<Direction, readonly ForwardRule[]>;
      /** The client waits for the reasons of failures. */
      readonly wantsReport?: true;
    };

/**
 * Decode a request.
 * @param data  all that the client has sent so far
 */
export function decodeRequest(data: Buffer): Request {
  const tables = new Map<Direction, readonly ForwardRule[]>();
  for (let at = 0; at < data.length; ) {
    const id = data.readUInt8(at++);
    if (id === END || id === END_AND_REPORT) {
      if (at !== data.length) return { kind: 'invalid' };
      return { kind: 'tables', tables, ...(id === END_AND_REPORT && { wantsReport: true }) };
    }
    const direction = (Object.keys(TableId) as Direction[]).find((name) => TableId[name] === id);
    if (direction === undefined || tables.has(direction)) return { kind: 'invalid' };
    if (data.length < at + 4) return { kind: 'more' };
    const count = data.readUInt32BE(at);
    at += 4;
    if (count > MAX_RULES) return { kind: 'invalid' };
    if (data.length < at + count * RULE_BYTES) return { kind: 'more' };
    const rules: ForwardRule[] = [];
    for (let i = 0; i < count; i++, at += RULE_BYTES) {
      const rule = decodeRule(data, at);
      if (rule === undefined) return { kind: 'invalid' };
      rules.push(rule);
    }
    tables.set(direction, rules);
  }
  return { kind: 'more' };
}

/** A table in a greeting. */
export interface ShownTable {
  readonly id: number;
  readonly name: string;
  readonly capabilities: number;
  readonly limits: RuleLimits;
  /** The server can report failures. */
  readonly reports: boolean;
  readonly rules: readonly ForwardRule[];
}

/** The result of decoding what a server has sent. */
export type Greeting =
  /** Not complete yet. */
  | { readonly kind: 'more' }
  | { readonly kind: 'invalid'; readonly reason: string }
  | { readonly kind: 'tables'; readonly tables: readonly ShownTable[] };

/** Names of a table's capabilities, in the order of their bits; reports is last. */
export const CAPABILITY_NAMES = ['IPv4', 'IPv6', 'TCP', 'UDP', 'scan', 'ifname', 'reports'] as const;

/**
 * Decode a greeting.
 * @param data  all that the server has sent so far
 */
export function decodeGreeting(data: Buffer): Greeting {
  const invalid = (reason: string): Greeting => ({ kind: 'invalid', reason });
  if (!MAGIC.startsWith(data.toString('latin1', 0, Math.min(data.length, MAGIC.length))))
    return invalid('Bad magic number from server');
  if (data.length < HELLO_BYTES) return { kind: 'more' };
  const [version, nameBytes, interfaceBytes] = [8, 12, 16].map((at) => data.readUInt32BE(at));
  if (version !== VERSION) return invalid(`Unsupported protocol version ${version}`);
  if (nameBytes !== NAME_BYTES || interfaceBytes !== IFNAMSIZ) return invalid('Unsupported sizes of names');
  const tables: ShownTable[] = [];
  for (let at = HELLO_BYTES; at < data.length; ) {
    const id = data.readUInt8(at++);
    if (id === END) return { kind: 'tables', tables };
    if (data.length < at + NAME_BYTES + 8) return { kind: 'more' };
    const name = data.toString('latin1', at, at + NAME_BYTES).replace(/\0.*$/s, '');
    const capabilities = data.readUInt32BE(at + NAME_BYTES);
    const count = data.readUInt32BE(at + NAME_BYTES + 4);
    at += NAME_BYTES + 8;
    const isKnown = tables.length === MAX_TABLES || tables.some((table) => table.id === id);
    if (!/^[\w-]+$/.test(name) || count > MAX_RULES || isKnown) return invalid('Invalid table from server');
    if (data.length < at + count * RULE_BYTES) return { kind: 'more' };
    const rules: ForwardRule[] = [];
    for (let i = 0; i < count; i++, at += RULE_BYTES) {
      const rule = decodeRule(data, at);
      if (rule === undefined) return invalid('Invalid rule from server');
      rules.push(rule);
    }
    const has = (bit: number): boolean => (capabilities & bit) !== 0;
    const { ipv4, ipv6, tcp, udp, reports } = Capability;
    const limits = { ipv4: has(ipv4), ipv6: has(ipv6), tcp: has(tcp), udp: has(udp) };
    tables.push({ id, name, capabilities, limits, reports: has(reports), rules });
  }
  return { kind: 'more' };
}

/**
 * Encode a request.
 * @param tables  rules by the id of their table; a table that is not in the request stays
 * @param report  ask for the reasons of failures: only where the greeting offered it
 */
export function encodeRequest(tables: ReadonlyMap<number, readonly ForwardRule[]>, report: boolean): Buffer {
  const parts = [...tables].flatMap(([id, rules]) => {
    const head = Buffer.alloc(5);
    head.writeUInt8(id, 0);
    head.writeUInt32BE(rules.length, 1);
    return [head, ...rules.map(encodeRule)];
  });
  return Buffer.concat([...parts, Buffer.from([report ? END_AND_REPORT : END])]);
}
