/**
 * Readers for header fields that the engine writes but never reads, for tests of the writers. The header must
 * have been checked, as in src/proto.
 */
import { readU32 } from '../../src/proto/be.ts';

/** Flow label of an IPv6 header, 20 bits. */
export const ipv6FlowLabel = (pool: Uint8Array, at: number): number => readU32(pool, at) & 0xfffff;

/** The 32 bits after the checksum of an ICMP message. */
export const icmpInfo = (pool: Uint8Array, at: number): number => readU32(pool, at + 4);

/**
 * Offset of the first option: router solicitation, router advertisement, neighbour solicitation and
 * advertisement.
 */
const NDP_OPTIONS: Record<number, number> = { 133: 8, 134: 16, 135: 24, 136: 24 };

/** Offset of the first option of a type from the message's start; 0 when there is none. */
export function ndpOptionAt(pool: Uint8Array, at: number, bytes: number, optionType: number): number {
  let i = NDP_OPTIONS[pool[at]!]!;
  while (i + 8 <= bytes && pool[at + i] !== optionType) i += pool[at + i + 1]! << 3;
  return i + 8 <= bytes ? i : 0;
}
