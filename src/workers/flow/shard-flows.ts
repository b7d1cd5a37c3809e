/**
 * The flows of a shard, and who gives way when their table is full. Flows that may end early stand in lists,
 * oldest first:
 *
 *   unreplied guest, unreplied inbound    datagrams that nobody has answered: the longer list's oldest goes first
 *   answered guest, answered inbound      a question and its answer
 *   half open                             TCP before it stands
 *
 * Settled ones (TCP that stands, UDP that goes both ways repeatedly) never give way. Datagram flows never
 * take the last eighth of the table, which is TCP's, and those that begin outside never more than half of it:
 * each share is made room in at the cost of its own.
 *
 * A flow with a host socket frees its id only once host-io has closed that, so flows give way while some ids
 * are still free. One at most gives way for each new one: the work is bounded. The last ids are for TCP and
 * for name look-ups, however fast datagrams come.
 */
import { Counter } from '../../ring/counters.ts';
import { type FlowId, FlowTable, NO_FLOW } from './flow-table.ts';
import type { FlowTuple } from './flow-tuple.ts';

/** Who began a flow. */
export const Origin = { guestDatagram: 1, inboundDatagram: 2, tcp: 3 } as const;
/** Lists; answered = unreplied + ANSWERED. */
const HALF_OPEN = 3;
const ANSWERED = 3;
const LISTS = 6;

export class ShardFlows extends FlowTable {
  readonly #counters: Float64Array;
  readonly #tellFull: () => void;
  /** By IP protocol: ends a flow early. */
  readonly #enders: ((flow: number) => void)[] = [];
  // By flow. Neighbours are kept + 1: zeroed memory means none.
  readonly #origin: Uint8Array;
  readonly #list: Uint8Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  // By list, by origin.
  readonly #first = new Int32Array(LISTS);
  readonly #last = new Int32Array(LISTS);
  readonly #length = new Int32Array(LISTS);
  readonly #begun = new Int32Array(4);
  readonly #reserve: number;
  readonly #mostDatagram: number;
  readonly #mostInbound: number;

  /** @param tellFull  called each time the table is full */
  constructor(maxFlows: number, counters: Float64Array, tellFull: () => void) {
    super(maxFlows);
    this.#counters = counters;
    this.#tellFull = tellFull;
    this.#origin = new Uint8Array(maxFlows);
    this.#list = new Uint8Array(maxFlows);
    this.#next = new Int32Array(maxFlows);
    this.#previous = new Int32Array(maxFlows);
    this.#reserve = maxFlows >>> 4;
    this.#mostDatagram = maxFlows - (maxFlows >>> 3);
    this.#mostInbound = maxFlows >>> 1;
  }

  /** How flows of an IP protocol are ended early. */
  onGiveWay(proto: number, end: (flow: number) => void): void {
    this.#enders[proto] = end;
  }

  /**
   * Add a flow as insert() does; when there is no room for one of its origin an older one gives way.
   * @param origin Origin
   */
  admit(origin: number, tuple: FlowTuple): FlowId {
    let flow: FlowId = NO_FLOW;
    if (this.#makeRoom(origin)) flow = this.insert(tuple);
    if (flow < 0) {
      this.#counters[Counter.flowTableFull]!++;
      this.#tellFull();
      return flow;
    }
    this.#origin[flow] = origin;
    this.#begun[origin]!++;
    this.#append(flow, origin);
    return flow;
  }

  /** Both sides of a datagram flow have spoken once. */
  answered(flow: number): void {
    const list = this.#list[flow]!;
    if (list === 0 || list >= HALF_OPEN) return;
    this.#unlink(flow);
    this.#append(flow, list + ANSWERED);
  }

  /** The flow does not give way any more. */
  settle(flow: number): void {
    this.#unlink(flow);
  }

  override detach(id: number): void {
    this.#unlink(id);
    this.#begun[this.#origin[id]!]!--;
    this.#origin[id] = 0;
    super.detach(id);
  }

  /**
   * Make room for a flow that admit() is not asked for.
   * @param isFull  it is the table that has none; otherwise its caller says what is short
   * @returns whether one gave way
   */
  giveWay(isFull = true): boolean {
    return (
      this.#endOldest(this.#longer(0), isFull) ||
      this.#endOldest(this.#longer(ANSWERED), isFull) ||
      this.#endOldest(HALF_OPEN, isFull)
    );
  }

  /**
   * A flow found no descriptor for its socket: an older datagram flow gives way, and the guest's next try
   * finds one. Of connections host-io knows better which are not answered (descriptor-shortage.ts).
   */
  giveDescriptor(flow: number): void {
    this.#unlink(flow);
    if (!this.#endOldest(this.#longer(0), false)) this.#endOldest(this.#longer(ANSWERED), false);
  }

  /** @returns false: a share is used up, and none of its flows may end */
  #makeRoom(origin: number): boolean {
    const inbound = this.#begun[Origin.inboundDatagram]!;
    let gaveWay = false;
    if (origin === Origin.inboundDatagram && inbound >= this.#mostInbound) {
      gaveWay = this.#endOldest(Origin.inboundDatagram) || this.#endOldest(Origin.inboundDatagram + ANSWERED);
      if (!gaveWay) return false;
    } else if (origin !== Origin.tcp && inbound + this.#begun[Origin.guestDatagram]! >= this.#mostDatagram) {
      gaveWay = this.#endOldest(this.#longer(0)) || this.#endOldest(this.#longer(ANSWERED));
      if (!gaveWay) return false;
    }
    if (!gaveWay && this.freeCount <= this.#reserve) this.giveWay();
    // An id is free again only when host-io has closed its socket, and datagrams come faster than that: what
    // begins outside leaves the guest some ids, and the guest's datagrams leave the last ones to TCP and to
    // name look-ups (dns-forward.ts inserts without an origin).
    if (origin === Origin.tcp) return true;
    return this.freeCount > (origin === Origin.inboundDatagram ? this.#reserve >>> 1 : this.#reserve >>> 2);
  }

  /** The longer one of the guest's and the inbound list. @param add  0 or ANSWERED */
  #longer(add: number): number {
    const guest = Origin.guestDatagram + add;
    const inbound = Origin.inboundDatagram + add;
    return this.#length[inbound]! > this.#length[guest]! ? inbound : guest;
  }

  #endOldest(list: number, isFull = true): boolean {
    const flow = this.#first[list]! - 1;
    if (flow < 0) return false;
    this.#counters[Counter.flowsGaveWay]!++;
    if (isFull) this.#tellFull();
    // Whatever its owner does, it is asked once.
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
