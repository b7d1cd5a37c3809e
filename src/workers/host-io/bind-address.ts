/** The address that a published port is bound to, as words. */
import { addressParse } from '../../proto/address.ts';

/**
 * @param text  "" or "*": any address (all words zero); else an IPv4 or IPv6 address
 * @returns false when the text is no address
 */
export function parseBindAddress(text: string, words: Uint32Array, w: number): boolean {
  words[w] = 0;
  words[w + 1] = 0;
  words[w + 2] = 0;
  words[w + 3] = 0;
  return text === '' || text === '*' || addressParse(text, words, w);
}
