/**
 * Which MAC address has which address of the guest's, where there is more than one MAC: a bridge inside with
 * several members, or a virtual machine behind it. As long as all frames come from one MAC the table is empty,
 * and `inUse` is all that a frame costs.
 *
 * Words of shared memory, which the shards of all threads write:
 *
 *   +0          in use: 0, all frames go to the one MAC that is known; 1, the table decides
 *   +1          place of the next entry that gives way
 *   +2          1: the one MAC is known by an address that is not one of the guest's, which is in the table
 *   +8 i        +0 address, 4 words (IPv4 as v4-mapped)   +4 MAC, first 4 bytes   +5 its other 2, and USED
 *
 * A writer clears the last word, writes the others and sets it; a reader compares it before and after. A frame
 * that a race misleads is lost as on a wire.
 */
import { addressCopy, addressEqual, isUnspecified } from '../../proto/address.ts';
import { readU16, readU32, writeU16, writeU32 } from '../../proto/be.ts';
import { MAC_BYTES } from '../../proto/ethernet.ts';
import { NEIGHBOUR_WORDS } from '../../ring/layout.ts';

const IN_USE = 0;
const VICTIM = 1;
const FOREIGN = 2;
const ENTRY_WORDS = 8;
const ENTRIES = NEIGHBOUR_WORDS / ENTRY_WORDS - 1;
const MAC_HIGH = 4;
const MAC_LOW = 5;
const USED = 0x8000_0000;
/** An address is in one of so many places after that of its hash. */
const PROBES = 8;

export class GuestNeighbours {
  readonly #words: Uint32Array;
  readonly #guestMac: Uint8Array;

  /**
   * @param words  NEIGHBOUR_WORDS, shared
   * @param guestMac  the MAC of all addresses that are not in the table; shared
   */
  constructor(words: Uint32Array, guestMac: Uint8Array) {
    this.#words = words;
    this.#guestMac = guestMac;
  }

  /** Whether a frame's destination has to be looked up. A plain read: a frame sooner or later does not matter. */
  get inUse(): boolean {
    return this.#words[IN_USE] !== 0;
  }

  /** Whether the guest's MAC is not known yet: frames go to the broadcast address (engine.ts). */
  get isUnknown(): boolean {
    return this.#guestMac[0] === 0xff;
  }

  /**
   * Note the sender of a frame that is not from the guest's one MAC, or of any while the table is in use.
   * @param words,w  its address
   * @param u8,macAt  its MAC
   * @param seen  Addressing.seen: three addresses of the guest's one MAC
   * @param spoken  Addressing.spoken: which of them it has sent from
   * @returns whether something new is known
   */
  learn(
    words: Uint32Array,
    w: number,
    u8: Uint8Array,
    macAt: number,
    seen: Uint32Array,
    spoken: number,
  ): boolean {
    const isNoAddress = isUnspecified(words, w);
    if (this.inUse && !this.isUnknown) return !isNoAddress && this.#put(words, w, u8, macAt);
    let guests = -1;
    for (let i = 0; i < 3; i++) if (addressEqual(words, w, seen, 4 * i)) guests = i;
    const isForeign = Atomics.load(this.#words, FOREIGN) !== 0;
    if (this.isUnknown) {
      if (!isNoAddress && guests < 0) {
        this.#put(words, w, u8, macAt);
        Atomics.store(this.#words, FOREIGN, 1);
      }
      return this.#replace(u8, macAt);
    }
    // The guest's interface has another MAC now. But who asks whether an address is free, or for one by DHCP, may as
    // well be a member of a bridge: then the addresses that are known to be used stay where they are.
    const isSame = isNoAddress
      ? spoken === 0 && !isForeign
      : guests >= 0 && (!isForeign || (spoken & (1 << guests)) !== 0);
    if (isSame) return this.#replace(u8, macAt);
    // Of an address that was only planned it is not known who has it.
    for (let i = 0; i < 3; i++) if ((spoken & (1 << i)) !== 0) this.#put(seen, 4 * i, this.#guestMac, 0);
    if (!isNoAddress) this.#put(words, w, u8, macAt);
    Atomics.store(this.#words, IN_USE, 1);
    return true;
  }

  /** From now on all frames go to this MAC. @returns true */
  #replace(u8: Uint8Array, macAt: number): true {
    for (let i = 0; i < MAC_BYTES; i++) this.#guestMac[i] = u8[macAt + i]!;
    this.#words[IN_USE] = 0;
    return true;
  }

  /** Whether an address is in the table: a neighbour inside answers for it itself. */
  has(words: Uint32Array, w: number): boolean {
    return this.inUse && this.#find(words, w) > 0;
  }

  /**
   * Look up a destination.
   * @param mac  gets the six bytes
   * @returns whether the address is in the table
   */
  macOf(words: Uint32Array, w: number, mac: Uint8Array): boolean {
    const at = this.#find(words, w);
    if (at === 0) return false;
    const low = Atomics.load(this.#words, at + MAC_LOW);
    writeU32(mac, 0, this.#words[at + MAC_HIGH]!);
    writeU16(mac, 4, low & 0xffff);
    return (low & USED) !== 0 && Atomics.load(this.#words, at + MAC_LOW) === low;
  }

  /** @returns index of the entry, 0 if there is none */
  #find(words: Uint32Array, w: number): number {
    const table = this.#words;
    const first = hash(words, w);
    for (let i = 0; i < PROBES; i++) {
      const at = placeOf(first + i);
      if ((table[at + MAC_LOW]! & USED) !== 0 && addressEqual(words, w, table, at)) return at;
    }
    return 0;
  }

  /** @returns whether the table did not have it */
  #put(words: Uint32Array, w: number, u8: Uint8Array, macAt: number): boolean {
    const table = this.#words;
    const high = readU32(u8, macAt);
    const low = (readU16(u8, macAt + 4) | USED) >>> 0;
    let at = this.#find(words, w);
    if (at > 0 && table[at + MAC_HIGH] === high && table[at + MAC_LOW] === low) return false;
    if (at === 0) {
      const first = hash(words, w);
      let probe = 0;
      while (probe < PROBES && (table[placeOf(first + probe) + MAC_LOW]! & USED) !== 0) probe++;
      // All are taken: one after the other gives way.
      if (probe === PROBES) probe = table[VICTIM]!++ % PROBES;
      at = placeOf(first + probe);
    }
    Atomics.store(table, at + MAC_LOW, 0);
    addressCopy(words, w, table, at);
    table[at + MAC_HIGH] = high;
    Atomics.store(table, at + MAC_LOW, low);
    return true;
  }
}

const placeOf = (index: number): number => ENTRY_WORDS * (1 + (index % ENTRIES));

function hash(words: Uint32Array, w: number): number {
  let h = words[w]! ^ words[w + 1]! ^ words[w + 2]! ^ words[w + 3]!;
  h = Math.imul(h ^ (h >>> 16), 0x45d9f3b);
  return (h ^ (h >>> 16)) >>> 8;
}
