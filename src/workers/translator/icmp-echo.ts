/**
 * ICMP echo requests of the guest. A request to an address of ours, or to the host's loopback, is answered
 * here, in the slot that holds it. A request to any other address makes a flow with a ping socket of its own
 * on the host:
 *
 *     guest  echo request, id G, seq n  ->  sendDatagram  ->  ping socket, id H of the kernel  ->  remote
 *     guest  echo reply, id G, seq n    <-  datagram      <-  echo reply, id H, seq n          <-
 *
 * The flow's key is (guest, remote, G << 16). The host's kernel writes id and checksum of requests; replies
 * get G and the checksum for it here. ICMP errors for the socket (traceroute -I) are passed on with the
 * sequence number that they quote.
 *
 * Other ICMP messages of the guest are not carried to the host.
 */

import { isMulticast, isUnspecified } from '../../proto/address.ts';
import { writeU16 } from '../../proto/be.ts';
import { finishSum, onesSum } from '../../proto/checksum.ts';
import { Drop } from '../../proto/drop.ts';
import { EtherType } from '../../proto/ethernet.ts';
import {
  ICMP_BYTES,
  IcmpType,
  icmpCode,
  icmpEchoId,
  icmpEchoIdWrite,
  icmpEchoReplyInPlace,
  icmpType,
} from '../../proto/icmp.ts';
import { Icmp6Type } from '../../proto/icmpv6.ts';
import { IPV4_CHECKSUM, IPV4_SRC, IpProtocol } from '../../proto/ipv4.ts';
import { IPV6_SRC } from '../../proto/ipv6.ts';
import { Counter } from '../../ring/counters.ts';
import { NO_SLOT } from '../../ring/pool.ts';
import { Errno } from '../../sys/constants.ts';
import { Destination } from '../flow/addressing.ts';
import { EgressProto } from '../flow/egress-policy.ts';
import { FlowState } from '../flow/flow-report.ts';
import { ADDR_WORDS } from '../flow/flow-table.ts';
import { Origin } from '../flow/shard-flows.ts';
import { linkBytes, linkFlow, linkSlotA, linkSlotB, linkSlotOffset } from '../link/descriptor.ts';
import { StageDrop } from '../link/stage-drop.ts';
import { closeWrite, openPingWrite, sendDatagramWrite } from '../link/to-host.ts';
import {
  datagramTos,
  datagramTtl,
  icmpErrorErrno,
  icmpErrorSequence,
  icmpErrorTypeCode,
  openFailedErrno,
  ToShard,
} from '../link/to-shard.ts';
import { DEFAULT_TTL } from '../tap/egress-frame.ts';
import { Notice } from '../thread/notices.ts';
import { type ShardContext, TIMER_KINDS, TimerKind } from './context.ts';
import {
  icmpCarriedErrorToGuest,
  icmpFlowErrorToGuest,
  icmpForErrno,
  isCarriedError,
  prohibitedToGuest,
  prohibitedTypeCode,
} from './icmp-errors.ts';
import { type Packet, packetChecksumOk, packetFree, packetMoreBytes } from './packet.ts';
import { SendOptions } from './send-options.ts';
import { datagramToGuest, ipHeaderBytes, pseudoSumWords } from './to-guest.ts';

/** Offset of the checksum in ICMP and ICMPv6 messages. */
const ICMP_CHECKSUM = 2;

/** Of a flow. awaitingClosed: host-io has not answered `closed` yet. */
const State = { none: 0, open: 1, awaitingClosed: 2 } as const;

/** The ping flows of one shard. */
export class PingTranslator {
  readonly #ctx: ShardContext;
  readonly #state: Uint8Array;
  readonly #options: SendOptions;
  readonly #lastMs: Float64Array;
  readonly #words = new Uint32Array(4);
  #hasReportedForbidden = false;

