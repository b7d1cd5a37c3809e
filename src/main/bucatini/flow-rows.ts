// bundle: rare
/**
 * Flows of one or several instances as rows: order, filter and cells of `bucatini flows` and `bucatini top`.
 */
import type { FlowAnswer } from '../api/answers.ts';
import { bytesText, durationText, microsecondsText } from '../cli/units.ts';
import type { SortKey } from './options.ts';

/** A flow, of which instance it is, and how fast it is. */
export interface FlowRow {
  readonly flow: FlowAnswer;
  readonly pid: number;
  /** Bytes per second; 0 where no earlier measurement has the flow. */
  readonly fromGuestRate: number;
  readonly toGuestRate: number;
}

/** "192.0.2.1:443", "[2001:db8::1]:443"; without a port the address alone. */
const endText = (address: string, port: number | undefined): string =>
  port === undefined ? address : address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;

export const remoteText = ({ remote_addr, remote_port }: FlowAnswer): string =>
  endText(remote_addr, remote_port);

export const guestText = ({ guest_addr, guest_port, echo_id }: FlowAnswer): string =>
  echo_id === undefined ? endText(guest_addr, guest_port) : `${guest_addr} id ${echo_id}`;

/** "tap", "splice", "switched eth0" */
export const pathText = ({ path, device }: FlowAnswer): string =>
  device === undefined ? path : `${path} ${device}`;

/** Segments sent again to either side; undefined: not known. */
export const retransmitsOf = ({ retransmits, guest_retransmits }: FlowAnswer): number | undefined =>
  retransmits === undefined && guest_retransmits === undefined
    ? undefined
    : (retransmits ?? 0) + (guest_retransmits ?? 0);

/** What --sort compares: the larger number first, texts in rising order. */
const VALUES: Readonly<Record<SortKey, (row: FlowRow) => number | string>> = {
  rate: (row) => row.fromGuestRate + row.toGuestRate,
  bytes: ({ flow }) => flow.bytes_from_guest + flow.bytes_to_guest,
  'from-guest': ({ flow }) => flow.bytes_from_guest,
  'to-guest': ({ flow }) => flow.bytes_to_guest,
  rtt: ({ flow }) => flow.rtt_us ?? -1,
  retransmits: ({ flow }) => retransmitsOf(flow) ?? -1,
  age: ({ flow }) => flow.age_ms,
  remote: ({ flow }) => remoteText(flow),
  state: ({ flow }) => flow.state,
};

/**
 * A sorted copy. Rows that are equal keep a fixed order: that of process id and flow id.
 * @param reversed  the smallest number first, texts in falling order
 */
export function sortRows(rows: readonly FlowRow[], key: SortKey, reversed = false): FlowRow[] {
  const value = VALUES[key];
  const direction = reversed ? -1 : 1;
  return [...rows].sort(
    (a, b) => compare(value(a), value(b)) * direction || a.pid - b.pid || a.flow.id - b.flow.id,
  );
}

function compare(a: number | string, b: number | string): number {
  if (typeof a === 'number' && typeof b === 'number') return b - a;
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The rows whose protocol, state, path or ends contain all words of `filter`, in any case of letters. */
export function filterRows(rows: readonly FlowRow[], filter: string): readonly FlowRow[] {
  const words = filter
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '');
  if (words.length === 0) return rows;
  return rows.filter(({ flow }) => {
    const text =
      `${flow.proto} ${flow.state} ${pathText(flow)} ${guestText(flow)} ${remoteText(flow)}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

/** What stands for a figure that is not known. */
export const UNKNOWN = '-';

const HEAD = ['PROTO', 'STATE', 'GUEST', 'REMOTE', 'FROM GUEST', 'TO GUEST', 'RTT', 'RETRANS', 'AGE', 'PATH'];
/** Alignment of the columns, as tableText() takes it. */
export const FLOW_COLUMNS = 'llllrrrrrl';

/** The table of `bucatini flows`. */
export const flowTable = (rows: readonly FlowRow[]): string[][] => [
  HEAD,
  ...rows.map(({ flow }) => [
    flow.proto,
    flow.state,
    guestText(flow),
    remoteText(flow),
    bytesText(flow.bytes_from_guest),
    bytesText(flow.bytes_to_guest),
    flow.rtt_us === undefined ? UNKNOWN : microsecondsText(flow.rtt_us),
    String(retransmitsOf(flow) ?? UNKNOWN),
    durationText(flow.age_ms),
    pathText(flow),
  ]),
];
