/**
 * A frame to the guest, as Packet is one from the guest: one object per guest link, refilled for every frame
 * (borrowed). Each layer writes its header in front of the bytes that the frame has:
 *
 *     | vnet | eth | IP | transport header | payload ... |      | ... payload |
 *                         ^ at               bytes                ^ moreAt, moreBytes: anywhere in the pool, or
 *                    ^ at, after ipWrite()                          pieces in the link (GuestLink.addPiece)
 *
 * begin() and beginPacket() reset all optional fields, so that a caller sets only those that its frame needs.
 */
import { EtherType } from '../../proto/ethernet.ts';
import { VnetGso } from '../../proto/vnethdr.ts';

/** Default TTL and hop limit (RFC 1700, and Linux's default). */
export const DEFAULT_TTL = 64;

const NOWHERE = new Uint32Array(4);

export class EgressFrame {
  /** EtherType.ipv4, ipv6 or arp. */
  etherType = 0;
  family: 4 | 6 = 4;
  /** IpProtocol value. */
  protocol = 0;
  ttl = 0;
  /** TOS or traffic class. */
  tos = 0;
  /**
   * Addresses as the guest sees them: four words from srcAt and dstAt on. Borrowed until the frame is sent.
   */
  src: Uint32Array = NOWHERE;
  srcAt = 0;
  dst: Uint32Array = NOWHERE;
  dstAt = 0;
  /**
   * Offset in u8 of the first byte that is written. The memory in front of it is for headers that are still
   * to be written.
   */
  at = 0;
  /** Contiguous bytes from `at` on. */
  bytes = 0;
  /** Offset in u8 of the rest of the payload; unused when moreBytes is 0 or the link holds pieces. */
  moreAt = 0;
  /** Bytes of the rest, or of all pieces that the link holds. */
  moreBytes = 0;
  /** Offset in u8 of the transport header, the first byte that its checksum covers; ipWrite() sets it. */
  transportAt = 0;
  /** Offset of the checksum field from transportAt (TCP 16, UDP 6); -1: the checksum is complete. */
  checksumField = -1;
  /** VnetGso value; all but `none` need a TAP with virtio headers. */
  gsoType: number = VnetGso.none;
  /** GSO only: payload bytes per segment, and bytes of the transport header. */
  gsoSize = 0;
  headerBytes = 0;

  /**
   * Start an IP packet whose transport header and payload are written; the IP header is not. Call
   * addresses(), body() and ipWrite() next.
   * @param protocol  IpProtocol value
   */
  begin(family: 4 | 6, protocol: number): void {
    this.family = family;
    this.protocol = protocol;
    this.ttl = DEFAULT_TTL;
    this.tos = 0;
    this.#clear(family === 4 ? EtherType.ipv4 : EtherType.ipv6);
  }

  /**
   * Start a frame with a complete packet: ARP, or IP with its header.
   * @param etherType  EtherType value
   * @param at,bytes  where the packet lies in u8
   */
  beginPacket(etherType: number, at: number, bytes: number): void {
    this.#clear(etherType);
    this.at = at;
    this.bytes = bytes;
  }

  /** Reset the optional fields. */
  #clear(etherType: number): void {
    this.etherType = etherType;
    this.moreBytes = 0;
    this.checksumField = -1;
    this.gsoType = VnetGso.none;
    this.gsoSize = 0;
  }

  /** Set source and destination: four words from srcAt and dstAt on, borrowed until the frame is sent. */
  addresses(src: Uint32Array, srcAt: number, dst: Uint32Array, dstAt: number): void {
    this.src = src;
    this.srcAt = srcAt;
    this.dst = dst;
    this.dstAt = dstAt;
  }

  /**
   * Set transport header and payload.
   * @param at,bytes  transport header and contiguous payload in u8
   * @param moreAt,moreBytes  the rest of the payload in u8, or 0 bytes
   */
  body(at: number, bytes: number, moreAt: number, moreBytes: number): void {
    this.at = at;
    this.bytes = bytes;
    this.moreAt = moreAt;
    this.moreBytes = moreBytes;
  }
}
