/**
 * A HostIo stage with real host sockets on loopback. The test is the shard: it writes commands, and reads the
 * messages of host-io.
 */
import { setTimeout } from 'node:timers/promises';
import { expect } from 'vitest';
import { COUNTER_WORDS } from '../../src/ring/counters.ts';
import { type FramePool, NO_SLOT, type Ownership, type SlotStack } from '../../src/ring/pool.ts';
import type { RingConsumer, RingProducer } from '../../src/ring/spsc.ts';
import { EpollEvents, epollAdd, epollCreate, epollDel, epollWait } from '../../src/sys/epoll.ts';
import { close } from '../../src/sys/io.ts';
import { Assembly } from '../../src/workers/assembly.ts';
import { engineMemory } from '../../src/workers/engine-memory.ts';
import type { EnginePlan, ListenerPlan, ServicePolicy } from '../../src/workers/engine-plan.ts';
import { HOST_STATE_WORDS } from '../../src/workers/flow/flow-state.ts';
import { HostIo } from '../../src/workers/host-io/host-io.ts';
import type { DescriptorOut } from '../../src/workers/link/descriptor.ts';
import { Owner } from '../../src/workers/link/slot-owner.ts';
import {
  freeHostSlotsWrite,
  openTcpWrite,
  sendWrite,
  takeOverWrite,
} from '../../src/workers/link/to-host.ts';
import { dataOffset, sentBytes, sentFlags, sentFreed, toShardText } from '../../src/workers/link/to-shard.ts';
import type { SlotShares } from '../../src/workers/placement.ts';
import { Notices } from '../../src/workers/thread/notices.ts';
import { bytesOf, type Message, messageAt, opOf, slotAOf, slotBOf, slotOffsetOf } from './message.ts';
import { ADDRESSES, RIG_POLICY } from './netsim/engine.ts';

/** A message from host-io to the shard, with a copy of the payload in its slot. */
export interface HostMessage {
  readonly op: number;
  readonly m: Message;
  /** Payload of a data message; empty in others. */
  readonly bytes: Buffer;
}

/** Fields of a `sent` message: bytes that the socket took, slots freed, SentFlag bits. */
export const takenBytes = ({ m }: HostMessage): number => sentBytes(m, 0);
export const freedSlots = ({ m }: HostMessage): number => sentFreed(m, 0);
export const flagsOf = ({ m }: HostMessage): number => sentFlags(m, 0);
/** Offset of a data message in the stream from the host peer. */
export const offsetOf = ({ m }: HostMessage): number => dataOffset(m, 0);
export const sumOf = (list: readonly HostMessage[], value: (message: HostMessage) => number): number =>
  list.reduce((sum, message) => sum + value(message), 0);
export const lengthOf = ({ bytes }: HostMessage): number => bytes.length;

/** Small slots for the guest's bytes, large ones for the host's. */
const SHARES: SlotShares = {
  ...{ readerSmall: [[0, 192]], readerLarge: [[0, 0]], hostSmall: [[192, 64]], hostLarge: [[256, 16]] },
  ...{ scratchLarge: 0, dnsEach: 0, dnsLarge: 0 },
};

/** A HostIo stage, with the shard's ends of its rings. */
export class HostIoRig {
  readonly #pool: FramePool;
  readonly #ownership: Ownership;
  readonly #small: SlotStack;
  readonly #hostLarge: SlotStack;
  readonly #toHost: RingProducer;
  readonly #fromHost: RingConsumer;
  readonly #freed: RingConsumer;
  readonly #io: HostIo;
  readonly #ep = epollCreate();
  readonly #events = new EpollEvents(64);
  readonly #keep: unknown;
  readonly messages: HostMessage[] = [];
  readonly counters = new Float64Array(COUNTER_WORDS);
  /** Small slots with guest bytes that host-io has not freed. */
  slotsOut = 0;

  constructor(policy: Partial<ServicePolicy> = {}, listenerCapacity = 0) {
    const plan: EnginePlan = {
      threads: { kind: 'fused' },
      addresses: ADDRESSES,
      policy: { ...RIG_POLICY, ...policy },
      listeners: [],
      listenerCapacity,
      pool: { smallSlots: 256, largeSlots: 16, flows: 8 },
      tap: { fd: -1, vnetHdrBytes: 12, uso: false },
      hashKey: [1, 2],
      isnKey: [1, 2, 3, 4],
      debugOwnership: true,
      logLevel: 'error',
    };
    const { sab, layout } = engineMemory(plan, { ringDescriptors: 512, logBytes: 256 });
    this.#keep = sab;
    const assembly = new Assembly({ plan, sab, layout, shares: SHARES });
    const reader = assembly.readerParts();
    const shard = assembly.shardParts(0);
    const host = assembly.hostParts();
    this.#pool = assembly.pool;
    this.#ownership = assembly.ownership;
    this.#small = reader.smallSlots;
    this.#hostLarge = host.largeSlots;
    this.#toHost = shard.toHost;
    this.#fromHost = shard.fromHosts[0]!;
    this.#freed = reader.freed.at(-1)!;
    this.#io = new HostIo({
      ...host,
      plan,
      counters: this.counters,
      watch: (fd, gid, events) => epollAdd(this.#ep, fd, events, gid, 0),
      unwatch: (fd) => epollDel(this.#ep, fd),
      notices: new Notices(() => {}),
    });
  }

