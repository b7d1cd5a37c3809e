/**
 * What the guest's IP headers ask of a flow's host socket: TTL, and whether a datagram may be fragmented. A
 * socket option stays until it is set again, so it goes with a datagram only when it changes
 * (sendDatagramWrite()).
 *
 * A Linux guest sets DF in nearly all of its datagrams, sized for an MTU that may be larger than the host's.
 * Only a probe that counts hops means it (decision 062): what others send goes out in fragments where the
 * host's link is narrower, as passt has it.
 */

import { IPV6_MIN_MTU } from '../../proto/ipv6.ts';
import { SendFragment, sendOptions } from '../link/to-host.ts';
import type { Packet } from './packet.ts';
import { ipHeaderBytes } from './to-guest.ts';

/**
 * Every path in use carries IPv4 packets of so many bytes (RFC 791 section 3.2 has hosts take them); IPv6 has
 * a rule: IPV6_MIN_MTU.
 */
const CARRIED_BYTES_V4 = 576;
/** Tools that look at a path start at 1 and are done before this; hosts start at 64, 128 or 255. */
const PROBE_TTL_LIMIT = 32;

export class SendOptions {
  // By flow: what its host socket has. TTL 0: not set yet.
  readonly #ttl: Uint8Array;
  readonly #fragment: Uint8Array;

  constructor(flows: number) {
    this.#ttl = new Uint8Array(flows);
    this.#fragment = new Uint8Array(flows);
  }

  /** A flow has a new socket: it fragments what its path does not take, as Linux does by default. */
  begin(flow: number): void {
    this.#ttl[flow] = 0;
    this.#fragment[flow] = SendFragment.allowed;
  }

  /**
   * What has to be set for a packet of the flow, from now on taken as set.
   * @param p  from the guest
   * @returns options of sendDatagramWrite()
   */
  change(flow: number, p: Packet): number {
    let ttl = 0;
    let fragment: SendFragment = SendFragment.unchanged;
    if (p.ttl !== this.#ttl[flow]) {
      this.#ttl[flow] = p.ttl;
      ttl = p.ttl;
    }
    const isProbe = p.dontFragment && p.ttl < PROBE_TTL_LIMIT;
    const wanted = isProbe ? SendFragment.never : SendFragment.allowed;
    if (wanted !== this.#fragment[flow] && !isCarried(p)) {
      this.#fragment[flow] = wanted;
      fragment = wanted;
    }
    return sendOptions(ttl, fragment);
  }
}

/** Whether any path takes the packet whole, so that the option does not matter to it. */
function isCarried(p: Packet): boolean {
  const bytes = ipHeaderBytes(p.family) + p.transportBytes;
  return bytes <= (p.family === 4 ? CARRIED_BYTES_V4 : IPV6_MIN_MTU);
}
