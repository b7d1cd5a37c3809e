// @vitest: beside
/**
 * Segments of the guest on an established connection: order, overlaps, window, acknowledgements. RFC 9293
 * section 3.10.7.4.
 */
import { describe, expect, it } from 'vitest';
import { Drop } from '../../../src/proto/drop.ts';
import { NOTHING_LEFT } from '../../support/netsim/engine.ts';
import { FROM_GUEST_FROM, patternCopy } from '../../support/netsim/fake-host.ts';
import { type Script, SYN_OPTIONS } from '../../support/netsim/script.ts';
import { script } from '../../support/netsim/test-script.ts';
import { Ack } from '../../support/netsim/wire.ts';

/** Reset the connection from the guest, and check that no resource stays in use. */
function endAndCheck(t: Script, rcvNxt = t.socket.received + 1): void {
  t.send('RST', rcvNxt, null);
  t.out();
  expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
}

describe('TCP receiving', () => {
  it('ESTABLISHED: in-order bytes go to the host and are acknowledged', () => {
    const t = script().establish();
    t.send('PSH,ACK', 1, 1, { bytes: 100 });
    expect(t.out()).toContain('ACK 1 ack 101');
    expect(t.socket.received).toBe(100);
    endAndCheck(t);
  });

  it('ESTABLISHED: segments of one batch get one ACK', () => {
    const t = script().establish();
    for (let i = 0; i < 10; i++) t.send('ACK', 1 + i * 1000, 1, { bytes: 1000 });
    // One ACK for the bytes, and one window update when the socket has accepted them.
    expect(t.out().length).toBeLessThanOrEqual(2);
    expect(t.socket.received).toBe(10_000);
    endAndCheck(t);
  });

  it('ESTABLISHED: a 64 KiB frame of the guest (TSO) is taken whole', () => {
    const t = script({ window: 65535 }).establish();
    t.send('PSH,ACK', 1, 1, { bytes: 64_000, gsoSize: 1460 });
    expect(t.out()).toContain('ACK 1 ack 64001');
    expect(t.socket.received).toBe(64_000);
    endAndCheck(t);
  });

  it('ESTABLISHED: segments of one byte arrive', () => {
    const t = script().establish();
    for (let i = 0; i < 300; i++) {
      t.send('PSH,ACK', 1 + i, 1, { bytes: 1 });
      if (i % 7 === 0) t.out(0.1);
    }
    t.out();
    expect(t.socket.received).toBe(300);
    endAndCheck(t);
  });

  it('ESTABLISHED: a segment out of order: kept, SACK at once, delivered when the hole is filled', () => {
    const t = script().establish();
    t.send('ACK', 101, 1, { bytes: 100 });
    expect(t.out()).toEqual(['ACK 1 ack 1 sack 101-201']);
    t.send('ACK', 301, 1, { bytes: 100 });
    expect(t.out()).toEqual(['ACK 1 ack 1 sack 301-401 sack 101-201']);
    t.send('ACK', 1, 1, { bytes: 100 });
    expect(t.out()[0]).toBe('ACK 1 ack 201 sack 301-401');
    t.send('ACK', 201, 1, { bytes: 100 });
    expect(t.out()[0]).toBe('ACK 1 ack 401');
    expect(t.socket.received).toBe(400);
    endAndCheck(t);
  });

  it('ESTABLISHED: without SACK permitted, a segment out of order gets a plain duplicate ACK each time', () => {
    const t = script().establish({ options: { mss: 1460 } });
    t.send('ACK', 101, 1, { bytes: 100 }).send('ACK', 201, 1, { bytes: 100 });
    expect(t.out()).toEqual(['ACK 1 ack 1', 'ACK 1 ack 1']);
    endAndCheck(t);
  });

  it('ESTABLISHED: more holes than SACK blocks: the lowest are reported', () => {
    const t = script().establish();
    for (let i = 1; i <= 6; i++) t.send('ACK', 1 + i * 200, 1, { bytes: 100 });
    const last = t.out().at(-1)!;
    expect(last.match(/sack/g)!.length).toBe(3);
    expect(last).toContain('sack 1201-1301');
    endAndCheck(t);
  });

  const overlaps: [string, number, number][] = [
    ['the same again', 101, 100],
    ['left', 51, 100],
    ['right', 151, 100],
    ['inside', 121, 50],
    ['covering', 51, 200],
    ['touching left', 51, 50],
    ['touching right', 201, 50],
    ['same start, longer', 101, 150],
    ['same end, earlier start', 51, 150],
  ];
  it.each(overlaps)(
    'ESTABLISHED: out-of-order segments overlap (%s): every byte once',
    (_name, seq, bytes) => {
      for (const first of [0, 1]) {
        const t = script().establish();
        const two = [() => t.send('ACK', 101, 1, { bytes: 100 }), () => t.send('ACK', seq, 1, { bytes })];
        two[first]!();
        two[1 - first]!();
        t.out();
        t.send('ACK', 1, 1, { bytes: 100 });
        t.out();
        // Bytes that were not kept are sent again, as a guest does.
        t.send('ACK', 1, 1, { bytes: 300 });
        t.out();
        expect(t.socket.received).toBe(300);
        endAndCheck(t);
      }
    },
  );

  it.each(overlaps)(
    'ESTABLISHED: a segment overlaps what was received (%s): only what is new counts',
    (_name, seq, bytes) => {
      const t = script().establish();
      t.send('ACK', 1, 1, { bytes: 200 });
      t.out();
      t.send('ACK', seq, 1, { bytes });
      t.out();
      expect(t.socket.received).toBe(Math.max(200, seq + bytes - 1));
      endAndCheck(t);
    },
  );

  it('ESTABLISHED: the overlap covers exactly the first slot: the rest is delivered', () => {
    // Headers and old bytes fill the small slot to its end, new bytes begin in the large one.
    for (const extra of [-1, 0, 1]) {
      const t = script().establish();
      const inSmall = 2048 - 12 - 14 - 20 - 20;
      t.send('ACK', 1, 1, { bytes: inSmall + extra });
      t.out();
      t.send('ACK', 1, 1, { bytes: 5000 });
      t.out();
      expect(t.socket.received).toBe(5000);
      endAndCheck(t);
    }
  });

  it('ESTABLISHED: old duplicates are acknowledged and otherwise ignored', () => {
    const t = script().establish();
    t.send('ACK', 1, 1, { bytes: 1000 });
    t.out();
    t.send('ACK', 1, 1, { bytes: 1000 });
    expect(t.out()).toEqual(['ACK 1 ack 1001']);
    t.send('ACK', -500_000, 1, { payload: new Uint8Array(10) });
    expect(t.out()).toEqual(['ACK 1 ack 1001']);
    expect(t.socket.received).toBe(1000);
    endAndCheck(t);
  });

  it('ESTABLISHED: a segment beyond the window: not accepted', () => {
    const t = script().establish();
    t.send('ACK', 50_000_001, 1, { bytes: 100 });
    expect(t.out()).toEqual(['ACK 1 ack 1']);
    t.send('FIN,ACK', 50_000_001, 1);
    expect(t.out()).toEqual(['ACK 1 ack 1']);
    expect([t.socket.received, t.socket.gotFin]).toEqual([0, false]);
    endAndCheck(t);
  });

  it('ESTABLISHED: a keep-alive (one old byte, or none) is answered', () => {
    const t = script().establish();
    t.send('ACK', 1, 1, { bytes: 10 });
    t.out();
    t.send('ACK', 10, 1);
    expect(t.out()).toEqual(['ACK 1 ack 11']);
    t.send('ACK', 10, 1, { bytes: 1 });
    expect(t.out()).toEqual(['ACK 1 ack 11']);
    expect(t.socket.received).toBe(10);
    endAndCheck(t);
  });

  it('ESTABLISHED: keep-alives of the guest: its idle time goes to the host once, and when it changes', () => {
    const t = script().establish();
    t.send('ACK', 1, 1, { bytes: 10 });
    t.out();
    const probe = (ms: number, bytes = 0): string[] => {
      t.out(ms);
      t.send('ACK', 10, 1, { bytes });
      return t.out();
    };
    expect(probe(200)).toEqual(['ACK 1 ack 11']); // a retransmission
    expect(t.socket.options).toEqual([]);
    expect(probe(14_990, 1)).toEqual(['ACK 1 ack 11']);
    for (let i = 0; i < 5; i++) expect(probe(15_003)).toEqual(['ACK 1 ack 11']);
    expect(t.socket.options).toEqual(['keepAlive flow 0 every 15 s']);
    probe(60_010);
    expect(t.socket.options.slice(1)).toEqual(['keepAlive flow 0 every 60 s']);
    t.send('ACK', 11, 1, { bytes: 10 });
    t.out(100_000);
    t.send('ACK', 21, 1); // not an old sequence number
    expect(t.out()).toEqual([]);
    expect(t.socket.options.length).toBe(2);
    expect(t.socket.received).toBe(20);
    endAndCheck(t);
  });

  it('ESTABLISHED, window closed: a window probe is no keep-alive', () => {
    const t = script().establish();
    t.socket.room = 0;
    let seq = 1;
    for (let window = 65_535; window > 0; ) {
      const n = Math.min(window, 60_000);
      t.send('ACK', seq, 1, { bytes: n });
      seq += n;
      window = t.windowOf(t.segments(1).at(-1)!);
      if (seq > 100_000_000) throw new Error('the window does not close');
    }
    t.out(10_000);
    t.send('ACK', seq - 1, 1);
    expect(t.out()).toEqual([`ACK 1 ack ${seq}`]);
    expect(t.socket.options).toEqual([]);
  });

  it('ESTABLISHED: the DSCP of the segments changes: told to the host; ECN is not', () => {
    const t = script().establish();
    const send = (tos: number): void => {
      t.engine.guestTos = tos;
      t.send('ACK', 1, 1);
      t.out();
    };
    for (const tos of [0, 1, 2, 3, 0xb8, 0xba, 0xb8, 0]) send(tos);
    expect(t.socket.options).toEqual(['setTos flow 0 184', 'setTos flow 0 0']);
    t.engine.guestTos = 0xb8;
    t.send('ACK', 1, 1, { bytes: 10 });
    t.out();
    t.engine.guestTos = 0;
    t.send('ACK', 1, 1); // sent before the bytes, received behind them
    t.out();
    expect(t.socket.options.slice(2)).toEqual(['setTos flow 0 184']);
    endAndCheck(t);
  });

  it('ESTABLISHED: urgent data is part of the stream', () => {
    const t = script().establish();
    t.send('URG,PSH,ACK', 1, 1, { bytes: 10, urgent: 5 });
    t.send('URG,ACK', 11, 1, { bytes: 10, urgent: 0xffff });
    t.send('URG,ACK', 21, 1, { urgent: 3 });
    t.out();
    expect(t.socket.received).toBe(20);
    expect(t.socket.urgent).toEqual([4]);
    endAndCheck(t);
  });

  it('ESTABLISHED: an urgent byte in a later segment, out of order and sent twice: passed on once, in its place', () => {
    const t = script().establish();
    t.send('URG,ACK', 1, 1, { bytes: 10, urgent: 25 });
    t.send('URG,ACK', 21, 1, { bytes: 10, urgent: 5 });
    t.out();
    expect(t.socket.urgent).toEqual([]);
    t.send('URG,ACK', 11, 1, { bytes: 10, urgent: 15 });
    t.send('URG,ACK', 21, 1, { bytes: 10, urgent: 5 });
    t.send('ACK', 31, 1, { bytes: 10 });
    t.send('URG,ACK', 41, 1, { bytes: 1, urgent: 1 });
    t.send('URG,ACK', 42, 1, { urgent: 0xffff });
    t.send('URG,ACK', 42, 1, { bytes: 1, urgent: 0 });
    t.out();
    expect(t.socket.received).toBe(42);
    expect(t.socket.urgent).toEqual([24, 40]);
    endAndCheck(t);
  });

  it('ESTABLISHED: a segment without ACK is dropped', () => {
    const t = script().establish();
    t.send('PSH', 1, null, { bytes: 10 });
    t.out();
    expect(t.socket.received).toBe(0);
    endAndCheck(t);
  });

  it('ESTABLISHED: ACK of bytes never sent: answered by ACK, its payload is not accepted', () => {
    const t = script().establish();
    t.send('ACK', 1, 1000, { bytes: 10 });
    expect(t.out()).toEqual(['ACK 1 ack 1']);
    expect(t.socket.received).toBe(0);
    endAndCheck(t);
  });

  it('ESTABLISHED: SYN is challenged, in the window or out of it', () => {
    const t = script().establish();
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out()).toEqual(['ACK 1 ack 1']);
    t.send('SYN', 100, null, { options: SYN_OPTIONS });
    expect(t.out()).toEqual(['ACK 1 ack 1']);
    t.send('SYN,ACK', -900_000_000, 1, { options: SYN_OPTIONS });
    expect(t.out()).toEqual(['ACK 1 ack 1']);
    expect(t.socket.state).toBe('open');
    endAndCheck(t);
  });

  it.each([
    ['in place', 1, 'reset', []],
    ['in the window', 100, null, ['ACK 1 ack 1']],
    ['beyond the window', 50_000_000, null, []],
    ['before it', -5, null, []],
  ] as const)('ESTABLISHED: RST %s (RFC 5961)', (_name, seq, closedBy, answer) => {
    const t = script().establish();
    t.send('RST', seq, null);
    expect(t.out()).toEqual(answer);
    expect(t.socket.closedBy).toBe(closedBy);
    endAndCheck(t);
  });

  it('ESTABLISHED: RST: out-of-order and queued bytes are dropped', () => {
    const t = script().establish();
    t.socket.room = 10;
    t.send('ACK', 1, 1, { bytes: 1000 }).send('ACK', 3001, 1, { bytes: 1000 });
    t.out();
    t.send('RST', 1001, null);
    t.out();
    expect(t.socket.closedBy).toBe('reset');
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it.each([0xffff_fff0, 0xffff_ffff, 0x7fff_fff0])(
    'ESTABLISHED: ISN of the guest %d: sequence numbers wrap',
    (guestIss) => {
      const t = script({ guestIss }).establish();
      t.send('ACK', 1, 1, { bytes: 10 });
      t.send('ACK', 31, 1, { bytes: 10 });
      expect(t.out().at(-1)).toBe('ACK 1 ack 11 sack 31-41');
      t.send('ACK', 11, 1, { bytes: 20 });
      expect(t.out()).toContain('ACK 1 ack 41');
      t.send('FIN,ACK', 41, 1);
      expect(t.out()).toContain('ACK 1 ack 42');
      expect([t.socket.received, t.socket.gotFin]).toEqual([40, true]);
      t.send('RST', 42, null);
      t.out();
      expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
    },
  );

  it('ESTABLISHED: the socket accepts a part: the rest is queued, the window shrinks, a window update follows', () => {
    const t = script().establish();
    t.socket.room = 1000;
    t.send('ACK', 1, 1, { bytes: 1 });
    const before = t.windowOf(t.segments()[0]!);
    t.send('ACK', 2, 1, { bytes: 50_000, gsoSize: 1460 });
    const [s] = t.segments();
    expect(t.text(s!)).toBe('ACK 1 ack 50002');
    expect(t.windowOf(s!)).toBeLessThan(before);
    expect(t.socket.received).toBe(1000);
    t.socket.giveRoom(1_000_000);
    const update = t.segments();
    expect(update.map((u) => t.text(u))).toEqual(['ACK 1 ack 50002']);
    expect(t.windowOf(update[0]!)).toBeGreaterThan(t.windowOf(s!));
    expect(t.socket.received).toBe(50_001);
    endAndCheck(t);
  });

  it('ESTABLISHED: the socket accepts nothing: the window closes, a probe is answered but not accepted, the window reopens', () => {
    const t = script().establish();
    t.socket.room = 0;
    let next = 1;
    let window = 65_535;
    for (let i = 0; i < 2000 && window > 0; i++) {
      const bytes = Math.min(1460, window);
      t.send('ACK', next, 1, { bytes });
      next += bytes;
      const s = t.segments(0.1).at(-1)!;
      window = (s.ack - t.iss - next + t.windowOf(s)) | 0;
    }
    expect(window).toBe(0);
    // The window may be larger than advertised by less than one unit of the scale; after that a probe is not
    // accepted.
    const shut = next + 255;
    for (let probes = 0; probes < 260; probes++) {
      t.send('ACK', next, 1, { bytes: 1 });
      const [probe] = t.segments();
      expect(probe!.window).toBe(0);
      next = (probe!.ack - t.iss) >>> 0;
    }
    expect(next).toBeLessThanOrEqual(shut);
    t.socket.giveRoom(10_000_000);
    const update = t.segments().at(-1)!;
    expect(t.windowOf(update)).toBeGreaterThan(60_000);
    expect(t.socket.received).toBe(next - 1);
    endAndCheck(t);
  });

  it('ESTABLISHED: a blocked socket, segments of one byte: the window closes', () => {
    const t = script().establish();
    t.socket.room = 0;
    let next = 1;
    let edge = 65_536;
    const limit = 1_000_000;
    while (next < edge && next < limit) {
      // Large segments until 3000 bytes are left, then single bytes.
      const bytes = edge - next > 3000 ? 1460 : 1;
      t.send('ACK', next, 1, { bytes });
      next += bytes;
      const s = t.segments(0.05).at(-1)!;
      edge = ((s.ack - t.iss) >>> 0) + t.windowOf(s);
    }
    expect(next).toBeLessThan(limit);
    expect(edge).toBeLessThanOrEqual(next);
    endAndCheck(t, next);
  });

  it('ESTABLISHED: window without scale fits 16 bits', () => {
    const t = script().establish({ options: { mss: 1460 } });
    t.send('ACK', 1, 1, { bytes: 10 });
    const [s] = t.segments();
    expect(s!.window).toBeGreaterThan(30_000);
    expect(s!.options).toEqual({});
    t.send('ACK', 11, 1, { bytes: 60_000, gsoSize: 1460 });
    t.out();
    expect(t.socket.received).toBe(60_010);
    endAndCheck(t);
  });

  it('ESTABLISHED: a segment longer than the window loses only its tail', () => {
    const t = script().establish({ options: { mss: 1460 } });
    t.socket.room = 0;
    for (let i = 0; i < 4; i++) {
      t.send('ACK', 1 + i * 60_000, 1, { bytes: 60_000, gsoSize: 1460 });
      t.out();
    }
    t.send('FIN,ACK', 240_001, 1, { bytes: 60_000, gsoSize: 1460 });
    const s = t.segments().at(-1)!;
    const taken = (s.ack - t.iss - 1) >>> 0;
    expect(taken).toBeGreaterThan(240_000);
    expect(taken).toBeLessThan(300_000);
    t.socket.giveRoom(1e6);
    t.out();
    expect([t.socket.received, t.socket.gotFin]).toEqual([taken, false]);
    endAndCheck(t);
  });

  it('ESTABLISHED: many out-of-order segments: they never hold the whole pool', () => {
    const t = script({ smallSlots: 128, largeSlots: 33 }).establish();
    for (let i = 0; i < 400; i++) t.send('ACK', 11 + i * 20, 1, { bytes: 10 });
    t.out(10);
    t.send('ACK', 1, 1, { bytes: 10 });
    t.out();
    expect(t.socket.received).toBeGreaterThanOrEqual(20);
    endAndCheck(t);
  });

  it('ESTABLISHED: a wrong checksum is dropped and counted', () => {
    const t = script().establish();
    t.send('PSH,ACK', 1, 1, { bytes: 101, badChecksum: true });
    expect(t.out()).toEqual([]);
    expect(t.engine.drops(Drop.tcpChecksum)).toBe(1);
    expect(t.socket.received).toBe(0);
    endAndCheck(t);
  });

  it('ESTABLISHED: checksums of segments in two slots, of odd and even lengths, are verified', () => {
    for (const bytes of [1973, 1974, 1975, 1976, 3000, 3001]) {
      const t = script({ vnet: false, mtu: 9000 }).establish({ options: { ...SYN_OPTIONS, mss: 8960 } });
      t.send('ACK', 1, 1, { bytes });
      t.out();
      expect(t.socket.received).toBe(bytes);
      endAndCheck(t);
    }
  });

  it('ESTABLISHED: rewritten bytes: bytes in order replace those out of order, as in Linux; delivered bytes stay', () => {
    const t = script().establish();
    t.send('ACK', 11, 1, { payload: new Uint8Array(10).fill(0xee) });
    // Bytes in order replace the kept ones (the socket compares them with the pattern).
    t.send('ACK', 1, 1, { bytes: 20 });
    expect(t.out().at(-1)).toBe('ACK 1 ack 21');
    expect(t.socket.received).toBe(20);
    t.send('ACK', 1, 1, { payload: new Uint8Array(20).fill(0xdd) });
    expect(t.out()).toEqual(['ACK 1 ack 21']);
    t.send('ACK', 11, 1, {
      payload: (() => {
        const half = new Uint8Array(20).fill(0xdd);
        patternCopy(FROM_GUEST_FROM, 20, half.subarray(10));
        return half;
      })(),
    });
    t.out();
    expect(t.socket.received).toBe(30);
    endAndCheck(t);
  });

  it('ESTABLISHED: the same bytes again with FIN: the FIN is accepted', () => {
    const t = script().establish();
    t.send('PSH,ACK', 1, 1, { bytes: 10 });
    t.out();
    t.send('FIN,PSH,ACK', 1, 1, { bytes: 10 });
    expect(t.out()[0]).toBe('ACK 1 ack 12');
    expect([t.socket.received, t.socket.gotFin]).toEqual([10, true]);
  });

  it('ESTABLISHED: a segment with FIN whose tail is already kept: cut, no FIN in the middle of the stream', () => {
    const t = script().establish();
    t.send('ACK', 21, 1, { bytes: 10 });
    t.send('FIN,ACK', 11, 1, { bytes: 20 });
    t.send('ACK', 1, 1, { bytes: 10 });
    expect(t.out().at(-1)).toBe('ACK 1 ack 31');
    expect([t.socket.received, t.socket.gotFin]).toEqual([30, false]);
    t.send('FIN,ACK', 31, 1);
    t.out();
    expect(t.socket.gotFin).toBe(true);
  });

  it('ESTABLISHED: no byte beyond the advertised window is accepted', () => {
    const t = script().establish();
    t.send('ACK', 1, 1, { bytes: 3 });
    const edge = 4 + t.windowOf(t.segments().at(-1)!);
    t.send('ACK', edge - 9, 1, { bytes: 10 });
    const [ack] = t.out();
    expect(ack).toBe(`ACK 1 ack 4 sack ${edge - 9}-${edge}`);
  });

  it('ESTABLISHED: timestamps are echoed, older ones are refused (PAWS), and cost payload', () => {
    const t = script();
    t.send('SYN', 0, null, { options: { ...SYN_OPTIONS, timestamps: [1000, 0] } });
    const [synAck] = t.segments(5);
    expect(synAck!.options.timestamps![1]).toBe(1000);
    t.send('ACK', 1, 1, { options: { timestamps: [1001, synAck!.options.timestamps![0]] } });
    t.out();
    t.send('ACK', 1, 1, { bytes: 10, options: { timestamps: [1002, 0] } });
    const [ack] = t.segments();
    expect(ack!.options.timestamps![1]).toBe(1002);
    t.send('ACK', 11, 1, { bytes: 10, options: { timestamps: [990, 0] } });
    expect(t.out()).toEqual(['ACK 1 ack 11']);
    expect(t.socket.received).toBe(10);
    t.socket.peerWrite(3000);
    expect(t.frames()[0]!.gsoSize).toBe(1448);
    t.send('RST', 11, null);
    t.out();
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('ESTABLISHED: no segment for two hours: keep-alive probes; no answer: both sides are reset', () => {
    const t = script().establish();
    const texts = t.out(7_200_000 + 1000);
    expect(texts).toEqual(['ACK 0 ack 1']);
    t.send('ACK', 1, 1);
    t.out();
    expect(t.out(7_199_000)).toEqual([]);
    const last = t.segments(75_000 * 11).at(-1)!;
    expect(last.flags & ~Ack).toBe(4);
    expect(t.socket.closedBy).toBe('reset');
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });
});
