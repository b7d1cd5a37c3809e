// @vitest: beside
import { describe, expect, it } from 'vitest';
import { addressText } from '../../src/proto/address.ts';
import { Counter } from '../../src/ring/counters.ts';
import { Errno } from '../../src/sys/constants.ts';
import { StageDrop } from '../../src/workers/link/stage-drop.ts';
import { openRemoteAt, openZone, ToHost, toHostText } from '../../src/workers/link/to-host.ts';
import { closedWrite, errorWrite, openFailedWrite } from '../../src/workers/link/to-shard.ts';
import { TIMER_KINDS } from '../../src/workers/translator/context.ts';
import { ResolverChoice } from '../../src/workers/translator/resolvers.ts';
import { UdpTranslator } from '../../src/workers/translator/udp.ts';
import { flowOf, type Message, message, opOf } from '../support/message.ts';
import { readIp, readUdp, udpPacket } from '../support/packets.ts';
import { ShardRig, TEST_PLAN } from '../support/shard-rig.ts';

const GUEST = '10.0.2.15';
const DNS = '10.0.2.3';
const A = '192.0.2.53';
const B = '192.0.2.54';

const NAME = [3, 119, 119, 119, 7, 101, 120, 97, 109, 112, 108, 101, 0]; // www.example
const dns = (id: number, flags: number, answer: readonly number[] = [], name = NAME): number[] => [
  ...[id >> 8, id & 255, flags >> 8, flags & 255, 0, 1, 0, answer.length > 0 ? 1 : 0, 0, 0, 0, 0],
  ...[...name, 0, 1, 0, 1],
  ...answer,
];
const query = (id: number): number[] => dns(id, 0x0100);
const ANSWER = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 80];
const answer = (id: number): number[] => dns(id, 0x8180, ANSWER);

class Bench {
  readonly rig: ShardRig;
  readonly udp: UdpTranslator;

  constructor(resolvers: readonly string[] = ['192.0.2.53', '192.0.2.54']) {
    this.rig = new ShardRig({ ...TEST_PLAN, addresses: { ...TEST_PLAN.addresses, resolvers } });
    this.udp = new UdpTranslator(this.rig.ctx, new ResolverChoice(this.rig.plan.addresses));
  }

  ask(id: number, port = 4000, payload = query(id)): Message[] {
    this.udp.onPacket(this.rig.packet(udpPacket(GUEST, port, DNS, 53, payload)));
    return this.rig.takeMessages();
  }

  /** Deliver a message of host-io about a flow. @returns the messages of the shard */
  tell(m: Message): Message[] {
    this.udp.onMessage(opOf(m), m, 0);
    return this.rig.takeMessages();
  }

  /** Deliver a datagram. @returns the messages of the shard */
  datagram(flow: number, payload: readonly number[]): Message[] {
    return this.tell(this.rig.datagram(flow, Uint8Array.from(payload)));
  }

  closed(flow: number): Message[] {
    return this.tell(message((out) => closedWrite(out, flow)));
  }

  /** Deliver openFailed. @returns the messages of the shard */
  openFailed(flow: number, errno: number): Message[] {
    return this.tell(message((out) => openFailedWrite(out, flow, errno)));
  }

  /** Advance the clock. @returns the messages of the shard */
  at(now: number): Message[] {
    this.rig.ctx.now = now;
    this.rig.ctx.timers.advance(now, (id) =>
      this.udp.onTimer(Math.floor(id / TIMER_KINDS), id % TIMER_KINDS),
    );
    return this.rig.takeMessages();
  }

  /** Payloads to the guest, all from the DNS address. */
  heard(): { port: number; payload: number[] }[] {
    return this.rig.takeSent().map((s) => {
      const ip = readIp(s.bytes);
      expect(ip).toMatchObject({ src: DNS, dst: GUEST });
      const { srcPort, dstPort, payload } = readUdp(ip);
      expect(srcPort).toBe(53);
      return { port: dstPort, payload: Array.from(payload) };
    });
  }

  closeAll(messages: readonly Message[]): void {
    for (const m of messages) {
      expect(opOf(m)).toBe(ToHost.close);
      this.closed(flowOf(m));
    }
  }
}

const whom = (m: Message | undefined): string => addressText(m!, openRemoteAt(0));
const ops = (messages: readonly Message[]): number[] => messages.map((m) => opOf(m));

