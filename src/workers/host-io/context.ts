/**
 * What the socket modules of the host-io stage share. A socket is named by its gid: shard * plan.pool.flows +
 * flow, so that every module is arrays indexed by gid; listeners have gids from `listenerBase` on, UDP
 * sockets that flows share behind those.
 */
import type { FramePool, SlotStack } from '../../ring/pool.ts';
import type { RingProducer } from '../../ring/spsc.ts';
import type { EnginePlan } from '../engine-plan.ts';
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
  /** Slots that host-io owns, for what it receives; shards give them back by ToHost.freeSlots. */
  readonly smallSlots: SlotStack;
  readonly largeSlots: SlotStack;
  readonly flowsPerShard: number;
  readonly listenerBase: number;
  readonly shortage: DescriptorShortage;
  readonly loopback?: LoopbackPath | undefined;
  /**
   * Per port: UDP sockets of ours on the host that are bound to it and not connected. Shared, written by
   * host-io alone.
   */
  readonly datagramPorts?: Uint8Array | undefined;
  /** Link to the shard that owns a gid. */
  toShard(gid: number): RingProducer;
  shardOfHash(hash: number): number;
  /** Link to a shard by number. */
  shardLink(shard: number): RingProducer;
  /** Slots that came from the reader with a send: back to it. Both may be NO_SLOT. */
  freeReaderSlots(slotA: number, slotB: number): void;
  /** Register a descriptor with the thread's epoll (edge-triggered); events come to onEvents(gid, events). */
  watch(fd: number, gid: number, events: number): number;
  /**
   * Put a gid on the ready list: its module's onReady(gid) runs in the next poll round (more to read than the
   * budget allowed).
   */
  markReady(gid: number): void;
  now: number;
  readonly notices: Notices;
}

/** Sockets of one kind. The stage routes commands and events by the kind it recorded for a gid. */
export interface SocketModule {
  /** epoll reported these EPOLL* bits. */
  onEvents(gid: number, events: number): void;
  /** The gid was marked ready: go on reading. */
  onReady(gid: number): void;
}
