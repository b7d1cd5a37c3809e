/**
 * The words of a descriptor: 64 bytes, 16 u32 words, on the SPSC ring between two stages. Only the files of
 * this folder know the words (test/layers.test.ts checks it); all other files use the writers and accessors
 * of each op.
 *
 *       +0   +1     +2      +3      +4   +5      +6     +7     +8 .. +11   +12 .. +15
 *      | op | flow | slotA | slotB | at | bytes | arg0 | arg1 | remote    | local     |
 *
 * `slotA` and `slotB` hold the pieces of a frame (NO_SLOT: none). `at` is the byte offset of the payload from
 * the start of slotA; `bytes` is the payload's length over both slots. Ownership of both slots passes with
 * the descriptor. An address is four words, most significant first, IPv4 as ::ffff:a.b.c.d. `remote` is the
 * address on the host's side of the engine. `local` is the guest's or, for a listener, the host's address to
 * which the peer has sent. Two ports in one word have the same order: remote << 16 | local. Ops without
 * addresses and ports use these words for other operands: the file of each direction draws them.
 *
 * The code uses the numbers of these drawings, as the codecs of proto/ do: there is one place to look, and V8
 * folds the numbers wherever a writer or accessor is inlined.
 *
 * Invariant: a writer sets every word that the accessors of its op read. The other words are stale, or
 * UNSET_WORD (ring/spsc.ts) where ownership is checked.
 */
import { addressText, isV4Mapped } from '../../proto/address.ts';
import { NO_SLOT } from '../../ring/pool.ts';

/** The part of a RingProducer that writers need. Tests have one that holds a single descriptor. */
export interface DescriptorOut {
  readonly words: Uint32Array;
  reserve(): number;
  commit(): void;
}

/**
 * Reserve a descriptor without slots.
 * @returns index of its first word in `out.words`; the writer sets the operands and commits
 */
export function reserveBare(out: DescriptorOut, op: number, flow: number): number {
  const at = out.reserve();
  const w = out.words;
  w[at] = op;
  w[at + 1] = flow;
  w[at + 2] = NO_SLOT;
  w[at + 3] = NO_SLOT;
  return at;
}

/**
 * Reserve a descriptor with slots.
 * @param slotOffset  byte offset of the payload from the start of slot A
 * @param bytes  payload bytes in both slots
 * @returns as reserveBare()
 */
export function reserveWithSlots(
  out: DescriptorOut,
  op: number,
  flow: number,
  slotA: number,
  slotB: number,
  slotOffset: number,
  bytes: number,
): number {
  const at = out.reserve();
  const w = out.words;
  w[at] = op;
  w[at + 1] = flow;
  w[at + 2] = slotA;
  w[at + 3] = slotB;
  w[at + 4] = slotOffset;
  w[at + 5] = bytes;
  return at;
}

/** For tests: "192.0.2.1:53", "[2001:db8::1]:53". @param a  index of the address in `w` */
export function endpointText(w: Uint32Array, a: number, port: number): string {
  const text = addressText(w, a);
  return isV4Mapped(w, a) ? `${text}:${port}` : `[${text}]:${port}`;
}

/** For tests: the slots of a descriptor: "4", "4 and 300", "none". */
export function slotsText(w: Uint32Array, at: number): string {
  const slots = [w[at + 2]!, w[at + 3]!].filter((slot) => slot !== NO_SLOT);
  return slots.length === 0 ? 'none' : slots.join(' and ');
}

/** For tests: the key of `value` in a set of constants. */
export function keyOf(constants: Readonly<Record<string, number>>, value: number): string {
  return Object.keys(constants).find((key) => constants[key] === value) ?? `? ${value}`;
}

/** For tests: `text` of a value after a comma; nothing when the value is 0. */
export const clause = (value: number, text: (value: number) => string): string =>
  value === 0 ? '' : `, ${text(value)}`;
