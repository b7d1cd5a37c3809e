/**
 * What all protocol modules of a shard share. One object per shard, built by shard.ts; modules keep a
 * reference and do not add state to it.
 */
import type { Pref64 } from '../../proto/ndp.ts';
import type { FramePool } from '../../ring/pool.ts';
import type { RingProducer } from '../../ring/spsc.ts';
import type { EnginePlan } from '../engine-plan.ts';
import type { Addressing } from '../flow/addressing.ts';
import type { Egress } from '../flow/egress.ts';
import type { FlowOwners } from '../flow/flow-owner.ts';
import type { GroupRules } from '../flow/group-rules.ts';
import type { ShardFlows } from '../flow/shard-flows.ts';
import type { TimerWheel } from '../flow/timer-wheel.ts';
import type { GuestLink } from '../tap/guest-link.ts';
import type { GuestNeighbours } from '../tap/guest-neighbours.ts';
import type { Notices } from '../thread/notices.ts';

/** How many timers a flow has; a timer's id is flow * TIMER_KINDS + TimerKind. */
export const TIMER_KINDS = 2;
export const TimerKind = { retransmit: 0, idle: 1 } as const;

/** Shared by the protocol modules of one shard. */
export interface ShardContext {
  readonly shard: number;
  readonly plan: EnginePlan;
  readonly addressing: Addressing;
  readonly pool: FramePool;
  /** The frame pool's memory: the `pool` argument of all codec calls. */
  readonly u8: Uint8Array;
  readonly counters: Float64Array;
  readonly flows: ShardFlows;
  readonly owners: FlowOwners;
  /** Null: multicast and broadcast are not carried. */
  readonly groups: GroupRules | null;
  readonly egress: Egress;
  readonly timers: TimerWheel;
  readonly toHost: RingProducer;
  readonly guest: GuestLink;
  /** Which MAC has which of the guest's addresses. */
  readonly neighbours: GuestNeighbours;
  /** NAT64 prefixes that router advertisements offer. */
  pref64: readonly Pref64[];
  /** Monotonic milliseconds of this poll round. */
  now: number;
  /** Give a received frame's slots back to the reader; either or both may be NO_SLOT. */
  freeReaderSlots(slotA: number, slotB: number): void;
  /** Give host-io's slots back to host-io; either or both may be NO_SLOT. */
  freeHostSlots(slotA: number, slotB: number): void;
  /** Count a dropped packet by its cause, a `Drop` or `StageDrop` code below zero. */
  drop(cause: number): void;
  /** Large slots that hold DNS queries: the first one, how many. */
  readonly dnsSlots: readonly [number, number];
  /** Messages to the main thread's log. */
  readonly notices: Notices;
}
