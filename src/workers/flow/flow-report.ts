/**
 * Flows as the API's `list_flows` tells them, from the packet threads that own them to the main thread, a
 * page at a time. A thread looks at MAX_SCAN places and puts MAX_PAGE_FLOWS rows together at the most before
 * it goes on with packets; who wants more asks again.
 *
 *   section   0 .. shards-1   the shard's flows (TCP, UDP, ping), by flow id
 *             shards          TCP past the TAP (splice)
 *             shards + 1      UDP past the TAP
 *
 * A row is FLOW_FIELDS numbers, in the order of FlowField. Addresses are four u32 words, as everywhere.
 */
import { ADDR_WORDS, type FlowTable } from './flow-table.ts';

export const FlowField = {
  place: 0,
  /** IP protocol number. */
  proto: 1,
  state: 2,
  /** As seen inside. */
  guestAddress: 3,
  remoteAddress: 7,
  /** Ping flows: the echo identifier. */
  guestPort: 11,
  remotePort: 12,
  /**
   * Payload: what TCP has taken from the guest and what the guest has acknowledged; of UDP the datagrams', of
   * ping the ICMP messages'.
   */
  fromGuestBytes: 13,
  toGuestBytes: 14,
  ageMs: 15,
} as const;
export const FLOW_FIELDS = 16;

export const FlowState = {
  /** The host's socket connects. */
  connecting: 0,
  /** The guest has our SYN,ACK, or our SYN. */
  synReceived: 1,
  synSent: 2,
  established: 3,
  /** The guest has sent its FIN, or we have sent ours. */
  closeWait: 4,
  finWait: 5,
  /**
   * RFC 9293's CLOSED, though the flow is still here: host-io has not yet said that the host's socket is
   * closed.
   */
  closed: 6,
  /** Without and with an answer, from whichever side it has to come. */
  unreplied: 7,
  replied: 8,
} as const;
export type FlowState = (typeof FlowState)[keyof typeof FlowState];

/** By FlowState, in the words of RFC 9293 and of the kernel's connection tracking. */
export const FLOW_STATE_NAMES: readonly string[] = [
  'connecting',
  'syn-received',
  'syn-sent',
  'established',
  'close-wait',
  'fin-wait',
  'closed',
  'unreplied',
  'replied',
];

export const MAX_PAGE_FLOWS = 256;
const MAX_SCAN = 16_384;

/** Whoever owns flows. */
export interface FlowSource {
  /** Flows lie at places below it. */
  readonly placeCount: number;
  /**
   * Fill in a row, all fields but `place`.
   * @returns false: there is no flow at that place
   */
  describeFlow(place: number, rows: Float64Array, at: number): boolean;
}

export interface FlowPage {
  readonly rows: Float64Array;
  /** Where to go on; -1: that was all of the section. */
  readonly next: number;
}

export const NO_FLOWS: FlowPage = { rows: new Float64Array(0), next: -1 };

/** @param from  place to begin at @param limit  rows at the most; MAX_PAGE_FLOWS is the most in any case */
export function flowPage(source: FlowSource, from: number, limit: number): FlowPage {
  const rows = new Float64Array(Math.min(limit, MAX_PAGE_FLOWS) * FLOW_FIELDS);
  const end = Math.min(source.placeCount, from + MAX_SCAN);
  let at = 0;
  let place = from;
  for (; place < end && at < rows.length; place++) {
    if (!source.describeFlow(place, rows, at)) continue;
    rows[at + FlowField.place] = place;
    at += FLOW_FIELDS;
  }
  return { rows: rows.slice(0, at), next: place < source.placeCount ? place : -1 };
}

/** Key and byte counts of a flow table's entry into a row. */
export function describeEntry(flows: FlowTable, id: number, rows: Float64Array, at: number): void {
  rows[at + FlowField.proto] = flows.proto[id]!;
  for (let i = 0; i < 4; i++) {
    rows[at + FlowField.guestAddress + i] = flows.addr[id * ADDR_WORDS + i]!;
    rows[at + FlowField.remoteAddress + i] = flows.addr[id * ADDR_WORDS + 4 + i]!;
  }
  rows[at + FlowField.guestPort] = flows.ports[id]! >>> 16;
  rows[at + FlowField.remotePort] = flows.ports[id]! & 0xffff;
  rows[at + FlowField.fromGuestBytes] = flows.fromGuestBytes[id]!;
  rows[at + FlowField.toGuestBytes] = flows.toGuestBytes[id]!;
}
