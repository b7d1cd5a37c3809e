/** Runs one or more complete connections between model guests and model peers over a lossy link. */
import { expect } from 'vitest';
import { addressParse } from '../../../src/proto/address.ts';
import { FrameChecker } from './checker.ts';
import { Clock } from './clock.ts';
import { NOTHING_LEFT, SimEngine, type SimOptions, type Simulated } from './engine.ts';
import type { FakeSocket } from './fake-host.ts';
import { type GuestOptions, GuestTcp } from './guest.ts';
import { Link, type LinkOptions } from './link.ts';
import { Prng } from './prng.ts';
import {
  type DecodedFrame,
  decodeFrame,
  type Endpoints,
  ETH,
  flagNames,
  type Segment,
  seqDist,
  VNET,
} from './wire.ts';

/** @param remote  another address than the usual peer's */
export function endpoints(
  family: 4 | 6,
  remote: string | null = null,
  guest: string | null = null,
): Endpoints {
  const bytes = (text: string): Uint8Array => {
    const words = new Uint32Array(4);
    addressParse(text, words, 0);
    const out = new Uint8Array(16);
    const v = new DataView(out.buffer);
    for (let i = 0; i < 4; i++) v.setUint32(i * 4, words[i]!);
    return family === 4 ? out.slice(12) : out;
  };
  return family === 4
    ? { family, guest: bytes(guest ?? '192.0.2.15'), remote: bytes(remote ?? '198.51.100.7') }
    : { family, guest: bytes(guest ?? '2001:db8::15'), remote: bytes(remote ?? '2001:db8:1::7') };
}

/** A run with more events has failed: two sides answer each other without end. */
const MAX_STEPS = 2_000_000;

export interface TransferOptions {
  readonly seed: number;
  readonly family?: 4 | 6;
  /** Guest to host, host to guest. */
  readonly upBytes?: number;
  readonly downBytes?: number;
  readonly connections?: number;
  readonly up?: LinkOptions;
  readonly down?: LinkOptions;
  /** The link loses single segments of GSO frames, not whole frames. */
  readonly splitGso?: boolean;
  /** The guest drops every longer frame, in bytes. */
  readonly dropAboveBytes?: number;
  readonly mtu?: number;
  readonly vnet?: boolean;
  readonly guest?: Partial<GuestOptions>;
  readonly engine?: Partial<SimOptions>;
  readonly connectMs?: number;
  /** Bytes that the host socket accepts before it blocks, and bytes per millisecond that its peer reads. */
  readonly socketRoom?: number;
  readonly drainPerMs?: number;
  /** The socket's receive queue. */
  readonly socketQueue?: number;
  /** The peer closes when it has sent all, or only after the guest's FIN. */
  readonly peerClose?: 'sent' | 'eof';
  /** Virtual time after which the run has failed. */
  readonly limitMs?: number;
}

export interface TransferResult<E = SimEngine> {
  readonly ms: number;
  readonly guests: readonly GuestTcp[];
  readonly sockets: readonly FakeSocket[];
  readonly engine: E;
  readonly frames: FrameChecker;
  /** Bytes of both directions per virtual second. */
  readonly goodput: number;
  readonly longestStallMs: number;
}

/** Play the peer behind a host socket. */
function play(clock: Clock, socket: FakeSocket, o: TransferOptions): void {
  const total = o.downBytes ?? 0;
  const queue = o.socketQueue ?? 262_144;
  const mayClose = (): boolean => (o.peerClose ?? 'sent') === 'sent' || socket.gotFin;
  const write = (): void => {
    if (socket.peerFin || socket.state === 'closed') return;
    const n = Math.min(total - socket.peerSent, queue - socket.unread);
    if (n > 0) socket.peerWrite(n);
    if (socket.peerSent === total && mayClose()) socket.peerClose();
  };
  socket.onConsumed = write;
  if (o.socketRoom !== undefined) {
    socket.room = o.socketRoom;
    let held = 0;
    let before = 0;
    let draining = false;
    const drain = (): void => {
      const n = Math.min(held, o.drainPerMs ?? 1000);
      held -= n;
      socket.giveRoom(n);
      draining = held > 0;
      if (draining) clock.after(1, drain);
    };
    socket.onReceived = () => {
      held += socket.received - before;
      before = socket.received;
      if (!draining && held > 0) {
        draining = true;
        clock.after(1, drain);
      }
      write();
    };
  } else socket.onReceived = write;
  socket.connectAfter(o.connectMs ?? 0.5);
  clock.after((o.connectMs ?? 0.5) + 0.1, write);
}

