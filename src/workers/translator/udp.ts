/**
 * UDP between the guest and host sockets. All flows of one endpoint of the guest (address and port) share one
 * socket. That is host-io's part (host-io/udp-endpoints.ts); a shard knows flows only.
 *
 *   guest 10.0.2.15:5000 -> 192.0.2.1:53
 *      find(flow) ── none ──▶ admit(flow), openUdp(192.0.2.1:53, preferred local port 5000)
 *      sendDatagram(flow, the slots in which it was received: no copy)
 *   host socket <- 192.0.2.1:53
 *      datagram(flow, payload with headroom) ──▶ UDP and IP header in front; udp-gso-batch.ts ──▶ TAP
 *   idle for 30 s, or 120 s once bidirectional (STREAM_AFTER_DATAGRAMS) ──▶ close ──▶ closed ──▶ id free
 *
 * With endpoint-independent filtering (RFC 4787 section 5) such a socket also receives from peers that the
 * guest has not sent to: their datagrams make flows like any other.
 *
 * A published port's socket is shared by all its peers: a peer's datagram makes a flow without a socket of
 * its own. The guest's answers are sent through the listener, from the local address that the peer sent to.
 *
 * The guest's TTL is set on the host's socket (traceroute), but not the peer's TTL on packets to the guest.
 * DF of probes is set likewise (send-options.ts): the host's kernel then refuses a datagram that exceeds the
 * path MTU, and the guest gets the MTU by ICMP, as from a router. Other datagrams are fragmented by the
 * host's kernel. DF is not carried through a published port's socket, which many flows share.
 *
 * TOS (DSCP and ECN) is carried to the host, and to the guest from the guest's first marked datagram on
 * (host-io/datagram/sender.ts).
 *
 * Datagrams to broadcast and multicast addresses are dropped and counted, except for DHCP (dhcp.ts,
 * dhcpv6.ts) and with policy.multicast: then such an address is the remote one of a flow like any other, and
 * answers of any peer to the same port of the guest are unsolicited datagrams. Queries to the dns address are
 * handled by dns-forward.ts.
 */

import { addressCopy, addressEqual, familyOf, isUnspecified } from '../../proto/address.ts';
import { DHCP_SERVER_PORT } from '../../proto/dhcp.ts';
import { DHCPV6_SERVER_PORT } from '../../proto/dhcpv6.ts';
import { DNS_PORT } from '../../proto/dns.ts';
import { Drop } from '../../proto/drop.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import {
  UDP_BYTES,
  udpChecksum,
  udpDstPort,
  udpHeaderBytes,
  udpLength,
  udpSrcPort,
} from '../../proto/udp.ts';
import { VnetGso } from '../../proto/vnethdr.ts';
import { Counter } from '../../ring/counters.ts';
import { NO_SLOT } from '../../ring/pool.ts';
import { Destination } from '../flow/addressing.ts';
import { EgressProto } from '../flow/egress-policy.ts';
import { FlowState } from '../flow/flow-report.ts';
import { ADDR_WORDS, NO_FLOW } from '../flow/flow-table.ts';
import { flowTupleHash, newFlowTuple } from '../flow/flow-tuple.ts';
import { GroupKind } from '../flow/group-rules.ts';
import { quotedFlow, quotedProtocol } from '../flow/quoted-flow.ts';
import { Origin } from '../flow/shard-flows.ts';
import { linkBytes, linkFlow, linkSlotA, linkSlotB, linkSlotOffset } from '../link/descriptor.ts';
import { StageDrop } from '../link/stage-drop.ts';
import { closeWrite, openUdpWrite, sendDatagramWrite, sendFromListenerWrite } from '../link/to-host.ts';
import {
  datagramGsoSize,
  datagramGuestPort,
  datagramPeerAt,
  datagramPeerPort,
  datagramTos,
  icmpErrorErrno,
  icmpErrorTypeCode,
  listenerDatagramGuest,
  listenerDatagramIndex,
  listenerDatagramLocalAt,
  listenerDatagramTos,
  listenerDatagramZone,
  openFailedErrno,
  ToShard,
  unsolicitedDatagramGuestAt,
  unsolicitedDatagramTos,
} from '../link/to-shard.ts';
import { isOutOfDescriptors } from '../thread/descriptor-shortage.ts';
import { isLinkLocalGroup } from './chatter.ts';
import { type ShardContext, TIMER_KINDS, TimerKind } from './context.ts';
import { handleDhcp } from './dhcp.ts';
import { handleDhcpv6, isDhcpv6Group } from './dhcpv6.ts';
import { DnsForward } from './dns-forward.ts';
import {
  icmpCarriedErrorToGuest,
  icmpFlowErrorToGuest,
  icmpForErrno,
  isCarriedError,
  prohibitedToGuest,
  prohibitedTypeCode,
  refusalToGuest,
} from './icmp-errors.ts';
import { OtherPorts } from './other-port.ts';
import { type Packet, packetChecksumOk, packetFree } from './packet.ts';
import type { ResolverChoice } from './resolvers.ts';
import { SendOptions } from './send-options.ts';
import { pseudoSumWords } from './to-guest.ts';
import { UdpGsoBatch } from './udp-gso-batch.ts';

