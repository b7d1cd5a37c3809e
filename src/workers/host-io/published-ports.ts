/**
 * Which published UDP port leads to a port inside: where what the guest begins from there has to leave from.
 *
 *   -p 8053:53/udp    listener 4: host 8053 -> guest 53     53 ─▶ 4 ─▶ 9 ─▶ none
 *   -p 9053:53/udp    listener 9: host 9053 -> guest 53     a flow from guest port 53 leaves from 8053: the first that fits
 *
 * A list through arrays for each port inside, in the order in which the listeners were opened: ranges have
 * thousands.
 */
import { addressEqual, isV4Mapped } from '../../proto/address.ts';
import { PORTS } from '../../ring/layout.ts';
import type { ListenerPlan } from '../engine-plan.ts';
import type { Addressing } from '../flow/addressing.ts';
import { listenerGuest } from '../listen/bind-address.ts';
import { targetPort } from '../listen/listener-table.ts';

export const NO_LISTENER = -1;

export class PublishedPorts {
  readonly #addressing: Addressing;
  /** Listeners that are known. */
  count = 0;
  // By port inside; kept + 1, so that memory that was never used stays zero.
  readonly #first = new Int32Array(PORTS);
  // By listener.
  readonly #next: Int32Array;
  readonly #hostPort: Uint16Array;
  readonly #inside: Uint16Array;
  /** Bit 0: it hears IPv4; bit 1: IPv6. */
  readonly #families: Uint8Array;
  /** 1: its socket is bound to no address, so it may send to any peer. */
  readonly #isAny: Uint8Array;
  readonly #plans: (ListenerPlan | undefined)[] = [];
  readonly #words = new Uint32Array(8);

  /** @param listeners  most of them */
  constructor(addressing: Addressing, listeners: number) {
    this.#addressing = addressing;
    this.#next = new Int32Array(listeners);
    this.#hostPort = new Uint16Array(listeners);
    this.#inside = new Uint16Array(listeners);
    this.#families = new Uint8Array(listeners);
    this.#isAny = new Uint8Array(listeners);
  }

  /** @param isV4  its socket is of family 4; one of family 6 that is bound to no address hears both */
  add(index: number, plan: ListenerPlan, port: number, isV4: boolean): void {
    const any = plan.address === '' || plan.address === '*';
    const inside = targetPort(plan, port);
    this.#hostPort[index] = port;
    this.#inside[index] = inside;
    this.#families[index] = isV4 ? 1 : any ? 3 : 2;
    this.#isAny[index] = any || plan.address === '0.0.0.0' || plan.address === '::' ? 1 : 0;
    this.#plans[index] = plan;
    this.#next[index] = 0;
    this.count++;
    let last = this.#first[inside]! - 1;
    if (last < 0) {
      this.#first[inside] = index + 1;
      return;
    }
    while (this.#next[last] !== 0) last = this.#next[last]! - 1;
    this.#next[last] = index + 1;
  }

  remove(index: number): void {
    if (this.#plans[index] === undefined) return;
    const inside = this.#inside[index]!;
    this.#plans[index] = undefined;
    this.count--;
    if (this.#first[inside] === index + 1) {
      this.#first[inside] = this.#next[index]!;
      return;
    }
    let before = this.#first[inside]! - 1;
    while (this.#next[before] !== index + 1) before = this.#next[before]! - 1;
    this.#next[before] = this.#next[index]!;
  }

  /**
   * @param guest,g  the guest's address
   * @param peer,p  host-side address of the peer
   * @returns the first listener that leads to the guest's endpoint and is of the peer's family, or
   *   NO_LISTENER
   */
  find(guest: Uint32Array, g: number, port: number, peer: Uint32Array, p: number): number {
    const bit = isV4Mapped(peer, p) ? 1 : 2;
    const words = this.#words;
    for (let i = this.#first[port]! - 1; i >= 0; i = this.#next[i]! - 1) {
      if ((this.#families[i]! & bit) === 0) continue;
      // The peer as the guest sees it: which address of the guest's it is led to may depend on that.
      this.#addressing.fromHost(peer, p, words, 0);
      if (
        listenerGuest(this.#plans[i]!, this.#addressing, words, 0, words, 4) &&
        addressEqual(words, 4, guest, g)
      )
        return i;
    }
    return NO_LISTENER;
  }

  /** Whether a listener's socket may send to whatever peer. */
  isAny(index: number): boolean {
    return this.#isAny[index] === 1;
  }

  hostPort(index: number): number {
    return this.#hostPort[index]!;
  }

  /** The first listener that leads to the same port inside; after() has the others. */
  firstFor(index: number): number {
    return this.#first[this.#inside[index]!]! - 1;
  }

  after(index: number): number {
    return this.#next[index]! - 1;
  }
}
