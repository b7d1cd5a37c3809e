// @vitest: beside
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { addressParse, addressText } from '../../src/proto/address.ts';
import { Counter } from '../../src/ring/counters.ts';
import { NO_SLOT } from '../../src/ring/pool.ts';
import { Errno } from '../../src/sys/constants.ts';
import { StageDrop } from '../../src/workers/link/stage-drop.ts';
import { openPingWrite, sendBorrowedWrite, sendFromListenerWrite } from '../../src/workers/link/to-host.ts';
import {
  datagramGsoSize,
  datagramPeerPort,
  datagramTtl,
  icmpErrorErrno,
  icmpErrorTypeCode,
  listenerDatagramGuest,
  openFailedErrno,
  ToShard,
  toShardText,
} from '../../src/workers/link/to-shard.ts';
import { datagramBed } from '../support/datagram-bed.ts';
import { freePort, Peer, type Received } from '../support/datagram-peer.ts';
import { bytesOf, flowOf, opOf, slotAOf, slotBOf, slotOffsetOf } from '../support/message.ts';
import { echoMessage, pattern } from '../support/packets.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const { rig, peer } = datagramBed();

describe.each(['127.0.0.1', '::1'])('connected UDP socket, %s', (address) => {
  it.each([0, 1, 1920, 1921, 1993, 1994, 9000, 65_507])(
    '%i bytes to the peer and back: unchanged, in the expected slots',
    async (bytes) => {
      const host = rig();
      const far = await peer(address);
      host.openUdp(5, address, far.port);
      host.send(5, pattern(bytes));
      const [request] = await far.received(1);
      expect(new Uint8Array(request!.data)).toEqual(pattern(bytes));
      far.socket.send(pattern(bytes, 7), request!.port, address);
      const [m] = await host.messages(1);
      expect(opOf(m)).toBe(ToShard.datagram);
      expect(flowOf(m)).toBe(5);
      expect(slotOffsetOf(m)).toBe(128);
      expect(slotBOf(m) === NO_SLOT).toBe(bytes <= 1920);
      expect(host.shard.payloadOf(m!)).toEqual(pattern(bytes, 7));
      host.free(m!);
      host.closeFlow(5);
      expect((await host.messages(1)).map((c) => [opOf(c), flowOf(c)])).toEqual([[ToShard.closed, 5]]);
      expect(host.shard.small.free).toBe(host.shard.small.capacity);
      expect(host.shard.large.free).toBe(host.shard.large.capacity);
    },
  );
});

describe('local port', () => {
  it('the preferred port is free: two flows of an endpoint share it, each gets its own answers', async () => {
    const host = rig();
    const a = await peer();
    const b = await peer();
    const wanted = await freePort();
    host.openUdp(1, '127.0.0.1', a.port, wanted);
    host.openUdp(2, '127.0.0.1', b.port, wanted);
    host.send(1, pattern(1));
    host.send(2, pattern(2));
    expect((await a.received(1))[0]!.port).toBe(wanted);
    expect((await b.received(1))[0]!.port).toBe(wanted);
    a.socket.send(pattern(11), wanted, '127.0.0.1');
    b.socket.send(pattern(22), wanted, '127.0.0.1');
    const messages = await host.messages(2);
    expect(messages.map((m) => [flowOf(m), bytesOf(m)]).sort()).toEqual([
      [1, 11],
      [2, 22],
    ]);
  });

  it('the preferred port is in use by another socket: another port, the datagram is sent', async () => {
    const host = rig();
    const far = await peer();
    const holder = await peer('0.0.0.0');
    host.openUdp(1, '127.0.0.1', far.port, holder.port);
    host.send(1, pattern(4));
    expect((await far.received(1))[0]!.port).not.toBe(holder.port);
  });

  it('two engines prefer the same port: they get different ones', async () => {
    const one = rig();
    const two = rig();
    const far = await peer();
    const wanted = await freePort();
    one.openUdp(1, '127.0.0.1', far.port, wanted);
    two.openUdp(1, '127.0.0.1', far.port, wanted);
    one.send(1, pattern(1));
    two.send(1, pattern(2));
    const ports = (await far.received(2)).map((r) => r.port);
    expect(new Set(ports).size).toBe(2);
  });
});

