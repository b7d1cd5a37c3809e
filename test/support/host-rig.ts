/**
 * The datagram sockets of host-io with real host sockets on loopback. A test calls the methods that the ring
 * and the reactor call otherwise: command() passes a command, poll() waits on epoll, and takeMessages()
 * returns the messages to the shard.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { addressParse } from '../../src/proto/address.ts';
import { NO_SLOT } from '../../src/ring/pool.ts';
import { EPOLLET } from '../../src/sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollDel, epollWait } from '../../src/sys/epoll.ts';
import { close } from '../../src/sys/io.ts';
import type { TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { Addressing } from '../../src/workers/flow/addressing.ts';
import { groupRulesOf } from '../../src/workers/flow/group-rules.ts';
import type { HostContext } from '../../src/workers/host-io/context.ts';
import { DatagramSockets } from '../../src/workers/host-io/datagram/sockets.ts';
import { GroupSockets } from '../../src/workers/host-io/group-sockets.ts';
import type { DescriptorOut } from '../../src/workers/link/descriptor.ts';
import { closeWrite, openUdpWrite, sendDatagramWrite } from '../../src/workers/link/to-host.ts';
import { DescriptorShortage } from '../../src/workers/thread/descriptor-shortage.ts';
import { flowOf, type Message, message, messageAt, opOf, slotAOf, slotBOf } from './message.ts';
import { ShardRig } from './shard-rig.ts';

export class HostRig {
  readonly shard: ShardRig;
  readonly sockets: DatagramSockets;
  /** Null for a plan without multicast. */
  readonly groups: GroupSockets | null;
  readonly ctx: HostContext;
  readonly ready: number[] = [];
  /** Counters of the host-io thread. */
  readonly counters: Float64Array;
  readonly datagramPorts = new Uint8Array(65536);
  readonly #groupBase: number;
  readonly #epoll = epollCreate();
  readonly #events = new EpollEvents(16);

  constructor(plan?: TapEnginePlan) {
    const shard = new ShardRig(plan);
    this.shard = shard;
    this.counters = shard.ctx.counters;
    const flows = shard.plan.pool.flows;
    this.ctx = {
      plan: shard.plan,
      pool: shard.pool,
      u8: shard.u8,
      counters: shard.ctx.counters,
      smallSlots: shard.hostSmall,
      largeSlots: shard.hostLarge,
      flowsPerShard: flows,
      listenerBase: flows,
      shortage: new DescriptorShortage(shard.ctx.counters, shard.ctx.notices),
      datagramPorts: this.datagramPorts,
      toShard: () => shard.fromHost.producer,
      streamShard: () => shard.fromHost.producer,
      areLanes: false,
      datagramShard: () => shard.fromHost.producer,
      freeReaderSlots: (a, b) => shard.ctx.freeReaderSlots(a, b),
      watch: (fd, gid, events) => epollAdd(this.#epoll, fd, (events | EPOLLET) >>> 0, gid, 0),
      unwatch: (fd) => epollDel(this.#epoll, fd),
      markReady: (gid) => {
        if (!this.ready.includes(gid)) this.ready.push(gid);
      },
      names: null,
      now: 0,
      notices: shard.ctx.notices,
    };
    const gids = flows + shard.plan.listeners.length;
    this.#groupBase = DatagramSockets.sids(flows, gids);
    const rules = groupRulesOf(shard.plan);
    this.groups = rules === null ? null : new GroupSockets(this.ctx, rules, this.#groupBase);
    const addressing = new Addressing(shard.plan.addresses, shard.plan.policy);
    this.sockets = new DatagramSockets(this.ctx, addressing, gids, this.groups);
  }

  /** One round: events, then what was marked ready. Messages stay in the ring until takeMessages(). */
  poll(): number {
    const n = epollWait(this.#epoll, this.#events, 0);
    for (let i = 0; i < n; i++) {
      const token = this.#events.dataLo(i);
      if (token >= this.#groupBase) this.groups!.onEvents(token);
      else this.sockets.onEvents(token, this.#events.eventsOf(i));
    }
    const ready = this.ready.splice(0);
    for (const gid of ready) (gid >= this.#groupBase ? this.groups! : this.sockets).onReady(gid);
    return Math.max(n, 0) + ready.length;
  }

  takeMessages(): Message[] {
    const { producer, consumer } = this.shard.fromHost;
    const messages: Message[] = [];
    producer.flush();
    for (let n = consumer.available(); n > 0; n = consumer.available()) {
      for (let i = 0; i < n; i++) messages.push(messageAt(consumer.words, consumer.at(i)));
      consumer.release(n);
      producer.flush();
    }
    return messages;
  }

  /** Poll until the condition holds, or fail after two seconds. Messages stay in the ring. */
  async until(holds: () => boolean): Promise<void> {
    for (let i = 0; i < 400 && !holds(); i++) {
      this.poll();
      if (!holds()) await sleep(5);
    }
    if (!holds()) throw new Error('the condition did not hold after 2 s');
  }

  /** Poll until `count` messages have come, or fail after two seconds. */
  async messages(count: number): Promise<Message[]> {
    const got: Message[] = [];
    for (let i = 0; i < 400 && got.length < count; i++) {
      this.poll();
      got.push(...this.takeMessages());
      if (got.length < count) await sleep(5);
    }
    if (got.length < count) throw new Error(`${got.length} of ${count} messages after 2 s`);
    return got;
  }

  /** Pass a command, as if it came from the ring: `host.command((out) => closeWrite(out, 1))`. */
  command(write: (out: DescriptorOut) => void): void {
    const m = message(write);
    this.sockets.command(opOf(m), m, 0, flowOf(m));
  }

  closeFlow(flow: number): void {
    this.command((out) => closeWrite(out, flow));
  }

  /** Open a UDP flow. @param guest  address of the guest; its port is `localPort` */
  openUdp(
    flow: number,
    address: string,
    port: number,
    localPort = 0,
    gro = false,
    guest = address.includes(':') ? 'fd00::15' : '10.0.2.15',
  ): void {
    const words = new Uint32Array(8);
    addressParse(address, words, 0);
    addressParse(guest, words, 4);
    const ports = ((port << 16) | localPort) >>> 0;
    this.command((out) => openUdpWrite(out, flow, ports, words, 0, words, 4, 0, gro));
  }

  /** Write a payload to slots of the reader, at an odd offset as in a frame of the guest. */
  payload(bytes: Uint8Array): { slotA: number; slotB: number; slotOffset: number } {
    const { shard } = this;
    const slotOffset = 55;
    const room = 2048 - slotOffset;
    const slotA = shard.small.pop();
    shard.u8.set(bytes.subarray(0, room), shard.pool.slotAt(slotA) + slotOffset);
    if (bytes.length <= room) return { slotA, slotB: NO_SLOT, slotOffset };
    const slotB = shard.large.pop();
    shard.u8.set(bytes.subarray(room), shard.pool.slotAt(slotB));
    return { slotA, slotB, slotOffset };
  }

  /** Send a datagram of the guest. @param options  as of sendOptions() */
  send(flow: number, bytes: Uint8Array, { options = 0, gsoSize = 0 } = {}): void {
    const { slotA, slotB, slotOffset } = this.payload(bytes);
    this.command((out) =>
      sendDatagramWrite(out, flow, slotA, slotB, slotOffset, bytes.length, options, gsoSize),
    );
  }

  /** Free the slots of a datagram message. */
  free(m: Message): void {
    this.shard.ctx.freeHostSlots(slotAOf(m), slotBOf(m));
  }

  close(): void {
    this.sockets.closeAll();
    this.groups?.closeAll();
    close(this.#epoll);
  }
}
