/**
 * DHCPv6: RFC 8415, DNS options of RFC 3646, FQDN of RFC 4704.
 *
 *  +0 type u8   +1 transaction id, 3 bytes   +4 options
 *  option  +0 code u16   +2 length u16   +4 content
 *  IA_NA   +4 iaid u32   +8 T1 u32   +12 T2 u32   +16 options
 *  IAADDR  +4 address, 16   +20 preferred lifetime u32   +24 valid lifetime u32
 *
 * Relay messages (types 12 and 13) are refused: there is no relay on a TAP. A container sends only a few
 * messages, so the writer takes a plain object; the readers allocate nothing.
 *
 * Invariant: once dhcpv6Check() === 0, the options up to the end may be read unchecked. Options inside an
 * IA_NA may be read at the offsets that dhcpv6IaAddressAt returned.
 */
import { addressWrite } from './address.ts';
import { readU16, readU32, writeU16, writeU32 } from './be.ts';
import { domainLabels, domainWrite } from './domain-name.ts';
import { Drop } from './drop.ts';

export const DHCPV6_CLIENT_PORT = 546;
export const DHCPV6_SERVER_PORT = 547;
const HEADER_BYTES = 4;
const OPTION_BYTES = 4;
/** RFC 8415 section 11.1: a DUID is at most 130 bytes, its type included. */
const DUID_MAX_BYTES = 130;
const IA_NA_BYTES = 12;
const IAADDR_BYTES = 24;
const LIFETIME_INFINITE = 0xffffffff;

export const Dhcpv6Message = {
  solicit: 1,
  advertise: 2,
  request: 3,
  confirm: 4,
  renew: 5,
  rebind: 6,
  reply: 7,
  release: 8,
  decline: 9,
  informationRequest: 11,
} as const;

export const Dhcpv6Option = {
  clientId: 1,
  serverId: 2,
  iaNa: 3,
  iaAddress: 5,
  optionRequest: 6,
  statusCode: 13,
  rapidCommit: 14,
  dns: 23,
  domainList: 24,
  fqdn: 39,
} as const;

export const Dhcpv6Status = { success: 0, noAddrsAvail: 2, notOnLink: 4 } as const;

/**
 * Check a client's message in place, all options included.
 * @param bytes  UDP payload length
 * @returns 0, or Drop.short | dhcpv6Type | dhcpv6Option
 */
export function dhcpv6Check(pool: Uint8Array, at: number, bytes: number): number {
  if (bytes < HEADER_BYTES) return Drop.short;
  const type = pool[at]!;
  if (type === 0 || type > Dhcpv6Message.informationRequest) return Drop.dhcpv6Type;
  let i = HEADER_BYTES;
  while (i < bytes) {
    if (i + OPTION_BYTES > bytes) return Drop.dhcpv6Option;
    const code = readU16(pool, at + i);
    const contentBytes = readU16(pool, at + i + 2);
    i += OPTION_BYTES + contentBytes;
    if (i > bytes) return Drop.dhcpv6Option;
    if (code <= Dhcpv6Option.serverId && (contentBytes < 2 || contentBytes > DUID_MAX_BYTES)) {
      return Drop.dhcpv6Option;
    }
    if (code === Dhcpv6Option.iaNa && contentBytes < IA_NA_BYTES) return Drop.dhcpv6Option;
    if (code === Dhcpv6Option.optionRequest && (contentBytes & 1) !== 0) return Drop.dhcpv6Option;
  }
  return 0;
}

/** Message type: a Dhcpv6Message value. */
export function dhcpv6Type(pool: Uint8Array, at: number): number {
  return pool[at]!;
}

/**
 * Find the next option with a code.
 * @param bytes  where the options end, from `at`
 * @param from  offset from `at` of the option where the search begins; 0 for the first option
 * @returns offset of the option's code from `at` (its length is at + 2, its content at + 4), or 0 for none
 */
export function dhcpv6OptionAt(pool: Uint8Array, at: number, bytes: number, code: number, from = 0): number {
  let i = from === 0 ? HEADER_BYTES : from;
  while (i + OPTION_BYTES <= bytes) {
    const next = i + OPTION_BYTES + readU16(pool, at + i + 2);
    if (next > bytes) return 0;
    if (readU16(pool, at + i) === code) return i;
    i = next;
  }
  return 0;
}

/** Content length in bytes of the option at the offset `option` from dhcpv6OptionAt. */
export function dhcpv6OptionBytes(pool: Uint8Array, at: number, option: number): number {
  return readU16(pool, at + option + 2);
}

