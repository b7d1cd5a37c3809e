// @vitest: beside
import { describe, expect, it } from 'vitest';
import { addressText } from '../../src/proto/address.ts';
import { Drop } from '../../src/proto/drop.ts';
import { VnetGso } from '../../src/proto/vnethdr.ts';
import { Counter } from '../../src/ring/counters.ts';
import { HEADROOM_BYTES, NO_SLOT } from '../../src/ring/pool.ts';
import { Errno } from '../../src/sys/constants.ts';
import { StageDrop } from '../../src/workers/link/stage-drop.ts';
import {
  openRemoteAt,
  openRemotePort,
  openUdpGuestAt,
  openUdpGuestPort,
  SendFragment,
  sendDatagramOptions,
  sendOptions,
  ToHost,
  toHostText,
} from '../../src/workers/link/to-host.ts';
import {
  closedWrite,
  listenerDatagramGuestWrite,
  listenerDatagramWrite,
  openFailedWrite,
  ToShard,
  unsolicitedDatagramWrite,
} from '../../src/workers/link/to-shard.ts';
import { TIMER_KINDS } from '../../src/workers/translator/context.ts';
import { ResolverChoice } from '../../src/workers/translator/resolvers.ts';
import { UdpTranslator } from '../../src/workers/translator/udp.ts';
import { flowOf, type Message, message, opOf, slotAOf, slotBOf, toHostTexts } from '../support/message.ts';
import {
  addressWords,
  icmpChecksumOk,
  ip4,
  ipPacket,
  pattern,
  readIp,
  readUdp,
  udpPacket,
} from '../support/packets.ts';
import { ShardRig, TEST_PLAN } from '../support/shard-rig.ts';

const GUEST = '10.0.2.15';
const GUEST6 = 'fd00::15';
const PEER = '192.0.2.9';
const PEER6 = '2001:db8::9';

function begin(rig = new ShardRig()): { rig: ShardRig; udp: UdpTranslator } {
  return { rig, udp: new UdpTranslator(rig.ctx, new ResolverChoice(rig.plan.addresses)) };
}

const words = (text: string): number[] => Array.from(addressWords(text));

/** As host-io: free the slots of a send to the reader. */
function give(rig: ShardRig, m: Message): void {
  rig.ctx.freeReaderSlots(slotAOf(m), slotBOf(m));
}

function runTimers(rig: ShardRig, udp: UdpTranslator, now: number): void {
  rig.ctx.now = now;
  rig.ctx.timers.advance(now, (id) => udp.onTimer(Math.floor(id / TIMER_KINDS), id % TIMER_KINDS));
}

