/**
 * DHCPv4: RFC 2131 (messages), RFC 2132 (options), RFC 3397 (search list), RFC 3442 (classless routes), RFC
 * 4039 (rapid commit), RFC 4702 (FQDN).
 *
 *  +0 op u8   +1 htype u8   +2 hlen u8   +3 hops u8   +4 xid u32   +8 secs u16   +10 flags u16
 *  +12 ciaddr u32   +16 yiaddr u32   +20 siaddr u32   +24 giaddr u32
 *  +28 chaddr, 16   +44 sname, 64   +108 file, 128   +236 magic u32   +240 options
 *  option: +0 code u8   +1 length u8   +2 content;   0 is a pad, 255 the end, both without a length
 *
 * Options in sname and file (option 52, overload) are not read: clients do not need overload, and a hostile
 * client gains nothing by it. A container sends only a few messages, so the writer takes a plain object; all
 * readers but those marked cold allocate nothing.
 *
 * Invariant: once dhcpCheck() === 0, the fields and the options up to the end may be read unchecked.
 */
import { readU16, readU32, writeU16, writeU32 } from './be.ts';
import { domainLabels, domainWrite } from './domain-name.ts';
import { Drop } from './drop.ts';

export const DHCP_SERVER_PORT = 67;
export const DHCP_CLIENT_PORT = 68;
/** The fixed fields and the magic cookie. */
export const DHCP_MIN_BYTES = 240;
/** Offset of the client's MAC address (chaddr) from the start of the message. */
export const DHCP_CLIENT_MAC = 28;

const MAGIC = 0x63825363;
/** RFC 1542 section 2.1: BOOTP relays and clients expect a message of at least this length. */
const REPLY_MIN_BYTES = 300;
/** RFC 2131 section 2: every client accepts an IP packet of 576 bytes, 548 of them DHCP. */
const REPLY_MAX_BYTES = 548;

export const DhcpMessage = {
  /** No option 53: plain BOOTP. */
  none: 0,
  discover: 1,
  offer: 2,
  request: 3,
  decline: 4,
  ack: 5,
  nak: 6,
  release: 7,
  inform: 8,
} as const;

export const DhcpOption = {
  pad: 0,
  subnetMask: 1,
  router: 3,
  dns: 6,
  hostname: 12,
  domainName: 15,
  mtu: 26,
  requestedIp: 50,
  leaseTime: 51,
  messageType: 53,
  serverId: 54,
  parameterList: 55,
  rapidCommit: 80,
  fqdn: 81,
  searchList: 119,
  classlessRoutes: 121,
  end: 255,
} as const;

/**
 * Check a client's message in place, all options included.
 * @param bytes  UDP payload length
 * @returns 0, or Drop.short | dhcpOp | dhcpHardware | dhcpMagic | dhcpOption
 */
export function dhcpCheck(pool: Uint8Array, at: number, bytes: number): number {
  if (bytes < DHCP_MIN_BYTES) return Drop.short;
  if (pool[at] !== 1) return Drop.dhcpOp;
  if (readU16(pool, at + 1) !== 0x0106) return Drop.dhcpHardware; // Ethernet, 6 bytes
  if (readU32(pool, at + 236) !== MAGIC) return Drop.dhcpMagic;
  let i = DHCP_MIN_BYTES;
  while (i < bytes) {
    const code = pool[at + i]!;
    if (code === DhcpOption.end) return 0;
    if (code === DhcpOption.pad) i++;
    else {
      if (i + 1 >= bytes) return Drop.dhcpOption;
      i += 2 + pool[at + i + 1]!;
      if (i > bytes) return Drop.dhcpOption;
    }
  }
  return 0; // the end option is mandatory, but some clients omit it
}

/** Transaction id: the client chooses it and the reply carries the same. */
export function dhcpXid(pool: Uint8Array, at: number): number {
  return readU32(pool, at + 4);
}

/** Broadcast flag: the client cannot receive unicast before it has an address. */
export function dhcpWantsBroadcast(pool: Uint8Array, at: number): boolean {
  return (pool[at + 10]! & 0x80) !== 0;
}

/** The client's current address (u32) when it renews a lease, else 0. */
export function dhcpCiaddr(pool: Uint8Array, at: number): number {
  return readU32(pool, at + 12);
}

/** The address (u32) that a reply offers or assigns. */
export function dhcpYiaddr(pool: Uint8Array, at: number): number {
  return readU32(pool, at + 16);
}

/** The relay agent's address (u32), 0 without a relay. */
export function dhcpGiaddr(pool: Uint8Array, at: number): number {
  return readU32(pool, at + 24);
}

/**
 * Find the first option with a code.
 * @param bytes  UDP payload length
 * @returns offset of the option's code byte from `at` (its length is at + 1, its content at + 2), or 0 for
 *   none
 */
