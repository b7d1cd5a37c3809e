/**
 * What a front end knows of the connections that its supervisor has switched (src/switch): the interface
 * between that process and the API, metrics and reports.
 */
import type { SwitchedFlows } from '../../switch/flow-records.ts';

/** What happened since the start: names of ring/counters.ts. */
export interface SwitchCounts {
  readonly switchedConnections: number;
  readonly switchPassedOn: number;
  readonly switchRefused: number;
  readonly switchFailed: number;
}

/** Whether a connection may be made to a destination. */
export type Judge = (address: string, port: number) => boolean;

export interface SwitchedConnections {
  /** As of the last refresh(). */
  counts(): SwitchCounts;
  /** Ask the supervisor for its counters. Resolves also if it does not answer. */
  refresh(): Promise<void>;
  /**
   * Connections that there are now, in the order of their ids.
   * @param after  id of the last one of the previous list; 0: begin with the first
   * @param limit  most flows of the list
   * @returns no flows if the supervisor does not answer
   */
  flows(after: number, limit: number): Promise<SwitchedFlows>;
  /**
   * Let the supervisor ask `judge` about each destination from now on; undefined: it asks no more. Resolves when
   * it has begun to.
   */
  setJudge(judge: Judge | undefined): Promise<void>;
  /**
   * End connections.
   * @param ids  of flows()
   * @returns how many could not be ended: their sockets were not found
   */
  end(ids: readonly number[]): Promise<number>;
  /** How many there are; undefined: the supervisor does not answer. Does what refresh() does, too. */
  active(): Promise<number | undefined>;
}

/** What an error says where something cannot be had together with --switch-sockets. */
export const NOT_WITH_SWITCHING =
  'not with --switch-sockets: switched connections do not cross the interface';
