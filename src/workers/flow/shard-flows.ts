/**
 * The flows of a shard, and which of them are ended early when their table is full ("give way"). Flows that
 * may give way are in lists, oldest first:
 *
 *   unreplied guest, unreplied inbound   no answer yet; the oldest flow of the longer list gives way first
 *   answered guest, answered inbound     one datagram each way
 *   half open                            TCP before ESTABLISHED
 *
 * Settled flows (established TCP, UDP with several datagrams both ways) never give way. Datagram flows never
 * use the last eighth of the table, which is TCP's; inbound datagram flows never use more than half of the
 * table. When a share is used up, a flow of the same share gives way.
 *
 * A flow with a host socket frees its id only once host-io has closed the socket, so flows give way while
 * some ids are still free. At most one flow gives way for each new one, which bounds the work. The last ids
 * are for TCP and for DNS queries, however fast datagrams come.
 */
import { Counter } from '../../ring/counters.ts';
import type { FlowState } from './flow-state.ts';
import { ADDR_WORDS, type FlowId, FlowTable, NO_FLOW } from './flow-table.ts';
import type { FlowTuple } from './flow-tuple.ts';

/**
 * How a flow began: by the guest's datagram, by an inbound datagram, or as a TCP connection of either side.
 */
export const Origin = { guestDatagram: 1, inboundDatagram: 2, tcp: 3 } as const;
/**
 * Numbers of the lists: an unreplied list has its Origin's number, the answered one that number + ANSWERED.
 */
const HALF_OPEN = 3;
const ANSWERED = 3;
const LISTS = 6;

/** A flow table whose flows give way when it is full. */
export class ShardFlows extends FlowTable {
  readonly #counters: Float64Array;
  readonly #reportFull: () => void;
  /** By IP protocol: function that ends a flow early. */
  readonly #enders: ((flow: number) => void)[] = [];
  // By flow. #next and #previous hold flow + 1, so that zeroed memory means none; #list 0: in no list.
  readonly #origin: Uint8Array;
  readonly #list: Uint8Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  // By list: flow + 1 at either end, and how many flows. By Origin: how many flows.
  readonly #first = new Int32Array(LISTS);
  readonly #last = new Int32Array(LISTS);
  readonly #length = new Int32Array(LISTS);
  readonly #countByOrigin = new Int32Array(4);
  readonly #reserve: number;
  readonly #maxDatagram: number;
  readonly #maxInbound: number;

  /** @param reportFull  called each time a flow finds the table full */
  constructor(maxFlows: number, counters: Float64Array, reportFull: () => void) {
    super(maxFlows);
    this.#counters = counters;
    this.#reportFull = reportFull;
    this.#origin = new Uint8Array(maxFlows);
    this.#list = new Uint8Array(maxFlows);
    this.#next = new Int32Array(maxFlows);
    this.#previous = new Int32Array(maxFlows);
    this.#reserve = maxFlows >>> 4;
    this.#maxDatagram = maxFlows - (maxFlows >>> 3);
    this.#maxInbound = maxFlows >>> 1;
  }

  /**
   * Set how flows of an IP protocol are ended early.
   * @param proto  IP protocol number
   * @param end  ends the flow; called once for a flow
   */
  onGiveWay(proto: number, end: (flow: number) => void): void {
    this.#enders[proto] = end;
  }

