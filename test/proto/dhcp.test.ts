// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  DHCP_CLIENT_MAC,
  DHCP_MIN_BYTES,
  DhcpMessage,
  DhcpOption,
  type DhcpReply,
  dhcpCheck,
  dhcpCiaddr,
  dhcpGiaddr,
  dhcpHostname,
  dhcpMessageType,
  dhcpOptionAt,
  dhcpParameterList,
  dhcpRapidCommit,
  dhcpReplyWrite,
  dhcpRequestedIp,
  dhcpServerId,
  dhcpWantsBroadcast,
  dhcpXid,
  dhcpYiaddr,
} from '../../src/proto/dhcp.ts';
import { Drop } from '../../src/proto/drop.ts';
import { FRAME_AT as AT, poolWith, readsOnlyItsFrame, slice, u32, wire } from './vector.ts';

const request = (options: string, flags = '80 00'): Uint8Array =>
  wire(`
    01 01 06 00            // op: request, Ethernet, 6 bytes, hops
    3d 1d 00 2a            // xid
    00 05 ${flags}         // secs, flags: broadcast
    00 00 00 00            // ciaddr
    00 00 00 00            // yiaddr
    00 00 00 00            // siaddr
    00 00 00 00            // giaddr
    02 00 5e 10 00 01      // chaddr
    ${'00'.repeat(10)}     // rest of chaddr
    ${'00'.repeat(64)}     // sname
    ${'00'.repeat(128)}    // file
    63 82 53 63            // magic
    ${options}
  `);

const discover = request(`
  35 01 01                 // message type: DISCOVER
  0c 05 61 6c 70 68 61     // host name "alpha"
  37 04 01 03 06 1a        // parameter list: mask, router, DNS, MTU
  ff                       // end
`);
const renew = request(`
  00 00                    // pads
  35 01 03                 // message type: REQUEST
  36 04 0a 00 02 02        // server 10.0.2.2
  32 04 0a 00 02 0f        // requested 10.0.2.15
  50 00                    // rapid commit
  ff 00 00 00
`);

function read(pool: Uint8Array, at: number, bytes: number): unknown {
  const result = dhcpCheck(pool, at, bytes);
  if (result < 0) return result;
  return [
    dhcpXid(pool, at),
    dhcpWantsBroadcast(pool, at),
    dhcpCiaddr(pool, at),
    dhcpGiaddr(pool, at),
    dhcpMessageType(pool, at, bytes),
    dhcpRequestedIp(pool, at, bytes),
    dhcpServerId(pool, at, bytes),
    dhcpRapidCommit(pool, at, bytes),
    dhcpParameterList(pool, at, bytes),
    dhcpHostname(pool, at, bytes),
  ];
}

