// bundle: boot
/**
 * The subcommands of `bucatini`, in the order of its help. bin/bucatini has the same list. Loaded before all
 * other modules, so it imports nothing.
 */
export const COMMAND_NAMES = [
  'run',
  'attach',
  'doctor',
  'selftest',
  'top',
  'flows',
  'ports',
  'stats',
  'policy',
  'metrics',
  'switch-agent',
  'switch-over',
  'switch-back',
  'bench',
  'bug-report',
] as const;
export type CommandName = (typeof COMMAND_NAMES)[number];

/** "run, attach, … or bug-report" */
export const commandList = (): string =>
  `${COMMAND_NAMES.slice(0, -1).join(', ')} or ${COMMAND_NAMES.at(-1)}`;
