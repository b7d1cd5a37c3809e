/**
 * Valid frames of every kind that a guest sends, with the offsets of their fields: the mutator makes hostile
 * frames from them. Each begins with a vnet header. Addresses are those of `PLAN_ADDRESSES`.
 */

import type { EnginePlan } from '../../src/workers/engine-plan.ts';
import { ETH, GUEST_MAC, OUR_MAC, optionBytes, sum16, VNET } from '../support/netsim/wire.ts';
import { ip4, ip6 } from '../support/packets.ts';

export const PLAN_ADDRESSES: EnginePlan['addresses'] = {
  mtu: 1500,
  mac: '9a:55:9a:55:9a:55',
  guestMac: '02:00:00:00:00:67',
  ipv4: {
    guest: '192.0.2.15',
    prefixLen: 24,
    gateway: '192.0.2.1',
    hostLoopback: '192.0.2.2',
    dns: '192.0.2.3',
  },
  ipv6: {
    guest: '2001:db8::15',
    prefixLen: 64,
    gateway: '2001:db8::1',
    linkLocal: 'fe80::1',
    hostLoopback: '2001:db8::2',
    dns: '2001:db8::3',
  },
  resolvers: ['127.0.0.1', '::1'],
  offeredDns: ['192.0.2.3', '2001:db8::3'],
  searchDomains: ['example.com'],
};

export interface Field {
  readonly name: string;
  readonly at: number;
  readonly size: 1 | 2 | 4;
  /** vnet header fields are little-endian. */
  readonly little?: boolean;
}

export interface Seed {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly fields: readonly Field[];
}

const address = (text: string): number[] => (text.includes(':') ? ip6(text) : ip4(text));

const u16 = (v: number): number[] => [(v >>> 8) & 255, v & 255];
const u32 = (v: number): number[] => [...u16(v >>> 16), ...u16(v & 0xffff)];
const text = (s: string): number[] => [...s].map((c) => c.charCodeAt(0));
const bytesOf = (n: number): number[] => Array.from({ length: n }, (_, i) => (i * 7 + 3) & 255);

const VNET_FIELDS: Field[] = [
  { name: 'vnet.flags', at: 0, size: 1 },
  { name: 'vnet.gsoType', at: 1, size: 1 },
  { name: 'vnet.hdrLen', at: 2, size: 2, little: true },
  { name: 'vnet.gsoSize', at: 4, size: 2, little: true },
  { name: 'vnet.csumStart', at: 6, size: 2, little: true },
  { name: 'vnet.csumOffset', at: 8, size: 2, little: true },
  { name: 'vnet.numBuffers', at: 10, size: 2, little: true },
];

interface Vnet {
  readonly flags?: number;
  readonly gsoType?: number;
  readonly hdrLen?: number;
  readonly gsoSize?: number;
  readonly csumStart?: number;
  readonly csumOffset?: number;
}

const le16 = (v: number): number[] => [v & 255, (v >>> 8) & 255];

function frame(
  name: string,
  etherType: number,
  payload: number[],
  fields: Field[],
  vnet: Vnet = {},
  dst: readonly number[] = OUR_MAC,
): Seed {
  const head = [
    vnet.flags ?? 0,
    vnet.gsoType ?? 0,
    ...le16(vnet.hdrLen ?? 0),
    ...le16(vnet.gsoSize ?? 0),
    ...le16(vnet.csumStart ?? 0),
    ...le16(vnet.csumOffset ?? 0),
    ...le16(0),
  ];
  const eth: Field = { name: 'eth.type', at: VNET + 12, size: 2 };
  const bytes = Uint8Array.from([...head, ...dst, ...GUEST_MAC, ...u16(etherType), ...payload]);
  const shifted = fields.map((f) => ({ ...f, at: f.at + VNET + ETH }));
  return { name, bytes, fields: [...VNET_FIELDS, eth, ...shifted] };
}

const V4_FIELDS: Field[] = [
  { name: 'ip.verIhl', at: 0, size: 1 },
  { name: 'ip.tos', at: 1, size: 1 },
  { name: 'ip.totalLen', at: 2, size: 2 },
  { name: 'ip.ident', at: 4, size: 2 },
  { name: 'ip.fragOff', at: 6, size: 2 },
  { name: 'ip.ttl', at: 8, size: 1 },
  { name: 'ip.proto', at: 9, size: 1 },
  { name: 'ip.checksum', at: 10, size: 2 },
  { name: 'ip.src', at: 12, size: 4 },
  { name: 'ip.dst', at: 16, size: 4 },
];

