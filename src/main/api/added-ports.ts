/** Ports that the API socket adds, one request at a time, to those that are published anyway. */
import type { EngineHandle } from '../../workers/engine.ts';
import type { ListenerPlan } from '../../workers/engine-plan.ts';

/** A port that could not be bound while the engine runs. */
export interface FailedPort {
  readonly listener: ListenerPlan;
  /** 0: none of the listener's ports could be bound. */
  readonly port: number;
  readonly errno: number;
}

/** Maximum number of added ports at any time. */
export const MAX_ADDED_PORTS = 4096;

/** How the API adds and removes published ports in one front end. */
export interface AddedPorts {
  /** Listeners that the API socket did not add. */
  others(): readonly ListenerPlan[];
  /**
   * Ports of `others` that could not be bound when the list changed last. Absent: such a list does not
   * change.
   */
  failed?(): readonly FailedPort[];
  /** @returns 0, or the errno if the port could not be opened; it is not added then */
  add(listener: ListenerPlan): Promise<number>;
  remove(listener: ListenerPlan): Promise<void>;
}

/**
 * Added ports of an engine whose other listeners are fixed. Listeners that collide with `others` must not be
 * added.
 */
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
