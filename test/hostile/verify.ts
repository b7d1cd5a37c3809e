/**
 * Rules for frames from the engine to the TAP, whatever frames it was given: well-formed, from an address
 * that a peer may have, within the MTU.
 */
import { decodeFrame, ETH, VNET } from '../support/netsim/wire.ts';

/** One frame in this many is decoded completely, with its checksums. */
const DEEP_EVERY = 32;

export class Verifier {
  readonly #vnet: boolean;
  readonly #mtu: number;
  #count = 0;
  readonly kinds = new Map<string, number>();

  constructor(vnet: boolean, mtu: number) {
    this.#vnet = vnet;
    this.#mtu = mtu;
  }

  /** @throws Error with the field that is wrong */
  check(b: Uint8Array, at: number, bytes: number): void {
    const start = at + (this.#vnet ? VNET : 0);
    const end = at + bytes;
    const ip = start + ETH;
    if (end < ip + 20) this.#fail('shorter than any frame', b, at, bytes);
    const gso = this.#vnet && b[at + 1] !== 0;
    if (!gso && end - ip > this.#mtu) this.#fail(`${end - ip} bytes, MTU ${this.#mtu}`, b, at, bytes);
    const type = (b[start + 12]! << 8) | b[start + 13]!;
    let kind: string;
    if (type === 0x0800) {
      // IGMP queries have the Router Alert option.
      if (b[ip] !== (b[ip + 9] === 2 ? 0x46 : 0x45)) this.#fail('IPv4 header length', b, at, bytes);
      if (((b[ip + 2]! << 8) | b[ip + 3]!) !== end - ip) this.#fail('IPv4 total length', b, at, bytes);
      const first = b[ip + 12]!;
      if (first === 127 || first === 0 || first >= 224) this.#fail('IPv4 source', b, at, bytes);
      kind = `IPv4 ${b[ip + 9]}`;
    } else if (type === 0x86dd) {
      if (end < ip + 40 || b[ip]! >> 4 !== 6) this.#fail('IPv6 version', b, at, bytes);
      if (((b[ip + 4]! << 8) | b[ip + 5]!) + 40 !== end - ip) this.#fail('IPv6 payload length', b, at, bytes);
      let rest = 0;
      for (let i = 8; i < 23; i++) rest |= b[ip + i]!;
      if (b[ip + 8] === 0xff || (rest === 0 && b[ip + 23]! <= 1)) this.#fail('IPv6 source', b, at, bytes);
      kind = `IPv6 ${b[ip + 6]}`;
    } else if (type === 0x0806) kind = 'ARP';
    else this.#fail(`EtherType ${type}`, b, at, bytes);
    this.kinds.set(kind, (this.kinds.get(kind) ?? 0) + 1);
    // Queries are compared byte by byte in igmp.test.ts and mld.test.ts.
    const isQuery = kind === 'IPv4 2' || kind === 'IPv6 0';
    if (kind !== 'ARP' && !isQuery && this.#count++ % DEEP_EVERY === 0)
      decodeFrame(b.slice(at, end), this.#vnet);
  }

  #fail(text: string, b: Uint8Array, at: number, bytes: number): never {
    const head = [...b.subarray(at, at + Math.min(bytes, 96))]
      .map((x) => x.toString(16).padStart(2, '0'))
      .join(' ');
    throw new Error(`frame to the guest: ${text}\n${head}`);
  }
}
