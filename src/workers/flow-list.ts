/**
 * Lists flows as objects, on the main thread, from the pages of all sections (flow-report.ts). A flow's id is
 * section * PLACES + place, so ids rise through all sections. A caller that lists on from the last id it got
 * therefore gets every flow that exists all the time exactly once, however many others begin and end. A flow
 * that moves to another lane gets another id, so such a caller may get that flow twice or not at all.
 */
import { addressText } from '../proto/address.ts';
import { IpProtocol } from '../proto/ipv4.ts';
import {
  FLOW_FIELDS,
  FLOW_STATE_NAMES,
  FlowField,
  type FlowPage,
  MAX_PAGE_FLOWS,
} from './flow/flow-report.ts';

/** More than any section has. */
const PLACES = 2 ** 20;
/** Sections after those of the shards: TCP and UDP flows of the splice stage. */
const SPLICE_SECTIONS = 2;

export interface FlowInfo {
  readonly id: number;
  readonly proto: string;
  readonly state: string;
  /** Through the TAP, or from socket to socket (splice). */
  readonly path: 'tap' | 'splice';
  /**
   * Addresses as in the namespace. Ping flows have no remote port; their guest port is the echo identifier.
   */
  readonly guestAddress: string;
  readonly guestPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly bytesFromGuest: number;
  readonly bytesToGuest: number;
  readonly ageMs: number;
  /** TCP towards the guest. Absent: not known (yet), or not TCP; also below. */
  readonly guestRttUs?: number;
  readonly guestRetransmits?: number;
  /**
   * TCP of the host's socket, by its kernel. Only where its thread is also that of the shard, and with
   * splice.
   */
  readonly rttUs?: number;
  readonly retransmits?: number;
  /** Congestion window, in segments. */
  readonly cwnd?: number;
}

export interface FlowList {
  readonly flows: readonly FlowInfo[];
  /** There may be flows after the last one of `flows`. */
  readonly more: boolean;
}

/** Asks the thread of a section for at most `limit` flows from place `from` on. */
export type FlowPages = (section: number, from: number, limit: number) => Promise<FlowPage>;

const PROTOCOL_NAMES = new Map<number, string>(
  Object.entries(IpProtocol).map(([name, number]) => [number, name]),
);

/**
 * List at most `limit` flows in the order of their ids.
 * @param ask  requests a page of a section
 * @param shards  number of shards
 * @param after  id of the last flow of the previous list; -1: begin with the first
 */
export async function listFlows(
  ask: FlowPages,
  shards: number,
  after: number,
  limit: number,
): Promise<FlowList> {
  const flows: FlowInfo[] = [];
  let section = Math.floor((after + 1) / PLACES);
  let place = (after + 1) % PLACES;
  while (section < shards + SPLICE_SECTIONS) {
    if (flows.length >= limit) return { flows, more: true };
    const page = await ask(section, place, limit - flows.length);
    for (let at = 0; at < page.rows.length; at += FLOW_FIELDS) {
      flows.push(flowInfo(section, section >= shards, page.rows, at));
    }
    if (page.next >= 0) place = page.next;
    else {
      section++;
      place = 0;
    }
  }
  return { flows, more: false };
}

/** How many flows there are of one kind. */
export interface FlowCount extends Pick<FlowInfo, 'proto' | 'state' | 'path'> {
  readonly count: number;
}

const STATES = FLOW_STATE_NAMES.length;

/** Count the flows by protocol, state and path. Combinations that there are none of are left out. */
export async function countFlows(ask: FlowPages, shards: number): Promise<readonly FlowCount[]> {
  /** By proto * STATES + state. */
  const counts = { tap: new Map<number, number>(), splice: new Map<number, number>() };
  for (let section = 0; section < shards + SPLICE_SECTIONS; section++) {
    const of = section < shards ? counts.tap : counts.splice;
    for (let place = 0; place >= 0; ) {
      const page = await ask(section, place, MAX_PAGE_FLOWS);
      for (let at = 0; at < page.rows.length; at += FLOW_FIELDS) {
        const key = page.rows[at + FlowField.proto]! * STATES + page.rows[at + FlowField.state]!;
        of.set(key, (of.get(key) ?? 0) + 1);
      }
      place = page.next;
    }
  }
  return (['tap', 'splice'] as const).flatMap((path) =>
    Array.from(counts[path], ([key, count]) => ({
      proto: protocolName(Math.floor(key / STATES)),
      state: stateName(key % STATES),
      path,
      count,
    })),
  );
}

const protocolName = (proto: number): string => PROTOCOL_NAMES.get(proto) ?? String(proto);
const stateName = (state: number): string => FLOW_STATE_NAMES[state] ?? 'unknown';

function flowInfo(section: number, isSplice: boolean, rows: Float64Array, at: number): FlowInfo {
  const field = (index: number): number => rows[at + index]!;
  const address = (index: number): string =>
    addressText(Uint32Array.from(rows.subarray(at + index, at + index + 4)), 0);
  return {
    id: section * PLACES + field(FlowField.place),
    proto: protocolName(field(FlowField.proto)),
    state: stateName(field(FlowField.state)),
    path: isSplice ? 'splice' : 'tap',
    guestAddress: address(FlowField.guestAddress),
    guestPort: field(FlowField.guestPort),
    remoteAddress: address(FlowField.remoteAddress),
    remotePort: field(FlowField.remotePort),
    bytesFromGuest: field(FlowField.fromGuestBytes),
    bytesToGuest: field(FlowField.toGuestBytes),
    ageMs: Math.round(field(FlowField.ageMs)),
    ...(field(FlowField.guestRttMs) >= 0 && { guestRttUs: Math.round(field(FlowField.guestRttMs) * 1000) }),
    ...(field(FlowField.guestRetransmits) >= 0 && { guestRetransmits: field(FlowField.guestRetransmits) }),
    ...(field(FlowField.hostRttUs) >= 0 && {
      rttUs: field(FlowField.hostRttUs),
      retransmits: field(FlowField.hostRetransmits),
      cwnd: field(FlowField.hostCwnd),
    }),
  };
}