  /** Send a command as the shard does: `rig.command((out) => closeWrite(out, 3))`. */
  command(write: (out: DescriptorOut) => void): void {
    write(this.#toHost);
    this.#toHost.flush();
  }

  open(flow: number, port: number): void {
    const loopback = Uint32Array.of(0, 0, 0xffff, 0x7f000001);
    this.command((out) => openTcpWrite(out, flow, loopback, 0, port, 0));
  }

  listen(port: number): void {
    const plan: ListenerPlan = { proto: 'tcp', address: '127.0.0.1', port, targetPort: 80 };
    expect(this.#io.listen([plan])).toEqual([]);
  }

  /**
   * Send guest bytes in one small slot.
   * @param mark  0 for acknowledged bytes; for provisional bytes, 1 + the number of refusals so far
   */
  send(flow: number, bytes: Uint8Array, mark = 0): void {
    const slot = this.#small.pop();
    if (slot === NO_SLOT) throw new Error('no slot left');
    this.#ownership.claim(slot, Owner.reader, Owner.inFlight);
    this.#pool.u8.set(bytes, this.#pool.slotAt(slot) + 66);
    this.slotsOut++;
    this.command((out) => sendWrite(out, flow, slot, NO_SLOT, 66, bytes.length, mark));
  }

  freeData({ m }: HostMessage): void {
    this.command((out) => freeHostSlotsWrite(out, slotAOf(m), NO_SLOT));
  }

  get hostSlotsOut(): number {
    return this.#hostLarge.capacity - this.#hostLarge.free;
  }

  /**
   * Give the socket of a flow away, as the flow mover does.
   * @returns its state for takeOver(), or undefined: it stays
   */
  release(flow: number): Uint32Array | undefined {
    this.poll();
    const state = new Uint32Array(HOST_STATE_WORDS);
    return this.#io.release(flow, state) ? state : undefined;
  }

  takeOver(flow: number, state: Uint32Array): void {
    this.command((out) => takeOverWrite(out, flow, state));
  }

  /** One round of the stage without epoll_wait; nothing else in this process runs meanwhile. */
  poll(): void {
    this.#io.poll(performance.now());
    this.#take();
  }

  /** Run the stage and the event loop of this process, with its servers and clients, for `ms`. */
  async run(ms = 10): Promise<void> {
    const end = performance.now() + ms;
    do {
      const n = epollWait(this.#ep, this.#events, 0);
      for (let i = 0; i < n; i++) this.#io.onEvents(this.#events.dataLo(i), this.#events.eventsOf(i));
      this.#io.poll(performance.now());
      this.#take();
      await setTimeout(1);
    } while (performance.now() < end);
  }

  /** run() until the condition holds; throws after about a second. */
  async until(holds: () => boolean): Promise<void> {
    for (let i = 0; i < 500 && !holds(); i++) await this.run(2);
    if (!holds()) throw new Error(`the condition never held; messages: ${this.texts().join('; ')}`);
  }

  #take(): void {
    const ring = this.#fromHost;
    for (let n = ring.available(), i = 0; i < n; i++) {
      const m = messageAt(ring.words, ring.at(i));
      const at = slotAOf(m) === NO_SLOT ? -1 : this.#pool.slotAt(slotAOf(m)) + slotOffsetOf(m);
      const bytes = at < 0 ? Buffer.alloc(0) : Buffer.from(this.#pool.u8.slice(at, at + bytesOf(m)));
      this.messages.push({ op: opOf(m), m, bytes });
      if (i === n - 1) ring.release(n);
    }
    for (let n = this.#freed.available(), i = 0; i < n; i++) {
      const m = messageAt(this.#freed.words, this.#freed.at(i));
      for (const slot of [slotAOf(m), slotBOf(m)]) {
        if (slot === NO_SLOT) continue;
        this.#ownership.claim(slot, Owner.inFlight, Owner.reader);
        this.#small.push(slot);
        this.slotsOut--;
      }
      if (i === n - 1) this.#freed.release(n);
    }
  }

  /** Messages of one kind so far: an op of ToShard. */
  of(op: number): HostMessage[] {
    return this.messages.filter((m) => m.op === op);
  }

  /** All messages so far, one line each. */
  texts(): string[] {
    return this.messages.map(({ m }) => toShardText(m));
  }

  close(): void {
    this.#io.close();
    close(this.#ep);
    void this.#keep;
  }
}
