/**
 * Why a packet was refused: one code per cause, contiguous from -1, so that -code indexes a counter.
 *
 * A validator returns one of these (below zero) or a result (zero or more). Nothing here is thrown.
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
  /** Not Ethernet/IPv4 with 6- and 4-byte addresses. */
  arpFormat: -18,
  /** Neither a request nor a reply. */
  arpOp: -19,
  /** Hop limit below 255: it came from beyond the link. */
  ndpHopLimit: -20,
  /** A neighbour discovery message whose code is not 0. */
  ndpCode: -21,
  /** Neighbour solicitation or advertisement for a multicast target. */
  ndpTarget: -22,
  /** An option of length 0 or past the end. */
  ndpOption: -23,
  /** Not a BOOTREQUEST. */
  dhcpOp: -24,
  /** A DHCP message for hardware other than Ethernet. */
  dhcpHardware: -25,
  /** No DHCP magic cookie behind the BOOTP fields. */
  dhcpMagic: -26,
  /** An option runs past the end. */
  dhcpOption: -27,
  /** Not exactly one well-formed question. */
  dnsQuestion: -28,
  /** A segmentation type in the virtio-net header that is not known. */
  vnetGsoType: -29,
  /** A segment size in the virtio-net header that is 0 or more than the payload. */
  vnetGsoSize: -30,
  /** A header length in the virtio-net header beyond the frame. */
  vnetHdrLen: -31,
  /** csumStart + csumOffset beyond the frame. */
  vnetCsum: -32,
  /** A DHCPv6 message type that clients do not send. */
  dhcpv6Type: -33,
  /** An option past the end, or too short for what it holds. */
  dhcpv6Option: -34,
} as const;
export type Drop = (typeof Drop)[keyof typeof Drop];

const names: readonly string[] = ['none', ...Object.keys(Drop)];

/** Slots that a counter array needs: -code runs from 1 to DROP_COUNT - 1; index 0 stays unused. */
export const DROP_COUNT: number = names.length;

/** The key of `code` in Drop, for metrics and logs; "unknown" for anything else. */
export function dropName(code: number): string {
  return code < 0 ? (names[-code] ?? 'unknown') : 'unknown';
}
