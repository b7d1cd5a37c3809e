/**
 * Causes for which a stage, not a codec, drops a packet. They continue the codes of proto/drop.ts and are
 * counted in the same words (DROP_BASE - code).
 *
 * Invariant: every code is in -64 .. -DROP_MAX, below all codes of the codecs.
 */
export const StageDrop = {
  /** A destination that the guest cannot reach: loopback, unspecified, port 0. */
  destination: -64,
  /** To a multicast group or broadcast address that is not carried (--multicast). */
  group: -65,
  /** The flow table is full. */
  flowTableFull: -66,
  /** The host socket's send queue was full. */
  socketFull: -67,
  /** The host socket could not be opened, or is gone. */
  noSocket: -68,
  /** The host kernel refused the datagram. */
  sendRefused: -69,
  /** Ping sockets are not permitted on this host. */
  pingForbidden: -70,
  /** A message of a protocol or type that is not carried. */
  notCarried: -71,
  /** A DNS query that is malformed, too long, or more than may wait at a time. */
  dnsQuery: -72,
  /** A DNS answer that matches no query. */
  dnsAnswer: -73,
  /** Larger than a datagram to the guest may be, or the MTU leaves no room for fragments. */
  tooLong: -74,
  /** DHCP is switched off, or the message is not for a server. */
  dhcp: -75,
  /** An echo message that does not match its flow. */
  echo: -76,
  /** A TCP segment, not a SYN, of no known connection: answered by RST. */
  tcpNoFlow: -77,
  /** A TCP SYN to a multicast, loopback or other impossible address, or to port 0. */
  tcpDestination: -78,
  /** An IP protocol other than TCP, UDP, ICMP and ICMPv6: answered by an ICMP error, at a limited rate. */
  ipProtocol: -79,
  /** A source address that no guest may have: loopback, multicast, broadcast. */
  ipSource: -80,
  /** A protocol that is switched off by an option. */
  switchedOff: -81,
  /** A UDP peer that the guest has not spoken to from this port (ServicePolicy.udpFiltering). */
  unsolicited: -82,
  /** To a group that the guest is a member of: more datagrams than it may get in a second. */
  groupRate: -83,
  /** To a group that the guest is a member of: from a source that the guest does not hear. */
  groupSource: -84,
  /** A packet that would begin a flow which the egress policy denies: answered by RST or an ICMP error. */
  egressPolicy: -85,
} as const;
export type StageDrop = (typeof StageDrop)[keyof typeof StageDrop];

const NAMES = new Map<number, string>(Object.entries(StageDrop).map(([name, code]) => [code, name]));

/** The key of `code` in StageDrop, for metrics; "unknown" for anything else. */
export function stageDropName(code: number): string {
  return NAMES.get(code) ?? 'unknown';
}