export function dhcpOptionAt(pool: Uint8Array, at: number, bytes: number, code: number): number {
  let i = DHCP_MIN_BYTES;
  while (i < bytes) {
    const found = pool[at + i]!;
    if (found === DhcpOption.pad) {
      i++;
      continue;
    }
    if (found === DhcpOption.end || i + 1 >= bytes) return 0;
    const next = i + 2 + pool[at + i + 1]!;
    if (next > bytes) return 0;
    if (found === code) return i;
    i = next;
  }
  return 0;
}

/** Option 53, a DhcpMessage value; 0 when it is absent (plain BOOTP) or has the wrong length. */
export function dhcpMessageType(pool: Uint8Array, at: number, bytes: number): number {
  const option = dhcpOptionAt(pool, at, bytes, DhcpOption.messageType);
  return option !== 0 && pool[at + option + 1] === 1 ? pool[at + option + 2]! : DhcpMessage.none;
}

function optionU32(pool: Uint8Array, at: number, bytes: number, code: number): number {
  const option = dhcpOptionAt(pool, at, bytes, code);
  return option !== 0 && pool[at + option + 1] === 4 ? readU32(pool, at + option + 2) : 0;
}

/** Option 50, the address the client asks for, as a u32; 0 when absent. */
export function dhcpRequestedIp(pool: Uint8Array, at: number, bytes: number): number {
  return optionU32(pool, at, bytes, DhcpOption.requestedIp);
}

/** Option 54, the server that a REQUEST is for, as a u32; 0 when absent. */
export function dhcpServerId(pool: Uint8Array, at: number, bytes: number): number {
  return optionU32(pool, at, bytes, DhcpOption.serverId);
}

/** Option 80: the client accepts an ACK in reply to its DISCOVER. */
export function dhcpRapidCommit(pool: Uint8Array, at: number, bytes: number): boolean {
  return dhcpOptionAt(pool, at, bytes, DhcpOption.rapidCommit) !== 0;
}

/** Option 55, the codes of the options the client wants, in its order; empty when absent. Cold path. */
export function dhcpParameterList(pool: Uint8Array, at: number, bytes: number): number[] {
  const option = dhcpOptionAt(pool, at, bytes, DhcpOption.parameterList);
  if (option === 0) return [];
  return Array.from({ length: pool[at + option + 1]! }, (_, i) => pool[at + option + 2 + i]!);
}

/** Option 12, the host name; "" when absent. Bytes that are not printable ASCII become "?". Cold path. */
export function dhcpHostname(pool: Uint8Array, at: number, bytes: number): string {
  const option = dhcpOptionAt(pool, at, bytes, DhcpOption.hostname);
  if (option === 0) return '';
  let text = '';
  for (let i = 0; i < pool[at + option + 1]!; i++) {
    const byte = pool[at + option + 2 + i]!;
    if (byte === 0 && i === pool[at + option + 1]! - 1) break; // some clients send a trailing NUL
    text += byte > 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '?';
  }
  return text;
}

/** Content of a reply. Addresses are u32. An absent field is not sent. */
export interface DhcpReply {
  /** DhcpMessage.offer, ack or nak; none for a plain BOOTP reply, which has no option 53. */
  readonly messageType: number;
  /** The address assigned to the client; 0 in a NAK. */
  readonly yiaddr: number;
  /** Our address: option 54. */
  readonly serverId: number;
  readonly siaddr?: number;
  readonly subnetMask?: number;
  readonly router?: number;
  /** Seconds; 0xffffffff means infinite. */
  readonly leaseTimeS?: number;
  readonly mtu?: number;
  readonly dns?: readonly number[];
  /** Search list (option 119). A text that is not a domain name is left out. */
  readonly search?: readonly string[];
  readonly domainName?: string;
  readonly hostname?: string;
  /** The client's FQDN (option 81), sent only if the request has option 81. */
  readonly fqdn?: string;
  /**
   * Classless routes (option 121). With this option clients ignore `router` (RFC 3442), so the routes have to
   * include the default route. `via` 0: on-link.
   */
  readonly routes?: readonly { readonly dst: number; readonly prefixLen: number; readonly via: number }[];
  readonly rapidCommit?: boolean;
}

const u32Bytes = (value: number): number[] => [
  value >>> 24,
  (value >>> 16) & 0xff,
  (value >>> 8) & 0xff,
  value & 0xff,
];

const textBytes = (text: string): number[] => Array.from(text, (char) => char.charCodeAt(0) & 0xff);

function domainBytes(name: string): number[] {
  const labels = domainLabels(name);
  if (labels === null) return [];
  const bytes = new Uint8Array(256);
  return Array.from(bytes.subarray(0, domainWrite(bytes, 0, labels)));
}

/**
 * Content of option 81 in reply to the client's flags (RFC 4702 section 4): no DNS updates by this server,
 * the name in the client's encoding.
 */