/**
 * Run until all connections have ended. Check that every byte arrived once and in order, and that all slots,
 * flows and timers are free again. A failure prints the seed.
 */
export function runTransfer(o: TransferOptions): TransferResult {
  return runTransferThrough(o, (options) => new SimEngine(options));
}

/** As runTransfer(), through another engine. @param make  makes it; the generator is that of the run */
export function runTransferThrough<E extends Simulated>(
  o: TransferOptions,
  make: (options: SimOptions, prng: Prng) => E,
): TransferResult<E> {
  try {
    return run(o, make);
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    throw new Error(
      `seed ${o.seed}, ${JSON.stringify({ ...o, engine: undefined, guest: { ...o.guest, clock: undefined } })}: ${text}`,
      {
        cause,
      },
    );
  }
}

/** NETSIM_TRACE=1: print each segment to standard error when it is sent. */
function trace(clock: Clock, way: string, s: Segment, gso: number): void {
  const sack = s.options.sack ? ` sack ${s.options.sack.map((b) => b.join('-')).join(' ')}` : '';
  process.stderr.write(
    `${clock.now.toFixed(3)} ${way} ${s.srcPort}>${s.dstPort} ${flagNames(s.flags)} seq ${s.seq} ack ${s.ack} win ${s.window} len ${s.payload.length}${gso ? ` gso ${gso}` : ''}${sack}\n`,
  );
}

function unpadded(frame: Uint8Array, vnet: boolean): Uint8Array {
  const ip = (vnet ? VNET : 0) + ETH;
  const v = new DataView(frame.buffer);
  const total = frame[ip]! >> 4 === 4 ? v.getUint16(ip + 2) : 40 + v.getUint16(ip + 4);
  return frame.subarray(0, ip + total);
}