describe('errors', () => {
  it('nobody listens: one port unreachable per datagram, sending goes on', async () => {
    const host = rig();
    const port = await freePort();
    host.openUdp(3, '127.0.0.1', port);
    host.send(3, pattern(10));
    const [m] = await host.messages(1);
    expect(toShardText(m!)).toMatch(/^icmpError flow 3, type 3 code 3 from 127\.0\.0\.1, .*quotes 10 bytes$/);
    expect(icmpErrorErrno(m!, 0)).toBe(Errno.ECONNREFUSED);
    expect(host.shard.payloadOf(m!)).toEqual(pattern(10)); // what the error quotes
    host.free(m!);
    host.send(3, pattern(10));
    host.send(3, pattern(10)); // the error of the earlier one is pending; it is sent nevertheless
    const more = await host.messages(2);
    expect(more.map((e) => opOf(e))).toEqual([ToShard.icmpError, ToShard.icmpError]);
    expect(host.counters[Counter.datagramsToHost]).toBe(3);
    await sleep(20);
    expect(host.poll()).toBe(0); // the error queue was drained: epoll is quiet
  });

  it('a datagram too long for its path: one error with the MTU, it is sent once', async () => {
    const host = rig();
    const far = await peer();
    host.openUdp(3, '127.0.0.1', far.port);
    host.send(3, pattern(65_520)); // with headers longer than an IPv4 packet may be
    const told = await host.messages(2);
    host.poll();
    told.push(...host.takeMessages());
    expect(told.map((m) => [opOf(m), icmpErrorTypeCode(m, 0), icmpErrorErrno(m, 0)])).toEqual([
      [ToShard.icmpError, (3 << 8) | 4, Errno.EMSGSIZE], // from the error queue, then the result of the call
      [ToShard.icmpError, 0, Errno.EMSGSIZE],
    ]);
    for (const m of told) host.free(m);
    expect(host.counters[Counter.datagramSends]).toBe(1);
    expect(host.counters[Counter.datagramsToHost]).toBe(0);
  });

  it('connect refused by the kernel: openFailed with the errno; sends are dropped; close is answered', async () => {
    const host = rig();
    host.openUdp(4, '255.255.255.255', 9); // connect() requires SO_BROADCAST for that address
    const [m] = await host.messages(1);
    expect(toShardText(m!)).toBe(`openFailed flow 4, errno ${Errno.EACCES}`);
    host.send(4, pattern(1));
    expect(host.shard.drops(StageDrop.noSocket)).toBe(1);
    expect(host.shard.small.free).toBe(host.shard.small.capacity);
    host.closeFlow(4);
    expect(opOf((await host.messages(1))[0])).toBe(ToShard.closed);
  });
});

describe('many datagrams', () => {
  it('a burst: received in batches, in order, no loss while slots last', async () => {
    const host = rig();
    const far = await peer();
    host.openUdp(1, '127.0.0.1', far.port);
    host.send(1, pattern(1));
    const [{ port }] = (await far.received(1)) as [Received];
    for (let i = 0; i < 90; i++) far.socket.send(Uint8Array.of(i), port, '127.0.0.1');
    const messages = await host.messages(90);
    expect(messages.map((m) => host.shard.payloadOf(m)[0])).toEqual(Array.from({ length: 90 }, (_, i) => i));
  });

  it('a long queue: another socket is read in the same round, all datagrams arrive', async () => {
    const host = rig();
    const far = await peer();
    for (const flow of [1, 2]) {
      host.openUdp(flow, '127.0.0.1', far.port);
      host.send(flow, pattern(1));
    }
    const [one, two] = (await far.received(2)) as [Received, Received];
    for (let i = 0; i < 70; i++) await far.send(Uint8Array.of(i), one.port, '127.0.0.1');
    await far.send(Uint8Array.of(100), two.port, '127.0.0.1');
    host.poll();
    const first = host.takeMessages();
    expect(first.filter((m) => flowOf(m) === 2)).toHaveLength(1);
    expect(first.length).toBeLessThan(70);
    const rest = await host.messages(71 - first.length);
    const bytes = [...first, ...rest].filter((m) => flowOf(m) === 1).map((m) => host.shard.payloadOf(m)[0]);
    expect(bytes).toEqual(Array.from({ length: 70 }, (_, i) => i));
  });

  it('no slot left: reading stops without busy polling, goes on after resume()', async () => {
    const host = rig();
    const far = await peer();
    host.openUdp(1, '127.0.0.1', far.port);
    host.send(1, pattern(1));
    const [{ port }] = (await far.received(1)) as [Received];
    const total = host.shard.hostSmall.capacity + 20;
    for (let i = 0; i < total; i++) far.socket.send(Uint8Array.of(i), port, '127.0.0.1');
    const first = await host.messages(host.shard.hostSmall.capacity);
    await sleep(20);
    while (host.poll() > 0);
    expect(host.takeMessages()).toEqual([]);
    for (const m of first) host.free(m);
    host.sockets.resume();
    expect(await host.messages(20)).toHaveLength(20);
  });

  it('before flush(): equal datagrams leave in one call, an unequal one ends the run; the peer gets each', async () => {
    const host = rig();
    const far = await peer();
    host.sockets.flush();
    host.openUdp(1, '127.0.0.1', far.port);
    const sizes = [1200, 1200, 1200, 700, 900, 900, 0, 5];
    for (const [i, bytes] of sizes.entries()) host.send(1, pattern(bytes, i));
    host.sockets.flush();
    const got = await far.received(sizes.length);
    expect(got.map((r) => new Uint8Array(r.data))).toEqual(sizes.map((bytes, i) => pattern(bytes, i)));
    expect(host.counters[Counter.datagramsToHost]).toBe(sizes.length);
    expect(host.counters[Counter.sockSends]).toBeLessThan(sizes.length);
    expect(host.shard.small.free).toBe(host.shard.small.capacity);
  });

  it.each([1400, 30_000])(
    'a GSO frame with segments of %i bytes: arrives as its segments',
    async (segment) => {
      const host = rig();
      const far = await peer();
      host.openUdp(1, '127.0.0.1', far.port);
      const whole = pattern(segment * 2 + 100);
      host.send(1, whole, { gsoSize: segment });
      const got = await far.received(3);
      expect(got.map((r) => r.data.length)).toEqual([segment, segment, 100]);
      expect(new Uint8Array(Buffer.concat(got.map((r) => r.data)))).toEqual(whole);
    },
  );
});