interface V4 {
  readonly src?: string;
  readonly dst?: string;
  readonly options?: number[];
  readonly fragOff?: number;
  readonly ident?: number;
  readonly ttl?: number;
}

const shift = (fields: Field[], by: number): Field[] => fields.map((f) => ({ ...f, at: f.at + by }));

function ipv4(
  name: string,
  proto: number,
  body: number[],
  fields: Field[],
  o: V4 = {},
  vnet: Vnet = {},
): Seed {
  const options = o.options ?? [];
  const headerBytes = 20 + options.length;
  const header = [
    0x40 | (headerBytes / 4),
    0,
    ...u16(headerBytes + body.length),
    ...u16(o.ident ?? 0x1234),
    ...u16(o.fragOff ?? 0x4000),
    o.ttl ?? 64,
    proto,
    0,
    0,
    ...address(o.src ?? '192.0.2.15'),
    ...address(o.dst ?? '198.51.100.7'),
    ...options,
  ];
  const optionFields: Field[] = options.map((_, i) => ({ name: `ip.option${i}`, at: 20 + i, size: 1 }));
  const seed = frame(
    name,
    0x0800,
    [...header, ...body],
    [...V4_FIELDS, ...optionFields, ...shift(fields, headerBytes)],
    vnet,
  );
  fixChecksums(seed.bytes, 0, seed.bytes.length);
  return seed;
}

const V6_FIELDS: Field[] = [
  { name: 'ip6.version', at: 0, size: 4 },
  { name: 'ip6.payloadLen', at: 4, size: 2 },
  { name: 'ip6.nextHeader', at: 6, size: 1 },
  { name: 'ip6.hopLimit', at: 7, size: 1 },
  { name: 'ip6.src', at: 8, size: 4 },
  { name: 'ip6.srcLow', at: 20, size: 4 },
  { name: 'ip6.dst', at: 24, size: 4 },
  { name: 'ip6.dstLow', at: 36, size: 4 },
];

interface V6 {
  readonly src?: string;
  readonly dst?: string;
  readonly hopLimit?: number;
  /** Extension headers as [kind, bytes after the next-header byte]. */
  readonly extensions?: readonly (readonly [number, number[]])[];
}

function ipv6(
  name: string,
  proto: number,
  body: number[],
  fields: Field[],
  o: V6 = {},
  vnet: Vnet = {},
): Seed {
  const extensions = o.extensions ?? [];
  const chain: number[] = [];
  const extensionFields: Field[] = [];
  extensions.forEach(([, rest], i) => {
    const next = extensions[i + 1]?.[0] ?? proto;
    rest.forEach((_, k) => {
      if (k < 8) extensionFields.push({ name: `ip6.ext${i}.${k}`, at: 40 + chain.length + 1 + k, size: 1 });
    });
    extensionFields.push({ name: `ip6.ext${i}.next`, at: 40 + chain.length, size: 1 });
    chain.push(next, ...rest);
  });
  const header = [
    0x60,
    0,
    0,
    0,
    ...u16(chain.length + body.length),
    extensions[0]?.[0] ?? proto,
    o.hopLimit ?? 64,
    ...address(o.src ?? '2001:db8::15'),
    ...address(o.dst ?? '2001:db8:1::7'),
    ...chain,
  ];
  const all = [...V6_FIELDS, ...extensionFields, ...shift(fields, 40 + chain.length)];
  const seed = frame(name, 0x86dd, [...header, ...body], all, vnet);
  fixChecksums(seed.bytes, 0, seed.bytes.length);
  return seed;
}

const UDP_FIELDS: Field[] = [
  { name: 'udp.srcPort', at: 0, size: 2 },
  { name: 'udp.dstPort', at: 2, size: 2 },
  { name: 'udp.length', at: 4, size: 2 },
  { name: 'udp.checksum', at: 6, size: 2 },
];
const udp = (src: number, dst: number, body: number[]): number[] => [
  ...u16(src),
  ...u16(dst),
  ...u16(8 + body.length),
  0,
  0,
  ...body,
];

function tcpFields(optionCount: number): Field[] {
  return [
    { name: 'tcp.srcPort', at: 0, size: 2 },
    { name: 'tcp.dstPort', at: 2, size: 2 },
    { name: 'tcp.seq', at: 4, size: 4 },
    { name: 'tcp.ack', at: 8, size: 4 },
    { name: 'tcp.dataOffset', at: 12, size: 1 },
    { name: 'tcp.flags', at: 13, size: 1 },
    { name: 'tcp.window', at: 14, size: 2 },
    { name: 'tcp.checksum', at: 16, size: 2 },
    { name: 'tcp.urgent', at: 18, size: 2 },
    ...Array.from(
      { length: optionCount },
      (_, i): Field => ({ name: `tcp.option${i}`, at: 20 + i, size: 1 }),
    ),
  ];
}

