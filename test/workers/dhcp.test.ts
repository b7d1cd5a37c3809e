// @vitest: beside
import { describe, expect, it } from 'vitest';
import { readU32 } from '../../src/proto/be.ts';
import { ipv4Text } from '../../src/proto/ipv4.ts';
import type { HostChange, TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { StageDrop } from '../../src/workers/link/stage-drop.ts';
import { ResolverChoice } from '../../src/workers/translator/resolvers.ts';
import { UdpTranslator } from '../../src/workers/translator/udp.ts';
import { ip4, readIp, readUdp, udpPacket } from '../support/packets.ts';
import { ShardRig, TEST_PLAN } from '../support/shard-rig.ts';

const MAC = [2, 0, 0, 0, 0, 1];
const XID = [0xde, 0xad, 0xbe, 0xef];

interface Ask {
  readonly options: readonly number[];
  readonly ciaddr?: string;
  readonly broadcast?: boolean;
  readonly src?: string;
  readonly dst?: string;
}

function message({ options, ciaddr = '0.0.0.0', broadcast = false }: Ask): number[] {
  return [
    ...[1, 1, 6, 0, ...XID, 0, 0, broadcast ? 0x80 : 0, 0], // BOOTREQUEST, Ethernet
    ...ip4(ciaddr),
    ...new Array<number>(12).fill(0), // yiaddr, siaddr, giaddr
    ...MAC,
    ...new Array<number>(10 + 64 + 128).fill(0),
    ...[0x63, 0x82, 0x53, 0x63, ...options, 255],
  ];
}

interface Reply {
  readonly dst: string;
  readonly yiaddr: string;
  readonly ciaddr: string;
  readonly options: Map<number, number[]>;
}

function ask(
  question: Ask,
  plan: TapEnginePlan = TEST_PLAN,
  change: HostChange = {},
): { rig: ShardRig; reply: Reply | null } {
  const rig = new ShardRig(plan);
  rig.ctx.addressing.hostChanged(change);
  const udp = new UdpTranslator(rig.ctx, new ResolverChoice(rig.plan.addresses));
  const { src = '0.0.0.0', dst = '255.255.255.255' } = question;
  udp.onPacket(rig.packet(udpPacket(src, 68, dst, 67, message(question))));
  expect(rig.missingSlots).toBe(0);
  const [sent] = rig.takeSent();
  if (sent === undefined) return { rig, reply: null };
  const ip = readIp(sent.bytes);
  const { srcPort, dstPort, payload } = readUdp(ip);
  expect({ srcPort, dstPort, src: ip.src, op: payload[0] }).toEqual({
    srcPort: 67,
    dstPort: 68,
    src: change.dhcpGateway ?? '10.0.2.2',
    op: 2,
  });
  expect(Array.from(payload.slice(4, 8))).toEqual(XID);
  expect(Array.from(payload.slice(28, 34))).toEqual(MAC);
  const options = new Map<number, number[]>();
  for (let i = 240; payload[i] !== 255; i += 2 + payload[i + 1]!) {
    options.set(payload[i]!, Array.from(payload.slice(i + 2, i + 2 + payload[i + 1]!)));
  }
  const text = (at: number): string => ipv4Text(readU32(payload, at));
  return { rig, reply: { dst: ip.dst, ciaddr: text(12), yiaddr: text(16), options } };
}

describe('DHCP server', () => {
  it('DISCOVER: OFFER of the plan address with mask, router, lease, MTU, resolver, search list', () => {
    const { reply } = ask({ options: [53, 1, 1, 55, 7, 1, 3, 6, 26, 51, 119, 15] });
    expect(reply).toMatchObject({ yiaddr: '10.0.2.15', dst: '10.0.2.15' });
    expect(reply!.options.get(53)).toEqual([2]);
    expect(reply!.options.get(1)).toEqual([255, 255, 255, 0]);
    expect(reply!.options.get(3)).toEqual(ip4('10.0.2.2'));
    expect(reply!.options.get(54)).toEqual(ip4('10.0.2.2'));
    expect(reply!.options.get(51)).toEqual([255, 255, 255, 255]);
    expect(reply!.options.get(26)).toEqual([1500 >> 8, 1500 & 255]);
    expect(reply!.options.get(6)).toEqual(ip4('10.0.2.3'));
    expect(reply!.options.get(119)!.length).toBeGreaterThan(0);
    expect(reply!.options.has(121)).toBe(false);
  });

  it('DISCOVER with the broadcast flag: OFFER to 255.255.255.255', () => {
    expect(ask({ options: [53, 1, 1], broadcast: true }).reply!.dst).toBe('255.255.255.255');
  });

  it('DISCOVER with rapid commit: ACK at once', () => {
    const { reply } = ask({ options: [53, 1, 1, 80, 0] });
    expect(reply!.options.get(53)).toEqual([5]);
    expect(reply!.options.get(80)).toEqual([]);
  });

  it('REQUEST for the offered address: ACK', () => {
    const { reply } = ask({ options: [53, 1, 3, 50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2] });
    expect(reply!.options.get(53)).toEqual([5]);
    expect(reply!.yiaddr).toBe('10.0.2.15');
  });

  it('renewal by unicast: ACK to the address in ciaddr', () => {
    const { reply } = ask({ options: [53, 1, 3], ciaddr: '10.0.2.15', src: '10.0.2.15', dst: '10.0.2.2' });
    expect(reply).toMatchObject({ dst: '10.0.2.15', ciaddr: '10.0.2.15', yiaddr: '10.0.2.15' });
  });

  it('REQUEST for another address: NAK by broadcast', () => {
    const { reply } = ask({ options: [53, 1, 3, 50, 4, 192, 168, 1, 7] });
    expect(reply).toMatchObject({ dst: '255.255.255.255', yiaddr: '0.0.0.0' });
    expect(reply!.options.get(53)).toEqual([6]);
    expect(reply!.options.has(51)).toBe(false);
  });

  it('REQUEST to another server, RELEASE, DECLINE: no answer', () => {
    expect(ask({ options: [53, 1, 3, 54, 4, 10, 0, 2, 99] }).reply).toBeNull();
    expect(ask({ options: [53, 1, 7] }).reply).toBeNull();
    expect(ask({ options: [53, 1, 4] }).reply).toBeNull();
  });

  it('INFORM: ACK with settings, without address and lease', () => {
    const { reply } = ask({ options: [53, 1, 8], ciaddr: '10.0.2.15', src: '10.0.2.15' });
    expect(reply!.options.get(53)).toEqual([5]);
    expect(reply!.yiaddr).toBe('0.0.0.0');
    expect(reply!.options.has(51)).toBe(false);
  });

  it('gateway outside the subnet: a route to the gateway and a default route through it', () => {
    const ipv4 = { ...TEST_PLAN.addresses.ipv4!, prefixLen: 32 };
    const plan = { ...TEST_PLAN, addresses: { ...TEST_PLAN.addresses, ipv4 } };
    const { reply } = ask({ options: [53, 1, 1] }, plan);
    expect(reply!.options.get(121)).toEqual([32, 10, 0, 2, 2, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
  });

  it('policy without resolvers and search list: not offered; a policy name: offered', () => {
    const policy = { ...TEST_PLAN.policy, dhcpDns: false, dhcpSearch: false, offerMtu: false };
    const bare = ask({ options: [53, 1, 1] }, { ...TEST_PLAN, policy }).reply!;
    expect([...bare.options.keys()].sort((a, b) => a - b)).toEqual([1, 3, 51, 53, 54]);
    const names = { ...policy, hostname: 'box', fqdn: 'box.example.org' };
    const asked = [53, 1, 1, 81, 3, 0, 0, 0];
    const named = ask({ options: asked }, { ...TEST_PLAN, policy: names }).reply!;
    expect(Buffer.from(named.options.get(12)!).toString()).toBe('box');
    expect(Buffer.from(named.options.get(81)!.slice(3)).toString()).toBe('box.example.org');
  });

  it('switched off: dropped and counted', () => {
    const plan = { ...TEST_PLAN, policy: { ...TEST_PLAN.policy, dhcp: false } };
    const { rig, reply } = ask({ options: [53, 1, 1] }, plan);
    expect(reply).toBeNull();
    expect(rig.drops(StageDrop.dhcp)).toBe(1);
  });

  it('off without a gateway, then a gateway is set: DISCOVER and renewal are answered with it', () => {
    const plan = { ...TEST_PLAN, policy: { ...TEST_PLAN.policy, dhcp: false } };
    const change = { dhcpGateway: '10.0.2.1' };
    const offer = ask({ options: [53, 1, 1] }, plan, change).reply;
    expect(offer?.options.get(53)).toEqual([2]);
    expect(offer?.options.get(3)).toEqual(ip4('10.0.2.1'));
    expect(offer?.options.get(54)).toEqual(ip4('10.0.2.1'));
    const renewal = { options: [53, 1, 3], ciaddr: offer!.yiaddr, src: offer!.yiaddr, dst: '10.0.2.1' };
    expect(ask(renewal, plan, change).reply?.options.get(53)).toEqual([5]);
  });
});