function fqdnBytes(name: string, clientFlags: number): number[] {
  const [S, O, E, N] = [1, 2, 4, 8];
  const flags = N | (clientFlags & E) | (clientFlags & S ? O : 0);
  return [flags, 255, 255, ...(clientFlags & E ? domainBytes(name) : textBytes(name))];
}

/**
 * Write a reply to the message at `requestAt`, which dhcpCheck has accepted. Cold path.
 *
 * Option 53 comes first, then the options that the client asked for (option 55) in its order, then the rest.
 * An option that does not fit into 548 bytes any more is left out.
 * @param requestAt,requestBytes  the request, in the same pool; must not overlap the reply
 * @returns UDP payload bytes, 300..548
 */
export function dhcpReplyWrite(
  pool: Uint8Array,
  at: number,
  requestAt: number,
  requestBytes: number,
  reply: DhcpReply,
): number {
  pool.fill(0, at, at + REPLY_MAX_BYTES);
  pool[at] = 2; // BOOTREPLY
  writeU16(pool, at + 1, 0x0106);
  writeU32(pool, at + 4, dhcpXid(pool, requestAt));
  writeU16(pool, at + 10, readU16(pool, requestAt + 10));
  // RFC 2131 table 3: only an ACK repeats ciaddr.
  if (reply.messageType === DhcpMessage.ack) writeU32(pool, at + 12, dhcpCiaddr(pool, requestAt));
  writeU32(pool, at + 16, reply.yiaddr);
  writeU32(pool, at + 20, reply.siaddr ?? 0);
  writeU32(pool, at + 24, dhcpGiaddr(pool, requestAt));
  pool.copyWithin(at + DHCP_CLIENT_MAC, requestAt + DHCP_CLIENT_MAC, requestAt + DHCP_CLIENT_MAC + 16);
  writeU32(pool, at + 236, MAGIC);

  const options = new Map<number, number[]>();
  const isBootp = reply.messageType === DhcpMessage.none;
  if (!isBootp) {
    options.set(DhcpOption.messageType, [reply.messageType]);
    options.set(DhcpOption.serverId, u32Bytes(reply.serverId));
  }
  if (reply.leaseTimeS !== undefined && !isBootp) {
    options.set(DhcpOption.leaseTime, u32Bytes(reply.leaseTimeS));
  }
  if (reply.subnetMask !== undefined) options.set(DhcpOption.subnetMask, u32Bytes(reply.subnetMask));
  // RFC 3442: option 121 comes before option 3.
  if (reply.routes !== undefined) {
    options.set(
      DhcpOption.classlessRoutes,
      reply.routes.flatMap(({ dst, prefixLen, via }) => [
        prefixLen,
        ...u32Bytes(dst).slice(0, (prefixLen + 7) >>> 3),
        ...u32Bytes(via),
      ]),
    );
  }
  if (reply.router !== undefined) options.set(DhcpOption.router, u32Bytes(reply.router));
  if (reply.mtu !== undefined) options.set(DhcpOption.mtu, [reply.mtu >>> 8, reply.mtu & 0xff]);
  if (reply.dns !== undefined) options.set(DhcpOption.dns, reply.dns.flatMap(u32Bytes));
  if (reply.hostname !== undefined) options.set(DhcpOption.hostname, textBytes(reply.hostname));
  if (reply.domainName !== undefined) options.set(DhcpOption.domainName, textBytes(reply.domainName));
  if (reply.search !== undefined) options.set(DhcpOption.searchList, reply.search.flatMap(domainBytes));
  if (reply.rapidCommit) options.set(DhcpOption.rapidCommit, []);
  const clientFqdn = dhcpOptionAt(pool, requestAt, requestBytes, DhcpOption.fqdn);
  if (reply.fqdn !== undefined && clientFqdn !== 0 && pool[requestAt + clientFqdn + 1]! >= 3) {
    options.set(DhcpOption.fqdn, fqdnBytes(reply.fqdn, pool[requestAt + clientFqdn + 2]!));
  }

  const order = [
    DhcpOption.messageType,
    ...dhcpParameterList(pool, requestAt, requestBytes),
    ...options.keys(),
  ];
  let i = DHCP_MIN_BYTES;
  for (const code of order) {
    const content = options.get(code);
    if (content === undefined) continue;
    options.delete(code);
    // Only rapid commit may be empty. One byte stays free for the end option.
    if (content.length === 0 && code !== DhcpOption.rapidCommit) continue;
    if (content.length > 255 || i + 2 + content.length + 1 > REPLY_MAX_BYTES) continue;
    pool[at + i] = code;
    pool[at + i + 1] = content.length;
    for (const [k, byte] of content.entries()) pool[at + i + 2 + k] = byte;
    i += 2 + content.length;
  }
  pool[at + i] = DhcpOption.end;
  return Math.max(i + 1, REPLY_MIN_BYTES);
}
