/**
 * Cost of a frame to the guest from its payload to the system call: transport, IP, Ethernet and virtio
 * headers. The link drops every frame immediately before the write (a test option of the engine), so that the
 * kernel's share is not measured. One operation is one packet.
 */
import Benchmark from 'benchmark';
import { addressParse } from '../src/proto/address.ts';
import { IpProtocol } from '../src/proto/ipv4.ts';
import { TcpFlag } from '../src/proto/tcp.ts';
import { UDP_BYTES, UDP_CHECKSUM, udpWrite } from '../src/proto/udp.ts';
import { COUNTER_WORDS } from '../src/ring/counters.ts';
import { allocateShared, NEIGHBOUR_WORDS } from '../src/ring/layout.ts';
import { FramePool, HEADROOM_BYTES } from '../src/ring/pool.ts';
import { addressOf } from '../src/sys/memory.ts';
import { GuestLink } from '../src/workers/tap/guest-link.ts';
import { GuestNeighbours } from '../src/workers/tap/guest-neighbours.ts';
import type { ShardContext } from '../src/workers/translator/context.ts';
import { TcpControlBlocks } from '../src/workers/translator/tcp/control-blocks.ts';
import { SegmentOutput } from '../src/workers/translator/tcp/output.ts';
import type { ReceiveBuffers } from '../src/workers/translator/tcp/receive-buffers.ts';
import { Timestamps } from '../src/workers/translator/tcp/timestamps.ts';
import { datagramToGuest } from '../src/workers/translator/to-guest.ts';
import { ops, sink } from './ops.ts';

const PACKETS = 512;
const SLOTS = 16;
const MTU = 1500;

/** The suite. One long function: the members share the state that is set up in front of the list. */
export function build(): Benchmark.Suite {
  const { sab, layout, baseAddress } = allocateShared(
    { smallSlots: 0, largeSlots: SLOTS, rings: 0, ringDescriptors: 2, counterBlocks: 1, logBytes: 256 },
    addressOf,
  );
  const pool = new FramePool(sab, layout, baseAddress);
  const counters = new Float64Array(COUNTER_WORDS);
  const guestMac = Uint8Array.of(2, 0, 0, 0, 0, 2);
  const guest = new GuestLink({
    tapFd: -1,
    vnetHdrBytes: 12,
    uso: true,
    bigTcp: true,
    pool,
    scratchSlot: SLOTS - 1,
    counters,
    mac: Uint8Array.of(2, 0, 0, 0, 0, 1),
    guestMac,
    neighbours: new GuestNeighbours(new Uint32Array(NEIGHBOUR_WORDS), guestMac),
    impairment: { seed: 1, lossFromGuest: 0, lossToGuest: 1 },
  });
  // Two flows: IPv4 and IPv6.
  const addr = new Uint32Array(16);
  ['10.0.2.15', '192.0.2.1', '2001:db8::15', '2001:db8:1::1'].forEach((text, i) => {
    if (!addressParse(text, addr, i * 4)) throw new Error(text);
  });
  const ports = Uint32Array.of((50000 << 16) | 443, (50000 << 16) | 443);
  const ctx = {
    pool,
    u8: pool.u8,
    counters,
    guest,
    addressing: { mtu: MTU },
    flows: { addr, ports },
    plan: { isnKey: [1, 2, 3, 4] },
    now: 1000,
  } as unknown as ShardContext;
  const tcb = new TcpControlBlocks(2);
  tcb.begin(0, 4, 1, 0);
  tcb.begin(1, 6, 1, 0);
  tcb.mss.fill(1448);
  // A reset has no window, so SegmentOutput does not call ReceiveBuffers.
  const buffers = { limit: new Uint32Array(2) } as unknown as ReceiveBuffers;
  const output = new SegmentOutput(ctx, tcb, buffers, new Timestamps(ctx, tcb));
  const flags = TcpFlag.ack | TcpFlag.rst;
  const segment = (flow: number, at: number, bytes: number): number =>
    output.emit(flow, 1, flags, at - output.headBytes(flow, bytes), 0, bytes, 0);
  const datagram = (flow: number, at: number, bytes: number, moreAt: number, moreBytes: number): number => {
    const bodyAt = at - UDP_BYTES;
    udpWrite(pool.u8, bodyAt, 443, 50000, UDP_BYTES + bytes + moreBytes);
    const f = guest.frame;
    f.begin(flow === 0 ? 4 : 6, IpProtocol.udp);
    f.addresses(addr, flow * 8 + 4, addr, flow * 8);
    f.body(bodyAt, UDP_BYTES + bytes, moreAt, moreBytes);
    f.checksumField = UDP_CHECKSUM;
    return datagramToGuest(ctx, f);
  };
  /** Send PACKETS packets, each from another slot than the one before. */
  const over = (send: (at: number, moreAt: number) => number) => () => {
    let x = 0;
    for (let i = 0; i < PACKETS; i++) {
      x ^= send(pool.slotAt(i % 8) + HEADROOM_BYTES, pool.slotAt(8 + (i % 7)));
    }
    sink.value ^= x;
  };
  return new Benchmark.Suite()
    .add(
      'TCP segment, IPv4, 1,448 bytes',
      over((at) => segment(0, at, 1448)),
      ops(PACKETS),
    )
    .add(
      'TCP frame of GSO, IPv6, 64,000 bytes',
      over((at) => segment(1, at, 64_000)),
      ops(PACKETS),
    )
    .add(
      'UDP datagram, IPv4, 64 bytes',
      over((at) => datagram(0, at, 64, 0, 0)),
      ops(PACKETS),
    )
    .add(
      'UDP datagram, IPv6, 1,400 bytes in two slots',
      over((at, moreAt) => datagram(1, at, 400, moreAt, 1000)),
      ops(PACKETS),
    )
    .add(
      'UDP datagram, IPv4, 8 KiB in six fragments',
      over((at) => datagram(0, at, 8192, 0, 0)),
      ops(PACKETS),
    );
}
