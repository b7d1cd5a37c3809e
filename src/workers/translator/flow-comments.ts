/**
 * What a capture says about flows: a comment on the first frame of a flow, on the first one that shows which
 * host socket it has, and on the one that ends a TCP connection.
 */
import { addressCopy, addressText, isV4Mapped } from '../../proto/address.ts';
import type { FrameHeaders } from '../../proto/frame-filter.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import { TcpFlag } from '../../proto/tcp.ts';
import type { FlowComments } from '../capture/frame-capture.ts';
import type { HashKey } from '../flow/flow-hash.ts';
import { ADDR_WORDS } from '../flow/flow-table.ts';
import { flowTupleHash, newFlowTuple } from '../flow/flow-tuple.ts';
import type { ShardFlows } from '../flow/shard-flows.ts';
import type { SocketNames } from '../flow/socket-names.ts';

/** What is known about a TCP connection when it ends. */
export interface TcpStatistics {
  /** Acknowledged by the guest. */
  deliveredBytes(flow: number): number;
  /** Segments that were sent again, and time-outs. */
  resent(flow: number): number;
  /** Milliseconds; 0: not measured. */
  rttMs(flow: number): number;
}

/** A flow of which a frame was captured for the first time is said to begin when it is no older. */
const BEGINS_MS = 500;

const Seen = { finFromGuest: 1, finToGuest: 2, ended: 4, socket: 8, begunByGuest: 16 } as const;

export interface FlowCommentsOptions {
  readonly flows: ShardFlows;
  readonly hashKey: HashKey;
  readonly tcp: TcpStatistics;
  readonly names: SocketNames;
  /** gid of the shard's flow 0. */
  readonly firstGid: number;
  /** "lane 1", "shard 0"; empty: there is only one. */
  readonly where: string;
}

export class ShardFlowComments implements FlowComments {
  readonly #o: FlowCommentsOptions;
  readonly #tuple = newFlowTuple(IpProtocol.tcp);
  readonly #addresses = new Uint32Array(8);
  /** By flow: FlowTable.bornMs of the one that was mentioned, and bits of Seen. */
  readonly #born: Float64Array;
  readonly #seen: Uint8Array;

  constructor(options: FlowCommentsOptions) {
    this.#o = options;
    this.#born = new Float64Array(options.flows.maxFlows);
    this.#seen = new Uint8Array(options.flows.maxFlows);
  }