describe('UDP_GRO', () => {
  it.each(['127.0.0.1', '::1'])(
    'the peer sends by UDP_SEGMENT, %s: one message with the segment size if the shard accepts it, else one each',
    async (address) => {
      const sender = rig();
      const host = rig();
      const from = await freePort();
      const ports = [await freePort(), await freePort()];
      const whole = pattern(1400 * 20 + 100);
      for (const mayBeMany of [1, 0]) {
        host.openUdp(1 + mayBeMany, address, from, ports[mayBeMany], mayBeMany === 1);
        sender.openUdp(1 + mayBeMany, address, ports[mayBeMany]!, from);
        sender.send(1 + mayBeMany, whole, { gsoSize: 1400 });
        const got = await host.messages(mayBeMany ? 1 : 21);
        expect(got.map((m) => [bytesOf(m), datagramGsoSize(m, 0)])).toEqual(
          mayBeMany ? [[28_100, 1400]] : [...new Array(20).fill([1400, 0]), [100, 0]],
        );
        expect(Buffer.concat(got.map((m) => host.shard.payloadOf(m))).equals(whole)).toBe(true);
        for (const m of got) host.free(m);
        // A single datagram on the same socket does not have the segment size of an earlier one.
        sender.send(1 + mayBeMany, pattern(60));
        const [lone] = await host.messages(1);
        expect([bytesOf(lone), datagramGsoSize(lone!, 0)]).toEqual([60, 0]);
        host.free(lone!);
        // A single datagram does not get the segment size of the next one either.
        sender.send(1 + mayBeMany, whole, { gsoSize: 1400 });
        const again = await host.messages(mayBeMany ? 1 : 21);
        expect(again.map((m) => [bytesOf(m), datagramGsoSize(m, 0)])).toEqual(
          got.map((m) => [bytesOf(m), datagramGsoSize(m, 0)]),
        );
        for (const m of again) host.free(m);
      }
    },
  );
});

describe('borrowed slots', () => {
  it('a datagram that the shard keeps: sent, its slot is not returned', async () => {
    const host = rig();
    const far = await peer();
    host.openUdp(1, '127.0.0.1', far.port);
    const { slotA, slotOffset } = host.payload(pattern(30));
    host.command((out) => sendBorrowedWrite(out, 1, slotA, slotOffset, 30));
    expect((await far.received(1))[0]!.data).toHaveLength(30);
    expect(host.shard.small.free).toBe(host.shard.small.capacity - 1);
  });
});

describe('ping sockets', () => {
  it('echo to loopback: answered, with the TTL of the reply', async () => {
    const host = rig();
    const loopback = new Uint32Array(4);
    addressParse('127.0.0.1', loopback, 0);
    host.command((out) => openPingWrite(out, 1, 4, loopback, 0));
    host.send(1, Uint8Array.from(echoMessage('127.0.0.1', '127.0.0.1', 8, 1, 77, pattern(40))));
    const [m] = await host.messages(1);
    if (opOf(m) === ToShard.openFailed) {
      // ping_group_range excludes this process: EACCES is the expected result.
      expect([Errno.EACCES, Errno.EPERM]).toContain(openFailedErrno(m!, 0));
      return;
    }
    expect(opOf(m)).toBe(ToShard.datagram);
    expect(datagramTtl(m!, 0)).toBe(64);
    const reply = host.shard.payloadOf(m!);
    expect(reply[0]).toBe(0);
    expect((reply[6]! << 8) | reply[7]!).toBe(77);
    expect(reply.slice(8)).toEqual(pattern(40));
  });
});

