/**
 * Signals to bucatini are meant for COMMAND. A terminal sends SIGINT and SIGQUIT to its whole foreground
 * group: when we are in that group, so is COMMAND, and has had the signal already. SIGTSTP is left alone:
 * COMMAND, the chain and the engine stop and go on together, as any job does. A COMMAND that stops by itself
 * stops us (command.ts).
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
/** Told only to a COMMAND that runs; before that they are no reason to give up. */
const HARMLESS: readonly string[] = ['SIGWINCH', 'SIGCONT'];

/**
 * Signals that our caller had ignored when it started us (nohup, a shell's "&"): COMMAND ignores them too.
 */
export function ignoredSignals(lowBits = launcherVariable('BUCATINI_IGNORED')): readonly NodeJS.Signals[] {
  const mask = Number.parseInt(lowBits ?? '0', 16) || 0;
  return (['SIGHUP', 'SIGINT', 'SIGQUIT'] as const).filter((_, bit) => (mask & (1 << bit)) !== 0);
}

export interface SignalTarget {
  signal(name: NodeJS.Signals): void;
  goOn(handOver: (pid: number) => void): void;
}

/**
 * Take the signals over from now on.
 * @param target  COMMAND, once there is one
 * @param onEarly called for a signal that comes before
 */
export function forwardSignals(
  target: () => SignalTarget | undefined,
  onEarly: (name: NodeJS.Signals) => void,
  terminal: Pick<Terminal, 'inForeground' | 'handOver'>,
): void {
  const ignored = ignoredSignals();
  for (const name of FORWARDED) {
    process.on(name, () => {
      if (ignored.includes(name)) return;
      const to = target();
      if (to === undefined) {
        if (!HARMLESS.includes(name)) onEarly(name);
      } else if (name === 'SIGCONT') {
        to.goOn((pid) => terminal.handOver(pid));
      } else if (!(FROM_TERMINAL.includes(name) && terminal.inForeground())) {
        to.signal(name);
      }
    });
  }
}