  flowOf(headers: FrameHeaders): number {
    const { protocol, ports, addresses, fromGuest, hasAddresses } = headers;
    if (!hasAddresses || ports < 0) return -1;
    const tuple = this.#tuple;
    tuple.proto = protocol;
    // Echo messages have the identifier in the place of the guest's port, in both directions.
    const isPing = protocol === IpProtocol.icmp || protocol === IpProtocol.icmpv6;
    tuple.ports = fromGuest || isPing ? ports : ((ports << 16) | (ports >>> 16)) >>> 0;
    addressCopy(addresses, fromGuest ? 0 : 4, tuple.addr, 0);
    addressCopy(addresses, fromGuest ? 4 : 0, tuple.addr, 4);
    flowTupleHash(this.#o.hashKey, tuple);
    return this.#o.flows.find(tuple);
  }

  of(headers: FrameHeaders, before: number): string {
    const { protocol, tcpFlags } = headers;
    const isTcp = protocol === IpProtocol.tcp;
    if (isTcp && (tcpFlags & (TcpFlag.syn | TcpFlag.fin | TcpFlag.rst)) === 0) return '';
    // The frame may have ended its flow. What is known about it stays until the id is used again.
    const found = this.flowOf(headers);
    const flow = found < 0 ? before : found;
    if (flow < 0) return '';
    const { flows } = this.#o;
    const isNew = this.#born[flow] !== flows.bornMs[flow];
    if (isNew) {
      this.#born[flow] = flows.bornMs[flow]!;
      this.#seen[flow] = headers.fromGuest ? Seen.begunByGuest : 0;
    }
    const begins = isNew && (!isTcp || (tcpFlags & TcpFlag.syn) !== 0);
    const parts = [begins ? this.#begins(flow, headers) : '', this.#socket(flow, headers)];
    if (isTcp) parts.push(this.#ends(flow, headers));
    return parts.filter((part) => part !== '').join('; ');
  }

  #begins(flow: number, { protocol, fromGuest }: FrameHeaders): string {
    const { flows, where } = this.#o;
    const at = flow * ADDR_WORDS;
    const isPing = protocol === IpProtocol.icmp || protocol === IpProtocol.icmpv6;
    const name = isPing ? 'ping' : protocol === IpProtocol.tcp ? 'tcp' : 'udp';
    const ports = flows.ports[flow]!;
    const guest = endpoint(flows.addr, at, isPing ? -1 : ports >>> 16);
    const remote = endpoint(flows.addr, at + 4, isPing ? -1 : ports & 0xffff);
    const path = fromGuest
      ? `${guest} > ${remote}, of the guest`
      : `${remote} > ${guest}, to a published port`;
    const ageMs = flows.nowMs - flows.bornMs[flow]!;
    // A capture may begin later than the flow.
    const begins = ageMs < BEGINS_MS ? 'begins' : `has run for ${(ageMs / 1000).toFixed(3)} s`;
    return `flow ${flow} ${begins}${where === '' ? '' : ` in ${where}`}: ${name} ${path}`;
  }

  /** Of the first frame after which host-io has surely noted the socket. */
  #socket(flow: number, headers: FrameHeaders): string {
    const seen = this.#seen[flow]!;
    if (seen & Seen.socket) return '';
    const isTcp = headers.protocol === IpProtocol.tcp;
    const begunByGuest = (seen & Seen.begunByGuest) !== 0;
    if (isTcp ? (headers.tcpFlags & TcpFlag.ack) === 0 : begunByGuest && headers.fromGuest) return '';
    const addresses = this.#addresses;
    const ports = this.#o.names.read(this.#o.firstGid + flow, addresses);
    if (ports < 0) return '';
    const [local, remote] = [Math.floor(ports / 0x1_0000), ports & 0xffff];
    // An entry of an older flow with this id.
    if (isTcp && !begunByGuest && remote !== (this.#o.flows.ports[flow]! & 0xffff)) return '';
    this.#seen[flow] = seen | Seen.socket;
    const peer = remote === 0 ? '' : `, peer ${endpoint(addresses, 4, remote)}`;
    return `host socket of flow ${flow}: ${endpoint(addresses, 0, local)}${peer}`;
  }

  #ends(flow: number, { fromGuest, tcpFlags }: FrameHeaders): string {
    const { flows, tcp } = this.#o;
    let seen = this.#seen[flow]!;
    if (tcpFlags & TcpFlag.fin) seen |= fromGuest ? Seen.finFromGuest : Seen.finToGuest;
    const both = Seen.finFromGuest | Seen.finToGuest;
    const isReset = (tcpFlags & TcpFlag.rst) !== 0;
    const ends = (seen & Seen.ended) === 0 && (isReset || (seen & both) === both);
    this.#seen[flow] = ends ? seen | Seen.ended : seen;
    if (!ends) return '';
    const rttMs = tcp.rttMs(flow);
    const how = isReset ? ` by a reset of ${fromGuest ? 'the guest' : 'the host side'}` : '';
    const rtt = rttMs > 0 ? `, rtt ${rttMs.toFixed(3)} ms` : '';
    const seconds = (flows.nowMs - flows.bornMs[flow]!) / 1000;
    return `flow ${flow} ends${how} after ${seconds.toFixed(3)} s: ${flows.fromGuestBytes[flow]} bytes from the guest, ${tcp.deliveredBytes(flow)} to the guest, ${tcp.resent(flow)} segments sent again${rtt}`;
  }
}

function endpoint(words: Uint32Array, w: number, port: number): string {
  const text = addressText(words, w);
  if (port < 0) return text;
  return isV4Mapped(words, w) ? `${text}:${port}` : `[${text}]:${port}`;
}
