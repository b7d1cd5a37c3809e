/**
 * Packets of IP protocols that are not carried: SCTP, DCCP, UDP-Lite, GRE, IPsec and so on. The guest gets
 * the ICMP error that a destination without the protocol sends, so that its programs fail at once and do not
 * wait for a time-out. There are no errors about packets to groups or from the unspecified address (RFC 1122
 * section 3.2.2, RFC 4443 section 2.4 (e)).
 *
 * Frames without a flow come to the first shard, so one bucket limits the errors of an engine.
 */
import { isUnspecified } from '../../proto/address.ts';
import { Destination } from '../flow/addressing.ts';
import { StageDrop } from '../link/stage-drop.ts';
import type { ShardContext } from './context.ts';
import { protocolErrorToGuest } from './icmp-errors.ts';
import { type Packet, packetDiscard } from './packet.ts';

/** Token bucket (RFC 4443 section 2.4 (f)): Linux sends bursts of 50 too (icmp_msgs_burst). */
const ERRORS_BURST = 50;
const ERRORS_PER_MS = 0.1;

export class OtherProtocols {
  readonly #ctx: ShardContext;
  #tokens = ERRORS_BURST;
  /** When tokens were added last, monotonic milliseconds. */
  #filledMs = 0;

  constructor(ctx: ShardContext) {
    this.#ctx = ctx;
  }

  /**
   * Count a packet as dropped and free it; its sender gets an ICMP error unless the rate is too high.
   * @param nextHeaderAt  IPv6: offset from the IP header of the byte that names the protocol
   */
  refuse(p: Packet, nextHeaderAt: number): void {
    const ctx = this.#ctx;
    const { addressing } = ctx;
    const isAnswered =
      !addressing.isGroup(p.addr, 4) &&
      !isUnspecified(p.addr, 0) &&
      addressing.classify(p.addr, 4, 0) !== Destination.invalid;
    if (isAnswered && this.#takeToken()) protocolErrorToGuest(ctx, p, nextHeaderAt);
    packetDiscard(ctx, p, StageDrop.ipProtocol);
  }

  #takeToken(): boolean {
    const { now } = this.#ctx;
    this.#tokens = Math.min(ERRORS_BURST, this.#tokens + (now - this.#filledMs) * ERRORS_PER_MS);
    this.#filledMs = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