/** Of a flow. connected: it has a host socket; viaListener: it uses a published port's socket. */
const State = { none: 0, connected: 1, viaListener: 2, awaitingClosed: 3 } as const;
/**
 * Datagrams of a flow are counted up to this number in each direction. A flow with datagrams in both
 * directions, and so many in one, counts as bidirectional: nf_conntrack's ASSURED.
 */
const STREAM_AFTER_DATAGRAMS = 2;
/** Result of #findOther(): no such flow, and none may begin. */
const NOT_FOUND = -2;
/** Words of #peer for each flow. */
const PEER_WORDS = 10;

/** The UDP flows of one shard, and its DNS and DHCP. */
export class UdpTranslator {
  readonly dns: DnsForward;
  readonly #ctx: ShardContext;
  readonly #resolvers: ResolverChoice;
  // By flow.
  readonly #state: Uint8Array;
  /** When the last datagram passed, monotonic milliseconds. */
  readonly #lastMs: Float64Array;
  /** Datagrams each way, counted up to STREAM_AFTER_DATAGRAMS. */
  readonly #fromGuest: Uint8Array;
  readonly #toGuest: Uint8Array;
  /**
   * Flows with State.viaListener: the listener's index; and PEER_WORDS each: 0..3 the peer's host-side
   * address, 4..7 the local address that it sent to, 8 interface index, 9 the peer's port.
   */
  readonly #listener: Uint32Array;
  readonly #peer: Uint32Array;
  readonly #words = new Uint32Array(4);
  readonly #otherPorts: OtherPorts;
  /** Number of flows that appear to the guest with another source port than the peer's. */
  #otherCount = 0;
  /** Key of the flow that a message or an ICMP error belongs to. */
  readonly #tuple = newFlowTuple(IpProtocol.udp);
  readonly #batch: UdpGsoBatch;
  readonly #options: SendOptions;

