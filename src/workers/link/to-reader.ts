/**
 * shard or host-io -> reader. One op: only slots go back.
 *
 *              +1     +2, +3
 *   freeSlots  -      slots
 */
import type { DescriptorOut } from './words.ts';
import { keyOf, reserveBare, slotsText } from './words.ts';

export const ToReader = {
  /** Give slots back to the reader, which owns them. */
  freeSlots: 1,
} as const;

/** Give slots back to the reader. Either may be NO_SLOT. */
export function freeReaderSlotsWrite(out: DescriptorOut, slotA: number, slotB: number): void {
  const at = reserveBare(out, ToReader.freeSlots, 0);
  out.words[at + 2] = slotA;
  out.words[at + 3] = slotB;
  out.commit();
}

/** For tests: "freeSlots 4 and 300". */
export function toReaderText(w: Uint32Array, at = 0): string {
  return `${keyOf(ToReader, w[at]!)} ${slotsText(w, at)}`;
}
