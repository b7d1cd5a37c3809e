/**
 * The packet path in one process and one thread, with a socket pair in place of the TAP:
 *
 *   frames ─ sendmmsg ─▶ TapReader ─▶ Shard(s) ─▶ DrainingHost
 *   checked ◀─ recvmmsg ─────────────┘
 *
 * With lanes there is one of each per lane, a socket pair in place of each queue of the TAP, and frames are
 * spread over the queues at random: half of the frames of two lanes are read by the wrong one.
 *
 * Ownership of slots is checked at each hand-over. The stages have virtual time: poll(now).
 */

import { joinPolicy, parsePolicyText } from '../../src/main/cli/policy-text.ts';
import { dropName } from '../../src/proto/drop.ts';
import { COUNTER_WORDS, Counter, DROP_BASE, DROP_MAX } from '../../src/ring/counters.ts';
import { BUCKETS, PORTS, ROOM_WORDS } from '../../src/ring/layout.ts';
import type { SlotStack } from '../../src/ring/pool.ts';
import {
  AF_UNIX,
  Errno,
  MSG_DONTWAIT,
  SO_SNDBUF,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_SEQPACKET,
  SOL_SOCKET,
} from '../../src/sys/constants.ts';
import { close } from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import {
  iovecWrite,
  MMSGHDR_LEN_WORD,
  MMSGHDR_WORDS,
  msghdrWrite,
  recvmmsg,
  sendmmsg,
  setsockoptInt,
  socketpair,
} from '../../src/sys/socket.ts';
import { Assembly } from '../../src/workers/assembly.ts';
import { engineMemory } from '../../src/workers/engine-memory.ts';
import { DEFAULT_POLICY, type TapEnginePlan, type ThreadsPlan } from '../../src/workers/engine-plan.ts';
import { EGRESS_NAMES_BYTES } from '../../src/workers/flow/egress-names.ts';
import { compileEgress } from '../../src/workers/flow/egress-policy.ts';
import { divideBuckets } from '../../src/workers/flow/flow-owner.ts';
import { FLOW_FIELDS, FlowField, flowPage, MAX_PAGE_FLOWS } from '../../src/workers/flow/flow-report.ts';
import { FlowMover } from '../../src/workers/flow-mover.ts';
import { stageDropName } from '../../src/workers/link/stage-drop.ts';
import { TapReader } from '../../src/workers/tap/tap-reader.ts';
import { Notices } from '../../src/workers/thread/notices.ts';
import type { Shard } from '../../src/workers/translator/shard.ts';
import type { Prng } from '../support/netsim/prng.ts';
import { PLAN_ADDRESSES } from './corpus.ts';
import { DrainingHost, type MovedSocket, PUBLISHED } from './draining-host.ts';

const BATCH = 16;
const ROOM = 69_632;
const OUT_BATCH = 64;
const START_MS = 100_000;

/** Probability that a lane's thread does nothing in a round: lanes do not run in step. */
const LATE = 0.2;
/** Flows are compared whenever buckets were given away so many times. */
const CHECK_EVERY = 16;

export interface PathOptions {
  readonly threads: ThreadsPlan;
  readonly prng: Prng;
  readonly vnet?: boolean;
  readonly dhcp?: boolean;
  /** Groups and broadcast are carried. */
  readonly multicast?: boolean;
  /**
   * Probability that a lane's reader reads a batch before buckets were given to other lanes, and the shards
   * take its frames after that: they pass them on.
   */
  readonly oldTable?: number;
  /**
   * Probability that a lane gives buckets to others before a round: at once those without flows, or with their
   * flows too, as they can move.
   */
  readonly give?: number;
  /** Called with every frame to the guest, with its vnet header. The bytes are borrowed. */
  onFrame(u8: Uint8Array, at: number, bytes: number): void;
}

