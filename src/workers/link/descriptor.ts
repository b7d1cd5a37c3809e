/**
 * Accessors that all ops of all directions share: op, flow and slots (drawn in words.ts). `w` are the words
 * of a ring, `at` is the index of the descriptor's first word. An op without slots has NO_SLOT as both; its
 * slot offset and bytes are undefined.
 */
import { DESC_WORDS } from '../../ring/spsc.ts';

export type { DescriptorOut } from './words.ts';

/** A value of ToHost, ToShard or ToReader, depending on the direction of the link. */
export const linkOp = (w: Uint32Array, at: number): number => w[at]!;

/** Flow id within its shard; 0 for ops that are not about a flow. */
export const linkFlow = (w: Uint32Array, at: number): number => w[at + 1]!;

export const linkSlotA = (w: Uint32Array, at: number): number => w[at + 2]!;
export const linkSlotB = (w: Uint32Array, at: number): number => w[at + 3]!;

/** Byte offset of the payload from the start of slot A. */
export const linkSlotOffset = (w: Uint32Array, at: number): number => w[at + 4]!;

/** Payload bytes, those in slot B included. */
export const linkBytes = (w: Uint32Array, at: number): number => w[at + 5]!;

/**
 * Copy a descriptor, to keep it after its place on the ring is released: DESC_WORDS words to `to[toAt]` on.
 */
export function descriptorCopy(w: Uint32Array, at: number, to: Uint32Array, toAt: number): void {
  for (let i = 0; i < DESC_WORDS; i++) to[toAt + i] = w[at + i]!;
}
