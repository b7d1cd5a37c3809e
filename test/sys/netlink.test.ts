// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as k from '../../src/sys/constants.ts';
import { SysError } from '../../src/sys/error.ts';
import {
  type AddressInfo,
  addressFor,
  type LinkInfo,
  macFor,
  NetlinkRequest,
  netlinkAttributes,
  netlinkMessages,
  parseAddress,
  parseError,
  parseLink,
  parseRoute,
  type RouteInfo,
  routeCopyRequest,
} from '../../src/sys/netlink-messages.ts';
import { describeNeeding, namespaceNeeds, tapNeeds } from '../support/require.ts';
import { runInNamespaces } from './in-namespaces.ts';

/** Bytes of hexadecimal text; white space is ignored. */
const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replace(/\s+/g, ''), 'hex'));

/** ifinfomsg: Ethernet, index 2, UP|BROADCAST|RUNNING|MULTICAST|LOWER_UP. */
const LINK = hex('00 00 0100 02000000 43100100 00000000');
const LINK_ATTRIBUTES = [
  '0900 0300 74617030 00 000000', // IFLA_IFNAME "tap0", padded
  '0800 0400 f0ff0000', // IFLA_MTU 65520
  '0800 0d00 e8030000', // IFLA_TXQLEN 1000
  '0a00 0100 525400123456 0000', // IFLA_ADDRESS, padded
  '0c00 1280 0800 0100 74756e00', // IFLA_LINKINFO, nested flag: IFLA_INFO_KIND "tun"
].map(hex);

const joined = (...parts: Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(parts));
const linkMessage = joined(LINK, ...LINK_ATTRIBUTES);

const addressV4 = hex(`
  02 18 80 00 02000000
  0800 0100 0a000203
  0800 0200 0a000264
  0800 0800 80020000
`); // AF_INET /24 permanent; IFA_ADDRESS 10.0.2.3 (the peer), IFA_LOCAL 10.0.2.100, IFA_FLAGS

const routeMultipath = hex(`
  02 10 00 00 fe 04 00 01 00000000
  0800 0f00 e8030000
  0600 0100 0a09 0000
  0800 0600 05000000
  2400 0900
    1000 00 01 02000000 0800 0500 0a000202
    1000 00 00 03000000 0800 0500 0a000302
`); // 10.9.0.0/16 table 1000 metric 5, two hops

const routeVia = hex(`
  02 00 00 00 fe 03 00 01 00000000
  1600 1200 0a00 fe80 0000000000000000000000000001 0000
  0800 0400 02000000
`); // IPv4 default via IPv6 fe80::1 dev 2