/** IAID of the IA_NA at the offset `option`. */
export function dhcpv6Iaid(pool: Uint8Array, at: number, option: number): number {
  return readU32(pool, at + option + OPTION_BYTES);
}

/**
 * The next address inside the IA_NA at the offset `ia`.
 * @param from  0 for the first address, else the result of the last call
 * @returns offset of the IAADDR option from `at` (the 16-byte address is at + 4), or 0 when there are no more
 */
export function dhcpv6IaAddressAt(pool: Uint8Array, at: number, ia: number, from = 0): number {
  const end = ia + OPTION_BYTES + dhcpv6OptionBytes(pool, at, ia);
  const start =
    from === 0 ? ia + OPTION_BYTES + IA_NA_BYTES : from + OPTION_BYTES + dhcpv6OptionBytes(pool, at, from);
  const found = dhcpv6OptionAt(pool, at, end, Dhcpv6Option.iaAddress, start);
  return found !== 0 && dhcpv6OptionBytes(pool, at, found) >= IAADDR_BYTES ? found : 0;
}

/** Whether the client's option request names `code`; true also when the message has no option request. */
export function dhcpv6Wants(pool: Uint8Array, at: number, bytes: number, code: number): boolean {
  const request = dhcpv6OptionAt(pool, at, bytes, Dhcpv6Option.optionRequest);
  if (request === 0) return true;
  const contentBytes = dhcpv6OptionBytes(pool, at, request);
  for (let i = 0; i < contentBytes; i += 2) {
    if (readU16(pool, at + request + OPTION_BYTES + i) === code) return true;
  }
  return false;
}

/** One identity association of a reply. Addresses are four words each. */
export interface Dhcpv6Association {
  readonly iaid: number;
  /** Address assigned to the client, with infinite lifetimes. */
  readonly address?: Uint32Array;
  /** Addresses sent with lifetime 0, which the client gives up; four words each, one after the other. */
  readonly withdrawn?: Uint32Array;
  /** Dhcpv6Status, when no address is assigned. */
  readonly status?: number;
}

/** Content of a server's message. An absent field is not sent. */
export interface Dhcpv6Reply {
  /** Dhcpv6Message.advertise or reply. */
  readonly type: number;
  /**
   * The server's MAC address. The server identifier is a DUID-LL of it, so it is the same after every start.
   */
  readonly mac: Uint8Array;
  readonly associations: readonly Dhcpv6Association[];
  /** Dhcpv6Status for the message as a whole. */
  readonly status?: number;
  readonly rapidCommit?: boolean;
  /** Resolvers, four words each. */
  readonly dns?: Uint32Array;
  /** Search list. A text that is not a domain name is left out. */
  readonly search?: readonly string[];
  /** The client's FQDN (option 39), sent only if the request has option 39. */
  readonly fqdn?: string;
}

/** DUID-LL of a MAC address (RFC 8415 section 11.4): type 3 u16, hardware type 1 u16, address. */
const DUID_LL_BYTES = 10;

/** Whether the server identifier option at the offset `option` is the DUID-LL of `mac`. */
export function dhcpv6IsOurs(pool: Uint8Array, at: number, option: number, mac: Uint8Array): boolean {
  if (dhcpv6OptionBytes(pool, at, option) !== DUID_LL_BYTES) return false;
  const duidAt = at + option + OPTION_BYTES;
  if (readU32(pool, duidAt) !== 0x0003_0001) return false;
  return mac.every((byte, i) => pool[duidAt + 4 + i] === byte);
}

/**
 * Write a reply to the message at `requestAt`, which dhcpv6Check has accepted. Cold path.
 * @param requestAt,requestBytes  the request, in the same pool; must not overlap the reply
 * @param limitBytes  room from `at` on; an option that does not fit any more is left out
 * @returns UDP payload bytes
 */