describe('UDP from the guest', () => {
  it('first datagram: opens a socket with the guest port preferred, then sends the payload in its slot', () => {
    const { rig, udp } = begin();
    udp.onPacket(rig.packet(udpPacket(GUEST, 5000, PEER, 53_000, pattern(100), { ttl: 7 })));
    const messages = rig.takeMessages();
    const flow = flowOf(messages[0]);
    expect(toHostTexts(messages)).toEqual([
      `openUdp flow ${flow} from ${GUEST}:5000 to ${PEER}:53000, gro`,
      `sendDatagram flow ${flow}, 100 bytes, ttl 7`,
    ]);
    const send = messages[1];
    expect(rig.payloadOf(send!)).toEqual(pattern(100));
    give(rig, send!);
    expect(rig.missingSlots).toBe(0);
  });

  it('second datagram: same flow, no second open, TTL not set again', () => {
    const { rig, udp } = begin();
    udp.onPacket(rig.packet(udpPacket(GUEST6, 5000, PEER6, 9, pattern(3))));
    udp.onPacket(rig.packet(udpPacket(GUEST6, 5000, PEER6, 9, [])));
    const messages = rig.takeMessages();
    const flow = flowOf(messages[0]);
    const [open, ...sends] = toHostTexts(messages);
    expect(open).toBe(`openUdp flow ${flow} from [${GUEST6}]:5000 to [${PEER6}]:9, gro`);
    expect(sends.map((text) => text.replace(/, [1-9]\d* bytes.*/, ', some'))).toEqual([
      `sendDatagram flow ${flow}, some`,
      `sendDatagram flow ${flow}, 0 bytes`,
    ]);
  });

  it.each([
    [GUEST, PEER, 576 - 28],
    [GUEST6, PEER6, 1280 - 48],
  ])(
    '%s: DF is set once on the socket, only for sizes that not every path carries',
    (guest, far, carried) => {
      const { rig, udp } = begin();
      const options = (bytes: number, dontFragment: boolean, ttl = 9): number => {
        const p = rig.packet(udpPacket(guest, 5000, far, 9, pattern(bytes), { ttl }));
        p.dontFragment = dontFragment; // as the shard finds it in the header, or the reader in the fragments
        udp.onPacket(p);
        return sendDatagramOptions(rig.takeMessages().at(-1)!, 0);
      };
      const { allowed, never } = SendFragment;
      expect(options(carried, true)).toBe(9);
      expect(options(carried + 1, false)).toBe(0);
      expect(options(carried + 1, true)).toBe(sendOptions(0, never));
      expect(options(3000, true)).toBe(0);
      expect(options(carried, false)).toBe(0);
      expect(options(3000, false)).toBe(sendOptions(0, allowed));
      expect(options(3000, true, 31)).toBe(sendOptions(31, never));
      expect(options(3000, true, 64)).toBe(sendOptions(64, allowed)); // TTL 64: no traceroute probe
      expect(options(3000, true, 64)).toBe(0);
    },
  );

  it.each([
    [GUEST, PEER],
    [GUEST6, PEER6],
  ])('%s: TOS is set on the socket when it changes', (guest, far) => {
    const { rig, udp } = begin();
    const options = (tos: number): number => {
      const ip = udpPacket(guest, 5000, far, 9, pattern(10), { tos });
      udp.onPacket(rig.packet(ip));
      return sendDatagramOptions(rig.takeMessages().at(-1)!, 0);
    };
    expect(options(0)).toBe(64); // the TTL
    expect(options(0)).toBe(0);
    expect(options(0xb9)).toBe(sendOptions(0, SendFragment.unchanged, 0xb9));
    expect(options(0xb9)).toBe(0);
    expect(options(0)).toBe(sendOptions(0, SendFragment.unchanged, 0));
    expect(options(0)).toBe(0);
  });

  it('two pieces and frame padding: the length field gives the size', () => {
    const { rig, udp } = begin();
    udp.onPacket(rig.packet(udpPacket(GUEST, 5000, PEER, 9, pattern(30_001))));
    const padded = new Uint8Array(60);
    padded.set(udpPacket(GUEST, 5001, PEER, 9, [1, 2, 3]));
    udp.onPacket(rig.packet(padded));
    const sends = rig.takeMessages().filter((m) => opOf(m) === ToHost.sendDatagram);
    expect(rig.payloadOf(sends[0]!)).toEqual(pattern(30_001));
    expect(rig.payloadOf(sends[1]!)).toEqual(Uint8Array.of(1, 2, 3));
  });

  it('GSO frame: passed on whole with its segment size, the partial checksum is not verified', () => {
    const { rig, udp } = begin();
    const packet = udpPacket(GUEST, 5000, PEER, 9, pattern(5000));
    packet[26]! ^= 0xff;
    udp.onPacket(rig.packet(packet, true, VnetGso.udpL4, 1400));
    expect(toHostText(rig.takeMessages()[1]!)).toMatch(/, 5000 bytes, ttl 64, segments of 1400$/);
  });

  it('wrong checksum, wrong length, port 0, loopback, multicast and broadcast: dropped with their causes', () => {
    const { rig, udp } = begin();
    const corrupt = udpPacket(GUEST, 1, PEER, 9, pattern(2000));
    corrupt[1500]! ^= 1;
    udp.onPacket(rig.packet(corrupt));
    expect(rig.drops(Drop.udpChecksum)).toBe(1);
    const none6 = udpPacket(GUEST6, 1, PEER6, 9, [1]);
    none6[46] = 0;
    none6[47] = 0;
    udp.onPacket(rig.packet(none6));
    expect(rig.drops(Drop.udpChecksum)).toBe(2);
    const long = udpPacket(GUEST, 1, PEER, 9, [1, 2]);
    long[25] = 11;
    udp.onPacket(rig.packet(long));
    expect(rig.drops(Drop.udpLength)).toBe(1);
    udp.onPacket(rig.packet(udpPacket(GUEST, 1, PEER, 0, [1])));
    udp.onPacket(rig.packet(udpPacket(GUEST, 1, '127.0.0.1', 9, [1])));
    expect(rig.drops(StageDrop.destination)).toBe(2);
    for (const group of ['224.0.0.251', '255.255.255.255', '10.0.2.255']) {
      udp.onPacket(rig.packet(udpPacket(GUEST, 1, group, 5353, [1])));
    }
    udp.onPacket(rig.packet(udpPacket(GUEST6, 1, 'ff02::fb', 5353, [1])));
    // Link-local groups do not count as loss: the link has no other member.
    expect(rig.drops(StageDrop.group)).toBe(2);
    expect(rig.counter(Counter.linkLocalDatagrams)).toBe(2);
    expect(rig.takeMessages()).toEqual([]);
    expect(rig.takeSent()).toEqual([]);
    expect(rig.missingSlots).toBe(0);
  });

  it('IPv4 without a checksum: accepted', () => {
    const { rig, udp } = begin();
    const packet = udpPacket(GUEST, 1, PEER, 9, [1, 2]);
    packet[26] = 0;
    packet[27] = 0;
    udp.onPacket(rig.packet(packet));
    expect(rig.takeMessages()).toHaveLength(2);
  });

  it('to the mapped address: sent to host loopback', () => {
    const { rig, udp } = begin();
    udp.onPacket(rig.packet(udpPacket(GUEST, 1, '10.0.2.4', 9, [1])));
    udp.onPacket(rig.packet(udpPacket(GUEST6, 1, 'fd00::4', 9, [1])));
    const opens = rig.takeMessages().filter((m) => opOf(m) === ToHost.openUdp);
    expect(opens.map((m) => addressText(m, openRemoteAt(0)))).toEqual(['127.0.0.1', '::1']);
  });

  it('to the gateway: port unreachable from the gateway, quoting the datagram', () => {
    const { rig, udp } = begin();
    const packet = udpPacket(GUEST, 5000, '10.0.2.2', 9, pattern(900));
    udp.onPacket(rig.packet(packet));
    const packet6 = udpPacket(GUEST6, 5000, 'fd00::2', 9, pattern(10));
    udp.onPacket(rig.packet(packet6));
    const [v4, v6] = rig.takeSent().map((s) => readIp(s.bytes));
    expect(v4).toMatchObject({ src: '10.0.2.2', dst: GUEST, protocol: 1 });
    expect(Array.from(v4!.upper.slice(0, 2))).toEqual([3, 3]);
    expect(icmpChecksumOk(v4!)).toBe(true);
    expect(v4!.upper.slice(8)).toEqual(packet.slice(0, 576 - 28));
    expect(v6).toMatchObject({ src: 'fd00::2', dst: GUEST6, protocol: 58 });
    expect(Array.from(v6!.upper.slice(0, 2))).toEqual([1, 4]);
    expect(icmpChecksumOk(v6!)).toBe(true);
    expect(v6!.upper.slice(8)).toEqual(packet6);
    expect(rig.missingSlots).toBe(0);
    expect(rig.counter(Counter.icmpErrorsToGuest)).toBe(2);
  });

  it('flow table full: dropped and counted, slots are freed', () => {
    const { rig, udp } = begin(new ShardRig({ ...TEST_PLAN, pool: { ...TEST_PLAN.pool, flows: 2 } }));
    for (let port = 1; port <= 3; port++) udp.onPacket(rig.packet(udpPacket(GUEST, port, PEER, 9, [1])));
    // The oldest flow is ended, but its id is free only when host-io has closed its socket.
    expect(rig.drops(StageDrop.flowTableFull)).toBe(1);
    const ops = rig.takeMessages().map((m) => opOf(m));
    expect(ops.filter((op) => op === ToHost.openUdp)).toHaveLength(2);
    expect(ops.filter((op) => op === ToHost.close).length).toBeGreaterThan(0);
  });
});

