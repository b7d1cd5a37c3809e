/**
 * Which flows share a host socket: all of one guest endpoint (address and port), whatever shards they are on
 * (RFC 4787 REQ-1, endpoint-independent mapping).
 *
 *   guest 10.0.2.15:5000 ── endpoint 3 ──┬── flow 7  ── 192.0.2.1:53      one flow: the socket is connected to its peer. The kernel
 *                                        └── flow 12 ── 198.51.100.2:53   filters, and keeps the route.
 *                                                                         two: each datagram names its peer, and whose an incoming one is
 *                                                                         is looked up here.
 *
 * Two tables (flow-table.ts), whose ids mean endpoints and members:
 *
 *   endpoints   guest address, guest port, `way` (Outbound.wayOf)     -> endpoint
 *   members     endpoint, host-side address and port of the peer      -> gid of its flow
 *
 * Invariant: an endpoint that can be found has one flow or more; of two flows of an endpoint no two have the
 * same peer.
 */
import { addressCopy } from '../../proto/address.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import { NAME_BYTES, sockaddrWrite } from '../../sys/socket.ts';
import type { HashKey } from '../flow/flow-hash.ts';
import { ADDR_WORDS, FlowTable } from '../flow/flow-table.ts';
import { type FlowTuple, flowTupleHash, newFlowTuple } from '../flow/flow-tuple.ts';

/** An endpoint's number: a place in the table of endpoints. */
export type EndpointId = number & { readonly __id: 'endpoint' };

export const NO_ENDPOINT = -1 as EndpointId;
/** No flow, or more than one: the socket is not connected. */
const NOBODY = -1;

export class UdpEndpoints {
  readonly #hashKey: HashKey;
  readonly #endpoints: FlowTable;
  readonly #members: FlowTable;
  // By endpoint.
  readonly #flowCount: Uint32Array;
  readonly #only: Int32Array;
  // By member, by gid.
  readonly #gidOf: Int32Array;
  readonly #memberOf: Int32Array;
  readonly #endpointOf: Int32Array;
  readonly #nameBytes: Uint8Array;
  readonly #names: NativeBuffer;
  /** What is looked up; of an endpoint the remote address stays 0.0.0.0. */
  readonly #endpoint = newFlowTuple(0);
  /** The endpoint stands as the guest's address, an IPv4 one: those hash faster. */
  readonly #member = newFlowTuple(0);

  /** @param gids  most flows, and so most endpoints */
  constructor(hashKey: HashKey, gids: number) {
    this.#hashKey = hashKey;
    this.#endpoints = new FlowTable(gids);
    this.#members = new FlowTable(gids);
    this.#flowCount = new Uint32Array(gids);
    this.#only = new Int32Array(gids);
    this.#gidOf = new Int32Array(gids);
    this.#memberOf = new Int32Array(gids);
    this.#endpointOf = new Int32Array(gids);
    this.#nameBytes = new Uint8Array(gids);
    this.#names = new NativeBuffer(gids * NAME_BYTES);
  }

  /**
   * @param words,w  the guest's address
   * @param way  of Outbound.wayOf()
   * @returns the endpoint or NO_ENDPOINT
   */
  find(words: Uint32Array, w: number, port: number, way: number): EndpointId {
    const endpoint: number = this.#endpoints.find(this.#endpointTuple(words, w, port, way));
    return endpoint as EndpointId;
  }

  #endpointTuple(words: Uint32Array, w: number, port: number, way: number): FlowTuple {
    const tuple = this.#endpoint;
    addressCopy(words, w, tuple.addr, 0);
    tuple.ports = (port << 16) >>> 0;
    tuple.proto = way;
    flowTupleHash(this.#hashKey, tuple);
    return tuple;
  }

  #memberTuple(endpoint: EndpointId, words: Uint32Array, w: number, port: number): FlowTuple {
    const tuple = this.#member;
    tuple.addr[3] = endpoint;
    addressCopy(words, w, tuple.addr, 4);
    tuple.ports = port;
    flowTupleHash(this.#hashKey, tuple);
    return tuple;
  }

