/**
 * The host-io stage: the only stage that uses the host's sockets, except for splice. It carries out the
 * shards' commands (link/to-host.ts) and reports data and events of sockets to them (link/to-shard.ts). A
 * table by token (gid or SocketId) names the module that a socket belongs to.
 */
import { Counter } from '../../ring/counters.ts';
import { type FramePool, NO_SLOT, type Ownership, type SlotStack } from '../../ring/pool.ts';
import type { RingConsumer, RingProducer } from '../../ring/spsc.ts';
import { Errno } from '../../sys/constants.ts';
import type { EnginePlan, HostChange, ListenerPlan } from '../engine-plan.ts';
import { Addressing } from '../flow/addressing.ts';
import type { FlowOwners } from '../flow/flow-owner.ts';
import { groupRulesOf } from '../flow/group-rules.ts';
import { SocketNames } from '../flow/socket-names.ts';
import { linkFlow, linkOp, linkSlotA, linkSlotB } from '../link/descriptor.ts';
import type { LoopbackPath } from '../link/loopback.ts';
import type { ReaderReturns } from '../link/reader-returns.ts';
import { Owner } from '../link/slot-owner.ts';
import { acceptedSocket, ToHost, takeOverStateAt } from '../link/to-host.ts';
import { ListenerTable, type ListenFailure, listenerCount } from '../listen/listener-table.ts';
import { DescriptorShortage } from '../thread/descriptor-shortage.ts';
import type { Notices } from '../thread/notices.ts';
import type { Carried, Stage } from '../thread/stage.ts';
import type { HostContext } from './context.ts';
import { DatagramSockets } from './datagram/sockets.ts';
import { GROUP_SOCKETS, GroupSockets } from './group-sockets.ts';
import { StreamSockets } from './stream/sockets.ts';

/** `loopback`: a listener inside the guest's namespace, which belongs to the splice stage (LoopbackPath). */
const Module = { none: 0, stream: 1, datagram: 2, loopback: 3, group: 4 } as const;

export interface HostIoOptions {
  readonly plan: EnginePlan;
  readonly pool: FramePool;
  readonly ownership: Ownership;
  readonly counters: Float64Array;
  readonly smallSlots: SlotStack;
  readonly largeSlots: SlotStack;
  /** To and from the shards whose sockets the stage has. */
  readonly toShards: readonly RingProducer[];
  readonly fromShards: readonly RingConsumer[];
  /** By shard, for accepted connections: toShards or, in the first of several lanes, links to all shards. */
  readonly acceptedTo: readonly RingProducer[];
  readonly toReaders: ReaderReturns;
  readonly owners: FlowOwners;
  /** It has the published ports. */
  readonly listens: boolean;
  /** Addressing.seen, shared with the shards. */
  readonly seen?: Uint32Array | undefined;
  readonly loopback?: LoopbackPath | undefined;
  /** HostContext.datagramPorts and publishedUdp. */
  readonly datagramPorts?: Uint8Array | undefined;
  readonly publishedUdp?: Uint16Array | undefined;
  watch(fd: number, gid: number, events: number): number;
  unwatch(fd: number): number;
  readonly notices: Notices;
}

export class HostIo implements Stage {
  readonly name = 'host-io';
  readonly #o: HostIoOptions;
  readonly #ctx: HostContext;
  readonly #addressing: Addressing;
  readonly #streams: StreamSockets;
  readonly #datagrams: DatagramSockets;
  /** Null without multicast, and in all lanes but the first. */
  readonly #groups: GroupSockets | null;
  /** By token: a value of Module. */
  readonly #module: Uint8Array;
  readonly #flows: number;
  /** All links to shards. */
  readonly #links: readonly RingProducer[];
  readonly #listenerBase: number;
  readonly #listeners: ListenerTable;
  // Sockets with more to read than a round allowed. Two lists: a socket that is marked while one list is
  // worked off waits for the next round.
  #ready: Int32Array;
  #readyNext: Int32Array;
  #readyCount = 0;
  readonly #marked: Uint8Array;