describe('rtnetlink codec, reading', () => {
  it('splits a datagram into its messages', () => {
    const two = hex(`
      15000000 1000 0200 07000000 00000000 aabbccdd ee 000000
      10000000 0300 0000 08000000 00000000
    `);
    expect([...netlinkMessages(two, two.length)]).toEqual([
      { type: 16, flags: 2, sequence: 7, at: 16, endAt: 21 },
      { type: 3, flags: 0, sequence: 8, at: 40, endAt: 40 },
    ]);
    expect([...netlinkMessages(two, 0)]).toEqual([]);
  });

  it('a message with a wrong length: refused', () => {
    for (const length of ['0f000000', '11000000', 'ffffffff', '00000000']) {
      const message = hex(`${length} 0300 0000 00000000 00000000`);
      expect(() => [...netlinkMessages(message, message.length)]).toThrow(SysError);
    }
    const rest = hex('10000000 0300 0000 00000000 00000000 0000');
    expect(() => [...netlinkMessages(rest, rest.length)]).toThrow('2 bytes left over');
  });

  it('attributes: flag bits are not part of the type, lengths are checked', () => {
    const attributes = hex('0500 0380 aa 000000 0800 0140 01020304');
    expect(netlinkAttributes(attributes, 0, attributes.length)).toEqual(
      new Map([
        [3, [4, 5]],
        [1, [12, 16]],
      ]),
    );
    for (const bad of ['0300 0100', '0000 0100', '0900 0100 00000000', 'ffff 0100 00000000']) {
      expect(() => netlinkAttributes(hex(bad), 0, hex(bad).length)).toThrow(SysError);
    }
  });

  it('a link: all fields', () => {
    expect(parseLink(linkMessage, 0, linkMessage.length)).toEqual({
      index: 2,
      name: 'tap0',
      mac: '52:54:00:12:34:56',
      mtu: 65520,
      flags: 0x11043,
      up: true,
      running: true,
      loopback: false,
      txQueueLen: 1000,
      kind: 'tun',
    });
    expect(() => parseLink(linkMessage, 0, 15)).toThrow('short ifinfomsg');
  });

  it('a link without Ethernet address: no MAC', () => {
    const tunnel = joined(LINK, hex('0800 0100 c0000201'));
    expect(parseLink(tunnel, 0, tunnel.length).mac).toBe('');
  });

  it('an address: the local one, not the peer; 32-bit flags have precedence over 8-bit ones', () => {
    expect(parseAddress(addressV4, 0, addressV4.length)).toEqual({
      family: 4,
      address: '10.0.2.100',
      prefixLen: 24,
      index: 2,
      scope: 0,
      flags: 0x280,
      peer: '10.0.2.3',
    });
    const v6 = hex('0a 40 80 fd 03000000 1400 0100 fe80 0000000000000000000000000001');
    expect(parseAddress(v6, 0, v6.length)).toMatchObject({ address: 'fe80::1', scope: 253, flags: 0x80 });
    expect(parseAddress(hex('1c 40 80 fd 03000000'), 0, 8)).toBeUndefined();
    expect(parseAddress(hex('02 18 80 00 02000000 0700 0200 0a0002'), 0, 15)).toBeUndefined();
    expect(() => parseAddress(addressV4, 0, 7)).toThrow('short ifaddrmsg');
  });

  it('a v4-mapped address of an interface: stays an IPv6 address', () => {
    const mapped = hex('0a 80 80 00 02000000  1400 0100 00000000 00000000 0000ffff c0000201');
    expect(parseAddress(mapped, 0, mapped.length)).toMatchObject({
      family: 6,
      address: '::ffff:192.0.2.1',
    });
  });

  it('routes: several hops, a table above 255, a gateway of the other family', () => {
    expect(parseRoute(routeMultipath, 0, routeMultipath.length)).toMatchObject({
      table: 1000,
      priority: 5,
      prefixLen: 16,
    });
    expect(parseRoute(routeMultipath, 0, routeMultipath.length)!.hops).toEqual([
      { oif: 2, weight: 2, gateway: '10.0.2.2' },
      { oif: 3, weight: 1, gateway: '10.0.3.2' },
    ]);
    expect(parseRoute(routeVia, 0, routeVia.length)).toEqual({
      family: 4,
      dst: '0.0.0.0',
      prefixLen: 0,
      gateway: 'fe80::1',
      oif: 2,
      table: k.RT_TABLE_MAIN,
      protocol: k.RTPROT_BOOT,
      scope: 0,
      type: k.RTN_UNICAST,
      flags: 0,
      priority: 0,
    });
  });

  it('a route copied to another interface: every hop uses it, other fields are kept', () => {
    const copyOf = (raw: Uint8Array) => {
      const message = routeCopyRequest(raw, 77).finish(1);
      expect(new DataView(message.buffer).getUint16(4, true)).toBe(k.RTM_NEWROUTE);
      return parseRoute(message, 16, message.length)!;
    };
    const original = parseRoute(routeMultipath, 0, routeMultipath.length)!;
    expect(copyOf(routeMultipath)).toEqual({
      ...original,
      hops: original.hops!.map((hop) => ({ ...hop, oif: 77 })),
    });
    // 10.9.0.0/16 via 10.0.2.2 dev 2 src 10.0.2.100, dead: tos 8, protocol static, with metrics
    const plain = hex(`
      02 10 00 08 fe 04 00 01 01000000
      0800 0100 0a090000 0800 0500 0a000202 0800 0400 02000000 0800 0700 0a000264
      0c00 0880 0800 0200 dc050000
    `);
    const copy = copyOf(plain);
    expect(copy).toMatchObject({ dst: '10.9.0.0', prefixLen: 16, gateway: '10.0.2.2', oif: 77, flags: 0 });
    expect(copy.prefSrc).toBeUndefined();
    const bytes = Buffer.from(routeCopyRequest(plain, 77).finish(1));
    expect(bytes[16 + 3]).toBe(8);
    expect(bytes.includes(Buffer.from('0c000880080002 00dc050000'.replaceAll(' ', ''), 'hex'))).toBe(true);
    expect(() => routeCopyRequest(plain.slice(0, 11), 77)).toThrow('short rtmsg');
  });

  it('cloned routes and other families: left out', () => {
    expect(parseRoute(hex('0a 80 00 00 fe 02 00 01 00020000'), 0, 12)).toBeUndefined();
    expect(parseRoute(hex('80 00 00 00 fe 02 00 01 00000000'), 0, 12)).toBeUndefined();
    expect(() => parseRoute(routeVia, 0, 11)).toThrow('short rtmsg');
  });

  it("an error with the kernel's text: whole and truncated", () => {
    const quoted = '14000000 1800 0506 01000000 00000000 00000000';
    const words = '0900 0100 6e6f706500 000000';
    const whole = hex(`eaffffff ${quoted} ${words}`);
    const message = { type: k.NLMSG_ERROR, flags: k.NLM_F_ACK_TLVS, sequence: 1, at: 0, endAt: whole.length };
    expect(parseError(whole, message)).toEqual({ errno: k.Errno.EINVAL, text: 'nope' });
    const capped = hex(`eaffffff 14000000 1800 0506 01000000 00000000 ${words}`);
    const flags = k.NLM_F_ACK_TLVS | k.NLM_F_CAPPED;
    expect(parseError(capped, { ...message, flags, endAt: capped.length })).toEqual({
      errno: k.Errno.EINVAL,
      text: 'nope',
    });
    expect(parseError(whole, { ...message, flags: 0 })).toEqual({ errno: k.Errno.EINVAL, text: undefined });
    expect(parseError(hex('00000000'), { ...message, endAt: 4 })).toEqual({ errno: 0, text: undefined });
    expect(() => parseError(whole, { ...message, endAt: 3 })).toThrow('short nlmsgerr');
  });

  it('malformed bytes: refused or parsed, never reads outside the message', () => {
    const vectors = [linkMessage, addressV4, routeMultipath, routeVia];
    const parsers = [parseLink, parseAddress, parseRoute];
    const change = fc.tuple(fc.nat(200), fc.nat(255));
    fc.assert(
      fc.property(
        fc.nat(3),
        fc.nat(2),
        fc.array(change, { maxLength: 4 }),
        fc.nat(200),
        (v, p, changes, cut) => {
          const bytes = vectors[v]!.slice();
          for (const [at, value] of changes) bytes[at % bytes.length] = value;
          // An exact copy: a read past its end is a RangeError of DataView, not a SysError.
          const short = bytes.slice(0, Math.min(cut, bytes.length));
          try {
            parsers[p]!(short, 0, short.length);
          } catch (error) {
            expect(error).toBeInstanceOf(SysError);
          }
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe('rtnetlink codec, writing', () => {
  it('pads attributes, counts nested ones, numbers the message', () => {
    const request = new NetlinkRequest(k.RTM_NEWLINK, k.NLM_F_REQUEST | k.NLM_F_ACK)
      .linkHeader(3, k.IFF_UP, k.IFF_UP)
      .text(k.IFLA_IFNAME, 'veth0')
      .nested(k.IFLA_LINKINFO, (info) => info.text(k.IFLA_INFO_KIND, 'veth'))
      .word(k.IFLA_MTU, 65520)
      .byte(8, 1);
    expect(Buffer.from(request.finish(0x01020304)).toString('hex')).toBe(
      Buffer.from(
        hex(`
          4c000000 1000 0500 04030201 00000000
          00 00 0000 03000000 01000000 01000000
          0a00 0300 766574683000 0000
          1000 1280 0900 0100 7665746800 000000
          0800 0400 f0ff0000
          0500 0800 01 000000
        `),
      ).toString('hex'),
    );
  });

  it('a message that grows too long: refused, not truncated', () => {
    const request = new NetlinkRequest(k.RTM_NEWLINK, 0);
    expect(() => request.bytes(1, new Uint8Array(1020))).toThrow(RangeError);
  });

  it('addresses of the requested family: encoded', () => {
    expect([...addressFor(4, '192.0.2.255')]).toEqual([192, 0, 2, 255]);
    expect([...addressFor(6, 'fe80::1')]).toEqual([0xfe, 0x80, ...new Array(13).fill(0), 1]);
    expect([...addressFor(6, '::ffff:192.0.2.1')].slice(9)).toEqual([0, 255, 255, 192, 0, 2, 1]);
    for (const bad of ['::1', '1.2.3', '256.1.1.1', 'localhost', '']) {
      expect(() => addressFor(4, bad)).toThrow(`"${bad}" is not an IPv4 address`);
    }
    for (const bad of ['1.2.3.4', '::g', 'fe80::1%eth0', '']) {
      expect(() => addressFor(6, bad)).toThrow(`"${bad}" is not an IPv6 address`);
    }
  });

  it('MAC addresses: encoded', () => {
    expect([...macFor('52:54:00:AB:cd:ef')]).toEqual([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
    for (const bad of ['', '52:54:00:12:34', '52:54:00:12:34:5g', '52-54-00-12-34-56']) {
      expect(() => macFor(bad)).toThrow('not a MAC address');
    }
  });
});

interface LinkReport {
  before: LinkInfo[];
  changesBefore: boolean;
  changes: boolean;
  changesAfter: boolean;
  link: LinkInfo;
  addresses: AddressInfo[];
  routes: RouteInfo[];
  errors: string[];
  /** Link-local addresses of a link that may have them, and of one that must not. */
  generated: number[];
  afterDelete: { addresses: string[]; routes: string[]; links: string[] };
}

describeNeeding('rtnetlink in a network namespace', namespaceNeeds, () => {
  it('configures a link: a dump returns the same values', () => {
    const report = runInNamespaces<LinkReport>('netlink-link.ts');
    expect(report.before.map(({ name, up, loopback }) => ({ name, up, loopback }))).toEqual([
      { name: 'lo', up: false, loopback: true },
    ]);
    expect([report.changesBefore, report.changes, report.changesAfter]).toEqual([false, true, false]);
    expect(report.link).toMatchObject({
      name: 'd0',
      mac: '52:54:00:12:34:56',
      mtu: 9000,
      up: true,
      txQueueLen: 4321,
      kind: 'veth',
    });
    expect(report.link.flags & k.IFF_NOARP).toBe(0);
    const index = report.link.index;
    expect(report.addresses).toContainEqual({
      family: 4,
      address: '10.0.2.100',
      prefixLen: 24,
      index,
      scope: k.RT_SCOPE_UNIVERSE,
      flags: k.IFA_F_PERMANENT,
    });
    const v6 = report.addresses.find(({ address }) => address === 'fd00::100')!;
    expect(v6).toMatchObject({ prefixLen: 64, index, flags: k.IFA_F_PERMANENT | k.IFA_F_NODAD });
    expect(report.generated).toEqual([1, 0]);

    const main = report.routes.filter(({ table }) => table === k.RT_TABLE_MAIN);
    expect(main).toContainEqual(
      expect.objectContaining({ dst: '0.0.0.0', prefixLen: 0, gateway: '10.0.2.2', oif: index }),
    );
    expect(main).toContainEqual(
      expect.objectContaining({ dst: '::', prefixLen: 0, gateway: 'fe80::2', oif: index }),
    );
    expect(main).toContainEqual(
      expect.objectContaining({
        dst: '10.9.0.0',
        scope: k.RT_SCOPE_LINK,
        prefSrc: '10.0.2.100',
        priority: 50,
      }),
    );
    expect(main).toContainEqual(expect.objectContaining({ dst: '10.11.0.0', gateway: '192.0.2.1' }));
    expect(report.routes).toContainEqual(
      expect.objectContaining({ table: 1000, dst: '10.10.0.0', gateway: 'fe80::9' }),
    );

    expect(report.errors[0]).toMatch(
      /^rtnetlink\(RTM_NEWROUTE, 10\.12\.0\.0\/16 via 7\.7\.7\.7.*ENETUNREACH/,
    );
    expect(report.errors[1]).toMatch(/ENODEV/);
    expect(report.errors[2]).toMatch(/EEXIST/);
    expect(report.errors[3]).toMatch(/nosuchkind.*EOPNOTSUPP .*the kernel says/);
    expect(report.errors[4]).toMatch(/"10\.0\.2\.100" is not an IPv6 address/);

    expect(report.afterDelete.addresses).not.toContain('10.0.2.100');
    expect(report.afterDelete.routes).not.toContain('10.9.0.0');
    expect(report.afterDelete.links).toEqual(['lo', 'loud', 'quiet']);
  });

  it('dumps of several datagrams: read whole', () => {
    const report = runInNamespaces<{ count: number; distinct: number; overrun: boolean }>('netlink-many.ts');
    expect(report.count).toBe(3000);
    expect(report.distinct).toBe(3000);
    expect(report.overrun).toBe(true);
  });

  it('a veth pair across namespaces: created, moved, deleted', () => {
    const report = runInNamespaces<Record<string, string[]>>('netlink-veth.ts');
    expect(report).toEqual({
      inside: ['here', 'lo'],
      outside: ['lo', 'there'],
      insideAfterMove: ['lo'],
      outsideAfterMove: ['here', 'lo', 'there'],
      outsideAfterDelete: ['lo'],
    });
  });
});

interface TapReport {
  plain: { name: string; vnetHdrBytes: number; tso: boolean; multiQueue: boolean };
  full: { name: string; vnetHdrBytes: number; tso: boolean; uso: boolean };
  queues: { name: string; multiQueue: boolean }[];
  attached: { vnetHdrBytes: number; tso: boolean };
  attachedPlain: { vnetHdrBytes: number; tso: boolean };
  kept: string[];
  numbered: string;
  frame: { bytes: number; etherType: number };
  written: number;
  cloexec: number;
  errors: string[];
}

describeNeeding('TAP in a network namespace', tapNeeds, () => {
  it('opened, attached, made persistent; a second open is refused', () => {
    const report = runInNamespaces<TapReport>('tap.ts');
    expect(report.full).toMatchObject({ name: 'full0', vnetHdrBytes: 12, tso: true });
    expect(typeof report.full.uso).toBe('boolean');
    expect(report.plain).toMatchObject({ name: 'plain0', vnetHdrBytes: 0, tso: false, multiQueue: false });
    expect(report.queues).toEqual([
      expect.objectContaining({ name: 'queues0', multiQueue: true }),
      expect.objectContaining({ name: 'queues0', multiQueue: true }),
    ]);
    expect(report.attached).toMatchObject({ vnetHdrBytes: 12, tso: true });
    expect(report.attachedPlain).toMatchObject({ vnetHdrBytes: 0, tso: false });
    expect(report.kept).toContain('kept0');
    expect(report.kept).not.toContain('plain0');
    expect(report.numbered).toBe('tap0');
    expect(report.cloexec).toBe(1);
    // An ARP request behind its virtio header: 12 + 42 bytes.
    expect(report.frame).toEqual({ bytes: 54, etherType: 0x0806 });
    expect(report.written).toBe(54);
    expect(report.errors[0]).toMatch(/^ioctl\(TUNSETIFF, "full0"\): EBUSY .*in use/);
    expect(report.errors[1]).toMatch(/TUNSETIFF, "sixteen-bytes-ab".*EINVAL.*1 to 15 bytes/);
    expect(report.errors[2]).toMatch(/^ioctl\(TUNGETIFF, fd \d+\): \w+ .*TUNSETIFF/);
    expect(report.errors[3]).toMatch(/TUNSETIFF, "lo".*EINVAL/);
  });
});
