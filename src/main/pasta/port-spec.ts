/**
 * From the argument of -t, -u, -T or -U to rules. Pure.
 *
 *   SPEC  := "none" | [ ADDR? ["%" IFACE] "/" ] CHUNK { "," CHUNK }
 *   ADDR  := IPv4 | IPv6 | "[" either "]" | "*"        (missing or "*": any address of both families)
 *   CHUNK := "all" [":" TADDR] | "auto" | "~" RANGE | RANGE [ ":" RANGE | ":" TADDR | ":" TADDR "/" RANGE ]
 *   RANGE := N [ "-" M ]
 *
 * "~" and "auto" apply to the whole SPEC, whatever their position. Without a RANGE to listen on, SPEC means
 * ports 1-65535 without the excluded and the ephemeral ones; those that cannot be bound are skipped.
 */

import { IFNAMSIZ } from '../../sys/constants.ts';
import { ForwardMessage as M } from './forward-messages.ts';
import {
  canonicalAddress,
  ForwardError,
  type ForwardRule,
  MAX_PORT,
  type Protocol,
  type RuleTable,
} from './forward-rules.ts';

/** Ports `first` to `last`, both included. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** RFC 6335 section 6: the dynamic ports; used where the kernel's range cannot be read. */
export const DYNAMIC_PORTS: PortRange = { first: 49152, last: MAX_PORT };

/** Parse the kernel's range of ephemeral ports. @param text  of /proc/sys/net/ipv4/ip_local_port_range */
export function ephemeralPorts(text: string | undefined): PortRange {
  const [, first, last] = /^\s*(\d+)\s+(\d+)\s*$/.exec(text ?? '') ?? [];
  if (first === undefined || last === undefined) return DYNAMIC_PORTS;
  const range = { first: Number(first), last: Number(last) };
  return range.first <= range.last && range.last <= MAX_PORT ? range : DYNAMIC_PORTS;
}

/**
 * Whether the kernel accepts an interface name (dev_valid_name): 1 to 15 bytes, no slash, colon or space, not
 * . or ..
 */
function isInterfaceName(text: string): boolean {
  const bytes = Buffer.byteLength(text);
  return bytes > 0 && bytes < IFNAMSIZ && text !== '.' && text !== '..' && !/[/:\s]/.test(text);
}

/** A RANGE to listen on, the first port that it is forwarded to, and the target address ('': none). */
interface Chunk {
  readonly range: PortRange;
  readonly to: number;
  readonly target: string;
}

/**
 * Add the rules of one port option to a table.
 * @param option     as the user wrote it, for messages: "-t"
 * @param table      rules of the option's direction
 * @param ephemeral  ephemeral ports of the side that listens
 * @throws ForwardError; the rules before the refused one stay in the table
 */
export function applyPortSpec(
  option: string,
  proto: Protocol,
  spec: string,
  table: RuleTable,
  ephemeral: PortRange,
): void {
  if (spec === 'none') {
    if (table.has(proto)) throw new ForwardError(M.noneConflicts(option));
    return;
  }
  for (const rule of parsePortSpec(option, proto, spec, table.direction === 'SPLICE', ephemeral)) {
    table.add(rule);
  }
}

/**
 * Parse SPEC.
 * @param outbound  -T or -U: no listening address, loopback only
 * @returns the rules, in the order in which to add them
 * @throws ForwardError
 */
