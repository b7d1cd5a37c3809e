/**
 * The packet path in one process and one thread, with a socket pair in place of the TAP:
 *
 *   frames ─ sendmmsg ─▶ TapReader ─▶ Shard(s) ─▶ DrainingHost
 *   checked ◀─ recvmmsg ─────────────┘
 *
 * Ownership of slots is checked at each hand-over. The stages have virtual time: poll(now).
 */

import { dropName } from '../../src/proto/drop.ts';
import { COUNTER_WORDS, Counter, DROP_BASE, DROP_MAX } from '../../src/ring/counters.ts';
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
import { DEFAULT_POLICY, type TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { stageDropName } from '../../src/workers/link/stage-drop.ts';
import { TapReader } from '../../src/workers/tap/tap-reader.ts';
import { Notices } from '../../src/workers/thread/notices.ts';
import type { Shard } from '../../src/workers/translator/shard.ts';
import type { Prng } from '../support/netsim/prng.ts';
import { PLAN_ADDRESSES } from './corpus.ts';
import { DrainingHost } from './draining-host.ts';

const BATCH = 16;
const ROOM = 69_632;
const OUT_BATCH = 64;
const START_MS = 100_000;

export interface PathOptions {
  readonly shards: number;
  readonly prng: Prng;
  readonly vnet?: boolean;
  readonly dhcp?: boolean;
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

export class HostilePath {
  readonly guest: GuestEnd;
  readonly host: DrainingHost;
  readonly counters = new Float64Array(COUNTER_WORDS);
  readonly plan: TapEnginePlan;
  readonly logs = new Map<string, number>();
  now: number;
  framesToGuest = 0;
  readonly #reader: TapReader;
  readonly #shards: Shard[] = [];
  readonly #readerSmall: SlotStack;
  readonly #readerLarge: SlotStack;
  readonly #hostSmall: SlotStack;
  readonly #hostLarge: SlotStack;
  readonly #fds: readonly [number, number];
  readonly #onFrame: (u8: Uint8Array, at: number, bytes: number) => void;
  readonly #keep: unknown;

  constructor(o: PathOptions) {
    const vnet = o.vnet ?? true;
    this.#fds = tapPair();
    this.guest = new GuestEnd(this.#fds[1]);
    const smallSlots = 2048;
    const largeSlots = 256;
    this.plan = {
      threads: o.shards === 1 ? { kind: 'fused' } : { kind: 'pipeline', shards: o.shards },
      addresses: PLAN_ADDRESSES,
      policy: {
        ...DEFAULT_POLICY,
        udpTimeoutMs: 300,
        udpStreamTimeoutMs: 600,
        pingTimeoutMs: 300,
        dhcp: o.dhcp ?? true,
        ra: true,
        connectFailure: 'honest',
      },
      listeners: [],
      pool: { smallSlots, largeSlots, flows: 512 },
      tap: { fd: this.#fds[0], vnetHdrBytes: vnet ? 12 : 0, uso: true },
      hashKey: [0x1234, 0x5678],
      isnKey: [3, 4, 5, 6],
      debugOwnership: true,
      logLevel: 'warning',
    };
    const { sab, layout } = engineMemory(this.plan, { ringDescriptors: 2048, logBytes: 256 });
    this.#keep = sab;
    const assembly = new Assembly({ plan: this.plan, sab, layout });
    const readerParts = assembly.readerParts();
    this.#readerSmall = readerParts.smallSlots;
    this.#readerLarge = readerParts.largeSlots;
    const hostParts = assembly.hostParts();
    this.#hostSmall = hostParts.smallSlots;
    this.#hostLarge = hostParts.largeSlots;
    const log = (_level: string, text: string): void =>
      void this.logs.set(text, (this.logs.get(text) ?? 0) + 1);
    this.#reader = new TapReader({
      ...readerParts,
      plan: this.plan,
      counters: this.counters,
      notices: new Notices(() => {}),
      onFatal: (text) => {
        throw new Error(text);
      },
    });
    const guestMac = Uint8Array.of(2, 0, 0, 0, 0, 0x67);
    // A shard starts its clock when it is created: at the same virtual time in every run, so that a seed
    // repeats a run.
    const clock = performance.now;
    performance.now = () => START_MS;
    for (let shard = 0; shard < o.shards; shard++)
      this.#shards.push(
        assembly.shard(shard, { counters: this.counters, guestMac, notices: new Notices(log) }),
      );
    performance.now = clock;
    this.host = new DrainingHost({ ...hostParts, plan: this.plan, prng: o.prng });
    this.#onFrame = (u8, at, bytes) => {
      this.framesToGuest++;
      o.onFrame(u8, at, bytes);
    };
    this.now = START_MS;
  }

  /** One round of all stages. */
  round(ms: number): number {
    this.now += ms;
    this.#reader.onReadable();
    let work = this.#reader.poll(this.now);
    for (const shard of this.#shards) work += shard.poll(this.now);
    work += this.host.poll();
    for (const shard of this.#shards) work += shard.poll(this.now);
    while (this.guest.drain(this.#onFrame) === OUT_BATCH);
    return work;
  }

  /** Run rounds until no stage has work. */
  settle(ms = 0): void {
    for (let i = 0; i < 10_000; i++) if (this.round(i === 0 ? ms : 0) === 0) return;
    throw new Error('the path does not become idle');
  }

  /** Send the guest's batch, with rounds of the path in between. */
  feed(ms: number): void {
    for (let i = 0; this.guest.pending > 0; i++) {
      this.guest.flush();
      this.round(i === 0 ? ms : 1);
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
      this.host.messages +
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
    this.host.quiet = true;
    // Small steps first, for the retransmission timers; then the two hours of the keep-alive.
    for (let i = 0; i < 4000; i++) this.settle(500);
    for (let i = 0; i < 300; i++) this.settle(60_000);
  }

  leftovers(): Record<string, number> {
    return {
      // One pair of slots is always ready for the next read.
      readerSmall: Math.max(0, this.#readerSmall.capacity - this.#readerSmall.free - 1),
      readerLarge: Math.max(0, this.#readerLarge.capacity - this.#readerLarge.free - 1),
      hostSmall: this.#hostSmall.capacity - this.#hostSmall.free,
      hostLarge: this.#hostLarge.capacity - this.#hostLarge.free,
      sockets: this.host.open,
      tcp:
        this.counters[Counter.tcpOpened]! +
        this.counters[Counter.tcpAccepted]! -
        this.counters[Counter.tcpClosed]!,
    };
  }

  close(): void {
    for (const fd of this.#fds) close(fd);
    void this.#keep;
  }
}
