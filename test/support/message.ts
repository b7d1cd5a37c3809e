/** Descriptors of the links by themselves, as tests write them, keep them and read them. */
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

/** One descriptor: accessors of src/workers/link/ read it at 0. */
export type Message = Uint32Array;

/** The descriptor that a writer of src/workers/link/ makes: `message((out) => closeWrite(out, 3))`. */
export function message(write: (out: DescriptorOut) => void): Message {
  const words = new Uint32Array(DESC_WORDS).fill(UNSET_WORD);
  write({ words, reserve: () => 0, commit: () => {} });
  return words;
}

/** A descriptor taken off a ring. */
export function messageAt(words: Uint32Array, at: number): Message {
  const m = new Uint32Array(DESC_WORDS);
  descriptorCopy(words, at, m, 0);
  return m;
}

/** ToHost or ToShard, by whom it is from. */
export const opOf = (m: Message | undefined): number => linkOp(m!, 0);
export const flowOf = (m: Message | undefined): number => linkFlow(m!, 0);
export const slotAOf = (m: Message | undefined): number => linkSlotA(m!, 0);
export const slotBOf = (m: Message | undefined): number => linkSlotB(m!, 0);
export const slotOffsetOf = (m: Message | undefined): number => linkSlotOffset(m!, 0);
export const bytesOf = (m: Message | undefined): number => linkBytes(m!, 0);

/** What a shard said, line by line. */
export const toHostTexts = (messages: readonly Message[]): string[] => messages.map((m) => toHostText(m));
