/**
 * The parser of `--publish`: [ADDR:]HOSTPORT[-LAST][:PORT[-LAST]][/tcp|/udp].
 *
 *   8080            any address, TCP port 8080 -> 8080 inside
 *   8080:80         TCP 8080 -> 80
 *   127.0.0.1:8080:80/udp
 *   8000-8010:9000-9010   ranges of the same length
 *   [::1]:8080:80   IPv6 addresses stand in brackets
 *
 * A richer grammar (exclusions, interfaces) would need changes in this file only.
 */
import type { ListenerPlan } from '../../workers/engine-plan.ts';
import { parseAddress, parseCount, UsageError } from '../cli/values.ts';
import { listenersCollide } from '../host/host-ports.ts';

const SHAPE =
  /^(?:(?<v4>\d+\.\d+\.\d+\.\d+):|\[(?<v6>[^\]]*)\]:|(?<any>\*):)?(?<host>[^:/]+)(?::(?<guest>[^:/]+))?(?:\/(?<proto>.*))?$/;

/**
 * Parse one value of `--publish`.
 * @throws UsageError if the text does not fit the grammar
 */
export function parsePublish(text: string): ListenerPlan {
  const parts = SHAPE.exec(text)?.groups;
  if (parts === undefined) {
    throw new UsageError(
      'not [ADDR:]PORT[-PORT][:PORT[-PORT]][/tcp|/udp]; write for example 8080:80, 127.0.0.1:8080:80 or [::1]:5353:53/udp',
    );
  }
  const proto = parts.proto ?? 'tcp';
  if (proto !== 'tcp' && proto !== 'udp')
    throw new UsageError('the protocol after / is neither tcp nor udp; write /tcp or /udp');
  const host = parseRange(parts.host!);
  const guest = parts.guest === undefined ? host : parseRange(parts.guest);
  if (guest.last - guest.first !== host.last - host.first)
    throw new UsageError(
      `the ranges ${parts.host} and ${parts.guest} differ in length; write two ranges of the same length`,
    );
  const address = parts.v4 ?? parts.v6;
  return {
    proto,
    address: address === undefined ? '' : parseListenAddress(address, parts.v6 !== undefined),
    port: host.first,
    ...(host.last > host.first && { lastPort: host.last }),
    targetPort: guest.first,
  };
}

function parseListenAddress(text: string, bracketed: boolean): string {
  const parsed = parseAddress(text);
  if (bracketed !== (parsed.family === 6)) throw new UsageError('brackets are for IPv6 addresses only');
  return parsed.address;
}

function parseRange(text: string): { readonly first: number; readonly last: number } {
  const [from, to, ...more] = text.split('-');
  if (more.length > 0)
    throw new UsageError(`${JSON.stringify(text)} is not a range of ports; write 8000-8010`);
  const first = parsePort(from!);
  const last = to === undefined ? first : parsePort(to);
  if (last < first) throw new UsageError(`${text}: the range ends before it starts; write ${last}-${first}`);
  return { first, last };
}

function parsePort(text: string): number {
  if (!/^[0-9]+$/.test(text))
    throw new UsageError(`${JSON.stringify(text)} is not a port number; write 1 to 65535`);
  try {
    return parseCount(text, 1, 65535, '8080');
  } catch (error) {
    throw new UsageError(`port ${text} is ${(error as Error).message}`);
  }
}

/** The first two listeners of a list that the host cannot bind both (listenersCollide). */
export function publishConflict(
  list: readonly ListenerPlan[],
): readonly [ListenerPlan, ListenerPlan] | undefined {
  for (const [i, a] of list.entries()) {
    for (const b of list.slice(i + 1)) if (listenersCollide(a, b)) return [a, b];
  }
  return undefined;
}

/** The listener in the syntax of `--publish`. */
export function publishText(l: ListenerPlan): string {
  const address = l.address === '' ? '' : l.address.includes(':') ? `[${l.address}]:` : `${l.address}:`;
  const range = (first: number): string =>
    l.lastPort === undefined ? `${first}` : `${first}-${first + l.lastPort - l.port}`;
  return `${address}${range(l.port)}:${range(l.targetPort)}/${l.proto}`;
}
