/**
 * Reassembles the guest's fragmented datagrams: IPv4 (RFC 791 section 3.2, RFC 815) and IPv6 (RFC 8200
 * section 4.5).
 *
 * Each unfinished datagram has a large slot. The data of each fragment is copied to its place in the slot, so
 * fragments may arrive in any order:
 *
 *     slot  |  free  | eth 14 | IP header |  payload, DATA_AT on: fragment offset 0 ...            |
 *                    ^ frameAt            ^ DATA_AT
 *
 * The datagram's header is that of the fragment with offset 0 (RFC 8200 section 4.5; for IPv4 its options are
 * kept). It is written in front of the payload at the end, without a fragment header, with new length and
 * checksum.
 *
 * Limits, because the guest controls all input: 16 datagrams at a time, of which the oldest makes room for a
 * new one; 30 s for each; no datagram longer than 65535 bytes. A datagram with overlapping fragments is
 * dropped, and so are its later fragments until the 30 s are over (RFC 5722, for both families); an exact
 * repetition of a fragment does not count as an overlap. A first TCP fragment without the whole fixed header
 * is refused (RFC 1858).
 *
 *     units  one bit per 8 bytes of payload, set once received: 8192 bits for each datagram
 */
import { readU16, readU32, writeU16 } from '../../proto/be.ts';
import { finishSum, onesSum } from '../../proto/checksum.ts';
import { ETH_BYTES } from '../../proto/ethernet.ts';
import {
  IPV4_CHECKSUM,
  IPV4_DST,
  IPV4_SRC,
  IpProtocol,
  ipv4FragOffset,
  ipv4HeaderBytes,
  ipv4Ident,
  ipv4MoreFragments,
  ipv4Protocol,
  ipv4TotalLen,
} from '../../proto/ipv4.ts';
import {
  IPV6_BYTES,
  IPV6_DST,
  IPV6_FRAGMENT_BYTES,
  IPV6_OUT_WORDS,
  IPV6_SRC,
  Ipv6Out,
  ipv6HeaderBytes,
  ipv6PayloadLen,
  ipv6Upper,
} from '../../proto/ipv6.ts';
import { Counter } from '../../ring/counters.ts';
import { type FramePool, NO_SLOT, type SlotStack } from '../../ring/pool.ts';

const MAX_DATAGRAMS = 16;

/** Most unfinished datagrams: an eighth of the large slots, as other stages need large slots too. */
export const reassemblyLimit = (largeSlots: number): number =>
  Math.max(1, Math.min(MAX_DATAGRAMS, Math.floor(largeSlots / 8)));
const TIMEOUT_MS = 30_000;
const MAX_IP_BYTES = 0xffff;
/** Ethernet and IP header of the first fragment: 14 + 40 + at most 512 of extension headers. */
const HEADER_ROOM_BYTES = 640;
const DATA_AT = HEADER_ROOM_BYTES;
/** 65536 / 8 bits. */
const UNIT_WORDS = 256;
/**
 * A key: addresses as 8 words, identification, family << 8 | protocol. For IPv6 the protocol is not part of
 * the key (RFC 8200 section 4.5) and is 0.
 */
const KEY_WORDS = 10;
/** RFC 1858 section 3.2: a first TCP fragment without the whole fixed header is an attack on filters. */
const TCP_FIRST_MIN_BYTES = 20;

/** poisoned: it had overlapping fragments; it holds no slot, and its further fragments are dropped. */
const State = { free: 0, collecting: 1, poisoned: 2 } as const;

/** The bits of word number `word` that stand for the units `from` to `last`, both included. */
function unitMask(word: number, firstWord: number, lastWord: number, from: number, last: number): number {
  let mask = -1;
  if (word === firstWord) mask &= -1 << (from & 31);
  if (word === lastWord) mask &= -1 >>> (31 - (last & 31));
  return mask;
}

export interface ReassemblerOptions {
  readonly pool: FramePool;
  /** Large slots; unfinished datagrams hold at most reassemblyLimit() of them. */
  readonly slots: SlotStack;
  readonly counters: Float64Array;
}

