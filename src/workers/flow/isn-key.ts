/**
 * Initial sequence numbers and timestamps of TCP contain a clock (RFC 6528, RFC 7323). Each packet thread's
 * performance.now() may have an origin of its own: Bun counts from the start of the thread. Lanes need one
 * clock, as a connection may have the addresses and ports of one that another lane had before: a guest in
 * TIME-WAIT refuses a SYN with an older timestamp and an older sequence number (RFC 6191).
 */
import type { EnginePlan } from '../engine-plan.ts';

/** Sequence numbers per millisecond: a tick of RFC 9293's ISN clock is 4 microseconds. */
export const ISN_PER_MS = 250;

/**
 * @param originMs  performance.timeOrigin of the thread
 * @returns the key with which the thread's clock, added to it, is that of all threads
 */
export function isnKeyOfThread(key: EnginePlan['isnKey'], originMs: number): EnginePlan['isnKey'] {
  // The first two words are the hash's key. Sequence numbers begin at the exclusive or of the other two,
  // timestamps at the last one.
  const [a, b, c, d] = key;
  const timestamps = (d + Math.floor(originMs)) >>> 0;
  const numbers = ((c ^ d) >>> 0) + Math.floor((originMs * ISN_PER_MS) % 2 ** 32);
  return [a, b, (numbers ^ timestamps) >>> 0, timestamps];
}