  constructor(ctx: ShardContext) {
    this.#ctx = ctx;
    const flows = ctx.flows.maxFlows;
    this.#state = new Uint8Array(flows);
    this.#options = new SendOptions(flows);
    this.#lastMs = new Float64Array(flows);
    ctx.flows.onGiveWay(IpProtocol.icmp, (flow) => this.#close(flow));
    ctx.flows.onGiveWay(IpProtocol.icmpv6, (flow) => this.#close(flow));
  }

  /** Handle an ICMP or ICMPv6 packet that is not neighbour discovery. Takes over the packet's slots. */
  onPacket(p: Packet): void {
    const cause = this.#onPacket(p);
    if (cause < 0) this.#ctx.drop(cause);
    packetFree(this.#ctx, p);
  }

  /**
   * @returns 0, or the cause of the drop, below zero. Slots that were passed to host-io are removed from the
   *   packet
   */
  #onPacket(p: Packet): number {
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    if (p.transportBytes < ICMP_BYTES || p.transportBytesInA < ICMP_BYTES) return Drop.short;
    const request = p.family === 4 ? IcmpType.echoRequest : Icmp6Type.echoRequest;
    if (icmpType(u8, p.transportAt) !== request || icmpCode(u8, p.transportAt) !== 0) {
      return StageDrop.notCarried;
    }
    if (!ctx.plan.policy.icmp) return StageDrop.switchedOff;
    if (!this.#checksumOk(p)) return p.family === 4 ? Drop.icmpChecksum : Drop.icmp6Checksum;
    if (isUnspecified(p.addr, 0)) return StageDrop.ipSource;
    if (isMulticast(p.addr, 4)) return StageDrop.group;
    const destination = ctx.addressing.classify(p.addr, 4, 0);
    if (destination === Destination.invalid) return StageDrop.destination;
    if (destination !== Destination.world && destination !== Destination.hostGuest) {
      this.#answer(p);
      return 0;
    }
    return this.#toHost(p, destination);
  }

  #checksumOk(p: Packet): boolean {
    if (p.needsCsum) return true;
    const pseudo =
      p.family === 4 ? 0 : pseudoSumWords(6, p.addr, 0, p.addr, 4, IpProtocol.icmpv6, p.transportBytes);
    return packetChecksumOk(this.#ctx, p, p.transportBytes, pseudo);
  }

  /**
   * Turn the request into its reply in place. Swapping the addresses does not change the pseudo header's sum.
   */
  #answer(p: Packet): void {
    const { u8, pool, guest } = this.#ctx;
    const replyType = p.family === 4 ? IcmpType.echoReply : Icmp6Type.echoReply;
    if (p.needsCsum) u8[p.transportAt] = replyType;
    else icmpEchoReplyInPlace(u8, p.transportAt, p.transportBytes, replyType);
    const headerBytes = p.transportAt - p.ipAt;
    const moreBytes = packetMoreBytes(p);
    const moreAt = moreBytes > 0 ? pool.slotAt(p.slotB) : 0;
    const f = guest.frame;
    if (
      headerBytes !== ipHeaderBytes(p.family) ||
      headerBytes + p.transportBytes > this.#ctx.addressing.mtu
    ) {
      // The request had options or extension headers, which a reply must not repeat unprocessed (RFC 1122
      // section 3.2.2.6), or it came in fragments and the reply leaves in fragments. A partial checksum
      // cannot be completed over fragments: a guest that asks for both is at fault.
      if (p.needsCsum) return this.#ctx.drop(StageDrop.tooLong);
      f.begin(p.family, p.proto);
      f.addresses(p.addr, 4, p.addr, 0);
      f.body(p.transportAt, p.transportBytesInA, moreAt, moreBytes);
      const sent = datagramToGuest(this.#ctx, f);
      if (sent === StageDrop.tooLong) this.#ctx.drop(sent);
      return;
    }
    const addressAt = p.ipAt + (p.family === 4 ? IPV4_SRC : IPV6_SRC);
    const addressBytes = p.family === 4 ? 4 : 16;
    for (let i = 0; i < addressBytes; i++) {
      const byte = u8[addressAt + i]!;
      u8[addressAt + i] = u8[addressAt + addressBytes + i]!;
      u8[addressAt + addressBytes + i] = byte;
    }
    if (p.family === 4) {
      u8[p.ipAt + 8] = DEFAULT_TTL;
      writeU16(u8, p.ipAt + IPV4_CHECKSUM, 0);
      writeU16(u8, p.ipAt + IPV4_CHECKSUM, finishSum(onesSum(u8, p.ipAt, headerBytes, 0)));
    } else u8[p.ipAt + 7] = DEFAULT_TTL;
    const type = p.family === 4 ? EtherType.ipv4 : EtherType.ipv6;
    f.beginPacket(type, p.ipAt, headerBytes + p.transportBytesInA);
    f.moreAt = moreAt;
    f.moreBytes = moreBytes;
    if (p.needsCsum) {
      f.transportAt = p.transportAt;
      f.checksumField = ICMP_CHECKSUM;
    }
    guest.send(f);
  }

  #toHost(p: Packet, destination: number): number {
    const ctx = this.#ctx;
    p.ports = (icmpEchoId(ctx.u8, p.transportAt) << 16) >>> 0;
    let flow: number = ctx.flows.find(p);
    if (flow < 0) {
      if (ctx.egress.refuses(p.addr, 4, destination, EgressProto.icmp, 0, ctx.now)) {
        prohibitedToGuest(ctx, p);
        return StageDrop.egressPolicy;
      }
      flow = ctx.flows.admit(Origin.guestDatagram, p);
      if (flow < 0) return StageDrop.flowTableFull;
      this.#open(flow, p, destination);
    }
    this.#lastMs[flow] = ctx.now;
    ctx.flows.fromGuestBytes[flow]! += p.transportBytes;
    const slotOffset = p.transportAt - ctx.pool.slotAt(p.slotA);
    const options = this.#options.change(flow, p);
    sendDatagramWrite(ctx.toHost, flow, p.slotA, p.slotB, slotOffset, p.transportBytes, options, 0);
    p.slotA = NO_SLOT;
    p.slotB = NO_SLOT;
    return 0;
  }

  #open(flow: number, p: Packet, destination: number): void {
    const ctx = this.#ctx;
    this.#state[flow] = State.open;
    this.#options.begin(flow);
    ctx.counters[Counter.pingFlows]!++;
    ctx.timers.arm(flow * TIMER_KINDS + TimerKind.idle, ctx.now + ctx.plan.policy.pingTimeoutMs);
    ctx.addressing.toHost(p.addr, 4, destination, this.#words, 0);
    openPingWrite(ctx.toHost, flow, p.family, this.#words, 0);
  }

  /**
   * Handle a message of host-io about a ping flow. Host-io's slots in it are given back here.
   * @param op  ToShard
   * @param words,at  the message
   */
  onMessage(op: number, words: Uint32Array, at: number): void {
    const ctx = this.#ctx;
    const flow = linkFlow(words, at);
    switch (op) {
      case ToShard.datagram: {
        const cause = this.#state[flow] === State.open ? this.#toGuest(flow, words, at) : StageDrop.echo;
        if (cause < 0) ctx.drop(cause);
        ctx.freeHostSlots(linkSlotA(words, at), linkSlotB(words, at));
        break;
      }
      case ToShard.icmpError:
        if (this.#state[flow] === State.open) this.#onError(flow, words, at);
        ctx.freeHostSlots(linkSlotA(words, at), NO_SLOT);
        break;
      case ToShard.openFailed:
        this.#onOpenFailed(flow, openFailedErrno(words, at));
        break;
      case ToShard.error:
        this.#close(flow);
        break;
      case ToShard.closed:
        this.#state[flow] = State.none;
        ctx.flows.release(flow);
        break;
    }
  }

  #toGuest(flow: number, words: Uint32Array, at: number): number {
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const slotA = linkSlotA(words, at);
    const slotB = linkSlotB(words, at);
    const slotOffset = linkSlotOffset(words, at);
    const bytes = linkBytes(words, at);
    if (bytes < ICMP_BYTES) return StageDrop.echo;
    const bodyAt = ctx.pool.slotAt(slotA) + slotOffset;
    const room = ctx.pool.slotBytes(slotA) - slotOffset;
    const bytesInA = slotB === NO_SLOT || bytes < room ? bytes : room;
    const proto = ctx.flows.proto[flow]!;
    const family = proto === IpProtocol.icmp ? 4 : 6;
    const reply = family === 4 ? IcmpType.echoReply : Icmp6Type.echoReply;
    if (icmpType(u8, bodyAt) !== reply) return StageDrop.echo;
    const ident = ctx.flows.ports[flow]! >>> 16;
    // ICMPv6's checksum covers the addresses, which differ on the TAP: the guest link computes it anew.
    if (family === 4) icmpEchoIdWrite(u8, bodyAt, ident);
    else writeU16(u8, bodyAt + 4, ident);
    this.#lastMs[flow] = ctx.now;
    if (ctx.flows.toGuestBytes[flow] === 0) ctx.flows.answered(flow);
    ctx.flows.toGuestBytes[flow]! += bytes;
    ctx.counters[Counter.datagramsToGuest]!++;
    const addr = ctx.flows.addr;
    const guestAt = flow * ADDR_WORDS;
    const f = ctx.guest.frame;
    f.begin(family, proto);
    f.addresses(addr, guestAt + 4, addr, guestAt);
    f.body(bodyAt, bytesInA, slotB === NO_SLOT ? 0 : ctx.pool.slotAt(slotB), bytes - bytesInA);
    f.ttl = datagramTtl(words, at) || DEFAULT_TTL;
    f.tos = datagramTos(words, at);
    if (family === 6) f.checksumField = ICMP_CHECKSUM;
    const sent = datagramToGuest(ctx, f);
    return sent === StageDrop.tooLong ? sent : 0;
  }

  #onError(flow: number, words: Uint32Array, at: number): void {
    const ctx = this.#ctx;
    const family = ctx.flows.proto[flow] === IpProtocol.icmp ? 4 : 6;
    let typeCode = icmpErrorTypeCode(words, at);
    if (typeCode === 0) typeCode = icmpForErrno(family, icmpErrorErrno(words, at));
    if (typeCode < 0 || !isCarriedError(family, typeCode >>> 8)) return;
    icmpCarriedErrorToGuest(ctx, flow, typeCode, icmpErrorSequence(words, at), words, at);
  }

  #onOpenFailed(flow: number, errno: number): void {
    const ctx = this.#ctx;
    if (this.#state[flow] !== State.open) return;
    if (errno === Errno.EACCES || errno === Errno.EPERM) {
      ctx.drop(StageDrop.pingForbidden);
      if (!this.#hasReportedForbidden) {
        this.#hasReportedForbidden = true;
        ctx.notices.tell(
          Notice.pingForbidden,
          'warning',
          'ping from the guest is dropped: this host does not let us open ping sockets; widen ' +
            'net.ipv4.ping_group_range (sysctl) so that it includes our group',
        );
      }
    } else {
      const family = ctx.flows.proto[flow] === IpProtocol.icmp ? 4 : 6;
      const typeCode = icmpForErrno(family, errno);
      if (typeCode >= 0) icmpFlowErrorToGuest(ctx, flow, typeCode, 0);
    }
    this.#close(flow);
  }

  /** The egress policy is another one: end the flow if it is not permitted now. */
  endIfDenied(flow: number): boolean {
    const { flows, addressing, egress } = this.#ctx;
    if (this.#state[flow] !== State.open) return false;
    const remoteAt = flow * ADDR_WORDS + 4;
    const destination = addressing.classify(flows.addr, remoteAt, 0);
    if (egress.stillPermits(flows.addr, remoteAt, destination, EgressProto.icmp, 0)) return false;
    const family = flows.proto[flow] === IpProtocol.icmp ? 4 : 6;
    icmpFlowErrorToGuest(this.#ctx, flow, prohibitedTypeCode(family), 0);
    this.#close(flow);
    return true;
  }

  /** The flow's state for reports. */
  stateOf(flow: number): FlowState {
    return this.#ctx.flows.toGuestBytes[flow]! > 0 ? FlowState.replied : FlowState.unreplied;
  }

  /**
   * A timer of a ping flow has fired: the flow ends if it was idle.
   * @param kind  TimerKind
   */
  onTimer(flow: number, kind: number): void {
    if (kind !== TimerKind.idle || this.#state[flow] !== State.open) return;
    const ctx = this.#ctx;
    const due = this.#lastMs[flow]! + ctx.plan.policy.pingTimeoutMs;
    if (due > ctx.now) ctx.timers.arm(flow * TIMER_KINDS + TimerKind.idle, due);
    else this.#close(flow);
  }

  /** End the flow: its key is free at once, its id when host-io has answered `closed`. */
  #close(flow: number): void {
    if (this.#state[flow] !== State.open) return;
    const ctx = this.#ctx;
    this.#state[flow] = State.awaitingClosed;
    ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.idle);
    ctx.flows.detach(flow);
    closeWrite(ctx.toHost, flow);
  }
}
