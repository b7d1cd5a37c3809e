// @vitest: beside
/** Stream sockets of host-io on real loopback connections: what they answer to the commands of a shard. */
import { once } from 'node:events';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { Counter } from '../../../src/ring/counters.ts';
import { Errno, IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET, TCP_NODELAY } from '../../../src/sys/constants.ts';
import { getsockoptInt } from '../../../src/sys/socket.ts';
import {
  adoptWrite,
  closeWrite,
  creditWrite,
  finishWrite,
  refuseWrite,
  resetWrite,
  rewindWrite,
} from '../../../src/workers/link/to-host.ts';
import { acceptedToken, SentFlag, ToShard, toShardText } from '../../../src/workers/link/to-shard.ts';
import {
  flagsOf,
  freedSlots,
  HostIoRig,
  type HostMessage,
  lengthOf,
  offsetOf,
  sumOf,
  takenBytes,
} from '../../support/host-io-rig.ts';

let rig: HostIoRig;
let server: Server | undefined;
const peers: Socket[] = [];

/** A listening socket that accepts without reading. @returns its port */
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

/** Connect flow 3 of a new rig, and clear the messages so far. */
async function connected(): Promise<Socket> {
  let peer: Socket | undefined;
  const port = await listen((socket) => {
    peer = socket;
  });
  rig = new HostIoRig();
  rig.open(3, port);
  await rig.until(() => peer !== undefined && rig.of(ToShard.opened).length === 1);
  rig.messages.length = 0;
  return peer!;
}

afterEach(() => {
  for (const peer of peers.splice(0)) peer.destroy();
  server?.close();
  server = undefined;
  rig.close();
});

