/** Where an HTTP server of ours listens, as options write it: ADDR:PORT, PORT or unix:PATH. */
import { addressOf, parseCount, parseSocketPath, UsageError } from './values.ts';

export type ListenAddress =
  | { readonly kind: 'tcp'; readonly address: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

/** Syntax of the value, for help. */
export const LISTEN_ADDRESS = '[ADDR:]PORT|unix:PATH';

const EXAMPLE = '9469';
const LOOPBACK = '127.0.0.1';

/**
 * Parse the value. Without an address it is that of the host's loopback.
 * @throws UsageError
 */
export function parseListenAddress(text: string): ListenAddress {
  if (text.startsWith('unix:')) return { kind: 'unix', path: parseSocketPath(text.slice('unix:'.length)) };
  if (text.startsWith('/'))
    throw new UsageError(`is neither a port nor an address with a port; write unix:${text} for a socket`);
  const colon = text.lastIndexOf(':');
  const address = colon <= 0 ? LOOPBACK : hostOf(text.slice(0, colon));
  return { kind: 'tcp', address, port: parseCount(text.slice(colon + 1), 1, 65535, EXAMPLE) };
}

function hostOf(text: string): string {
  if (text === 'localhost') return LOOPBACK;
  if (text === '*') throw new UsageError('* is not an address; write 0.0.0.0 or [::] for all of the host');
  const bracketed = /^\[(.*)\]$/.exec(text)?.[1];
  const address = addressOf(bracketed ?? text);
  if (address === undefined || address.includes(':') !== (bracketed !== undefined))
    throw new UsageError(
      `${JSON.stringify(text)} is not an address; write for example 127.0.0.1:${EXAMPLE}, [::1]:${EXAMPLE} or unix:PATH`,
    );
  return address;
}

/** The address as its option may have it. */
export const listenAddressText = (to: ListenAddress): string =>
  to.kind === 'unix'
    ? `unix:${to.path}`
    : `${to.address.includes(':') ? `[${to.address}]` : to.address}:${to.port}`;