describe('a query', () => {
  it('sent to the first resolver from a port that the kernel chooses; answered from the DNS address; all slots are freed', () => {
    const b = new Bench();
    const [open, send, ...rest] = b.ask(0x1234);
    expect(rest).toEqual([]);
    const flow = flowOf(open);
    const bytes = query(0x1234).length;
    expect(toHostText(open!)).toBe(`openUdp flow ${flow} to ${A}:53`);
    expect(toHostText(send!)).toBe(`sendDatagram flow ${flow}, ${bytes} bytes, borrowed`);
    expect(Array.from(b.rig.payloadOf(send!))).toEqual(query(0x1234));
    const closes = b.datagram(flow, answer(0x1234));
    expect(b.heard()).toEqual([{ port: 4000, payload: answer(0x1234) }]);
    expect(b.udp.dns.outstanding).toBe(1); // the slot is in use until host-io has freed it
    b.closeAll(closes);
    expect(b.udp.dns.outstanding).toBe(0);
    expect(b.rig.missingSlots).toBe(0);
    expect(b.rig.ctx.flows.count).toBe(0);
  });

  it('ICMP error: the next resolver at once; the failed one is last for 30 s', () => {
    const b = new Bench();
    const [open] = b.ask(1);
    const again = b.tell(b.rig.icmpError(flowOf(open), (3 << 8) | 3));
    expect(ops(again)).toEqual([ToHost.close, ToHost.openUdp, ToHost.sendDatagram]);
    expect(whom(again[1])).toBe(B);
    expect(whom(b.ask(2, 4001)[0])).toBe(B);
    b.at(31_000);
    expect(whom(b.ask(3, 4002)[0])).toBe(A);
  });

  it.each([
    ['SERVFAIL', 0x8182],
    ['REFUSED', 0x8185],
  ])('%s: the next resolver, whose answer is passed on', (_name, flags) => {
    const b = new Bench();
    const [open] = b.ask(1);
    const next = b.datagram(flowOf(open), dns(1, flags));
    expect(b.heard()).toEqual([]);
    const opened = next.find((m) => opOf(m) === ToHost.openUdp);
    expect(whom(opened)).toBe(B);
    b.closeAll(next.filter((m) => opOf(m) === ToHost.close));
    b.closeAll(b.datagram(flowOf(opened), answer(1)));
    expect(b.heard()).toHaveLength(1);
    expect(b.rig.missingSlots).toBe(0);
  });

  it('every resolver answers SERVFAIL: the last answer is passed on unchanged', () => {
    const b = new Bench();
    const [open] = b.ask(1);
    const next = b.datagram(flowOf(open), dns(1, 0x8182));
    const opened = next.find((m) => opOf(m) === ToHost.openUdp);
    b.datagram(flowOf(opened), dns(1, 0x8182, [], NAME));
    expect(b.heard()).toEqual([{ port: 4000, payload: dns(1, 0x8182) }]);
  });

  it('NXDOMAIN: passed on, no other resolver is asked', () => {
    const b = new Bench();
    const [open] = b.ask(1);
    b.datagram(flowOf(open), dns(1, 0x8183));
    expect(b.heard()).toEqual([{ port: 4000, payload: dns(1, 0x8183) }]);
  });

  it('no answer for 1.5 s: the next resolver is asked too; a late answer of the first is passed on', () => {
    const b = new Bench();
    const [open] = b.ask(1);
    expect(b.at(1400)).toEqual([]);
    const next = b.at(1600);
    expect(ops(next)).toEqual([ToHost.openUdp, ToHost.sendDatagram]);
    expect(whom(next[0])).toBe(B);
    const closes = b.datagram(flowOf(open), answer(1));
    expect(b.heard()).toHaveLength(1);
    expect(closes).toHaveLength(2);
    // The second resolver answers too: that answer is ignored.
    expect(b.datagram(flowOf(next[0]), answer(1))).toEqual([]);
    expect(b.heard()).toEqual([]);
    b.closeAll(closes);
    expect(b.rig.missingSlots).toBe(0);
  });

  it('all resolvers unreachable: SERVFAIL with the question', () => {
    const b = new Bench();
    const [open] = b.ask(7);
    const next = b.openFailed(flowOf(open), Errno.ENETUNREACH);
    const opened = next.find((m) => opOf(m) === ToHost.openUdp);
    const last = b.openFailed(flowOf(opened), Errno.ENETUNREACH);
    const [heard] = b.heard();
    expect(heard!.payload).toEqual(dns(7, 0x8182));
    b.closeAll([...next, ...last].filter((m) => opOf(m) === ToHost.close));
    expect(b.rig.missingSlots).toBe(0);
  });

  it('no answer for 10 s: SERVFAIL, all resources are freed', () => {
    const b = new Bench(['192.0.2.53']);
    b.ask(7);
    expect(b.at(1600)).toEqual([]);
    const closes = b.at(10_100);
    expect(b.heard()).toHaveLength(1);
    b.closeAll(closes);
    expect(b.rig.missingSlots).toBe(0);
    expect(b.udp.dns.outstanding).toBe(0);
  });

  it('the guest repeats it: sent again through the same socket, answered once', () => {
    const b = new Bench();
    const [open] = b.ask(1);
    const again = b.ask(1);
    expect(ops(again)).toEqual([ToHost.sendDatagram]);
    expect(flowOf(again[0])).toBe(flowOf(open));
    b.closeAll(b.datagram(flowOf(open), answer(1)));
    expect(b.heard()).toHaveLength(1);
    expect(b.rig.missingSlots).toBe(0);
  });

  it('queries of the same hash chain were answered, then it is repeated: found', () => {
    const b = new Bench();
    const ids = [1, 1025, 2049, 3073];
    const flows = ids.map((id) => flowOf(b.ask(id)[0]));
    for (const i of [2, 1]) b.closeAll(b.datagram(flows[i]!, answer(ids[i]!)));
    expect(b.heard()).toHaveLength(2);
    for (const i of [0, 3]) {
      const again = b.ask(ids[i]!);
      expect(ops(again)).toEqual([ToHost.sendDatagram]);
      expect(flowOf(again[0])).toBe(flows[i]);
    }
  });

  it('A and AAAA from one port at once: two queries', () => {
    const b = new Bench();
    const first = b.ask(1);
    const second = b.ask(2);
    expect(flowOf(first[0])).not.toBe(flowOf(second[0]));
  });
});