describe('stream sockets', () => {
  it('accepted: the shard refuses: the peer gets RST, not FIN', async () => {
    const port = await listen(() => {});
    server!.close();
    rig = new HostIoRig({}, 1);
    rig.listen(port);
    const peer = createConnection(port, '127.0.0.1');
    peers.push(peer);
    let outcome = '';
    peer.on('error', (e: NodeJS.ErrnoException) => {
      outcome ||= e.code ?? e.message;
    });
    peer.on('end', () => {
      outcome ||= 'EOF';
    });
    peer.resume();
    await rig.until(() => rig.of(ToShard.accepted).length === 1);
    rig.command((out) => refuseWrite(out, acceptedToken(rig.of(ToShard.accepted)[0]!.m, 0)));
    await rig.until(() => outcome !== '');
    expect(outcome).toBe('ECONNRESET');
  });

  it('accepted and adopted: one socket was opened', async () => {
    const port = await listen(() => {});
    server!.close();
    rig = new HostIoRig({}, 1);
    rig.listen(port);
    peers.push(createConnection(port, '127.0.0.1'));
    await rig.until(() => rig.of(ToShard.accepted).length === 1);
    rig.command((out) => adoptWrite(out, 3, acceptedToken(rig.of(ToShard.accepted)[0]!.m, 0)));
    rig.command((out) => closeWrite(out, 3));
    await rig.until(() => rig.of(ToShard.closed).length === 1);
    expect([rig.counters[Counter.sockOpened], rig.counters[Counter.sockClosed]]).toEqual([1, 1]);
  });

  it('accepted, in one batch or alone: TCP_NODELAY and SO_KEEPALIVE are set', async () => {
    const port = await listen(() => {});
    server!.close();
    rig = new HostIoRig({}, 1);
    rig.listen(port);
    const accepted = () => rig.of(ToShard.accepted);
    for (const count of [3, 4, 5]) {
      // Three connections are in the accept queue before the stage first polls.
      while (peers.length < count) {
        const peer = createConnection(port, '127.0.0.1');
        peers.push(peer);
        await once(peer, 'connect');
      }
      await rig.until(() => accepted().length === count);
    }
    for (const { m } of accepted()) {
      const fd = acceptedToken(m, 0);
      expect(getsockoptInt(fd, IPPROTO_TCP, TCP_NODELAY)).toBe(1);
      expect(getsockoptInt(fd, SOL_SOCKET, SO_KEEPALIVE)).toBe(1);
    }
  });

  it('connecting: ECONNREFUSED: openFailed with the errno, then closed; a later reset gets no second closed', async () => {
    const port = await listen(() => {});
    await once(server!.close(), 'close');
    rig = new HostIoRig();
    rig.open(3, port);
    await rig.until(() => rig.of(ToShard.closed).length > 0);
    expect(rig.texts()).toEqual([`openFailed flow 3, errno ${Errno.ECONNREFUSED}`, 'closed flow 3']);
    rig.command((out) => resetWrite(out, 3));
    await rig.run();
    expect(rig.of(ToShard.closed).length).toBe(1);
  });

  it('outbound interface and address set: a connection to host loopback succeeds all the same', async () => {
    let calls = 0;
    const port = await listen(() => {
      calls++;
    });
    rig = new HostIoRig({ outboundInterface4: 'nosuchdev', outboundAddress4: '203.0.113.9' });
    rig.open(3, port);
    await rig.until(() => calls === 1 && rig.of(ToShard.opened).length === 1);
  });

  it('open: guest bytes: written in order, slots freed, `sent` has their number and the empty flag', async () => {
    const peer = await connected();
    const got: Buffer[] = [];
    peer.on('data', (b: Buffer) => got.push(b));
    peer.resume();
    for (let i = 0; i < 20; i++) rig.send(3, Buffer.alloc(100, i));
    await rig.until(() => got.reduce((n, b) => n + b.length, 0) === 2000);
    expect(Buffer.concat(got)).toEqual(
      Buffer.concat(Array.from({ length: 20 }, (_, i) => Buffer.alloc(100, i))),
    );
    await rig.until(() => sumOf(rig.of(ToShard.sent), takenBytes) === 2000);
    expect(flagsOf(rig.of(ToShard.sent).at(-1)!)).toBe(SentFlag.empty);
    await rig.until(() => rig.slotsOut === 0);
  });

  it('send buffer full: each round is answered by `sent`, small pieces share slots, all bytes arrive later', async () => {
    const peer = await connected();
    let total = 0;
    // Fill both kernel buffers.
    for (let i = 0; i < 20_000 && !rig.of(ToShard.sent).some((m) => flagsOf(m) === 0); i++) {
      for (let k = 0; k < 32; k++, total += 1900) rig.send(3, Buffer.alloc(1900, 0x61));
      await rig.run(0);
    }
    expect(flagsOf(rig.of(ToShard.sent).at(-1)!)).toBe(0);
    const held = rig.slotsOut;
    for (let i = 0; i < 300; i++, total += 10) {
      rig.messages.length = 0;
      rig.send(3, Buffer.alloc(10, 0x62));
      await rig.run(0);
      // Without this message the shard would never acknowledge these bytes.
      expect(rig.of(ToShard.sent).length, `piece ${i}`).toBe(1);
    }
    expect(rig.slotsOut - held).toBeLessThan(10);
    let got = 0;
    let last = '';
    peer.setEncoding('latin1');
    peer.on('data', (b: string) => {
      got += b.length;
      last = b.slice(-10);
    });
    peer.resume();
    await rig.until(() => got === total && rig.slotsOut === 0);
    expect(last).toBe('bbbbbbbbbb');
  });

  it('provisional bytes: send buffer full: the rest is refused once; `sent` reports later room unasked', async () => {
    const peer = await connected();
    const sum = (value: (message: HostMessage) => number): number => sumOf(rig.of(ToShard.sent), value);
    const refused = (): number => rig.of(ToShard.sent).filter((m) => flagsOf(m) & SentFlag.refused).length;
    let slots = 0;
    // Room for all: nothing is refused, and each round has its `sent`.
    for (; slots < 5; slots++) {
      rig.send(3, Buffer.alloc(100, 0x61), 1);
      await rig.run(0);
    }
    expect([sum(takenBytes), refused(), sum(freedSlots)]).toEqual([500, 0, 5]);
    // Until both kernel buffers are full.
    for (let i = 0; i < 20_000 && refused() === 0; i++) {
      for (let k = 0; k < 32; k++, slots++) rig.send(3, Buffer.alloc(1900, 0x61), 1);
      await rig.run(0);
    }
    expect(refused()).toBe(1);
    expect(flagsOf(rig.of(ToShard.sent).at(-1)!)).toBe(SentFlag.refused);
    const taken = sum(takenBytes);
    // No slot is kept, and `sent` messages counted all of them.
    expect([rig.slotsOut, sum(freedSlots)]).toEqual([0, slots]);
    // Bytes that were under way when those before them were refused: not written, and not refused again.
    rig.send(3, Buffer.alloc(10, 0x62), 1);
    await rig.run();
    expect([refused(), sum(takenBytes), sum(freedSlots)]).toEqual([1, taken, slots + 1]);
    expect(rig.of(ToShard.sent).some((m) => flagsOf(m) & SentFlag.empty && takenBytes(m) === 0)).toBe(false);

    let got = 0;
    peer.on('data', (b: Buffer) => {
      got += b.length;
    });
    peer.resume();
    await rig.until(() => flagsOf(rig.of(ToShard.sent).at(-1)!) === SentFlag.empty);
    await rig.until(() => got === taken);
    rig.send(3, Buffer.alloc(10, 0x63), 1);
    await rig.run();
    expect(got).toBe(taken);
    rig.send(3, Buffer.alloc(10, 0x64), 2);
    await rig.until(() => got === taken + 10);
    await rig.run();
    expect([refused(), rig.slotsOut]).toEqual([1, 0]);
    // The next connection with this flow number counts refusals from 0.
    rig.command((out) => closeWrite(out, 3));
    await rig.until(() => rig.of(ToShard.closed).length === 1);
    rig.messages.length = 0;
    rig.open(3, peer.localPort!);
    await rig.until(() => rig.of(ToShard.opened).length === 1);
    rig.send(3, Buffer.alloc(10, 0x65), 1);
    await rig.until(() => sum(takenBytes) === 10);
  });

  it('open: the peer sends: no data without credit, then up to the credit; a rewind repeats from its offset', async () => {
    const peer = await connected();
    const text = Buffer.from(Array.from({ length: 5000 }, (_, i) => i & 255));
    peer.write(text);
    await rig.run();
    expect(rig.messages).toEqual([]);
    rig.command((out) => creditWrite(out, 3, 2920, 0, 1460));
    await rig.until(() => sumOf(rig.of(ToShard.data), lengthOf) === 2920);
    rig.command((out) => rewindWrite(out, 3, 1000, 500));
    const again = () => rig.texts().filter((text) => text.endsWith('again'));
    await rig.until(() => again().length > 0);
    expect(again()).toEqual(['data flow 3, 500 bytes at 1000, again']);
    rig.command((out) => creditWrite(out, 3, 6000, 2000, 1460));
    await rig.until(() => rig.of(ToShard.data).some((m) => offsetOf(m) + lengthOf(m) === 5000));
    rig.command((out) => rewindWrite(out, 3, 2000, 0));
    await rig.run();
    for (const m of rig.of(ToShard.data)) {
      expect(m.bytes).toEqual(text.subarray(offsetOf(m), offsetOf(m) + lengthOf(m)));
      rig.freeData(m);
    }
    const after = rig.of(ToShard.data).slice(-3);
    expect(sumOf(after, lengthOf)).toBe(3000);
    await rig.until(() => rig.hostSlotsOut === 0);
  });

  it('open: FIN of the peer: one eof with the offset, after all data; sending goes on', async () => {
    const peer = await connected();
    peer.end('hello');
    await rig.run();
    rig.command((out) => creditWrite(out, 3, 1000, 0, 1460));
    await rig.until(() => rig.of(ToShard.eof).length > 0);
    rig.command((out) => rewindWrite(out, 3, 0, 0));
    await rig.run();
    rig.command((out) => creditWrite(out, 3, 2000, 5, 1460));
    await rig.run();
    expect(rig.texts().filter((text) => text.startsWith('eof'))).toEqual(['eof flow 3 at 5']);
    expect(rig.of(ToShard.data).map((m) => m.bytes.toString())).toEqual(['hello', 'hello']);
    // The other direction is still open.
    let got = '';
    peer.on('data', (b) => {
      got += b;
    });
    peer.resume();
    rig.send(3, Buffer.from('bye'));
    rig.command((out) => finishWrite(out, 3));
    await rig.until(() => got === 'bye');
    rig.command((out) => closeWrite(out, 3));
    await rig.until(() => rig.of(ToShard.closed).length === 1);
  });

  it('FIN of the peer already received: the first read carries the last flag', async () => {
    const peer = await connected();
    peer.end('hello');
    await rig.run();
    rig.command((out) => creditWrite(out, 3, 1000, 0, 1460));
    await rig.until(() => rig.of(ToShard.eof).length > 0);
    expect(rig.of(ToShard.data).map(({ m }) => toShardText(m))).toEqual(['data flow 3, 5 bytes at 0, last']);
  });

  it('acknowledged bytes still in the receive queue: close: they are consumed first, for the kernel would send RST', async () => {
    const peer = await connected();
    const seen: string[] = [];
    peer.on('error', (e) => seen.push(e.message));
    peer.on('end', () => seen.push('end'));
    peer.resume();
    peer.write('hello');
    rig.command((out) => creditWrite(out, 3, 1000, 0, 1460));
    await rig.until(() => rig.of(ToShard.data).length > 0);
    rig.command((out) => creditWrite(out, 3, 1005, 5, 1460));
    await rig.run();
    rig.command((out) => closeWrite(out, 3));
    await rig.until(() => seen.length > 0);
    expect(seen).toEqual(['end']);
  });

  it('credit for exactly the next 100 bytes: each piece is read when the one before it is acknowledged', async () => {
    const peer = await connected();
    let offset = 0;
    for (let i = 0; i < 40; i++) {
      // Acknowledged bytes that stay in the receive queue must not count as in flight.
      rig.command((out) => creditWrite(out, 3, offset + 100, offset, 1460));
      peer.write(Buffer.alloc(100, i));
      await rig.until(() => rig.of(ToShard.data).some((m) => offsetOf(m) === offset));
      const m = rig.of(ToShard.data).find((d) => offsetOf(d) === offset)!;
      expect(m.bytes).toEqual(Buffer.alloc(100, i));
      rig.freeData(m);
      offset += 100;
    }
  });

  it('bulk transfer: its small rest is acknowledged: consumed at once, for it pins a large buffer and keeps the window shut', async () => {
    const peer = await connected();
    const total = 40_000;
    peer.write(Buffer.alloc(total));
    await rig.run();
    // The guest acknowledges each piece before it gets the next, as one with a small window does.
    for (const upTo of [38_000, total]) {
      const acked = upTo === total ? 38_000 : 0;
      rig.command((out) => creditWrite(out, 3, upTo + 20_000, acked, 38_000));
      await rig.until(() => sumOf(rig.of(ToShard.data), lengthOf) >= upTo);
    }
    rig.command((out) => creditWrite(out, 3, total + 20_000, total, 38_000));
    await rig.until(() => rig.counters[Counter.sockConsumeBytes] === total);
  });

  it('a read cut short by the credit: acknowledged: consumed at once, as of a bulk transfer', async () => {
    const peer = await connected();
    peer.write(Buffer.alloc(40_000));
    await rig.run();
    rig.command((out) => creditWrite(out, 3, 1000, 0, 38_000));
    await rig.until(() => rig.of(ToShard.data).length > 0);
    rig.command((out) => creditWrite(out, 3, 1000, 1000, 38_000));
    await rig.until(() => rig.counters[Counter.sockConsumeBytes]! >= 1000);
    expect(rig.counters[Counter.sockConsumeBytes]).toBe(1000);
  });

  it('open: RST of the peer: the data before it, then one error', async () => {
    const peer = await connected();
    peer.write('last words');
    await rig.run();
    peer.resetAndDestroy();
    await rig.run();
    rig.command((out) => creditWrite(out, 3, 1000, 0, 1460));
    await rig.until(() => rig.of(ToShard.error).length > 0);
    rig.command((out) => resetWrite(out, 3));
    await rig.until(() => rig.of(ToShard.closed).length === 1);
    expect(rig.of(ToShard.error).length).toBe(1);
  });

  it('connecting: connected and reset before the next poll: opened, then the error', async () => {
    const { promise: reset, resolve } = Promise.withResolvers<void>();
    const port = await listen((socket) => {
      socket.resetAndDestroy();
      resolve();
    });
    rig = new HostIoRig();
    rig.open(3, port);
    rig.poll();
    await reset;
    await rig.until(() => rig.of(ToShard.opened).length > 0);
    rig.command((out) => creditWrite(out, 3, 1000, 0, 1460));
    await rig.until(() => rig.of(ToShard.error).length > 0);
    expect(rig.texts()).toEqual(['opened flow 3', `error flow 3, errno ${Errno.ECONNRESET}`]);
  });

  it('guest bytes and a reset in one round: the peer gets the bytes, then RST', async () => {
    const peer = await connected();
    let got = '';
    let outcome = '';
    peer.on('data', (bytes: Buffer) => {
      got += bytes.toString();
    });
    peer.on('error', (e: NodeJS.ErrnoException) => {
      outcome = e.code ?? e.message;
    });
    rig.send(3, Buffer.from('last '));
    rig.send(3, Buffer.from('words'));
    rig.command((out) => resetWrite(out, 3));
    peer.resume();
    await rig.until(() => outcome !== '' && rig.of(ToShard.closed).length > 0);
    expect({ got, outcome, slotsOut: rig.slotsOut }).toEqual({
      ...{ got: 'last words', outcome: 'ECONNRESET', slotsOut: 0 },
    });
    expect(rig.texts().at(-1)).toBe('closed flow 3');
    expect(rig.of(ToShard.closed)).toHaveLength(1);
  });

  it('the peer has reset, guest bytes and a reset in one round: closed is the last message, and sent once', async () => {
    const peer = await connected();
    peer.resetAndDestroy();
    await once(peer, 'close');
    rig.send(3, Buffer.from('late'));
    rig.command((out) => resetWrite(out, 3));
    await rig.until(() => rig.of(ToShard.closed).length > 0);
    await rig.run();
    expect(rig.texts().at(-1)).toBe('closed flow 3');
    expect(rig.of(ToShard.closed)).toHaveLength(1);
    expect(rig.slotsOut).toBe(0);
  });

  it('send buffer full: close: closed only when the peer has all bytes and FIN', async () => {
    const peer = await connected();
    let total = 0;
    for (let i = 0; i < 20_000 && !rig.of(ToShard.sent).some((m) => flagsOf(m) === 0); i++) {
      for (let k = 0; k < 32; k++, total += 1900) rig.send(3, Buffer.alloc(1900, 0x61));
      await rig.run(0);
    }
    rig.command((out) => closeWrite(out, 3));
    await rig.run();
    expect(rig.of(ToShard.closed)).toEqual([]);
    let got = 0;
    let ended = false;
    peer.on('data', (b) => {
      got += b.length;
    });
    peer.on('end', () => {
      ended = true;
    });
    peer.resume();
    await rig.until(() => rig.of(ToShard.closed).length === 1 && ended);
    expect(got).toBe(total);
    expect(rig.slotsOut).toBe(0);
  });
});

