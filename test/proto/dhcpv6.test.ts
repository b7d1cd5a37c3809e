// @vitest: beside
import { describe, expect, it } from 'vitest';
import {
  Dhcpv6Message,
  Dhcpv6Option,
  type Dhcpv6Reply,
  dhcpv6Check,
  dhcpv6IaAddressAt,
  dhcpv6Iaid,
  dhcpv6IsOurs,
  dhcpv6OptionAt,
  dhcpv6OptionBytes,
  dhcpv6ReplyWrite,
  dhcpv6Type,
  dhcpv6Wants,
} from '../../src/proto/dhcpv6.ts';
import { Drop } from '../../src/proto/drop.ts';
import { FRAME_AT as AT, poolWith, readsOnlyItsFrame, slice, wire } from './vector.ts';

const MAC = Uint8Array.of(0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55);

const SOLICIT = wire(`
  01 a1 b2 c3                          // SOLICIT, transaction
  00 01 00 0a                          // client id, 10 bytes
    00 03 00 01 02 00 00 00 00 01      //   DUID-LL, Ethernet
  00 03 00 28 11 22 33 44              // IA_NA, 40 bytes, iaid
    00 00 00 00 00 00 00 00            //   T1, T2
    00 05 00 18                        //   IAADDR, 24 bytes
      fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 77
      00 00 00 00 00 00 00 00          //   lifetimes
  00 06 00 02 00 17                    // option request: DNS
  00 27 00 03 01 01 61                 // FQDN: S, "a" (partial)
`);

const read = (pool: Uint8Array, at: number, bytes: number): unknown => {
  const checked = dhcpv6Check(pool, at, bytes);
  if (checked < 0) return checked;
  const ia = dhcpv6OptionAt(pool, at, bytes, Dhcpv6Option.iaNa);
  const address = ia === 0 ? 0 : dhcpv6IaAddressAt(pool, at, ia);
  const server = dhcpv6OptionAt(pool, at, bytes, Dhcpv6Option.serverId);
  return [
    dhcpv6Type(pool, at),
    ia === 0 ? 0 : dhcpv6Iaid(pool, at, ia),
    address,
    address === 0 ? 0 : dhcpv6IaAddressAt(pool, at, ia, address),
    dhcpv6Wants(pool, at, bytes, Dhcpv6Option.dns),
    server !== 0 && dhcpv6IsOurs(pool, at, server, MAC),
  ];
};

describe('client messages', () => {
  it('SOLICIT: every field', () => {
    const pool = poolWith(SOLICIT);
    const bytes = SOLICIT.length;
    expect(dhcpv6Check(pool, AT, bytes)).toBe(0);
    expect(dhcpv6Type(pool, AT)).toBe(Dhcpv6Message.solicit);
    expect(dhcpv6OptionAt(pool, AT, bytes, Dhcpv6Option.clientId)).toBe(4);
    const ia = dhcpv6OptionAt(pool, AT, bytes, Dhcpv6Option.iaNa);
    expect([ia, dhcpv6OptionBytes(pool, AT, ia), dhcpv6Iaid(pool, AT, ia)]).toEqual([18, 40, 0x11223344]);
    expect(dhcpv6IaAddressAt(pool, AT, ia)).toBe(34);
    expect(dhcpv6IaAddressAt(pool, AT, ia, 34)).toBe(0);
    expect(dhcpv6Wants(pool, AT, bytes, Dhcpv6Option.dns)).toBe(true);
    expect(dhcpv6Wants(pool, AT, bytes, Dhcpv6Option.domainList)).toBe(false);
    expect(dhcpv6OptionAt(pool, AT, bytes, Dhcpv6Option.serverId)).toBe(0);
  });

  it('no option request: all options count as requested', () => {
    const pool = poolWith(SOLICIT.subarray(0, 4));
    expect(dhcpv6Wants(pool, AT, 4, Dhcpv6Option.dns)).toBe(true);
  });

  it.each([
    ['three bytes', '01 00 00', Drop.short],
    ['a type of no client', '0c 00 00 00', Drop.dhcpv6Type],
    ['type 0', '00 00 00 00', Drop.dhcpv6Type],
    ['half an option header', '01 00 00 00 00 01', Drop.dhcpv6Option],
    ['an option past the end', '01 00 00 00 00 08 00 03 00 00', Drop.dhcpv6Option],
    ['a DUID of one byte', '01 00 00 00 00 01 00 01 00', Drop.dhcpv6Option],
    ['an IA_NA without T1', '01 00 00 00 00 03 00 04 00 00 00 01', Drop.dhcpv6Option],
    ['an odd option request', '01 00 00 00 00 06 00 01 00', Drop.dhcpv6Option],
  ])('%s: refused', (_what, text, drop) => {
    const frame = wire(text);
    expect(dhcpv6Check(poolWith(frame), AT, frame.length)).toBe(drop);
  });

  it('IA_NA with an inner option beyond its end: no address', () => {
    const frame = Uint8Array.from(SOLICIT);
    frame[37] = 0x20; // IAADDR says 32 bytes, the IA_NA has 24 left
    const pool = poolWith(frame);
    expect(dhcpv6Check(pool, AT, frame.length)).toBe(0);
    expect(dhcpv6IaAddressAt(pool, AT, 18)).toBe(0);
  });

  it('any bytes: never reads outside the message', () => {
    readsOnlyItsFrame([SOLICIT], read);
  });
});