function tcp(
  src: number,
  dst: number,
  flags: number,
  options: number[],
  body: number[],
  seq = 1000,
  ack = 0,
): number[] {
  const headerBytes = 20 + options.length;
  return [
    ...u16(src),
    ...u16(dst),
    ...u32(seq),
    ...u32(ack),
    (headerBytes / 4) << 4,
    flags,
    ...u16(60_000),
    0,
    0,
    0,
    0,
    ...options,
    ...body,
  ];
}

const IGMP_FIELDS: Field[] = [
  { name: 'igmp.type', at: 0, size: 1 },
  { name: 'igmp.checksum', at: 2, size: 2 },
  { name: 'igmp.group', at: 4, size: 4 },
];
const IGMP3_FIELDS: Field[] = [
  { name: 'igmp.type', at: 0, size: 1 },
  { name: 'igmp.records', at: 6, size: 2 },
  { name: 'record.type', at: 8, size: 1 },
  { name: 'record.auxiliary', at: 9, size: 1 },
  { name: 'record.sources', at: 10, size: 2 },
  { name: 'record.group', at: 12, size: 4 },
  { name: 'record2.sources', at: 18, size: 2 },
];

const ICMP_FIELDS: Field[] = [
  { name: 'icmp.type', at: 0, size: 1 },
  { name: 'icmp.code', at: 1, size: 1 },
  { name: 'icmp.checksum', at: 2, size: 2 },
  { name: 'icmp.ident', at: 4, size: 2 },
  { name: 'icmp.seq', at: 6, size: 2 },
];

const DNS_FIELDS: Field[] = [
  ...UDP_FIELDS,
  { name: 'dns.id', at: 8, size: 2 },
  { name: 'dns.flags', at: 10, size: 2 },
  { name: 'dns.questions', at: 12, size: 2 },
  { name: 'dns.answers', at: 14, size: 2 },
  { name: 'dns.label', at: 20, size: 1 },
  { name: 'dns.label2', at: 28, size: 1 },
];
const dnsQuery = (id: number): number[] => [
  ...u16(id),
  ...u16(0x0100),
  ...u16(1),
  ...u16(0),
  ...u16(0),
  ...u16(0),
  7,
  ...text('example'),
  3,
  ...text('com'),
  0,
  ...u16(1),
  ...u16(1),
];

function dhcp(messageType: number): number[] {
  const fixed = [
    1,
    1,
    6,
    0,
    ...u32(0xdeadbeef),
    ...u16(0),
    ...u16(0x8000),
    ...u32(0),
    ...u32(0),
    ...u32(0),
    ...u32(0),
    ...GUEST_MAC,
    ...new Array(10).fill(0),
    ...new Array(192).fill(0),
    ...u32(0x63825363),
  ];
  return [
    ...fixed,
    53,
    1,
    messageType,
    55,
    4,
    1,
    3,
    6,
    15,
    61,
    7,
    1,
    ...GUEST_MAC,
    50,
    4,
    ...address('192.0.2.15'),
    12,
    5,
    ...text('guest'),
    255,
  ];
}
/** Client id, an association with an address of its own, option request. */
const DHCPV6_OPTIONS = [
  ...[0, 1, 0, 10, 0, 3, 0, 1, ...GUEST_MAC],
  ...[0, 3, 0, 40, ...u32(7), ...u32(0), ...u32(0)],
  ...[0, 5, 0, 24, 0xfd, ...new Array<number>(23).fill(1)],
  ...[0, 6, 0, 2, 0, 23],
];

const DHCPV6_FIELDS: Field[] = [
  ...UDP_FIELDS,
  { name: 'dhcpv6.type', at: 8, size: 1 },
  { name: 'dhcpv6.option', at: 8 + 4, size: 2 },
  { name: 'dhcpv6.clientLen', at: 8 + 6, size: 2 },
  { name: 'dhcpv6.iaLen', at: 8 + 20, size: 2 },
  { name: 'dhcpv6.addressLen', at: 8 + 36, size: 2 },
  { name: 'dhcpv6.requestLen', at: 8 + 64, size: 2 },
];

