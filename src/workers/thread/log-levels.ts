// bundle: boot
/** Levels of log lines, the most severe first. Options use these names; log rings carry their index. */
export const LOG_LEVELS = ['error', 'warning', 'info', 'debug'] as const;
export type LogLevelName = (typeof LOG_LEVELS)[number];