export class Reassembler {
  /** After push() returned a slot: offset of the Ethernet frame from the slot's start, and its length. */
  frameAt = 0;
  frameBytes = 0;
  readonly #pool: FramePool;
  readonly #u8: Uint8Array;
  readonly #slots: SlotStack;
  readonly #limit: number;
  readonly #counters: Float64Array;
  readonly #state = new Uint8Array(MAX_DATAGRAMS);
  readonly #keys = new Uint32Array(MAX_DATAGRAMS * KEY_WORDS);
  readonly #key = new Uint32Array(KEY_WORDS);
  readonly #slotOf = new Uint32Array(MAX_DATAGRAMS);
  readonly #expiresMs = new Float64Array(MAX_DATAGRAMS);
  /** Per datagram: payload bytes received, highest fragment end, and total length (0: not known yet). */
  readonly #gotBytes = new Int32Array(MAX_DATAGRAMS);
  readonly #endBytes = new Int32Array(MAX_DATAGRAMS);
  readonly #totalBytes = new Int32Array(MAX_DATAGRAMS);
  /** Bytes of the first fragment's Ethernet and IP headers, which #headers holds; 0: not received yet. */
  readonly #headerBytes = new Int32Array(MAX_DATAGRAMS);
  readonly #headers = new Uint8Array(MAX_DATAGRAMS * HEADER_ROOM_BYTES);
  readonly #units = new Uint32Array(MAX_DATAGRAMS * UNIT_WORDS);
  readonly #upper = new Int32Array(IPV6_OUT_WORDS);
  #busy = 0;
  /** No datagram expires before this time. It may be too early: the datagram may be released already. */
  #soonestMs = Number.POSITIVE_INFINITY;
  #lastFound = 0;

  // Fields of the present fragment.
  #offset = 0;
  #dataBytes = 0;
  #dataAt = 0;
  #more = false;
  #protocol = 0;
  /** IP header bytes without the fragment header. */
  #ipHeaderBytes = 0;
  /** IPv6: offset from the IP header of the next-header byte that announced the fragment header. */
  #nextHeaderAt = 0;

  constructor(options: ReassemblerOptions) {
    this.#pool = options.pool;
    this.#u8 = options.pool.u8;
    this.#slots = options.slots;
    this.#limit = reassemblyLimit(options.slots.capacity);
    this.#counters = options.counters;
  }

  /** Number of unfinished datagrams, poisoned ones included. */
  get busy(): number {
    return this.#busy;
  }

