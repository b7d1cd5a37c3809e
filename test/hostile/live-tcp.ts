/**
 * A hostile guest that completes its handshakes. It reads the engine's segments, so that its own belong to
 * established connections and have nearly valid sequence numbers, while their other fields are wrong in turn.
 */
import { readU32, writeU16, writeU32 } from '../../src/proto/be.ts';
import type { Prng } from '../support/netsim/prng.ts';
import { ETH, GUEST_MAC, OUR_MAC, sum16, VNET } from '../support/netsim/wire.ts';

const CONNECTIONS = 64;
const FIRST_PORT = 42_000;
const IP = VNET + ETH;
const TCP = IP + 20;

export class LiveTcp {
  readonly #prng: Prng;
  readonly #remote: number;
  readonly #port: number;
  /** 0: none, 1: SYN sent, 2: established. */
  readonly #state = new Uint8Array(CONNECTIONS);
  /** Our next sequence number, from the engine's ACKs. */
  readonly #next = new Uint32Array(CONNECTIONS);
  /** End of the engine's bytes so far. */
  readonly #peerNext = new Uint32Array(CONNECTIONS);
  established = 0;

  /** @param remote,port  destination of the connections */
  constructor(prng: Prng, remote = 0xc6336408, port = 80) {
    this.#prng = prng;
    this.#remote = remote;
    this.#port = port;
  }

  /** Write a frame with vnet header at `at`. @returns its bytes */
  next(b: Uint8Array, at: number): number {
    const r = this.#prng;
    const c = r.int(0, CONNECTIONS - 1);
    let flags = 0x10;
    let seq = this.#next[c]!;
    let ack = this.#peerNext[c]!;
    let payload = 0;
    let options = 0;
    let gsoSize = 0;
    const optionsAt = at + TCP + 20;
    if (this.#state[c] === 0 || (this.#state[c] === 1 && r.chance(0.2))) {
      this.#state[c] = 1;
      seq = r.u32();
      this.#next[c] = (seq + 1) >>> 0;
      flags = 2;
      ack = 0;
      // MSS, window scale, SACK permitted, timestamps: any of them, of any value.
      const o: number[] = [];
      if (r.chance(0.8)) o.push(2, 4, r.int(0, 255), r.int(0, 255));
      if (r.chance(0.7)) o.push(3, 3, r.int(0, 20), 1);
      if (r.chance(0.7)) o.push(4, 2, 1, 1);
      if (r.chance(0.4)) o.push(8, 10, 0, 0, r.int(0, 255), r.int(0, 255), 0, 0, 0, 0, 1, 1);
      b.set(o, optionsAt);
      options = o.length;
    } else {
      const kind = r.u32() & 31;
      if (kind < 12) payload = r.int(1, 1460);
      else if (kind < 14) {
        payload = r.chance(0.1) ? r.int(1500, 60_000) : r.int(1500, 6000);
        gsoSize = r.int(1, 1460);
      } else if (kind < 18) {
        payload = r.int(1, 1460);
        seq = (seq + r.int(1, 20_000)) >>> 0;
      } else if (kind < 20) {
        payload = r.int(1, 3000);
        seq = (seq - r.int(1, 3000)) >>> 0;
      } else if (kind < 24) ack = (ack - r.int(0, 20_000)) >>> 0;
      else if (kind === 24) flags = 0x11;
      else if (kind === 25) {
        seq = (seq + r.int(-5, 60_000)) >>> 0;
        flags = r.chance(0.5) ? 4 : 0x14;
      } else if (kind === 26) flags = r.int(0, 255);
      else if (kind === 27) seq = r.u32();
      else if (kind === 28) ack = (ack + r.int(1, 0x7fff_ffff)) >>> 0;
      else if (kind === 29) this.#state[c] = 0;
      const what = r.u32() & 7;
      if (what === 0) {
        // SACK blocks, right or wrong.
        const count = r.int(1, 4);
        b.set([1, 1, 5, 2 + 8 * count], optionsAt);
        for (let i = 0; i < count; i++) {
          const left = (ack + r.int(-3000, 40_000)) >>> 0;
          writeU32(b, optionsAt + 4 + i * 8, left);
          writeU32(b, optionsAt + 8 + i * 8, (left + r.int(-10, 20_000)) >>> 0);
        }
        options = 4 + 8 * count;
      } else if (what === 1) {
        b.set([1, 1, 8, 10], optionsAt);
        writeU32(b, optionsAt + 4, r.chance(0.8) ? r.int(0, 100_000) : r.u32());
        writeU32(b, optionsAt + 8, r.u32());
        options = 12;
      } else if (what === 2) {
        options = 4 * r.int(1, 10);
        for (let i = 0; i < options; i++) b[optionsAt + i] = r.int(0, 12);
      }
    }
    const tcpBytes = 20 + options + payload;
    const total = 20 + tcpBytes;
    b.fill(0, at, at + TCP + 20);
    b[at] = 1;
    b[at + 6] = 34;
    b[at + 8] = 16;
    if (gsoSize > 0) {
      b[at + 1] = 1;
      b[at + 4] = gsoSize;
      b[at + 5] = gsoSize >> 8;
      b[at + 2] = 54 + options;
    }
    b.set(OUR_MAC, at + VNET);
    b.set(GUEST_MAC, at + VNET + 6);
    b[at + VNET + 12] = 8;
    const ip = at + IP;
    b[ip] = 0x45;
    writeU16(b, ip + 2, total);
    b[ip + 8] = 64;
    b[ip + 9] = 6;
    writeU32(b, ip + 12, 0xc000020f);
    writeU32(b, ip + 16, this.#remote);
    writeU16(b, ip + 10, ~sum16(b, ip, ip + 20) & 0xffff);
    const t = at + TCP;
    writeU16(b, t, FIRST_PORT + c);
    writeU16(b, t + 2, this.#port);
    writeU32(b, t + 4, seq);
    writeU32(b, t + 8, ack);
    b[t + 12] = ((20 + options) / 4) << 4;
    b[t + 13] = flags;
    writeU16(b, t + 14, r.chance(0.1) ? r.int(0, 2) : r.int(0, 65_535));
    return IP + total;
  }

  /** Read a frame of the engine, with vnet header. */
  hear(b: Uint8Array, at: number, bytes: number): void {
    if (bytes < TCP + 20 || b[at + VNET + 12] !== 8 || b[at + VNET + 13] !== 0 || b[at + IP + 9] !== 6)
      return;
    const t = at + TCP;
    const c = ((b[t + 2]! << 8) | b[t + 3]!) - FIRST_PORT;
    if (c < 0 || c >= CONNECTIONS) return;
    const flags = b[t + 13]!;
    if (flags & 4) {
      this.#state[c] = 0;
      return;
    }
    const payload = bytes - TCP - (b[t + 12]! >> 4) * 4;
    const end = (readU32(b, t + 4) + payload + (flags & 1) + (flags & 2 ? 1 : 0)) >>> 0;
    if (flags & 2) {
      this.#peerNext[c] = end;
      this.#next[c] = readU32(b, t + 8);
      if (this.#state[c] === 1) {
        this.#state[c] = 2;
        this.established++;
      }
      return;
    }
    if (((end - this.#peerNext[c]!) | 0) > 0) this.#peerNext[c] = end;
    this.#next[c] = readU32(b, t + 8);
  }
}
