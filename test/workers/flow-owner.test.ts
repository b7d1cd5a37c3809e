// @vitest: beside
import { describe, expect, it } from 'vitest';
import { IpProtocol } from '../../src/proto/ipv4.ts';
import { BUCKETS, PORTS, ROOM_WORDS } from '../../src/ring/layout.ts';
import type { ThreadsPlan } from '../../src/workers/engine-plan.ts';
import { flowHash, type HashKey, shardOf } from '../../src/workers/flow/flow-hash.ts';
import { divideBuckets, FIRST_LANE, FlowOwners } from '../../src/workers/flow/flow-owner.ts';
import { addressWords } from '../support/packets.ts';

const KEY: HashKey = [0x12345678, 0x9abcdef0];
const FUSED: ThreadsPlan = { kind: 'fused' };
const PIPELINE: ThreadsPlan = { kind: 'pipeline', shards: 3 };
const lanes = (n: number): ThreadsPlan => ({ kind: 'lanes', lanes: n });
interface Tables {
  readonly threads: ThreadsPlan;
  readonly laneOf: Uint16Array;
  readonly publishedUdp: Uint16Array;
  readonly room: Int32Array;
}
const tables = (threads: ThreadsPlan): Tables => {
  const laneOf = new Uint16Array(BUCKETS + 1);
  if (threads.kind === 'lanes') divideBuckets(laneOf, threads.lanes);
  return { threads, laneOf, publishedUdp: new Uint16Array(PORTS), room: new Int32Array(ROOM_WORDS) };
};
const owners = (t: Tables, key = KEY): FlowOwners => new FlowOwners(t.threads, key, t);
/** Lane of all UDP flows of a guest's port. */
const udpLane = (o: FlowOwners, port: number): number => o.of(0x87654321, IpProtocol.udp, portsOf(port, 9));

const GUEST = addressWords('192.0.2.15');
const REMOTE = addressWords('198.51.100.7');
const portsOf = (guestPort: number, remotePort: number): number => ((guestPort << 16) | remotePort) >>> 0;
const hashOf = (ports: number, proto: number): number => flowHash(KEY, GUEST, 0, REMOTE, 0, ports, proto);

/** Number of flows of each lane. */
function spread(n: number, flows: readonly number[], ownerOf: (flow: number) => number): number[] {
  const counts = new Array<number>(n).fill(0);
  for (const flow of flows) counts[ownerOf(flow)]!++;
  return counts;
}
const range = (from: number, count: number, step = 1): number[] =>
  Array.from({ length: count }, (_, i) => from + i * step);