const DHCP_FIELDS: Field[] = [
  ...UDP_FIELDS,
  { name: 'dhcp.op', at: 8, size: 1 },
  { name: 'dhcp.htype', at: 9, size: 1 },
  { name: 'dhcp.hlen', at: 10, size: 1 },
  { name: 'dhcp.magic', at: 8 + 236, size: 4 },
  { name: 'dhcp.option', at: 8 + 240, size: 1 },
  { name: 'dhcp.optionLen', at: 8 + 241, size: 1 },
  { name: 'dhcp.type', at: 8 + 242, size: 1 },
  { name: 'dhcp.option2Len', at: 8 + 244, size: 1 },
];

const ARP_FIELDS: Field[] = [
  { name: 'arp.hardware', at: 0, size: 2 },
  { name: 'arp.protocol', at: 2, size: 2 },
  { name: 'arp.hlen', at: 4, size: 1 },
  { name: 'arp.plen', at: 5, size: 1 },
  { name: 'arp.op', at: 6, size: 2 },
  { name: 'arp.sender', at: 14, size: 4 },
  { name: 'arp.target', at: 24, size: 4 },
];
const arp = (op: number, sender: string, target: string): number[] => [
  ...u16(1),
  ...u16(0x0800),
  6,
  4,
  ...u16(op),
  ...GUEST_MAC,
  ...address(sender),
  ...new Array(6).fill(0),
  ...address(target),
];

const NDP_FIELDS: Field[] = [
  ...ICMP_FIELDS,
  { name: 'ndp.target', at: 8, size: 4 },
  { name: 'ndp.option', at: 24, size: 1 },
  { name: 'ndp.optionLen', at: 25, size: 1 },
];
const solicitation = (type: number, target: string): number[] => [
  type,
  0,
  0,
  0,
  ...u32(0),
  ...address(target),
  type === 135 ? 1 : 2,
  1,
  ...GUEST_MAC,
];

const SYN_OPTIONS = [...optionBytes({ mss: 1460, sackPermitted: true, timestamps: [1, 0], wscale: 7 })];
const SACK_OPTIONS = [
  ...optionBytes({
    timestamps: [5, 6],
    sack: [
      [2000, 3000],
      [4000, 5000],
    ],
  }),
];
const LINK_LOCAL = 'fe80::ff:fe00:67';