export function parsePortSpec(
  option: string,
  proto: Protocol,
  spec: string,
  outbound: boolean,
  ephemeral: PortRange,
): readonly ForwardRule[] {
  // The text before the first slash is a listening address only if it parses as one: in 80:192.0.2.7/90 the
  // slash follows a target address.
  const slash = spec.indexOf('/');
  const listenOn = slash < 0 ? undefined : parseHead(spec.slice(0, slash));
  if (listenOn !== undefined && outbound) throw new ForwardError(M.addressNotAllowed(option, spec));
  const ports = listenOn === undefined ? spec : spec.slice(slash + 1);
  const address = listenOn?.address ?? '';
  // Only loopback connections are forwarded out of the namespace.
  const device = outbound ? 'lo' : (listenOn?.device ?? '');

  const invalid = (): ForwardError => new ForwardError(M.invalidSpec(ports));
  const included: Chunk[] = [];
  const excluded: PortRange[] = [];
  let scan = false;
  let allTarget = '';
  for (const text of ports.split(',')) {
    if (text === 'auto') scan = true;
    else if (text === 'all') allTarget = '';
    else if (text.startsWith('all:')) {
      const target = targetOf(text.slice(4));
      if (target === undefined) throw invalid();
      allTarget = target;
    } else if (text.startsWith('~')) {
      const range = parseRange(text.slice(1));
      if (range === undefined) throw invalid();
      excluded.push(range);
    } else {
      const chunk = parseChunk(text);
      if (chunk === undefined) throw invalid();
      included.push(chunk);
    }
  }

  const bestEffort = included.length === 0;
  if (bestEffort) {
    excluded.push(ephemeral);
    included.push({ range: { first: 1, last: MAX_PORT }, to: 1, target: allTarget });
  }
  return included.flatMap(({ range, to, target }) =>
    subtract(range, excluded).map(({ first, last }) => ({
      proto,
      address,
      interface: device,
      first,
      last,
      to: to + first - range.first,
      target,
      weak: bestEffort,
      scan,
    })),
  );
}

/** Parse ADDR? ["%" IFACE]. @returns undefined for other text */
function parseHead(text: string): { readonly address: string; readonly device: string } | undefined {
  const percent = text.indexOf('%');
  const device = percent < 0 ? '' : text.slice(percent + 1);
  if (percent >= 0 && !isInterfaceName(device)) return undefined;
  const addressText = percent < 0 ? text : text.slice(0, percent);
  if (addressText === '' || addressText === '*') return { address: '', device };
  const address = canonicalAddress(addressText);
  return address === undefined ? undefined : { address, device };
}

/** Parse RANGE. @returns undefined for other text */
function parseRange(text: string): PortRange | undefined {
  const [, firstText, lastText] = /^(\d+)(?:-(\d+))?$/.exec(text) ?? [];
  if (firstText === undefined) return undefined;
  const first = Number(firstText);
  const last = lastText === undefined ? first : Number(lastText);
  return first <= last && last <= MAX_PORT ? { first, last } : undefined;
}

/** Parse TADDR. @returns '' for an unspecified address, undefined for other text */
function targetOf(text: string): string | undefined {
  const address = canonicalAddress(text);
  return address === '0.0.0.0' || address === '::' ? '' : address;
}

/** Parse a CHUNK that starts with RANGE. @returns undefined for other text */
function parseChunk(text: string): Chunk | undefined {
  const colon = text.indexOf(':');
  const range = parseRange(colon < 0 ? text : text.slice(0, colon));
  if (range === undefined) return undefined;
  if (colon < 0) return { range, to: range.first, target: '' };
  const right = text.slice(colon + 1);
  const plain = parseRange(right);
  if (plain !== undefined) return sameSize(range, plain) ? { range, to: plain.first, target: '' } : undefined;
  const slash = right.indexOf('/');
  const target = targetOf(slash < 0 ? right : right.slice(0, slash));
  if (target === undefined) return undefined;
  if (slash < 0) return { range, to: range.first, target };
  const mapped = parseRange(right.slice(slash + 1));
  return mapped !== undefined && sameSize(range, mapped) ? { range, to: mapped.first, target } : undefined;
}

const sameSize = (a: PortRange, b: PortRange): boolean => a.last - a.first === b.last - b.first;

/** @returns the parts of a range that no exclusion covers, ascending */
function subtract(range: PortRange, excluded: readonly PortRange[]): readonly PortRange[] {
  let parts: PortRange[] = [range];
  for (const hole of excluded) {
    parts = parts.flatMap((part) => {
      if (hole.last < part.first || hole.first > part.last) return [part];
      const left = { first: part.first, last: hole.first - 1 };
      const right = { first: hole.last + 1, last: part.last };
      return [left, right].filter((piece) => piece.first <= piece.last);
    });
  }
  return parts;
}
