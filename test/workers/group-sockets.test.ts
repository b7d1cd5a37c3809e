// @vitest: beside
/** The host's sockets in groups of the guest, on the loopback interface: no datagram leaves the machine. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Counter } from '../../src/ring/counters.ts';
import type { TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { GroupKind } from '../../src/workers/flow/group-rules.ts';
import { groupWrite, openUdpWrite } from '../../src/workers/link/to-host.ts';
import { groupDatagramTtl, ToShard, toShardText } from '../../src/workers/link/to-shard.ts';
import { datagramBed } from '../support/datagram-bed.ts';
import { freePort, type Peer } from '../support/datagram-peer.ts';
import type { HostRig } from '../support/host-rig.ts';
import { message, opOf } from '../support/message.ts';
import { addressWords, pattern } from '../support/packets.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const GROUP = '239.255.77.77';
const bed = datagramBed();

/** A rig whose sockets are bound to the loopback interface. */
function rig(port: number): HostRig {
  const plan: TapEnginePlan = {
    ...TEST_PLAN,
    policy: {
      ...TEST_PLAN.policy,
      outboundInterface4: 'lo',
      multicast: { all: true, groups: [{ address: GROUP, port }], maxGroups: 20 },
    },
  };
  return bed.rig(plan);
}

/** The guest reports its filter for the group. */
function report(host: HostRig, isInclude: boolean, ...sources: string[]): void {
  const group = addressWords(GROUP);
  for (let i = 0; i < Math.max(1, sources.length); i++) {
    const source = addressWords(sources[i] ?? '0.0.0.0');
    host.groups!.command(
      message((out) => groupWrite(out, isInclude, sources.length, i, group, 0, source, 0)),
      0,
    );
  }
}

async function sender(): Promise<Peer> {
  const peer = await bed.peer();
  peer.socket.setMulticastInterface('127.0.0.1');
  peer.socket.setMulticastTTL(5);
  return peer;
}

