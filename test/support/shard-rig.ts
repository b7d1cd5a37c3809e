/**
 * The context of one shard without threads: a real pool, rings, flow table and timers; the guest is an array
 * of packets. A test writes a packet to slots of the reader, passes it to a translator module, and reads the
 * messages to host-io and the packets to the guest.
 */

import { addressParse, addressRead, addressSetIpv4 } from '../../src/proto/address.ts';
import { finishSum, onesSum } from '../../src/proto/checksum.ts';
import {
  ipv4DontFragment,
  ipv4Dst,
  ipv4HeaderBytes,
  ipv4Protocol,
  ipv4Src,
  ipv4TotalLen,
  ipv4Ttl,
} from '../../src/proto/ipv4.ts';
import { ipv6HopLimit, ipv6PayloadLen, ipv6Upper } from '../../src/proto/ipv6.ts';
import { VnetGso } from '../../src/proto/vnethdr.ts';
import { COUNTER_WORDS, DROP_BASE } from '../../src/ring/counters.ts';
import type { SharedMemory } from '../../src/ring/layout.ts';
import { NEIGHBOUR_WORDS } from '../../src/ring/layout.ts';
import { type FramePool, HEADROOM_BYTES, NO_SLOT, type SlotStack } from '../../src/ring/pool.ts';
import type { RingConsumer, RingProducer } from '../../src/ring/spsc.ts';
import { Assembly } from '../../src/workers/assembly.ts';
import { engineMemory } from '../../src/workers/engine-memory.ts';
import { DEFAULT_POLICY, type TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { Addressing } from '../../src/workers/flow/addressing.ts';
import { Egress } from '../../src/workers/flow/egress.ts';
import { flowHash } from '../../src/workers/flow/flow-hash.ts';
import { groupRulesOf } from '../../src/workers/flow/group-rules.ts';
import { ShardFlows } from '../../src/workers/flow/shard-flows.ts';
import { TimerWheel } from '../../src/workers/flow/timer-wheel.ts';
import { datagramWrite, icmpErrorWrite } from '../../src/workers/link/to-shard.ts';
import type { SlotShares } from '../../src/workers/placement.ts';
import { EgressFrame } from '../../src/workers/tap/egress-frame.ts';
import type { GuestLink } from '../../src/workers/tap/guest-link.ts';
import { GuestNeighbours } from '../../src/workers/tap/guest-neighbours.ts';
import { Notices } from '../../src/workers/thread/notices.ts';
import { type ShardContext, TIMER_KINDS } from '../../src/workers/translator/context.ts';
import type { Packet } from '../../src/workers/translator/packet.ts';
import { bytesOf, type Message, message, messageAt, slotAOf, slotBOf, slotOffsetOf } from './message.ts';

/** Offset of a frame in a slot: after the vnet header. */
export const FRAME_AT = 12;
const ETH_BYTES = 14;

export const TEST_PLAN: TapEnginePlan = {
  threads: { kind: 'fused' },
  addresses: {
    mtu: 1500,
    mac: '9a:55:9a:55:9a:55',
    ipv4: {
      guest: '10.0.2.15',
      prefixLen: 24,
      gateway: '10.0.2.2',
      hostLoopback: '10.0.2.4',
      dns: '10.0.2.3',
    },
    ipv6: {
      guest: 'fd00::15',
      prefixLen: 64,
      gateway: 'fd00::2',
      linkLocal: 'fe80::2',
      hostLoopback: 'fd00::4',
      dns: 'fd00::3',
    },
    resolvers: ['192.0.2.53', '192.0.2.54'],
    offeredDns: ['10.0.2.3', 'fd00::3'],
    searchDomains: ['example.org'],
  },
  policy: DEFAULT_POLICY,
  listeners: [],
  pool: { smallSlots: 256, largeSlots: 64, flows: 64 },
  tap: { fd: -1, vnetHdrBytes: 12, uso: true },
  hashKey: [0x01020304, 0x05060708],
  isnKey: [1, 2, 3, 4],
  debugOwnership: true,
  logLevel: 'debug',
};

/** A packet to the guest as its kernel gets it: from the IP header on, with the checksum completed. */
export interface Sent {
  readonly bytes: Uint8Array;
  readonly etherType: number;
  /** Payload bytes per segment of a GSO_UDP_L4 frame; 0: an ordinary frame. */
  readonly gsoSize: number;
  /** Destination of the frame; undefined: the guest's own address. */
  readonly mac?: Uint8Array | undefined;
}

/**
 * Reader and host-io have half of the slots each. The last large slot is the scratch slot of the guest link;
 * the one before it is for DNS queries.
 */
function rigShares(smallSlots: number, largeSlots: number): SlotShares {
  const small = smallSlots / 2;
  const large = largeSlots / 2;
  const end = smallSlots + largeSlots;
  return {
    ...{ readerSmall: [[0, small]], hostSmall: [[small, small]] },
    ...{ readerLarge: [[smallSlots, large]], hostLarge: [[smallSlots + large, large - 2]] },
    ...{ scratchLarge: end - 1, dnsEach: 1, dnsLarge: end - 2 },
  };
}

export class ShardRig {
  readonly plan: TapEnginePlan;
  readonly #memory: SharedMemory;
  readonly pool: FramePool;
  readonly u8: Uint8Array;
  readonly ctx: ShardContext;
  readonly sent: Sent[] = [];
  readonly logs: string[] = [];
  /** Number of "flow table full" notices. */
  tableFull = 0;
  readonly small: SlotStack;
  readonly large: SlotStack;
  /** Slots of host-io. */
  readonly hostSmall: SlotStack;
  readonly hostLarge: SlotStack;
  readonly toHost: RingConsumer;
  /** From host-io to the shard. */
  readonly fromHost: { readonly producer: RingProducer; readonly consumer: RingConsumer };

  constructor(plan: TapEnginePlan = TEST_PLAN) {
    this.plan = plan;
    const { smallSlots, largeSlots, flows } = plan.pool;
    this.#memory = engineMemory(plan, { ringDescriptors: 256, logBytes: 4096 });
    const { sab, layout } = this.#memory;
    const assembly = new Assembly({ plan, sab, layout, shares: rigShares(smallSlots, largeSlots) });
    this.pool = assembly.pool;
    this.u8 = this.pool.u8;
    const reader = assembly.readerParts();
    const host = assembly.hostParts();
    const shard = assembly.shardParts(0);
    this.small = reader.smallSlots;
    this.large = reader.largeSlots;
    this.hostSmall = host.smallSlots;
    this.hostLarge = host.largeSlots;
    this.toHost = host.fromShards[0]!;
    this.fromHost = { producer: host.toShards[0]!, consumer: shard.fromHosts[0]! };
    const addressing = new Addressing(plan.addresses, plan.policy);
    const counters = new Float64Array(COUNTER_WORDS);
    const free = (slotA: number, slotB: number, small: SlotStack, large: SlotStack): void => {
      for (const slot of [slotA, slotB])
        if (slot !== NO_SLOT) (this.pool.isSmall(slot) ? small : large).push(slot);
    };
    const scratchAt = this.pool.slotAt(shard.scratchSlot) + 128;
    const guestMac = Uint8Array.of(2, 0, 0, 0, 0, 1);
    const guest = {
      scratchAt,
      mac: addressing.mac,
      guestMac,
      hasVnet: true,
      uso: plan.tap.uso,
      addPiece: (at: number, pieceBytes: number) => this.#pieces.push(this.u8.slice(at, at + pieceBytes)),
      frame: new EgressFrame(),
      send: (f: EgressFrame) => this.#send(f),
      sendTo: (mac: Uint8Array | null) => {
        this.#destination = mac;
      },
    };
    this.ctx = {
      shard: 0,
      plan,
      addressing,
      pool: this.pool,
      u8: this.u8,
      counters,
      flows: new ShardFlows(flows, counters, () => this.tableFull++),
      timers: new TimerWheel(flows * TIMER_KINDS, 4, 0),
      owners: shard.owners,
      groups: groupRulesOf(plan),
      egress: new Egress(plan.egress, { isDue: () => true, tell: (text) => this.logs.push(text) }),
      toHost: shard.toHost,
      guest: guest as unknown as GuestLink,
      neighbours: new GuestNeighbours(new Uint32Array(NEIGHBOUR_WORDS), guestMac),
      now: 0,
      freeReaderSlots: (a, b) => free(a, b, this.small, this.large),
      freeHostSlots: (a, b) => free(a, b, this.hostSmall, this.hostLarge),
      drop: (cause) => {
        counters[DROP_BASE - cause]!++;
      },
      pref64: [],
      dnsSlots: shard.dnsSlots,
      notices: new Notices((level, text) => {
        this.logs.push(`${level}: ${text}`);
      }),
    };
  }

  /** Result of the TAP for the next GSO frames: 0 or -errno. */
  usoResult = 0;
  /** GuestLink.sendTo(). */
  #destination: Uint8Array | null = null;
  readonly #pieces: Uint8Array[] = [];

  #send(f: EgressFrame): number {
    const held = this.#pieces.splice(0);
    const pieces = held.length > 0 ? held : [this.u8.slice(f.moreAt, f.moreAt + f.moreBytes)];
    const packet = new Uint8Array(Buffer.concat([this.u8.slice(f.at, f.at + f.bytes), ...pieces]));
    if (packet.length !== f.bytes + f.moreBytes) throw new Error('rig: pieces are not what the frame says');
    // The bytes before the frame belong to the link: overwrite them, so that a dependence on them is noticed.
    this.u8.fill(0xee, f.at - 26, f.at);
    if (f.gsoType === VnetGso.udpL4 && this.usoResult < 0) {
      this.ctx.guest.uso = false;
      return this.usoResult;
    }
    if (f.checksumField >= 0) {
      // The partial checksum of a GSO frame must be right for the whole frame: the kernel derives that of
      // each segment from it.
      const csumAt = f.transportAt - f.at;
      const sum = finishSum(onesSum(packet, csumAt, packet.length - csumAt, 0)) || 0xffff;
      packet[csumAt + f.checksumField] = sum >>> 8;
      packet[csumAt + f.checksumField + 1] = sum & 0xff;
    }
    const mac = this.#destination === null ? undefined : Uint8Array.from(this.#destination);
    this.sent.push({ bytes: packet, etherType: f.etherType, gsoSize: f.gsoSize, mac });
    return 0;
  }

  /** Number of drops with a cause so far. */
  drops(cause: number): number {
    return this.ctx.counters[DROP_BASE - cause]!;
  }

  counter(index: number): number {
    return this.ctx.counters[index]!;
  }

  /** Take the packets sent to the guest so far. */
  takeSent(): Sent[] {
    return this.sent.splice(0);
  }

  /** Take the messages to host-io so far. */
  takeMessages(): Message[] {
    this.ctx.toHost.flush();
    const messages: Message[] = [];
    for (let n = this.toHost.available(); n > 0; n = this.toHost.available()) {
      for (let i = 0; i < n; i++) messages.push(messageAt(this.toHost.words, this.toHost.at(i)));
      this.toHost.release(n);
    }
    return messages;
  }

  /**
   * Write an IP packet to slots as the reader does (small slot first, the rest in a large one) and describe
   * it as dispatch does.
   * @param needsCsum  leave the checksum partial, as for an offloading device
   */
  packet(ip: Uint8Array, needsCsum = false, gsoType = 0, gsoSize = 0): Packet {
    const slotA = this.small.pop();
    if (slotA === NO_SLOT) throw new Error('rig: no small slot left');
    const slotAt = this.pool.slotAt(slotA);
    const ipAt = slotAt + FRAME_AT + ETH_BYTES;
    const inA = Math.min(ip.length, this.pool.slotBytes(slotA) - FRAME_AT - ETH_BYTES);
    this.u8.set(ip.subarray(0, inA), ipAt);
    let slotB = NO_SLOT;
    if (ip.length > inA) {
      slotB = this.large.pop();
      this.u8.set(ip.subarray(inA), this.pool.slotAt(slotB));
    }
    const family = ip[0]! >>> 4 === 4 ? 4 : 6;
    const addr = new Uint32Array(8);
    let headerBytes: number;
    let totalBytes: number;
    let proto: number;
    if (family === 4) {
      headerBytes = ipv4HeaderBytes(ip, 0, ip.length);
      totalBytes = ipv4TotalLen(ip, 0);
      proto = ipv4Protocol(ip, 0);
      addressSetIpv4(addr, 0, ipv4Src(ip, 0));
      addressSetIpv4(addr, 4, ipv4Dst(ip, 0));
    } else {
      const out = new Int32Array(7);
      if (ipv6Upper(ip, 0, ip.length, out) < 0) throw new Error('rig: bad IPv6 packet');
      headerBytes = out[1]!;
      totalBytes = 40 + ipv6PayloadLen(ip, 0);
      proto = out[0]!;
      addressRead(ip, 8, addr, 0);
      addressRead(ip, 24, addr, 4);
    }
    const at = headerBytes;
    let ports = 0;
    if (proto === 17 || proto === 6) {
      ports = ((ip[at]! << 24) | (ip[at + 1]! << 16) | (ip[at + 2]! << 8) | ip[at + 3]!) >>> 0;
    } else ports = ((ip[at + 4]! << 24) | (ip[at + 5]! << 16)) >>> 0;
    return {
      slotA,
      slotB,
      ipAt,
      transportAt: ipAt + headerBytes,
      transportBytes: totalBytes - headerBytes,
      transportBytesInA: Math.min(totalBytes - headerBytes, inA - headerBytes),
      family,
      proto,
      dontFragment: family === 6 || ipv4DontFragment(ip, 0),
      tos: family === 4 ? ip[1]! : ((ip[0]! & 15) << 4) | (ip[1]! >>> 4),
      ttl: family === 4 ? ipv4Ttl(ip, 0) : ipv6HopLimit(ip, 0),
      hash: flowHash(this.plan.hashKey, addr, 0, addr, 4, ports, proto),
      ports: 0,
      needsCsum,
      gsoType,
      gsoSize,
      addr,
    };
  }

  /** Payload in the slots of a message. */
  payloadOf(m: Message): Uint8Array {
    const slotA = slotAOf(m);
    const bytes = bytesOf(m);
    const from = this.pool.slotAt(slotA) + slotOffsetOf(m);
    const room = this.pool.slotBytes(slotA) - slotOffsetOf(m);
    const inA = slotBOf(m) === NO_SLOT ? bytes : Math.min(bytes, room);
    const out = new Uint8Array(bytes);
    out.set(this.u8.slice(from, from + inA));
    if (bytes > inA) {
      const moreAt = this.pool.slotAt(slotBOf(m));
      out.set(this.u8.slice(moreAt, moreAt + bytes - inA), inA);
    }
    return out;
  }

  /** Write a payload to slots of host-io, in the layout of datagram/sockets.ts; null: no slots. */
  hostPayload(payload: Uint8Array | null): { slotA: number; slotB: number; bytes: number } {
    if (payload === null) return { slotA: NO_SLOT, slotB: NO_SLOT, bytes: 0 };
    const bytes = payload.length;
    const slotA = this.hostSmall.pop();
    const room = 2048 - HEADROOM_BYTES;
    this.u8.set(payload.subarray(0, room), this.pool.slotAt(slotA) + HEADROOM_BYTES);
    if (bytes <= room) return { slotA, slotB: NO_SLOT, bytes };
    const slotB = this.hostLarge.pop();
    this.u8.set(payload.subarray(room), this.pool.slotAt(slotB));
    return { slotA, slotB, bytes };
  }

  /** A ToShard.datagram message. */
  datagram(flow: number, payload: Uint8Array, { ttl = 0, gsoSize = 0, tos = 0 } = {}): Message {
    const { slotA, slotB, bytes } = this.hostPayload(payload);
    return message((out) => datagramWrite(out, flow, slotA, slotB, HEADROOM_BYTES, bytes, ttl, gsoSize, tos));
  }

  /**
   * A ToShard.icmpError message.
   * @param offender empty: unknown
   * @param quoted payload that the error quotes, null: none
   */
  icmpError(
    flow: number,
    typeCode: number,
    { offender = '', info = 0, errno = 0, sequence = 0 } = {},
    quoted: Uint8Array | null = null,
  ): Message {
    const { slotA, bytes } = this.hostPayload(quoted);
    const from = new Uint32Array(4);
    if (offender !== '') addressParse(offender, from, 0);
    return message((out) =>
      icmpErrorWrite(out, flow, typeCode, info, errno, sequence, from, slotA, HEADROOM_BYTES, bytes),
    );
  }

  /** Number of slots in use, of the reader and of host-io. */
  get missingSlots(): number {
    const { small, large, hostSmall, hostLarge } = this;
    return [small, large, hostSmall, hostLarge].reduce((n, s) => n + s.capacity - s.free, 0);
  }
}
