/**
 * Addresses that our DNS forwarder answered, and for which names: rules of the egress policy that have names
 * are about these addresses (egress-policy.ts). One table in shared memory for all packet threads, as an
 * answer may come through another lane than the flow. It outlives the policies.
 *
 *   lock i32 | entries: SETS sets of WAYS
 *   entry: version | expires, seconds | address, 4 words | bytes of the name | (unused) | name, 256 bytes
 *
 * The table is set-associative: an address has WAYS places. When all are in use, the entry that expires first
 * makes room.
 *
 * Writers hold the lock. A reader takes none: the version of an entry is odd while it is written and differs
 * afterwards, and a reader skips an entry whose version has changed meanwhile. Such an entry was replaced by
 * another address's or name's. A new expiry is one store and leaves the version alone.
 */
import { addressCopy, addressEqual } from '../../proto/address.ts';

const SETS = 512;
const WAYS = 8;
const ENTRY_WORDS = 72;
const VERSION = 0;
const EXPIRES = 1;
const ADDRESS = 2;
const NAME_BYTES = 6;
const NAME = 8;
const ENTRIES_AT = 32;
const NAME_MAX_BYTES = 255;
/** Size of the table's memory. A page of it takes memory once it is written. */
export const EGRESS_NAMES_BYTES = 4 * (ENTRIES_AT + SETS * WAYS * ENTRY_WORDS);

/**
 * Bounds of the time that an address is kept, in seconds. Programs connect some time after the answer, and try
 * several addresses in turn: an answer with a TTL of 0 must suffice for that. The greatest is a day.
 */
export const LEAST_TTL_S = 30;
export const GREATEST_TTL_S = 86_400;
/** Attempts to take the lock before the thread sleeps a moment: its holder is not running. */
const SPINS = 1000;

const lower = (byte: number): number => (byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte);

