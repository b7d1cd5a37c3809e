// bundle: boot
/** What people read on standard error: one line per event, levels as in --log-level, no packet content. */

import type { EnginePlan } from '../../workers/engine-plan.ts';
import { LOG_LEVELS } from '../../workers/thread/log-levels.ts';
import { put } from '../process/output.ts';

export type LogLevel = EnginePlan['logLevel'];

export type Log = (level: LogLevel, text: string) => void;

/** @param upTo  the least important level that is said */
export function makeLog(upTo: LogLevel): Log {
  const last = LOG_LEVELS.indexOf(upTo);
  return (level, text) => {
    if (LOG_LEVELS.indexOf(level) <= last) say(level === 'info' ? text : `${level}: ${text}`);
  };
}

/** One line with our name in front. Standard error may be closed: then there is nobody to tell. */
export function say(text: string): void {
  put(2, `bucatini: ${text.replaceAll('\n', ' ')}\n`);
}