/** A socket pair in place of a TAP: one message per frame. */
export function tapPair(): readonly [engine: number, guest: number] {
  const pair = new NativeBuffer(8);
  const r = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair.address);
  if (r < 0) throw new Error(`socketpair: errno ${-r}`);
  for (const fd of [pair.i32[0]!, pair.i32[1]!]) setsockoptInt(fd, SOL_SOCKET, SO_SNDBUF, 4 << 20);
  return [pair.i32[0]!, pair.i32[1]!];
}

/** The guest's end: frames in batches. */
export class GuestEnd {
  /** Room for BATCH frames: frame i at i * ROOM. */
  readonly out = new NativeBuffer(BATCH * ROOM);
  readonly #in = new NativeBuffer(OUT_BATCH * ROOM);
  readonly #outIov = new NativeBuffer(BATCH * 16);
  readonly #outMsgs = new NativeBuffer(BATCH * MMSGHDR_WORDS * 4);
  readonly #inIov = new NativeBuffer(OUT_BATCH * 16);
  readonly #inMsgs = new NativeBuffer(OUT_BATCH * MMSGHDR_WORDS * 4);
  readonly #fd: number;
  #count = 0;
  #sent = 0;

  constructor(fd: number) {
    this.#fd = fd;
    for (let i = 0; i < BATCH; i++)
      msghdrWrite(this.#outMsgs.u32, i * MMSGHDR_WORDS, 0, 0, this.#outIov.address + i * 16, 1);
    for (let i = 0; i < OUT_BATCH; i++) {
      iovecWrite(this.#inIov.u32, i * 4, this.#in.address + i * ROOM, ROOM);
      msghdrWrite(this.#inMsgs.u32, i * MMSGHDR_WORDS, 0, 0, this.#inIov.address + i * 16, 1);
    }
  }

  get full(): boolean {
    return this.#count === BATCH;
  }

  get pending(): number {
    return this.#count - this.#sent;
  }

  /** Where the next frame may be written; add() it afterwards. */
  get at(): number {
    return this.#count * ROOM;
  }

  /** @param skip  bytes before the frame that are not sent (the vnet header, if the TAP has none) */
  add(bytes: number, skip = 0): void {
    iovecWrite(
      this.#outIov.u32,
      this.#count * 4,
      this.out.address + this.#count * ROOM + skip,
      Math.max(0, bytes - skip),
    );
    this.#count++;
  }

  addCopy(frame: Uint8Array): void {
    this.out.u8.set(frame, this.at);
    this.add(frame.length);
  }

  /** @returns number of frames sent; the next call sends the rest */
  flush(): number {
    if (this.#sent === this.#count) return 0;
    const r = sendmmsg(
      this.#fd,
      this.#outMsgs.address + this.#sent * MMSGHDR_WORDS * 4,
      this.#count - this.#sent,
      MSG_DONTWAIT,
    );
    if (r < 0) {
      if (r === -Errno.EAGAIN) return 0;
      throw new Error(`sendmmsg: errno ${-r}`);
    }
    this.#sent += r;
    if (this.#sent === this.#count) {
      this.#sent = 0;
      this.#count = 0;
    }
    return r;
  }

  /** Read the frames of the engine. @returns their number */
  drain(onFrame: (u8: Uint8Array, at: number, bytes: number) => void): number {
    const n = recvmmsg(this.#fd, this.#inMsgs.address, OUT_BATCH, MSG_DONTWAIT);
    for (let i = 0; i < n; i++)
      onFrame(this.#in.u8, i * ROOM, this.#inMsgs.u32[i * MMSGHDR_WORDS + MMSGHDR_LEN_WORD]!);
    return n < 0 ? 0 : n;
  }
}

interface Slots {
  readonly smallSlots: SlotStack;
  readonly largeSlots: SlotStack;
}

/** The stages that one thread runs: those of a lane, or all. */
interface Lane {
  readonly reader: TapReader;
  readonly shards: readonly Shard[];
  readonly host: DrainingHost;
  /** null: there is one lane. */
  readonly mover: FlowMover | null;
}

/** An egress policy that permits most: with it there are refusals too. */
const SOME_DENIED = {
  policy: compileEgress(
    joinPolicy([], parsePolicyText('deny any any 1-52\ndeny icmp internet\ndefault allow', 'test')),
  ),
  names: new SharedArrayBuffer(EGRESS_NAMES_BYTES),
};

export class HostilePath {
  /** The guest's end of each queue. */
  readonly guests: readonly GuestEnd[];
  readonly hosts: readonly DrainingHost[];
  readonly counters = new Float64Array(COUNTER_WORDS);
  readonly plan: TapEnginePlan;
  readonly logs = new Map<string, number>();
  now: number;
  framesToGuest = 0;
  bucketsGiven = 0;
  flowsChecked = 0;
  #checks = 0;
  /** Lanes whose flow mover has a request. */
  readonly #asked = new Set<number>();
  readonly #moved = new Map<number, MovedSocket>();
  readonly #lanes: readonly Lane[];
  readonly #laneOf = new Uint16Array(BUCKETS + 1);
  readonly #prng: Prng;
  readonly #oldTable: number;
  readonly #give: number;
  readonly #readerSlots: readonly Slots[];
  readonly #hostSlots: readonly Slots[];
  readonly #fds: readonly (readonly [engine: number, guest: number])[];
  readonly #onFrame: (u8: Uint8Array, at: number, bytes: number) => void;
  readonly #keep: unknown;

  constructor(o: PathOptions) {
    const vnet = o.vnet ?? true;
    this.#prng = o.prng;
    this.#oldTable = o.oldTable ?? 0;
    this.#give = o.give ?? 0;
    const queues = o.threads.kind === 'lanes' ? o.threads.lanes : 1;
    this.#fds = Array.from({ length: queues }, tapPair);
    this.guests = this.#fds.map(([, guest]) => new GuestEnd(guest));
    const [tap, ...moreQueues] = this.#fds.map(([engine]) => engine);
    this.plan = {
      threads: o.threads,
      addresses: PLAN_ADDRESSES,
      policy: {
        ...DEFAULT_POLICY,
        udpTimeoutMs: 300,
        udpStreamTimeoutMs: 600,
        pingTimeoutMs: 300,
        dhcp: o.dhcp ?? true,
        ra: true,
        connectFailure: 'honest',
        ...(o.multicast && { multicast: { all: true, groups: [], maxGroups: 20 } }),
      },
      listeners: [],
      pool: { smallSlots: 2048 * queues, largeSlots: 256 * queues, flows: 512 },
      tap: { fd: tap!, moreQueues, vnetHdrBytes: vnet ? 12 : 0, uso: true },
      hashKey: [0x1234, 0x5678],
      isnKey: [3, 4, 5, 6],
      debugOwnership: true,
      logLevel: 'warning',
      ...(o.multicast && { egress: SOME_DENIED }),
    };
    const { sab, layout } = engineMemory(this.plan, { ringDescriptors: 2048, logBytes: 256 });
    this.#keep = sab;
    const ownerTables = {
      laneOf: this.#laneOf,
      publishedUdp: new Uint16Array(PORTS),
      room: new Int32Array(ROOM_WORDS),
    };
    for (const port of PUBLISHED) ownerTables.publishedUdp[port] = 1;
    divideBuckets(this.#laneOf, queues);
    const assembly = new Assembly({ plan: this.plan, sab, layout, ownerTables });
    const log = (_level: string, text: string): void =>
      void this.logs.set(text, (this.logs.get(text) ?? 0) + 1);
    const guestMac = Uint8Array.of(2, 0, 0, 0, 0, 0x67);
    const tokens = { next: 0, open: new Set<number>() };
    const { counters, plan } = this;
    const readerParts = Array.from({ length: queues }, (_, r) => assembly.readerParts(r));
    const hostParts = Array.from({ length: queues }, (_, h) => assembly.hostParts(h));
    this.#readerSlots = readerParts;
    this.#hostSlots = hostParts;
    const onFatal = (text: string): never => {
      throw new Error(text);
    };
    const readers = readerParts.map(
      (parts) => new TapReader({ ...parts, plan, counters, notices: new Notices(() => {}), onFatal }),
    );
    // A shard starts its clock when it is created: at the same virtual time in every run, so that a seed
    // repeats a run.
    const clock = performance.now;
    performance.now = () => START_MS;
    const shards = Array.from({ length: assembly.threads.shards }, (_, s) =>
      assembly.shard(s, {
        ...{ counters, guestMac, notices: new Notices(log) },
        reader: queues > 1 ? readers[s] : undefined,
      }),
    );
    performance.now = clock;
    this.hosts = hostParts.map(
      (parts, lane) => new DrainingHost({ ...parts, plan, lane, tokens, prng: o.prng, moved: this.#moved }),
    );
    this.#lanes = readers.map((reader, i) => {
      const host = this.hosts[i]!;
      const hostIo = {
        poll: () => host.poll(),
        release: (flow: number, state: Uint32Array) => host.release(flow, state),
        get isBehind() {
          return host.isBehind;
        },
      };
      const mover =
        queues === 1
          ? null
          : new FlowMover({
              ...{ lane: i, shard: shards[i]!, hostIo, owners: assembly.owners },
              toShards: readerParts[i]!.toShards,
              onDone: () => this.#asked.delete(i),
            });
      return { reader, shards: queues > 1 ? [shards[i]!] : shards, host, mover };
    });
    this.#onFrame = (u8, at, bytes) => {
      this.framesToGuest++;
      o.onFrame(u8, at, bytes);
    };
    this.now = START_MS;
  }

  /** The guest's end of any queue. */
  get guest(): GuestEnd {
    return this.guests.length === 1 ? this.guests[0]! : this.#prng.pick(this.guests);
  }

  /** One round of all stages. */
  round(ms: number): number {
    this.now += ms;
    return this.#lanes.reduce((work, lane) => work + this.#run(lane), 0);
  }

  /** One round in which each of several lanes may run or not. */
  #unevenRound(ms: number): void {
    this.now += ms;
    const lanes = this.#lanes;
    lanes.forEach((lane, i) => {
      if (lanes.length > 1 && this.#prng.chance(this.#give)) this.#giveBuckets(i);
      if (lanes.length === 1 || !this.#prng.chance(LATE)) this.#run(lane);
    });
  }

  #run({ reader, shards, host, mover }: Lane): number {
    reader.onReadable();
    const isOld = this.#lanes.length > 1 && this.#prng.chance(this.#oldTable);
    if (isOld) this.#turn(1);
    let work = reader.poll(this.now);
    if (isOld) this.#turn(-1);
    for (const shard of shards) work += shard.poll(this.now);
    work += host.poll();
    mover?.poll(this.now);
    for (const shard of shards) work += shard.poll(this.now);
    for (const guest of this.guests) while (guest.drain(this.#onFrame) === OUT_BATCH);
    return work;
  }

  #giveBuckets(lane: number): void {
    const others = this.#lanes.map((_, i) => i).filter((i) => i !== lane);
    const before = this.#laneOf.slice();
    const share = this.#prng.pick([0.1, 0.5, 1]);
    if (this.#prng.chance(0.5)) this.#lanes[lane]!.shards[0]!.giveBuckets(others, share);
    else if (!this.#asked.has(lane)) {
      this.#asked.add(lane);
      this.#lanes[lane]!.mover!.give({ to: others, share }, this.now);
    }
    for (let b = 0; b < BUCKETS; b++) if (before[b] !== this.#laneOf[b]) this.bucketsGiven++;
    if (this.#checks++ % CHECK_EVERY === 0) this.checkFlows();
  }

  /** @throws Error when two shards have a flow with the same addresses and ports */
  checkFlows(): void {
    const seen = new Map<string, number>();
    this.#lanes.forEach(({ shards: [shard] }, lane) => {
      for (let from = 0; from >= 0; ) {
        const { rows, next } = flowPage(shard!, from, MAX_PAGE_FLOWS);
        from = next;
        for (let at = 0; at < rows.length; at += FLOW_FIELDS) {
          const key = [
            rows[at + FlowField.proto],
            ...rows.subarray(at + FlowField.guestAddress, at + FlowField.remotePort + 1),
          ].join(' ');
          const other = seen.get(key);
          if (other !== undefined) throw new Error(`flow ${key} is lane ${lane}'s and lane ${other}'s`);
          seen.set(key, lane);
        }
      }
    });
    this.flowsChecked += seen.size;
  }

  /** Each lane has the buckets of the one before it. */
  #turn(by: number): void {
    const lanes = this.#lanes.length;
    for (let b = 0; b < BUCKETS; b++) {
      const entry = this.#laneOf[b]!;
      // The high byte says where the bucket is moving to.
      this.#laneOf[b] = (entry & 0xff00) | (((entry & 0xff) + lanes + by) % lanes);
    }
  }

  /** Run rounds until no stage has work. */
  settle(ms = 0): void {
    for (let i = 0; i < 10_000; i++) if (this.round(i === 0 ? ms : 0) === 0) return;
    throw new Error('the path does not become idle');
  }

  /** Send the guest's batches, with rounds of the path in between. */
  feed(ms: number): void {
    for (let i = 0; this.guests.some(({ pending }) => pending > 0); i++) {
      for (const guest of this.guests) guest.flush();
      this.#unevenRound(i === 0 ? ms : 1);
      if (i > 100_000) throw new Error('the path takes no more frames');
    }
  }

  get dropped(): number {
    let n = 0;
    for (let cause = 1; cause <= DROP_MAX; cause++) n += this.counters[DROP_BASE + cause]!;
    return n;
  }

  drops(): Record<string, number> {
    const named: Record<string, number> = {};
    for (let cause = 1; cause <= DROP_MAX; cause++) {
      const n = this.counters[DROP_BASE + cause]!;
      const name = dropName(-cause);
      if (n > 0) named[name === 'unknown' ? stageDropName(-cause) : name] = n;
    }
    return named;
  }

  /**
   * The sum of all effects of frames: it grows with every frame that was counted or answered.
   */
  get effects(): number {
    const c = this.counters;
    return (
      this.dropped +
      this.framesToGuest +
      this.hosts.reduce((n, { messages }) => n + messages, 0) +
      c[Counter.handOverFull]! +
      c[Counter.fragmentsDropped]! +
      c[Counter.fragmentsReassembled]! +
      c[Counter.flowTableFull]! +
      c[Counter.groupReports]! +
      c[Counter.discoveryUnanswered]! +
      c[Counter.linkLocalDatagrams]!
    );
  }

  /** Advance the clock by hours without input: every flow ends, every slot is freed. */
  windDown(): void {
    for (const host of this.hosts) host.quiet = true;
    // Small steps first, for the retransmission timers; then the two hours of the keep-alive.
    for (let i = 0; i < 4000; i++) this.settle(500);
    for (let i = 0; i < 300; i++) this.settle(60_000);
  }

  leftovers(): Record<string, number> {
    const taken = (all: readonly Slots[], kind: keyof Slots, ready: number): number =>
      all.reduce((n, { [kind]: stack }) => n + Math.max(0, stack.capacity - stack.free - ready), 0);
    return {
      // One pair of slots is always ready for the next read.
      readerSmall: taken(this.#readerSlots, 'smallSlots', 1),
      readerLarge: taken(this.#readerSlots, 'largeSlots', 1),
      hostSmall: taken(this.#hostSlots, 'smallSlots', 0),
      hostLarge: taken(this.#hostSlots, 'largeSlots', 0),
      sockets: this.hosts.reduce((n, { open }) => n + open, this.#moved.size),
      tcp:
        this.counters[Counter.tcpOpened]! +
        this.counters[Counter.tcpAccepted]! -
        this.counters[Counter.tcpClosed]!,
    };
  }

  close(): void {
    for (const fd of this.#fds.flat()) close(fd);
    void this.#keep;
  }
}
