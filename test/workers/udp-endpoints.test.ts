// @vitest: beside
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Counter } from '../../src/ring/counters.ts';
import { CMSG_HEADER_BYTES } from '../../src/sys/cmsg.ts';
import {
  AF_INET,
  IP_RECVTTL,
  MSG_DONTWAIT,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOL_IP,
} from '../../src/sys/constants.ts';
import { close } from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import {
  bind,
  IOVEC_BYTES,
  iovecWrite,
  MSGHDR_BYTES,
  msghdrControlWrite,
  msghdrWrite,
  recvmsg,
  setsockoptInt,
  sockaddrWrite,
  socket,
} from '../../src/sys/socket.ts';
import { StageDrop } from '../../src/workers/link/stage-drop.ts';
import { SendFragment, sendOptions } from '../../src/workers/link/to-host.ts';
import { datagramGsoSize, ToShard, toShardText } from '../../src/workers/link/to-shard.ts';
import { datagramBed } from '../support/datagram-bed.ts';
import { freePort, type Peer } from '../support/datagram-peer.ts';
import type { HostRig } from '../support/host-rig.ts';
import { bytesOf, flowOf, opOf } from '../support/message.ts';
import { pattern } from '../support/packets.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const OPEN_PLAN = {
  ...TEST_PLAN,
  policy: { ...TEST_PLAN.policy, udpFiltering: 'endpoint-independent' as const },
};

const { rig: makeRig, peer } = datagramBed();
function rig(plan = TEST_PLAN): HostRig {
  const r = makeRig(plan);
  r.sockets.flush(); // as host-io does: sends may be deferred until flush()
  return r;
}

/** Flows 1, 2, ... of one guest endpoint, each with a peer. */
async function endpoint(host: HostRig, address: string, port: number, count: number): Promise<Peer[]> {
  const far: Peer[] = [];
  for (let flow = 1; flow <= count; flow++) {
    const p = await peer(address);
    host.openUdp(flow, address, p.port, port);
    far.push(p);
  }
  return far;
}

