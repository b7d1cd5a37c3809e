// bundle: rare
/** What the kernel's tables in /proc/PID/net say about a network namespace, read without entering it. */

/** A default route, or an address of an interface. */
export interface Listening {
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
  /** Only programs in the same namespace reach it. */
  readonly loopbackOnly: boolean;
}

const RTF_UP = 0x1; // linux/route.h
const TCP_LISTEN = '0A'; // net/tcp_states.h, as /proc/net/tcp prints it
const UDP_UNCONNECTED = '07';
/** The kernel prints addresses as 32-bit words, each in the machine's byte order. */
const IPV6_LOOPBACK = '00000000000000000000000001000000';
const IPV4_MAPPED = '0000000000000000FFFF0000';

/** The lines of a table behind its heading, each cut into words. */
const rows = (text: string): string[][] =>
  text
    .split('\n')
    .slice(1)
    .filter((line) => line.trim() !== '')
    .map((line) => line.trim().split(/\s+/));

/** Interfaces but lo. @param text  of /proc/PID/net/dev */
export const interfaceNames = (text: string): readonly string[] =>
  [...text.matchAll(/^\s*([^\s:|]+):/gm)].map(([, name]) => name!).filter((name) => name !== 'lo');

/** The interface of an IPv4 default route, undefined if there is none. @param text  of /proc/PID/net/route */
export const defaultRoute4 = (text: string): string | undefined =>
  rows(text).find(
    ([, destination, , flags, , , , mask]) =>
      destination === '00000000' && mask === '00000000' && (Number.parseInt(flags ?? '', 16) & RTF_UP) !== 0,
  )?.[0];

/** The same of IPv6. @param text  of /proc/PID/net/ipv6_route, which has no heading */
export const defaultRoute6 = (text: string): string | undefined =>
  rows(`\n${text}`).find(
    ([destination, bits, , , , , , , , name]) =>
      /^0+$/.test(destination ?? '') && bits === '00' && name !== 'lo',
  )?.[9];

/** IPv4 addresses that are not loopback. @param text  of /proc/PID/net/fib_trie */
export const addresses4 = (text: string): readonly string[] => [
  ...new Set(
    [...text.matchAll(/\|-- ([0-9.]+)\n\s+\/32 host LOCAL/g)]
      .map(([, address]) => address!)
      .filter((address) => !address.startsWith('127.')),
  ),
];

/** IPv6 addresses that are neither loopback nor link-local. @param text  of /proc/PID/net/if_inet6 */
export const addresses6 = (text: string): readonly string[] =>
  rows(`\n${text}`)
    .filter(([, , , scope]) => scope === '00')
    .map(([address]) =>
      address!
        .match(/.{4}/g)!
        .map((group) => group.replace(/^0{1,3}/, ''))
        .join(':')
        .replace(/\b0(?::0)+\b/, ':')
        .replace(/:{3}/, '::'),
    );

/**
 * Ports that programs listen on.
 * @param text  of /proc/PID/net/tcp, tcp6, udp or udp6
 */
export const listening = (protocol: Listening['protocol'], text: string): readonly Listening[] =>
  rows(text)
    .filter(([, , , state]) => state === (protocol === 'tcp' ? TCP_LISTEN : UDP_UNCONNECTED))
    .map(([, local = '']) => {
      const [address = '', port = ''] = local.split(':');
      const ipv4 = address.startsWith(IPV4_MAPPED) ? address.slice(IPV4_MAPPED.length) : address;
      return {
        protocol,
        port: Number.parseInt(port, 16),
        // The first byte is the last of the word on a little-endian machine; all of 127.0.0.0/8 is loopback.
        loopbackOnly: address === IPV6_LOOPBACK || (ipv4.length === 8 && ipv4.endsWith('7F')),
      };
    });
