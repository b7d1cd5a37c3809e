// @vitest: beside
import { describe, expect, it } from 'vitest';
import { joinPolicy, parsePolicyText } from '../../src/main/cli/policy-text.ts';
import { Counter, DROP_BASE } from '../../src/ring/counters.ts';
import { HEADROOM_BYTES } from '../../src/ring/pool.ts';
import type { EgressPlan } from '../../src/workers/engine-plan.ts';
import { EGRESS_NAMES_BYTES } from '../../src/workers/flow/egress-names.ts';
import { compileEgress } from '../../src/workers/flow/egress-policy.ts';
import { StageDrop } from '../../src/workers/link/stage-drop.ts';
import { ToHost } from '../../src/workers/link/to-host.ts';
import { groupDatagramWrite } from '../../src/workers/link/to-shard.ts';
import { GroupMembership } from '../../src/workers/translator/groups.ts';
import { PingTranslator } from '../../src/workers/translator/icmp-echo.ts';
import { ResolverChoice } from '../../src/workers/translator/resolvers.ts';
import { TcpTranslator } from '../../src/workers/translator/tcp.ts';
import { UdpTranslator } from '../../src/workers/translator/udp.ts';
import { flowOf, message, opOf, toHostTexts } from '../support/message.ts';
import {
  addressWords,
  echoPacket,
  icmpChecksumOk,
  ipPacket,
  pattern,
  readIp,
  readUdp,
  udpPacket,
} from '../support/packets.ts';
import { ShardRig, TEST_PLAN } from '../support/shard-rig.ts';

const GUEST = '10.0.2.15';
const GUEST6 = 'fd00::15';
const DNS = '10.0.2.3';

const names = new SharedArrayBuffer(EGRESS_NAMES_BYTES);
const egress = (text: string): EgressPlan => ({
  policy: compileEgress(joinPolicy([], parsePolicyText(text, 'test'))),
  names,
});

class Bench {
  readonly rig: ShardRig;
  readonly tcp: TcpTranslator;
  readonly udp: UdpTranslator;
  readonly ping: PingTranslator;

  constructor(text: string) {
    this.rig = new ShardRig({ ...TEST_PLAN, egress: egress(text) });
    const resolvers = new ResolverChoice(this.rig.plan.addresses);
    this.tcp = new TcpTranslator(this.rig.ctx, resolvers);
    this.udp = new UdpTranslator(this.rig.ctx, resolvers);
    this.ping = new PingTranslator(this.rig.ctx);
  }

  /** Send a SYN from port 4000 (0x0fa0). @returns what went to host-io */
  syn(to: string, port = 443): string[] {
    const from = to.includes(':') ? GUEST6 : GUEST;
    const header = [
      0x0f,
      0xa0,
      port >> 8,
      port & 255,
      0,
      0,
      0,
      7,
      0,
      0,
      0,
      0,
      0x50,
      2,
      0xff,
      0xff,
      0,
      0,
      0,
      0,
    ];
    this.tcp.onPacket(this.rig.packet(ipPacket(from, to, 6, header), true));
    return toHostTexts(this.rig.takeMessages());
  }

  datagram(to: string, port = 9): string[] {
    const from = to.includes(':') ? GUEST6 : GUEST;
    this.udp.onPacket(this.rig.packet(udpPacket(from, 5000, to, port, pattern(10))));
    return toHostTexts(this.rig.takeMessages());
  }

  echo(to: string): string[] {
    const v6 = to.includes(':');
    this.ping.onPacket(this.rig.packet(echoPacket(v6 ? GUEST6 : GUEST, to, v6 ? 128 : 8, 7, 1, pattern(8))));
    return toHostTexts(this.rig.takeMessages());
  }
}

const NAME = [3, 119, 119, 119, 7, 101, 120, 97, 109, 112, 108, 101, 3, 111, 114, 103, 0]; // www.example.org
const question = (name: number[]): number[] => [...name, 0, 1, 0, 1];
const query = (id: number, name = NAME): number[] => [
  ...[0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0],
  ...question(name),
];
/** CNAME cdn.test with TTL 20, and its address 198.51.100.7 with TTL 60. */
const answer = (id: number): number[] => [
  ...[0, id, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0],
  ...question(NAME),
  ...[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 20, 0, 10, 3, 99, 100, 110, 4, 116, 101, 115, 116, 0],
  ...[0xc0, 45, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 7],
];

