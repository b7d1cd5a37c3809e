/**
 * Signals that are sent to bucatini are meant for COMMAND. A terminal sends SIGINT and SIGQUIT to its whole
 * foreground process group: if we are in that group, COMMAND is too, and has already got the signal. SIGTSTP
 * keeps its default action: COMMAND, the chain and the engine stop and continue together, as any job does. A
 * COMMAND that stops by itself stops us (command.ts).
 */
import { launcherVariable } from './launcher-env.ts';
import type { Terminal } from './terminal.ts';

const FORWARDED = [
  'SIGTERM',
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGUSR1',
  'SIGUSR2',
  'SIGWINCH',
  'SIGCONT',
] as const;
const FROM_TERMINAL: readonly string[] = ['SIGINT', 'SIGQUIT'];
/** Passed only to a COMMAND that runs. Before that they are no reason to give up. */
const IGNORED_EARLY: readonly string[] = ['SIGWINCH', 'SIGCONT'];

/**
 * Signals that our caller ignored when it started us (nohup, a shell's "&"): COMMAND ignores them too.
 * @param lowBits  last hexadecimal digit of SigIgn: bit 0 is SIGHUP, bit 1 SIGINT, bit 2 SIGQUIT
 */
export function ignoredSignals(lowBits = launcherVariable('BUCATINI_IGNORED')): readonly NodeJS.Signals[] {
  const mask = Number.parseInt(lowBits ?? '0', 16) || 0;
  return (['SIGHUP', 'SIGINT', 'SIGQUIT'] as const).filter((_, bit) => (mask & (1 << bit)) !== 0);
}

/** Receives signals for COMMAND (command.ts). */
export interface SignalTarget {
  signal(name: NodeJS.Signals): void;
  resume(handOver: (pid: number) => void): void;
}

/**
 * Handle the signals from now on.
 * @param target   COMMAND, once it runs
 * @param onEarly  called for a signal that comes before that
 * @param ours     signals that we handle ourselves, by an option
 */
export function forwardSignals(
  target: () => SignalTarget | undefined,
  onEarly: (name: NodeJS.Signals) => void,
  terminal: Pick<Terminal, 'inForeground' | 'handOver'>,
  ours: readonly NodeJS.Signals[] = [],
): void {
  const ignored = ignoredSignals();
  for (const name of FORWARDED) {
    if (ours.includes(name)) continue;
    process.on(name, () => {
      if (ignored.includes(name)) return;
      const to = target();
      if (to === undefined) {
        if (!IGNORED_EARLY.includes(name)) onEarly(name);
      } else if (name === 'SIGCONT') {
        to.resume((pid) => terminal.handOver(pid));
      } else if (!(FROM_TERMINAL.includes(name) && terminal.inForeground())) {
        to.signal(name);
      }
    });
  }
}