describe('UDP to the guest', () => {
  function opened(src: string, dst: string): { rig: ShardRig; udp: UdpTranslator; flow: number } {
    const { rig, udp } = begin();
    udp.onPacket(rig.packet(udpPacket(src, 5000, dst, 9, [1])));
    const [open, send] = rig.takeMessages();
    give(rig, send!);
    return { rig, udp, flow: flowOf(open) };
  }

  it.each([
    [GUEST, PEER],
    [GUEST6, PEER6],
  ])(
    'datagrams %s <- %s with a TOS, whole and in fragments; only equal ones share a frame',
    (guest, peer) => {
      const { rig, udp, flow } = opened(guest, peer);
      for (const [bytes, tos] of [
        [100, 0xb9],
        [100, 0xb9],
        [100, 2],
        [4000, 0xff],
        [100, 0],
      ] as const)
        udp.onMessage(ToShard.datagram, rig.datagram(flow, pattern(bytes), { tos }), 0);
      udp.flush();
      const sent = rig.takeSent();
      const tosOf = ({ bytes: b }: { bytes: Uint8Array }): number =>
        peer === PEER ? b[1]! : ((b[0]! & 15) << 4) | (b[1]! >>> 4);
      expect(sent.map((s) => [tosOf(s), s.gsoSize])).toEqual([
        [0xb9, 100],
        [2, 0],
        [0xff, 0],
        [0xff, 0],
        [0xff, 0],
        [0, 0],
      ]);
      for (const s of sent) expect(readIp(s.bytes)).toMatchObject({ src: peer, dst: guest });
      expect(rig.missingSlots).toBe(0);
    },
  );

  it.each([
    [GUEST, PEER],
    [GUEST6, PEER6],
  ])('datagram %s <- %s: headers are written, addresses and ports swapped', (guest, peer) => {
    const { rig, udp, flow } = opened(guest, peer);
    for (const bytes of [0, 1, 33, 1400]) {
      udp.onMessage(ToShard.datagram, rig.datagram(flow, pattern(bytes)), 0);
      udp.flush();
      const [sent, ...rest] = rig.takeSent();
      expect(rest).toEqual([]);
      const ip = readIp(sent!.bytes);
      expect(ip).toMatchObject({ src: peer, dst: guest });
      expect(readUdp(ip)).toEqual({ srcPort: 9, dstPort: 5000, payload: pattern(bytes) });
    }
    expect(rig.missingSlots).toBe(0);
  });

  it.each([
    [GUEST, PEER, 1473],
    [GUEST, PEER, 1920],
    [GUEST, PEER, 1921],
    [GUEST, PEER, 9001],
    [GUEST, PEER, 65_507],
    [GUEST6, PEER6, 1453],
    [GUEST6, PEER6, 20_000],
    [GUEST6, PEER6, 65_527],
  ])(
    'longer than the MTU, %s <- %s, %i bytes: fragments within the MTU that reassemble to it',
    (guest, peer, bytes) => {
      const { rig, udp, flow } = opened(guest, peer);
      udp.onMessage(ToShard.datagram, rig.datagram(flow, pattern(bytes)), 0);
      const fragments = rig.takeSent().map((s) => readIp(s.bytes));
      expect(fragments.length).toBeGreaterThan(1);
      expect(new Set(fragments.map((f) => f.ident)).size).toBe(1);
      const whole = new Uint8Array(8 + bytes);
      let end = 0;
      fragments.forEach((f, i) => {
        const isLast = i === fragments.length - 1;
        const offset = f.family === 4 ? (f.fragment & 0x1fff) * 8 : f.fragment & 0xfff8;
        const more = f.family === 4 ? (f.fragment & 0x2000) !== 0 : (f.fragment & 1) !== 0;
        expect(more).toBe(!isLast);
        expect(offset).toBe(end);
        expect(f.upper.length + (f.family === 4 ? 20 : 48)).toBeLessThanOrEqual(1500);
        whole.set(f.upper, offset);
        end = offset + f.upper.length;
      });
      expect(readUdp({ ...fragments[0]!, upper: whole })).toEqual({
        srcPort: 9,
        dstPort: 5000,
        payload: pattern(bytes),
      });
      expect(rig.missingSlots).toBe(0);
    },
  );

  it('ICMP error of the socket: rebuilt with the offender as source, quoting the ports', () => {
    const { rig, udp, flow } = opened(GUEST, PEER);
    const error = rig.icmpError(flow, 11 << 8, { offender: '198.51.100.1', errno: Errno.EHOSTUNREACH });
    udp.onMessage(ToShard.icmpError, error, 0);
    const ip = readIp(rig.takeSent()[0]!.bytes);
    expect(ip).toMatchObject({ src: '198.51.100.1', dst: GUEST, protocol: 1 });
    expect(Array.from(ip.upper.slice(0, 2))).toEqual([11, 0]);
    expect(icmpChecksumOk(ip)).toBe(true);
    const quoted = ip.upper.slice(8);
    expect(Array.from(quoted.slice(12, 24))).toEqual([
      ...ip4(GUEST),
      ...ip4(PEER),
      5000 >> 8,
      5000 & 255,
      0,
      9,
    ]);
    expect(quoted.length).toBe(28);
  });

  it.each([
    [GUEST, PEER, 11 << 8, 28],
    [GUEST6, PEER6, 3 << 8, 48],
  ])(
    'ICMP error for %s: quotes the data that the host kept, which traceroute needs',
    (guest, peer, type, headers) => {
      const { rig, udp, flow } = opened(guest, peer);
      const data = pattern(40);
      const error = rig.icmpError(flow, type, {}, data);
      udp.onMessage(ToShard.icmpError, error, 0);
      const ip = readIp(rig.takeSent()[0]!.bytes);
      expect(icmpChecksumOk(ip)).toBe(true);
      const quoted = ip.upper.slice(8);
      expect(quoted.slice(headers)).toEqual(data);
      expect(quoted[headers - 3]).toBe(8 + 40); // length of the quoted UDP datagram
      expect(rig.missingSlots).toBe(0);
    },
  );

  it('ICMP error from the host loopback: comes from the mapped address, not from 127.0.0.1', () => {
    const { rig, udp, flow } = opened(GUEST, '10.0.2.4');
    const error = rig.icmpError(flow, (3 << 8) | 3, { offender: '127.0.0.1' });
    udp.onMessage(ToShard.icmpError, error, 0);
    expect(readIp(rig.takeSent()[0]!.bytes)).toMatchObject({ src: '10.0.2.4', dst: GUEST });
  });

  it('ICMP error from an address of the other family, as of a resolver: the source is the destination', () => {
    const { rig, udp, flow } = opened(GUEST, PEER);
    const error = rig.icmpError(flow, (3 << 8) | 3, { offender: '2001:db8::1' });
    udp.onMessage(ToShard.icmpError, error, 0);
    expect(readIp(rig.takeSent()[0]!.bytes)).toMatchObject({ src: PEER, dst: GUEST });
  });

  it('packet too big: the MTU is passed on', () => {
    const { rig, udp, flow } = opened(GUEST6, PEER6);
    const error = rig.icmpError(flow, 2 << 8, { offender: '2001:db8::1', info: 1380 });
    udp.onMessage(ToShard.icmpError, error, 0);
    const ip = readIp(rig.takeSent()[0]!.bytes);
    expect(ip).toMatchObject({ src: '2001:db8::1', dst: GUEST6, protocol: 58 });
    expect(Array.from(ip.upper.slice(0, 8))).toEqual([2, 0, ip.upper[2], ip.upper[3], 0, 0, 5, 100]);
    expect(icmpChecksumOk(ip)).toBe(true);
  });

  it('openFailed, network unreachable: ICMP from the gateway, then close; the key is free at once, the id after `closed`', () => {
    const { rig, udp, flow } = opened(GUEST, PEER);
    const failed = message((out) => openFailedWrite(out, flow, Errno.ENETUNREACH));
    udp.onMessage(ToShard.openFailed, failed, 0);
    const ip = readIp(rig.takeSent()[0]!.bytes);
    expect(ip.src).toBe('10.0.2.2');
    expect(Array.from(ip.upper.slice(0, 2))).toEqual([3, 0]);
    expect(rig.takeMessages().map((m) => [opOf(m), flowOf(m)])).toEqual([[ToHost.close, flow]]);
    udp.onPacket(rig.packet(udpPacket(GUEST, 5000, PEER, 9, [2])));
    const again = rig.takeMessages();
    expect(opOf(again[0])).toBe(ToHost.openUdp);
    expect(flowOf(again[0])).not.toBe(flow);
    // A datagram under way from the old socket is freed, not delivered.
    udp.onMessage(ToShard.datagram, rig.datagram(flow, pattern(9)), 0);
    udp.onMessage(
      ToShard.closed,
      message((out) => closedWrite(out, flow)),
      0,
    );
    expect(rig.takeSent()).toEqual([]);
    give(rig, again[1]!);
    expect(rig.missingSlots).toBe(0);
  });
});

