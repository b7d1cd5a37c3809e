// @vitest: beside
/** Connections made by the guest and from outside, and those that fail. RFC 9293 sections 3.5 and 3.10.7. */
import { describe, expect, it } from 'vitest';
import { Drop } from '../../../src/proto/drop.ts';
import { Errno } from '../../../src/sys/constants.ts';
import { StageDrop } from '../../../src/workers/link/stage-drop.ts';
import { NOTHING_LEFT } from '../../support/netsim/engine.ts';
import { type Script, SYN_OPTIONS } from '../../support/netsim/script.ts';
import { script } from '../../support/netsim/test-script.ts';
import { Ack, Syn } from '../../support/netsim/wire.ts';

describe('TCP handshake', () => {
  it('CLOSED: SYN: opens the host socket; SYN,ACK when that is connected', () => {
    const t = script();
    t.onOpen = (socket) => socket.connectAfter(50);
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out(49)).toEqual([]);
    expect(t.socket.port).toBe(80);
    expect(t.socket.address).toEqual([0, 0, 0xffff, 0xc6336407]);
    const [synAck] = t.segments(10);
    expect(t.text(synAck!)).toBe('SYN,ACK 0 ack 1');
    expect(synAck!.options).toEqual({ mss: 1460, wscale: 8, sackPermitted: true });
  });

  it('CLOSED: SYN without options is answered without window scale, SACK and timestamps', () => {
    const t = script();
    t.send('SYN', 0, null);
    const [synAck] = t.segments(5);
    expect(synAck!.options).toEqual({ mss: 1460 });
  });

  it('CLOSED: SYN with ECN flags is answered without them', () => {
    const t = script();
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.segments(5)[0]!.flags).toBe(Syn | Ack);
  });

  it.each([4, 6] as const)('CLOSED: IPv%d without MSS option gets segments of the default size', (family) => {
    const t = script({ family });
    t.send('SYN', 0, null, { options: { wscale: 7 } });
    t.segments(5);
    t.send('ACK', 1, 1);
    t.frames();
    t.socket.peerWrite(5000);
    const sizes = t.frames().map((d) => d.gsoSize);
    expect(sizes[0]).toBe(family === 4 ? 536 : 1220);
  });

  it('CLOSED: MSS above the MTU is cut to it', () => {
    const t = script();
    t.establish({ options: { ...SYN_OPTIONS, mss: 65495 } });
    t.socket.peerWrite(5000);
    expect(t.frames()[0]!.gsoSize).toBe(1460);
  });

  it('CLOSED: MSS 0 or tiny: segments have a minimum size', () => {
    for (const mss of [0, 1]) {
      const t = script();
      t.establish({ options: { ...SYN_OPTIONS, mss } });
      t.socket.peerWrite(5000);
      const sizes = t.frames().map((d) => d.gsoSize);
      expect(Math.min(...sizes)).toBeGreaterThanOrEqual(64);
    }
  });

  it('CLOSED: window scale above 14 is taken as 14', () => {
    const t = script();
    t.establish({ options: { ...SYN_OPTIONS, wscale: 255 }, window: 1 });
    t.socket.peerWrite(100_000);
    const bytes = t.segments().reduce((sum, s) => sum + s.payload.length, 0);
    expect(bytes).toBe(1 << 14);
  });

  it('CLOSED: SYN with malformed options: the connection opens', () => {
    for (const raw of [[2, 0], [2, 255], [8, 2], [3, 1], [5, 3, 0], [254]]) {
      const t = script();
      t.send('SYN', 0, null, { options: { raw: Uint8Array.from(raw) } });
      expect(t.out(5)).toEqual(['SYN,ACK 0 ack 1']);
    }
  });

  it.each([
    ['ACK', 7, 'RST 7'],
    ['FIN,ACK', 7, 'RST 7'],
    ['SYN,ACK', 7, 'RST 7'],
  ])('CLOSED: %s of no connection answers RST with its ACK number', (flags, ack, answer) => {
    const t = script();
    t.send(flags, 100, ack);
    expect(t.out()).toEqual([answer]);
    expect(t.engine.drops(StageDrop.tcpNoFlow)).toBe(1);
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('CLOSED: a segment without ACK answers RST,ACK that covers its payload and FIN', () => {
    const t = script();
    t.send('FIN', 100, null, { bytes: 10 });
    expect(t.out()).toEqual(['RST,ACK 0 ack 111']);
  });

  it('CLOSED: RST is not answered', () => {
    const t = script();
    t.send('RST', 100, null).send('RST,ACK', 100, 5);
    expect(t.out()).toEqual([]);
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it.each([24, 23, 105, 12])(
    'CONNECTING: errno %d, no descriptor or memory: the SYN is dropped and counted, its repetition connects',
    (errno) => {
      const t = script();
      t.onOpen = (socket) => {
        if (t.sockets.length === 1) socket.failAfter(0, errno);
        else socket.connectAfter(0.1);
      };
      t.send('SYN', 0, null, { options: SYN_OPTIONS });
      expect(t.out(50)).toEqual([]);
      expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
      t.send('SYN', 0, null, { options: SYN_OPTIONS });
      expect(t.out(50)).toEqual(['SYN,ACK 0 ack 1']);
    },
  );

  it.each(['0.0.0.0', '::'] as const)('CLOSED: SYN from %s: dropped', (guest) => {
    const t = script({ family: guest === '::' ? 6 : 4 });
    t.guest = guest;
    t.send('SYN', 0, null, { options: SYN_OPTIONS }).send('ACK', 1, 1);
    expect(t.out(50)).toEqual([]);
    expect(t.sockets).toEqual([]);
    expect(t.engine.drops(StageDrop.ipSource)).toBe(2);
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('CLOSED: SYN with RST or FIN: no connection', () => {
    const t = script();
    t.send('SYN,RST', 0, null).send('SYN,FIN', 0, null);
    t.out();
    expect(t.sockets).toEqual([]);
  });

  it('CLOSED: a wrong checksum is counted and not answered', () => {
    const t = script();
    t.send('SYN', 0, null, { badChecksum: true });
    expect(t.out()).toEqual([]);
    expect(t.engine.drops(Drop.tcpChecksum)).toBe(1);
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it.each(['224.0.0.1', '255.255.255.255', '127.0.0.1', '0.0.0.0', '240.0.0.1'])(
    'CLOSED: SYN to %s: no answer',
    (remote) => {
      const t = script();
      t.remote = remote;
      t.send('SYN', 0, null, { options: SYN_OPTIONS }).send('ACK', 1, 1).send('FIN', 1, null);
      expect(t.out()).toEqual([]);
      expect(t.sockets).toEqual([]);
      expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
    },
  );

  it('CLOSED: SYN to port 0 is dropped', () => {
    const t = script();
    t.dstPort = 0;
    t.send('SYN', 0, null);
    expect(t.out()).toEqual([]);
    expect(t.engine.drops(StageDrop.tcpDestination)).toBe(1);
  });

  it('CLOSED: SYN to the gateway is refused, to the loopback mapping goes to 127.0.0.1', () => {
    const t = script();
    t.remote = '192.0.2.1';
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out()).toEqual(['RST,ACK 0 ack 1']);
    t.remote = '192.0.2.2';
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    t.out();
    expect(t.socket.address).toEqual([0, 0, 0xffff, 0x7f000001]);
  });

  it('CLOSED: many SYNs: connections may use the whole table', () => {
    const t = script({ flows: 64 });
    for (let i = 0; i < 64; i++) {
      t.srcPort = 40_000 + i;
      t.establish();
    }
    expect(t.sockets).toHaveLength(64);
  });

  it('CLOSED: the flow table is full: SYN is dropped, its repetition connects when an id is free', () => {
    const t = script({ flows: 2 });
    t.onOpen = (socket) => socket.failAfter(500, Errno.ECONNREFUSED);
    for (let i = 0; i < 3; i++) {
      t.srcPort = 40000 + i;
      t.send('SYN', 0, null);
    }
    expect(t.out()).toEqual([]);
    expect(t.sockets.length).toBe(2);
    expect(t.engine.logs.length).toBeGreaterThan(0);
    t.out(600);
    t.onOpen = (socket) => socket.connectAfter(0.1);
    t.send('SYN', 0, null);
    expect(t.out(5)).toEqual(['SYN,ACK 0 ack 1']);
  });

  it('CONNECTING: SYN is repeated: no second socket', () => {
    const t = script();
    t.onOpen = (socket) => socket.connectAfter(2500);
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    t.out(1000);
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out(1499)).toEqual([]);
    expect(t.sockets.length).toBe(1);
    expect(t.out(5)).toEqual(['SYN,ACK 0 ack 1']);
  });

  it('CONNECTING: RST of the guest resets the host socket', () => {
    const t = script();
    t.onOpen = () => {};
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    t.out();
    t.send('RST', 1, null);
    expect(t.out()).toEqual([]);
    expect(t.socket.closedBy).toBe('reset');
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it("CONNECTING: RST of the guest crosses the host's refusal: the flow ends once", () => {
    const t = script({ linkMs: 5 });
    t.onOpen = (socket) => socket.failAfter(2, Errno.ECONNREFUSED);
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    t.out(9);
    t.send('RST', 1, null);
    t.out(3);
    // The same flow id may be used again at once.
    t.out(30);
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
    t.onOpen = (socket) => socket.connectAfter(1);
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out(30)).toEqual(['SYN,ACK 0 ack 1']);
  });

  it('CONNECTING: refused by the host: RST,ACK', () => {
    const t = script();
    t.onOpen = (socket) => socket.failAfter(1, Errno.ECONNREFUSED);
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out(5)).toEqual(['RST,ACK 0 ack 1']);
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it.each([
    [4, Errno.EHOSTUNREACH, 1, 3, 1],
    [4, Errno.ENETUNREACH, 1, 3, 0],
    [6, Errno.EHOSTUNREACH, 58, 1, 3],
    [6, Errno.ENETUNREACH, 58, 1, 0],
  ] as const)('CONNECTING: IPv%d, errno %d: ICMP %d type %d code %d', (family, errno, proto, type, code) => {
    const t = script({ family });
    t.onOpen = (socket) => socket.failAfter(1, errno);
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    const frames = t.frames(5);
    expect(frames.length).toBe(1);
    expect(frames[0]!.proto).toBe(proto);
    expect([...frames[0]!.body.subarray(0, 2)]).toEqual([type, code]);
    // The quoted TCP header has ports and sequence number of the SYN, by which the guest's kernel finds the
    // connection.
    const quoted = frames[0]!.body.subarray(8 + (family === 4 ? 20 : 40));
    const v = new DataView(quoted.buffer, quoted.byteOffset, quoted.byteLength);
    expect([v.getUint16(0), v.getUint16(2), v.getUint32(4)]).toEqual([40000, 80, t.iss]);
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('CONNECTING: unreachable, policy "rst": RST,ACK', () => {
    const t = script({ policy: { connectFailure: 'rst' } });
    t.onOpen = (socket) => socket.failAfter(1, Errno.EHOSTUNREACH);
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out(5)).toEqual(['RST,ACK 0 ack 1']);
  });

  it('CONNECTING: ETIMEDOUT: no answer', () => {
    const t = script();
    t.onOpen = (socket) => socket.failAfter(1, Errno.ETIMEDOUT);
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out(5)).toEqual([]);
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('SYN-RECEIVED: ACK establishes', () => {
    const t = script().establish();
    t.send('PSH,ACK', 1, 1, { bytes: 5 });
    expect(t.out()[0]).toBe('ACK 1 ack 6');
    expect(t.socket.received).toBe(5);
  });

  it('SYN-RECEIVED: ACK with data and FIN: established, both are accepted', () => {
    const t = script();
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    t.out(5);
    t.send('FIN,PSH,ACK', 1, 1, { bytes: 5 });
    expect(t.out()).toContain('ACK 1 ack 7');
    expect([t.socket.received, t.socket.gotFin]).toEqual([5, true]);
  });

  it.each([0, 2, 0x7fff_ffff])('SYN-RECEIVED: unacceptable ACK %d: RST, the state stays', (ack) => {
    const t = script();
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    t.out(5);
    t.send('ACK', 1, ack);
    const [rst] = t.segments();
    expect([rst!.flags & 4, (rst!.seq - t.ourIss) >>> 0]).toEqual([4, ack]);
    t.send('ACK', 1, 1).send('PSH,ACK', 1, 1, { bytes: 3 });
    expect(t.out()).toContain('ACK 1 ack 4');
  });

  it('SYN-RECEIVED: SYN is repeated: answered again', () => {
    const t = script();
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out(5)).toEqual(['SYN,ACK 0 ack 1']);
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out(5)).toEqual(['SYN,ACK 0 ack 1']);
  });

  it('SYN-RECEIVED: RST with the exact number: resets the host socket; with another: ignored', () => {
    const t = script();
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    t.out(5);
    t.send('RST', 50_000_000, null);
    t.out();
    expect(t.socket.state).toBe('open');
    t.send('RST', 1, null);
    t.out();
    expect(t.socket.closedBy).toBe('reset');
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('SYN-RECEIVED: no ACK: SYN,ACK is retransmitted with back-off, then both sides are reset', () => {
    const t = script();
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    const texts = t.out(200_000);
    expect(texts.slice(0, 3)).toEqual(['SYN,ACK 0 ack 1', 'SYN,ACK 0 ack 1', 'SYN,ACK 0 ack 1']);
    expect(texts.length).toBeGreaterThan(4);
    expect(texts.length).toBeLessThan(12);
    expect(texts.at(-1)).toMatch(/^RST/);
    expect(t.socket.closedBy).toBe('reset');
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('SYN-RECEIVED: the host peer has closed already: FIN after the handshake', () => {
    const t = script();
    t.onOpen = (socket) => {
      socket.connectAfter(0.1);
    };
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    t.out(5);
    t.socket.peerWrite(10);
    t.socket.peerClose();
    expect(t.out()).toEqual([]);
    t.send('ACK', 1, 1);
    expect(t.out()).toEqual(['PSH,ACK 1+10 ack 1', 'FIN,ACK 11 ack 1']);
  });
});

describe('TCP handshake of connections from outside', () => {
  const accept = (t: Script, peer = '198.51.100.7'): { refused: boolean } => {
    const result = { refused: false };
    t.engine.accept(peer, 80, 40000, (socket) => {
      if (socket === null) result.refused = true;
      else t.sockets.push(socket);
    });
    return result;
  };

  /** A connection from outside, after its handshake. */
  const established = (): Script => {
    const t = script();
    accept(t);
    t.out();
    t.send('SYN,ACK', 0, 1, { options: SYN_OPTIONS });
    t.out();
    return t;
  };

  it.each([4, 6] as const)('IPv%d: SYN to the guest; its SYN,ACK establishes; bytes flow', (family) => {
    const t = script({ family });
    accept(t, family === 4 ? '198.51.100.7' : '2001:db8:1::7');
    const [syn] = t.segments();
    expect(t.text(syn!)).toBe('SYN 0');
    expect([syn!.srcPort, syn!.dstPort]).toEqual([80, 40000]);
    expect(syn!.options.mss).toBe(family === 4 ? 1460 : 1440);
    expect(syn!.options.wscale).toBe(8);
    expect(syn!.options.sackPermitted).toBe(true);
    t.socket.peerWrite(20);
    t.send('SYN,ACK', 0, 1, { options: SYN_OPTIONS });
    expect(t.out()).toEqual(['ACK 1 ack 1', 'PSH,ACK 1+20 ack 1'].sort());
    t.send('PSH,ACK', 1, 21, { bytes: 7 });
    t.out();
    expect([t.socket.received, t.socket.consumed]).toEqual([7, 20]);
  });

  it('SYN-SENT: the window of a SYN,ACK is not scaled', () => {
    const t = script();
    accept(t);
    t.out();
    t.socket.peerWrite(5000);
    t.send('SYN,ACK', 0, 1, { options: SYN_OPTIONS, window: 1000 });
    const bytes = t.segments().reduce((sum, s) => sum + s.payload.length, 0);
    expect(bytes).toBe(1000);
  });

  it('SYN-SENT: RST,ACK of the guest: the peer is reset', () => {
    const t = script();
    accept(t);
    t.out();
    t.send('RST,ACK', 0, 1);
    expect(t.out()).toEqual([]);
    expect(t.socket.closedBy).toBe('reset');
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('SYN-SENT: RST without ACK, or with an unacceptable one: ignored', () => {
    const t = script();
    accept(t);
    t.out();
    t.send('RST', 0, null).send('RST,ACK', 0, 5);
    expect(t.out()).toEqual([]);
    expect(t.socket.state).toBe('open');
  });

  it('SYN-SENT: unacceptable ACK: RST', () => {
    const t = script();
    accept(t);
    t.out();
    t.send('SYN,ACK', 0, 9, { options: SYN_OPTIONS });
    const [rst] = t.segments();
    expect([rst!.flags & 4, (rst!.seq - t.ourIss) >>> 0]).toEqual([4, 9]);
    t.send('SYN,ACK', 0, 1, { options: SYN_OPTIONS });
    expect(t.out()).toEqual(['ACK 1 ack 1']);
  });

  it('SYN-SENT: no answer: SYN is retransmitted, then the peer is reset', () => {
    const t = script();
    accept(t);
    const texts = t.out(200_000);
    expect(texts.filter((x) => x === 'SYN 0').length).toBeGreaterThan(4);
    expect(t.socket.closedBy).toBe('reset');
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('SYN-SENT: simultaneous open: SYN, SYN, then SYN,ACK each way', () => {
    const t = script();
    accept(t);
    t.out();
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out()).toEqual(['SYN,ACK 0 ack 1']);
    // The guest's SYN,ACK, sent for our SYN before it saw ours (RFC 9293 figure 7).
    t.send('SYN,ACK', 0, 1, { options: SYN_OPTIONS });
    expect(t.out()).toEqual(['ACK 1 ack 1']);
    t.socket.peerWrite(10);
    expect(t.out()).toEqual(['PSH,ACK 1+10 ack 1']);
    t.send('PSH,ACK', 1, 11, { bytes: 5 });
    t.out();
    expect(t.socket.received).toBe(5);
  });

  it('the same addresses and ports through two published ports: the second gets another source port', () => {
    const t = script();
    accept(t);
    t.out();
    const second = accept(t);
    const syns = t.segments(50);
    expect(syns.map((s) => [t.text(s), s.srcPort])).toEqual(
      [['SYN 0', 80]].map(() => ['SYN 0', expect.any(Number)]),
    );
    expect(syns[0]!.srcPort).toBeGreaterThanOrEqual(49152);
    expect([second.refused, t.sockets.length]).toEqual([false, 2]);
    // Both flows are open: the second with its own port.
    t.dstPort = syns[0]!.srcPort;
    t.send('SYN,ACK', 0, 1, { options: SYN_OPTIONS });
    t.out();
    t.send('PSH,ACK', 1, 1, { bytes: 7 });
    t.out();
    expect(t.sockets.map((s) => s.received)).toEqual([0, 7]);
  });

  it('the same addresses and ports three times: three source ports', () => {
    const t = script();
    accept(t);
    t.out();
    accept(t);
    accept(t);
    const ports = t.segments(50).map((s) => s.srcPort);
    expect(ports).toHaveLength(2);
    expect(new Set([80, ...ports]).size).toBe(3);
    expect(t.sockets).toHaveLength(3);
  });

  it('the same addresses and ports, the host has closed the first: the second waits up to a second', () => {
    const t = established();
    t.socket.peerClose();
    t.out();
    t.send('ACK', 1, 2);
    t.out();
    accept(t);
    expect(t.segments(900).filter((s) => s.flags === Syn)).toEqual([]);
    expect(t.segments(200).filter((s) => s.flags === Syn)).toHaveLength(1);
  });

  it('the same addresses and ports, the first is just established or closed by the guest: the wait is not longer', () => {
    for (const fin of [false, true]) {
      const t = script();
      accept(t);
      t.out();
      if (fin) t.send('SYN,ACK', 0, 1, { options: SYN_OPTIONS });
      t.out();
      accept(t);
      t.clock.advance(1);
      if (fin) t.send('FIN,ACK', 1, 1);
      else t.send('SYN,ACK', 0, 1, { options: SYN_OPTIONS });
      const syns = t.segments(50).filter((s) => s.flags === Syn);
      expect(syns.map((s) => s.srcPort)).toEqual([expect.any(Number)]);
      expect(syns[0]!.srcPort).toBeGreaterThanOrEqual(49152);
    }
  });

  it('CLOSING: the peer reconnects from the same port: it waits for the end of the old flow, then opens', () => {
    const t = established();
    t.socket.room = 0;
    t.send('FIN,PSH,ACK', 1, 1, { bytes: 100 });
    t.socket.peerClose();
    t.out();
    t.send('ACK', 102, 2);
    t.out();
    const old = t.socket;
    const second = accept(t);
    expect(t.out(100)).toEqual([]);
    expect([second.refused, t.sockets.length]).toEqual([false, 1]);
    old.giveRoom(1000);
    const [syn] = t.segments(5);
    expect([t.text(syn!), syn!.srcPort]).toEqual(['SYN 0', 80]);
    expect([old.closedBy, t.sockets.length]).toEqual(['close', 2]);
  });

  it('CLOSING: the old flow does not end: the new connection waits for a second, then gets another port', () => {
    const t = established();
    t.socket.room = 0;
    t.send('FIN,PSH,ACK', 1, 1, { bytes: 100 });
    t.out();
    accept(t);
    expect(t.out(990)).toEqual([]);
    const syns = t.segments(20);
    expect(syns.map((s) => t.text(s))).toEqual(['SYN 0']);
    expect(syns[0]!.srcPort).not.toBe(80);
  });

  it('ESTABLISHED: RST of the old flow just after the new connection: the new one keeps the port', () => {
    const t = established();
    accept(t);
    t.socket.peerReset();
    const texts = t.segments(10);
    expect(texts.map((s) => s.srcPort)).toEqual([80, 80]);
    expect(t.text(texts[1]!)).toBe('SYN 0');
    expect(t.sockets.length).toBe(2);
  });

  it('the flow table is full: refused', () => {
    const t = script({ flows: 1 });
    t.establish();
    const r = { refused: false };
    t.engine.accept('198.51.100.9', 80, 40000, (socket) => {
      r.refused = socket === null;
    });
    t.out();
    expect(r.refused).toBe(true);
  });
});

describe('TCP to the dns address', () => {
  it('a resolver refuses: the next one is tried, the guest sees one connection', () => {
    const t = script();
    t.remote = '192.0.2.3';
    t.dstPort = 53;
    t.onOpen = (socket) => {
      if (t.sockets.length === 1) socket.failAfter(1, Errno.ECONNREFUSED);
      else socket.connectAfter(1);
    };
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out(10)).toEqual(['SYN,ACK 0 ack 1']);
    expect(t.sockets.map((s) => [s.address[3], s.port])).toEqual([
      [0xc6336435, 53],
      [0xc6336436, 53],
    ]);
    t.send('ACK', 1, 1).send('PSH,ACK', 1, 1, { bytes: 5 });
    expect(t.out()).toContain('ACK 1 ack 6');
    expect(t.socket.received).toBe(5);
  });

  it('all resolvers refuse: RST', () => {
    const t = script();
    t.remote = '192.0.2.3';
    t.dstPort = 53;
    t.onOpen = (socket) => socket.failAfter(1, Errno.ECONNREFUSED);
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out(20)).toEqual(['RST,ACK 0 ack 1']);
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });
});
