/**
 * Makes hostile frames from valid ones: every field wrong in every usual way once, then random changes from a
 * seed.
 */
import type { Prng } from '../support/netsim/prng.ts';
import { type Field, fixChecksums, type Seed } from './corpus.ts';

/** Longest frame: vnet header, 64 KiB of IP, and a little more. */
export const MAX_FRAME_BYTES = 12 + 14 + 65_535 + 64;

const INTERESTING = [
  0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 19, 20, 21, 39, 40, 41, 59, 60, 63, 64, 127, 128, 255, 256, 1279, 1280,
  1499, 1500, 2047, 2048, 32767, 32768, 65527, 65528, 65534, 65535,
];
const INTERESTING_ADDRESSES = [
  0, 1, 0x7f000001, 0xffffffff, 0xe0000001, 0xc0000201, 0xc0000202, 0xc0000203, 0xc000020f, 0xc00002ff,
  0xff020000, 0xfe800000, 0x20010db8, 0x0000ffff, 0x0a000001,
];

function read(b: Uint8Array, at: number, f: Field): number {
  let v = 0;
  for (let i = 0; i < f.size; i++) v = v * 256 + b[at + f.at + (f.little ? f.size - 1 - i : i)]!;
  return v;
}

function write(b: Uint8Array, at: number, f: Field, value: number): void {
  for (let i = 0; i < f.size; i++) {
    b[at + f.at + (f.little ? i : f.size - 1 - i)] = Math.floor(value / 256 ** i) & 255;
  }
}

/** Every field of every seed with every wrong value, with checksums right and wrong, and every truncation. */
export function* systematic(
  seeds: readonly Seed[],
): Generator<{ seed: Seed; what: string; bytes: Uint8Array }> {
  for (const seed of seeds) {
    yield { seed, what: 'as it is', bytes: seed.bytes };
    for (const f of seed.fields) {
      const max = 256 ** f.size - 1;
      const now = read(seed.bytes, 0, f);
      const values = new Set<number>([
        ...INTERESTING,
        ...(f.size === 4 ? INTERESTING_ADDRESSES : []),
        max,
        max - 1,
        max >>> 1,
        (max >>> 1) + 1,
      ]);
      for (const delta of [-64, -9, -8, -4, -2, -1, 1, 2, 4, 8, 9, 64]) values.add(now + delta);
      // One-byte fields (flags, types, header lengths, options): all values.
      if (f.size === 1) for (let v = 0; v < 256; v++) values.add(v);
      for (const value of values) {
        if (value < 0 || value > max || value === now) continue;
        const bytes = seed.bytes.slice();
        write(bytes, 0, f, value);
        const isChecksum = f.name.endsWith('checksum');
        if (!isChecksum) fixChecksums(bytes, 0, bytes.length);
        yield { seed, what: `${f.name} = ${value}`, bytes };
      }
    }
    for (let bytes = 1; bytes < Math.min(seed.bytes.length, 200); bytes++)
      yield { seed, what: `cut to ${bytes}`, bytes: seed.bytes.slice(0, bytes) };
    for (const more of [1, 2, 3, 64, 2000]) {
      const bytes = new Uint8Array(seed.bytes.length + more).fill(0xee);
      bytes.set(seed.bytes);
      yield { seed, what: `${more} bytes more`, bytes };
    }
  }
}

/** Writes random frames in place. */
export class Mutator {
  readonly #seeds: readonly Seed[];
  readonly #prng: Prng;
  /** The valid frame from which the last one was made. */
  last = 0;

  constructor(seeds: readonly Seed[], prng: Prng) {
    this.#seeds = seeds;
    this.#prng = prng;
  }