/** Poll a little; no message may come. */
async function nothing(host: HostRig): Promise<void> {
  for (let i = 0; i < 20; i++) {
    host.poll();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  expect(host.takeMessages().map((m) => toShardText(m))).toEqual([]);
}

/** Open a flow of the guest to the group. */
function openFlow(host: HostRig, flow: number, port: number, guestPort: number): void {
  const words = Uint32Array.of(...addressWords(GROUP), ...addressWords('10.0.2.15'));
  const ports = ((port << 16) | guestPort) >>> 0;
  host.command((out) => openUdpWrite(out, flow, ports, words, 0, words, 4, 0, false, GroupKind.multicast));
}

describe('memberships', () => {
  it.each([0, 100, 1920, 1921, 60_000])(
    'a datagram of %i bytes: passed on with sender and TTL',
    async (bytes) => {
      const port = await freePort();
      const host = rig(port);
      report(host, false);
      const peer = await sender();
      await peer.send(pattern(bytes), port, GROUP);
      const [m] = await host.messages(1);
      expect(opOf(m)).toBe(ToShard.groupDatagram);
      expect(toShardText(m!)).toBe(
        `groupDatagram, 127.0.0.1:${peer.port} to ${GROUP}:${port}, ${bytes} bytes, ttl 5`,
      );
      expect(groupDatagramTtl(m!, 0)).toBe(5);
      expect(host.shard.payloadOf(m!)).toEqual(pattern(bytes));
      host.free(m!);
      host.close();
      expect(host.shard.hostSmall.free).toBe(host.shard.hostSmall.capacity);
      expect(host.shard.hostLarge.free).toBe(host.shard.hostLarge.capacity);
    },
  );

  it('left: nothing is received, and the socket is closed', async () => {
    const port = await freePort();
    const host = rig(port);
    report(host, false);
    expect(host.counters[Counter.sockOpened]).toBe(1);
    report(host, true);
    expect(host.counters[Counter.sockClosed]).toBe(1);
    const peer = await sender();
    await peer.send(pattern(10), port, GROUP);
    await nothing(host);
  });

  it.each([
    [true, '127.0.0.1', 1],
    [true, '192.0.2.1', 0],
    [false, '127.0.0.1', 0],
    [false, '192.0.2.1', 1],
  ])('filter: include %s, %s: %i datagrams', async (isInclude, source, count) => {
    const port = await freePort();
    const host = rig(port);
    report(host, isInclude, source);
    const peer = await sender();
    await peer.send(pattern(10), port, GROUP);
    if (count === 0) await nothing(host);
    else expect(await host.messages(1)).toHaveLength(1);
  });

  it('a port that the guest sends to is received', async () => {
    const other = await freePort();
    const host = rig(await freePort());
    report(host, false);
    openFlow(host, 1, other, 40_000);
    const peer = await sender();
    await peer.send(pattern(10), other, GROUP);
    expect(toShardText((await host.messages(1))[0]!)).toContain(`to ${GROUP}:${other}`);
  });

  it('broadcast: a port of the plan stays, however many ports the guest sends to; of those the oldest goes', async () => {
    const [planned, ...others] = await Promise.all(Array.from({ length: 18 }, freePort));
    const host = bed.rig({
      ...TEST_PLAN,
      policy: {
        ...TEST_PLAN.policy,
        multicast: { all: true, groups: [{ address: '255.255.255.255', port: planned! }], maxGroups: 20 },
      },
    });
    const broadcast = addressWords('255.255.255.255');
    for (const port of others) host.groups!.learn(broadcast, 0, port, port);
    const isOpen = (port: number): boolean =>
      readFileSync('/proc/net/udp', 'utf8').includes(
        ` FFFFFFFF:${port.toString(16).toUpperCase().padStart(4, '0')} `,
      );
    expect([planned!, ...others].filter((port) => !isOpen(port))).toEqual(others.slice(0, 2));
  });

  it('another program of the host has the port: both receive', async () => {
    const { createSocket } = await import('node:dgram');
    const program = createSocket({ type: 'udp4', reuseAddr: true });
    try {
      await new Promise<void>((resolve) => program.bind(0, '0.0.0.0', resolve));
      program.addMembership(GROUP, '127.0.0.1');
      const heard = new Promise<number>((resolve) => program.on('message', (data) => resolve(data.length)));
      const { port } = program.address();
      const host = rig(port);
      report(host, false);
      const peer = await sender();
      await peer.send(pattern(77), port, GROUP);
      expect(await heard).toBe(77);
      expect(await host.messages(1)).toHaveLength(1);
    } finally {
      program.close();
    }
  });
});

describe('flows to a group', () => {
  it('what the guest sends is not passed back, and an equal datagram of somebody else is', async () => {
    const port = await freePort();
    const host = rig(port);
    report(host, false);
    openFlow(host, 1, port, 40_001);
    for (let i = 0; i < 20; i++) host.send(1, pattern(500));
    await host.until(() => host.counters[Counter.groupSendsLooped] === 20);
    await nothing(host);
    const peer = await sender();
    await peer.send(pattern(500), port, GROUP);
    expect(toShardText((await host.messages(1))[0]!)).toContain(`127.0.0.1:${peer.port} `);
  });

  it('an answer of a peer that the guest does not know comes to the port that asked', async () => {
    const host = rig(await freePort());
    const guestPort = await freePort();
    const asked = await sender();
    asked.socket.addMembership(GROUP, '127.0.0.1');
    openFlow(host, 1, asked.port, guestPort);
    await asked.send(pattern(20), guestPort, '127.0.0.1');
    const [m] = await host.messages(1);
    expect(toShardText(m!)).toContain(
      `unsolicitedDatagram, 127.0.0.1:${asked.port} to 10.0.2.15:${guestPort}`,
    );
  });
});