describe('replies', () => {
  const write = (reply: Partial<Dhcpv6Reply>, limitBytes?: number): Uint8Array => {
    const pool = poolWith(SOLICIT);
    const at = AT + 300;
    const whole = { type: Dhcpv6Message.reply, mac: MAC, associations: [], ...reply };
    const bytes = dhcpv6ReplyWrite(pool, at, AT, SOLICIT.length, whole, limitBytes);
    return slice(pool, at, bytes);
  };
  const IDS = `
    00 02 00 0a 00 03 00 01 9a 55 9a 55 9a 55   // server: DUID-LL of our MAC
    00 01 00 0a 00 03 00 01 02 00 00 00 00 01   // client id, as it came
  `;

  it('room for the header or one option only: nothing is written beyond it', () => {
    for (let limitBytes = 4; limitBytes < 60; limitBytes++) {
      const pool = poolWith(SOLICIT);
      const before = Uint8Array.from(pool);
      const at = AT + 300;
      const whole = { type: Dhcpv6Message.reply, mac: MAC, associations: [], status: 2, rapidCommit: true };
      const bytes = dhcpv6ReplyWrite(pool, at, AT, SOLICIT.length, whole, limitBytes);
      expect(bytes).toBeLessThanOrEqual(limitBytes);
      expect(pool.subarray(0, at)).toEqual(before.subarray(0, at));
      expect(pool.subarray(at + bytes)).toEqual(before.subarray(at + bytes));
    }
  });

  it('ADVERTISE: address with infinite lifetime, resolvers, search list, name', () => {
    const address = Uint32Array.of(0xfd000000, 0, 0, 0x15);
    const bytes = write({
      type: Dhcpv6Message.advertise,
      associations: [{ iaid: 0x11223344, address }],
      dns: Uint32Array.of(0xfd000000, 0, 0, 3),
      search: ['b.org', 'not a name'],
      fqdn: 'c.b.org',
    });
    expect(bytes).toEqual(
      wire(`
        02 a1 b2 c3 ${IDS}
        00 03 00 28 11 22 33 44 ff ff ff ff ff ff ff ff
          00 05 00 18 fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 15 ff ff ff ff ff ff ff ff
        00 17 00 10 fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 03
        00 18 00 07 01 62 03 6f 72 67 00
        00 27 00 0a 06                              // N; O, as the client asked us to update DNS
          01 63 01 62 03 6f 72 67 00
      `),
    );
  });

  it('REPLY with status, withdrawn address and rapid commit: encoded', () => {
    const withdrawn = Uint32Array.of(0xfd000000, 0, 0, 0x77);
    const bytes = write({
      associations: [
        { iaid: 1, withdrawn },
        { iaid: 2, status: 2 },
      ],
      status: 0,
      rapidCommit: true,
    });
    expect(bytes).toEqual(
      wire(`
        07 a1 b2 c3 ${IDS}
        00 0d 00 02 00 00
        00 0e 00 00
        00 03 00 28 00 00 00 01 ff ff ff ff ff ff ff ff
          00 05 00 18 fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 77 00 00 00 00 00 00 00 00
        00 03 00 12 00 00 00 02 ff ff ff ff ff ff ff ff 00 0d 00 02 00 02
      `),
    );
  });

  it('an option does not fit: left out whole', () => {
    const search = Array.from({ length: 40 }, (_, i) => `domain-${i}.example.org`);
    const bytes = write({ search, dns: Uint32Array.of(0xfd000000, 0, 0, 3) }, 100);
    expect(bytes.length).toBe(4 + 14 + 14 + 20);
  });

  it('server id: ours is recognised, no other', () => {
    const ours = write({});
    const pool = poolWith(ours);
    const option = dhcpv6OptionAt(pool, AT, ours.length, Dhcpv6Option.serverId);
    expect(dhcpv6IsOurs(pool, AT, option, MAC)).toBe(true);
    expect(dhcpv6IsOurs(pool, AT, option, Uint8Array.of(2, 0, 0, 0, 0, 1))).toBe(false);
  });
});