  /** @param b  room of MAX_FRAME_BYTES at `at` @returns bytes of the frame */
  next(b: Uint8Array, at: number): number {
    const r = this.#prng;
    this.last = r.int(0, this.#seeds.length - 1);
    const seed = this.#seeds[this.last]!;
    let bytes = seed.bytes.length;
    b.set(seed.bytes, at);
    const kinds = r.u32();
    // One valid frame in sixteen, to create state that others can attack.
    if ((kinds & 15) === 0) {
      this.#vary(b, at, seed);
      fixChecksums(b, at, bytes);
      return bytes;
    }
    const count = 1 + ((kinds >>> 4) & 3);
    for (let i = 0; i < count; i++) bytes = this.#mutate(b, at, bytes, seed);
    // Mostly with right checksums, or all frames would be dropped for those.
    if ((kinds >>> 8) & 7 && bytes < 5000) fixChecksums(b, at, bytes);
    return bytes;
  }

  /** Change ports and addresses, to create many flows. */
  #vary(b: Uint8Array, at: number, seed: Seed): void {
    const r = this.#prng;
    for (const f of seed.fields) {
      if (f.name.endsWith('Port') && r.chance(0.3))
        write(b, at, f, (read(b, at, f) & 0xff00) | r.int(0, 255));
      else if (f.name === 'ip.dst' && r.chance(0.1)) write(b, at, f, 0xc6336400 | r.int(0, 255));
    }
  }

  #mutate(b: Uint8Array, at: number, bytes: number, seed: Seed): number {
    const r = this.#prng;
    const kind = r.u32() & 15;
    if (kind < 7 && seed.fields.length > 0) {
      const f = seed.fields[r.int(0, seed.fields.length - 1)]!;
      if (f.at + f.size > bytes) return bytes;
      const how = r.u32() & 3;
      let value: number;
      if (how === 0) value = INTERESTING[r.int(0, INTERESTING.length - 1)]!;
      else if (how === 1) value = r.u32();
      else if (how === 2) value = read(b, at, f) + r.int(-16, 16);
      else
        value =
          f.size === 4
            ? INTERESTING_ADDRESSES[r.int(0, INTERESTING_ADDRESSES.length - 1)]!
            : bytes - r.int(0, 60);
      write(b, at, f, (value & (f.size === 4 ? -1 : 256 ** f.size - 1)) >>> 0);
      return bytes;
    }
    switch (kind) {
      case 7:
      case 8:
        b[at + r.int(0, bytes - 1)]! ^= 1 << r.int(0, 7);
        return bytes;
      case 9:
        b[at + r.int(0, Math.min(bytes, 100) - 1)] = r.u32();
        return bytes;
      case 10:
        return r.int(1, bytes);
      case 11: {
        // Longer: mostly a little, sometimes of maximum length.
        const more = r.chance(0.02) ? r.int(0, MAX_FRAME_BYTES - bytes) : r.int(1, 100);
        const to = Math.min(bytes + more, MAX_FRAME_BYTES);
        b.fill(r.u32(), at + bytes, at + to);
        return to;
      }
      case 12: {
        // The head of this frame and the tail of another.
        const other = this.#seeds[r.int(0, this.#seeds.length - 1)]!.bytes;
        const cut = r.int(1, Math.min(bytes, other.length));
        b.set(other.subarray(cut), at + cut);
        return other.length;
      }
      case 13: {
        // The headers of another frame after the headers of this one.
        const other = this.#seeds[r.int(0, this.#seeds.length - 1)]!.bytes;
        const cut = r.pick([12, 26, 46, 66, 74, 86]);
        if (cut > bytes) return bytes;
        const part = other.subarray(r.pick([12, 26, 46, 66]));
        b.set(part, at + cut);
        return Math.max(1, cut + part.length);
      }
      case 14: {
        // A piece of the frame twice.
        const from = r.int(0, bytes - 1);
        const n = r.int(1, Math.min(40, bytes - from));
        b.copyWithin(at + r.int(0, bytes - n), at + from, at + from + n);
        return bytes;
      }
      default:
        // Only the headers remain.
        return Math.max(
          1,
          Math.min(bytes, r.pick([12, 14, 25, 26, 27, 30, 45, 46, 47, 53, 54, 65, 66, 67, 85, 86])),
        );
    }
  }
}
