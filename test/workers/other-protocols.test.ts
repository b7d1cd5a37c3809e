// @vitest: beside
/** Packets of IP protocols that are not carried: answered as by a host without the protocol. */
import { describe, expect, it } from 'vitest';
import { Counter } from '../../src/ring/counters.ts';
import { StageDrop } from '../../src/workers/link/stage-drop.ts';
import { OtherProtocols } from '../../src/workers/translator/other-protocols.ts';
import { checksum, ip6, ipPacket, pseudoHeader } from '../support/packets.ts';
import { ShardRig } from '../support/shard-rig.ts';

const SCTP = 132;
const UDPLITE = 136;
/** Offset of the byte that names the protocol in an IPv6 header without extension headers. */
const NEXT_HEADER = 6;
const payload = [0x12, 0x34, 0, 80, 0, 0, 0, 0, 1, 2, 3, 4];

function rig(): { rig: ShardRig; refuse: (ip: Uint8Array, nextHeaderAt?: number) => void } {
  const r = new ShardRig();
  const other = new OtherProtocols(r.ctx);
  return { rig: r, refuse: (ip, nextHeaderAt = NEXT_HEADER) => other.refuse(r.packet(ip), nextHeaderAt) };
}

describe('an IP protocol that is not carried', () => {
  it('IPv4: protocol unreachable from the destination, which quotes the packet', () => {
    const { rig: r, refuse } = rig();
    const ip = ipPacket('10.0.2.15', '192.0.2.7', UDPLITE, payload);
    refuse(ip);
    const [sent] = r.takeSent();
    const b = sent!.bytes;
    expect(Array.from(b.subarray(12, 20))).toEqual([192, 0, 2, 7, 10, 0, 2, 15]);
    expect([b[9], b[20], b[21]]).toEqual([1, 3, 2]);
    expect(Array.from(b.subarray(28))).toEqual(Array.from(ip));
    expect(checksum(b.subarray(20))).toBe(0);
    expect([r.drops(StageDrop.ipProtocol), r.counter(Counter.icmpErrorsToGuest)]).toEqual([1, 1]);
    expect(r.missingSlots).toBe(0);
  });

  it('IPv6: parameter problem, unrecognised next header, with its offset', () => {
    const { rig: r, refuse } = rig();
    const ip = ipPacket('fd00::15', '2001:db8::7', SCTP, payload);
    refuse(ip);
    const [sent] = r.takeSent();
    const b = sent!.bytes;
    expect(Array.from(b.subarray(8, 40))).toEqual([...ip6('2001:db8::7'), ...ip6('fd00::15')]);
    expect([b[6], b[40], b[41]]).toEqual([58, 4, 1]);
    expect(Array.from(b.subarray(44, 48))).toEqual([0, 0, 0, NEXT_HEADER]);
    expect(Array.from(b.subarray(48))).toEqual(Array.from(ip));
    const message = b.subarray(40);
    const sum = checksum([...pseudoHeader('2001:db8::7', 'fd00::15', 58, message.length), ...message]);
    expect(sum).toBe(0);
  });

  it.each([
    ['multicast', '10.0.2.15', '224.0.0.1'],
    ['the broadcast address', '10.0.2.15', '255.255.255.255'],
    ['the broadcast address of the subnet', '10.0.2.15', '10.0.2.255'],
    ['loopback', '10.0.2.15', '127.0.0.1'],
    ['an IPv6 group', 'fd00::15', 'ff02::1'],
    ['a peer, from the unspecified address', '0.0.0.0', '192.0.2.7'],
    ['a peer, from the unspecified IPv6 address', '::', '2001:db8::7'],
  ])('to %s: counted, no error', (_, from, to) => {
    const { rig: r, refuse } = rig();
    refuse(ipPacket(from, to, SCTP, payload));
    expect(r.takeSent()).toEqual([]);
    expect(r.drops(StageDrop.ipProtocol)).toBe(1);
    expect(r.missingSlots).toBe(0);
  });

  it('a flood: 50 errors at once, then 100 a second', () => {
    const { rig: r, refuse } = rig();
    const flood = (): number => {
      for (let i = 0; i < 100; i++) refuse(ipPacket('10.0.2.15', '192.0.2.7', SCTP, payload));
      return r.takeSent().length;
    };
    expect([flood(), flood()]).toEqual([50, 0]);
    r.ctx.now += 200;
    expect(flood()).toBe(20);
    r.ctx.now += 3_600_000;
    expect(flood()).toBe(50);
    expect(r.drops(StageDrop.ipProtocol)).toBe(400);
  });
});
