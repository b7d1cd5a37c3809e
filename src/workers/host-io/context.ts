/**
 * What the socket modules of the host-io stage share.
 *
 * A flow has a gid: shard * plan.pool.flows + flow, by which the modules' arrays are indexed. A listener's
 * gid is listenerBase + its number; UDP sockets that flows share are numbered behind those (SocketId).
 */
import type { FramePool, SlotStack } from '../../ring/pool.ts';
import type { RingProducer } from '../../ring/spsc.ts';
import type { EnginePlan } from '../engine-plan.ts';
import type { SocketNames } from '../flow/socket-names.ts';
import type { LoopbackPath } from '../link/loopback.ts';
import type { DescriptorShortage } from '../thread/descriptor-shortage.ts';
import type { Notices } from '../thread/notices.ts';

/**
 * A socket's number, "sid" in names: the gid of its only flow or of its listener, or a number behind all gids
 * for a socket that flows share (SocketTable). Branded where it stands beside the gid of a flow.
 */
export type SocketId = number & { readonly __id: 'socket' };

export interface HostContext {
  readonly plan: EnginePlan;
  readonly pool: FramePool;
  readonly u8: Uint8Array;
  readonly counters: Float64Array;
  /** Free slots of host-io, for received data; shards return them by ToHost.freeSlots. */
  readonly smallSlots: SlotStack;
  readonly largeSlots: SlotStack;
  readonly flowsPerShard: number;
  /** gid of listener 0: the number of flows of all shards. */
  readonly listenerBase: number;
  readonly shortage: DescriptorShortage;
  readonly loopback?: LoopbackPath | undefined;
  /**
   * By port: how many of our UDP sockets are bound to it and not connected. Shared memory, changed by host-io
   * stages only, with Atomics.
   */
  readonly datagramPorts?: Uint8Array | undefined;
  /**
   * By port of the guest: how many published UDP ports lead to it. Shared memory, changed by the first
   * host-io stage only, read by all readers (FlowOwners).
   */
  readonly publishedUdp?: Uint16Array | undefined;
  /** @returns the link to the shard that owns a gid */
  toShard(gid: number): RingProducer;
  /** @param hash  flowHash() of a TCP flow @returns the link to its shard, also where that has other sockets */
  streamShard(hash: number): RingProducer;
  /**
   * There are several lanes, each with sockets of its own. An accepted socket belongs to the lane that gets the
   * message about it; without lanes its shard answers this stage.
   */
  readonly areLanes: boolean;
  /** @param hash  flowHash() of a UDP flow of this stage's sockets @returns the link to its shard */
  datagramShard(hash: number): RingProducer;
  /** Return slots of the reader that came with a send. Each may be NO_SLOT. */
  freeReaderSlots(slotA: number, slotB: number): void;
  /**
   * Register a descriptor with the thread's epoll; events come to onEvents(token, events).
   * @param token  gid or SocketId
   * @param events  EPOLL* bits, EPOLLET among them
   * @returns 0 or -errno
   */
  watch(fd: number, token: number, events: number): number;
  /** Undo watch(). @returns 0 or -errno */
  unwatch(fd: number): number;
  /**
   * Put a socket with more to read than the round allowed on the ready list: onReady(token) is called in the
   * next round.
   */
  markReady(token: number): void;
  /** While frames are captured: where the addresses of flows' sockets go. */
  names: SocketNames | null;
  /** Monotonic milliseconds, set once per round. */
  now: number;
  readonly notices: Notices;
}

/** Sockets of one kind. The stage records the module of each socket and routes commands and events to it. */
export interface SocketModule {
  /** epoll reported these EPOLL* bits. @param token  as in HostContext.watch() */
  onEvents(token: number, events: number): void;
  /** The socket was marked ready: go on reading. @param token  as in HostContext.markReady() */
  onReady(token: number): void;
}