/** Every kind of frame at least once. */
export function corpus(): Seed[] {
  const needsCsum = (start: number, offset: number): Vnet => ({
    flags: 1,
    csumStart: start,
    csumOffset: offset,
  });
  const gso4: Vnet = { ...needsCsum(34, 16), gsoType: 1, gsoSize: 1448, hdrLen: 66 };
  const gso6: Vnet = { ...needsCsum(54, 16), gsoType: 4, gsoSize: 1428, hdrLen: 86 };
  const quoted4 = [
    0x45,
    0,
    0,
    40,
    0,
    0,
    0x40,
    0,
    64,
    17,
    0,
    0,
    ...address('198.51.100.7'),
    ...address('192.0.2.15'),
    ...u16(53),
    ...u16(4000),
    0,
    20,
    0,
    0,
  ];
  const quoted6 = [
    0x60,
    0,
    0,
    0,
    0,
    20,
    17,
    64,
    ...address('2001:db8:1::7'),
    ...address('2001:db8::15'),
    ...u16(53),
    ...u16(4000),
    0,
    20,
    0,
    0,
  ];
  const fragment = (next: number, offset: number, more: boolean): readonly [number, number[]] => [
    44,
    [0, ...u16(offset | (more ? 1 : 0)), ...u32(0x0abcdef0 + next)],
  ];
  const padding6: readonly [number, number[]] = [0, [0, 1, 4, 0, 0, 0, 0]];
  const big = bytesOf(1400);
  const inner = [
    ...quoted4.slice(0, 9),
    6,
    ...quoted4.slice(10, 20),
    ...tcp(40_020, 80, 24, [], bytesOf(101)),
  ];
  const innerFrame = [...OUR_MAC, ...GUEST_MAC, ...u16(0x0800), ...inner];
  const vxlan = ipv4(
    'VXLAN, checksum left inside',
    17,
    udp(50_000, 4789, [8, 0, 0, 0, 0, 0, 42, 0, ...innerFrame]),
    UDP_FIELDS,
    {},
    needsCsum(34 + 8 + 8 + 14 + 20, 16),
  );
  vxlan.bytes.fill(0, VNET + 34 + 6, VNET + 34 + 8); // as the device sends it: no outer checksum
  return [
    vxlan,
    frame('ARP request', 0x0806, arp(1, '192.0.2.15', '192.0.2.1'), ARP_FIELDS),
    frame('ARP probe', 0x0806, arp(1, '0.0.0.0', '192.0.2.15'), ARP_FIELDS),
    frame('ARP reply', 0x0806, arp(2, '192.0.2.15', '192.0.2.1'), ARP_FIELDS),
    frame('VLAN', 0x8100, [...u16(5), ...u16(0x0800), ...bytesOf(40)], [{ name: 'vlan', at: 0, size: 2 }]),
    frame('LLDP', 0x88cc, bytesOf(40), []),
    frame('802.3 length', 60, bytesOf(60), []),
    ipv4('TCP SYN', 6, tcp(40_000, 80, 2, SYN_OPTIONS, []), tcpFields(SYN_OPTIONS.length)),
    ipv4(
      'TCP SYN partial',
      6,
      tcp(40_001, 80, 2, SYN_OPTIONS, []),
      tcpFields(SYN_OPTIONS.length),
      {},
      needsCsum(34, 16),
    ),
    ipv4('TCP SYN to the gateway', 6, tcp(40_002, 80, 2, [], []), tcpFields(0), { dst: '192.0.2.1' }),
    ipv4('TCP SYN to the host', 6, tcp(40_003, 8080, 2, SYN_OPTIONS, []), tcpFields(SYN_OPTIONS.length), {
      dst: '192.0.2.2',
    }),
    ipv4('TCP SYN to dns', 6, tcp(40_004, 53, 2, [], []), tcpFields(0), { dst: '192.0.2.3' }),
    ipv4('TCP SYN to multicast', 6, tcp(40_005, 80, 2, [], []), tcpFields(0), { dst: '224.0.0.5' }),
    ipv4('TCP ACK', 6, tcp(40_000, 80, 16, [], [], 1001, 1), tcpFields(0)),
    ipv4(
      'TCP data',
      6,
      tcp(40_000, 80, 24, SACK_OPTIONS, bytesOf(101), 1001, 1),
      tcpFields(SACK_OPTIONS.length),
    ),
    ipv4('TCP URG', 6, tcp(40_000, 80, 0x38, [], bytesOf(10), 1001, 1), tcpFields(0)),
    ipv4('TCP FIN', 6, tcp(40_000, 80, 17, [], [], 1102, 1), tcpFields(0)),
    ipv4('TCP RST', 6, tcp(40_009, 80, 4, [], [], 1, 0), tcpFields(0)),
    ipv4('TCP with IP options', 6, tcp(40_000, 80, 2, [], []), tcpFields(0), {
      options: [7, 7, 4, 0, 0, 0, 0, 1],
    }),
    ipv4(
      'TCP GSO',
      6,
      tcp(40_000, 80, 24, [...optionBytes({ timestamps: [7, 8] })], [...big, ...big, ...big], 1001, 1),
      tcpFields(12),
      {},
      gso4,
    ),
    ipv4('UDP', 17, udp(5000, 7, bytesOf(64)), UDP_FIELDS),
    ipv4('UDP empty', 17, udp(5000, 7, []), UDP_FIELDS),
    ipv4('UDP to the host', 17, udp(5001, 7777, bytesOf(33)), UDP_FIELDS, { dst: '192.0.2.2' }),
    ipv4('UDP to the gateway', 17, udp(5002, 7, bytesOf(64)), UDP_FIELDS, { dst: '192.0.2.1' }),
    ipv4('UDP to loopback', 17, udp(5002, 7, bytesOf(64)), UDP_FIELDS, { dst: '127.0.0.1' }),
    ipv4('UDP multicast', 17, udp(5353, 5353, bytesOf(64)), UDP_FIELDS, { dst: '224.0.0.251' }),
    ipv4('UDP broadcast', 17, udp(137, 137, bytesOf(64)), UDP_FIELDS, { dst: '192.0.2.255' }),
    ipv4('UDP from loopback', 17, udp(5002, 7, bytesOf(64)), UDP_FIELDS, { src: '127.0.0.1' }),
    ipv4(
      'UDP GSO',
      17,
      udp(5003, 7, [...big, ...big]),
      UDP_FIELDS,
      {},
      { ...needsCsum(34, 6), gsoType: 5, gsoSize: 1000, hdrLen: 42 },
    ),
    ipv4(
      'UDP UFO',
      17,
      udp(5004, 7, big),
      UDP_FIELDS,
      {},
      { ...needsCsum(34, 6), gsoType: 3, gsoSize: 1000, hdrLen: 42 },
    ),
    ipv4('UDP ttl 1', 17, udp(33_434, 33_434, bytesOf(32)), UDP_FIELDS, { ttl: 1 }),
    ipv4('DNS query', 17, udp(4000, 53, dnsQuery(77)), DNS_FIELDS, { dst: '192.0.2.3' }),
    ipv4('DHCP discover', 17, udp(68, 67, dhcp(1)), DHCP_FIELDS, { src: '0.0.0.0', dst: '255.255.255.255' }),
    ipv4('DHCP request', 17, udp(68, 67, dhcp(3)), DHCP_FIELDS, { dst: '192.0.2.1' }),
    ipv4('fragment first', 17, udp(5005, 7, bytesOf(64)), UDP_FIELDS, { fragOff: 0x2000 }),
    ipv4('fragment middle', 17, bytesOf(72), [], { fragOff: 0x2000 | 9 }),
    ipv4('fragment last', 17, bytesOf(31), [], { fragOff: 18 }),
    ipv4('fragment far', 17, bytesOf(64), [], { fragOff: 0x1fff }),
    ipv4('fragment tiny TCP', 6, tcp(1, 2, 2, [], []).slice(0, 8), [], { fragOff: 0x2000, ident: 9 }),
    ipv4('ICMP echo', 1, [8, 0, 0, 0, ...u16(9), ...u16(1), ...bytesOf(56)], ICMP_FIELDS),
    ipv4('ICMP echo to the gateway', 1, [8, 0, 0, 0, ...u16(9), ...u16(1), ...bytesOf(56)], ICMP_FIELDS, {
      dst: '192.0.2.1',
    }),
    // Longer than the MTU, as after reassembly: the answer must come in fragments.
    ipv4(
      'ICMP echo to the gateway, long',
      1,
      [8, 0, 0, 0, ...u16(9), ...u16(1), ...bytesOf(2000)],
      ICMP_FIELDS,
      {
        dst: '192.0.2.1',
      },
    ),
    ipv6(
      'ICMP6 echo to the gateway, long',
      58,
      [128, 0, 0, 0, ...u16(9), ...u16(1), ...bytesOf(2000)],
      ICMP_FIELDS,
      {
        dst: '2001:db8::1',
      },
    ),
    ipv4('ICMP echo reply', 1, [0, 0, 0, 0, ...u16(9), ...u16(1), ...bytesOf(56)], ICMP_FIELDS),
    ipv4('ICMP unreachable', 1, [3, 3, 0, 0, ...u32(0), ...quoted4], ICMP_FIELDS),
    ipv4('ICMP time exceeded', 1, [11, 0, 0, 0, ...u32(0), ...quoted4], ICMP_FIELDS),
    ipv4('ICMP timestamp', 1, [13, 0, 0, 0, ...u16(9), ...u16(1), ...bytesOf(12)], ICMP_FIELDS),
    ipv4('IGMP report', 2, [0x16, 0, 0, 0, 224, 0, 0, 251], [], { dst: '224.0.0.251', ttl: 1 }),
    ipv4('IGMP leave', 2, [0x17, 0, 0, 0, 224, 0, 0, 251], IGMP_FIELDS, { dst: '224.0.0.2', ttl: 1 }),
    ipv4(
      'IGMP version 3 report',
      2,
      [
        ...[0x22, 0, 0, 0, 0, 0, ...u16(3)],
        ...[4, 0, ...u16(0), ...address('239.1.2.3')],
        ...[
          1,
          1,
          ...u16(2),
          ...address('232.1.2.3'),
          ...address('192.0.2.7'),
          ...address('192.0.2.8'),
          ...u32(0),
        ],
        ...[6, 0, ...u16(1), ...address('239.1.2.3'), ...address('192.0.2.9')],
      ],
      IGMP3_FIELDS,
      { dst: '224.0.0.22', ttl: 1, options: [0x94, 4, 0, 0] },
    ),
    ipv4('UDP to a group', 17, udp(5353, 5353, bytesOf(64)), UDP_FIELDS, { dst: '239.1.2.3', ttl: 1 }),
    ipv4('UDP to a reserved address', 17, udp(5353, 5353, bytesOf(64)), UDP_FIELDS, { dst: '240.0.0.1' }),
    ipv4('UDP broadcast', 17, udp(5000, 21_027, bytesOf(64)), UDP_FIELDS, { dst: '192.0.2.255' }),
    ipv4('SCTP', 132, bytesOf(30), []),
    ipv4('IP in IP', 4, quoted4, []),
    ipv4('IP in IP, checksum left inside', 4, inner, [], {}, needsCsum(34 + 20, 16)),
    ipv4('GRE, checksum left inside', 47, [0, 0, 8, 0, ...inner], [], {}, needsCsum(34 + 4 + 20, 16)),
    ipv4('IPv6 in IP', 41, bytesOf(60), []),
    ipv6('TCP6 SYN', 6, tcp(41_000, 80, 2, SYN_OPTIONS, []), tcpFields(SYN_OPTIONS.length)),
    ipv6('TCP6 data', 6, tcp(41_000, 80, 24, [], bytesOf(101), 1001, 1), tcpFields(0)),
    ipv6('TCP6 to the host', 6, tcp(41_003, 8080, 2, SYN_OPTIONS, []), tcpFields(SYN_OPTIONS.length), {
      dst: '2001:db8::2',
    }),
    ipv6(
      'TCP6 GSO',
      6,
      tcp(41_000, 80, 24, [...optionBytes({ timestamps: [7, 8] })], [...big, ...big], 1001, 1),
      tcpFields(12),
      {},
      gso6,
    ),
    ipv6('UDP6', 17, udp(5000, 7, bytesOf(64)), UDP_FIELDS),
    ipv6('UDP6 to the host', 17, udp(5001, 7777, bytesOf(64)), UDP_FIELDS, { dst: '2001:db8::2' }),
    ipv6('UDP6 multicast', 17, udp(5353, 5353, bytesOf(64)), UDP_FIELDS, { dst: 'ff02::fb' }),
    ipv6('UDP6 v4-mapped', 17, udp(5000, 7, bytesOf(64)), UDP_FIELDS, { dst: '2001:db8::' }),
    ipv6('DNS6 query', 17, udp(4000, 53, dnsQuery(78)), DNS_FIELDS, { dst: '2001:db8::3' }),
    ipv6('DHCPv6 solicit', 17, udp(546, 547, [1, 1, 2, 3, ...DHCPV6_OPTIONS]), DHCPV6_FIELDS, {
      src: LINK_LOCAL,
      dst: 'ff02::1:2',
    }),
    ipv6('DHCPv6 rebind', 17, udp(546, 547, [6, 1, 2, 3, ...DHCPV6_OPTIONS]), DHCPV6_FIELDS, {
      src: LINK_LOCAL,
      dst: 'ff02::1:2',
    }),
    ipv6('ICMP6 echo', 58, [128, 0, 0, 0, ...u16(9), ...u16(1), ...bytesOf(56)], ICMP_FIELDS),
    ipv6('ICMP6 echo to the gateway', 58, [128, 0, 0, 0, ...u16(9), ...u16(1), ...bytesOf(56)], ICMP_FIELDS, {
      dst: '2001:db8::1',
    }),
    ipv6('ICMP6 unreachable', 58, [1, 4, 0, 0, ...u32(0), ...quoted6], ICMP_FIELDS),
    ipv6('neighbour solicitation', 58, solicitation(135, '2001:db8::1'), NDP_FIELDS, {
      hopLimit: 255,
      src: LINK_LOCAL,
      dst: 'ff02::1:ff00:1',
    }),
    ipv6('neighbour advertisement', 58, solicitation(136, '2001:db8::15'), NDP_FIELDS, {
      hopLimit: 255,
      src: LINK_LOCAL,
      dst: 'fe80::1',
    }),
    ipv6('router solicitation', 58, [133, 0, 0, 0, ...u32(0), 1, 1, ...GUEST_MAC], NDP_FIELDS.slice(0, 5), {
      hopLimit: 255,
      src: LINK_LOCAL,
      dst: 'ff02::2',
    }),
    ipv6('duplicate address detection', 58, solicitation(135, '2001:db8::15').slice(0, 24), ICMP_FIELDS, {
      hopLimit: 255,
      src: '::',
      dst: 'ff02::1:ff00:15',
    }),
    ipv6(
      'MLD report',
      58,
      [143, 0, 0, 0, ...u16(0), ...u16(1), 4, 0, 0, 0, ...address('ff02::fb')],
      ICMP_FIELDS,
      { hopLimit: 1, dst: 'ff02::16', extensions: [[0, [0, 5, 2, 0, 0, 1, 0]]] },
    ),
    ipv6('MLD version 1 report', 58, [131, 0, 0, 0, ...u32(0), ...address('ff05::1')], ICMP_FIELDS, {
      hopLimit: 1,
      dst: 'ff05::1',
      extensions: [[0, [0, 5, 2, 0, 0, 1, 0]]],
    }),
    ipv6('MLD done', 58, [132, 0, 0, 0, ...u32(0), ...address('ff05::1')], ICMP_FIELDS, {
      hopLimit: 1,
      dst: 'ff02::2',
      extensions: [[0, [0, 5, 2, 0, 0, 1, 0]]],
    }),
    ipv6('hop-by-hop and destination options', 17, udp(5000, 7, bytesOf(16)), UDP_FIELDS, {
      extensions: [padding6, [60, [0, 1, 4, 0, 0, 0, 0]]],
    }),
    ipv6('routing header', 17, udp(5000, 7, bytesOf(16)), UDP_FIELDS, {
      extensions: [[43, [2, 0, 1, 0, 0, 0, 0, ...address('2001:db8::9')]]],
    }),
    ipv6('authentication header', 17, udp(5000, 7, bytesOf(16)), UDP_FIELDS, {
      extensions: [[51, [4, 0, 0, ...u32(1), ...u32(2), ...bytesOf(12)]]],
    }),
    ipv6('no next header', 59, [], []),
    ipv6('fragment6 first', 17, udp(5005, 7, bytesOf(64)), UDP_FIELDS, {
      extensions: [fragment(17, 0, true)],
    }),
    ipv6('fragment6 last', 17, bytesOf(31), [], { extensions: [fragment(17, 72, false)] }),
    ipv6('fragment6 atomic', 17, udp(5006, 7, bytesOf(16)), UDP_FIELDS, {
      extensions: [fragment(18, 0, false)],
    }),
    ipv6('fragment6 behind options', 17, udp(5007, 7, bytesOf(64)), UDP_FIELDS, {
      extensions: [padding6, fragment(19, 0, true)],
    }),
    ipv6('SCTP6', 132, bytesOf(30), []),
  ];
}

