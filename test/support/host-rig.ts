/**
 * The datagram sockets of host-io with real host sockets on loopback, driven by hand: commands go in as the ring would bring them, epoll is
 * asked by pump(), and messages to the shard come out as an array.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { addressParse } from '../../src/proto/address.ts';
import { NO_SLOT } from '../../src/ring/pool.ts';
import { EPOLLET } from '../../src/sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollWait } from '../../src/sys/epoll.ts';
import { close } from '../../src/sys/io.ts';
import { DescriptorShortage } from '../../src/workers/descriptor-shortage.ts';
import type { TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { shardOf } from '../../src/workers/flow-hash.ts';
import type { HostContext } from '../../src/workers/host-io/context.ts';
import { DatagramSockets } from '../../src/workers/host-io/datagram.ts';
import { ToHost, W } from '../../src/workers/messages.ts';
import { Addressing } from '../../src/workers/translator/addressing.ts';
import { type Message, ShardRig } from './shard-rig.ts';

export class HostRig {
  readonly shard: ShardRig;
  readonly sockets: DatagramSockets;
  readonly ctx: HostContext;
  readonly ready: number[] = [];
  /** Counters of the host-io thread. */
  readonly counters: Float64Array;
  readonly datagramPorts = new Uint8Array(65536);
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
      shardOfHash: (hash) => shardOf(hash, 1),
      shardLink: () => shard.fromHost.producer,
      freeReaderSlots: (a, b) => shard.ctx.freeReaderSlots(a, b),
      watch: (fd, gid, events) => epollAdd(this.#epoll, fd, (events | EPOLLET) >>> 0, gid, 0),
      markReady: (gid) => {
        if (!this.ready.includes(gid)) this.ready.push(gid);
      },
      now: 0,
      notices: shard.ctx.notices,
    };
    this.sockets = new DatagramSockets(
      this.ctx,
      new Addressing(shard.plan.addresses, shard.plan.policy),
      flows + shard.plan.listeners.length,
    );
  }

  /** One round: events, then what was marked ready. Messages stay in the ring until takeMessages(). */
  poll(): number {
    const n = epollWait(this.#epoll, this.#events, 0);
    for (let i = 0; i < n; i++) this.sockets.onEvents(this.#events.dataLo(i), this.#events.eventsOf(i));
    const ready = this.ready.splice(0);
    for (const gid of ready) this.sockets.onReady(gid);
    return Math.max(n, 0) + ready.length;
  }

  takeMessages(): Message[] {
    const { producer, consumer } = this.shard.fromHost;
    const messages: Message[] = [];
    producer.flush();
    for (let n = consumer.available(); n > 0; n = consumer.available()) {
      for (let i = 0; i < n; i++) messages.push(consumer.words.slice(consumer.at(i), consumer.at(i) + 16));
      consumer.release(n);
      producer.flush();
    }
    return messages;
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

  command(op: number, gid: number, fill: (m: Message) => void = () => {}): void {
    const m = new Uint32Array(16);
    m[W.op] = op;
    m[W.flow] = gid;
    m[W.slotA] = NO_SLOT;
    m[W.slotB] = NO_SLOT;
    fill(m);
    this.sockets.command(op, m, 0, gid);
  }

  /** @param guest  address of the guest's; its port is `localPort` */
  openUdp(
    gid: number,
    address: string,
    port: number,
    localPort = 0,
    mayBeMany = 0,
    guest = address.includes(':') ? 'fd00::15' : '10.0.2.15',
  ): void {
    this.command(ToHost.openUdp, gid, (m) => {
      addressParse(address, m, W.addr);
      m[W.ports] = ((port << 16) | localPort) >>> 0;
      m[W.arg0] = mayBeMany;
      const words = new Uint32Array(4);
      addressParse(guest, words, 0);
      m[W.arg1] = words[0]!;
      m.set(words.subarray(1), W.arg2);
    });
  }

  /** Put a payload into reader's slots, as a frame of the guest's would hold it, at an odd place. */
  send(
    gid: number,
    payload: Uint8Array,
    fill: (m: Message) => void = () => {},
    op: number = ToHost.sendDatagram,
  ): void {
    const { shard } = this;
    this.command(op, gid, (m) => {
      const at = 55;
      const room = 2048 - at;
      m[W.slotA] = shard.small.pop();
      shard.u8.set(payload.subarray(0, room), shard.pool.slotAt(m[W.slotA]!) + at);
      if (payload.length > room) {
        m[W.slotB] = shard.large.pop();
        shard.u8.set(payload.subarray(room), shard.pool.slotAt(m[W.slotB]!));
      }
      m[W.at] = at;
      m[W.len] = payload.length;
      fill(m);
    });
  }

  /** Free what a datagram message brought. */
  free(m: Message): void {
    this.shard.ctx.freeHostSlots(m[W.slotA]!, m[W.slotB]!);
  }

  close(): void {
    this.sockets.closeAll();
    close(this.#epoll);
  }
}
