// bundle: boot
/** The log on standard error: one line per event, levels as in --log-level, no packet content. */

import type { EnginePlan } from '../../workers/engine-plan.ts';
import { LOG_LEVELS } from '../../workers/thread/log-levels.ts';
import { put } from '../process/output.ts';

export type LogLevel = EnginePlan['logLevel'];

export type Log = (level: LogLevel, text: string) => void;

/** Writes messages elsewhere, or in another format (log-format.ts). */
let writer: Log | undefined;

/** From now on messages go to `log` instead. */
export function useLogWriter(log: Log): void {
  writer = log;
}

/**
 * Make a log that writes to standard error.
 * @param upTo  the least important level that is written
 */
export function makeLog(upTo: LogLevel): Log {
  const last = LOG_LEVELS.indexOf(upTo);
  return (level, text) => {
    if (LOG_LEVELS.indexOf(level) > last) return;
    if (writer !== undefined) writer(level, text);
    else say(level === 'info' ? text : `${level}: ${text}`);
  };
}

/**
 * Write one line with "bucatini: " in front. If standard error is closed, the line is lost.
 * @param level  for other formats; the line does not show it
 */
export function say(text: string, level: LogLevel = 'error'): void {
  if (writer !== undefined) writer(level, text);
  else put(2, `bucatini: ${text.replaceAll('\n', ' ')}\n`);
}