export function dhcpv6ReplyWrite(
  pool: Uint8Array,
  at: number,
  requestAt: number,
  requestBytes: number,
  reply: Dhcpv6Reply,
  limitBytes = 1200,
): number {
  pool[at] = reply.type;
  for (let i = 1; i < HEADER_BYTES; i++) pool[at + i] = pool[requestAt + i]!;
  let end = HEADER_BYTES;
  // Returns the offset of the option's content in the pool, or 0 if the option does not fit.
  const option = (code: number, contentBytes: number): number => {
    if (end + OPTION_BYTES + contentBytes > limitBytes) return 0;
    writeU16(pool, at + end, code);
    writeU16(pool, at + end + 2, contentBytes);
    const contentAt = at + end + OPTION_BYTES;
    end += OPTION_BYTES + contentBytes;
    return contentAt;
  };

  const serverId = option(Dhcpv6Option.serverId, DUID_LL_BYTES);
  if (serverId !== 0) {
    writeU32(pool, serverId, 0x0003_0001);
    for (let i = 0; i < 6; i++) pool[serverId + 4 + i] = reply.mac[i]!;
  }
  const client = dhcpv6OptionAt(pool, requestAt, requestBytes, Dhcpv6Option.clientId);
  if (client !== 0) {
    const duidBytes = dhcpv6OptionBytes(pool, requestAt, client);
    const from = requestAt + client + OPTION_BYTES;
    const contentAt = option(Dhcpv6Option.clientId, duidBytes);
    if (contentAt !== 0) pool.copyWithin(contentAt, from, from + duidBytes);
  }
  if (reply.status !== undefined) {
    const contentAt = option(Dhcpv6Option.statusCode, 2);
    if (contentAt !== 0) writeU16(pool, contentAt, reply.status);
  }
  if (reply.rapidCommit) option(Dhcpv6Option.rapidCommit, 0);
  for (const association of reply.associations) writeAssociation(pool, option, association);
  const { dns, search, fqdn } = reply;
  if (dns !== undefined && dns.length > 0) {
    const contentAt = option(Dhcpv6Option.dns, dns.length * 4);
    if (contentAt !== 0)
      for (let i = 0; i < dns.length; i += 4) addressWrite(pool, contentAt + i * 4, dns, i);
  }
  const domains = (search ?? []).map(domainLabels).filter((labels) => labels !== null);
  if (domains.length > 0) {
    let contentAt = option(
      Dhcpv6Option.domainList,
      domains.reduce((sum, labels) => sum + nameBytes(labels), 0),
    );
    if (contentAt !== 0) for (const labels of domains) contentAt += domainWrite(pool, contentAt, labels);
  }
  const clientFqdn = dhcpv6OptionAt(pool, requestAt, requestBytes, Dhcpv6Option.fqdn);
  const labels = fqdn === undefined ? null : domainLabels(fqdn);
  if (labels !== null && clientFqdn !== 0 && dhcpv6OptionBytes(pool, requestAt, clientFqdn) > 0) {
    const contentAt = option(Dhcpv6Option.fqdn, 1 + nameBytes(labels));
    if (contentAt !== 0) {
      // This server makes no DNS updates: N. O as well when the client asked for one (RFC 4704 section 6).
      const [S, O, N] = [1, 2, 4];
      pool[contentAt] = N | (pool[requestAt + clientFqdn + OPTION_BYTES]! & S ? O : 0);
      domainWrite(pool, contentAt + 1, labels);
    }
  }
  return end;
}

function nameBytes(labels: readonly string[]): number {
  return labels.reduce((sum, label) => sum + 1 + label.length, 1);
}

function writeAssociation(
  pool: Uint8Array,
  option: (code: number, contentBytes: number) => number,
  { iaid, address, withdrawn, status }: Dhcpv6Association,
): void {
  const addresses = (address === undefined ? 0 : 1) + (withdrawn === undefined ? 0 : withdrawn.length >>> 2);
  const statusBytes = status === undefined ? 0 : OPTION_BYTES + 2;
  let i = option(Dhcpv6Option.iaNa, IA_NA_BYTES + addresses * (OPTION_BYTES + IAADDR_BYTES) + statusBytes);
  if (i === 0) return;
  writeU32(pool, i, iaid);
  // An address with an infinite lifetime is never renewed: T1 and T2 are infinite too.
  writeU32(pool, i + 4, LIFETIME_INFINITE);
  writeU32(pool, i + 8, LIFETIME_INFINITE);
  i += IA_NA_BYTES;
  const write = (words: Uint32Array, w: number, lifetimeS: number): void => {
    writeU16(pool, i, Dhcpv6Option.iaAddress);
    writeU16(pool, i + 2, IAADDR_BYTES);
    addressWrite(pool, i + 4, words, w);
    writeU32(pool, i + 20, lifetimeS);
    writeU32(pool, i + 24, lifetimeS);
    i += OPTION_BYTES + IAADDR_BYTES;
  };
  if (address !== undefined) write(address, 0, LIFETIME_INFINITE);
  if (withdrawn !== undefined) for (let w = 0; w < withdrawn.length; w += 4) write(withdrawn, w, 0);
  if (status !== undefined) {
    writeU16(pool, i, Dhcpv6Option.statusCode);
    writeU16(pool, i + 2, 2);
    writeU16(pool, i + 4, status);
  }
}