  constructor(options: HostIoOptions) {
    this.#o = options;
    const shards = options.toShards.length;
    this.#flows = options.plan.pool.flows;
    this.#listenerBase = shards * this.#flows;
    const { listeners, listenerCapacity = listenerCount(listeners) } = options.plan;
    const capacity = options.listens ? listenerCapacity : 0;
    const gids = this.#listenerBase + capacity;
    const sids = DatagramSockets.sids(this.#listenerBase, gids);
    const hasGroups = options.listens && options.plan.tap !== undefined;
    const rules = hasGroups ? groupRulesOf(options.plan) : null;
    const tokens = sids + (rules === null ? 0 : GROUP_SOCKETS);
    this.#module = new Uint8Array(tokens);
    // Behind flows and listeners: the sockets that flows share, then those of multicast groups.
    this.#module.fill(Module.datagram, gids, sids);
    this.#module.fill(Module.group, sids);
    this.#marked = new Uint8Array(tokens);
    this.#ready = new Int32Array(tokens);
    this.#readyNext = new Int32Array(tokens);
    const { toShards, acceptedTo, toReaders, owners, ownership, pool } = options;
    this.#links = [...new Set([...toShards, ...acceptedTo])];
    const flows = this.#flows;
    this.#ctx = {
      plan: options.plan,
      pool,
      u8: pool.u8,
      counters: options.counters,
      smallSlots: options.smallSlots,
      largeSlots: options.largeSlots,
      flowsPerShard: flows,
      listenerBase: this.#listenerBase,
      shortage: new DescriptorShortage(options.counters, options.notices),
      loopback: options.loopback,
      datagramPorts: options.datagramPorts,
      publishedUdp: options.publishedUdp,
      toShard: shards === 1 ? () => toShards[0]! : (gid) => toShards[Math.floor(gid / flows)]!,
      streamShard: (hash) => acceptedTo[owners.ofHash(hash)]!,
      areLanes: owners.areLanes,
      datagramShard: shards === 1 ? () => toShards[0]! : (hash) => toShards[owners.ofHash(hash)]!,
      freeReaderSlots: (slotA, slotB) => {
        ownership.check(slotA, Owner.inFlight);
        ownership.check(slotB, Owner.inFlight);
        toReaders.free(slotA, slotB);
      },
      watch: options.watch,
      unwatch: options.unwatch,
      markReady: (gid) => this.#markReady(gid),
      names: null,
      now: 0,
      notices: options.notices,
    };
    const addressing = new Addressing(options.plan.addresses, options.plan.policy, options.seen);
    this.#addressing = addressing;
    this.#streams = new StreamSockets(this.#ctx, addressing, this.#listenerBase, capacity);
    this.#groups = rules === null ? null : new GroupSockets(this.#ctx, rules, sids);
    this.#datagrams = new DatagramSockets(this.#ctx, addressing, gids, this.#groups);
    this.#listeners = new ListenerTable(
      {
        open: (id, plan, port) => this.#openListener(id, plan, port),
        close: (id) => this.#closeListener(id),
      },
      capacity,
    );
  }

  /**
   * Listen on the ports of these rules and no others.
   * @returns the ports that could not be opened; all others are open
   */
  listen(plans: readonly ListenerPlan[]): readonly ListenFailure[] {
    return this.#listeners.set(plans, Errno.EMFILE);
  }

  /** As ListenerTable.change(). */
  changeListeners(remove: readonly ListenerPlan[], add: readonly ListenerPlan[]): readonly ListenFailure[] {
    return this.#listeners.change(remove, add, Errno.EMFILE);
  }

  /** Ports of these rules are about to be bound by the first lane: DatagramSockets.shareWithListeners(). */
  shareWithListeners(plans: readonly ListenerPlan[]): void {
    this.#datagrams.shareWithListeners(plans);
  }

  /**
   * Give the socket of a TCP flow away: StreamSockets.release(). Called right after poll(), so that all commands
   * about the flow are carried out. Only in a lane, whose shard has the gids from 0 on.
   */
  release(flow: number, state: Uint32Array): boolean {
    return this.#module[flow] === Module.stream && this.#streams.release(flow, state, 0);
  }

  /**
   * Fill in what a report has of the host's socket of a TCP flow.
   * @param gid  of the flow
   */
  describe(gid: number, rows: Float64Array, at: number): void {
    if (this.#module[gid] === Module.stream) this.#streams.describe(gid, rows, at);
  }

  /**
   * Frames are captured from now on, or no longer.
   * @param names  memory of SocketNames, absent: no longer
   * @param firstShard  the first one whose sockets the stage has
   */
  setCapture(names: SharedArrayBuffer | undefined, firstShard: number): void {
    this.#ctx.names = names === undefined ? null : new SocketNames(names, firstShard * this.#flows);
  }

  /** The host's network has changed. */
  hostChanged(change: HostChange): void {
    this.#addressing.hostChanged(change);
    this.#streams.hostChanged(change);
    this.#groups?.hostChanged(change);
    this.#datagrams.hostChanged(change);
  }

  #openListener(id: number, plan: ListenerPlan, port: number): number {
    const { loopback } = this.#ctx;
    let r: number;
    let module: number;
    if (plan.from === 'guest') {
      module = Module.loopback;
      r = loopback === undefined ? -Errno.EOPNOTSUPP : loopback.openListener(id, plan, port);
    } else if (plan.proto === 'tcp') {
      module = Module.stream;
      r = this.#streams.listen(id, plan, port);
    } else {
      module = Module.datagram;
      r = this.#datagrams.listen(id, plan, port);
    }
    if (r >= 0) this.#module[this.#listenerBase + id] = module;
    return r;
  }

  #closeListener(id: number): void {
    const gid = this.#listenerBase + id;
    const module = this.#module[gid];
    this.#module[gid] = Module.none;
    if (module === Module.stream) this.#streams.unlisten(id);
    else if (module === Module.datagram) this.#datagrams.unlisten(id);
    else if (module === Module.loopback) this.#ctx.loopback?.closeListener(id);
  }

  #markReady(gid: number): void {
    if (this.#marked[gid]) return;
    this.#marked[gid] = 1;
    this.#ready[this.#readyCount++] = gid;
  }

  onEvents(gid: number, events: number): void {
    this.#ctx.now = performance.now();
    const module = this.#module[gid];
    if (module === Module.stream) this.#streams.onEvents(gid, events);
    else if (module === Module.datagram) this.#datagrams.onEvents(gid, events);
    else if (module === Module.group) this.#groups!.onEvents(gid);
  }

  hasInput(): boolean {
    if (this.#readyCount > 0) return true;
    for (let i = 0; i < this.#o.fromShards.length; i++)
      if (this.#o.fromShards[i]!.available() > 0) return true;
    for (let i = 0; i < this.#links.length; i++) if (this.#links[i]!.movable) return true;
    return this.#o.toReaders.movable;
  }

  /** Whether messages to shards wait for room in their rings. */
  get isBehind(): boolean {
    return this.#links.some((link) => link.overflowed > 0);
  }

  addCarried(sum: Carried): void {
    const { counters } = this.#ctx;
    sum.datagrams += counters[Counter.datagramsToHost]!;
    sum.streamBytes += counters[Counter.sockSendBytes]! + counters[Counter.sockPeekBytes]!;
  }

  sleepMs(now: number): number {
    return this.#readyCount > 0 ? 0 : this.#streams.sleepMs(now);
  }

  poll(now: number): number {
    this.#ctx.now = now;
    let work = 0;
    for (let shard = 0; shard < this.#o.fromShards.length; shard++) work += this.#commands(shard);
    this.#datagrams.flush();
    this.#datagrams.resume();
    this.#groups?.resume();
    const n = this.#readyCount;
    if (n > 0) {
      const list = this.#ready;
      this.#ready = this.#readyNext;
      this.#readyNext = list;
      this.#readyCount = 0;
      for (let i = 0; i < n; i++) {
        const gid = list[i]!;
        this.#marked[gid] = 0;
        if (this.#module[gid] === Module.stream) this.#streams.onReady(gid);
        else if (this.#module[gid] === Module.datagram) this.#datagrams.onReady(gid);
        else if (this.#module[gid] === Module.group) this.#groups!.onReady(gid);
      }
      work += n;
    }
    work += this.#streams.flush(now);
    let published = 0;
    for (let i = 0; i < this.#links.length; i++) if (this.#links[i]!.flush()) published++;
    this.#o.toReaders.flush();
    return work + published;
  }

  #commands(shard: number): number {
    const ring = this.#o.fromShards[shard]!;
    const count = ring.available();
    const words = ring.words;
    const base = shard * this.#flows;
    let work = 0;
    for (let i = 0; i < count; i++) {
      const at = ring.at(i);
      const op = linkOp(words, at);
      const gid = base + linkFlow(words, at);
      switch (op) {
        case ToHost.freeSlots:
          this.#freeOwn(linkSlotA(words, at));
          this.#freeOwn(linkSlotB(words, at));
          // Not counted as work: a socket that waits for slots is counted when it gets them, and one more
          // round without work costs latency.
          work--;
          break;
        case ToHost.openTcp:
          this.#module[gid] = Module.stream;
          this.#streams.command(op, words, at, gid);
          break;
        case ToHost.adopt:
          this.#module[gid] = Module.stream;
          this.#streams.adopt(gid, acceptedSocket(words, at));
          break;
        case ToHost.takeOver:
          this.#module[gid] = Module.stream;
          this.#streams.takeOver(gid, words, takeOverStateAt(at));
          break;
        case ToHost.refuse:
          this.#streams.refuse(acceptedSocket(words, at));
          break;
        case ToHost.openUdp:
        case ToHost.openPing:
        case ToHost.sendFromListener:
          if (op !== ToHost.sendFromListener) this.#module[gid] = Module.datagram;
          this.#datagrams.command(op, words, at, gid);
          break;
        case ToHost.group:
          this.#groups!.command(words, at);
          break;
        case ToHost.sendDatagram:
          this.#datagrams.command(op, words, at, gid);
          break;
        default:
          // close and reset are for both modules.
          if (this.#module[gid] === Module.datagram) this.#datagrams.command(op, words, at, gid);
          else this.#streams.command(op, words, at, gid);
      }
    }
    ring.release(count);
    return work + count;
  }

  /** How many of host-io's slots are not free. */
  get slotsUsed(): { readonly small: number; readonly large: number } {
    const { smallSlots, largeSlots } = this.#o;
    return { small: smallSlots.used, large: largeSlots.used };
  }

  /** A shard returns a slot of host-io. */
  #freeOwn(slot: number): void {
    if (slot === NO_SLOT) return;
    this.#o.ownership.check(slot, Owner.hostIo);
    if (this.#o.pool.isSmall(slot)) this.#o.smallSlots.push(slot);
    else this.#o.largeSlots.push(slot);
  }

  close(): void {
    this.#streams.closeAll();
    this.#datagrams.closeAll();
    this.#groups?.closeAll();
  }
}
