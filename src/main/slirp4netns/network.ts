/** The network inside. --cidr determines all its IPv4 addresses. Pure. */
import { writeU32 } from '../../proto/be.ts';
import { macText } from '../../proto/ethernet.ts';
import { ipv4Parse, ipv4Text } from '../../proto/ipv4.ts';
import type { Network } from './options.ts';

/** IPv4 addresses of the network inside. `first` is the network address. */
export interface NetworkAddresses {
  readonly first: string;
  readonly netmask: string;
  readonly gateway: string;
  readonly dns: string;
  readonly dhcpBegin: string;
  readonly dhcpEnd: string;
  readonly guest: string;
  readonly broadcast: string;
}

/** The addresses of a network, as text. */
export function networkAddresses({ first, prefixLen }: Network): NetworkAddresses {
  const at = (offset: number): string => ipv4Text((first + offset) >>> 0);
  return {
    first: at(0),
    netmask: ipv4Text((-1 << (32 - prefixLen)) >>> 0),
    gateway: at(2),
    dns: at(3),
    dhcpBegin: at(15),
    dhcpEnd: at(30),
    guest: at(100),
    broadcast: at(2 ** (32 - prefixLen) - 1),
  };
}

/** The IPv6 network inside, which no option changes. */
export const IPV6 = {
  prefix: 'fd00::',
  prefixLen: 64,
  gateway: 'fd00::2',
  dns: 'fd00::3',
  linkLocal: 'fe80::2',
} as const;

/** The gateway's MAC address, as in libslirp: 52:55 and the four bytes of its IPv4 address. */
export function gatewayMac(gateway: string): string {
  const mac = Uint8Array.of(0x52, 0x55, 0, 0, 0, 0);
  writeU32(mac, 2, ipv4Parse(gateway));
  return macText(mac, 0);
}
