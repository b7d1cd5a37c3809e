/** The option --log-format, in all programs. */
import { parseChoice } from './values.ts';

const LOG_FORMATS = ['text', 'logfmt', 'json'] as const;

export type LogFormat = (typeof LOG_FORMATS)[number];

/** Name, value and help; `parse` throws UsageError. */
export const LOG_FORMAT_OPTION = {
  name: 'log-format',
  value: LOG_FORMATS.join('|'),
  help: 'Format of messages: text, or one line of logfmt or JSON for each, with time and level (docs/logs.md).',
  default: 'text; entries with fields where standard error is the journal of systemd',
  parse: (text: string): LogFormat => parseChoice(text, LOG_FORMATS),
} as const;

/** Whether messages may be written otherwise than as text: then log-format.ts has to be loaded. */
export const mayNeedLogFormat = (format: LogFormat | undefined): boolean =>
  format === undefined ? process.env.JOURNAL_STREAM !== undefined : format !== 'text';
