/**
 * Why a packet was refused. There is one code per cause, contiguous from -1, so that -code indexes a counter.
 *
 * A validator returns one of these codes (below zero) or a result (zero or more). Codes are never thrown.
 */
export const Drop = {
  /** Fewer bytes than the fixed part of the header. */
  short: -1,
  /** An EtherType other than IPv4, IPv6 and ARP. */
  ethType: -2,
  /** A VLAN tag: the guest's link has none. */
  vlan: -3,
  /** The version in the IP header is not that of the EtherType. */
  ipVersion: -4,
  /** An IPv4 header length below 20 bytes or beyond the frame. */
  ipv4Ihl: -5,
  /** totalLen below the header's own length or beyond the frame. */
  ipv4TotalLen: -6,
  /** A wrong IPv4 header checksum. */
  ipv4Checksum: -7,
  /** payloadLen beyond the frame, or 0 (a jumbogram). */
  ipv6PayloadLen: -8,
  /** Extension headers malformed, too many, too long, or after No Next Header. */
  ipv6Extension: -9,
  /** A v4-mapped address or a multicast source on the wire. */
  ipv6Address: -10,
  /** A fragment whose length is not a multiple of 8, or that reaches past 65535. */
  fragment: -11,
  /** A TCP header length below 20 bytes or beyond the segment. */
  tcpOffset: -12,
  /** A wrong TCP checksum. */
  tcpChecksum: -13,
  /** A UDP length below 8 bytes or beyond the packet. */
  udpLength: -14,
  /** A wrong UDP checksum; over IPv6, none. */
  udpChecksum: -15,
  /** A wrong ICMP checksum. */
  icmpChecksum: -16,
  /** A wrong ICMPv6 checksum. */
  icmp6Checksum: -17,
  /** An ARP packet that is not for Ethernet and IPv4 with 6- and 4-byte addresses. */
  arpFormat: -18,
  /** An ARP operation that is neither request nor reply. */
  arpOp: -19,
  /** A neighbour discovery message with a hop limit below 255: it was sent from off the link. */
  ndpHopLimit: -20,
  /** A neighbour discovery message whose code is not 0. */
  ndpCode: -21,
  /** A neighbour solicitation or advertisement for a multicast target. */
  ndpTarget: -22,
  /** A neighbour discovery option of length 0 or past the end of the message. */
  ndpOption: -23,
  /** A DHCP message that is not a BOOTREQUEST. */
  dhcpOp: -24,
  /** A DHCP message for hardware other than Ethernet. */
  dhcpHardware: -25,
  /** No DHCP magic cookie behind the BOOTP fields. */
  dhcpMagic: -26,
  /** A DHCP option past the end of the message. */
  dhcpOption: -27,
  /** A DNS message without exactly one well-formed question. */
  dnsQuestion: -28,
  /** An unknown segmentation type in the virtio-net header. */
  vnetGsoType: -29,
  /** A segment size in the virtio-net header that is 0 or more than the payload. */
  vnetGsoSize: -30,
  /** A header length in the virtio-net header beyond the frame. */
  vnetHdrLen: -31,
  /** csumStart + csumOffset of the virtio-net header beyond the frame. */
  vnetCsum: -32,
  /** A DHCPv6 message type that clients do not send. */
  dhcpv6Type: -33,
  /** A DHCPv6 option past the end of the message, or of a length that its code does not allow. */
  dhcpv6Option: -34,
  /** A wrong IGMP checksum. */
  igmpChecksum: -35,
  /** A group record of an IGMPv3 or MLDv2 report that extends beyond the message. */
  groupRecord: -36,
} as const;
export type Drop = (typeof Drop)[keyof typeof Drop];

const names: readonly string[] = ['none', ...Object.keys(Drop)];

/** Length of an array of counters indexed by -code, which is 1 to DROP_COUNT - 1; index 0 is unused. */
export const DROP_COUNT: number = names.length;

/** The key of `code` in Drop, for metrics and logs; "unknown" for any other number. */
export function dropName(code: number): string {
  return code < 0 ? (names[-code] ?? 'unknown') : 'unknown';
}
