/** Which network an address belongs to. Addresses are texts. */
import { addressParse, isV4Mapped } from '../../proto/address.ts';

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
  let bits = isV4 ? 96 + prefixLen : prefixLen;
  for (let i = 0; i < 4 && bits > 0; i++, bits -= 32) {
    const differing = (words[i]! ^ words[4 + i]!) >>> 0;
    if (differing >>> Math.max(32 - bits, 0) !== 0) return false;
  }
  return true;
}