describe('published ports', () => {
  const plan = {
    ...TEST_PLAN,
    listeners: [{ proto: 'udp', address: '', port: 0, targetPort: 8080 }],
  } as const;

  it.each(['127.0.0.1', '::1'])(
    'dual-stack listener, peer %s: the message has peer and local address; the answer comes from that address',
    async (address) => {
      const port = await freePort();
      const host = rig({ ...plan, listeners: [{ proto: 'udp', address: '', port, targetPort: 8080 }] });
      expect(host.sockets.listen(0, host.shard.plan.listeners[0]!)).toBe(0);
      const far = await peer(address);
      far.socket.send(pattern(3000), port, address);
      const [m] = await host.messages(1);
      const shown = address.includes(':') ? `[${address}]` : address;
      expect(toShardText(m!)).toBe(`listenerDatagram 0, ${shown}:${far.port} to ${shown}:8080, 3000 bytes`);
      const words = new Uint32Array(4);
      addressParse(address, words, 0);
      expect(host.shard.payloadOf(m!)).toEqual(pattern(3000));
      const guest = new Uint32Array(4);
      listenerDatagramGuest(host.shard.u8, host.shard.pool.slotAt(slotAOf(m)), guest, 0);
      expect(addressText(guest, 0)).toBe(address === '::1' ? 'fd00::15' : '10.0.2.15');
      const both = Uint32Array.of(...words, ...words);
      const zone = flowOf(m);
      const { slotA, slotB, slotOffset } = host.payload(pattern(4000));
      host.command((out) =>
        sendFromListenerWrite(out, 0, zone, slotA, slotB, slotOffset, 4000, far.port, both, 0),
      );
      const [reply] = await far.received(1);
      expect(reply).toMatchObject({ port, address });
      expect(new Uint8Array(reply!.data)).toEqual(pattern(4000));
    },
  );

  /** A rig that publishes a free port (or `port`) to the guest's 8080. */
  const publishing = async (address = '', port?: number) => {
    const rule = { proto: 'udp', address, port: port ?? (await freePort()), targetPort: 8080 } as const;
    const host = rig({ ...plan, listeners: [rule, rule] }); // room for two
    return { host, rule };
  };

  it.each(['127.0.0.1', '::1'])(
    'the guest sends first from a published port, peers at %s: it leaves from that port, answers belong to its flows',
    async (address) => {
      const { host, rule } = await publishing();
      expect(host.sockets.listen(0, rule)).toBe(0);
      const far = [await peer(address), await peer(address)];
      for (const [i, p] of far.entries()) {
        host.openUdp(i + 1, address, p.port, 8080);
        host.send(i + 1, pattern(10 + i));
        const [m] = await p.received(1);
        expect(m!.port).toBe(rule.port);
        p.socket.send(pattern(20 + i), m!.port, address);
      }
      const messages = await host.messages(2);
      expect(messages.map((m) => [opOf(m), flowOf(m), bytesOf(m)]).sort()).toEqual([
        [ToShard.datagram, 1, 20],
        [ToShard.datagram, 2, 21],
      ]);
      // Datagrams of other peers still arrive at the listener.
      const other = await peer(address);
      other.socket.send(pattern(30), rule.port, address);
      const [m] = await host.messages(1);
      expect([opOf(m), bytesOf(m)]).toEqual([ToShard.listenerDatagram, 30]);
    },
  );

  it('two published ports of one guest port: the first is the source; other guest ports and addresses use neither', async () => {
    const { host, rule } = await publishing();
    const second = { ...rule, port: await freePort() };
    expect(host.sockets.listen(0, rule)).toBe(0);
    expect(host.sockets.listen(1, second)).toBe(0);
    const far = await peer();
    const from = async (gid: number, guestPort: number, guest?: string): Promise<number> => {
      host.openUdp(gid, '127.0.0.1', far.port, guestPort, false, guest);
      host.send(gid, pattern(gid));
      return (await far.received(1))[0]!.port;
    };
    expect(await from(1, 8080)).toBe(rule.port);
    expect([rule.port, second.port]).not.toContain(await from(2, 8081));
    expect([rule.port, second.port]).not.toContain(await from(3, 8080, '10.0.2.99'));
    host.closeFlow(1);
    await host.messages(1);
    host.sockets.unlisten(0);
    expect(await from(4, 8080)).toBe(second.port);
  });

  it('the listener closes: the flow stays; the listener can be opened again', async () => {
    const { host, rule } = await publishing();
    expect(host.sockets.listen(0, rule)).toBe(0);
    const far = await peer();
    host.openUdp(1, '127.0.0.1', far.port, 8080);
    host.send(1, pattern(1));
    await far.received(1);
    host.sockets.unlisten(0);
    host.send(1, pattern(2));
    expect((await far.received(1))[0]!.port).toBe(rule.port);
    expect(host.sockets.listen(1, rule)).toBe(0);
    far.socket.send(pattern(3), rule.port, '127.0.0.1');
    expect(opOf((await host.messages(1))[0])).toBe(ToShard.datagram);
    // No other socket can bind that port.
    expect((await publishing('', rule.port)).host.sockets.listen(0, rule)).toBe(-Errno.EADDRINUSE);
  });

  it('a port that the guest already sends from is published: the listener gets it', async () => {
    const { host, rule } = await publishing();
    const far = await peer();
    const early = { ...rule, targetPort: rule.port };
    host.openUdp(1, '127.0.0.1', far.port, rule.port);
    host.send(1, pattern(1));
    expect((await far.received(1))[0]!.port).toBe(rule.port);
    expect(host.sockets.listen(0, early)).toBe(0);
    const other = await peer();
    other.socket.send(pattern(5), rule.port, '127.0.0.1');
    expect(opOf((await host.messages(1))[0])).toBe(ToShard.listenerDatagram);
    far.socket.send(pattern(6), rule.port, '127.0.0.1');
    expect(opOf((await host.messages(1))[0])).toBe(ToShard.datagram);
  });

  it('many peers: each sees the published port and is answered, few descriptors are used', async () => {
    const PEERS = 60;
    const { host, rule } = await publishing();
    expect(host.sockets.listen(0, rule)).toBe(0);
    const descriptors = (): number => readdirSync('/proc/self/fd').length;
    const far = await Promise.all(Array.from({ length: PEERS }, () => peer()));
    const before = descriptors();
    for (const [i, p] of far.entries()) {
      host.openUdp(i + 1, '127.0.0.1', p.port, 8080);
      host.send(i + 1, pattern(10));
      expect((await p.received(1))[0]!.port).toBe(rule.port);
    }
    expect(descriptors() - before).toBeLessThanOrEqual(32);
    // The listener receives for flows without a socket of their own: the shard finds the flow by its
    // addresses.
    far[PEERS - 1]!.socket.send(pattern(77), rule.port, '127.0.0.1');
    const [m] = await host.messages(1);
    expect([opOf(m), datagramPeerPort(m!, 0)]).toEqual([ToShard.listenerDatagram, far[PEERS - 1]!.port]);
    host.free(m!);
    // The listener closes: flows that used it start again, others go on.
    host.sockets.unlisten(0);
    const ended = await host.messages(PEERS - 32);
    expect(ended.map((e) => [opOf(e), flowOf(e) > 32])).toEqual(ended.map(() => [ToShard.error, true]));
    host.send(1, pattern(11));
    expect((await far[0]!.received(1))[0]!.port).toBe(rule.port);
  });

  it('the port is not free at all addresses: another port, the datagram is sent', async () => {
    const { host, rule } = await publishing('127.0.0.2');
    expect(host.sockets.listen(0, rule)).toBe(0);
    const holder = await new Peer(4).bind('127.0.0.3', rule.port);
    const far = await peer();
    host.openUdp(1, '127.0.0.1', far.port, 8080);
    host.send(1, pattern(1));
    expect((await far.received(1))[0]!.port).not.toBe(rule.port);
    holder.socket.close();
  });

  it('nobody listens at the peer: an ICMP error for the flow', async () => {
    const { host, rule } = await publishing();
    expect(host.sockets.listen(0, rule)).toBe(0);
    host.openUdp(1, '127.0.0.1', await freePort(), 8080);
    host.send(1, pattern(10));
    const [m] = await host.messages(1);
    expect([opOf(m), flowOf(m)]).toEqual([ToShard.icmpError, 1]);
    host.free(m!);
  });

  it('the port is in use: -EADDRINUSE', async () => {
    const holder = await peer('0.0.0.0');
    const host = rig(plan);
    const listener = { proto: 'udp', address: '0.0.0.0', port: holder.port, targetPort: 1 } as const;
    expect(host.sockets.listen(0, listener)).toBe(-Errno.EADDRINUSE);
  });
});
