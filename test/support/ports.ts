/** Addresses and ports of the test bed, shared by the bed, its servers and the tests. */

export const HOST4 = '10.77.0.1';
export const HOST6 = 'fd77::1';
export const PEER4 = '10.77.0.2';
export const PEER6 = 'fd77::2';
/** The host's default gateways: further addresses of the peer. */
export const GATEWAY4 = '10.77.0.254';
export const GATEWAY6 = 'fd77::fe';
/** The host namespace answers "network unreachable" for these. */
export const UNREACHABLE4 = '203.0.113.7';
export const UNREACHABLE6 = '2001:db8:dead::7';

export const PORT = {
  echo: 7,
  dns: 53,
  http: 8000,
  /** Runs the steps that the client sends as its first line; see tcp-script.ts. */
  script: 9000,
  /** Accepts and answers with RST. */
  reset: 9001,
  /** Accepts and closes. */
  close: 9002,
  /** Answers the first bytes with the same bytes and closes first. */
  once: 9003,
  /** Nothing listens here. */
  closed: 9999,
} as const;

export interface Family {
  readonly name: 'IPv4' | 'IPv6';
  readonly peer: string;
  readonly gateway: string;
  readonly host: string;
  readonly unreachable: string;
}

export const FAMILIES: readonly Family[] = [
  { name: 'IPv4', peer: PEER4, gateway: GATEWAY4, host: HOST4, unreachable: UNREACHABLE4 },
  { name: 'IPv6', peer: PEER6, gateway: GATEWAY6, host: HOST6, unreachable: UNREACHABLE6 },
];

/** An address in the form of a URL. */
export const urlHost = (address: string): string => (address.includes(':') ? `[${address}]` : address);