  /**
   * Add one fragment; the caller still owns its slots.
   * @param ipAt  offset in u8 of the IP header; the Ethernet header lies in front of it
   * @param ipBytesInA  bytes of the frame from ipAt on in the first slot
   * @param ipBytes  bytes of the frame from ipAt on in both slots
   * @param slotB  holds the rest of the frame from its start on; NO_SLOT: the first slot holds all
   * @param now  monotonic milliseconds
   * @returns a large slot with the whole frame (frameAt, frameBytes), which the caller owns now; NO_SLOT
   *   while fragments are missing, or when this one was dropped (and counted)
   */
  push(ipAt: number, ipBytesInA: number, ipBytes: number, slotB: number, family: 4 | 6, now: number): number {
    if (this.#busy > 0) this.expire(now);
    const ok =
      family === 4 ? this.#parseIpv4(ipAt, ipBytesInA, ipBytes) : this.#parseIpv6(ipAt, ipBytesInA, ipBytes);
    if (!ok) return this.#dropped();
    if (family === 6 && this.#offset === 0 && !this.#more) {
      // RFC 6946: an atomic fragment is independent of other fragments with the same identification.
      return this.#whole(ipAt, ipBytesInA, slotB);
    }
    const d = this.#find(now);
    if (d < 0) return this.#dropped();
    if (this.#state[d] === State.poisoned) return NO_SLOT;

    const end = this.#offset + this.#dataBytes;
    const total = this.#totalBytes[d]!;
    const isLast = !this.#more;
    if ((total > 0 && (end > total || (isLast && end !== total))) || (isLast && end < this.#endBytes[d]!)) {
      return this.#poison(d);
    }
    const fresh = this.#claimUnits(d, ipAt, ipBytesInA, slotB);
    if (fresh < 0) return this.#poison(d);
    if (fresh === 0) return NO_SLOT; // a repetition
    this.#gotBytes[d]! += this.#dataBytes;
    if (end > this.#endBytes[d]!) this.#endBytes[d] = end;
    if (isLast) this.#totalBytes[d] = end;
    if (this.#offset === 0) this.#keepHeader(d, ipAt, family);
    this.#copyData(this.#pool.slotAt(this.#slotOf[d]!) + DATA_AT + this.#offset, ipAt, ipBytesInA, slotB);

    if (this.#totalBytes[d] === 0 || this.#gotBytes[d] !== this.#totalBytes[d]) return NO_SLOT;
    return this.#finish(d, family);
  }

  /**
   * Drop datagrams whose 30 s are over. push() calls it; call it from time to time as well, so that slots are
   * freed without traffic.
   */
  expire(now: number): void {
    if (now < this.#soonestMs) return;
    this.#soonestMs = Number.POSITIVE_INFINITY;
    for (let d = 0; d < MAX_DATAGRAMS; d++) {
      if (this.#state[d] === State.free) continue;
      if (now >= this.#expiresMs[d]!) this.#release(d);
      else if (this.#expiresMs[d]! < this.#soonestMs) this.#soonestMs = this.#expiresMs[d]!;
    }
  }

  #parseIpv4(ipAt: number, ipBytesInA: number, ipBytes: number): boolean {
    const u8 = this.#u8;
    const headerBytes = ipv4HeaderBytes(u8, ipAt, ipBytes);
    if (headerBytes < 0 || headerBytes > ipBytesInA) return false;
    if (finishSum(onesSum(u8, ipAt, headerBytes, 0)) !== 0) return false;
    const totalLen = ipv4TotalLen(u8, ipAt);
    this.#offset = ipv4FragOffset(u8, ipAt);
    this.#more = ipv4MoreFragments(u8, ipAt);
    this.#dataAt = ipAt + headerBytes;
    this.#dataBytes = totalLen - headerBytes;
    this.#protocol = ipv4Protocol(u8, ipAt);
    this.#ipHeaderBytes = headerBytes;
    const key = this.#key;
    key.fill(0, 0, 8);
    key[0] = readU32(u8, ipAt + IPV4_SRC);
    key[4] = readU32(u8, ipAt + IPV4_DST);
    key[8] = ipv4Ident(u8, ipAt);
    key[9] = (4 << 8) | this.#protocol;
    return this.#plausible(headerBytes);
  }

  #parseIpv6(ipAt: number, ipBytesInA: number, ipBytes: number): boolean {
    const u8 = this.#u8;
    const out = this.#upper;
    if (ipv6HeaderBytes(u8, ipAt, ipBytes) < 0 || ipv6Upper(u8, ipAt, ipBytesInA, out) < 0) return false;
    const fragmentAt = out[Ipv6Out.fragmentAt]!;
    if (fragmentAt < 0) return false;
    this.#offset = out[Ipv6Out.fragmentOffset]!;
    this.#more = out[Ipv6Out.moreFragments] === 1;
    this.#dataAt = ipAt + fragmentAt + IPV6_FRAGMENT_BYTES;
    this.#dataBytes = IPV6_BYTES + ipv6PayloadLen(u8, ipAt) - fragmentAt - IPV6_FRAGMENT_BYTES;
    this.#protocol = out[Ipv6Out.protocol]!;
    this.#ipHeaderBytes = fragmentAt;
    this.#nextHeaderAt = out[Ipv6Out.nextHeaderAt]!;
    const key = this.#key;
    for (let i = 0; i < 4; i++) {
      key[i] = readU32(u8, ipAt + IPV6_SRC + 4 * i);
      key[4 + i] = readU32(u8, ipAt + IPV6_DST + 4 * i);
    }
    key[8] = out[Ipv6Out.ident]!;
    key[9] = 6 << 8;
    // The payload length of an IPv6 packet does not count its fixed header.
    return this.#plausible(this.#ipHeaderBytes - IPV6_BYTES);
  }

  /** @param lengthFieldBytes  header bytes that the length field of the whole datagram counts */
  #plausible(lengthFieldBytes: number): boolean {
    if (this.#dataBytes <= 0) return false;
    if (this.#more && (this.#dataBytes & 7) !== 0) return false;
    if (this.#offset + this.#dataBytes + lengthFieldBytes > MAX_IP_BYTES) return false;
    if (this.#ipHeaderBytes + ETH_BYTES > HEADER_ROOM_BYTES) return false;
    const isFirst = this.#offset === 0;
    if (isFirst && this.#protocol === IpProtocol.tcp && this.#dataBytes < TCP_FIRST_MIN_BYTES) return false;
    return true;
  }

  /** The datagram of the present fragment, started if it is new; -1: there is no slot for it. */
  #find(now: number): number {
    // Fragments of a datagram come in a row: mostly it is the same datagram as last time.
    if (this.#state[this.#lastFound] !== State.free && this.#isKey(this.#lastFound)) return this.#lastFound;
    let freeAt = -1;
    let oldest = 0;
    for (let d = 0; d < MAX_DATAGRAMS; d++) {
      if (this.#state[d] === State.free) {
        if (freeAt < 0) freeAt = d;
      } else {
        if (this.#isKey(d)) {
          this.#lastFound = d;
          return d;
        }
        if (this.#state[oldest] === State.free || this.#expiresMs[d]! < this.#expiresMs[oldest]!) oldest = d;
      }
    }
    if (freeAt < 0 || this.#busy >= this.#limit) {
      this.#release(oldest);
      freeAt = oldest;
    }
    let slot = this.#slots.pop();
    if (slot === NO_SLOT) {
      // Release the oldest datagram that holds a slot, so that one at least can be finished.
      const holder = this.#oldestHolder();
      if (holder < 0) return -1;
      this.#release(holder);
      slot = this.#slots.pop();
      if (slot === NO_SLOT) return -1;
    }
    const d = freeAt;
    this.#busy++;
    this.#state[d] = State.collecting;
    this.#slotOf[d] = slot;
    this.#expiresMs[d] = now + TIMEOUT_MS;
    if (now + TIMEOUT_MS < this.#soonestMs) this.#soonestMs = now + TIMEOUT_MS;
    this.#lastFound = d;
    this.#gotBytes[d] = 0;
    this.#endBytes[d] = 0;
    this.#totalBytes[d] = 0;
    this.#headerBytes[d] = 0;
    this.#units.fill(0, d * UNIT_WORDS, (d + 1) * UNIT_WORDS);
    for (let i = 0; i < KEY_WORDS; i++) this.#keys[d * KEY_WORDS + i] = this.#key[i]!;
    return d;
  }

  #isKey(d: number): boolean {
    const at = d * KEY_WORDS;
    for (let i = 0; i < KEY_WORDS; i++) if (this.#keys[at + i] !== this.#key[i]) return false;
    return true;
  }

  #oldestHolder(): number {
    let oldest = -1;
    for (let d = 0; d < MAX_DATAGRAMS; d++) {
      if (this.#state[d] !== State.collecting) continue;
      if (oldest < 0 || this.#expiresMs[d]! < this.#expiresMs[oldest]!) oldest = d;
    }
    return oldest;
  }

  /**
   * Mark the units of the present fragment as received.
   * @returns 1: all are new; 0: all were received before with the same bytes; -1: an overlap
   */
  #claimUnits(d: number, ipAt: number, ipBytesInA: number, slotB: number): number {
    const units = this.#units;
    const from = this.#offset >>> 3;
    const last = (this.#offset + this.#dataBytes - 1) >>> 3;
    const base = d * UNIT_WORDS;
    const firstWord = from >>> 5;
    const lastWord = last >>> 5;
    let received = 0;
    let missing = 0;
    // Word by word: bit by bit this loop was half of the reader's work on a fragment
    // (bench/reassembly.bench.ts).
    for (let word = firstWord; word <= lastWord; word++) {
      const mask = unitMask(word, firstWord, lastWord, from, last);
      received |= units[base + word]! & mask;
      missing |= ~units[base + word]! & mask;
    }
    if (received === 0) {
      for (let word = firstWord; word <= lastWord; word++)
        units[base + word]! |= unitMask(word, firstWord, lastWord, from, last);
      return 1;
    }
    return missing === 0 && this.#isRepetition(d, ipAt, ipBytesInA, slotB) ? 0 : -1;
  }

  #isRepetition(d: number, ipAt: number, ipBytesInA: number, slotB: number): boolean {
    const u8 = this.#u8;
    const to = this.#pool.slotAt(this.#slotOf[d]!) + DATA_AT + this.#offset;
    const inA = this.#dataBytesInA(ipAt, ipBytesInA);
    for (let i = 0; i < inA; i++) if (u8[to + i] !== u8[this.#dataAt + i]) return false;
    if (inA === this.#dataBytes) return true;
    const moreAt = this.#moreAt(ipAt, ipBytesInA, slotB);
    for (let i = inA; i < this.#dataBytes; i++) if (u8[to + i] !== u8[moreAt + i - inA]) return false;
    return true;
  }

  #dataBytesInA(ipAt: number, ipBytesInA: number): number {
    const inA = ipAt + ipBytesInA - this.#dataAt;
    return Math.min(inA, this.#dataBytes);
  }

  /**
   * Offset in u8 of the data in slot B. The header may end exactly with slot A: then all data is in slot B.
   */
  #moreAt(ipAt: number, ipBytesInA: number, slotB: number): number {
    const skipped = this.#dataAt - (ipAt + ipBytesInA);
    return this.#pool.slotAt(slotB) + Math.max(skipped, 0);
  }

  #copyData(to: number, ipAt: number, ipBytesInA: number, slotB: number): void {
    const u8 = this.#u8;
    const inA = this.#dataBytesInA(ipAt, ipBytesInA);
    u8.copyWithin(to, this.#dataAt, this.#dataAt + inA);
    if (inA === this.#dataBytes || slotB === NO_SLOT) return;
    const moreAt = this.#moreAt(ipAt, ipBytesInA, slotB);
    u8.copyWithin(to + inA, moreAt, moreAt + this.#dataBytes - inA);
  }

  /** Save the Ethernet and IP headers of the fragment with offset 0, for the whole datagram. */
  #keepHeader(d: number, ipAt: number, family: 4 | 6): void {
    const bytes = ETH_BYTES + this.#ipHeaderBytes;
    const to = d * HEADER_ROOM_BYTES;
    for (let i = 0; i < bytes; i++) this.#headers[to + i] = this.#u8[ipAt - ETH_BYTES + i]!;
    if (family === 6) this.#headers[to + ETH_BYTES + this.#nextHeaderAt] = this.#protocol;
    this.#headerBytes[d] = bytes;
  }

  #finish(d: number, family: 4 | 6): number {
    const slot = this.#slotOf[d]!;
    const slotAt = this.#pool.slotAt(slot);
    const headerBytes = this.#headerBytes[d]!;
    const frameAt = slotAt + DATA_AT - headerBytes;
    const from = d * HEADER_ROOM_BYTES;
    for (let i = 0; i < headerBytes; i++) this.#u8[frameAt + i] = this.#headers[from + i]!;
    const total = this.#totalBytes[d]!;
    this.#state[d] = State.free;
    this.#busy--;
    // Checked again with the header of the first fragment: its IPv4 options may be longer than those of the
    // other fragments.
    const lengthField = headerBytes - ETH_BYTES - (family === 6 ? IPV6_BYTES : 0) + total;
    if (lengthField > MAX_IP_BYTES) {
      this.#slots.push(slot);
      return this.#dropped();
    }
    this.#setLength(frameAt + ETH_BYTES, headerBytes - ETH_BYTES, lengthField, family);
    this.frameAt = frameAt - slotAt;
    this.frameBytes = headerBytes + total;
    this.#counters[Counter.fragmentsReassembled]!++;
    return slot;
  }

  /** Copy an IPv6 datagram of a single fragment, without its fragment header. */
  #whole(ipAt: number, ipBytesInA: number, slotB: number): number {
    const slot = this.#slots.pop();
    if (slot === NO_SLOT) return this.#dropped();
    const slotAt = this.#pool.slotAt(slot);
    const headerBytes = ETH_BYTES + this.#ipHeaderBytes;
    const frameAt = slotAt + DATA_AT - headerBytes;
    this.#u8.copyWithin(frameAt, ipAt - ETH_BYTES, ipAt - ETH_BYTES + headerBytes);
    this.#u8[frameAt + ETH_BYTES + this.#nextHeaderAt] = this.#protocol;
    this.#copyData(slotAt + DATA_AT, ipAt, ipBytesInA, slotB);
    this.#setLength(
      frameAt + ETH_BYTES,
      this.#ipHeaderBytes,
      this.#ipHeaderBytes - IPV6_BYTES + this.#dataBytes,
      6,
    );
    this.frameAt = frameAt - slotAt;
    this.frameBytes = headerBytes + this.#dataBytes;
    this.#counters[Counter.fragmentsReassembled]!++;
    return slot;
  }

  #setLength(ipAt: number, headerBytes: number, lengthField: number, family: 4 | 6): void {
    const u8 = this.#u8;
    if (family === 6) {
      writeU16(u8, ipAt + 4, lengthField);
      return;
    }
    writeU16(u8, ipAt + 2, lengthField);
    // Clear MF, DF and the fragment offset: the datagram is whole now.
    writeU16(u8, ipAt + 6, readU16(u8, ipAt + 6) & 0x8000);
    writeU16(u8, ipAt + IPV4_CHECKSUM, 0);
    writeU16(u8, ipAt + IPV4_CHECKSUM, finishSum(onesSum(u8, ipAt, headerBytes, 0)));
  }

  /** Drop the datagram, and its further fragments until its time is over. */
  #poison(d: number): number {
    this.#slots.push(this.#slotOf[d]!);
    this.#state[d] = State.poisoned;
    return this.#dropped();
  }

  #release(d: number): void {
    if (this.#state[d] === State.collecting) {
      this.#slots.push(this.#slotOf[d]!);
      this.#counters[Counter.fragmentsDropped]!++;
    }
    this.#state[d] = State.free;
    this.#busy--;
  }

  #dropped(): number {
    this.#counters[Counter.fragmentsDropped]!++;
    return NO_SLOT;
  }
}