describe('what is denied', () => {
  it.each(['192.0.2.7', '2001:db8::7'])('TCP to %s: RST in answer to the SYN, nothing on the host', (to) => {
    const b = new Bench('allow tcp 10.0.0.0/8');
    expect(b.syn(to)).toEqual([]);
    const [rst, ...rest] = b.rig.takeSent();
    expect(rest).toEqual([]);
    const ip = readIp(rst!.bytes);
    expect(ip).toMatchObject({ src: to, dst: to.includes(':') ? GUEST6 : GUEST });
    expect(ip.upper[13]).toBe(0x14); // RST, ACK
    expect(Array.from(ip.upper.slice(8, 12))).toEqual([0, 0, 0, 8]);
    expect(b.rig.drops(StageDrop.egressPolicy)).toBe(1);
    expect(b.rig.logs[0]).toContain('by default');
    expect(b.rig.ctx.flows.count).toBe(0);
    expect(b.rig.missingSlots).toBe(0);
    expect(b.syn('10.1.1.1')[0]).toMatch(/^openTcp/);
  });

  it.each([
    ['192.0.2.7', 3, 13],
    ['2001:db8::7', 1, 1],
  ])('UDP and ping to %s: ICMP administratively prohibited, with the packet', (to, type, code) => {
    const b = new Bench('deny udp any 9\ndeny icmp any\nallow any');
    expect(b.datagram(to)).toEqual([]);
    expect(b.echo(to)).toEqual([]);
    const sent = b.rig.takeSent().map(({ bytes }) => readIp(bytes));
    expect(sent).toHaveLength(2);
    for (const ip of sent) {
      expect([...ip.upper.slice(0, 2)]).toEqual([type, code]);
      expect(ip.src).toBe(to.includes(':') ? 'fd00::2' : '10.0.2.2');
      expect(icmpChecksumOk(ip)).toBe(true);
      expect(readIp(ip.upper.slice(8)).dst).toBe(to);
    }
    expect(b.rig.drops(StageDrop.egressPolicy)).toBe(2);
    expect(b.rig.missingSlots).toBe(0);
    expect(b.datagram(to, 10)).toHaveLength(2);
  });

  it("the host's loopback, where an address is mapped to it, by the word host", () => {
    const b = new Bench('deny host\nallow any');
    expect(b.syn('10.0.2.4')).toEqual([]);
    expect(b.datagram('10.0.2.4')).toEqual([]);
    expect(b.syn('10.0.2.5')[0]).toMatch(/^openTcp/);
    expect(new Bench('allow private').syn('10.0.2.4')).toEqual([]);
    expect(new Bench('allow host').syn('10.0.2.4')[0]).toMatch(/^openTcp/);
  });
});

