/**
 * What descriptors of all ops and directions have in common: op, flow and slots (drawn in words.ts). `w` are
 * the words of a ring, `at` the first word of the descriptor. Of ops without slots both are NO_SLOT, and slot
 * offset and bytes mean nothing.
 */
import { DESC_WORDS } from '../../ring/spsc.ts';

export type { DescriptorOut } from './words.ts';

/** ToHost, ToShard or ToReader, by the direction of the link. */
export const linkOp = (w: Uint32Array, at: number): number => w[at]!;

/** Flow id within its shard; 0 of ops that are about no flow. */
export const linkFlow = (w: Uint32Array, at: number): number => w[at + 1]!;

export const linkSlotA = (w: Uint32Array, at: number): number => w[at + 2]!;
export const linkSlotB = (w: Uint32Array, at: number): number => w[at + 3]!;

/** Where the payload begins, bytes from the start of slot A. */
export const linkSlotOffset = (w: Uint32Array, at: number): number => w[at + 4]!;

/** Payload bytes, those in slot B included. */
export const linkBytes = (w: Uint32Array, at: number): number => w[at + 5]!;

/** Keep a descriptor beyond its place on the ring. @param to  DESC_WORDS words from `toAt` on */
export function descriptorCopy(w: Uint32Array, at: number, to: Uint32Array, toAt: number): void {
  for (let i = 0; i < DESC_WORDS; i++) to[toAt + i] = w[at + i]!;
}
