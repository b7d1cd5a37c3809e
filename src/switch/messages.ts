/**
 * The dialogue of a front end with its supervisor: JSON, one message a line, over a stream socket. "begin" is the
 * first message, "ready" its answer; then the listener of COMMAND's filter comes over another socket, and "command"
 * says whose it is.
 */
import type { Outbound } from './destinations.ts';
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
    }
  | { readonly kind: 'command'; readonly processId: number }
  | { readonly kind: 'judging'; readonly judging: boolean }
  | { readonly kind: 'judged'; readonly ask: number; readonly allowed: boolean }
  | { readonly kind: 'report'; readonly ask: number };

/** What the supervisor sends. */
export type FromSupervisor =
  | { readonly kind: 'ready' }
  /** It cannot serve; it ends. */
  | { readonly kind: 'failed'; readonly text: string }
  | { readonly kind: 'log'; readonly level: LogLevel; readonly text: string }
  | { readonly kind: 'judge'; readonly ask: number; readonly address: string; readonly port: number }
  | { readonly kind: 'report'; readonly ask: number; readonly counters: SwitchCounters };

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
