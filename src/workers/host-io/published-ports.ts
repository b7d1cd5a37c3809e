/**
 * Which published UDP port forwards to a port of the guest. A flow that the guest begins from that port has
 * to leave from the published port.
 *
 *   -p 8053:53/udp    listener 4: host 8053 -> guest 53     53 ─▶ 4 ─▶ 9 ─▶ none
 *   -p 9053:53/udp    listener 9: host 9053 -> guest 53
 *
 * Here a flow from guest port 53 leaves from 8053, the port of the first listener that fits.
 *
 * For each port inside a list through arrays, in the order in which the listeners were opened: a range has
 * thousands of ports.
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
  /** Listeners in the table. */
  count = 0;
  // By port inside: listener number + 1, so that zeroed memory means none and unused pages stay untouched.
  readonly #first = new Int32Array(PORTS);
  // By listener; #next is listener number + 1 too.
  readonly #next: Int32Array;
  readonly #hostPort: Uint16Array;
  readonly #inside: Uint16Array;
  /** Bit 0: it receives IPv4; bit 1: IPv6. */
  readonly #families: Uint8Array;
  /** 1: its socket is bound to the wildcard address, so it can send to any peer. */
  readonly #isAny: Uint8Array;
  readonly #plans: (ListenerPlan | undefined)[] = [];
  /** Scratch: peer as the guest sees it 0..3, guest 4..7. */
  readonly #words = new Uint32Array(8);

  /** @param listeners  most listeners */
  constructor(addressing: Addressing, listeners: number) {
    this.#addressing = addressing;
    this.#next = new Int32Array(listeners);
    this.#hostPort = new Uint16Array(listeners);
    this.#inside = new Uint16Array(listeners);
    this.#families = new Uint8Array(listeners);
    this.#isAny = new Uint8Array(listeners);
  }

  /**
   * A listener was opened.
   * @param index  listener number
   * @param port  the published port
   * @param isV4  AF_INET socket; an AF_INET6 socket of a rule for any address receives both families
   */
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

  /** A listener is closed. */
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
   * @param port  the guest's port
   * @param peer,p  host-side address of the peer
   * @returns the first listener that forwards to this guest address and port and has the peer's family, or
   *   NO_LISTENER
   */
  find(guest: Uint32Array, g: number, port: number, peer: Uint32Array, p: number): number {
    const bit = isV4Mapped(peer, p) ? 1 : 2;
    const words = this.#words;
    for (let i = this.#first[port]! - 1; i >= 0; i = this.#next[i]! - 1) {
      if ((this.#families[i]! & bit) === 0) continue;
      // The guest address that a listener forwards to may depend on the peer's address as the guest sees it.
      this.#addressing.fromHost(peer, p, words, 0);
      if (
        listenerGuest(this.#plans[i]!, this.#addressing, words, 0, words, 4) &&
        addressEqual(words, 4, guest, g)
      )
        return i;
    }
    return NO_LISTENER;
  }

  /** Whether a listener's socket can send to any peer. */
  isAny(index: number): boolean {
    return this.#isAny[index] === 1;
  }

  /** @returns the published port */
  hostPort(index: number): number {
    return this.#hostPort[index]!;
  }

  /** @returns the first listener that forwards to the same port inside; after() gives the others */
  firstFor(index: number): number {
    return this.#first[this.#inside[index]!]! - 1;
  }

  /** @returns the next listener for the same port inside, or NO_LISTENER */
  after(index: number): number {
    return this.#next[index]! - 1;
  }
}
