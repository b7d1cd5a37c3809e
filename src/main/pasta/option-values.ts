/**
 * Checks of option values, by kind of value. Each refuses a wrong value by UsageError, with pasta's message.
 */
import { domainLabels } from '../../proto/domain-name.ts';
import { macParse, macText } from '../../proto/ethernet.ts';
import { ipv4Parse } from '../../proto/ipv4.ts';
import { addressOf, isInterfaceName, quoted, UsageError } from '../cli/values.ts';
import type { Draft } from './conf.ts';
import { canonicalAddress } from './forward-rules.ts';
import { Message } from './messages.ts';

const V4_MAPPED_BITS = 96; // RFC 4291 section 2.5.5.2: ::ffff:0:0/96
const MAX_NAME_CHARS = 253; // RFC 1035 section 2.3.4, without the root's dot
const MAX_DNS_PER_FAMILY = 3;

/** Control characters. Messages are one line each, so a value with such a character is escaped in them. */
export const CONTROL = /\p{Cc}/u;

type FamilyKey = 'gateway' | 'outbound' | 'dnsForward' | 'dnsHost' | 'mapHostLoopback' | 'mapGuestAddr';

interface AddressRules {
  /** Multicast addresses are refused. */
  readonly unicast: boolean;
  /** Loopback addresses are accepted; 'ipv4': those of IPv4 only. */
  readonly loopback: boolean | 'ipv4';
}

/**
 * Store an address in the field of its family.
 * @param key      name of the field without the 4 or 6 at its end
 * @param message  of the UsageError for text that is no address, or none that `rules` allow
 */
export function putAddress(
  draft: Draft,
  key: FamilyKey,
  text: string,
  message: string,
  rules: AddressRules,
): void {
  const address = usableAddress(text, rules);
  if (address === undefined) throw new UsageError(message);
  Object.assign(draft, { [`${key}${address.includes(':') ? 6 : 4}`]: address });
}

/**
 * @returns the address as canonical text; undefined for other text, for unspecified, broadcast and v4-mapped
 *   addresses, and for what `rules` exclude
 */
function usableAddress(text: string, rules: AddressRules): string | undefined {
  const address = addressOf(text);
  if (address === undefined) return undefined;
  if (!address.includes(':')) {
    const first = Number(address.slice(0, address.indexOf('.')));
    if (address === '0.0.0.0' || address === '255.255.255.255') return undefined;
    if (first === 127 && rules.loopback === false) return undefined;
    return rules.unicast && first >= 224 && first < 240 ? undefined : address;
  }
  if (address === '::' || address.startsWith('::ffff:')) return undefined;
  if (address === '::1' && rules.loopback !== true) return undefined;
  return rules.unicast && address.startsWith('ff') ? undefined : address;
}

/**
 * -a: store an address of either family, and the prefix length of an IPv4 address.
 * @param text  "ADDR" or "ADDR/LEN"
 * @throws UsageError with pasta's message
 */
export function setAddress(draft: Draft, text: string): void {
  const slash = text.indexOf('/');
  const written = slash < 0 ? text : text.slice(0, slash);
  // The address may stand in brackets. An IPv4 address may be v4-mapped: its prefix is then 96 bits longer.
  const address = usableAddress(canonicalAddress(written) ?? '', { unicast: true, loopback: false });
  if (address === undefined) throw new UsageError(`Invalid guest address: ${text}`);
  const v6 = address.includes(':');
  const mappedBits = !v6 && written.includes(':') ? V4_MAPPED_BITS : 0;
  if (slash >= 0) {
    const length = text.slice(slash + 1);
    // As passt's pasta: text that does not start as a number is another error than a number out of range.
    if (!/^-?[0-9]+(\.[0-9.]*)?$/.test(length)) throw new UsageError(`Invalid guest address: ${text}`);
    const bits = /^[0-9]{1,3}$/.test(length) ? Number(length) - mappedBits : -1;
    if (bits < 0 || bits > (v6 ? 128 : 32)) throw new UsageError(`Invalid prefix length: ${text}`);
    if (!v6) {
      if (draft.netmaskWritten) throw new UsageError(Message.redundantPrefix);
      if (bits > 0) draft.prefixLen4 = bits;
      draft.prefixWritten = true;
    }
  }
  if (v6) draft.address6 = address;
  else draft.address4 = address;
}

