// bundle: boot
/**
 * All environment variables of ours: from a launcher (bin/) to the runtime, from the runtime to itself across
 * execve(), from users and from tests. None of them reaches COMMAND (callers-environment.ts). CONTRIBUTING.md
 * has the same table, and test/main/launcher-env.test.ts compares both with what bin/ and src/ use. Loaded
 * before all other modules, so it imports nothing.
 */
export const LAUNCHER_VARIABLES = {
  BUCATINI_KEPT: {
    setBy: 'launch.sh',
    meaning:
      "the caller's environment, one entry a line, or in hexadecimal; our runtime gets only what it needs",
  },
  BUCATINI_IGNORED: {
    setBy: 'launch.sh',
    meaning: 'signals that the caller had ignored: SigIgn of /proc/PID/status, its last digit',
  },
  BUCATINI_INHERITED: {
    setBy: 'launch.sh',
    meaning: 'descriptors beyond standard error that the caller has left open',
  },
  BUCATINI_DIRECTORY: {
    setBy: 'launch.sh',
    meaning: "a descriptor of the caller's working directory, where that has been removed: for COMMAND",
  },
  BUCATINI_OWN_MOUNTS: {
    setBy: 'all three launchers',
    meaning: '1: the runtime starts in a mount namespace of its own, whose root may be exchanged',
  },
  BUCATINI_OPEN_FILES: {
    setBy: 'bucatini',
    meaning: "the caller's soft limit of open descriptors, which the runtime raises: for COMMAND of run",
  },
  PASTA_PROGRAM: { setBy: 'pasta', meaning: 'the name that it was started by' },
  PASTA_STATUS_FD: {
    setBy: 'pasta',
    meaning: 'in the background: the descriptor at which the launcher waits for us to be ready',
  },
  PASTA_RUNAS: { setBy: 'pasta', meaning: 'UID:GID to change to once nothing needs privileges any more' },
  PASTA_STARTED_AS_ROOT: {
    setBy: 'pasta',
    meaning: '1: started by root of the machine without --runas, so pasta prints a warning',
  },
  SLIRP4NETNS_PROGRAM: { setBy: 'slirp4netns', meaning: 'the name that it was started by' },
  SLIRP4NETNS_SERVES: {
    setBy: 'slirp4netns',
    meaning: '1: the command line is one that starts an engine: boot its packet thread at once',
  },
  BUCATINI_REENTERED: {
    setBy: 'the runtime',
    meaning:
      '1: this process has executed the runtime again in another user namespace (main/bucatini/reenter.ts): do not try again',
  },
  BUCATINI_RUNTIME: {
    setBy: 'a user',
    meaning:
      'node or bun: the runtime to use; if it is not set, Bun where the build made an executable, else Node',
  },
  BUCATINI_STACK: {
    setBy: 'a user',
    meaning: 'any value: print the stack of an error that ends the process',
  },
  BUCATINI_TEST_IMPAIR: {
    setBy: 'tests',
    meaning: 'frames that the engine loses (main/cli/impairment.ts)',
  },
  BUCATINI_TEST_LAPS: {
    setBy: 'perf/start.ts',
    meaning: 'any value: print when each step of the start and of the end was done',
  },
} as const satisfies Record<string, { readonly setBy: string; readonly meaning: string }>;

export type LauncherVariable = keyof typeof LAUNCHER_VARIABLES;

/**
 * The runtime sets these for the shells of COMMAND's chain (command.ts, pasta/command.ts), which unset them.
 * A caller's variable of such a name does not reach COMMAND.
 */
export const CHAIN_VARIABLES = [
  ...['BUCATINI_INIT', 'BUCATINI_WAIT', 'BUCATINI_SIGNALS', 'BUCATINI_ENV', 'BUCATINI_SH', 'BUCATINI_LISTEN'],
  ...['BUCATINI_GO', 'BUCATINI_PROC', 'BUCATINI_STREAMS', 'BUCATINI_CLOSE'],
  ...['PASTA_INIT', 'PASTA_GO'],
] as const;

/** The value of a variable, if it is set. */
export const launcherVariable = (
  name: LauncherVariable,
  env: NodeJS.ProcessEnv = process.env,
): string | undefined => env[name];