describe.each(['127.0.0.1', '::1'])('one socket for an endpoint of the guest, %s', (address) => {
  it('three peers: all see one port, each answer belongs to its flow, the socket is open while any flow is', async () => {
    const host = rig();
    const wanted = await freePort();
    const far = await endpoint(host, address, wanted, 3);
    expect(host.counters[Counter.sockOpened]).toBe(1);
    for (const [i, p] of far.entries()) {
      host.send(i + 1, pattern(10 + i));
      host.sockets.flush();
      const [got] = await p.received(1);
      expect([got!.port, got!.data.length]).toEqual([wanted, 10 + i]);
    }
    for (const [i, p] of far.entries()) p.socket.send(pattern(20 + i), wanted, address);
    const messages = await host.messages(3);
    expect(messages.map((m) => [opOf(m), flowOf(m), bytesOf(m)]).sort()).toEqual([
      [ToShard.datagram, 1, 20],
      [ToShard.datagram, 2, 21],
      [ToShard.datagram, 3, 22],
    ]);
    for (const m of messages) host.free(m);

    host.closeFlow(1);
    host.closeFlow(3);
    expect((await host.messages(2)).map((m) => [opOf(m), flowOf(m)])).toEqual([
      [ToShard.closed, 1],
      [ToShard.closed, 3],
    ]);
    expect(host.counters[Counter.sockClosed]).toBe(0);
    far[0]!.socket.send(pattern(1), wanted, address);
    far[1]!.socket.send(pattern(2), wanted, address);
    const [left] = await host.messages(1);
    expect([flowOf(left), bytesOf(left)]).toEqual([2, 2]);
    await host.until(() => host.shard.drops(StageDrop.unsolicited) > 0);
    expect(host.takeMessages()).toEqual([]);
    expect(host.shard.drops(StageDrop.unsolicited)).toBe(1);
    host.closeFlow(2);
    expect(host.counters[Counter.sockClosed]).toBe(1);
  });

  it('the port is in use on the host: another one, the same for all peers', async () => {
    const host = rig();
    const holder = await peer(address === '::1' ? '::' : '0.0.0.0');
    const ports: number[] = [];
    for (const flow of [1, 2, 3]) {
      const p = await peer(address);
      host.openUdp(flow, address, p.port, holder.port);
      host.send(flow, pattern(1));
      host.sockets.flush();
      ports.push((await p.received(1))[0]!.port);
    }
    expect(ports[0]).not.toBe(holder.port);
    expect(ports).toEqual(new Array(3).fill(ports[0]));
  });

  it('a second peer while datagrams of the first are queued: none is lost', async () => {
    const host = rig();
    const wanted = await freePort();
    const [first] = await endpoint(host, address, wanted, 1);
    for (let i = 0; i < 5; i++) await first!.send(Uint8Array.of(i), wanted, address);
    const second = await peer(address);
    host.openUdp(2, address, second.port, wanted);
    const messages = await host.messages(5);
    expect(messages.map((m) => [flowOf(m), host.shard.payloadOf(m)[0]])).toEqual(
      [0, 1, 2, 3, 4].map((i) => [1, i]),
    );
  });

  it('one peer under two addresses in the guest: a socket for each, for answers would be ambiguous', async () => {
    const host = rig();
    const wanted = await freePort();
    const [far] = await endpoint(host, address, wanted, 1);
    host.openUdp(2, address, far!.port, wanted);
    host.send(1, pattern(1));
    host.send(2, pattern(2));
    host.sockets.flush();
    const [one, two] = await far!.received(2);
    expect(one!.port).toBe(wanted);
    expect(two!.port).not.toBe(wanted);
    far!.socket.send(pattern(7), two!.port, address);
    expect(flowOf((await host.messages(1))[0])).toBe(2);
  });

  it('datagrams for many peers in turn: sent in one call, each whole, to its own peer', async () => {
    const host = rig();
    const far = await endpoint(host, address, await freePort(), 4);
    const before = host.counters[Counter.datagramSends]!;
    for (let round = 0; round < 3; round++) {
      for (const flow of [1, 2, 3, 4]) host.send(flow, pattern(flow * 500 + round, flow));
    }
    host.sockets.flush();
    for (const [i, p] of far.entries()) {
      const flow = i + 1;
      const got = await p.received(3);
      expect(got.map((r) => new Uint8Array(r.data))).toEqual(
        [0, 1, 2].map((round) => pattern(flow * 500 + round, flow)),
      );
    }
    expect(host.counters[Counter.datagramSends]! - before).toBe(1);
    expect(host.counters[Counter.datagramsToHost]).toBe(12);
    expect(host.shard.small.free).toBe(host.shard.small.capacity);
  });

  it('runs of datagrams for two peers, more than 64 in all: one segmented message per run', async () => {
    const host = rig();
    const far = await endpoint(host, address, await freePort(), 2);
    const before = host.counters[Counter.datagramSends]!;
    for (const flow of [1, 2]) for (let i = 0; i < 40; i++) host.send(flow, pattern(600, flow + i));
    host.sockets.flush();
    for (const [f, p] of far.entries()) {
      const got = await p.received(40);
      expect(got.map((r) => new Uint8Array(r.data))).toEqual(
        Array.from({ length: 40 }, (_, i) => pattern(600, f + 1 + i)),
      );
    }
    expect(host.counters[Counter.datagramSends]! - before).toBe(2);
    expect(host.shard.small.free).toBe(host.shard.small.capacity);
  });

  it('one peer has closed its port: only its flow gets the error, datagrams of others are sent', async () => {
    const host = rig();
    const wanted = await freePort();
    const [there] = await endpoint(host, address, wanted, 1);
    host.openUdp(2, address, await freePort(), wanted);
    for (let i = 0; i < 4; i++) {
      host.send(2, pattern(30));
      host.send(1, pattern(i));
      host.sockets.flush();
      await sleep(5); // the answer to flow 2 is there before the next datagram
    }
    expect((await there!.received(4)).map((r) => r.data.length)).toEqual([0, 1, 2, 3]);
    const errors = await host.messages(4);
    expect(errors.map((m) => [opOf(m), flowOf(m)])).toEqual(new Array(4).fill([ToShard.icmpError, 2]));
    expect(host.shard.payloadOf(errors[0]!)).toEqual(pattern(30));
    expect(host.counters[Counter.datagramsToHost]).toBe(8);
    expect(host.shard.drops(StageDrop.sendRefused)).toBe(0);
  });

  it('the peer sends by UDP_SEGMENT: one message with the segment size', async () => {
    const host = rig();
    const sender = rig();
    const ports = [await freePort(), await freePort(), await freePort()] as const;
    for (const flow of [1, 2]) {
      host.openUdp(flow, address, ports[flow]!, ports[0], true);
      sender.openUdp(flow, address, ports[0], ports[flow]);
    }
    for (const flow of [1, 2]) {
      sender.send(flow, pattern(1000 * 9 + flow), { gsoSize: 1000 });
    }
    const got = await host.messages(2);
    expect(got.map((m) => [flowOf(m), bytesOf(m), datagramGsoSize(m, 0)])).toEqual([
      [1, 9001, 1000],
      [2, 9002, 1000],
    ]);
    for (const m of got) host.free(m);
    sender.send(1, pattern(60));
    sender.sockets.flush();
    const [lone] = await host.messages(1);
    expect([flowOf(lone), bytesOf(lone), datagramGsoSize(lone!, 0)]).toEqual([1, 60, 0]);
  });
});