  constructor(ctx: ShardContext, resolvers: ResolverChoice) {
    this.#ctx = ctx;
    this.#resolvers = resolvers;
    this.dns = new DnsForward(ctx, resolvers);
    this.#batch = new UdpGsoBatch(ctx);
    this.#otherPorts = new OtherPorts(ctx);
    const flows = ctx.flows.maxFlows;
    this.#state = new Uint8Array(flows);
    this.#lastMs = new Float64Array(flows);
    this.#fromGuest = new Uint8Array(flows);
    this.#toGuest = new Uint8Array(flows);
    this.#options = new SendOptions(flows);
    this.#listener = new Uint32Array(flows);
    this.#peer = new Uint32Array(flows * PEER_WORDS);
    ctx.flows.onGiveWay(IpProtocol.udp, (flow) => this.#close(flow));
  }

  /** Handle a UDP packet of the guest. Takes over its slots. */
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
    if (p.transportBytesInA < UDP_BYTES) return Drop.short;
    const header = udpHeaderBytes(u8, p.transportAt, p.transportBytes);
    if (header < 0) return header;
    const udpBytes = udpLength(u8, p.transportAt);
    if (!this.#checksumOk(p, udpBytes)) return Drop.udpChecksum;
    const srcPort = udpSrcPort(u8, p.transportAt);
    const dstPort = udpDstPort(u8, p.transportAt);
    const isGroup = ctx.addressing.isGroup(p.addr, 4);
    if (dstPort === DHCP_SERVER_PORT && p.family === 4 && (isGroup || this.#isDhcpServer(p))) {
      handleDhcp(ctx, p);
      return 0;
    }
    if (dstPort === DHCPV6_SERVER_PORT && p.family === 6 && isDhcpv6Group(p.addr, 4)) {
      handleDhcpv6(ctx, p);
      return 0;
    }
    if (!ctx.plan.policy.udp) return StageDrop.switchedOff;
    if (isGroup && (srcPort === 0 || ctx.groups?.maySend(p.addr, 4, dstPort) !== true)) {
      if (!isLinkLocalGroup(p.addr, 4)) return StageDrop.group;
      ctx.counters[Counter.linkLocalDatagrams]!++;
      return 0;
    }
    if (dstPort === 0 || isUnspecified(p.addr, 0)) return StageDrop.destination;

    p.ports = ((srcPort << 16) | dstPort) >>> 0;
    let flow: number = ctx.flows.find(p);
    if (flow < 0) {
      const destination = isGroup ? Destination.world : ctx.addressing.classify(p.addr, 4, dstPort);
      switch (destination) {
        case Destination.invalid:
          return StageDrop.destination;
        case Destination.dns:
          if (dstPort === DNS_PORT || this.#resolvers.of(p.family).count === 0) {
            this.dns.onQuery(p);
            return 0;
          }
          break;
        case Destination.gateway:
          refusalToGuest(ctx, p);
          return 0;
      }
      if (ctx.egress.refuses(p.addr, 4, destination, EgressProto.udp, dstPort, ctx.now)) {
        // RFC 1122 section 3.2.2: no ICMP error about a datagram to a group or broadcast address.
        if (!isGroup) prohibitedToGuest(ctx, p);
        return StageDrop.egressPolicy;
      }
      flow = ctx.flows.admit(Origin.guestDatagram, p);
      if (flow < 0) return StageDrop.flowTableFull;
      this.#open(flow, p, destination);
    }
    this.#lastMs[flow] = ctx.now;
    if (this.#fromGuest[flow]! < STREAM_AFTER_DATAGRAMS) {
      this.#fromGuest[flow]!++;
      this.#progress(flow);
    }
    this.#send(flow, p, udpBytes - UDP_BYTES);
    return 0;
  }

  /**
   * Handle an ICMP error by which the guest says that a port is closed: the host's socket is closed too, so
   * that the host's kernel answers the peer with the same error. On a published port the socket stays open,
   * as it serves other peers.
   * @param p  an ICMP or ICMPv6 packet of the guest
   * @returns whether the packet was such an error, about a flow with a socket of its own
   */
  onUnreachable(p: Packet): boolean {
    const ctx = this.#ctx;
    const tuple = this.#tuple;
    const ports = quotedFlow(ctx.u8, p.transportAt, p.transportBytesInA, p.family, tuple.addr);
    if (ports < 0 || quotedProtocol(ctx.u8, p.transportAt, p.family) !== IpProtocol.udp) return false;
    // The error's source must be the host whose port it is about.
    if (!addressEqual(tuple.addr, 0, p.addr, 0)) return false;
    tuple.ports = ports;
    tuple.hash = p.hash;
    const flow = ctx.flows.find(tuple);
    if (flow < 0 || this.dns.owns(flow) || this.#state[flow] !== State.connected) return false;
    ctx.counters[Counter.portsClosedByGuest]!++;
    this.#close(flow);
    return true;
  }

  #checksumOk(p: Packet, udpBytes: number): boolean {
    // Checksum offload: the guest's kernel has not computed a checksum.
    if (p.needsCsum) return true;
    if (udpChecksum(this.#ctx.u8, p.transportAt) === 0) return p.family === 4; // no checksum, which IPv6 forbids
    const pseudo = pseudoSumWords(p.family, p.addr, 0, p.addr, 4, IpProtocol.udp, udpBytes);
    return packetChecksumOk(this.#ctx, p, udpBytes, pseudo);
  }

  #isDhcpServer(p: Packet): boolean {
    return p.addr[7] === this.#ctx.addressing.dhcpServer;
  }

  #begin(flow: number, state: number): void {
    const ctx = this.#ctx;
    this.#state[flow] = state;
    this.#fromGuest[flow] = 0;
    this.#toGuest[flow] = 0;
    this.#options.begin(flow);
    this.#lastMs[flow] = ctx.now;
    ctx.counters[Counter.udpFlows]!++;
    ctx.timers.arm(flow * TIMER_KINDS + TimerKind.idle, ctx.now + ctx.plan.policy.udpTimeoutMs);
  }

  #open(flow: number, p: Packet, destination: number): void {
    const ctx = this.#ctx;
    let zone = 0;
    if (destination === Destination.dns) {
      const resolvers = this.#resolvers.of(p.family);
      const index = resolvers.pick(ctx.now, 0);
      addressCopy(resolvers.words, index * 4, this.#words, 0);
      zone = resolvers.zones[index]!;
    } else ctx.addressing.toHost(p.addr, 4, destination, this.#words, 0);
    this.#openSocket(flow, this.#words, 0, zone);
  }

  /**
   * @param words,w0  host-side address of the peer
   * @param zone  index of the interface through which the peer is reached; 0: the plan's
   */
  #openSocket(flow: number, words: Uint32Array, w0: number, zone: number): void {
    const ctx = this.#ctx;
    this.#begin(flow, State.connected);
    const { addr } = ctx.flows;
    const ports = ctx.flows.ports[flow]!;
    const remoteAndGuest = ((ports << 16) | (ports >>> 16)) >>> 0;
    const group = ctx.groups?.kindOf(words, w0) ?? GroupKind.none;
    openUdpWrite(ctx.toHost, flow, remoteAndGuest, words, w0, addr, flow * ADDR_WORDS, zone, true, group);
  }

  #send(flow: number, p: Packet, bytes: number): void {
    const ctx = this.#ctx;
    ctx.flows.fromGuestBytes[flow]! += bytes;
    const out = ctx.toHost;
    const { slotA, slotB } = p;
    const slotOffset = p.transportAt + UDP_BYTES - ctx.pool.slotAt(slotA);
    if (this.#state[flow] === State.viaListener) {
      const peer = this.#peer;
      const k = flow * PEER_WORDS;
      const listener = this.#listener[flow]!;
      const zone = peer[k + 8]!;
      const port = peer[k + 9]!;
      sendFromListenerWrite(out, listener, zone, slotA, slotB, slotOffset, bytes, port, peer, k, p.tos);
    } else {
      const gsoSize = p.gsoType === VnetGso.udpL4 && bytes > p.gsoSize ? p.gsoSize : 0;
      const toGroup = ctx.groups !== null && ctx.groups.kindOf(p.addr, 4) !== GroupKind.none;
      const options = this.#options.change(flow, p, toGroup);
      sendDatagramWrite(out, flow, slotA, slotB, slotOffset, bytes, options, gsoSize);
    }
    p.slotA = NO_SLOT;
    p.slotB = NO_SLOT;
  }

  /**
   * Handle a message of host-io about a UDP flow, or a datagram on a published port. Takes over the message's
   * slots.
   * @param op  ToShard
   * @param words,at  the message
   */
  onMessage(op: number, words: Uint32Array, at: number): void {
    const ctx = this.#ctx;
    if (op === ToShard.listenerDatagram) {
      const cause = this.#onListenerDatagram(words, at);
      if (cause < 0) this.#discard(words, at, cause);
      return;
    }
    if (op === ToShard.unsolicitedDatagram) {
      const cause = this.#onUnsolicited(words, at);
      if (cause < 0) this.#discard(words, at, cause);
      return;
    }
    const flow = linkFlow(words, at);
    if (this.dns.owns(flow)) {
      this.dns.onMessage(op, words, at);
      return;
    }
    // The batch leaves first: its datagrams were received before this message, and need the flow's addresses.
    if (op !== ToShard.datagram) this.flush();
    switch (op) {
      case ToShard.datagram:
        if (this.#state[flow] === State.connected)
          this.#toGuestAt(flow, words, at, datagramGsoSize(words, at), datagramTos(words, at));
        else this.#discard(words, at, StageDrop.noSocket);
        break;
      case ToShard.icmpError:
        if (this.#state[flow] === State.connected) this.#onError(flow, words, at);
        ctx.freeHostSlots(linkSlotA(words, at), NO_SLOT);
        break;
      case ToShard.openFailed:
        if (this.#state[flow] !== State.connected) break;
        if (!this.#isToGroup(flow)) this.#onErrno(flow, openFailedErrno(words, at));
        this.#close(flow);
        if (isOutOfDescriptors(openFailedErrno(words, at))) ctx.flows.giveDescriptor(flow);
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

  /** Send a message's payload, which has headroom in front, to the guest. Takes over the slots. */
  #toGuestAt(flow: number, words: Uint32Array, at: number, gsoSize: number, tos: number): void {
    this.#lastMs[flow] = this.#ctx.now;
    if (this.#toGuest[flow]! < STREAM_AFTER_DATAGRAMS) {
      this.#toGuest[flow]!++;
      this.#progress(flow);
    }
    const bytes = linkBytes(words, at);
    this.#ctx.flows.toGuestBytes[flow]! += bytes;
    const slotOffset = linkSlotOffset(words, at);
    this.#batch.add(flow, linkSlotA(words, at), linkSlotB(words, at), slotOffset, bytes, gsoSize, tos);
  }

  /** Send the datagrams that are held for coalescing. Called at the end of each batch of messages. */
  flush(): void {
    this.#batch.flush();
  }

  #discard(words: Uint32Array, at: number, cause: number): void {
    this.#ctx.drop(cause);
    this.#ctx.freeHostSlots(linkSlotA(words, at), linkSlotB(words, at));
  }

  /**
   * A datagram from a peer of a published port. The peer's first datagram makes the flow.
   * @returns 0: the slots are taken over; or the cause of the drop, below zero
   */
  #onListenerDatagram(words: Uint32Array, at: number): number {
    const ctx = this.#ctx;
    const tuple = this.#tuple;
    listenerDatagramGuest(ctx.u8, ctx.pool.slotAt(linkSlotA(words, at)), tuple.addr, 0);
    ctx.addressing.fromHost(words, datagramPeerAt(at), tuple.addr, 4);
    const peerPort = datagramPeerPort(words, at);
    if (isUnspecified(tuple.addr, 4) || peerPort === 0) return StageDrop.destination;
    tuple.ports = ((datagramGuestPort(words, at) << 16) | peerPort) >>> 0;
    flowTupleHash(ctx.plan.hashKey, tuple);
    let flow: number = ctx.flows.find(tuple);
    // The flow with this key is another peer's or another published port's, whose addresses and ports are the
    // same on the TAP.
    const taken = flow >= 0 && this.#state[flow] === State.viaListener && !this.#isOf(flow, words, at);
    let isOther = false;
    if (taken || (flow < 0 && this.#otherCount > 0)) {
      const other = this.#findOther(words, at, taken);
      isOther = other !== NOT_FOUND;
      if (isOther) flow = other;
      else if (taken) return StageDrop.flowTableFull;
    }
    if (flow < 0) {
      flow = ctx.flows.admit(Origin.inboundDatagram, isOther ? this.#otherPorts.tuple : tuple);
      if (flow < 0) return StageDrop.flowTableFull;
      this.#begin(flow, State.viaListener);
      if (isOther) this.#otherCount++;
    }
    if (this.#state[flow] === State.viaListener) {
      this.#listener[flow] = listenerDatagramIndex(words, at);
      const peer = this.#peer;
      const i = flow * PEER_WORDS;
      addressCopy(words, datagramPeerAt(at), peer, i);
      addressCopy(words, listenerDatagramLocalAt(at), peer, i + 4);
      peer[i + 8] = listenerDatagramZone(words, at);
      peer[i + 9] = peerPort;
    }
    this.#toGuestAt(flow, words, at, 0, listenerDatagramTos(words, at));
    return 0;
  }

  /** Whether a listenerDatagram belongs to the flow: same listener, peer address and port. */
  #isOf(flow: number, words: Uint32Array, at: number): boolean {
    const peer = this.#peer;
    const k = flow * PEER_WORDS;
    return (
      this.#listener[flow] === listenerDatagramIndex(words, at) &&
      peer[k + 9] === datagramPeerPort(words, at) &&
      addressEqual(peer, k, words, datagramPeerAt(at))
    );
  }

  /**
   * Find the flow of a listenerDatagram, whose key is in this.#tuple, among the flows with a substitute
   * source port (other-port.ts).
   * @param mayBegin  if there is none: choose a free source port and leave the key in #otherPorts.tuple
   * @returns the flow; NO_FLOW (-1): a new one may begin with the key in #otherPorts.tuple; or NOT_FOUND
   */
  #findOther(words: Uint32Array, at: number, mayBegin: boolean): number {
    const { flows } = this.#ctx;
    const tuple = this.#tuple;
    const other = this.#otherPorts;
    let free = -1;
    // All candidates are tried, as one before the flow's may be free again. That is slow, but the case is
    // rare.
    for (let k = 0; k < other.tries; k++) {
      if (!other.at(k, tuple)) continue;
      const flow = flows.find(other.tuple);
      if (flow < 0) {
        if (free < 0) free = k;
      } else if (this.#state[flow] === State.viaListener && this.#isOf(flow, words, at)) return flow;
    }
    if (free < 0 || !mayBegin) return NOT_FOUND;
    other.at(free, tuple);
    return NO_FLOW;
  }

  /**
   * A datagram from a peer to which the guest had not sent from this port when host-io received it. There may
   * be a flow by now: an earlier datagram's.
   * @returns 0: the slots are taken over; or the cause of the drop, below zero
   */
  #onUnsolicited(words: Uint32Array, at: number): number {
    const ctx = this.#ctx;
    const { flows } = ctx;
    const tuple = this.#tuple;
    addressCopy(words, unsolicitedDatagramGuestAt(at), tuple.addr, 0);
    ctx.addressing.fromHost(words, datagramPeerAt(at), tuple.addr, 4);
    tuple.ports = ((datagramGuestPort(words, at) << 16) | datagramPeerPort(words, at)) >>> 0;
    flowTupleHash(ctx.plan.hashKey, tuple);
    let flow: number = flows.find(tuple);
    if (flow < 0) {
      // The guest could answer: the port is its own, not a published one.
      if (!this.#permits(tuple.addr, 4, tuple.ports & 0xffff)) return StageDrop.egressPolicy;
      flow = flows.admit(Origin.inboundDatagram, tuple);
      if (flow < 0) return StageDrop.flowTableFull;
      this.#openSocket(flow, words, datagramPeerAt(at), 0);
    }
    this.#toGuestAt(flow, words, at, datagramGsoSize(words, at), unsolicitedDatagramTos(words, at));
    return 0;
  }

  #permits(words: Uint32Array, w: number, port: number): boolean {
    const { addressing, egress } = this.#ctx;
    return egress.stillPermits(words, w, addressing.classify(words, w, port), EgressProto.udp, port);
  }

  /**
   * The egress policy is another one: end the flow if it has a socket of its own and is not permitted now.
   * Flows of published ports stay.
   */
  endIfDenied(flow: number): boolean {
    const { flows } = this.#ctx;
    if (this.#state[flow] !== State.connected) return false;
    if (this.#permits(flows.addr, flow * ADDR_WORDS + 4, flows.ports[flow]! & 0xffff)) return false;
    if (!this.#isToGroup(flow))
      icmpFlowErrorToGuest(this.#ctx, flow, prohibitedTypeCode(this.#familyOf(flow)), 0);
    this.#close(flow);
    return true;
  }

  #familyOf(flow: number): 4 | 6 {
    return familyOf(this.#ctx.flows.addr, flow * ADDR_WORDS);
  }

  /** RFC 1122 section 3.2.2: a datagram to a group or broadcast address causes no ICMP error. */
  #isToGroup(flow: number): boolean {
    const { groups, flows } = this.#ctx;
    return groups !== null && groups.kindOf(flows.addr, flow * ADDR_WORDS + 4) !== GroupKind.none;
  }

  /** Pass an ICMP error for the flow's socket on to the guest. */
  #onError(flow: number, words: Uint32Array, at: number): void {
    const ctx = this.#ctx;
    const typeCode = icmpErrorTypeCode(words, at);
    if (this.#isToGroup(flow)) return;
    if (typeCode === 0) return this.#onErrno(flow, icmpErrorErrno(words, at));
    if (isCarriedError(this.#familyOf(flow), typeCode >>> 8))
      icmpCarriedErrorToGuest(ctx, flow, typeCode, 0, words, at);
  }

  /** Send the ICMP error for an errno to the guest, if there is one. */
  #onErrno(flow: number, errno: number): void {
    const typeCode = icmpForErrno(this.#familyOf(flow), errno);
    if (typeCode >= 0) icmpFlowErrorToGuest(this.#ctx, flow, typeCode, 0);
  }

  /** The flow's state for reports. */
  stateOf(flow: number): FlowState {
    const both = this.#fromGuest[flow]! > 0 && this.#toGuest[flow]! > 0;
    return both ? FlowState.replied : FlowState.unreplied;
  }

  /**
   * One of a flow's first datagrams was counted: the counts of both directions decide whether and when the
   * flow gives way (shard-flows.ts).
   */
  #progress(flow: number): void {
    const fromGuest = this.#fromGuest[flow]!;
    const toGuest = this.#toGuest[flow]!;
    if (fromGuest === 0 || toGuest === 0) return;
    if (fromGuest === STREAM_AFTER_DATAGRAMS || toGuest === STREAM_AFTER_DATAGRAMS)
      this.#ctx.flows.settle(flow);
    else this.#ctx.flows.answered(flow);
  }

  /**
   * A timer of a UDP flow has fired.
   * @param kind  TimerKind
   */
  onTimer(flow: number, kind: number): void {
    if (kind !== TimerKind.idle) return;
    if (this.dns.owns(flow)) {
      this.dns.onTimer(flow);
      return;
    }
    const state = this.#state[flow];
    if (state !== State.connected && state !== State.viaListener) return;
    const ctx = this.#ctx;
    const policy = ctx.plan.policy;
    const both = this.#fromGuest[flow]! > 0 && this.#toGuest[flow]! > 0;
    const isStream =
      both &&
      (this.#fromGuest[flow] === STREAM_AFTER_DATAGRAMS || this.#toGuest[flow] === STREAM_AFTER_DATAGRAMS);
    const due = this.#lastMs[flow]! + (isStream ? policy.udpStreamTimeoutMs : policy.udpTimeoutMs);
    if (due > ctx.now) ctx.timers.arm(flow * TIMER_KINDS + TimerKind.idle, due);
    else this.#close(flow);
  }

  /**
   * End the flow. Its key is free at once; its id too if it has no socket, else when host-io has answered
   * `closed`.
   */
  #close(flow: number): void {
    const ctx = this.#ctx;
    const state = this.#state[flow];
    if (state !== State.connected && state !== State.viaListener) return;
    ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.idle);
    if (state === State.viaListener) {
      if (this.#peer[flow * PEER_WORDS + 9] !== (ctx.flows.ports[flow]! & 0xffff)) this.#otherCount--;
      this.#state[flow] = State.none;
      ctx.flows.remove(flow);
      return;
    }
    this.#state[flow] = State.awaitingClosed;
    ctx.flows.detach(flow);
    closeWrite(ctx.toHost, flow);
  }
}