describe.each([2, 3, 5, 8])('%i lanes', (n) => {
  const o = owners(tables(lanes(n)));
  const even = (counts: readonly number[], flows: number): void => {
    // Five standard deviations of a binomial distribution.
    const slack = 5 * Math.sqrt((flows / n) * (1 - 1 / n));
    for (const count of counts) expect(Math.abs(count - flows / n)).toBeLessThan(slack);
  };

  it('TCP flows of consecutive guest ports: each lane has its part', () => {
    const ports = range(32_768, 8000);
    even(
      spread(n, ports, (port) => o.ofHash(hashOf(portsOf(port, 443), IpProtocol.tcp))),
      ports.length,
    );
  });

  it.each([
    ['consecutive', 1],
    ['even', 2],
    ['every 16th', 16],
    ['every 256th', 256],
  ])('UDP flows of %s guest ports: each lane has its part', (_name, step) => {
    const count = Math.min(2000, Math.floor(65_000 / step));
    const ports = range(100, count, step);
    even(
      spread(n, ports, (port) => udpLane(o, port)),
      count,
    );
  });

  it('all UDP flows of a guest port belong to one lane, whatever the remote end', () => {
    for (const port of [1, 53, 5000, 65_535]) {
      const lane = udpLane(o, port);
      for (const remote of range(1, 200, 300)) {
        const ports = portsOf(port, remote);
        expect(o.of(hashOf(ports, IpProtocol.udp), IpProtocol.udp, ports)).toBe(lane);
      }
    }
  });

  it('TCP and ping flows: by the upper bits of the hash', () => {
    for (const port of range(1, 100, 77))
      for (const proto of [IpProtocol.tcp, IpProtocol.icmp, IpProtocol.icmpv6]) {
        const hash = hashOf(portsOf(port, 80), proto);
        expect(o.of(hash, proto, portsOf(port, 80))).toBe(o.laneOf(Math.floor(hash / (2 ** 32 / BUCKETS))));
      }
  });

  it('another instance, as another thread has it, names the same owners', () => {
    const other = owners(tables(lanes(n)));
    for (const port of range(0, PORTS, 7)) expect(udpLane(other, port)).toBe(udpLane(o, port));
  });

  it('another key: other owners of some UDP ports', () => {
    const other = owners(tables(lanes(n)), [0x0bad_cafe, 1]);
    expect(range(0, 200).some((port) => udpLane(other, port) !== udpLane(o, port))).toBe(true);
  });

  it('a published UDP port: the first lane, while it is published', () => {
    const t = tables(lanes(n));
    const published = t.publishedUdp;
    const some = owners(t);
    const port = range(1, 100).find((p) => udpLane(o, p) === n - 1)!;
    expect(udpLane(some, port)).toBe(n - 1);
    published[port] = 2;
    expect(udpLane(some, port)).toBe(0);
    expect(some.of(1, IpProtocol.udp, portsOf(port, 9))).toBe(0);
    published[port]!--;
    expect(udpLane(some, port)).toBe(0);
    published[port]!--;
    expect(udpLane(some, port)).toBe(n - 1);
  });

  it('a frame without a flow, hash 0: the first lane', () => {
    const t = tables(lanes(n));
    t.laneOf.fill(n - 1, 0, BUCKETS);
    expect(owners(t).ofHash(0)).toBe(0);
    expect(owners(t).ofHash(1)).toBe(n - 1);
  });

  it('divideBuckets: each lane owns its part', () => {
    for (const lane of range(0, n)) {
      const owned = range(0, BUCKETS).filter((bucket) => o.laneOf(bucket) === lane).length;
      expect(owned).toBeGreaterThanOrEqual(Math.floor(BUCKETS / n));
      expect(owned).toBeLessThanOrEqual(Math.ceil(BUCKETS / n));
    }
  });

  it('buckets without flows are given away, at most a share; those in use and those of others stay', () => {
    const t = tables(lanes(n));
    t.laneOf.fill(0, 0, 100);
    const some = owners(t);
    const mine = range(0, BUCKETS).filter((bucket) => some.laneOf(bucket) === 0);
    const inUse = new Uint8Array(BUCKETS);
    for (const bucket of mine.slice(10)) inUse[bucket] = 1;
    expect(some.give(0, [n - 1], inUse, 4 / mine.length)).toBe(mine.length - 4);
    expect(some.give(0, [n - 1], inUse, 1)).toBe(mine.length - 10);
    expect(some.give(0, [n - 1], inUse, 1)).toBe(mine.length - 10);
    expect(mine.filter((bucket) => some.laneOf(bucket) === 0)).toEqual(mine.slice(10));
    expect(some.laneOf(FIRST_LANE)).toBe(0);
    const last = BUCKETS - 1;
    expect(some.laneOf(last)).toBe(n - 1);
  });
});