describe('datagrams that are no valid answer', () => {
  it.each([
    ['another id', answer(2)],
    ['another question', dns(1, 0x8180, ANSWER, [...NAME.slice(0, 3), 120, ...NAME.slice(4)])],
    ['a query', query(1)],
    ['too short', [0, 1, 0x81, 0x80]],
  ])('%s: dropped, the right one still gets through', (_what, wrong) => {
    const b = new Bench();
    const [open] = b.ask(1);
    expect(b.datagram(flowOf(open), wrong)).toEqual([]);
    expect(b.heard()).toEqual([]);
    expect(b.rig.drops(StageDrop.dnsAnswer)).toBe(1);
    b.datagram(flowOf(open), answer(1));
    expect(b.heard()).toHaveLength(1);
  });
});

describe('bounds', () => {
  it('more queries than the limit: the oldest are answered SERVFAIL, none is dropped, no slot leaks', () => {
    const b = new Bench(); // 64 flows: 32 places, 25 of them for waiting queries
    for (let i = 0; i < 100; i++) {
      const messages = b.ask(i, 5000 + i);
      for (const m of messages) if (opOf(m) === ToHost.close) b.closed(flowOf(m));
    }
    expect(b.heard().map((h) => h.payload)).toEqual(Array.from({ length: 75 }, (_, i) => dns(i, 0x8182)));
    expect(b.udp.dns.outstanding).toBe(25);
    expect(b.rig.drops(StageDrop.dnsQuery)).toBe(0);
    expect(b.rig.counter(Counter.dnsGaveWay)).toBe(75);
    expect(b.rig.missingSlots).toBe(0);
  });

  it('all places have sockets being closed: SERVFAIL at once', () => {
    const b = new Bench();
    for (let i = 0; i < 40; i++) b.ask(i, 5000 + i);
    expect(b.heard()).toHaveLength(15);
    expect(b.rig.missingSlots).toBe(0);
  });

  it('long queries one after another: each frees its slot, none is refused', () => {
    const b = new Bench();
    const long = (id: number): number[] => [...query(id), ...new Array<number>(600).fill(0)];
    for (let id = 1; id <= 40; id++) {
      const [open] = b.ask(id, 4000 + id, long(id));
      b.closeAll(b.datagram(flowOf(open), answer(id)));
    }
    expect(b.heard()).toHaveLength(40);
    expect(b.rig.counter(Counter.dnsGaveWay)).toBe(0);
    expect(b.rig.missingSlots).toBe(0);
  });

  it('malformed: dropped', () => {
    const b = new Bench();
    b.ask(1, 4000, [0, 1, 2]);
    b.ask(1, 4000, answer(1));
    expect(b.rig.drops(StageDrop.dnsQuery)).toBe(2);
    expect(b.rig.missingSlots).toBe(0);
  });

  it('no resolver known: port unreachable', () => {
    const b = new Bench([]);
    expect(b.ask(1)).toEqual([]);
    expect(readIp(b.rig.takeSent()[0]!.bytes)).toMatchObject({ src: DNS, protocol: 1 });
  });
});