/**
 * -D: add a resolver. "none" removes all resolvers and the addresses of DNS forwarding.
 * @throws UsageError with pasta's message
 */
export function setDns(draft: Draft, text: string): void {
  if (text === 'none') {
    draft.dns = [];
    for (const key of ['dnsForward4', 'dnsForward6', 'dnsHost4', 'dnsHost6'] as const) delete draft[key];
    return;
  }
  const address = addressOf(text);
  if (address === undefined) throw new UsageError(`Cannot use DNS address ${text}`);
  const list = draft.dns ?? [];
  const family = list.filter((a) => a.includes(':') === address.includes(':'));
  if (family.length === MAX_DNS_PER_FAMILY) draft.warnings.push(`Too many nameservers, ${text} is left out`);
  else draft.dns = [...list, address];
}

/**
 * --map-host-loopback and --map-guest-addr: store the address of its family. "none" removes both.
 * @throws UsageError with pasta's message
 */
export function setMappedAddress(draft: Draft, key: 'mapHostLoopback' | 'mapGuestAddr', text: string): void {
  if (text === 'none') {
    delete draft[`${key}4`];
    delete draft[`${key}6`];
    if (key === 'mapHostLoopback') draft.mapGateway = false;
    return;
  }
  putAddress(draft, key, text, `Invalid address to remap to host: ${text}`, {
    unicast: true,
    loopback: false,
  });
}

/** @returns a unicast MAC address in canonical text. @throws UsageError with pasta's message */
export function parseMac(text: string): string {
  const bytes = macParse(text);
  // The lowest bit of the first byte marks a group address, which no interface has (IEEE 802 section 8.2).
  if (bytes === null || (bytes[0]! & 1) === 1 || bytes.every((byte) => byte === 0))
    throw new UsageError(`Invalid MAC address: ${text}`);
  return macText(bytes, 0);
}

/** @returns `text`. @throws UsageError where it cannot be the name of an interface */
export function parseInterfaceName(text: string): string {
  if (!isInterfaceName(text)) throw new UsageError(`Invalid interface name: ${text}`);
  return text;
}

/** @throws UsageError with `message` for a domain name above the limit of RFC 1035 */
export function checkNameLength(text: string, message: string): void {
  if (text.length > MAX_NAME_CHARS) throw new UsageError(message);
}

/**
 * Warn of a name that is not made of labels of 1 to 63 characters, which DHCP cannot encode. "." and the
 * empty name mean "none", without a warning.
 */
export function warnUnlessDomainName(draft: Draft, option: string, text: string): void {
  if (text !== '' && text !== '.' && domainLabels(text) === null)
    draft.warnings.push(Message.noDomainName(option, quoted(text)));
}

/** @returns prefix length of "24" or "255.255.255.0"; undefined for other text, and for a mask with holes */
export function maskLength(text: string): number | undefined {
  if (/^[0-9]{1,2}$/.test(text)) return Number(text) <= 32 ? Number(text) : undefined;
  const mask = ipv4Parse(text);
  if (mask < 0) return undefined;
  const bits = mask.toString(2).padStart(32, '0');
  const length = bits.indexOf('0') < 0 ? 32 : bits.indexOf('0');
  return bits.includes('1', length) ? undefined : length;
}

/**
 * Parse a number as strtoul(3) does with base 0: white space and a sign may come first, 0x means hexadecimal
 * and 0 octal; a negative number wraps to 64 bits.
 * @returns undefined for other text and for numbers of more than 64 bits
 */
export function cNumber(text: string): bigint | undefined {
  const [, sign, digits = ''] = /^\s*([+-]?)(0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*)$/i.exec(text) ?? [];
  if (sign === undefined) return undefined;
  const value = BigInt(/^0[0-7]/.test(digits) ? `0o${digits}` : digits);
  if (value >= 1n << 64n) return undefined;
  return sign === '-' ? BigInt.asUintN(64, -value) : value;
}

/** @returns the number of cNumber(). @throws UsageError with `message` where there is none from `min` to `max` */
export function wholeNumber(text: string, min: number, max: number, message: string): number {
  const value = cNumber(text);
  if (value === undefined || value < min || value > max) throw new UsageError(message);
  return Number(value);
}
