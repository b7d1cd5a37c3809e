// @vitest: beside
/** The end of connections, in all orders. RFC 9293 sections 3.6 and 3.10.7.4 (eighth check). */
import { describe, expect, it } from 'vitest';
import { FLOW_STATE_NAMES } from '../../../src/workers/flow/flow-report.ts';
import { NOTHING_LEFT } from '../../support/netsim/engine.ts';
import { type Script, SYN_OPTIONS } from '../../support/netsim/script.ts';
import { script } from '../../support/netsim/test-script.ts';
import { seqAdd } from '../../support/netsim/wire.ts';

function expectClosed(t: Script): void {
  expect(t.socket.closedBy).toBe('close');
  expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
}

describe('TCP closing', () => {
  it("reported state: close-wait after the guest's FIN; closed, not CLOSING, until host-io has answered", () => {
    const t = script().establish();
    const state = () => FLOW_STATE_NAMES[t.engine.tcp.stateOf(0)];
    expect(state()).toBe('established');
    t.send('FIN,ACK', 1, 1);
    t.out();
    expect(state()).toBe('close-wait');
    let atReset: string | undefined;
    t.socket.onClosed = () => {
      atReset = state();
    };
    t.send('RST,ACK', 2, 1);
    t.out();
    expect(atReset).toBe('closed');
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('ESTABLISHED: FIN of the guest: acknowledged, the peer gets FIN, its bytes still arrive', () => {
    const t = script().establish();
    t.send('FIN,ACK', 1, 1);
    expect(t.out()[0]).toBe('ACK 1 ack 2');
    expect([t.socket.gotFin, t.socket.state]).toEqual([true, 'open']);
    t.out(100_000);
    t.socket.peerWrite(3000);
    expect(t.out()).toEqual(['PSH,ACK 1+3000 ack 2']);
    t.send('ACK', 2, 3001);
    t.socket.peerClose();
    expect(t.out()).toEqual(['FIN,ACK 3001 ack 2']);
    t.send('ACK', 2, 3002);
    expect(t.out()).toEqual([]);
    expectClosed(t);
  });

  it('ESTABLISHED: FIN of the host peer: FIN to the guest, whose bytes still arrive', () => {
    const t = script().establish();
    t.socket.peerWrite(10);
    t.socket.peerClose();
    expect(t.out()).toEqual(['PSH,ACK 1+10 ack 1', 'FIN,ACK 11 ack 1']);
    t.send('ACK', 1, 12);
    t.out(100_000);
    expect(t.socket.state).toBe('open');
    t.send('PSH,ACK', 1, 12, { bytes: 3000 });
    expect(t.out()[0]).toBe('ACK 12 ack 3001');
    t.send('FIN,ACK', 3001, 12);
    expect(t.out()).toEqual(['ACK 12 ack 3002']);
    expect([t.socket.received, t.socket.gotFin]).toEqual([3000, true]);
    expectClosed(t);
  });

  it('ESTABLISHED: FIN of the host peer known with its last bytes: sent in that segment, retransmitted alone', () => {
    const t = script().establish();
    t.socket.peerWriteLast(10);
    expect(t.out()).toEqual(['FIN,PSH,ACK 1+10 ack 1']);
    // The guest acknowledges the bytes but not the FIN.
    t.send('ACK', 1, 11);
    expect(t.out(2000)[0]).toBe('FIN,ACK 11 ack 1');
    t.send('FIN,ACK', 1, 12);
    expect(t.out()).toEqual(['ACK 12 ack 2']);
    expectClosed(t);
  });

  it('ESTABLISHED: FIN of both sides at once: both are acknowledged, the flow ends', () => {
    const t = script().establish();
    t.socket.peerClose();
    expect(t.out()).toEqual(['FIN,ACK 1 ack 1']);
    // The guest has sent its FIN before it received ours.
    t.send('FIN,ACK', 1, 1);
    expect(t.out()[0]).toBe('ACK 2 ack 2');
    t.send('ACK', 2, 2);
    t.out();
    expectClosed(t);
  });

  it('ESTABLISHED: FIN in a segment with bytes: both are acknowledged', () => {
    const t = script().establish();
    t.send('FIN,PSH,ACK', 1, 1, { bytes: 50 });
    expect(t.out()[0]).toBe('ACK 1 ack 52');
    expect([t.socket.received, t.socket.gotFin]).toEqual([50, true]);
    t.send('RST', 52, null);
    t.out();
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('ESTABLISHED: FIN out of order: kept with its bytes, and covered by SACK', () => {
    const t = script().establish();
    t.send('FIN,PSH,ACK', 101, 1, { bytes: 50 });
    expect(t.out()).toEqual(['ACK 1 ack 1 sack 101-152']);
    expect(t.socket.gotFin).toBe(false);
    t.send('ACK', 1, 1, { bytes: 100 });
    expect(t.out()[0]).toBe('ACK 1 ack 152');
    expect([t.socket.received, t.socket.gotFin]).toEqual([150, true]);
    t.send('RST', 152, null);
    t.out();
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('ESTABLISHED: a lone FIN out of order: no empty SACK block', () => {
    const t = script().establish();
    t.send('FIN,ACK', 101, 1);
    expect(t.out()).toEqual(['ACK 1 ack 1 sack 101-102']);
    t.send('ACK', 1, 1, { bytes: 100 });
    expect(t.out()[0]).toBe('ACK 1 ack 102');
    expect([t.socket.received, t.socket.gotFin]).toEqual([100, true]);
  });

  it('CLOSE-WAIT: the FIN is repeated: acknowledged again, the peer gets one FIN', () => {
    const t = script().establish();
    t.send('FIN,ACK', 1, 1);
    t.out();
    t.send('FIN,ACK', 1, 1);
    expect(t.out()).toEqual(['ACK 1 ack 2']);
    t.send('FIN,PSH,ACK', 1, 1);
    expect(t.out()).toEqual(['ACK 1 ack 2']);
  });

  it('CLOSE-WAIT: bytes beyond the FIN: not accepted', () => {
    const t = script().establish();
    t.send('FIN,ACK', 1, 1);
    t.out();
    t.send('ACK', 2, 1, { payload: new Uint8Array(10) });
    expect(t.out()).toEqual(['ACK 1 ack 2']);
    t.send('ACK', 500, 1, { payload: new Uint8Array(10) });
    expect(t.out()).toEqual(['ACK 1 ack 2']);
    expect(t.socket.received).toBe(0);
  });

  it('CLOSE-WAIT: bytes before the FIN are still queued: FIN to the peer follows them', () => {
    const t = script().establish();
    t.socket.room = 10;
    t.send('FIN,PSH,ACK', 1, 1, { bytes: 1000 });
    expect(t.out()[0]).toBe('ACK 1 ack 1002');
    expect([t.socket.received, t.socket.gotFin]).toEqual([10, false]);
    t.socket.giveRoom(5000);
    t.out();
    expect([t.socket.received, t.socket.gotFin]).toEqual([1000, true]);
  });

  it('CLOSING: both FINs are acknowledged, bytes still queued: they arrive', () => {
    const t = script().establish();
    t.socket.room = 10;
    t.socket.peerClose();
    t.out();
    t.send('FIN,PSH,ACK', 1, 2, { bytes: 1000 });
    t.out();
    t.out(10_000);
    expect(t.socket.received).toBe(10);
    t.socket.giveRoom(5000);
    t.out();
    expect([t.socket.received, t.socket.gotFin]).toEqual([1000, true]);
    expectClosed(t);
  });

  it('FIN-WAIT-1: our FIN is lost: retransmitted until acknowledged', () => {
    const t = script().establish();
    t.socket.peerClose();
    expect(t.out()).toEqual(['FIN,ACK 1 ack 1']);
    const again = t.out(4000);
    expect(again.length).toBeGreaterThanOrEqual(2);
    expect(new Set(again)).toEqual(new Set(['FIN,ACK 1 ack 1']));
    t.send('ACK', 1, 2);
    expect(t.out(5000)).toEqual([]);
    t.send('FIN,ACK', 1, 2);
    expect(t.out()).toEqual(['ACK 2 ack 2']);
    expectClosed(t);
  });

  it('FIN-WAIT-1: the ACK of our FIN arrives just after the time-out: the connection ends', () => {
    for (let ms = 900; ms < 1100; ms += 4) {
      const t = script({ linkMs: 3 });
      t.send('SYN', 0, null, { options: SYN_OPTIONS });
      t.out(20);
      t.send('ACK', 1, 1);
      t.out(20);
      t.socket.peerWrite(5000);
      t.socket.peerClose();
      t.out(ms);
      t.send('ACK', 1, 5002);
      t.out(20);
      t.send('FIN,ACK', 1, 5002);
      t.out(50);
      expectClosed(t);
    }
  });

  it('FIN-WAIT-1: bytes and FIN are lost: all are retransmitted', () => {
    const t = script().establish();
    t.socket.peerWrite(3000);
    t.socket.peerClose();
    t.out();
    t.send('ACK', 1, 1461, { options: { sack: [[seqAdd(t.ourIss, 2921), seqAdd(t.ourIss, 3002)]] } });
    expect(t.out()).toEqual(['PSH,ACK 1461+1460 ack 1']);
    t.send('ACK', 1, 3002);
    t.out();
    t.send('FIN,ACK', 1, 3002);
    expect(t.out()).toEqual(['ACK 3002 ack 2']);
    expectClosed(t);
  });

  it('FIN-WAIT-1: SACK shows that only the FIN is missing: retransmitted alone', () => {
    const t = script().establish();
    t.socket.peerWrite(3000);
    t.socket.peerClose();
    t.out();
    t.send('ACK', 1, 3001);
    expect(new Set(t.out(1500))).toEqual(new Set(['FIN,ACK 3001 ack 1']));
    t.send('ACK', 1, 3002);
    t.out();
    t.send('FIN,ACK', 1, 3002);
    t.out();
    expectClosed(t);
  });

  it('LAST-ACK: the guest never acknowledges our FIN: both sides are reset', () => {
    const t = script().establish();
    t.send('FIN,ACK', 1, 1);
    t.out();
    t.socket.peerClose();
    const texts = t.out(1_500_000);
    expect(texts.filter((x) => x === 'FIN,ACK 1 ack 2').length).toBeGreaterThan(5);
    expect(texts.at(-1)).toMatch(/^RST/);
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('CLOSE-WAIT: the guest is silent for 30 s: a keep-alive probe; its RST closes the host socket', () => {
    const t = script().establish();
    t.send('FIN,ACK', 1, 1);
    t.out();
    expect(t.out(29_000)).toEqual([]);
    expect(t.out(2000)).toEqual(['ACK 0 ack 2']);
    t.send('RST', 2, null);
    t.out();
    expect(t.socket.closedBy).toBe('reset');
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('CLOSE-WAIT: the guest answers probes or acknowledges bytes: the flow stays', () => {
    const t = script().establish();
    t.send('FIN,ACK', 1, 1);
    t.out();
    for (let i = 0; i < 20; i++) {
      expect(t.out(31_000)).toEqual(['ACK 0 ack 2']);
      t.send('ACK', 2, 1);
      t.out();
    }
    // No keep-alive probe while bytes are acknowledged.
    for (let i = 0; i < 20; i++) {
      t.socket.peerWrite(100);
      expect(t.out(20_000)[0]).toMatch(/^PSH,ACK/);
      t.send('ACK', 2, 1 + 100 * (i + 1));
      expect(t.out().filter((x) => x.startsWith('ACK'))).toEqual([]);
    }
    expect(t.socket.state).toBe('open');
  });

  it("CLOSED: a late repetition of the guest's FIN: RST", () => {
    const t = script().establish();
    t.socket.peerClose();
    t.out();
    t.send('FIN,ACK', 1, 2);
    t.out();
    expectClosed(t);
    t.send('FIN,ACK', 1, 2);
    expect(t.out()).toEqual(['RST 2']);
  });

  it('CLOSED: SYN with the same ports: a new connection at once', () => {
    const t = script().establish();
    for (let i = 0; i < 20; i++) {
      t.socket.peerClose();
      t.out();
      t.send('FIN,ACK', 1, 2);
      t.out();
      expectClosed(t);
      t.establish();
    }
    expect(t.sockets.length).toBe(21);
  });

  it('CLOSING: the socket closes late: old segments and a new SYN change nothing', () => {
    const t = script().establish();
    t.socket.room = 0;
    t.socket.peerClose();
    t.out();
    t.send('FIN,PSH,ACK', 1, 2, { bytes: 100 });
    t.out();
    t.send('FIN,PSH,ACK', 1, 2, { bytes: 100 });
    expect(t.out()).toEqual(['ACK 2 ack 102']);
    t.send('SYN', 0, null, { options: SYN_OPTIONS }).send('ACK', 102, 2).send('RST', 102, null);
    t.out();
    const old = t.socket;
    old.giveRoom(1000);
    t.out();
    expect([old.received, old.closedBy]).toEqual([100, 'close']);
    t.establish();
    t.send('RST', 1, null);
    t.out();
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('CLOSING: RST both ways: late segments are answered by RST', () => {
    const t = script({ linkMs: 5 });
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    t.out(30);
    t.send('ACK', 1, 1);
    t.out(30);
    t.socket.peerReset();
    expect(t.out(30).at(-1)).toMatch(/^RST/);
    t.send('ACK', 1, 1, { bytes: 10 });
    expect(t.out(30)).toEqual(['RST 1']);
    expect(t.engine.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('CLOSING: SYN with the ports of a reset connection: a new connection', () => {
    const t = script().establish();
    t.send('RST', 1, null);
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    t.out(50);
    t.send('SYN', 0, null, { options: SYN_OPTIONS });
    expect(t.out(50)).toEqual(['SYN,ACK 0 ack 1']);
  });
});