describe('a bucket that moves', () => {
  const BUCKET = 100;
  const make = (): { o: FlowOwners; t: Tables } => {
    const t = tables(lanes(3));
    return { o: owners(t), t };
  };

  it('its owner does not keep it, and passes on what comes; the next lane owns it after the end', () => {
    const { o } = make();
    const state = (): unknown[] => [
      o.laneOf(BUCKET),
      range(0, 3).map((lane) => o.keeps(lane, BUCKET)),
      range(0, 3).map((lane) => o.nextOf(lane, BUCKET)),
    ];
    expect(state()).toEqual([0, [true, false, false], [0, 0, 0]]);
    o.beginMove(BUCKET, 2);
    // The next lane does not take what comes before the state of the flows, which the owner has sent.
    expect(state()).toEqual([0, [false, false, false], [2, 0, 0]]);
    o.endMove(BUCKET, 2);
    expect(state()).toEqual([2, [false, false, true], [2, 2, 2]]);
  });

  it('the last lane of many, and back', () => {
    const t = tables(lanes(255));
    const o = owners(t);
    o.beginMove(0, 254);
    expect([o.laneOf(0), o.nextOf(0, 0), o.hasAny(254)]).toEqual([0, 254, true]);
    o.endMove(0, 254);
    o.beginMove(0, 0);
    expect([o.laneOf(0), o.nextOf(254, 0), o.nextOf(0, 0)]).toEqual([254, 0, 254]);
    o.endMove(0, 0);
    expect(o.keeps(0, 0)).toBe(true);
  });

  it('is not given away', () => {
    const { o } = make();
    const mine = range(0, BUCKETS).filter((bucket) => o.laneOf(bucket) === 0);
    o.beginMove(BUCKET, 1);
    expect(o.give(0, [2], new Uint8Array(BUCKETS), 1)).toBe(0);
    expect(o.nextOf(0, BUCKET)).toBe(1);
    for (const bucket of mine) expect(o.laneOf(bucket)).toBe(bucket === BUCKET ? 0 : 2);
    // Nor is it counted: half of what is left of the next lane.
    o.beginMove(mine.length + 1, 0);
    const owned = range(0, BUCKETS).filter((bucket) => o.keeps(1, bucket)).length;
    expect(o.give(1, [0], new Uint8Array(BUCKETS), 0.5)).toBe(owned - Math.floor(owned / 2));
  });

  it('hasAny: of the owner until the end, of the next lane from the beginning on', () => {
    const { o, t } = make();
    t.laneOf.fill(1, 0, BUCKETS);
    const any = (): boolean[] => range(0, 3).map((lane) => o.hasAny(lane));
    expect(any()).toEqual([false, true, false]);
    o.beginMove(BUCKETS - 1, 2);
    expect(any()).toEqual([false, true, true]);
    o.give(1, [0], new Uint8Array(BUCKETS), 1);
    expect(any()).toEqual([true, true, true]);
    o.endMove(BUCKETS - 1, 2);
    expect(any()).toEqual([true, false, true]);
  });

  it('flows and UDP ports go to its owner while it moves', () => {
    const { o } = make();
    const port = range(1, 1000).find((p) => udpLane(o, p) === 0)!;
    o.beginMove(o.bucketOfUdp(port), 1);
    expect(udpLane(o, port)).toBe(0);
    o.endMove(o.bucketOfUdp(port), 1);
    expect(udpLane(o, port)).toBe(1);
  });

  it("is still its owner's, who passes on what comes; no new flow begins in it there", () => {
    const o = owners(tables(lanes(2)));
    const ports = portsOf(1000, 80);
    const hash = 7;
    const bucket = o.bucketOfHash(hash);
    const isOf = (): boolean[] => [0, 1].map((lane) => o.isOf(lane, hash, IpProtocol.tcp, ports));
    expect(isOf()).toEqual([true, false]);
    o.beginMove(bucket, 1);
    expect([o.ofHash(hash), o.nextOf(0, bucket), o.nextOf(1, bucket)]).toEqual([0, 1, 0]);
    expect(isOf()).toEqual([false, false]);
    o.endMove(bucket, 1);
    expect([o.ofHash(hash), o.nextOf(0, bucket), o.keeps(1, bucket)]).toEqual([1, 1, true]);
    expect(isOf()).toEqual([false, true]);
  });
});

describe('plans without lanes', () => {
  it.each([
    ['fused', FUSED, 1],
    ['pipeline=3', PIPELINE, 3],
    ['lanes=1', lanes(1), 1],
  ] as const)('%s: all flows by the hash, published ports too', (_name, threads, shards) => {
    const t = tables(threads);
    t.publishedUdp.fill(1);
    const o = owners(t);
    expect([o.shards, o.areLanes]).toEqual([shards, false]);
    for (const port of range(1, 300, 211))
      for (const proto of [IpProtocol.tcp, IpProtocol.udp, IpProtocol.icmp]) {
        const ports = portsOf(port, 53);
        const hash = hashOf(ports, proto);
        expect(o.of(hash, proto, ports)).toBe(shardOf(hash, shards));
      }
  });
});