/**
 * Correct the checksums of a frame, as far as its lengths are valid, so that the engine gets past the
 * checksum to the wrong field. A partial checksum, by the vnet header, is kept.
 */
export function fixChecksums(b: Uint8Array, at: number, bytes: number): void {
  const end = at + bytes;
  const ip = at + VNET + ETH;
  if (ip + 20 > end) return;
  const type = (b[ip - 2]! << 8) | b[ip - 1]!;
  let proto: number;
  let transport: number;
  let transportEnd: number;
  let pseudo: number;
  if (type === 0x0800) {
    const headerBytes = (b[ip]! & 15) * 4;
    if (headerBytes < 20 || ip + headerBytes > end) return;
    b[ip + 10] = 0;
    b[ip + 11] = 0;
    const sum = ~sum16(b, ip, ip + headerBytes) & 0xffff;
    b[ip + 10] = sum >> 8;
    b[ip + 11] = sum & 255;
    if ((((b[ip + 6]! << 8) | b[ip + 7]!) & 0x3fff) !== 0) return;
    proto = b[ip + 9]!;
    transport = ip + headerBytes;
    transportEnd = Math.min(end, ip + ((b[ip + 2]! << 8) | b[ip + 3]!));
    pseudo = sum16(b, ip + 12, ip + 20, proto + Math.max(0, transportEnd - transport));
  } else if (type === 0x86dd) {
    if (ip + 40 > end) return;
    proto = b[ip + 6]!;
    transport = ip + 40;
    transportEnd = Math.min(end, transport + ((b[ip + 4]! << 8) | b[ip + 5]!));
    while ((proto === 0 || proto === 43 || proto === 60) && transport + 8 <= transportEnd) {
      proto = b[transport]!;
      transport += 8 + b[transport + 1]! * 8;
    }
    pseudo = sum16(b, ip + 8, ip + 40, proto + Math.max(0, transportEnd - transport));
  } else return;
  if (b[at]! & 1 && (proto === 6 || proto === 17)) return;
  const field = proto === 6 ? 16 : proto === 17 ? 6 : proto === 1 || proto === 58 || proto === 2 ? 2 : -1;
  if (field < 0 || transport + field + 2 > transportEnd) return;
  b[transport + field] = 0;
  b[transport + field + 1] = 0;
  const sum = ~sum16(b, transport, transportEnd, proto === 1 || proto === 2 ? 0 : pseudo) & 0xffff;
  b[transport + field] = sum >> 8;
  b[transport + field + 1] = sum & 255;
}