  /**
   * Make an endpoint that find() did not find, for a first flow to join. It always has room: there is a gid
   * for each.
   */
  add(words: Uint32Array, w: number, port: number, way: number): EndpointId {
    const endpoint: number = this.#endpoints.insert(this.#endpointTuple(words, w, port, way));
    this.#flowCount[endpoint] = 0;
    this.#only[endpoint] = NOBODY;
    return endpoint as EndpointId;
  }

  /** Forget an endpoint that no flow has joined. */
  remove(endpoint: EndpointId): void {
    this.#endpoints.remove(endpoint);
  }

  /**
   * Make a flow one of the endpoint's.
   * @param words,w  host-side address of its peer
   * @param scope  sin6_scope_id of the peer
   * @param connects  it may be the one that the socket is connected to, if it is the first
   * @returns false when another of its flows has the same peer (seen under two addresses by the guest):
   *   nothing is changed
   */
  join(
    endpoint: EndpointId,
    gid: number,
    words: Uint32Array,
    w: number,
    port: number,
    scope: number,
    connects: boolean,
  ): boolean {
    const tuple = this.#memberTuple(endpoint, words, w, port);
    if (this.#members.find(tuple) >= 0) return false;
    const member = this.#members.insert(tuple);
    this.#gidOf[member] = gid;
    this.#memberOf[gid] = member;
    this.#endpointOf[gid] = endpoint;
    this.#nameBytes[gid] = sockaddrWrite(this.#names.u8, gid * NAME_BYTES, words, w, port, scope);
    this.#only[endpoint] = this.#flowCount[endpoint]!++ === 0 && connects ? gid : NOBODY;
    return true;
  }

  /** A flow ends. @returns how many the endpoint has left; at 0 it is gone */
  leave(gid: number): number {
    const endpoint = this.#endpointOf[gid]!;
    this.#members.remove(this.#memberOf[gid]!);
    const left = --this.#flowCount[endpoint]!;
    // Not connected again when one is left: programs that speak to several soon speak to the next.
    if (left === 0) {
      this.#only[endpoint] = NOBODY;
      this.#endpoints.remove(endpoint);
    }
    return left;
  }

  /** How many flows an endpoint has. */
  flowCount(endpoint: EndpointId): number {
    return this.#flowCount[endpoint]!;
  }

  /** The flow that the endpoint's socket is connected for, or -1: it is not connected. */
  only(endpoint: EndpointId): number {
    return this.#only[endpoint]!;
  }

  /** @param words,w  host-side address of a peer @returns gid of the endpoint's flow with it, or -1 */
  flowOf(endpoint: EndpointId, words: Uint32Array, w: number, port: number): number {
    const member = this.#members.find(this.#memberTuple(endpoint, words, w, port));
    return member < 0 ? -1 : this.#gidOf[member]!;
  }

  /**
   * Address of the struct sockaddr of a flow's peer, of nameBytes(gid); it stays there as long as the flow.
   */
  nameAddress(gid: number): number {
    return this.#names.address + gid * NAME_BYTES;
  }

  nameBytes(gid: number): number {
    return this.#nameBytes[gid]!;
  }

  /** The guest's address into out[o..o+3]. @returns its port */
  guestOf(endpoint: EndpointId, out: Uint32Array, o: number): number {
    const { addr, ports } = this.#endpoints;
    for (let i = 0; i < 4; i++) out[o + i] = addr[endpoint * ADDR_WORDS + i]!;
    return ports[endpoint]! >>> 16;
  }

  /** The peer's host-side address into out[o..o+3]. @returns its port */
  peerOf(gid: number, out: Uint32Array, o: number): number {
    const { addr, ports } = this.#members;
    const member = this.#memberOf[gid]!;
    for (let i = 0; i < 4; i++) out[o + i] = addr[member * ADDR_WORDS + 4 + i]!;
    return ports[member]!;
  }
}