describe('a socket that changes lanes', () => {
  const TEXT = Buffer.from('abcdefghijklmnopqrstuvwxyz'.repeat(40));
  const CREDIT = 100_000;
  const got = (): Buffer => Buffer.concat(rig.of(ToShard.data).map(({ bytes }) => bytes));
  const credit = (flow: number, acked = 0): void =>
    rig.command((out) => creditWrite(out, flow, acked + CREDIT, acked, 1460));
  const sleep = (ms: number): Promise<void> => new Promise((done) => void setTimeout(done, ms));

  const ended = (peer: Socket): Promise<void> => new Promise((done) => void peer.end(() => done()));
  const freeAll = (): void => {
    for (const message of rig.messages.splice(0)) if (message.op === ToShard.data) rig.freeData(message);
  };

  interface Between {
    readonly what: string;
    readonly writes?: true;
    act(peer: Socket): Promise<void>;
    readonly last: string;
  }
  const nothing = async (): Promise<void> => {};
  const reset = async (peer: Socket): Promise<void> => {
    await sleep(10);
    peer.resetAndDestroy();
  };
  const BETWEEN: Between[] = [
    { what: 'data', writes: true, act: nothing, last: 'data flow 5' },
    { what: 'the end of the stream', act: ended, last: 'eof flow 5' },
    { what: 'data and the end', writes: true, act: ended, last: 'eof flow 5' },
    { what: 'a reset', act: reset, last: 'error flow 5' },
    { what: 'data and a reset', writes: true, act: reset, last: 'error flow 5' },
  ];
  it.each(BETWEEN)('$what between two epoll instances is not missed', async ({ writes, act, last }) => {
    const peer = await connected();
    credit(3);
    await rig.run(20);
    const state = rig.release(3);
    expect(state).toBeDefined();
    if (writes) peer.write(TEXT);
    await act(peer);
    await rig.run(30);
    expect(rig.texts(), 'nothing is said of a socket that is given away').toEqual([]);
    rig.takeOver(5, state!);
    credit(5);
    await rig.until(() => rig.texts().some((text) => text.startsWith(last)));
    if (writes) expect(got()).toEqual(TEXT);
    expect(rig.texts().every((text) => text.includes('flow 5'))).toBe(true);
  });

  it('bytes in flight can be read again; acknowledged ones are gone; the rest follows', async () => {
    const peer = await connected();
    credit(3);
    peer.write(TEXT);
    await rig.until(() => got().length === TEXT.length);
    credit(3, 100);
    await rig.run(10);
    freeAll();
    const state = rig.release(3)!;
    peer.write('more');
    await sleep(10);
    rig.takeOver(5, state);
    credit(5, 100);
    await rig.until(() => got().includes('more'));
    expect(got().toString()).toBe('more');
    freeAll();
    rig.command((out) => rewindWrite(out, 5, 100, 0));
    await rig.until(() => got().length >= TEXT.length - 100 + 4);
    expect(got()).toEqual(Buffer.concat([TEXT.subarray(100), Buffer.from('more')]));
  });

  it('stays while it has bytes to send, and once its stream has ended', async () => {
    const peer = await connected();
    let sent = 0;
    const piece = new Uint8Array(1900).fill(7);
    // Until the peer, which does not read, and both buffers are full.
    for (; sent < 20_000 && rig.slotsOut < 100; sent++) {
      rig.send(3, piece);
      rig.poll();
    }
    expect(rig.slotsOut).toBeGreaterThan(0);
    expect(rig.release(3)).toBe(undefined);
    peer.resume();
    await rig.until(() => rig.slotsOut === 0);
    credit(3);
    peer.end();
    await rig.until(() => rig.of(ToShard.eof).length === 1);
    expect(rig.release(3)).toBe(undefined);
  });

  it("the guest's FIN was passed on: the peer can still send, and the socket closes in order", async () => {
    const peer = await connected();
    let end = false;
    peer.on('end', () => {
      end = true;
    });
    peer.resume();
    rig.command((out) => finishWrite(out, 3));
    const state = rig.release(3)!;
    rig.takeOver(5, state);
    credit(5);
    await rig.until(() => end);
    peer.end(TEXT);
    await rig.until(() => rig.of(ToShard.eof).length === 1);
    expect(got()).toEqual(TEXT);
    credit(5, TEXT.length);
    rig.command((out) => closeWrite(out, 5));
    await rig.until(() => rig.of(ToShard.closed).length === 1);
  });

  it('is taken back by the lane that gave it away', async () => {
    const peer = await connected();
    credit(3);
    peer.write(TEXT.subarray(0, 200));
    await rig.until(() => got().length === 200);
    const state = rig.release(3)!;
    peer.write(TEXT.subarray(200));
    await sleep(5);
    rig.takeOver(3, state);
    await rig.until(() => got().length === TEXT.length);
    expect(got()).toEqual(TEXT);
  });
});