describe('unsolicited datagrams', () => {
  it('address-and-port-dependent filtering: dropped, whether the endpoint has one peer or two', async () => {
    const host = rig();
    const wanted = await freePort();
    const stranger = await peer('127.0.0.1');
    await endpoint(host, '127.0.0.1', wanted, 1);
    stranger.socket.send(pattern(1), wanted, '127.0.0.1');
    await sleep(20);
    host.poll();
    expect(host.takeMessages()).toEqual([]);
    const second = await peer('127.0.0.1');
    host.openUdp(2, '127.0.0.1', second.port, wanted);
    stranger.socket.send(pattern(1), wanted, '127.0.0.1');
    await host.until(() => host.shard.drops(StageDrop.unsolicited) > 0);
    expect(host.takeMessages()).toEqual([]);
    expect(host.shard.drops(StageDrop.unsolicited)).toBe(1);
  });

  it('endpoint-independent filtering: a message with both addresses; a new flow for it answers from the same port', async () => {
    const host = rig(OPEN_PLAN);
    const wanted = await freePort();
    const stranger = await peer('127.0.0.1');
    const [far] = await endpoint(host, '127.0.0.1', wanted, 1);
    stranger.socket.send(pattern(9), wanted, '127.0.0.1');
    const [m] = await host.messages(1);
    expect(toShardText(m!)).toBe(
      `unsolicitedDatagram, 127.0.0.1:${stranger.port} to 10.0.2.15:${wanted}, 9 bytes`,
    );
    expect(host.shard.payloadOf(m!)).toEqual(pattern(9));
    host.free(m!);
    host.openUdp(2, '127.0.0.1', stranger.port, wanted);
    host.send(2, pattern(3));
    host.send(1, pattern(4));
    host.sockets.flush();
    expect((await stranger.received(1))[0]!.port).toBe(wanted);
    expect((await far!.received(1))[0]!.port).toBe(wanted);
    stranger.socket.send(pattern(5), wanted, '127.0.0.1');
    expect((await host.messages(1)).map((a) => [opOf(a), flowOf(a)])).toEqual([[ToShard.datagram, 2]]);
  });

  it('endpoint-independent filtering, host loopback not mapped: its services cannot reach the guest', async () => {
    const { ipv4 } = OPEN_PLAN.addresses;
    const { hostLoopback: _, ...unmapped } = ipv4!;
    const host = rig({ ...OPEN_PLAN, addresses: { ...OPEN_PLAN.addresses, ipv4: unmapped } });
    const wanted = await freePort();
    const stranger = await peer('127.0.0.1');
    await endpoint(host, '127.0.0.1', wanted, 1);
    stranger.socket.send(pattern(9), wanted, '127.0.0.1');
    await host.until(() => host.shard.drops(StageDrop.unsolicited) > 0);
    expect(host.takeMessages()).toEqual([]);
    expect(host.shard.drops(StageDrop.unsolicited)).toBe(1);
  });
});