/** The table as one thread sees it. */
export class EgressNames {
  readonly memory: SharedArrayBuffer;
  readonly #i32: Int32Array;
  readonly #u32: Uint32Array;
  readonly #u8: Uint8Array;
  /** Threads' monotonic clocks begin at different times: what is added to this thread's, in ms. */
  readonly #clockBase = Date.now() - performance.now();
  /** Name of the entry that first() or next() found, lower case, wire format without the root's zero. */
  readonly name = new Uint8Array(NAME_MAX_BYTES);
  nameBytes = 0;
  readonly #address = new Uint32Array(4);
  #way = 0;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#i32 = new Int32Array(memory);
    this.#u32 = new Uint32Array(memory);
    this.#u8 = new Uint8Array(memory);
  }

  /** The clock of the table, in whole seconds. @param ms  performance.now() */
  now(ms: number): number {
    return Math.floor((this.#clockBase + ms) / 1000) >>> 0;
  }

  /**
   * The first entry of an address that has not expired.
   * @param nowS  now(); 0: expired ones count too
   * @returns its number; -1: none. `name` has its name
   */
  first(words: Uint32Array, w: number, nowS: number): number {
    this.#way = 0;
    return this.next(words, w, nowS);
  }

  /** The next entry: parameters and result as first(). */
  next(words: Uint32Array, w: number, nowS: number): number {
    const set = setOf(words, w);
    while (this.#way < WAYS) {
      const entry = set * WAYS + this.#way++;
      if (this.#read(entry, words, w, nowS)) return entry;
    }
    return -1;
  }

  #read(entry: number, words: Uint32Array, w: number, nowS: number): boolean {
    const at = ENTRIES_AT + entry * ENTRY_WORDS;
    const version = Atomics.load(this.#i32, at + VERSION); // acquire: what follows is at least as new
    if (version === 0 || version & 1) return false;
    if (nowS !== 0 && this.#u32[at + EXPIRES]! <= nowS) return false;
    if (!addressEqual(this.#u32, at + ADDRESS, words, w)) return false;
    const bytes = Math.min(this.#u32[at + NAME_BYTES]!, NAME_MAX_BYTES);
    const nameAt = 4 * (at + NAME);
    for (let i = 0; i < bytes; i++) this.name[i] = this.#u8[nameAt + i]!;
    this.nameBytes = bytes;
    // A sequentially consistent load: the plain reads above are not moved behind it.
    return Atomics.load(this.#i32, at + VERSION) === version;
  }

  /**
   * Note that a name has an address.
   * @param u8,nameAt,nameBytes  the name in wire format without the root's zero, at most 255 bytes
   * @param words,w  the address
   * @param ttlS  as the answer gives it
   * @param nowS  now()
   */
  learn(
    u8: Uint8Array,
    nameAt: number,
    nameBytes: number,
    words: Uint32Array,
    w: number,
    ttlS: number,
    nowS: number,
  ): void {
    if (nameBytes > NAME_MAX_BYTES) return;
    const expires = nowS + Math.min(Math.max(ttlS, LEAST_TTL_S), GREATEST_TTL_S);
    addressCopy(words, w, this.#address, 0);
    this.#lock();
    const first = setOf(this.#address, 0) * WAYS;
    let chosen = -1;
    let soonest = Number.POSITIVE_INFINITY;
    for (let entry = first; entry < first + WAYS; entry++) {
      const at = ENTRIES_AT + entry * ENTRY_WORDS;
      const used = this.#i32[at + VERSION] !== 0;
      if (used && this.#isOf(at, u8, nameAt, nameBytes)) {
        if (expires > this.#u32[at + EXPIRES]!) Atomics.store(this.#u32, at + EXPIRES, expires);
        this.#unlock();
        return;
      }
      const ends = used ? this.#u32[at + EXPIRES]! : -1;
      if (ends < soonest) {
        soonest = ends;
        chosen = entry;
      }
    }
    this.#write(ENTRIES_AT + chosen * ENTRY_WORDS, u8, nameAt, nameBytes, expires);
    this.#unlock();
  }

  #isOf(at: number, u8: Uint8Array, nameAt: number, nameBytes: number): boolean {
    if (this.#u32[at + NAME_BYTES] !== nameBytes) return false;
    if (!addressEqual(this.#u32, at + ADDRESS, this.#address, 0)) return false;
    const own = 4 * (at + NAME);
    for (let i = 0; i < nameBytes; i++) if (this.#u8[own + i] !== lower(u8[nameAt + i]!)) return false;
    return true;
  }

  #write(at: number, u8: Uint8Array, nameAt: number, nameBytes: number, expires: number): void {
    const version = this.#i32[at + VERSION]!;
    Atomics.store(this.#i32, at + VERSION, version | 1);
    Atomics.store(this.#u32, at + EXPIRES, expires);
    // Atomic stores: they stay between those of the version, so that no reader takes a half of each entry.
    for (let i = 0; i < 4; i++) Atomics.store(this.#u32, at + ADDRESS + i, this.#address[i]!);
    Atomics.store(this.#u32, at + NAME_BYTES, nameBytes);
    for (let i = 0; i < nameBytes; i++) Atomics.store(this.#u8, 4 * (at + NAME) + i, lower(u8[nameAt + i]!));
    Atomics.store(this.#i32, at + VERSION, (version | 1) + 1 || 2);
  }

  #lock(): void {
    for (let tries = 1; Atomics.compareExchange(this.#i32, 0, 0, 1) !== 0; tries++)
      if (tries % SPINS === 0) Atomics.wait(this.#i32, 0, 1, 1);
  }

  #unlock(): void {
    Atomics.store(this.#i32, 0, 0);
  }
}

function setOf(words: Uint32Array, w: number): number {
  let h = Math.imul(words[w]! ^ 0x9e3779b1, 0x85ebca6b) ^ words[w + 1]!;
  h = Math.imul(h ^ (h >>> 15), 0xc2b2ae35) ^ words[w + 2]!;
  h = Math.imul(h ^ (h >>> 13), 0x85ebca6b) ^ words[w + 3]!;
  h = Math.imul(h ^ (h >>> 16), 0xc2b2ae35);
  return (h ^ (h >>> 15)) & (SETS - 1);
}
