/** Which ports of the host a list of listeners occupies. */
import type { ListenerPlan } from '../../workers/engine-plan.ts';

/** Number of host ports that these listeners occupy; a range counts each of its ports. */
export const portCount = (list: readonly ListenerPlan[]): number =>
  list.reduce((sum, { port, lastPort }) => sum + (lastPort ?? port) - port + 1, 0);

/**
 * Whether the host cannot bind both listeners: same protocol, overlapping ports or port ranges, and the same
 * address, or the wildcard address of one includes the address of the other. Listeners in the guest never
 * collide with anything here.
 */
export function listenersCollide(a: ListenerPlan, b: ListenerPlan): boolean {
  if (a.from === 'guest' || b.from === 'guest' || a.proto !== b.proto) return false;
  if (a.port > (b.lastPort ?? b.port) || b.port > (a.lastPort ?? a.port)) return false;
  return a.address === b.address || covers(a.address, b.address) || covers(b.address, a.address);
}

function covers(wildcard: string, address: string): boolean {
  if (wildcard === '') return true;
  return (wildcard === '0.0.0.0' && !address.includes(':')) || (wildcard === '::' && address.includes(':'));
}