describe('reading a request', () => {
  it('DISCOVER: all fields', () => {
    expect(read(poolWith(discover), AT, discover.length)).toEqual([
      0x3d1d002a,
      true,
      0,
      0,
      DhcpMessage.discover,
      0,
      0,
      false,
      [1, 3, 6, 26],
      'alpha',
    ]);
  });

  it('REQUEST with server, address and rapid commit: all fields', () => {
    expect(read(poolWith(renew), AT, renew.length)).toEqual([
      0x3d1d002a,
      true,
      0,
      0,
      DhcpMessage.request,
      0x0a00020f,
      0x0a000202,
      true,
      [],
      '',
    ]);
  });

  it('plain BOOTP: message type 0', () => {
    const bootp = request('00 00 00 00', '00 00');
    expect(read(poolWith(bootp), AT, bootp.length)).toEqual([
      0x3d1d002a,
      false,
      0,
      0,
      0,
      0,
      0,
      false,
      [],
      '',
    ]);
  });

  it.each<[string, (p: Uint8Array) => void, number, number]>([
    ['239 bytes', () => {}, 239, Drop.short],
    ['a reply', (p) => (p[0] = 2), discover.length, Drop.dhcpOp],
    ['another hardware', (p) => (p[1] = 6), discover.length, Drop.dhcpHardware],
    ['8-byte addresses', (p) => (p[2] = 8), discover.length, Drop.dhcpHardware],
    ['no magic', (p) => (p[239] = 0), discover.length, Drop.dhcpMagic],
    ['an option past the end', (p) => (p[244] = 200), discover.length, Drop.dhcpOption],
    ['an option without a length', () => {}, 241, Drop.dhcpOption],
  ])('drops %s', (_name, spoil, bytes, drop) => {
    const spoilt = Uint8Array.from(discover);
    spoil(spoilt);
    expect(dhcpCheck(poolWith(spoilt), AT, bytes)).toBe(drop);
  });

  it('no end option: accepted', () => {
    expect(dhcpCheck(poolWith(discover), AT, discover.length - 1)).toBe(0);
  });

  it('options of the wrong length: count as absent', () => {
    const odd = request('35 02 01 01 32 03 0a 00 02 36 05 0a 00 02 02 01 ff');
    const pool = poolWith(odd);
    expect(dhcpMessageType(pool, AT, odd.length)).toBe(DhcpMessage.none);
    expect(dhcpRequestedIp(pool, AT, odd.length)).toBe(0);
    expect(dhcpServerId(pool, AT, odd.length)).toBe(0);
  });

  it('host name: only printable; a trailing NUL is dropped', () => {
    const odd = request('0c 06 61 1b 62 00 c3 00 ff');
    expect(dhcpHostname(poolWith(odd), AT, odd.length)).toBe('a?b??');
  });

  it('never reads outside its frame', () => {
    readsOnlyItsFrame([discover, renew], read);
  });
});

