/** Which of the host's ports listeners take. */
import type { ListenerPlan } from '../../workers/engine-plan.ts';

/** Ports of the host's that these listeners take. */
export const portCount = (list: readonly ListenerPlan[]): number =>
  list.reduce((sum, { port, lastPort }) => sum + (lastPort ?? port) - port + 1, 0);

/** Ports of the host's, ranges of them too, that cannot both be bound. */
export function listenersCollide(a: ListenerPlan, b: ListenerPlan): boolean {
  if (a.from === 'guest' || b.from === 'guest' || a.proto !== b.proto) return false;
  if (a.port > (b.lastPort ?? b.port) || b.port > (a.lastPort ?? a.port)) return false;
  return a.address === b.address || covers(a.address, b.address) || covers(b.address, a.address);
}

function covers(wide: string, narrow: string): boolean {
  if (wide === '') return true;
  return (wide === '0.0.0.0' && !narrow.includes(':')) || (wide === '::' && narrow.includes(':'));
}
