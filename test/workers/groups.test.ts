// @vitest: beside
/** Memberships of the guest: reports, leaves, queries, and datagrams to its groups. */
import { describe, expect, it } from 'vitest';
import { Drop } from '../../src/proto/drop.ts';
import { Counter } from '../../src/ring/counters.ts';
import { HEADROOM_BYTES } from '../../src/ring/pool.ts';
import type { TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { groupDatagramWrite } from '../../src/workers/link/to-shard.ts';
import { GroupMembership } from '../../src/workers/translator/groups.ts';
import { message, toHostTexts } from '../support/message.ts';
import { addressWords, checksum, icmp6Packet, ip4, ip6, ipPacket, pattern } from '../support/packets.ts';
import { ShardRig, TEST_PLAN } from '../support/shard-rig.ts';

const PLAN: TapEnginePlan = {
  ...TEST_PLAN,
  policy: { ...TEST_PLAN.policy, multicast: { all: true, groups: [], maxGroups: 3 } },
};
const IGMP = 2;
const GROUP = '239.1.2.3';

class Bed {
  readonly rig = new ShardRig(PLAN);
  readonly groups = new GroupMembership(this.rig.ctx, this.rig.ctx.groups!);
  /** Pass time; general queries are left out of queries(). */
  at(ms: number): this {
    this.rig.ctx.now = ms;
    this.groups.poll(ms);
    return this;
  }
  igmp(...message: number[]): number {
    const sum = checksum(message);
    message[2] = sum >>> 8;
    message[3] = sum & 0xff;
    return this.groups.onIgmp(
      this.rig.packet(ipPacket('10.0.2.15', '224.0.0.22', IGMP, message, { ttl: 1 })),
    );
  }
  mld(...message: number[]): number {
    return this.groups.onMld(this.rig.packet(icmp6Packet('fe80::15', 'ff02::16', message, 1)));
  }
  told(): string[] {
    return toHostTexts(this.rig.takeMessages());
  }
  /** Destinations of the queries so far. */
  queries(): string[] {
    return this.rig.takeSent().map(({ bytes }) => Array.from(bytes.subarray(16, 20)).join('.'));
  }
}

const record = (type: number, group: string, ...sources: string[]): number[] => {
  const bytes = (text: string): number[] => (text.includes(':') ? ip6(text) : ip4(text));
  return [type, 0, 0, sources.length, ...[group, ...sources].flatMap(bytes)];
};
const report3 = (...records: number[][]): number[] => [
  0x22,
  0,
  0,
  0,
  0,
  0,
  0,
  records.length,
  ...records.flat(),
];
const report2 = (...records: number[][]): number[] => [
  143,
  0,
  0,
  0,
  0,
  0,
  0,
  records.length,
  ...records.flat(),
];

describe('reports', () => {
  it.each([
    ['IGMP version 1', [0x12, 0, 0, 0, ...ip4(GROUP)]],
    ['IGMP version 2', [0x16, 0, 0, 0, ...ip4(GROUP)]],
    ['IGMP version 3', report3(record(4, GROUP))],
    ['IGMP version 3, answer to a query', report3(record(2, GROUP))],
  ])('%s: host-io is told', (_name, bytes) => {
    const bed = new Bed();
    expect(bed.igmp(...bytes)).toBe(0);
    expect(bed.told()).toEqual([`group ${GROUP} exclude`]);
  });

  it('MLD version 1 and 2: host-io is told', () => {
    const bed = new Bed();
    bed.mld(131, 0, 0, 0, 0, 0, 0, 0, ...ip6('ff05::7'));
    bed.mld(...report2(record(4, 'ff02::fb'), record(4, 'ff02::1:ff00:15')));
    expect(bed.told()).toEqual(['group ff05::7 exclude', 'group ff02::fb exclude']);
  });

  it('a filter and its changes are kept', () => {
    const bed = new Bed();
    bed.igmp(...report3(record(3, GROUP, '192.0.2.1')));
    bed.at(100).igmp(...report3(record(5, GROUP, '192.0.2.2')));
    bed.at(200).igmp(...report3(record(6, GROUP, '192.0.2.1')));
    bed.at(300).igmp(...report3(record(4, GROUP, '192.0.2.9')));
    bed.at(400).igmp(...report3(record(5, GROUP, '192.0.2.9')));
    bed.at(500).igmp(...report3(record(6, GROUP, '192.0.2.8')));
    expect(bed.told()).toEqual([
      `group ${GROUP} include, 0 of 1: 192.0.2.1`,
      `group ${GROUP} include, 0 of 2: 192.0.2.1`,
      `group ${GROUP} include, 1 of 2: 192.0.2.2`,
      `group ${GROUP} include, 0 of 1: 192.0.2.2`,
      `group ${GROUP} exclude, 0 of 1: 192.0.2.9`,
      `group ${GROUP} exclude`,
      `group ${GROUP} exclude, 0 of 1: 192.0.2.8`,
    ]);
  });

  it('reports faster than every 50 ms: host-io is told the last one, when its time has come', () => {
    const bed = new Bed().at(0);
    for (let i = 1; i < 100; i++) bed.igmp(...report3(record(4, GROUP, `192.0.2.${i}`)));
    expect(bed.told()).toEqual([`group ${GROUP} exclude, 0 of 1: 192.0.2.1`]);
    expect(bed.groups.sleepMs(0)).toBe(50);
    bed.at(49);
    expect(bed.told()).toEqual([]);
    bed.at(50);
    expect(bed.told()).toEqual([`group ${GROUP} exclude, 0 of 1: 192.0.2.99`]);
    expect(bed.groups.sleepMs(50)).toBe(31_200);
  });

  it('the last source is blocked: the group is left', () => {
    const bed = new Bed().at(0);
    bed.igmp(...report3(record(5, GROUP, '192.0.2.1')));
    bed.igmp(...report3(record(6, GROUP, '192.0.2.1')));
    bed.told();
    bed.at(0).at(1000).at(2000);
    expect(bed.told()).toEqual([`group ${GROUP} include`]);
  });

  it('more groups than allowed: not joined, counted, one log line', () => {
    const bed = new Bed();
    bed.igmp(...report3(...[1, 2, 3, 4, 5].map((i) => record(4, `239.0.0.${i}`))));
    bed.mld(...report2(record(4, 'ff05::1')));
    expect(bed.told()).toHaveLength(4);
    expect(bed.rig.counter(Counter.groupsRefused)).toBe(2);
    expect(bed.rig.logs).toEqual([
      'warning: multicast: the guest is a member of 3 groups; further groups are not joined',
    ]);
  });

  it('malformed: dropped with its cause', () => {
    const bed = new Bed();
    expect(bed.igmp(...[...report3(record(4, GROUP)).slice(0, 6), 0, 2, ...record(4, GROUP)])).toBe(
      Drop.groupRecord,
    );
    expect(bed.mld(...[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 9, ...ip6('ff05::1')])).toBe(Drop.groupRecord);
    expect(bed.told()).toEqual([]);
  });
});

describe('queries', () => {
  it('general queries at the start, after 31 s, then every 125 s, of both families', () => {
    const bed = new Bed().at(0);
    expect(bed.rig.takeSent().map(({ bytes, mac }) => [bytes.length, mac])).toEqual([
      [36, Uint8Array.of(1, 0, 0x5e, 0, 0, 1)],
      [76, Uint8Array.of(0x33, 0x33, 0, 0, 0, 1)],
    ]);
    bed.at(31_000);
    expect(bed.rig.takeSent()).toHaveLength(0);
    bed.at(31_250);
    expect(bed.rig.takeSent()).toHaveLength(2);
    bed.at(156_249);
    expect(bed.rig.takeSent()).toHaveLength(0);
    bed.at(156_250);
    expect(bed.rig.takeSent()).toHaveLength(2);
    expect(bed.groups.sleepMs(156_250)).toBe(125_000);
  });

  it('leave: two queries for the group, then the membership ends', () => {
    const bed = new Bed().at(0);
    bed.igmp(0x16, 0, 0, 0, ...ip4(GROUP));
    bed.told();
    bed.queries();
    bed.igmp(0x17, 0, 0, 0, ...ip4(GROUP));
    bed.at(1).at(1001).at(1999);
    expect(bed.queries()).toEqual([GROUP, GROUP]);
    expect(bed.told()).toEqual([]);
    bed.at(2000);
    expect(bed.told()).toEqual([`group ${GROUP} include`]);
  });

  it('leave, and another member of the link reports: the membership stays', () => {
    const bed = new Bed().at(0);
    bed.igmp(0x16, 0, 0, 0, ...ip4(GROUP));
    bed.igmp(0x17, 0, 0, 0, ...ip4(GROUP));
    bed.at(500);
    bed.igmp(0x16, 0, 0, 0, ...ip4(GROUP));
    bed.told();
    bed.at(10_000);
    expect(bed.told()).toEqual([]);
  });

  it('no report for 260 s: the membership ends', () => {
    const bed = new Bed().at(0);
    bed.mld(131, 0, 0, 0, 0, 0, 0, 0, ...ip6('ff05::7'));
    bed.told();
    bed.at(259_999);
    expect(bed.told()).toEqual([]);
    bed.at(260_000);
    expect(bed.told()).toEqual(['group ff05::7 include']);
  });
});

describe('datagrams', () => {
  it.each([
    [GROUP, '192.0.2.7', 100, [1, 0, 0x5e, 1, 2, 3]],
    ['ff02::fb', 'fe80::7', 1400, [0x33, 0x33, 0, 0, 0, 0xfb]],
    ['255.255.255.255', '192.0.2.7', 20, [255, 255, 255, 255, 255, 255]],
  ])('to %s: from the sender itself, to the MAC of the group', (group, from, bytes, mac) => {
    const bed = new Bed();
    const { slotA, slotB } = bed.rig.hostPayload(pattern(bytes));
    const both = Uint32Array.of(...addressWords(from), ...addressWords(group));
    const ports = ((4000 << 16) | 5353) >>> 0;
    const m = message((out) =>
      groupDatagramWrite(out, slotA, slotB, HEADROOM_BYTES, bytes, 255, ports, both, 0),
    );
    bed.groups.onDatagram(m, 0);
    const [sent] = bed.rig.takeSent();
    expect(sent!.mac).toEqual(Uint8Array.from(mac));
    const isV6 = group.includes(':');
    const head = isV6 ? 40 : 20;
    expect(Array.from(sent!.bytes.subarray(head - (isV6 ? 32 : 8), head))).toEqual(
      isV6 ? [...ip6(from), ...ip6(group)] : [...ip4(from), ...ip4(group)],
    );
    expect(sent!.bytes[isV6 ? 7 : 8]).toBe(255);
    expect(Array.from(sent!.bytes.subarray(head, head + 4))).toEqual([
      4000 >>> 8,
      4000 & 255,
      5353 >>> 8,
      5353 & 255,
    ]);
    expect(sent!.bytes.subarray(head + 8)).toEqual(pattern(bytes));
    expect(bed.rig.hostSmall.free).toBe(bed.rig.hostSmall.capacity);
  });

  it('from an address that host and guest share: from the gateway', () => {
    const bed = new Bed();
    const { slotA, slotB } = bed.rig.hostPayload(pattern(10));
    const both = Uint32Array.of(...addressWords('10.0.2.15'), ...addressWords(GROUP));
    const m = message((out) =>
      groupDatagramWrite(out, slotA, slotB, HEADROOM_BYTES, 10, 1, 0x00500050, both, 0),
    );
    bed.groups.onDatagram(m, 0);
    expect(Array.from(bed.rig.takeSent()[0]!.bytes.subarray(12, 16))).toEqual(ip4('10.0.2.2'));
  });
});