describe('names', () => {
  it('a query for a name that no rule permits: REFUSED, and none is sent', () => {
    const b = new Bench('allow tcp *.example.org 443');
    b.udp.onPacket(b.rig.packet(udpPacket(GUEST, 5000, DNS, 53, query(9, [3, 111, 114, 103, 0]))));
    expect(b.rig.takeMessages()).toEqual([]);
    const udp = readUdp(readIp(b.rig.takeSent()[0]!.bytes));
    expect([udp.srcPort, udp.dstPort, udp.payload[1], udp.payload[2]! >>> 7, udp.payload[3]! & 15]).toEqual([
      ...[53, 5000, 9, 1, 5],
    ]);
    expect(b.rig.counter(Counter.policyNamesRefused)).toBe(1);
    expect(b.rig.logs[0]).toContain('query for org is denied by default');
    expect(b.syn(DNS, 53), 'TCP queries are not read').toEqual([]);
    expect(b.rig.missingSlots).toBe(0);
  });

  it('the addresses of an answer are permitted for the least TTL of the chain, at least 30 s', () => {
    const b = new Bench('allow tcp *.example.org 443');
    expect(b.syn('198.51.100.7')).toEqual([]);
    b.udp.onPacket(b.rig.packet(udpPacket(GUEST, 5000, DNS, 53, query(9))));
    const [open] = b.rig.takeMessages();
    expect(opOf(open!)).toBe(ToHost.openUdp);
    b.rig.takeSent();
    const got = b.rig.datagram(flowOf(open), Uint8Array.from(answer(9)));
    b.udp.onMessage(opOf(got), got, 0);
    expect(readUdp(readIp(b.rig.takeSent()[0]!.bytes)).payload).toEqual(Uint8Array.from(answer(9)));
    b.rig.takeMessages();
    expect(b.syn('198.51.100.7')[0]).toMatch(/^openTcp/);
    expect(b.syn('198.51.100.7', 80)).toEqual([]);
    expect(b.syn('198.51.100.8')).toEqual([]);
    b.rig.ctx.now = 31_000;
    expect(b.datagram('198.51.100.7')).toEqual([]);
    const header = [0x0f, 0xa1, 1, 187, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
    b.tcp.onPacket(b.rig.packet(ipPacket(GUEST, '198.51.100.7', 6, header), true));
    expect(b.rig.takeMessages()).toEqual([]);
  });
});

describe('another policy while flows exist', () => {
  it('flows that it denies are ended, others stay', () => {
    const b = new Bench('allow any');
    b.syn('192.0.2.7');
    b.syn('192.0.2.8');
    b.datagram('192.0.2.7');
    b.datagram('192.0.2.8');
    b.echo('192.0.2.7');
    b.echo('192.0.2.8');
    const { flows, egress: gate } = b.rig.ctx;
    gate.set(egress('deny 192.0.2.7\nallow any'));
    const ended: number[] = [];
    for (let flow = 0; flow < flows.maxFlows; flow++) {
      if (!flows.isLive(flow)) continue;
      const part = { 6: b.tcp, 17: b.udp, 1: b.ping }[flows.proto[flow]!]!;
      if (part.endIfDenied(flow)) ended.push(flows.proto[flow]!);
    }
    expect(ended.sort()).toEqual([1, 17, 6]);
    const sent = b.rig.takeSent().map(({ bytes }) => readIp(bytes));
    expect(sent.map((ip) => (ip.upper[0] === 3 ? [...ip.upper.slice(0, 2)] : ip.upper[13]))).toEqual(
      expect.arrayContaining([0x14, [3, 13], [3, 13]]),
    );
    const ops = b.rig.takeMessages().map((m) => opOf(m));
    expect(ops.sort()).toEqual([ToHost.reset, ToHost.close, ToHost.close].sort());
  });
});

describe('egress policy and groups (--multicast)', () => {
  const GROUP = '239.1.2.3';
  const bench = (text: string): { rig: ShardRig; udp: UdpTranslator; groups: GroupMembership } => {
    const policy = { ...TEST_PLAN.policy, multicast: { all: true, groups: [], maxGroups: 3 } };
    const rig = new ShardRig({ ...TEST_PLAN, policy, egress: egress(text) });
    const udp = new UdpTranslator(rig.ctx, new ResolverChoice(rig.plan.addresses));
    return { rig, udp, groups: new GroupMembership(rig.ctx, rig.ctx.groups!) };
  };
  const drops = (rig: ShardRig): number => rig.ctx.counters[DROP_BASE - StageDrop.egressPolicy]!;

  it.each([
    ['default deny', false],
    ['allow multicast\ndefault deny', true],
    [`deny udp ${GROUP} 5000\ndefault allow`, false],
    [`deny udp ${GROUP} 5001\ndefault allow`, true],
  ])('%s: what the guest sends, and what it hears; no ICMP error', (text, isCarried) => {
    const { rig, udp, groups } = bench(text);
    udp.onPacket(rig.packet(udpPacket(GUEST, 4000, GROUP, 5000, pattern(10)), true));
    expect(rig.takeMessages().length > 0).toBe(isCarried);
    expect(rig.takeSent()).toEqual([]);
    const { slotA, slotB } = rig.hostPayload(pattern(10));
    const both = Uint32Array.of(...addressWords('192.0.2.9'), ...addressWords(GROUP));
    const ports = ((4000 << 16) | 5000) >>> 0;
    groups.onDatagram(
      message((out) => groupDatagramWrite(out, slotA, slotB, HEADROOM_BYTES, 10, 1, ports, both, 0)),
      0,
    );
    expect(rig.takeSent()).toHaveLength(isCarried ? 1 : 0);
    expect(drops(rig)).toBe(isCarried ? 0 : 2);
    expect(rig.hostSmall.free).toBe(rig.hostSmall.capacity);
  });
});
