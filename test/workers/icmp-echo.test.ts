// @vitest: beside
import { describe, expect, it } from 'vitest';
import { Drop } from '../../src/proto/drop.ts';
import { Errno } from '../../src/sys/constants.ts';
import { StageDrop } from '../../src/workers/link/stage-drop.ts';
import { openPingFamily, ToHost } from '../../src/workers/link/to-host.ts';
import { closedWrite, openFailedWrite, ToShard } from '../../src/workers/link/to-shard.ts';
import { TIMER_KINDS } from '../../src/workers/translator/context.ts';
import { PingTranslator } from '../../src/workers/translator/icmp-echo.ts';
import { flowOf, message, opOf, slotAOf, slotBOf, toHostTexts } from '../support/message.ts';
import { echoMessage, echoPacket, icmpChecksumOk, ipPacket, pattern, readIp } from '../support/packets.ts';
import { ShardRig, TEST_PLAN } from '../support/shard-rig.ts';

const GUEST = '10.0.2.15';
const GUEST6 = 'fd00::15';

function begin(): { rig: ShardRig; ping: PingTranslator } {
  const rig = new ShardRig();
  return { rig, ping: new PingTranslator(rig.ctx) };
}

describe('echo to our own addresses', () => {
  it.each([
    [GUEST, '10.0.2.2'],
    [GUEST, '10.0.2.3'],
    [GUEST, '10.0.2.4'],
    [GUEST6, 'fd00::2'],
    [GUEST6, 'fe80::2'],
  ])('%s -> %s: answered, checksums right, data unchanged, in fragments above the MTU', (guest, ours) => {
    const { rig, ping } = begin();
    const v6 = guest.includes(':');
    for (const bytes of [0, 56, 1401, 4001]) {
      ping.onPacket(rig.packet(echoPacket(guest, ours, v6 ? 128 : 8, 77, 3, pattern(bytes), { ttl: 9 })));
      const frames = rig.takeSent().map((s) => s.bytes);
      for (const frame of frames) expect(frame.length).toBeLessThanOrEqual(TEST_PLAN.addresses.mtu);
      const packets = frames.map(readIp);
      expect(packets).toHaveLength(bytes > 1472 ? 3 : 1);
      for (const ip of packets) expect(ip).toMatchObject({ src: ours, dst: guest, ttl: 64 });
      const whole = { ...packets[0]!, upper: Uint8Array.from(packets.flatMap((p) => Array.from(p.upper))) };
      expect(whole.upper[0]).toBe(v6 ? 129 : 0);
      expect(icmpChecksumOk(whole)).toBe(true);
      expect(whole.upper.slice(4)).toEqual(Uint8Array.from([0, 77, 0, 3, ...pattern(bytes)]));
    }
    expect(rig.takeMessages()).toEqual([]);
    expect(rig.missingSlots).toBe(0);
  });

  it('with IPv4 options: answered without them', () => {
    const { rig, ping } = begin();
    // 07 0b 04 ...  record route, length 11, pointer 4; 00 padding
    const o = { options: [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0] };
    ping.onPacket(rig.packet(echoPacket(GUEST, '10.0.2.2', 8, 1, 1, pattern(8), o)));
    const [sent] = rig.takeSent();
    expect(sent!.bytes[0]).toBe(0x45);
    expect(sent!.bytes).toHaveLength(20 + 8 + 8);
    const ip = readIp(sent!.bytes);
    expect(ip).toMatchObject({ src: '10.0.2.2', dst: GUEST });
    expect(icmpChecksumOk(ip)).toBe(true);
    expect(rig.missingSlots).toBe(0);
  });

  it('corrupt: dropped, not answered', () => {
    const { rig, ping } = begin();
    const packet = echoPacket(GUEST, '10.0.2.2', 8, 1, 1, pattern(8));
    packet[30]! ^= 1;
    ping.onPacket(rig.packet(packet));
    expect(rig.takeSent()).toEqual([]);
    expect(rig.drops(Drop.icmpChecksum)).toBe(1);
    expect(rig.missingSlots).toBe(0);
  });
});

