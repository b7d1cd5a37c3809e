/** Ports that the API socket adds, beside those that are listened on anyway: one list to the engine, theirs at its end. */
import type { EngineHandle } from '../workers/engine.ts';
import type { ListenerPlan } from '../workers/engine-plan.ts';
import type { ListenFailure } from '../workers/host-io/listener-table.ts';

export interface AddedPorts {
  /** What is listened on besides. */
  others(): readonly ListenerPlan[];
  /**
   * Listen on these of the requests' and no others of theirs.
   * @returns what could not be had, by place in `list`
   */
  set(list: readonly ListenerPlan[]): Promise<readonly ListenFailure[]>;
}

/** Added ports beside a fixed set of others. */
export const portsBeside = (
  engine: Pick<EngineHandle, 'setListeners'>,
  others: readonly ListenerPlan[],
): AddedPorts => ({
  others: () => others,
  set: async (list) => failuresBehind(others.length, await engine.setListeners([...others, ...list])),
});

/** Of a list's failures those from place `first` on, by their place from there. */
export const failuresBehind = (first: number, failures: readonly ListenFailure[]): readonly ListenFailure[] =>
  failures.flatMap((failure) =>
    failure.index < first ? [] : [{ ...failure, index: failure.index - first }],
  );