describe('a socket shared by flows', () => {
  it('TTL: each flow keeps its own, in any order of sends', async () => {
    const host = rig();
    const wanted = await freePort();
    const to = await freePort();
    const fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const name = new NativeBuffer(32);
    const nameBytes = sockaddrWrite(name.u8, 0, Uint32Array.of(0, 0, 0xffff, 0x7f000001), 0, to);
    expect(bind(fd, name.address, nameBytes)).toBe(0);
    setsockoptInt(fd, SOL_IP, IP_RECVTTL, 1);
    const ttls: number[] = [];
    const b = new NativeBuffer(MSGHDR_BYTES + IOVEC_BYTES + 16 + 64);
    const take = (): boolean => {
      const controlAt = MSGHDR_BYTES + IOVEC_BYTES + 16;
      iovecWrite(b.u32, MSGHDR_BYTES >> 2, b.address + MSGHDR_BYTES + IOVEC_BYTES, 16);
      msghdrWrite(b.u32, 0, 0, 0, b.address + MSGHDR_BYTES, 1);
      msghdrControlWrite(b.u32, 0, b.address + controlAt, 64);
      if (recvmsg(fd, b.address, MSG_DONTWAIT) < 0) return false;
      ttls.push(b.u32[(controlAt + CMSG_HEADER_BYTES) >> 2]!);
      return true;
    };
    await endpoint(host, '127.0.0.1', wanted, 1);
    host.openUdp(2, '127.0.0.1', to, wanted);
    const other = await peer('127.0.0.1');
    host.openUdp(3, '127.0.0.1', other.port, wanted);
    // As a shard does: options that were sent for a flow are not sent again.
    host.send(2, pattern(1), { options: sendOptions(64, SendFragment.unchanged) });
    host.send(3, pattern(1), { options: sendOptions(5, SendFragment.unchanged) });
    host.send(2, pattern(1));
    host.send(3, pattern(1), { options: sendOptions(0, SendFragment.never) });
    host.send(2, pattern(1));
    host.send(2, pattern(1), { options: sendOptions(9, SendFragment.unchanged) });
    host.send(3, pattern(1));
    host.send(2, pattern(1));
    host.sockets.flush();
    await other.received(3);
    for (let i = 0; i < 100 && ttls.length < 5; i++) if (!take()) await sleep(5);
    close(fd);
    expect(ttls).toEqual([64, 64, 64, 9, 9]);
  });

  it('not connected: its port is counted among our own', async () => {
    const host = rig();
    const wanted = await freePort();
    await endpoint(host, '127.0.0.1', wanted, 1);
    expect(host.datagramPorts[wanted]).toBe(0);
    host.openUdp(2, '127.0.0.1', await freePort(), wanted);
    expect(host.datagramPorts[wanted]).toBe(1);
    host.closeFlow(1);
    expect(host.datagramPorts[wanted]).toBe(1);
    host.closeFlow(2);
    expect(host.datagramPorts[wanted]).toBe(0);
  });

  it('outbound interface: kept with a second peer; host loopback gets a socket without it', async () => {
    const policy = { ...TEST_PLAN.policy, outboundInterface4: 'lo' };
    const host = rig({ ...TEST_PLAN, policy });
    const wanted = await freePort();
    const bound = (): string[] =>
      execFileSync('ss', ['-uanH', `sport = :${wanted}`], { encoding: 'utf8' })
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => line.split(/\s+/)[3]!);
    host.openUdp(1, '192.0.2.1', 9, wanted);
    expect(bound()).toEqual([expect.stringMatching(/%lo:/)]);
    host.openUdp(2, '192.0.2.2', 9, wanted);
    expect(bound()).toEqual([expect.stringMatching(/%lo:/)]);
    const far = await peer('127.0.0.1');
    host.openUdp(3, '127.0.0.1', far.port, wanted);
    expect(host.counters[Counter.sockOpened]).toBe(2);
    host.send(3, pattern(2));
    host.sockets.flush();
    await far.received(1);
  });

  it('receive buffer: larger, for a burst of many peers arrives in one queue', async () => {
    const host = rig();
    const wanted = await freePort();
    // The kernel doubles the requested size, which is at most rmem_max (man 7 socket, SO_RCVBUF).
    const most = Number(readFileSync('/proc/sys/net/core/rmem_max', 'utf8'));
    const room = (): number =>
      Number(/rb(\d+)/.exec(execFileSync('ss', ['-uanmH', `sport = :${wanted}`], { encoding: 'utf8' }))![1]);
    await endpoint(host, '127.0.0.1', wanted, 1);
    expect(room()).toBe(2 * Math.min(1 << 20, most));
    host.openUdp(2, '127.0.0.1', await freePort(), wanted);
    expect(room()).toBe(2 * Math.min(4 << 20, most));
  });

  it('another guest address with the same port: another endpoint', async () => {
    const host = rig();
    const wanted = await freePort();
    const far = await peer('127.0.0.1');
    host.openUdp(1, '127.0.0.1', far.port, wanted, false, '10.0.2.15');
    host.openUdp(2, '127.0.0.1', far.port, wanted, false, '10.0.2.16');
    expect(host.counters[Counter.sockOpened]).toBe(2);
  });
});
