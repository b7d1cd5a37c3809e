/**
 * Counters: one block of float64 words per packet thread, in shared memory.
 *
 * Only its thread writes a block, with plain writes: no other memory access depends on the order of a
 * counter. Readers on other threads add up the blocks and may read a slightly old value. They never read half
 * a value: an aligned 8-byte store is atomic on x86-64 and arm64. float64 counts exactly up to 2^53, 9 PB of
 * bytes.
 *
 *   word  0 .. DROP_BASE-1              the counters of the table below
 *         DROP_BASE + 1 .. + DROP_MAX   lost packets by cause: word DROP_BASE + (-drop)
 *         HISTOGRAM_BASE ..             histograms.ts
 */
import { HISTOGRAM_WORDS, histogramBucket } from './histograms.ts';

export interface CounterInfo {
  readonly name: string;
  readonly unit:
    | 'frames'
    | 'bytes'
    | 'calls'
    | 'events'
    | 'flows'
    | 'segments'
    | 'datagrams'
    | 'connections'
    | 'rounds'
    | 'batches'
    | 'descriptors'
    | 'us';
  readonly help: string;
}

/** To add a counter, add one line here. The index of a counter is its position. */
const TABLE = {
  // tap-reader
  framesFromGuest: ['frames', 'Frames read from the TAP'],
  bytesFromGuest: ['bytes', 'Frame bytes read from the TAP'],
  tapReads: ['calls', 'Read calls on the TAP'],
  tapEagain: ['calls', 'Reads that found the TAP queue empty'],
  poolDry: ['events', 'Times that reading stopped because no frame slot was free'],
  tapSmallReads: ['calls', 'Read calls on the TAP with a small slot alone, as no large one was free'],
  tapCutShort: ['frames', 'Frames lost because no large slot was free for them'],
  handedOver: ['frames', 'Frames read by another lane than that of their flow'],
  handOverFull: ['frames', 'Frames of other lanes lost because these hold too many slots of the reader'],
  flowsMoved: ['flows', 'TCP connections taken over from another lane'],
  // shard
  framesToGuest: ['frames', 'Frames written to the TAP'],
  bytesToGuest: ['bytes', 'Frame bytes written to the TAP'],
  tapWrites: ['calls', 'Write calls on the TAP'],
  tapWriteErrors: ['calls', 'Writes that the TAP refused'],
  tcpOpened: ['connections', 'TCP connections that the guest opened'],
  tcpAccepted: ['connections', 'TCP connections that came in through published ports'],
  tcpClosed: ['connections', 'TCP connections ended, in order or by reset'],
  tcpResetSent: ['segments', 'TCP resets sent to the guest'],
  tcpRetransmits: ['segments', 'TCP segments sent to the guest again'],
  tcpRtoFired: ['events', 'TCP retransmission time-outs'],
  tcpFastRetransmits: ['events', 'TCP fast retransmissions (three duplicate acknowledgements)'],
  tcpOutOfOrder: ['segments', 'TCP segments from the guest that came out of order'],
  tcpDupAcksSent: ['segments', 'Duplicate acknowledgements sent to the guest'],
  tcpProvisional: [
    'segments',
    'TCP segments from the guest that were acknowledged only once the host socket had taken them, as memory was short',
  ],
  tcpRefused: ['events', 'Times that a host socket did not take such segments: the guest sends them again'],
  tcpHeldBack: [
    'segments',
    'TCP segments from the guest dropped because their connection had used up its share of the memory',
  ],
  tcpWindowClosed: [
    'segments',
    'TCP segments to the guest that advertise a zero window because memory is short',
  ],
  tcpZeroWindow: ['events', 'Times that the guest closed its receive window'],
  tcpMssLowered: [
    'events',
    'Times that a router inside reported (by ICMP) that TCP segments are too long for a link behind it',
  ],
  tcpMptcpDeclined: [
    'connections',
    'Connections for which the guest offered multipath TCP (RFC 8684): they are plain TCP',
  ],
  udpFlows: ['flows', 'UDP flows opened'],
  pingFlows: ['flows', 'ICMP echo flows opened'],
  flowTableFull: ['events', 'Flows refused because the flow table was full'],
  flowsGaveWay: ['flows', 'Flows ended early to make room for new ones: unanswered datagrams, half-open TCP'],
  dnsGaveWay: ['events', 'DNS queries answered SERVFAIL early, as too many others were waiting'],
  fragmentsReassembled: ['datagrams', 'Datagrams put together from fragments'],
  fragmentsDropped: ['datagrams', 'Datagrams given up before all fragments had come'],
  icmpErrorsToGuest: ['datagrams', 'ICMP errors sent to the guest'],
  groupReports: [
    'datagrams',
    'Multicast membership reports of the guest (IGMP, MLD); every kernel sends them, and nobody else is on its link: nothing is lost',
  ],
  discoveryUnanswered: [
    'datagrams',
    'Router and neighbour solicitations that are not answered, as the link has no IPv6 or no advertisements: nothing is lost',
  ],
  linkLocalDatagrams: [
    'datagrams',
    'UDP datagrams to link-local multicast groups (mDNS, LLMNR); nobody else is on the link: nothing is lost',
  ],
  groupsJoined: ['events', 'Multicast groups that the guest became a member of (--multicast)'],
  groupsRefused: ['events', 'Groups that were not joined because the guest is a member of too many'],
  groupDatagramsToGuest: [
    'datagrams',
    'Datagrams to multicast groups and broadcast addresses that the guest got',
  ],
  policyFlowsEnded: ['flows', 'Flows ended because a new egress policy denies them'],
  policyNamesRefused: [
    'events',
    'DNS queries answered REFUSED because the egress policy permits no such name',
  ],
  // host-io
  groupSendsLooped: [
    'datagrams',
    "Datagrams of the guest to a group that came back from the host's interface: not passed to the guest",
  ],
  sockSends: ['calls', 'Send calls on host sockets'],
  sockSendBytes: ['bytes', 'Stream bytes that host sockets took'],
  sockSendPartial: ['calls', 'Sends that the host socket took only in part or not at all'],
  sockPeeks: ['calls', 'Peek calls on host sockets'],
  sockPeekBytes: ['bytes', 'Stream bytes peeked from host sockets, repeats included'],
  sockConsumes: ['calls', 'Calls that dropped acknowledged bytes from host sockets'],
  sockConsumeBytes: ['bytes', 'Acknowledged stream bytes dropped from host sockets'],
  sockOpened: ['events', 'Host sockets opened or accepted'],
  sockClosed: ['events', 'Host sockets closed'],
  portsClosedByGuest: ['flows', 'UDP flows that ended because the guest answered that its port is closed'],
  datagramsReconnected: [
    'flows',
    "UDP and ping flows that got another source address because the host's network changed",
  ],
  datagramsToHost: ['datagrams', 'Datagrams sent to the host network'],
  datagramsToGuest: ['datagrams', 'Datagrams received from the host network'],
  tcpAcceptsHeld: [
    'connections',
    'Connections to published ports that waited, as an older flow had the same addresses and ports',
  ],
  tcpOpensPutOff: [
    'connections',
    'SYNs of the guest dropped because descriptors or memory were short: the guest sends them again',
  ],
  emfile: ['events', 'Sockets not opened because no file descriptor was left'],
  connectsGaveWay: [
    'connections',
    'Connections of the guest given up before the peer answered, oldest first, because file descriptors were short',
  ],
  datagramSends: ['calls', 'Send calls that carried datagrams; sockSends counts them too'],
  datagramSendBytes: ['bytes', 'Datagram bytes that host sockets took'],
  datagramRecvs: ['calls', 'Receive calls for datagrams, those that found none included'],
  // reactor and links, on every packet thread
  busyRounds: ['rounds', 'Rounds of a packet thread that found work'],
  idleRounds: ['rounds', 'Rounds that found none, after which the thread goes to sleep'],
  linkBatches: ['batches', 'Times that descriptors were published on a link between two stages'],
  linkDescriptors: ['descriptors', 'Descriptors published on links between stages'],
  epollWaits: ['calls', 'Calls of epoll_wait'],
  epollEvents: ['events', 'Events that epoll_wait returned'],
  wakes: ['events', 'Doorbells rung for a sleeping thread'],
  sleeps: ['events', 'Times that a thread went to sleep'],
  shortLooks: ['events', 'Times that a thread polled for 20 or 60 µs before it slept'],
  shortLooksPaid: ['events', 'Of these, times that work arrived during the poll'],
  cpuUserUs: ['us', 'Processor time of the packet threads in user mode, as of the last second'],
  cpuSystemUs: ['us', 'Processor time of the packet threads in the kernel, as of the last second'],
  // splice
  spliceConnections: ['connections', 'TCP connections taken past the TAP'],
  spliceBytes: ['bytes', 'Stream bytes taken past the TAP'],
  spliceDatagrams: ['datagrams', 'UDP datagrams taken past the TAP'],
  pcapFrames: ['frames', 'Frames captured (--pcap)'],
  pcapLost: ['frames', 'Frames that could not be captured, or not written to the file of --pcap'],
  // socket switching (--switch-sockets): counted by the supervisor, in a process of its own
  switchedConnections: [
    'connections',
    'TCP connections of programs inside that a socket of the host was put in place for (--switch-sockets)',
  ],
  switchPassedOn: [
    'calls',
    'Calls of connect, bind and listen that were looked at for --switch-sockets and took effect inside, as without it',
  ],
  switchRefused: [
    'calls',
    'Calls on sockets of the host that were refused, as they would have led elsewhere',
  ],
  switchFailed: ['connections', 'Connections by sockets of the host that failed: refused, or not answered'],
  // emulated lines (--rate, --delay, --loss, --impair)
  lineLostFromGuest: ['frames', 'Packets of the guest lost by the emulated line: --loss'],
  lineLostToGuest: ['frames', 'Packets to the guest lost by the emulated line: --loss'],
  lineFullFromGuest: ['frames', 'Packets of the guest lost because the queue of the emulated line was full'],
  lineFullToGuest: ['frames', 'Packets to the guest lost because the queue of the emulated line was full'],
  lineTooLong: ['frames', 'Packets lost because they were longer than the emulated line carries: max-packet'],
  lineDuplicated: ['frames', 'Packets that the emulated line delivered twice'],
  lineReordered: ['frames', 'Packets that the emulated line let others overtake'],
  lineCorrupted: ['frames', 'Packets in which the emulated line changed a bit'],
  // impairment, for tests
  lostFromGuest: ['frames', 'Frames from the guest dropped on purpose, in tests'],
  lostToGuest: ['frames', 'Frames to the guest dropped on purpose, in tests'],
} as const satisfies Record<string, readonly [CounterInfo['unit'], string]>;