describe('echo to other hosts', () => {
  it.each([
    [GUEST, '192.0.2.7', 8, 0],
    [GUEST6, '2001:db8::7', 128, 129],
  ])(
    "%s -> %s: one flow per identifier; the reply has the guest's identifier",
    (guest, far, request, reply) => {
      const { rig, ping } = begin();
      ping.onPacket(rig.packet(echoPacket(guest, far, request, 0x4d2, 1, pattern(3000), { ttl: 5 })));
      ping.onPacket(rig.packet(echoPacket(guest, far, request, 0x4d2, 2, pattern(8), { ttl: 5 })));
      ping.onPacket(rig.packet(echoPacket(guest, far, request, 0x4d3, 1, pattern(8))));
      const messages = rig.takeMessages();
      const ops = messages.map((m) => opOf(m));
      const { openPing, sendDatagram } = ToHost;
      expect(ops).toEqual([openPing, sendDatagram, sendDatagram, openPing, sendDatagram]);
      expect(openPingFamily(messages[0]!, 0)).toBe(guest.includes(':') ? 6 : 4);
      expect(toHostTexts(messages.slice(0, 3))).toEqual([
        `openPing flow ${flowOf(messages[0])} to ${far}`,
        `sendDatagram flow ${flowOf(messages[0])}, 3008 bytes, ttl 5, fragment never`,
        `sendDatagram flow ${flowOf(messages[0])}, 16 bytes`,
      ]);
      expect(rig.payloadOf(messages[1]!).slice(4)).toEqual(
        Uint8Array.from([4, 0xd2, 0, 1, ...pattern(3000)]),
      );
      for (const m of messages) rig.ctx.freeReaderSlots(slotAOf(m), slotBOf(m));

      // What the kernel hands over: its own identifier, and for IPv6 a checksum over the host's addresses.
      for (const bytes of [0, 57, 3001]) {
        const echo = Uint8Array.from(echoMessage(far, far, reply, 999, 1, pattern(bytes)));
        const m = rig.datagram(flowOf(messages[0]), echo, { ttl: 53 });
        ping.onMessage(ToShard.datagram, m, 0);
        const packets = rig.takeSent().map((s) => readIp(s.bytes));
        expect(packets[0]).toMatchObject({ src: far, dst: guest, ttl: 53 });
        if (packets.length === 1) {
          expect(icmpChecksumOk(packets[0]!)).toBe(true);
          expect(packets[0]!.upper.slice(4)).toEqual(Uint8Array.from([4, 0xd2, 0, 1, ...pattern(bytes)]));
        } else {
          const upper = Uint8Array.from(packets.flatMap((p) => Array.from(p.upper)));
          expect(icmpChecksumOk({ ...packets[0]!, upper })).toBe(true);
        }
      }
      expect(rig.missingSlots).toBe(0);
    },
  );

  it('time exceeded: the guest gets it from the router, quoting its identifier and sequence', () => {
    const { rig, ping } = begin();
    ping.onPacket(rig.packet(echoPacket(GUEST, '192.0.2.7', 8, 0x4d2, 9, pattern(8))));
    const flow = flowOf(rig.takeMessages()[0]);
    const error = rig.icmpError(flow, 11 << 8, { offender: '198.51.100.1', sequence: 9 });
    ping.onMessage(ToShard.icmpError, error, 0);
    const ip = readIp(rig.takeSent()[0]!.bytes);
    expect(ip).toMatchObject({ src: '198.51.100.1', dst: GUEST });
    expect(icmpChecksumOk(ip)).toBe(true);
    expect(Array.from(ip.upper.slice(28))).toEqual([8, 0, 0, 0, 4, 0xd2, 0, 9]);
  });

  it('ping sockets forbidden: one log line, the echo is dropped, the flow ends', () => {
    const { rig, ping } = begin();
    for (const id of [1, 2]) {
      ping.onPacket(rig.packet(echoPacket(GUEST, '192.0.2.7', 8, id, 1, [])));
      const flow = flowOf(rig.takeMessages()[0]);
      const failed = message((out) => openFailedWrite(out, flow, Errno.EACCES));
      ping.onMessage(ToShard.openFailed, failed, 0);
      expect(rig.takeMessages().map((m) => opOf(m))).toEqual([ToHost.close]);
      const closed = message((out) => closedWrite(out, flow));
      ping.onMessage(ToShard.closed, closed, 0);
    }
    expect(rig.logs).toHaveLength(1);
    expect(rig.logs[0]).toContain('ping_group_range');
    expect(rig.drops(StageDrop.pingForbidden)).toBe(2);
    expect(rig.takeSent()).toEqual([]);
    expect(rig.ctx.flows.count).toBe(0);
  });

  it('idle: closed after the time of the policy', () => {
    const { rig, ping } = begin();
    ping.onPacket(rig.packet(echoPacket(GUEST, '192.0.2.7', 8, 1, 1, [])));
    rig.takeMessages();
    rig.ctx.now = 60_100;
    rig.ctx.timers.advance(60_100, (id) => ping.onTimer(Math.floor(id / TIMER_KINDS), id % TIMER_KINDS));
    expect(rig.takeMessages().map((m) => opOf(m))).toEqual([ToHost.close]);
  });
});

it('other ICMP of the guest: dropped', () => {
  const { rig, ping } = begin();
  ping.onPacket(rig.packet(ipPacket(GUEST, '192.0.2.7', 1, [3, 3, 0xfc, 0xfc, 0, 0, 0, 0])));
  ping.onPacket(rig.packet(echoPacket(GUEST, '192.0.2.7', 0, 1, 1, [])));
  ping.onPacket(rig.packet(echoPacket(GUEST, '224.0.0.1', 8, 1, 1, [])));
  expect(rig.drops(StageDrop.notCarried)).toBe(2);
  expect(rig.drops(StageDrop.group)).toBe(1);
  expect(rig.takeMessages()).toEqual([]);
  expect(rig.missingSlots).toBe(0);
});
