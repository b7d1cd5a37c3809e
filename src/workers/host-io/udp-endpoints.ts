/**
 * Which UDP flows share a host socket: all flows of one guest endpoint (address and port), on whatever shards
 * they are (RFC 4787 REQ-1, endpoint-independent mapping).
 *
 *   guest 10.0.2.15:5000 ── endpoint 3 ──┬── flow 7  ── 192.0.2.1:53
 *                                        └── flow 12 ── 198.51.100.2:53
 *
 * While an endpoint has one flow, its socket is connected to the peer: the kernel drops datagrams of others
 * and keeps the route. With two flows and more each datagram that is sent names its peer, and the flow of a
 * received datagram is looked up here by its peer.
 *
 * Two tables (flow-table.ts), whose ids are endpoints and members:
 *
 *   endpoints   guest address, guest port, `way` (Outbound.wayOf)     -> endpoint
 *   members     endpoint, host-side address and port of the peer      -> gid of its flow
 *
 * Invariant: an endpoint that find() returns has at least one flow, except between add() and join(); no two
 * flows of an endpoint have the same peer.
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
  /** By member. */
  readonly #gidOf: Int32Array;
  // By gid.
  readonly #memberOf: Int32Array;
  readonly #endpointOf: Int32Array;
  /** Bytes of the flow's sockaddr in #names. */
  readonly #nameBytes: Uint8Array;
  readonly #names: NativeBuffer;
  /** Key of an endpoint; the remote address stays 0.0.0.0. */
  readonly #endpoint = newFlowTuple(0);
  /** Key of a member; the endpoint takes the guest's place as an IPv4 address, which hashes faster. */
  readonly #member = newFlowTuple(0);

  /** @param gids  flows of all shards: the most members and endpoints */
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
   * @param port  the guest's port
   * @param way  Outbound.wayOf(), and more (WAY_PUBLISHED)
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
   * Add an endpoint that find() did not find; its first flow joins next. Always succeeds: the table has a
   * place per flow.
   * @param words,w  the guest's address; port and way as for find()
   */
  add(words: Uint32Array, w: number, port: number, way: number): EndpointId {
    const endpoint: number = this.#endpoints.insert(this.#endpointTuple(words, w, port, way));
    this.#flowCount[endpoint] = 0;
    this.#only[endpoint] = NOBODY;
    return endpoint as EndpointId;
  }

  /** Remove an endpoint that no flow has joined. */
  remove(endpoint: EndpointId): void {
    this.#endpoints.remove(endpoint);
  }

  /**
   * Add a flow to an endpoint.
   * @param words,w  host-side address of its peer
   * @param port  the peer's port
   * @param scope  sin6_scope_id of the peer
   * @param connects  as the only flow, it is the one that the socket is connected for
   * @returns false when another flow of the endpoint has the same peer, which has two addresses for the
   *   guest:
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

  /** A flow ends. @returns how many flows its endpoint has left; at 0 the endpoint is removed */
  leave(gid: number): number {
    const endpoint = this.#endpointOf[gid]!;
    this.#members.remove(this.#memberOf[gid]!);
    const left = --this.#flowCount[endpoint]!;
    // A socket with one flow left is not connected again: a program with several peers soon has the next one.
    if (left === 0) {
      this.#only[endpoint] = NOBODY;
      this.#endpoints.remove(endpoint);
    }
    return left;
  }

  /** @returns how many flows an endpoint has */
  flowCount(endpoint: EndpointId): number {
    return this.#flowCount[endpoint]!;
  }

  /** @returns gid of the flow that the endpoint's socket is connected for, or -1: it is not connected */
  only(endpoint: EndpointId): number {
    return this.#only[endpoint]!;
  }

  /** @param words,w  host-side address of a peer @returns gid of the endpoint's flow with this peer, or -1 */
  flowOf(endpoint: EndpointId, words: Uint32Array, w: number, port: number): number {
    const member = this.#members.find(this.#memberTuple(endpoint, words, w, port));
    return member < 0 ? -1 : this.#gidOf[member]!;
  }

  /** @returns address of the peer's struct sockaddr (nameBytes(gid) long), valid as long as the flow */
  nameAddress(gid: number): number {
    return this.#names.address + gid * NAME_BYTES;
  }

  nameBytes(gid: number): number {
    return this.#nameBytes[gid]!;
  }

  /** Write the guest's address into out[o..o+3]. @returns the guest's port */
  guestOf(endpoint: EndpointId, out: Uint32Array, o: number): number {
    const { addr, ports } = this.#endpoints;
    for (let i = 0; i < 4; i++) out[o + i] = addr[endpoint * ADDR_WORDS + i]!;
    return ports[endpoint]! >>> 16;
  }

  /** Write the peer's host-side address into out[o..o+3]. @returns the peer's port */
  peerOf(gid: number, out: Uint32Array, o: number): number {
    const { addr, ports } = this.#members;
    const member = this.#memberOf[gid]!;
    for (let i = 0; i < 4; i++) out[o + i] = addr[member * ADDR_WORDS + 4 + i]!;
    return ports[member]!;
  }
}
