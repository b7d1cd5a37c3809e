/**
 * Flows for the API's `list_flows`: the packet threads, which own the flows, send them to the main thread a
 * page at a time. For a page a thread scans at most MAX_SCAN places and collects at most MAX_PAGE_FLOWS rows
 * before it goes back to packets; the caller asks for the next page.
 *
 *   section   0 .. shards-1   the shard's flows (TCP, UDP, ping), by flow id
 *             shards          TCP past the TAP (splice)
 *             shards + 1      UDP past the TAP
 *
 * A row is FLOW_FIELDS numbers, in the order of FlowField. Addresses are four u32 words each, IPv4 as
 * v4-mapped.
 */
import { ADDR_WORDS, type FlowTable } from './flow-table.ts';

/** Index of each field in a row. */
export const FlowField = {
  place: 0,
  /** IP protocol number. */
  proto: 1,
  state: 2,
  /** Addresses and ports on the guest's side. */
  guestAddress: 3,
  remoteAddress: 7,
  /** Ping flows: the echo identifier. */
  guestPort: 11,
  remotePort: 12,
  /**
   * Payload bytes. TCP: accepted from the guest, acknowledged by the guest. UDP: datagram payload. Ping: ICMP
   * messages.
   */
  fromGuestBytes: 13,
  toGuestBytes: 14,
  ageMs: 15,
  /**
   * TCP, -1 where it is not known. Towards the guest, by our TCP: round-trip time in milliseconds, and how often
   * data was sent again. Of the host's socket, by the kernel (tcpInfo()): round-trip time in microseconds,
   * segments sent again, congestion window in segments.
   */
  guestRttMs: 16,
  guestRetransmits: 17,
  hostRttUs: 18,
  hostRetransmits: 19,
  hostCwnd: 20,
} as const;
export const FLOW_FIELDS = 21;
const FIRST_OF_TCP = FlowField.guestRttMs;

/** State of a flow in reports. */
export const FlowState = {
  /** The host's socket is connecting. */
  connecting: 0,
  /** We have sent SYN,ACK to the guest, or SYN. */
  synReceived: 1,
  synSent: 2,
  established: 3,
  /** The guest has sent its FIN; only we have sent ours. */
  closeWait: 4,
  finWait: 5,
  /**
   * RFC 9293's CLOSED. The flow's id is still in use, as host-io has not yet reported that the host's socket
   * is closed.
   */
  closed: 6,
  /** Datagram flows: packets went one way only, or both ways. */
  unreplied: 7,
  replied: 8,
} as const;
export type FlowState = (typeof FlowState)[keyof typeof FlowState];

/** Names by FlowState: RFC 9293's states, and those of the kernel's connection tracking for datagrams. */
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

/** Most rows of a page, and most places that are scanned for it. */
export const MAX_PAGE_FLOWS = 256;
const MAX_SCAN = 16_384;

/** A part of the engine that owns flows. */
export interface FlowSource {
  /** Places are 0 .. placeCount - 1; each has a flow or none. */
  readonly placeCount: number;
  /**
   * Fill in a row, all fields but `place`; those of TCP are -1 before.
   * @returns false: there is no flow at that place
   */
  describeFlow(place: number, rows: Float64Array, at: number): boolean;
}

/** One page of a section. */
export interface FlowPage {
  readonly rows: Float64Array;
  /** Place at which the next page begins; -1: the section has no more. */
  readonly next: number;
}

export const NO_FLOWS: FlowPage = { rows: new Float64Array(0), next: -1 };

/** For the rows of one page; here, for an array for each page would be garbage of 32 KiB. */
const scratch = new Float64Array(MAX_PAGE_FLOWS * FLOW_FIELDS);

/**
 * Collect one page of a source's flows.
 * @param from  place to begin at
 * @param limit  most rows; never more than MAX_PAGE_FLOWS
 * @returns rows of FLOW_FIELDS numbers, and where the next page begins
 */
export function flowPage(source: FlowSource, from: number, limit: number): FlowPage {
  const rows = scratch.subarray(0, Math.min(limit, MAX_PAGE_FLOWS) * FLOW_FIELDS);
  const end = Math.min(source.placeCount, from + MAX_SCAN);
  let at = 0;
  let place = from;
  for (; place < end && at < rows.length; place++) {
    rows.fill(-1, at + FIRST_OF_TCP, at + FLOW_FIELDS);
    if (!source.describeFlow(place, rows, at)) continue;
    rows[at + FlowField.place] = place;
    at += FLOW_FIELDS;
  }
  return { rows: rows.slice(0, at), next: place < source.placeCount ? place : -1 };
}

/**
 * Write key and byte counts of a flow table's entry into a row.
 * @param at  index of the row's first field in `rows`
 */
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
