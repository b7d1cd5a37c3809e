// @vitest: beside
/**
 * The host-io stage's stream sockets on real loopback connections: what they answer to a shard's commands.
 */
import { once } from 'node:events';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { setTimeout } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { COUNTER_WORDS, Counter } from '../../../src/ring/counters.ts';
import { type FramePool, NO_SLOT, type Ownership, type SlotStack } from '../../../src/ring/pool.ts';
import type { RingConsumer, RingProducer } from '../../../src/ring/spsc.ts';
import { Errno, IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET, TCP_NODELAY } from '../../../src/sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollWait } from '../../../src/sys/epoll.ts';
import { close } from '../../../src/sys/io.ts';
import { getsockoptInt } from '../../../src/sys/socket.ts';
import { Assembly } from '../../../src/workers/assembly.ts';
import { engineMemory } from '../../../src/workers/engine-memory.ts';
import {
  DEFAULT_POLICY,
  type EnginePlan,
  type ListenerPlan,
  type ServicePolicy,
} from '../../../src/workers/engine-plan.ts';
import { HostIo } from '../../../src/workers/host-io/host-io.ts';
import type { DescriptorOut } from '../../../src/workers/link/descriptor.ts';
import { Owner } from '../../../src/workers/link/slot-owner.ts';
import {
  closeWrite,
  creditWrite,
  finishWrite,
  freeHostSlotsWrite,
  openTcpWrite,
  refuseWrite,
  resetWrite,
  rewindWrite,
  sendWrite,
} from '../../../src/workers/link/to-host.ts';
import {
  acceptedToken,
  dataOffset,
  SentFlag,
  sentBytes,
  sentFlags,
  sentFreed,
  ToShard,
  toShardText,
} from '../../../src/workers/link/to-shard.ts';
import type { SlotShares } from '../../../src/workers/placement.ts';
import { Notices } from '../../../src/workers/thread/notices.ts';
import {
  bytesOf,
  type Message,
  messageAt,
  opOf,
  slotAOf,
  slotBOf,
  slotOffsetOf,
} from '../../support/message.ts';
import { ADDRESSES } from '../../support/netsim/engine.ts';

/** A message of host-io's, and a copy of what lay in its slot. */
interface Told {
  readonly op: number;
  readonly m: Message;
  /** Of data. */
  readonly bytes: Buffer;
}

const takenBytes = ({ m }: Told): number => sentBytes(m, 0);
const freedSlots = ({ m }: Told): number => sentFreed(m, 0);
const flagsOf = ({ m }: Told): number => sentFlags(m, 0);
const offsetOf = ({ m }: Told): number => dataOffset(m, 0);
const sumOf = (list: readonly Told[], what: (told: Told) => number): number =>
  list.reduce((n, told) => n + what(told), 0);
const lengthOf = ({ bytes }: Told): number => bytes.length;

/** Small slots for the guest's bytes, large ones for the host's. */
const SHARES: SlotShares = {
  ...{ readerSmall: [0, 192], readerLarge: [0, 0], hostSmall: [192, 64], hostLarge: [256, 16] },
  ...{ scratchLarge: [0, 0], dnsEach: 0, dnsLarge: 0 },
};

/** A HostIo stage with the rings' other ends in hand. */
class Bench {
  readonly #pool: FramePool;
  readonly #ownership: Ownership;
  readonly #small: SlotStack;
  readonly #hostLarge: SlotStack;
  readonly #toHost: RingProducer;
  readonly #fromHost: RingConsumer;
  readonly #freed: RingConsumer;
  readonly #io: HostIo;
  readonly #ep = epollCreate();
  readonly #events = new EpollEvents(64);
  readonly #keep: unknown;
  readonly messages: Told[] = [];
  readonly counters = new Float64Array(COUNTER_WORDS);
  /** Guest bytes that wait in slots of the reader. */
  slotsOut = 0;