describe('runs of datagrams to the guest', () => {
  interface Frame {
    readonly payload: Uint8Array;
    readonly gsoSize: number;
  }

  /** Open a flow, deliver the payloads as one batch of messages. @returns the frames to the guest */
  function deliver(
    rig: ShardRig,
    payloads: readonly Uint8Array[],
    { v6 = false, gsoSize = 0 }: { v6?: boolean; gsoSize?: number } = {},
  ): Frame[] {
    const udp = new UdpTranslator(rig.ctx, new ResolverChoice(rig.plan.addresses));
    udp.onPacket(rig.packet(v6 ? udpPacket(GUEST6, 5, PEER6, 9, [1]) : udpPacket(GUEST, 5, PEER, 9, [1])));
    const [open, send] = rig.takeMessages();
    give(rig, send!);
    const messages = payloads.map((payload) => rig.datagram(flowOf(open), payload, { gsoSize }));
    // Bytes before a second slot belong to another slot.
    const bounds = messages.filter((m) => slotBOf(m) !== NO_SLOT).map((m) => rig.pool.slotAt(slotBOf(m)));
    for (const at of bounds) rig.u8.fill(0x77, at - 128, at);
    for (const m of messages) udp.onMessage(ToShard.datagram, m, 0);
    udp.flush();
    for (const at of bounds) expect(rig.u8.slice(at - 128, at).every((byte) => byte === 0x77)).toBe(true);
    expect(rig.missingSlots).toBe(0);
    return rig.takeSent().map((sent) => {
      const ip = readIp(sent.bytes);
      expect([ip.src, ip.dst]).toEqual(v6 ? [PEER6, GUEST6] : [PEER, GUEST]);
      const u = readUdp(ip);
      expect([u.srcPort, u.dstPort]).toEqual([9, 5]);
      return { payload: u.payload, gsoSize: sent.gsoSize };
    });
  }
  const patterns = (...sizes: number[]): Uint8Array[] => sizes.map((bytes, i) => pattern(bytes, i));
  const whole = (parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
  const shapes = (frames: readonly Frame[]): [number, number][] =>
    frames.map((f) => [f.payload.length, f.gsoSize]);
  const noUso = { ...TEST_PLAN, tap: { ...TEST_PLAN.tap, uso: false } };

  it.each([false, true])(
    'equal sizes and a shorter last: one GSO frame, in order, with one checksum (IPv6 %s)',
    (v6) => {
      const parts = patterns(1400, 1400, 1400, 7);
      const frames = deliver(new ShardRig(), parts, { v6 });
      expect(shapes(frames)).toEqual([[4207, 1400]]);
      expect(frames[0]!.payload).toEqual(whole(parts));
    },
  );

  it('mixed sizes: a longer one, or one after a shorter one, begins a frame; empty and single ones have their own', () => {
    const parts = patterns(100, 100, 60, 60, 60, 0, 200, 30, 30, 31);
    const frames = deliver(new ShardRig(), parts);
    expect(shapes(frames)).toEqual([
      [260, 100],
      [120, 60],
      [0, 0],
      [230, 200],
      [30, 0],
      [31, 0],
    ]);
    expect(whole(frames.map((f) => f.payload))).toEqual(whole(parts));
  });

  it('a frame holds at most 64 datagrams, and less than 64 KiB', () => {
    const small = patterns(...new Array<number>(70).fill(64));
    const frames = deliver(new ShardRig(), small);
    expect(shapes(frames)).toEqual([
      [64 * 64, 64],
      [6 * 64, 64],
    ]);
    expect(whole(frames.map((f) => f.payload))).toEqual(whole(small));
    const plan = { ...TEST_PLAN, addresses: { ...TEST_PLAN.addresses, mtu: 65_520 } };
    const large = patterns(9000, 9000, 9000, 9000, 9000, 9000, 9000, 9000);
    const few = deliver(new ShardRig(plan), large);
    expect(shapes(few)).toEqual([
      [63_000, 9000],
      [9000, 0],
    ]);
    expect(whole(few.map((f) => f.payload))).toEqual(whole(large));
  });

  it('above the MTU: each is fragmented, no GSO frame', () => {
    const frames = deliver(new ShardRig(), patterns(1472, 1472)); // exactly the MTU
    expect(shapes(frames)).toEqual([[2944, 1472]]);
    const rig = new ShardRig();
    const { udp } = begin(rig);
    udp.onPacket(rig.packet(udpPacket(GUEST, 5, PEER, 9, [1])));
    const flow = flowOf(rig.takeMessages()[0]);
    for (const payload of patterns(1473, 1473)) {
      udp.onMessage(ToShard.datagram, rig.datagram(flow, payload), 0);
    }
    udp.flush();
    const sent = rig.takeSent();
    expect(sent.map((s) => s.gsoSize)).toEqual([0, 0, 0, 0]);
    expect(sent.map((s) => (readIp(s.bytes).fragment & 0x2000) !== 0)).toEqual([true, false, true, false]);
  });

  it('no USO on the TAP, or the first GSO frame is refused: one frame per datagram', () => {
    const parts = patterns(500, 500, 500);
    const plain = deliver(new ShardRig(noUso), parts);
    expect(plain.map((f) => f.payload)).toEqual(parts);
    const rig = new ShardRig();
    rig.usoResult = -Errno.EINVAL;
    const refused = deliver(rig, parts);
    expect(shapes(refused)).toEqual([
      [500, 0],
      [500, 0],
      [500, 0],
    ]);
    expect(refused.map((f) => f.payload)).toEqual(parts);
    expect(rig.ctx.guest.uso).toBe(false);
  });

  it('two flows in turn: each datagram to its flow, none is kept after flush()', () => {
    const rig = new ShardRig();
    const { udp } = begin(rig);
    for (const port of [1, 2]) udp.onPacket(rig.packet(udpPacket(GUEST, port, PEER, 9, [1])));
    const flows = rig
      .takeMessages()
      .filter((m) => opOf(m) === ToHost.openUdp)
      .map((m) => flowOf(m));
    for (const i of [0, 1, 0, 1]) {
      udp.onMessage(ToShard.datagram, rig.datagram(flows[i]!, pattern(50, i)), 0);
    }
    expect(rig.takeSent()).toHaveLength(3);
    udp.flush();
    const last = rig.takeSent();
    expect(last).toHaveLength(1);
    expect(readUdp(readIp(last[0]!.bytes)).dstPort).toBe(2);
  });

  it('an error after datagrams of its flow: sent after them', () => {
    const rig = new ShardRig();
    const { udp } = begin(rig);
    udp.onPacket(rig.packet(udpPacket(GUEST, 5, PEER, 9, [1])));
    const flow = flowOf(rig.takeMessages()[0]);
    udp.onMessage(ToShard.datagram, rig.datagram(flow, pattern(9)), 0);
    const error = rig.icmpError(flow, (3 << 8) | 3);
    udp.onMessage(ToShard.icmpError, error, 0);
    expect(rig.takeSent().map((s) => s.bytes[9])).toEqual([17, 1]);
  });

  it.each([
    ['inside the small slot', 400, 3],
    ['across both slots', 700, 12],
    ['of a byte', 1, 2100],
    ['up to the MTU', 1472, 40],
  ])(
    'several datagrams in one message, %s: one frame, or cut into datagrams without USO',
    (_name, size, count) => {
      const payload = pattern(size * count - (size > 1 ? 1 : 0));
      const passed = deliver(new ShardRig(), [payload], { gsoSize: size });
      expect(shapes(passed)).toEqual([[payload.length, size]]);
      expect(passed[0]!.payload).toEqual(payload);
      const cut = deliver(new ShardRig(noUso), [payload], { gsoSize: size });
      expect(cut).toHaveLength(count);
      expect(cut.slice(0, -1).every((f) => f.payload.length === size)).toBe(true);
      expect(whole(cut.map((f) => f.payload))).toEqual(payload);
    },
  );
});

describe('UDP flow time-outs', () => {
  it('no reply: 30 s after the last datagram', () => {
    const { rig, udp } = begin();
    udp.onPacket(rig.packet(udpPacket(GUEST, 5000, PEER, 9, [1])));
    runTimers(rig, udp, 20_000);
    udp.onPacket(rig.packet(udpPacket(GUEST, 5000, PEER, 9, [1])));
    rig.takeMessages();
    runTimers(rig, udp, 49_000);
    expect(rig.takeMessages()).toEqual([]);
    runTimers(rig, udp, 50_100);
    expect(rig.takeMessages().map((m) => opOf(m))).toEqual([ToHost.close]);
  });

  it('one question, one answer: 30 s; a conversation: 120 s', () => {
    const { rig, udp } = begin();
    for (const port of [1, 2]) udp.onPacket(rig.packet(udpPacket(GUEST, port, PEER, 9, [1])));
    const flows = rig
      .takeMessages()
      .filter((m) => opOf(m) === ToHost.openUdp)
      .map((m) => flowOf(m));
    for (const flow of [flows[0]!, flows[1]!, flows[1]!]) {
      udp.onMessage(ToShard.datagram, rig.datagram(flow, pattern(9)), 0);
    }
    runTimers(rig, udp, 30_100);
    expect(rig.takeMessages().map((m) => [opOf(m), flowOf(m)])).toEqual([[ToHost.close, flows[0]]]);
    runTimers(rig, udp, 120_100);
    expect(rig.takeMessages().map((m) => [opOf(m), flowOf(m)])).toEqual([[ToHost.close, flows[1]]]);
  });
});

/** Address of the host that the peers of a published port write to. */
const LISTENER = '203.0.113.5';

describe('published UDP ports', () => {
  const listener = (rig: ShardRig, peer: string, port: number, payload: Uint8Array, index = 3): Message => {
    const { slotA, slotB, bytes } = rig.hostPayload(payload);
    const addresses = Uint32Array.from([...words(peer), ...words(LISTENER), ...words(GUEST)]);
    listenerDatagramGuestWrite(rig.u8, rig.pool.slotAt(slotA), addresses, 8);
    const ports = ((port << 16) | 8080) >>> 0;
    return message((out) =>
      listenerDatagramWrite(out, index, 0, slotA, slotB, HEADROOM_BYTES, bytes, ports, addresses, 0),
    );
  };

  it('two published ports of one guest port, one peer port: two flows, the second with another port, each answered through its own', () => {
    const { rig, udp } = begin();
    const from = (index: number, bytes: number): void => {
      const m = listener(rig, PEER, 7000, pattern(bytes), index);
      udp.onMessage(ToShard.listenerDatagram, m, 0);
      udp.flush();
    };
    const seen = (): number => readUdp(readIp(rig.takeSent()[0]!.bytes)).srcPort;
    from(3, 20);
    expect(seen()).toBe(7000);
    from(4, 20);
    const other = seen();
    expect(other).toBeGreaterThanOrEqual(49152);
    // Each flow keeps its port.
    from(3, 20);
    expect(seen()).toBe(7000);
    from(4, 20);
    expect(seen()).toBe(other);
    for (const [port, index] of [
      [7000, 3],
      [other, 4],
    ] as const) {
      udp.onPacket(rig.packet(udpPacket(GUEST, 8080, PEER, port, pattern(5))));
      const [reply] = rig.takeMessages();
      expect(toHostText(reply!)).toBe(`sendFromListener ${index} from ${LISTENER} to ${PEER}:7000, 5 bytes`);
      give(rig, reply!);
    }
    runTimers(rig, udp, 200_000);
    expect(rig.ctx.flows.count).toBe(0);
    expect(rig.missingSlots).toBe(0);
    // The peer's own port is free again.
    from(4, 20);
    expect(seen()).toBe(7000);
  });

  it('three published ports, one peer port: three ports; each is kept when another flow ends', () => {
    const { rig, udp } = begin();
    const seen = (index: number): number => {
      const m = listener(rig, PEER, 7000, pattern(20), index);
      udp.onMessage(ToShard.listenerDatagram, m, 0);
      udp.flush();
      return readUdp(readIp(rig.takeSent()[0]!.bytes)).srcPort;
    };
    const ports = [3, 4, 5].map(seen);
    expect(new Set(ports).size).toBe(3);
    expect(ports[0]).toBe(7000);
    runTimers(rig, udp, 20_000);
    expect([3, 5].map(seen)).toEqual([7000, ports[2]]);
    runTimers(rig, udp, 31_000);
    expect(rig.ctx.flows.count).toBe(2); // the second is gone
    expect([3, 5].map(seen)).toEqual([7000, ports[2]]);
    expect(rig.ctx.flows.count).toBe(2);
    expect(seen(4)).toBe(ports[1]);
  });

  it('two published ports, the first flow ends: the second keeps its port; a peer that has that port gets another', () => {
    const { rig, udp } = begin();
    const seen = (index: number, port = 7000): number => {
      const m = listener(rig, PEER, port, pattern(20), index);
      udp.onMessage(ToShard.listenerDatagram, m, 0);
      udp.flush();
      return readUdp(readIp(rig.takeSent()[0]!.bytes)).srcPort;
    };
    const [first, second] = [seen(3), seen(4)];
    expect(first).toBe(7000);
    expect(seen(4, second)).not.toBe(second);
    runTimers(rig, udp, 20_000);
    expect(seen(4)).toBe(second);
    runTimers(rig, udp, 31_000);
    expect(rig.ctx.flows.count).toBe(1);
    expect(seen(4)).toBe(second);
    expect(rig.ctx.flows.count).toBe(1);
  });

  it('a peer sends, is answered, then idle: its own address is shown, the listener answers, the flow ends without close', () => {
    const { rig, udp } = begin();
    udp.onMessage(ToShard.listenerDatagram, listener(rig, PEER, 7000, pattern(20)), 0);
    udp.flush();
    const ip = readIp(rig.takeSent()[0]!.bytes);
    expect(ip).toMatchObject({ src: PEER, dst: GUEST });
    expect(readUdp(ip)).toEqual({ srcPort: 7000, dstPort: 8080, payload: pattern(20) });

    udp.onPacket(rig.packet(udpPacket(GUEST, 8080, PEER, 7000, pattern(5))));
    const [reply, ...rest] = rig.takeMessages();
    expect(rest).toEqual([]);
    expect(toHostText(reply!)).toBe(`sendFromListener 3 from ${LISTENER} to ${PEER}:7000, 5 bytes`);
    expect(rig.payloadOf(reply!)).toEqual(pattern(5));
    give(rig, reply!);

    runTimers(rig, udp, 31_000);
    expect(rig.takeMessages()).toEqual([]);
    expect(rig.ctx.flows.count).toBe(0);
    expect(rig.missingSlots).toBe(0);
  });

  it('peer on host loopback: shown as the mapped address, answered at its own address', () => {
    const { rig, udp } = begin();
    udp.onMessage(ToShard.listenerDatagram, listener(rig, '127.0.0.1', 7000, pattern(2)), 0);
    udp.flush();
    expect(readIp(rig.takeSent()[0]!.bytes).src).toBe('10.0.2.4');
    udp.onPacket(rig.packet(udpPacket(GUEST, 8080, '10.0.2.4', 7000, [1])));
    const reply = rig.takeMessages()[0]!;
    expect(toHostText(reply)).toBe(`sendFromListener 3 from ${LISTENER} to 127.0.0.1:7000, 1 bytes`);
    expect(slotBOf(reply)).toBe(NO_SLOT);
  });
});

describe('unsolicited datagrams to a guest port (endpoint-independent filtering)', () => {
  const stranger = (
    rig: ShardRig,
    peer: number[],
    port: number,
    guest: number[],
    payload: Uint8Array,
  ): Message => {
    const { slotA, slotB, bytes } = rig.hostPayload(payload);
    const both = Uint32Array.from([...peer, ...guest]);
    const ports = ((port << 16) | 5000) >>> 0;
    return message((out) =>
      unsolicitedDatagramWrite(out, slotA, slotB, HEADROOM_BYTES, bytes, 0, ports, both, 0, 4),
    );
  };

  it.each([
    ['IPv4', words(PEER), words(GUEST), PEER, GUEST],
    ['IPv6', words(PEER6), words(GUEST6), PEER6, GUEST6],
    ['the host loopback', words('127.0.0.1'), words(GUEST), '10.0.2.4', GUEST],
  ])(
    "%s: delivered, shares the socket, and the guest's answer uses the same flow",
    (_, peer, guest, seen, to) => {
      const { rig, udp } = begin();
      udp.onMessage(ToShard.unsolicitedDatagram, stranger(rig, peer, 7000, guest, pattern(20)), 0);
      udp.onMessage(ToShard.unsolicitedDatagram, stranger(rig, peer, 7000, guest, pattern(21)), 0);
      udp.flush();
      const [open, ...others] = rig.takeMessages().filter((m) => opOf(m) !== ToHost.freeSlots);
      expect(others).toEqual([]);
      expect(opOf(open)).toBe(ToHost.openUdp);
      expect(Array.from(open!.subarray(openRemoteAt(0), openRemoteAt(0) + 4))).toEqual(peer);
      expect([openRemotePort(open!, 0), openUdpGuestPort(open!, 0)]).toEqual([7000, 5000]);
      expect(Array.from(open!.subarray(openUdpGuestAt(0), openUdpGuestAt(0) + 4))).toEqual(guest);
      const sent = rig.takeSent();
      expect(sent).toHaveLength(2);
      const ip = readIp(sent[0]!.bytes);
      expect(ip).toMatchObject({ src: seen, dst: to });
      expect(readUdp(ip)).toEqual({ srcPort: 7000, dstPort: 5000, payload: pattern(20) });
      udp.onPacket(rig.packet(udpPacket(to, 5000, seen, 7000, pattern(3))));
      const [reply, ...rest] = rig.takeMessages();
      expect(rest).toEqual([]);
      expect([opOf(reply), flowOf(reply)]).toEqual([ToHost.sendDatagram, flowOf(open)]);
      give(rig, reply!);
      expect(rig.missingSlots).toBe(0);
    },
  );

  it('many peers: half of the flow table is kept for the guest', () => {
    const { rig, udp } = begin();
    const flows = rig.ctx.flows.maxFlows;
    for (let i = 0; i < flows; i++) {
      udp.onMessage(
        ToShard.unsolicitedDatagram,
        stranger(rig, words(PEER), 7000 + i, words(GUEST), pattern(1)),
        0,
      );
    }
    expect(rig.ctx.flows.count).toBeLessThanOrEqual(flows / 2);
    expect(rig.ctx.flows.freeCount).toBeGreaterThan(0);
    expect(rig.counter(Counter.flowsGaveWay)).toBeGreaterThan(0);
    rig.takeMessages();
    udp.flush();
    expect(rig.missingSlots).toBe(0);
  });
});

describe('ICMP port unreachable of the guest', () => {
  /** Port unreachable about a datagram from remote:53000 to guest:5000. */
  const unreachable = (from: string, guest: string, remote: string): Uint8Array => {
    const v6 = guest.includes(':');
    const quoted = udpPacket(remote, 53_000, guest, 5000, pattern(20));
    const body = [v6 ? 1 : 3, v6 ? 4 : 3, 0, 0, 0, 0, 0, 0, ...quoted];
    return Uint8Array.from(ipPacket(from, remote, v6 ? 58 : 1, body));
  };

  it.each([
    [GUEST, PEER],
    [GUEST6, PEER6],
  ])('%s: the socket to %s closes, and another datagram opens a new one', (guest, remote) => {
    const { rig, udp } = begin();
    const datagram = (): Uint8Array => Uint8Array.from(udpPacket(guest, 5000, remote, 53_000, pattern(3)));
    const first = rig.packet(datagram());
    const { hash } = first;
    udp.onPacket(first);
    for (const m of rig.takeMessages()) if (opOf(m) === ToHost.sendDatagram) give(rig, m);
    const error = rig.packet(unreachable(guest, guest, remote));
    error.hash = hash; // the reader computes it from the quoted packet
    expect(udp.onUnreachable(error)).toBe(true);
    expect(rig.takeMessages().map((m) => opOf(m))).toEqual([ToHost.close]);
    expect(rig.ctx.counters[Counter.portsClosedByGuest]).toBe(1);
    udp.onPacket(rig.packet(datagram()));
    expect(rig.takeMessages().map((m) => opOf(m))).toEqual([ToHost.openUdp, ToHost.sendDatagram]);
  });

  it('about the port of another address, or truncated: ignored', () => {
    const { rig, udp } = begin();
    const first = rig.packet(Uint8Array.from(udpPacket(GUEST, 5000, PEER, 53_000, pattern(3))));
    const { hash } = first;
    udp.onPacket(first);
    rig.takeMessages();
    const whole = unreachable(GUEST, GUEST, PEER);
    for (const packet of [unreachable('10.0.2.16', GUEST, PEER), whole.slice(0, 20 + 8 + 23)]) {
      const error = rig.packet(packet);
      error.hash = hash;
      expect(udp.onUnreachable(error)).toBe(false);
    }
    expect(rig.takeMessages()).toEqual([]);
  });
});
