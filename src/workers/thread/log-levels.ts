// bundle: boot
/** Levels of log lines, the gravest first; options name them so, log rings carry their index. */
export const LOG_LEVELS = ['error', 'warning', 'info', 'debug'] as const;
export type LogLevelName = (typeof LOG_LEVELS)[number];
