/** Single descriptors of the links: tests write, keep and read them without a ring. */
import { DESC_WORDS, UNSET_WORD } from '../../src/ring/spsc.ts';
import {
  type DescriptorOut,
  descriptorCopy,
  linkBytes,
  linkFlow,
  linkOp,
  linkSlotA,
  linkSlotB,
  linkSlotOffset,
} from '../../src/workers/link/descriptor.ts';
import { toHostText } from '../../src/workers/link/to-host.ts';

/** One descriptor. Accessors of src/workers/link/ read it at offset 0. */
export type Message = Uint32Array;

/** The descriptor that a writer of src/workers/link/ produces: `message((out) => closeWrite(out, 3))`. */
export function message(write: (out: DescriptorOut) => void): Message {
  const words = new Uint32Array(DESC_WORDS).fill(UNSET_WORD);
  write({ words, reserve: () => 0, commit: () => {} });
  return words;
}

/** A copy of the descriptor at `at` of a ring. */
export function messageAt(words: Uint32Array, at: number): Message {
  const m = new Uint32Array(DESC_WORDS);
  descriptorCopy(words, at, m, 0);
  return m;
}

/** A value of ToHost or ToShard, depending on the sender. */
export const opOf = (m: Message | undefined): number => linkOp(m!, 0);
export const flowOf = (m: Message | undefined): number => linkFlow(m!, 0);
export const slotAOf = (m: Message | undefined): number => linkSlotA(m!, 0);
export const slotBOf = (m: Message | undefined): number => linkSlotB(m!, 0);
export const slotOffsetOf = (m: Message | undefined): number => linkSlotOffset(m!, 0);
export const bytesOf = (m: Message | undefined): number => linkBytes(m!, 0);

/** Messages of a shard as text, one line each. */
export const toHostTexts = (messages: readonly Message[]): string[] => messages.map((m) => toHostText(m));
