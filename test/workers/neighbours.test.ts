// @vitest: beside
/** ARP and NDP: the addresses for which the engine answers. */
import { describe, expect, it } from 'vitest';
import { Drop } from '../../src/proto/drop.ts';
import { Counter } from '../../src/ring/counters.ts';
import type { ServicePolicy, TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { handleArp } from '../../src/workers/translator/arp.ts';
import { handleNdp, sendUnsolicitedRa } from '../../src/workers/translator/ndp.ts';
import { icmp6Packet, icmpChecksumOk, ip4, ip6, readIp, text6 } from '../support/packets.ts';
import { ShardRig, TEST_PLAN } from '../support/shard-rig.ts';

const OUR_MAC = [0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55];
const GUEST_MAC = [2, 0, 0, 0, 0, 1];

describe('ARP', () => {
  function ask(sender: string, target: string, op = 1, plan = TEST_PLAN): number[] | null {
    const rig = new ShardRig(plan);
    const at = rig.pool.slotAt(0) + 26;
    const request = [0, 1, 8, 0, 6, 4, 0, op, ...GUEST_MAC, ...ip4(sender), 0, 0, 0, 0, 0, 0, ...ip4(target)];
    rig.u8.set(request, at);
    handleArp(rig.ctx, at, request.length);
    const [sent] = rig.takeSent();
    return sent === undefined ? null : Array.from(sent.bytes);
  }

  it.each(['10.0.2.2', '10.0.2.99', '192.0.2.1', '169.254.1.2'])(
    'request for %s: answered with our MAC',
    (target) => {
      expect(ask('10.0.2.15', target)).toEqual([
        ...[0, 1, 8, 0, 6, 4, 0, 2], // Ethernet, IPv4, reply
        ...OUR_MAC,
        ...ip4(target),
        ...GUEST_MAC,
        ...ip4('10.0.2.15'),
      ]);
    },
  );

  it.each([
    ['its own address', '10.0.2.99', '10.0.2.15', 1],
    ['an announcement', '10.0.2.99', '10.0.2.99', 1],
    ['a probe for an address it wants', '0.0.0.0', '10.0.2.99', 1],
    ['a reply', '10.0.2.15', '10.0.2.2', 2],
    ['the broadcast address', '10.0.2.15', '255.255.255.255', 1],
    ['loopback', '10.0.2.15', '127.0.0.1', 1],
  ])('request about %s: no answer', (_what, sender, target, op) => {
    expect(ask(sender, target, op)).toBeNull();
  });

  it.each([
    ['10.0.2.2', true],
    ['10.0.2.3', true],
    ['10.0.2.4', true],
    ['10.0.2.99', false],
    ['192.0.2.1', false],
  ])("policy 'ours', %s: answered %s", (target, isAnswered) => {
    const plan: TapEnginePlan = { ...TEST_PLAN, policy: { ...TEST_PLAN.policy, arp: 'ours' } };
    expect(ask('10.0.2.15', target, 1, plan) !== null).toBe(isAnswered);
  });

  it('a probe for an address of ours: answered', () => {
    expect(ask('0.0.0.0', '10.0.2.2')).not.toBeNull();
  });

  it('cut short: dropped with its cause', () => {
    const rig = new ShardRig();
    handleArp(rig.ctx, rig.pool.slotAt(0), 27);
    expect(rig.drops(Drop.short)).toBe(1);
  });
});

describe('neighbour solicitation', () => {
  function solicit(src: string, target: string, hopLimit = 255, plan = TEST_PLAN): ShardRig {
    const rig = new ShardRig(plan);
    const message = [135, 0, 0, 0, 0, 0, 0, 0, ...ip6(target), 1, 1, ...GUEST_MAC];
    handleNdp(rig.ctx, rig.packet(icmp6Packet(src, 'ff02::1:ff00:1', message, hopLimit)));
    return rig;
  }

  it.each(['fe80::2', 'fd00::2', 'fd00::77', '2001:db8::1'])('for %s: advertised with our MAC', (target) => {
    const [sent] = solicit('fd00::15', target).takeSent();
    const ip = readIp(sent!.bytes);
    expect(ip).toMatchObject({ dst: 'fd00::15', src: target, protocol: 58, ttl: 255 });
    expect(icmpChecksumOk(ip)).toBe(true);
    expect(Array.from(ip.upper.slice(4))).toEqual([0xe0, 0, 0, 0, ...ip6(target), 2, 1, ...OUR_MAC]);
    expect(ip.upper[0]).toBe(136);
  });

  it("for the guest's own address, or duplicate address detection: no answer", () => {
    expect(solicit('fe80::15', 'fd00::15').takeSent()).toEqual([]);
    expect(solicit('::', 'fd00::99').takeSent()).toEqual([]);
    expect(solicit('::', 'fe80::15').takeSent()).toEqual([]);
  });

  it('duplicate address detection for an address of ours: unsolicited advertisement to all nodes', () => {
    const ip = readIp(solicit('::', 'fd00::2').takeSent()[0]!.bytes);
    expect(ip.dst).toBe('ff02::1');
    expect(ip.upper[4]).toBe(0xa0);
  });

  it.each([
    ['fe80::2', true],
    ['fd00::2', true],
    ['fd00::4', true],
    ['fd00::77', false],
    ['2001:db8::1', false],
  ])("policy 'ours', %s: answered %s", (target, isAnswered) => {
    const plan: TapEnginePlan = { ...TEST_PLAN, policy: { ...TEST_PLAN.policy, arp: 'ours' } };
    expect(solicit('fd00::15', target, 255, plan).takeSent().length).toBe(isAnswered ? 1 : 0);
  });

  it('switched off: no answer, no advertisement', () => {
    const plan = { ...TEST_PLAN, policy: { ...TEST_PLAN.policy, ndp: false } };
    const rig = solicit('fd00::15', 'fd00::2', 255, plan);
    handleNdp(rig.ctx, rig.packet(icmp6Packet('fe80::15', 'ff02::2', [133, 0, 0, 0, 0, 0, 0, 0])));
    sendUnsolicitedRa(rig.ctx);
    expect(rig.takeSent()).toEqual([]);
    expect(rig.counter(Counter.discoveryUnanswered)).toBe(2);
  });

  it('from beyond the link (hop limit below 255): dropped', () => {
    const rig = solicit('fd00::15', 'fd00::2', 254);
    expect(rig.takeSent()).toEqual([]);
    expect(rig.drops(Drop.ndpHopLimit)).toBe(1);
  });
});

describe('router advertisement', () => {
  const solicitation = [133, 0, 0, 0, 0, 0, 0, 0];

  it('a solicitation: answered with autonomous prefix, MTU, resolvers, search list, M flag for DHCPv6', () => {
    const rig = new ShardRig();
    handleNdp(rig.ctx, rig.packet(icmp6Packet('fe80::15', 'ff02::2', solicitation)));
    const ip = readIp(rig.takeSent()[0]!.bytes);
    expect(ip).toMatchObject({ src: 'fe80::2', dst: 'fe80::15', ttl: 255 });
    expect(icmpChecksumOk(ip)).toBe(true);
    const m = ip.upper;
    expect(Array.from(m.slice(0, 2))).toEqual([134, 0]);
    expect(Array.from(m.slice(4, 8))).toEqual([64, 0x80, 0xff, 0xff]);
    const options = new Map<number, Uint8Array>();
    for (let i = 16; i < m.length; i += m[i + 1]! * 8) options.set(m[i]!, m.slice(i, i + m[i + 1]! * 8));
    expect([...options.keys()].sort((a, b) => a - b)).toEqual([1, 3, 5, 25, 31]);
    expect(Array.from(options.get(1)!.slice(2))).toEqual(OUR_MAC);
    const prefix = options.get(3)!;
    expect(Array.from(prefix.slice(2, 4))).toEqual([64, 0xc0]);
    expect(text6(prefix.slice(16))).toBe('fd00::');
    expect(Array.from(options.get(5)!.slice(4))).toEqual([0, 0, 1500 >> 8, 1500 & 255]);
    expect(text6(options.get(25)!.slice(8))).toBe('fd00::3');
    expect(Buffer.from(options.get(31)!).toString('latin1')).toContain('example');
  });

  const advertised = (policy: Partial<ServicePolicy>, guest = 'fd00::15'): Uint8Array => {
    const ipv6 = { ...TEST_PLAN.addresses.ipv6!, guest };
    const rig = new ShardRig({
      ...TEST_PLAN,
      addresses: { ...TEST_PLAN.addresses, ipv6 },
      policy: { ...TEST_PLAN.policy, ...policy },
    });
    sendUnsolicitedRa(rig.ctx);
    return readIp(rig.takeSent()[0]!.bytes).upper;
  };
  const optionsOf = (m: Uint8Array): number[] => {
    const types: number[] = [];
    for (let i = 16; i < m.length; i += m[i + 1]! * 8) types.push(m[i]!);
    return types;
  };

  it('policy without DHCPv6: no M flag; without resolver: no search list', () => {
    expect(advertised({ dhcpv6: false })[5]).toBe(0);
    expect(optionsOf(advertised({ dhcpSearch: false }))).toEqual([1, 5, 3, 25]);
    expect(optionsOf(advertised({ dhcpDns: false }))).toEqual([1, 5, 3]);
    expect(optionsOf(advertised({ dhcpDns: false, offerMtu: false }))).toEqual([1, 3]);
  });

  it('no guest address planned: neither prefix nor M flag', () => {
    const message = advertised({ dhcpDns: false }, '::');
    expect([message[5], optionsOf(message)]).toEqual([0, [1, 5]]);
  });

  it('unsolicited: sent to all nodes; policy off: not sent', () => {
    const rig = new ShardRig();
    sendUnsolicitedRa(rig.ctx);
    expect(readIp(rig.takeSent()[0]!.bytes).dst).toBe('ff02::1');
    const silent = new ShardRig({ ...TEST_PLAN, policy: { ...TEST_PLAN.policy, ra: false } });
    sendUnsolicitedRa(silent.ctx);
    handleNdp(silent.ctx, silent.packet(icmp6Packet('::', 'ff02::2', solicitation)));
    expect(silent.takeSent()).toEqual([]);
  });
});
