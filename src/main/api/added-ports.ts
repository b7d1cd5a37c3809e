/** Ports that the API socket adds, one at a time, beside those that are listened on anyway. */
import type { EngineHandle } from '../../workers/engine.ts';
import type { ListenerPlan } from '../../workers/engine-plan.ts';

/** At a time. */
export const MAX_ADDED_PORTS = 4096;

export interface AddedPorts {
  /** What is listened on besides. */
  others(): readonly ListenerPlan[];
  /** @returns 0, or the errno of what is not listened on then */
  add(listener: ListenerPlan): Promise<number>;
  remove(listener: ListenerPlan): Promise<void>;
}

/** Added ports beside a fixed set of others, with which they do not collide. */
export const portsBeside = (
  engine: Pick<EngineHandle, 'changeListeners'>,
  others: readonly ListenerPlan[],
): AddedPorts => ({
  others: () => others,
  add: async (listener) => (await engine.changeListeners([], [listener]))[0]?.errno ?? 0,
  remove: async (listener) => {
    await engine.changeListeners([listener], []);
  },
});