describe('dhcpReplyWrite', () => {
  const REPLY_AT = 700;
  const reply = (to: Uint8Array, what: DhcpReply): { pool: Uint8Array; bytes: number } => {
    const pool = new Uint8Array(1400).fill(0xa5);
    pool.set(to, AT);
    const bytes = dhcpReplyWrite(pool, REPLY_AT, AT, to.length, what);
    expect(pool[REPLY_AT - 1]).toBe(0xa5);
    expect(bytes).toBeGreaterThanOrEqual(300);
    expect(bytes).toBeLessThanOrEqual(548);
    expect(Array.from(pool.subarray(REPLY_AT + 548))).toEqual(new Array(1400 - REPLY_AT - 548).fill(0xa5));
    expect(slice(pool, AT, to.length)).toEqual(to);
    return { pool, bytes };
  };
  const option = ({ pool, bytes }: { pool: Uint8Array; bytes: number }, code: number): Uint8Array | null => {
    const at = dhcpOptionAt(pool, REPLY_AT, bytes, code);
    return at === 0 ? null : slice(pool, REPLY_AT + at + 2, pool[REPLY_AT + at + 1]!);
  };
  const offer: DhcpReply = {
    messageType: DhcpMessage.offer,
    yiaddr: 0x0a00020f,
    serverId: 0x0a000202,
    subnetMask: 0xffffff00,
    router: 0x0a000202,
    leaseTimeS: 0xffffffff,
    mtu: 65520,
    dns: [0x0a000203],
  };

  it('OFFER: options in order: message type, those of the request in its order, the rest', () => {
    const { pool, bytes } = reply(discover, offer);
    expect(bytes).toBe(300);
    const expected = wire(`
      02 01 06 00            // op: reply
      3d 1d 00 2a            // xid
      00 00 80 00            // secs, flags as sent
      00 00 00 00            // ciaddr
      0a 00 02 0f            // yiaddr 10.0.2.15
      00 00 00 00            // siaddr
      00 00 00 00            // giaddr
      02 00 5e 10 00 01      // chaddr
      ${'00'.repeat(10 + 64 + 128)}
      63 82 53 63            // magic
      35 01 02               // OFFER
      01 04 ff ff ff 00      // mask
      03 04 0a 00 02 02      // router
      06 04 0a 00 02 03      // DNS
      1a 02 ff f0            // MTU 65520
      36 04 0a 00 02 02      // server
      33 04 ff ff ff ff      // lease time: for ever
      ff
    `);
    const padded = new Uint8Array(300);
    padded.set(expected);
    expect(slice(pool, REPLY_AT, bytes)).toEqual(padded);
  });

  it('NAK: no further options', () => {
    const answer = reply(renew, { messageType: DhcpMessage.nak, yiaddr: 0, serverId: 0x0a000202 });
    const options = slice(answer.pool, REPLY_AT + DHCP_MIN_BYTES, 10);
    expect(options).toEqual(wire('35 01 06 36 04 0a 00 02 02 ff'));
    expect(dhcpYiaddr(answer.pool, REPLY_AT)).toBe(0);
  });

  it('ACK copies ciaddr, OFFER does not', () => {
    const renewing = Uint8Array.from(renew);
    renewing.set(wire('0a 00 02 0f'), 12);
    const ack = reply(renewing, { ...offer, messageType: DhcpMessage.ack });
    expect(dhcpCiaddr(ack.pool, REPLY_AT)).toBe(0x0a00020f);
    expect(dhcpCiaddr(reply(renewing, offer).pool, REPLY_AT)).toBe(0);
  });

  it('plain BOOTP: neither message type nor lease in the reply', () => {
    const answer = reply(request('00'), { ...offer, messageType: DhcpMessage.none });
    expect(
      [DhcpOption.messageType, DhcpOption.serverId, DhcpOption.leaseTime].map((code) => option(answer, code)),
    ).toEqual([null, null, null]);
    expect(option(answer, DhcpOption.subnetMask)).toEqual(wire('ff ff ff 00'));
  });

  it('classless routes: before the router option, with significant bytes only', () => {
    const answer = reply(request('35 01 01 ff'), {
      ...offer,
      routes: [
        { dst: 0xc0000201, prefixLen: 32, via: 0 },
        { dst: 0, prefixLen: 0, via: 0xc0000201 },
        { dst: 0x0a000000, prefixLen: 9, via: 1 },
      ],
    });
    expect(option(answer, DhcpOption.classlessRoutes)).toEqual(
      wire(`
        20 c0 00 02 01 00 00 00 00    // 192.0.2.1/32 on-link
        00 c0 00 02 01                // default via 192.0.2.1
        09 0a 00 00 00 00 01          // 10.0.0.0/9 via 0.0.0.1
      `),
    );
    const at = (code: number): number => dhcpOptionAt(answer.pool, REPLY_AT, answer.bytes, code);
    expect(at(DhcpOption.classlessRoutes)).toBeLessThan(at(DhcpOption.router));
  });

  it('search list, domain and host name: encoded; malformed names are left out', () => {
    const answer = reply(discover, {
      ...offer,
      search: ['example.org', 'not a name', 'b.'],
      domainName: 'example.org',
      hostname: 'alpha',
    });
    expect(option(answer, DhcpOption.searchList)).toEqual(
      wire('07 65 78 61 6d 70 6c 65 03 6f 72 67 00 01 62 00'),
    );
    expect(option(answer, DhcpOption.domainName)).toEqual(wire('65 78 61 6d 70 6c 65 2e 6f 72 67'));
    expect(option(answer, DhcpOption.hostname)).toEqual(wire('61 6c 70 68 61'));
  });

  it('empty lists: no option', () => {
    const answer = reply(discover, { ...offer, dns: [], search: [], hostname: '', rapidCommit: true });
    expect([6, 119, 12].map((code) => option(answer, code))).toEqual([null, null, null]);
    expect(option(answer, DhcpOption.rapidCommit)).toEqual(new Uint8Array(0));
  });

  it.each<[string, string, string]>([
    ['the wire form for E, S turned down', '51 03 05 00 00', '0e ff ff 01 61 01 62 00'],
    ['ASCII without E', '51 03 00 00 00', '08 ff ff 61 2e 62'],
  ])('FQDN in answer to the client: %s', (_name, sent, answered) => {
    const answer = reply(request(`35 01 01 ${sent} ff`), { ...offer, fqdn: 'a.b' });
    expect(option(answer, DhcpOption.fqdn)).toEqual(wire(answered));
    expect(option(reply(discover, { ...offer, fqdn: 'a.b' }), DhcpOption.fqdn)).toBeNull();
  });

  it('an option does not fit: left out, later ones that fit are written', () => {
    const answer = reply(discover, {
      ...offer,
      hostname: 'h'.repeat(250),
      domainName: 'd'.repeat(255),
      search: ['s.example'],
    });
    expect(option(answer, DhcpOption.hostname)?.length).toBe(250);
    expect(option(answer, DhcpOption.domainName)).toBeNull();
    expect(option(answer, DhcpOption.searchList)).not.toBeNull();
  });

  it('options fill 548 bytes with the end option; one byte more: left out', () => {
    // A lone host name of 300 - N bytes behind one of fixed size: 240 + 6 (server) + 3 (type) + texts + 1 is
    // 548.
    const fill = (hostnameBytes: number) =>
      reply(request('35 01 01 ff'), {
        ...{ messageType: DhcpMessage.offer, yiaddr: 1, serverId: 1 },
        hostname: 'h'.repeat(hostnameBytes),
        domainName: 'd'.repeat(200),
      });
    const hostnameBytes = 548 - DHCP_MIN_BYTES - 3 - 6 - (2 + 200) - 2 - 1;
    const full = fill(hostnameBytes);
    expect(full.bytes).toBe(548);
    expect(full.pool[REPLY_AT + 547]).toBe(DhcpOption.end);
    expect(option(full, DhcpOption.hostname)?.length).toBe(hostnameBytes);
    expect(option(full, DhcpOption.domainName)?.length).toBe(200);
    expect(option(fill(hostnameBytes + 1), DhcpOption.domainName)).toBeNull();
  });

  it("any request: the reply is well-formed and copies the client's identification", () => {
    let overrun = 0;
    fc.assert(
      fc.property(
        u32,
        fc.uint8Array({ maxLength: 40 }),
        fc.array(fc.domain(), { maxLength: 8 }),
        fc.array(u32, { maxLength: 70 }),
        (xid, list, search, dns) => {
          const hex = Array.from(list, (byte) => byte.toString(16).padStart(2, '0')).join('');
          const asked = request(`35 01 01 37 ${list.length.toString(16).padStart(2, '0')} ${hex} ff`);
          new DataView(asked.buffer).setUint32(4, xid);
          const answer = reply(asked, { ...offer, search, dns });
          if (option(answer, DhcpOption.dns) === null && dns.length > 0) overrun++;
          expect(answer.bytes).toBeLessThanOrEqual(548);
          expect(slice(answer.pool, REPLY_AT, answer.bytes)).toContain(DhcpOption.end);
          expect(dhcpXid(answer.pool, REPLY_AT)).toBe(xid);
          expect(slice(answer.pool, REPLY_AT + DHCP_CLIENT_MAC, 16)).toEqual(asked.slice(28, 44));
          expect(dhcpMessageType(answer.pool, REPLY_AT, answer.bytes)).toBe(DhcpMessage.offer);
          expect(option(answer, DhcpOption.serverId)).toEqual(wire('0a 00 02 02'));
          answer.pool[REPLY_AT] = 1; // only requests pass the check
          expect(dhcpCheck(answer.pool, REPLY_AT, answer.bytes)).toBe(0);
        },
      ),
    );
    expect(overrun).toBeGreaterThan(0); // options did not fit
  });
});