export type CounterName = keyof typeof TABLE;

/** Name, unit and help text of every counter, by index. */
export const COUNTERS: readonly CounterInfo[] = Object.entries(TABLE).map(([name, [unit, help]]) => ({
  name,
  unit,
  help,
}));

/** Index of a counter by name: `counters[Counter.tapReads]!++`. */
export const Counter = Object.freeze(
  Object.fromEntries(COUNTERS.map((info, index) => [info.name, index])),
) as Readonly<Record<CounterName, number>>;

/** A drop cause -n counts at word DROP_BASE + n. */
export const DROP_BASE = COUNTERS.length;
/** Room for drop causes -1 .. -DROP_MAX. */
export const DROP_MAX = 96;
/**
 * First word of the thread's histograms: bucket b of histogram x is word HISTOGRAM_BASE + Histogram.x + b.
 */
export const HISTOGRAM_BASE = DROP_BASE + DROP_MAX + 1;
export const COUNTER_WORDS = HISTOGRAM_BASE + HISTOGRAM_WORDS;

/** Count one value. @param counters  a thread's block @param at  Histogram.x @param value  in its unit */
export function recordHistogram(counters: Float64Array, at: number, value: number): void {
  counters[HISTOGRAM_BASE + at + histogramBucket(value)]!++;
}

/** The part of the shared memory's layout that is about counters. */
export interface CounterBlocks {
  readonly counterBlocks: number;
  readonly countersAt: number;
  readonly counterBlockBytes: number;
}

/**
 * The counters of one thread. Only that thread may write to its view.
 * @param block  thread number
 * @throws RangeError for a thread that the layout does not have
 */
export function countersView(sab: SharedArrayBuffer, layout: CounterBlocks, block: number): Float64Array {
  if (block < 0 || block >= layout.counterBlocks) {
    throw new RangeError(`counter block ${block}: the layout has ${layout.counterBlocks}`);
  }
  return new Float64Array(sab, layout.countersAt + block * layout.counterBlockBytes, COUNTER_WORDS);
}

/** @returns the sum of all threads' blocks, COUNTER_WORDS long: indexes as in a block */
export function countersSum(sab: SharedArrayBuffer, layout: CounterBlocks): Float64Array {
  const sum = new Float64Array(COUNTER_WORDS);
  for (let block = 0; block < layout.counterBlocks; block++) {
    const view = countersView(sab, layout, block);
    for (let i = 0; i < COUNTER_WORDS; i++) sum[i]! += view[i]!;
  }
  return sum;
}
