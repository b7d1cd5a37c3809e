/**
 * A frame on its way to the guest, as Packet is one from it: one object per guest link, refilled for every
 * frame (borrowed). Each layer puts its header in front of what the frame holds, and the frame grows by it:
 *
 *     | vnet | eth | IP | transport header | payload ... |      | ... payload |
 *                         ^ at               bytes                ^ moreAt, moreBytes: anywhere in the pool, or in the pieces
 *                    ^ at, after ipWrite()                          that the link holds (GuestLink.addPiece)
 *
 * begin() and beginPacket() clear what not every frame has, so that a caller sets only what its own has.
 */
import { EtherType } from '../../proto/ethernet.ts';
import { VnetGso } from '../../proto/vnethdr.ts';

/** TTL and hop limit where nothing better is known (RFC 1700's default, and Linux's). */
export const DEFAULT_TTL = 64;

const NOWHERE = new Uint32Array(4);

export class EgressFrame {
  /** EtherType.ipv4, ipv6 or arp. */
  etherType = 0;
  family: 4 | 6 = 4;
  /** IpProtocol value. */
  protocol = 0;
  ttl = 0;
  /**
   * Addresses as the guest sees them: four words from srcAt and dstAt on. Borrowed until the frame is sent.
   */
  src: Uint32Array = NOWHERE;
  srcAt = 0;
  dst: Uint32Array = NOWHERE;
  dstAt = 0;
  /**
   * Offset in u8 of the first byte that has been written so far; the memory in front of it is for the headers
   * still to come.
   */
  at = 0;
  /** Contiguous bytes from there. */
  bytes = 0;
  /** Offset in u8 of the rest, if it has any bytes and the link holds no pieces. */
  moreAt = 0;
  moreBytes = 0;
  /**
   * Offset in u8 of the transport header, where the transport checksum starts to cover; ipWrite() sets it.
   */
  transportAt = 0;
  /** Offset of the checksum field from there (TCP 16, UDP 6), -1: there is nothing to finish. */
  checksumField = -1;
  /** VnetGso value; all but `none` need a TAP with virtio headers. */
  gsoType: number = VnetGso.none;
  /** GSO only: payload bytes a segment, and bytes of the transport header. */
  gsoSize = 0;
  headerBytes = 0;

  /**
   * Start an IP packet of which the transport header and what follows it exist: next come addresses(), body()
   * and ipWrite().
   */
  begin(family: 4 | 6, protocol: number): void {
    this.family = family;
    this.protocol = protocol;
    this.ttl = DEFAULT_TTL;
    this.#clear(family === 4 ? EtherType.ipv4 : EtherType.ipv6);
  }

  /** Start a frame whose packet is complete: an ARP packet, or IP with its header. */
  beginPacket(etherType: number, at: number, bytes: number): void {
    this.#clear(etherType);
    this.at = at;
    this.bytes = bytes;
  }

  /** Nothing but what every frame sets is left of the one before. */
  #clear(etherType: number): void {
    this.etherType = etherType;
    this.moreBytes = 0;
    this.checksumField = -1;
    this.gsoType = VnetGso.none;
    this.gsoSize = 0;
  }

  /** Source and destination: four words from srcAt and dstAt on. */
  addresses(src: Uint32Array, srcAt: number, dst: Uint32Array, dstAt: number): void {
    this.src = src;
    this.srcAt = srcAt;
    this.dst = dst;
    this.dstAt = dstAt;
  }

  /** Transport header and payload. @param moreAt,moreBytes  the rest of the payload, or 0 bytes */
  body(at: number, bytes: number, moreAt: number, moreBytes: number): void {
    this.at = at;
    this.bytes = bytes;
    this.moreAt = moreAt;
    this.moreBytes = moreBytes;
  }
}
