// bundle: rare
/**
 * Which destinations are this host itself, for the word `host` of an egress policy. That are more than the
 * addresses of its interfaces: all that its kernel delivers locally, which the local routing table says. The
 * whole network of an address on the loopback interface is local, and so are prefixes that an administrator
 * adds (`ip route add local`), and, on a host that forwards IPv6, the subnet-router anycast address of each
 * of its networks (RFC 4291 section 2.6.1).
 */
import { addressParse } from '../../proto/address.ts';
import { RTN_ANYCAST, RTN_LOCAL } from '../../sys/constants.ts';
import type { RouteSocket } from '../../sys/netlink.ts';
import { HOST_PREFIX_WORDS } from '../../workers/flow/egress-policy.ts';

/**
 * @param host  queries the host's network
 * @returns HOST_PREFIX_WORDS for each prefix, sorted, so that lists can be compared
 */
export function hostPrefixes(host: Pick<RouteSocket, 'addresses' | 'routes'>): Uint32Array {
  const whole = (address: string): string => `${address}/${address.includes(':') ? 128 : 32}`;
  // An address that is still tentative has no route.
  const addresses = host.addresses().map(({ address }) => whole(address));
  const routes = host
    .routes()
    .filter(({ type }) => type === RTN_LOCAL || type === RTN_ANYCAST)
    .map(({ dst, prefixLen }) => `${dst}/${prefixLen}`);
  const texts = [...new Set([...addresses, ...routes])].sort();
  const words = new Uint32Array(HOST_PREFIX_WORDS * texts.length);
  let at = 0;
  for (const text of texts) {
    const [address = '', length] = text.split('/');
    if (!addressParse(address, words, at)) continue;
    words[at + 4] = Number(length) + (address.includes(':') ? 0 : 96);
    at += HOST_PREFIX_WORDS;
  }
  return words.subarray(0, at);
}