  constructor(policy: Partial<ServicePolicy> = {}, listenerCapacity = 0) {
    const plan: EnginePlan = {
      threads: { kind: 'fused' },
      addresses: ADDRESSES,
      policy: {
        ...DEFAULT_POLICY,
        udpTimeoutMs: 1000,
        udpStreamTimeoutMs: 1000,
        pingTimeoutMs: 1000,
        dhcp: false,
        ra: false,
        connectFailure: 'honest',
        ...policy,
      },
      listeners: [],
      listenerCapacity,
      pool: { smallSlots: 256, largeSlots: 16, flows: 8 },
      tap: { fd: -1, vnetHdrBytes: 12, uso: false },
      hashKey: [1, 2],
      isnKey: [1, 2, 3, 4],
      debugOwnership: true,
      logLevel: 'error',
    };
    const { sab, layout } = engineMemory(plan, { ringDescriptors: 512, logBytes: 256 });
    this.#keep = sab;
    const assembly = new Assembly({ plan, sab, layout, shares: SHARES });
    const reader = assembly.readerParts();
    const shard = assembly.shardParts(0);
    const host = assembly.hostParts();
    this.#pool = assembly.pool;
    this.#ownership = assembly.ownership;
    this.#small = reader.smallSlots;
    this.#hostLarge = host.largeSlots;
    this.#toHost = shard.toHost;
    this.#fromHost = shard.fromHost;
    this.#freed = reader.freed.at(-1)!;
    this.#io = new HostIo({
      ...host,
      plan,
      counters: this.counters,
      watch: (fd, gid, events) => epollAdd(this.#ep, fd, events, gid, 0),
      notices: new Notices(() => {}),
    });
  }

  /** A command of the shard's: `bench.command((out) => closeWrite(out, 3))`. */
  command(write: (out: DescriptorOut) => void): void {
    write(this.#toHost);
    this.#toHost.flush();
  }

  open(flow: number, port: number): void {
    const loopback = Uint32Array.of(0, 0, 0xffff, 0x7f000001);
    this.command((out) => openTcpWrite(out, flow, loopback, 0, port, 0));
  }

  listen(port: number): void {
    const plan: ListenerPlan = { proto: 'tcp', address: '127.0.0.1', port, targetPort: 80 };
    expect(this.#io.listen([plan])).toEqual([]);
  }

  /** @param mark  0, or of provisional bytes: one more than how often such were refused */
  send(flow: number, bytes: Uint8Array, mark = 0): void {
    const slot = this.#small.pop();
    if (slot === NO_SLOT) throw new Error('no slot left');
    this.#ownership.claim(slot, Owner.reader, Owner.inFlight);
    this.#pool.u8.set(bytes, this.#pool.slotAt(slot) + 66);
    this.slotsOut++;
    this.command((out) => sendWrite(out, flow, slot, NO_SLOT, 66, bytes.length, mark));
  }

  freeData({ m }: Told): void {
    this.command((out) => freeHostSlotsWrite(out, slotAOf(m), NO_SLOT));
  }

  get hostSlotsOut(): number {
    return this.#hostLarge.capacity - this.#hostLarge.free;
  }

  /** One round of the stage alone: no look at epoll, nobody else runs. */
  poll(): void {
    this.#io.poll(performance.now());
    this.#take();
  }

  /** Let the stage and the servers of this process run. */
  async run(ms = 10): Promise<void> {
    const end = performance.now() + ms;
    do {
      const n = epollWait(this.#ep, this.#events, 0);
      for (let i = 0; i < n; i++) this.#io.onEvents(this.#events.dataLo(i), this.#events.eventsOf(i));
      this.#io.poll(performance.now());
      this.#take();
      await setTimeout(1);
    } while (performance.now() < end);
  }

  async until(holds: () => boolean): Promise<void> {
    for (let i = 0; i < 500 && !holds(); i++) await this.run(2);
    if (!holds()) throw new Error(`it never came; messages: ${this.texts().join('; ')}`);
  }

  #take(): void {
    const ring = this.#fromHost;
    for (let n = ring.available(), i = 0; i < n; i++) {
      const m = messageAt(ring.words, ring.at(i));
      const at = slotAOf(m) === NO_SLOT ? -1 : this.#pool.slotAt(slotAOf(m)) + slotOffsetOf(m);
      const bytes = at < 0 ? Buffer.alloc(0) : Buffer.from(this.#pool.u8.slice(at, at + bytesOf(m)));
      this.messages.push({ op: opOf(m), m, bytes });
      if (i === n - 1) ring.release(n);
    }
    for (let n = this.#freed.available(), i = 0; i < n; i++) {
      const m = messageAt(this.#freed.words, this.#freed.at(i));
      for (const slot of [slotAOf(m), slotBOf(m)]) {
        if (slot === NO_SLOT) continue;
        this.#ownership.claim(slot, Owner.inFlight, Owner.reader);
        this.#small.push(slot);
        this.slotsOut--;
      }
      if (i === n - 1) this.#freed.release(n);
    }
  }

  of(op: number): Told[] {
    return this.messages.filter((m) => m.op === op);
  }

  /** All messages, line by line. */
  texts(): string[] {
    return this.messages.map(({ m }) => toShardText(m));
  }

  close(): void {
    this.#io.close();
    close(this.#ep);
    void this.#keep;
  }
}

let bench: Bench;
let server: Server | undefined;
const peers: Socket[] = [];

async function listen(onPeer: (socket: Socket) => void): Promise<number> {
  server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    socket.on('error', () => {});
    peers.push(socket);
    onPeer(socket);
  });
  const s = server;
  await new Promise<void>((done) => s.listen(0, '127.0.0.1', done));
  return (s.address() as { port: number }).port;
}

/** A connected flow 3, its messages up to then forgotten. */
async function connected(): Promise<Socket> {
  let peer: Socket | undefined;
  const port = await listen((socket) => {
    peer = socket;
  });
  bench = new Bench();
  bench.open(3, port);
  await bench.until(() => peer !== undefined && bench.of(ToShard.opened).length === 1);
  bench.messages.length = 0;
  return peer!;
}

afterEach(() => {
  for (const peer of peers.splice(0)) peer.destroy();
  server?.close();
  server = undefined;
  bench.close();
});

describe('stream sockets', () => {
  it('a connection that the shard refuses is reset, not ended', async () => {
    const port = await listen(() => {});
    server!.close();
    bench = new Bench({}, 1);
    bench.listen(port);
    const peer = createConnection(port, '127.0.0.1');
    peers.push(peer);
    const outcome = new Promise<string>((done) => {
      peer.on('error', (e: NodeJS.ErrnoException) => done(e.code ?? ''));
      peer.on('end', () => done('EOF'));
    });
    peer.resume();
    await bench.until(() => bench.of(ToShard.accepted).length === 1);
    bench.command((out) => refuseWrite(out, acceptedToken(bench.of(ToShard.accepted)[0]!.m, 0)));
    await bench.run(20);
    expect(await outcome).toBe('ECONNRESET');
  });

  it('accepted sockets have no Nagle and keep-alive: the first, those that waited with it, and later ones', async () => {
    const port = await listen(() => {});
    server!.close();
    bench = new Bench({}, 1);
    bench.listen(port);
    const accepted = () => bench.of(ToShard.accepted);
    for (const count of [3, 4, 5]) {
      // Three wait before the stage first looks.
      while (peers.length < count) {
        const peer = createConnection(port, '127.0.0.1');
        peers.push(peer);
        await once(peer, 'connect');
      }
      await bench.until(() => accepted().length === count);
    }
    for (const { m } of accepted()) {
      const fd = acceptedToken(m, 0);
      expect(getsockoptInt(fd, IPPROTO_TCP, TCP_NODELAY)).toBe(1);
      expect(getsockoptInt(fd, SOL_SOCKET, SO_KEEPALIVE)).toBe(1);
    }
  });

  it('connect refused: openFailed with the errno, then closed; a reset that crossed it is not answered again', async () => {
    const port = await listen(() => {});
    server!.close();
    await setTimeout(5);
    bench = new Bench();
    bench.open(3, port);
    await bench.until(() => bench.of(ToShard.closed).length > 0);
    expect(bench.texts()).toEqual([`openFailed flow 3, errno ${Errno.ECONNREFUSED}`, 'closed flow 3']);
    bench.command((out) => resetWrite(out, 3));
    await bench.run();
    expect(bench.of(ToShard.closed).length).toBe(1);
  });

  it("an outbound interface keeps nobody from the host's loopback", async () => {
    let calls = 0;
    const port = await listen(() => {
      calls++;
    });
    bench = new Bench({ outboundInterface4: 'nosuchdev', outboundAddress4: '203.0.113.9' });
    bench.open(3, port);
    await bench.until(() => calls === 1 && bench.of(ToShard.opened).length === 1);
  });

  it('bytes go out in order, slots come back, sent tells how many and that nothing waits', async () => {
    const peer = await connected();
    const got: Buffer[] = [];
    peer.on('data', (b: Buffer) => got.push(b));
    peer.resume();
    for (let i = 0; i < 20; i++) bench.send(3, Buffer.alloc(100, i));
    await bench.until(() => got.reduce((n, b) => n + b.length, 0) === 2000);
    expect(Buffer.concat(got)).toEqual(
      Buffer.concat(Array.from({ length: 20 }, (_, i) => Buffer.alloc(100, i))),
    );
    await bench.run();
    expect(sumOf(bench.of(ToShard.sent), takenBytes)).toBe(2000);
    expect(flagsOf(bench.of(ToShard.sent).at(-1)!)).toBe(SentFlag.empty);
    expect(bench.slotsOut).toBe(0);
  });

  it('a socket that takes nothing: each round is answered by sent all the same, small pieces share slots, all arrives', async () => {
    const peer = await connected();
    let total = 0;
    // Fill both kernel buffers.
    for (let i = 0; i < 20_000 && !bench.of(ToShard.sent).some((m) => flagsOf(m) === 0); i++) {
      for (let k = 0; k < 32; k++, total += 1900) bench.send(3, Buffer.alloc(1900, 0x61));
      await bench.run(0);
    }
    expect(flagsOf(bench.of(ToShard.sent).at(-1)!)).toBe(0);
    const held = bench.slotsOut;
    for (let i = 0; i < 300; i++, total += 10) {
      bench.messages.length = 0;
      bench.send(3, Buffer.alloc(10, 0x62));
      await bench.run(0);
      // Without it the shard would never acknowledge these bytes.
      expect(bench.of(ToShard.sent).length, `piece ${i}`).toBe(1);
    }
    expect(bench.slotsOut - held).toBeLessThan(10);
    let got = 0;
    let last = '';
    peer.setEncoding('latin1');
    peer.on('data', (b: string) => {
      got += b.length;
      last = b.slice(-10);
    });
    peer.resume();
    await bench.until(() => got === total);
    await bench.run();
    expect(last).toBe('bbbbbbbbbb');
    expect(bench.slotsOut).toBe(0);
  });

  it('provisional bytes: those that the socket takes are told, the rest is refused once, later room is told by itself', async () => {
    const peer = await connected();
    const sum = (what: (told: Told) => number): number => sumOf(bench.of(ToShard.sent), what);
    const refused = (): number => bench.of(ToShard.sent).filter((m) => flagsOf(m) & SentFlag.refused).length;
    let slots = 0;
    // Taken whole: nothing is refused, and the shard hears of each round.
    for (; slots < 5; slots++) {
      bench.send(3, Buffer.alloc(100, 0x61), 1);
      await bench.run(0);
    }
    expect([sum(takenBytes), refused(), sum(freedSlots)]).toEqual([500, 0, 5]);
    // Until both kernel buffers are full.
    for (let i = 0; i < 20_000 && refused() === 0; i++) {
      for (let k = 0; k < 32; k++, slots++) bench.send(3, Buffer.alloc(1900, 0x61), 1);
      await bench.run(0);
    }
    expect(refused()).toBe(1);
    expect(flagsOf(bench.of(ToShard.sent).at(-1)!)).toBe(SentFlag.refused);
    const taken = sum(takenBytes);
    // Nothing is kept, and all slots were told.
    expect([bench.slotsOut, sum(freedSlots)]).toEqual([0, slots]);
    // On its way when those in front of it were refused: it is not taken, nor refused once more.
    bench.send(3, Buffer.alloc(10, 0x62), 1);
    await bench.run();
    expect([refused(), sum(takenBytes), sum(freedSlots)]).toEqual([1, taken, slots + 1]);
    expect(bench.of(ToShard.sent).some((m) => flagsOf(m) & SentFlag.empty && takenBytes(m) === 0)).toBe(
      false,
    );

    let got = 0;
    peer.on('data', (b: Buffer) => {
      got += b.length;
    });
    peer.resume();
    await bench.until(() => flagsOf(bench.of(ToShard.sent).at(-1)!) === SentFlag.empty);
    await bench.until(() => got === taken);
    bench.send(3, Buffer.alloc(10, 0x63), 1);
    await bench.run();
    expect(got).toBe(taken);
    bench.send(3, Buffer.alloc(10, 0x64), 2);
    await bench.until(() => got === taken + 10);
    await bench.run();
    expect([refused(), bench.slotsOut]).toEqual([1, 0]);
    // The next connection of that number counts from the beginning.
    bench.command((out) => closeWrite(out, 3));
    await bench.until(() => bench.of(ToShard.closed).length === 1);
    bench.messages.length = 0;
    bench.open(3, peer.localPort!);
    await bench.until(() => bench.of(ToShard.opened).length === 1);
    bench.send(3, Buffer.alloc(10, 0x65), 1);
    await bench.until(() => sum(takenBytes) === 10);
  });

  it('the peer sends: nothing without credit, as far as credit then, again from where a rewind says', async () => {
    const peer = await connected();
    const text = Buffer.from(Array.from({ length: 5000 }, (_, i) => i & 255));
    peer.write(text);
    await bench.run();
    expect(bench.messages).toEqual([]);
    bench.command((out) => creditWrite(out, 3, 2920, 0, 1460));
    await bench.until(() => sumOf(bench.of(ToShard.data), lengthOf) === 2920);
    bench.command((out) => rewindWrite(out, 3, 1000, 500));
    await bench.run();
    const again = bench.texts().filter((text) => text.endsWith('again'));
    expect(again).toEqual(['data flow 3, 500 bytes at 1000, again']);
    bench.command((out) => creditWrite(out, 3, 6000, 2000, 1460));
    await bench.until(() => bench.of(ToShard.data).some((m) => offsetOf(m) + lengthOf(m) === 5000));
    bench.command((out) => rewindWrite(out, 3, 2000, 0));
    await bench.run();
    for (const m of bench.of(ToShard.data)) {
      expect(m.bytes).toEqual(text.subarray(offsetOf(m), offsetOf(m) + lengthOf(m)));
      bench.freeData(m);
    }
    const after = bench.of(ToShard.data).slice(-3);
    expect(sumOf(after, lengthOf)).toBe(3000);
    await bench.run();
    expect(bench.hostSlotsOut).toBe(0);
  });

  it('the peer ends: eof with the offset, once, when all has been read', async () => {
    const peer = await connected();
    peer.end('hello');
    await bench.run();
    bench.command((out) => creditWrite(out, 3, 1000, 0, 1460));
    await bench.until(() => bench.of(ToShard.eof).length > 0);
    bench.command((out) => rewindWrite(out, 3, 0, 0));
    await bench.run();
    bench.command((out) => creditWrite(out, 3, 2000, 5, 1460));
    await bench.run();
    expect(bench.texts().filter((text) => text.startsWith('eof'))).toEqual(['eof flow 3 at 5']);
    expect(bench.of(ToShard.data).map((m) => m.bytes.toString())).toEqual(['hello', 'hello']);
    // The other direction is still open.
    let got = '';
    peer.on('data', (b) => {
      got += b;
    });
    peer.resume();
    bench.send(3, Buffer.from('bye'));
    bench.command((out) => finishWrite(out, 3));
    await bench.until(() => got === 'bye');
    bench.command((out) => closeWrite(out, 3));
    await bench.until(() => bench.of(ToShard.closed).length === 1);
  });

  it('the peer has ended before it is read: its last bytes say so', async () => {
    const peer = await connected();
    peer.end('hello');
    await bench.run();
    bench.command((out) => creditWrite(out, 3, 1000, 0, 1460));
    await bench.until(() => bench.of(ToShard.eof).length > 0);
    expect(bench.of(ToShard.data).map(({ m }) => toShardText(m))).toEqual([
      'data flow 3, 5 bytes at 0, last',
    ]);
  });

  it('close behind a few acknowledged bytes ends in order: they are not left in the queue, which would be RST', async () => {
    const peer = await connected();
    const seen: string[] = [];
    peer.on('error', (e) => seen.push(e.message));
    peer.on('end', () => seen.push('end'));
    peer.resume();
    peer.write('hello');
    bench.command((out) => creditWrite(out, 3, 1000, 0, 1460));
    await bench.until(() => bench.of(ToShard.data).length > 0);
    bench.command((out) => creditWrite(out, 3, 1005, 5, 1460));
    await bench.run();
    bench.command((out) => closeWrite(out, 3));
    await bench.until(() => seen.length > 0);
    expect(seen).toEqual(['end']);
  });

  it('small amounts, acknowledged one by one, are read on with the window at its end', async () => {
    const peer = await connected();
    let offset = 0;
    for (let i = 0; i < 40; i++) {
      // Credit for exactly these bytes: what stays in the queue must not count as in flight.
      bench.command((out) => creditWrite(out, 3, offset + 100, offset, 1460));
      peer.write(Buffer.alloc(100, i));
      await bench.until(() => bench.of(ToShard.data).some((m) => offsetOf(m) === offset));
      const m = bench.of(ToShard.data).find((d) => offsetOf(d) === offset)!;
      expect(m.bytes).toEqual(Buffer.alloc(100, i));
      bench.freeData(m);
      offset += 100;
    }
  });

  it('the small rest of a bulk transfer is dropped when it is acknowledged: it pins a large buffer, and the window would stay shut', async () => {
    const peer = await connected();
    const total = 40_000;
    peer.write(Buffer.alloc(total));
    await bench.run();
    // The guest acknowledges each piece before it gets the next, as one with a small window does.
    for (const upTo of [38_000, total]) {
      const acked = upTo === total ? 38_000 : 0;
      bench.command((out) => creditWrite(out, 3, upTo + 20_000, acked, 38_000));
      await bench.until(() => sumOf(bench.of(ToShard.data), lengthOf) >= upTo);
    }
    bench.command((out) => creditWrite(out, 3, total + 20_000, total, 38_000));
    await bench.run();
    expect(bench.counters[Counter.sockConsumeBytes]).toBe(total);
  });

  it('a small read that the window cut short is no small exchange either', async () => {
    const peer = await connected();
    peer.write(Buffer.alloc(40_000));
    await bench.run();
    bench.command((out) => creditWrite(out, 3, 1000, 0, 38_000));
    await bench.until(() => bench.of(ToShard.data).length > 0);
    bench.command((out) => creditWrite(out, 3, 1000, 1000, 38_000));
    await bench.run();
    expect(bench.counters[Counter.sockConsumeBytes]).toBe(1000);
  });

  it('the peer resets: what it sent before is passed on, then the error', async () => {
    const peer = await connected();
    peer.write('last words');
    await bench.run();
    peer.resetAndDestroy();
    await bench.run();
    bench.command((out) => creditWrite(out, 3, 1000, 0, 1460));
    await bench.until(() => bench.of(ToShard.error).length > 0);
    bench.command((out) => resetWrite(out, 3));
    await bench.until(() => bench.of(ToShard.closed).length === 1);
    expect(bench.of(ToShard.error).length).toBe(1);
  });

  it('reset before anybody saw that it was connected: opened, then the error', async () => {
    let wasReset = false;
    const port = await listen((socket) => {
      socket.resetAndDestroy();
      wasReset = true;
    });
    bench = new Bench();
    bench.open(3, port);
    bench.poll();
    while (!wasReset) await setTimeout(1);
    await bench.until(() => bench.of(ToShard.opened).length > 0);
    bench.command((out) => creditWrite(out, 3, 1000, 0, 1460));
    await bench.until(() => bench.of(ToShard.error).length > 0);
    expect(bench.texts()).toEqual(['opened flow 3', `error flow 3, errno ${Errno.ECONNRESET}`]);
  });

  it('close waits for what waits: the peer gets all of it, then the end', async () => {
    const peer = await connected();
    let total = 0;
    for (let i = 0; i < 20_000 && !bench.of(ToShard.sent).some((m) => flagsOf(m) === 0); i++) {
      for (let k = 0; k < 32; k++, total += 1900) bench.send(3, Buffer.alloc(1900, 0x61));
      await bench.run(0);
    }
    bench.command((out) => closeWrite(out, 3));
    await bench.run();
    expect(bench.of(ToShard.closed)).toEqual([]);
    let got = 0;
    let ended = false;
    peer.on('data', (b) => {
      got += b.length;
    });
    peer.on('end', () => {
      ended = true;
    });
    peer.resume();
    await bench.until(() => bench.of(ToShard.closed).length === 1 && ended);
    expect(got).toBe(total);
    expect(bench.slotsOut).toBe(0);
  });
});
