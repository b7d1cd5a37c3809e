/**
 * The dialogue of a front end with its supervisor: JSON, one message a line, over a stream socket. "begin" is the
 * first message, "ready" its answer. The listener of COMMAND's filter comes over another socket, before "begin".
 */
import type { Outbound } from './destinations.ts';
import type { SwitchedFlows } from './flow-records.ts';
import type { SwitchCounters } from './supervisor.ts';

export type LogLevel = 'debug' | 'info' | 'warning' | 'error';

/** What the front end sends. */
export type ToSupervisor =
  | {
      readonly kind: 'begin';
      readonly noSwitch: readonly string[];
      readonly outbound: Outbound;
      /** Ask about each destination: a policy is in force. It may change ("judging"). */
      readonly judging: boolean;
      /** SupervisorOptions.explains */
      readonly explains: boolean;
      /** COMMAND's first process. */
      readonly processId: number;
    }
  | { readonly kind: 'judging'; readonly ask: number; readonly judging: boolean }
  | { readonly kind: 'judged'; readonly ask: number; readonly allowed: boolean }
  /** @property active  count the connections that there are, too: takes longer */
  | { readonly kind: 'report'; readonly ask: number; readonly active: boolean }
  /** A page of the connections that there are: FlowRecords.list(). */
  | { readonly kind: 'flows'; readonly ask: number; readonly after: number; readonly limit: number }
  /** End connections, by the ids of "flows". */
  | { readonly kind: 'end'; readonly ask: number; readonly ids: readonly number[] };

/** What the supervisor sends. */
export type FromSupervisor =
  | { readonly kind: 'ready' }
  /** It cannot serve; it ends. */
  | { readonly kind: 'failed'; readonly text: string }
  | { readonly kind: 'log'; readonly level: LogLevel; readonly text: string }
  | { readonly kind: 'judge'; readonly ask: number; readonly address: string; readonly port: number }
  | Answer;

/** An answer to a message with the same number `ask`. */
export type Answer =
  | { readonly kind: 'judging'; readonly ask: number }
  | {
      readonly kind: 'report';
      readonly ask: number;
      readonly counters: SwitchCounters;
      readonly active?: number;
    }
  | ({ readonly kind: 'flows'; readonly ask: number } & SwitchedFlows)
  /** @property left  how many of the connections could not be ended */
  | { readonly kind: 'end'; readonly ask: number; readonly left: number };

/** A line of the dialogue. */
export const lineOf = (message: ToSupervisor | FromSupervisor): string => `${JSON.stringify(message)}\n`;

/** Longest line that is accepted, in characters. */
const LONGEST_LINE = 16 * 1024 * 1024;

/** Puts lines together from what a stream gives. */
export class Lines {
  #partial = '';

  /**
   * @returns the lines that are whole now, without their ends
   * @throws Error for a line without an end
   */
  add(chunk: string): readonly string[] {
    const lines = `${this.#partial}${chunk}`.split('\n');
    this.#partial = lines.pop()!;
    if (this.#partial.length > LONGEST_LINE) throw new Error('a line is too long');
    return lines;
  }
}