describe('resolvers that failed lately', () => {
  const oneIsSlow = (b: Bench): { first: number; second: number } => {
    const [open] = b.ask(1);
    const next = b.at(1600).find((m) => opOf(m) === ToHost.openUdp);
    return { first: flowOf(open), second: flowOf(next) };
  };

  it('all of them failed: the first is asked', () => {
    const b = new Bench();
    oneIsSlow(b);
    b.at(3300);
    expect(whom(b.ask(2, 4001)[0])).toBe(A);
  });

  it.each([
    ['ENETUNREACH', Errno.ENETUNREACH, B],
    ['EMFILE', Errno.EMFILE, A],
    ['ENFILE', Errno.ENFILE, A],
  ])(
    'no socket for a resolver, %s: out of descriptors does not count as its failure',
    (_name, errno, next) => {
      const b = new Bench();
      const [open] = b.ask(1);
      const again = b.openFailed(flowOf(open), errno);
      expect(whom(again.find((m) => opOf(m) === ToHost.openUdp))).toBe(B);
      expect(whom(b.ask(2, 4001)[0])).toBe(next);
    },
  );

  it('one of two asked resolvers fails: no SERVFAIL while the other may answer', () => {
    const b = new Bench();
    const { first, second } = oneIsSlow(b);
    b.tell(b.rig.icmpError(second, (3 << 8) | 3));
    expect(b.heard()).toEqual([]);
    b.datagram(first, answer(1));
    expect(b.heard()).toEqual([{ port: 4000, payload: answer(1) }]);
  });

  it('a slow resolver has answered: it is asked first again', () => {
    const b = new Bench();
    const { first } = oneIsSlow(b);
    expect(whom(b.ask(2, 4001)[0])).toBe(B);
    b.datagram(first, answer(1));
    expect(whom(b.ask(3, 4002)[0])).toBe(A);
  });
});

describe('a link-local resolver', () => {
  const zoneOf = (m: Message | undefined): number => openZone(m!, 0);

  it('with a zone: asked through that interface; without: through the interface of the plan', () => {
    const b = new Bench(['fe80::53%7', 'fe80::53%300', 'fe80::53', '192.0.2.53']);
    let open = b.ask(1)[0];
    const zones = [zoneOf(open)];
    for (let i = 0; i < 3; i++) {
      const before = open;
      open = b
        .tell(message((out) => errorWrite(out, flowOf(before), 0)))
        .find((m) => opOf(m) === ToHost.openUdp);
      zones.push(zoneOf(open));
    }
    expect(zones).toEqual([7, 300, 0, 0]);
  });

  it('another DNS port: the interface of the zone is used too', () => {
    const policy = { ...TEST_PLAN.policy, dnsPorts: [53, 853] };
    const addresses = { ...TEST_PLAN.addresses, resolvers: ['fe80::53%7'] };
    const rig = new ShardRig({ ...TEST_PLAN, policy, addresses });
    const udp = new UdpTranslator(rig.ctx, new ResolverChoice(addresses));
    udp.onPacket(rig.packet(udpPacket(GUEST, 4000, DNS, 853, [1])));
    udp.onPacket(rig.packet(udpPacket(GUEST, 4000, '192.0.2.9', 853, [1])));
    const opens = rig.takeMessages().filter((m) => opOf(m) === ToHost.openUdp);
    expect(opens.map(zoneOf)).toEqual([7, 0]);
  });
});