  /**
   * Add a flow as insert() does. When its origin's share is used up, an older flow gives way.
   * @param origin  Origin
   * @returns the flow's id, or NO_FLOW (-1): the flow is counted as refused
   */
  admit(origin: number, tuple: FlowTuple): FlowId {
    let flow: FlowId = NO_FLOW;
    if (this.#makeRoom(origin)) flow = this.insert(tuple);
    if (flow < 0) {
      this.#counters[Counter.flowTableFull]!++;
      this.#reportFull();
      return flow;
    }
    this.#origin[flow] = origin;
    this.#countByOrigin[origin]!++;
    this.#append(flow, origin);
    return flow;
  }

  /** Both sides of a datagram flow have sent: it moves to the list of answered flows. */
  answered(flow: number): void {
    const list = this.#list[flow]!;
    if (list === 0 || list >= HALF_OPEN) return;
    this.#unlink(flow);
    this.#append(flow, list + ANSWERED);
  }

  /** Write key, bytes and age of a flow. */
  save(flow: number, to: FlowState): void {
    to.put(this.hash[flow]!);
    to.put(this.ports[flow]!);
    for (let i = 0; i < ADDR_WORDS; i++) to.put(this.addr[flow * ADDR_WORDS + i]!);
    to.putNumber(this.fromGuestBytes[flow]!);
    to.putNumber(this.toGuestBytes[flow]!);
    to.putNumber(this.nowMs - this.bornMs[flow]!);
  }

  /**
   * Add a flow that save() has written on another thread.
   * @param tuple  has the flow's IP protocol; its other members are overwritten
   * @returns the flow's id here, or NO_FLOW (-1)
   */
  restore(origin: number, tuple: FlowTuple, from: FlowState): FlowId {
    tuple.hash = from.take();
    tuple.ports = from.take();
    for (let i = 0; i < ADDR_WORDS; i++) tuple.addr[i] = from.take();
    const flow = this.admit(origin, tuple);
    const [fromGuest, toGuest, age] = [from.takeNumber(), from.takeNumber(), from.takeNumber()];
    if (flow < 0) return flow;
    this.settle(flow);
    this.fromGuestBytes[flow] = fromGuest;
    this.toGuestBytes[flow] = toGuest;
    this.bornMs[flow] = this.nowMs - age;
    return flow;
  }

  /** From now on the flow never gives way. */
  settle(flow: number): void {
    this.#unlink(flow);
  }

  /** As FlowTable.detach(); the flow leaves its list too. */
  override detach(id: number): void {
    this.#unlink(id);
    this.#countByOrigin[this.#origin[id]!]!--;
    this.#origin[id] = 0;
    super.detach(id);
  }

  /**
   * End one flow early, to make room for a flow that is inserted without admit().
   * @param isFull  whether to report that the table is full; a caller that lacks something else reports that
   *   itself
   * @returns whether one gave way
   */
  giveWay(isFull = true): boolean {
    return (
      this.#endOldest(this.#longerList(0), isFull) ||
      this.#endOldest(this.#longerList(ANSWERED), isFull) ||
      this.#endOldest(HALF_OPEN, isFull)
    );
  }

  /**
   * A flow's socket could not be opened for want of a descriptor: an older datagram flow gives way, so that
   * the guest's next attempt finds one. TCP connections do not give way here: host-io knows which of them are
   * unanswered (descriptor-shortage.ts).
   */
  giveDescriptor(flow: number): void {
    this.#unlink(flow);
    if (!this.#endOldest(this.#longerList(0), false)) this.#endOldest(this.#longerList(ANSWERED), false);
  }

  /**
   * @returns false: the origin's share is used up and none of its flows may give way, or the last ids are
   *   reserved
   */
  #makeRoom(origin: number): boolean {
    const inbound = this.#countByOrigin[Origin.inboundDatagram]!;
    let gaveWay = false;
    if (origin === Origin.inboundDatagram && inbound >= this.#maxInbound) {
      gaveWay = this.#endOldest(Origin.inboundDatagram) || this.#endOldest(Origin.inboundDatagram + ANSWERED);
      if (!gaveWay) return false;
    } else if (
      origin !== Origin.tcp &&
      inbound + this.#countByOrigin[Origin.guestDatagram]! >= this.#maxDatagram
    ) {
      gaveWay = this.#endOldest(this.#longerList(0)) || this.#endOldest(this.#longerList(ANSWERED));
      if (!gaveWay) return false;
    }
    if (!gaveWay && this.freeCount <= this.#reserve) this.giveWay();
    // An id is free again only when host-io has closed its socket, and datagrams may come faster than that.
    // Inbound flows leave some ids to the guest, and the guest's datagram flows leave the last ones to TCP
    // and to DNS queries (dns-forward.ts inserts without an origin).
    if (origin === Origin.tcp) return true;
    return this.freeCount > (origin === Origin.inboundDatagram ? this.#reserve >>> 1 : this.#reserve >>> 2);
  }

  /** The longer one of the guest's and the inbound list of datagram flows. @param add  0 or ANSWERED */
  #longerList(add: number): number {
    const guest = Origin.guestDatagram + add;
    const inbound = Origin.inboundDatagram + add;
    return this.#length[inbound]! > this.#length[guest]! ? inbound : guest;
  }

  #endOldest(list: number, isFull = true): boolean {
    const flow = this.#first[list]! - 1;
    if (flow < 0) return false;
    this.#counters[Counter.flowsGaveWay]!++;
    if (isFull) this.#reportFull();
    // The owner may keep the flow; it is not asked to end that flow again.
    this.#unlink(flow);
    this.#enders[this.proto[flow]!]?.(flow);
    return true;
  }

  #append(flow: number, list: number): void {
    const last = this.#last[list]!;
    this.#list[flow] = list;
    this.#previous[flow] = last;
    this.#next[flow] = 0;
    if (last === 0) this.#first[list] = flow + 1;
    else this.#next[last - 1] = flow + 1;
    this.#last[list] = flow + 1;
    this.#length[list]!++;
  }

  #unlink(flow: number): void {
    const list = this.#list[flow]!;
    if (list === 0) return;
    const next = this.#next[flow]!;
    const previous = this.#previous[flow]!;
    if (next === 0) this.#last[list] = previous;
    else this.#previous[next - 1] = previous;
    if (previous === 0) this.#first[list] = next;
    else this.#next[previous - 1] = next;
    this.#list[flow] = 0;
    this.#length[list]!--;
  }
}
