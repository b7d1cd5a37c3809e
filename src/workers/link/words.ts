/**
 * The words of a descriptor: 64 bytes, 16 u32 words, on the SPSC ring between two stages. Only the files of
 * this folder know them (test/layers.test.ts checks); all others write an op by its writer and read it by its
 * accessors.
 *
 *       +0   +1     +2      +3      +4   +5      +6     +7     +8 .. +11   +12 .. +15
 *      | op | flow | slotA | slotB | at | bytes | arg0 | arg1 | remote    | local     |
 *
 * `slotA`/`slotB` name the pieces of a frame (NO_SLOT: none), `at` is the byte offset of the payload from the
 * start of slotA, `bytes` counts from there through the end of slotB. Ownership of both slots passes with the
 * descriptor. An address is four words, most significant first, IPv4 as ::ffff:a.b.c.d: `remote` is of the
 * host's side of the engine, `local` the guest's or, of a listener, the one of the host's that the peer wrote
 * to. Two ports in one word stand likewise: remote << 16 | local. An op without them uses the words
 * otherwise: the file of its direction draws it.
 *
 * The code has the numbers of these drawings, as the codecs of proto/ have: one place to look, and V8 folds
 * them wherever a writer or accessor is inlined.
 *
 * Invariant: a writer sets every word that the accessors of its op read. The others hold what an earlier
 * descriptor left, or, where ownership is checked, UNSET_WORD (ring/spsc.ts).
 */
import { addressText, isV4Mapped } from '../../proto/address.ts';
import { NO_SLOT } from '../../ring/pool.ts';

/** What a writer needs of a ring: RingProducer, or one descriptor of a test. */
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

/** Reserve a descriptor with slots. @returns as reserveBare() */
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

/** "192.0.2.1:53", "[2001:db8::1]:53". @param a  index of the address in `w` */
export function endpointText(w: Uint32Array, a: number, port: number): string {
  const text = addressText(w, a);
  return isV4Mapped(w, a) ? `${text}:${port}` : `[${text}]:${port}`;
}

/** "4", "4 and 300", "none". */
export function slotsText(w: Uint32Array, at: number): string {
  const slots = [w[at + 2]!, w[at + 3]!].filter((slot) => slot !== NO_SLOT);
  return slots.length === 0 ? 'none' : slots.join(' and ');
}

/** The key of `value` in a set of constants, for texts. */
export function keyOf(constants: Readonly<Record<string, number>>, value: number): string {
  return Object.keys(constants).find((key) => constants[key] === value) ?? `? ${value}`;
}

/** What is said of a word only when it is not 0. */
export const clause = (value: number, say: (value: number) => string): string =>
  value === 0 ? '' : `, ${say(value)}`;
