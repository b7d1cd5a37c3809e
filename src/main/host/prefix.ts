/** Which network an address belongs to. Addresses are texts. */
import { addressParse, isV4Mapped, sharesPrefix } from '../../proto/address.ts';

/** Whether an address is link-local: fe80::/10 or 169.254.0.0/16. */
export function isLinkLocal(address: string): boolean {
  return /^(fe[89ab][0-9a-f]:|169\.254\.)/i.test(address);
}

/** Whether `address` is in the network `member`/`prefixLen`, so that it needs no route of its own. */
export function samePrefix(address: string, member: string, prefixLen: number): boolean {
  const words = new Uint32Array(8);
  if (!addressParse(address, words, 0) || !addressParse(member, words, 4)) return false;
  const isV4 = isV4Mapped(words, 0);
  if (isV4 !== isV4Mapped(words, 4)) return false;
  return sharesPrefix(words.subarray(0, 4), words.subarray(4), isV4 ? 96 + prefixLen : prefixLen);
}