function run<E extends Simulated>(
  o: TransferOptions,
  make: (options: SimOptions, prng: Prng) => E,
): TransferResult<E> {
  const prng = new Prng(o.seed);
  const clock = new Clock(1000 + prng.unit() * 1e6);
  const vnet = o.vnet ?? true;
  const mtu = o.mtu ?? 1500;
  const family = o.family ?? 4;
  const checker = new FrameChecker(vnet, mtu);
  const guests: GuestTcp[] = [];
  const sockets: FakeSocket[] = [];
  const down = new Link<{ d: DecodedFrame; s: Segment; gso: number }>(
    clock,
    prng,
    o.down ?? {},
    ({ s, gso }) => {
      const guest = guests[s.dstPort - 40000];
      if (guest === undefined) throw new Error(`a segment to port ${s.dstPort}`);
      guest.receive(s, gso);
    },
  );
  const options: SimOptions = {
    clock,
    vnet,
    mtu,
    ...o.engine,
    onFrame: (frame) => {
      const d = checker.check(frame);
      if (d.frameBytes > (o.dropAboveBytes ?? Number.POSITIVE_INFINITY)) return;
      if (process.env.NETSIM_TRACE) trace(clock, '<', d.tcp!, d.gsoSize);
      const s = d.tcp;
      if (s === null) throw new Error('an ICMP error');
      const guest = guests[s.dstPort - 40000];
      if (guest !== undefined && s.payload.length > 0) {
        const end = guest.rcvNxt + seqDist(s.seq, guest.irs + 1 + guest.rcvNxt) + s.payload.length;
        if (end > guest.edgeTold + 1)
          throw new Error(`bytes up to ${end}, the guest's window ends at ${guest.edgeTold}`);
      }
      if (!o.splitGso || d.gsoSize === 0) return down.send({ d, s, gso: d.gsoSize }, d.frameBytes);
      for (let at = 0; at < s.payload.length; at += d.gsoSize) {
        const payload = s.payload.subarray(at, at + d.gsoSize);
        const last = at + d.gsoSize >= s.payload.length;
        down.send(
          { d, s: { ...s, seq: (s.seq + at) >>> 0, payload, flags: last ? s.flags : s.flags & ~9 }, gso: 0 },
          payload.length + 54,
        );
      }
    },
    onOpen: (socket) => {
      sockets.push(socket);
      play(clock, socket, o);
    },
  };
  const engine = make(options, prng);
  try {
    const up = new Link<Uint8Array>(clock, prng, o.up ?? {}, (frame) => engine.fromGuest(frame));
    const transmit = (frame: Uint8Array): void => {
      if (process.env.NETSIM_TRACE) trace(clock, '>', decodeFrame(unpadded(frame, vnet), vnet).tcp!, 0);
      up.send(frame, frame.length);
    };
    const startedAt = clock.now;
    for (let i = 0; i < (o.connections ?? 1); i++) {
      const guest = new GuestTcp({
        clock,
        endpoints: endpoints(family),
        srcPort: 40000 + i,
        vnet,
        mtu,
        iss: prng.u32(),
        sendBytes: o.upBytes ?? 0,
        expectBytes: o.downBytes ?? 0,
        transmit,
        ...o.guest,
      });
      guests.push(guest);
      guest.connect();
    }
    const limit = startedAt + (o.limitMs ?? 120_000);
    const finished = (): boolean =>
      guests.every((g) => g.done || g.gotRst) && engine.openSockets === 0 && engine.liveFlows === 0;
    let doneAt = 0;
    for (let steps = 0; !finished(); steps++) {
      if (steps > MAX_STEPS || !clock.step(limit)) {
        const g = guests.find((x) => !x.done) ?? guests[0]!;
        const s = sockets[guests.indexOf(g)];
        throw new Error(
          `not finished after ${clock.now - startedAt} ms and ${steps} events: guest ${g.state} acked ${g.acked} got ${g.received}, FIN acked ${g.finAcked} got ${g.gotFin}; ` +
            `peer got ${s?.received} FIN ${s?.gotFin} sent ${s?.peerSent} consumed ${s?.consumed}; ${JSON.stringify(engine.leftovers())}`,
        );
      }
    }
    doneAt = Math.max(...guests.map((g) => g.lastProgressAt));
    // Late duplicates and retransmissions arrive when the engine has no such connection any more.
    clock.advance(20_000);
    for (const guest of guests) {
      // The translator has no TIME-WAIT: when its last ACK was lost, it answers the guest's FIN by RST. By
      // then the peer has all bytes (checked below) and the guest has the peer's FIN.
      if (guest.gotRst && !guest.gotFin) throw new Error('the guest was reset');
      expect(guest.received).toBe(o.downBytes ?? 0);
    }
    // A late duplicate SYN opens a connection that the guest does not have: it ends by RST.
    const stale = sockets.filter((socket) => socket.closedBy === 'reset' && socket.received === 0);
    expect(sockets.length - stale.length).toBe(guests.length);
    for (const socket of sockets) {
      if (stale.includes(socket)) continue;
      expect(socket.received).toBe(o.upBytes ?? 0);
      expect(socket.gotFin).toBe(true);
      expect(socket.closedBy).toBe('close');
    }
    expect(engine.leftovers()).toEqual(NOTHING_LEFT);
    const ms = doneAt - startedAt;
    const bytes = guests.length * ((o.upBytes ?? 0) + (o.downBytes ?? 0));
    return {
      ms,
      guests,
      sockets,
      engine,
      frames: checker,
      goodput: (bytes / ms) * 1000,
      longestStallMs: Math.max(...guests.map((g) => g.longestStallMs)),
    };
  } finally {
    engine.close();
  }
}
