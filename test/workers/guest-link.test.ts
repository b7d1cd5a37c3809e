// @vitest: beside
/**
 * The guest link with a socket pair in place of the TAP: the bytes that the kernel would get for an
 * EgressFrame.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { addressParse } from '../../src/proto/address.ts';
import { finishSum, onesSum } from '../../src/proto/checksum.ts';
import { EtherType } from '../../src/proto/ethernet.ts';
import { IpProtocol } from '../../src/proto/ipv4.ts';
import { UDP_BYTES, UDP_CHECKSUM, udpWrite } from '../../src/proto/udp.ts';
import { VnetGso } from '../../src/proto/vnethdr.ts';
import { COUNTER_WORDS, Counter } from '../../src/ring/counters.ts';
import { allocateShared, NEIGHBOUR_WORDS } from '../../src/ring/layout.ts';
import { FramePool, HEADROOM_BYTES } from '../../src/ring/pool.ts';
import { AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK } from '../../src/sys/constants.ts';
import { close, read } from '../../src/sys/io.ts';
import { addressOf, NativeBuffer } from '../../src/sys/memory.ts';
import { socketpair } from '../../src/sys/socket.ts';
import { GuestLink } from '../../src/workers/tap/guest-link.ts';
import { GuestNeighbours } from '../../src/workers/tap/guest-neighbours.ts';
import { ipWrite } from '../../src/workers/translator/to-guest.ts';

const VNET_BYTES = 12;
const ETH_BYTES = 14;
const REMOTE = new Uint32Array(4);
const GUEST = new Uint32Array(4);
addressParse('192.0.2.1', REMOTE, 0);
addressParse('10.0.2.15', GUEST, 0);

class Bench {
  readonly counters = new Float64Array(COUNTER_WORDS);
  readonly pool: FramePool;
  readonly link: GuestLink;
  readonly #fds: readonly [number, number];
  readonly #buffer = new NativeBuffer(65536);

  readonly guestMac = Uint8Array.of(2, 0, 0, 0, 0, 2);
  readonly words = new Uint32Array(NEIGHBOUR_WORDS);
  readonly neighbours = new GuestNeighbours(this.words, this.guestMac);

  constructor(vnetHdrBytes: 0 | 12) {
    const pair = new NativeBuffer(8);
    const r = socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair.address);
    if (r < 0) throw new Error(`socketpair: errno ${-r}`);
    this.#fds = [pair.i32[0]!, pair.i32[1]!];
    const { sab, layout, baseAddress } = allocateShared(
      { smallSlots: 0, largeSlots: 4, rings: 0, ringDescriptors: 2, counterBlocks: 1, logBytes: 256 },
      addressOf,
    );
    this.pool = new FramePool(sab, layout, baseAddress);
    this.link = new GuestLink({
      tapFd: this.#fds[0],
      vnetHdrBytes,
      uso: true,
      bigTcp: true,
      pool: this.pool,
      scratchSlot: 3,
      counters: this.counters,
      mac: Uint8Array.of(2, 0, 0, 0, 0, 1),
      guestMac: this.guestMac,
      neighbours: this.neighbours,
    });
  }

  /**
   * Fill the link's frame with a UDP datagram to the guest, up to the IP header.
   * @param more  payload bytes in slot 1
   */
  datagram(payload: Uint8Array, more: number): void {
    const { u8 } = this.pool;
    const f = this.link.frame;
    const first = payload.length - more;
    const at = this.pool.slotAt(0) + HEADROOM_BYTES;
    u8.set(payload.subarray(0, first), at);
    u8.set(payload.subarray(first), this.pool.slotAt(1));
    udpWrite(u8, at - UDP_BYTES, 53, 4000, UDP_BYTES + payload.length);
    f.begin(4, IpProtocol.udp);
    f.addresses(REMOTE, 0, GUEST, 0);
    f.body(at - UDP_BYTES, UDP_BYTES + first, this.pool.slotAt(1), more);
    f.checksumField = UDP_CHECKSUM;
    ipWrite(u8, f);
  }

  /** The next frame that was written. */
  frame(): Uint8Array {
    const n = read(this.#fds[1], this.#buffer.address, 65536);
    if (n < 0) throw new Error(`read: errno ${-n}`);
    return this.#buffer.u8.slice(0, n);
  }

  close(): void {
    for (const fd of this.#fds) close(fd);
  }
}

let bench: Bench | null = null;
const open = (vnetHdrBytes: 0 | 12): Bench => {
  bench = new Bench(vnetHdrBytes);
  return bench;
};

afterEach(() => {
  bench?.close();
  bench = null;
});

/** Sum over pseudo header and datagram of a frame without a virtio header: 0 when the checksum is right. */
function udpSum(frame: Uint8Array): number {
  const udpBytes = frame.length - ETH_BYTES - 20;
  const pseudo = onesSum(frame, ETH_BYTES + 12, 8, IpProtocol.udp + udpBytes);
  return finishSum(onesSum(frame, ETH_BYTES + 20, udpBytes, pseudo));
}

const PAYLOAD = Uint8Array.from({ length: 1001 }, (_, i) => i & 0xff);

describe('GuestLink', () => {
  it("the guest's MAC is not known: the frame waits, a question goes out; once it is known, the frame too", () => {
    const b = open(12);
    b.guestMac.fill(0xff);
    b.words[0] = 1;
    b.datagram(PAYLOAD, 0);
    expect(b.link.send(b.link.frame)).toBe(0);
    const question = b.frame().subarray(12);
    expect([...question.subarray(0, 14)]).toEqual([...Array(6).fill(255), 2, 0, 0, 0, 0, 1, 8, 6]);
    expect([...question.subarray(14 + 6, 14 + 8)]).toEqual([0, 1]);
    expect([...question.subarray(14 + 24, 14 + 28)]).toEqual([10, 0, 2, 15]);
    b.link.waiting.send();
    expect(b.link.waiting.isEmpty).toBe(false);
    b.neighbours.learn(GUEST, 0, Uint8Array.of(2, 0, 0, 0, 0, 9), 0, new Uint32Array(14), 0);
    b.link.waiting.send();
    expect(b.link.waiting.isEmpty).toBe(true);
    const frame = b.frame().subarray(12);
    expect([...frame.subarray(0, 6)]).toEqual([2, 0, 0, 0, 0, 9]);
    expect(frame.subarray(14 + 28)).toEqual(PAYLOAD);
  });

  it('more frames than may wait: the rest is broadcast', () => {
    const b = open(12);
    b.guestMac.fill(0xff);
    b.words[0] = 1;
    for (let i = 0; i < 17; i++) {
      b.datagram(PAYLOAD, 0);
      b.link.send(b.link.frame);
    }
    b.frame(); // the one question
    expect([...b.frame().subarray(12, 18)]).toEqual(Array(6).fill(255));
  });

  it('several MACs: a frame goes to the one that has the address', () => {
    const b = open(12);
    b.neighbours.learn(GUEST, 0, Uint8Array.of(2, 0, 0, 0, 0, 9), 0, new Uint32Array(14), 0);
    b.datagram(PAYLOAD, 0);
    b.link.send(b.link.frame);
    expect([...b.frame().subarray(12, 18)]).toEqual([2, 0, 0, 0, 0, 9]);
  });

  it('a TAP with virtio headers: partial checksum, csumStart and csumOffset are set', () => {
    const b = open(12);
    b.datagram(PAYLOAD, 0);
    expect(b.link.send(b.link.frame)).toBe(0);
    const frame = b.frame();
    // flags needsCsum, no GSO, hdrLen 0, gsoSize 0, csumStart 34, csumOffset 6, numBuffers 0
    expect([...frame.subarray(0, VNET_BYTES)]).toEqual([1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0]);
    expect(frame.length).toBe(VNET_BYTES + ETH_BYTES + 20 + UDP_BYTES + PAYLOAD.length);
    expect(b.counters[Counter.bytesToGuest]).toBe(20 + UDP_BYTES + PAYLOAD.length);
  });

  it.each([0, 1, 400, 1001])(
    'no virtio header, %i bytes in a second piece: the checksum is complete',
    (more) => {
      const b = open(0);
      b.datagram(PAYLOAD, more);
      expect(b.link.send(b.link.frame)).toBe(0);
      const frame = b.frame();
      expect(udpSum(frame)).toBe(0);
      expect(frame.subarray(ETH_BYTES + 20 + UDP_BYTES)).toEqual(PAYLOAD);
    },
  );

  it('added pieces: follow the first one in this frame, not in the next', () => {
    const b = open(12);
    for (const inPieces of [true, false]) {
      b.datagram(PAYLOAD, 600);
      const { frame } = b.link;
      frame.gsoType = VnetGso.udpL4;
      frame.gsoSize = 100;
      frame.headerBytes = UDP_BYTES;
      if (inPieces) {
        b.link.addPiece(frame.moreAt, 200);
        b.link.addPiece(frame.moreAt + 200, 400);
        frame.moreAt = 0;
      }
      expect(b.link.send(frame)).toBe(0);
      const sent = b.frame();
      // needsCsum, udpL4, hdrLen 42, gsoSize 100, csumStart 34, csumOffset 6
      expect([...sent.subarray(0, VNET_BYTES)]).toEqual([1, 5, 42, 0, 100, 0, 34, 0, 6, 0, 0, 0]);
      expect(sent.subarray(-PAYLOAD.length)).toEqual(PAYLOAD);
    }
  });

  it('a frame after a GSO frame: no field of the GSO frame remains', () => {
    const b = open(12);
    b.datagram(PAYLOAD, 600);
    Object.assign(b.link.frame, { gsoType: VnetGso.udpL4, gsoSize: 100, headerBytes: UDP_BYTES });
    b.link.send(b.link.frame);
    b.frame();
    b.link.frame.beginPacket(EtherType.arp, b.link.scratchAt, 28);
    expect(b.link.send(b.link.frame)).toBe(0);
    const frame = b.frame();
    expect(frame.length).toBe(VNET_BYTES + ETH_BYTES + 28);
    expect([...frame.subarray(0, VNET_BYTES)]).toEqual(new Array(VNET_BYTES).fill(0));
    expect([...frame.subarray(VNET_BYTES + 12, VNET_BYTES + 14)]).toEqual([0x08, 0x06]);
  });
});
