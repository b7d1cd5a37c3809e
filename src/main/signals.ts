/**
 * Signals to bucatini are meant for COMMAND. A terminal sends SIGINT and SIGQUIT to its whole foreground group: when we are in
 * that group, so is COMMAND, and has had the signal already. SIGTSTP is left alone: COMMAND, the chain and the engine stop
 * and go on together, as any job does.
 */
import { readFileSync } from 'node:fs';

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

/** Signals that our caller had ignored when it started us (nohup, a shell's "&"): COMMAND ignores them too. */
export function ignoredSignals(lowBits = process.env.BUCATINI_IGNORED): readonly NodeJS.Signals[] {
  const mask = Number.parseInt(lowBits ?? '0', 16) || 0;
  return (['SIGHUP', 'SIGINT', 'SIGQUIT'] as const).filter((_, bit) => (mask & (1 << bit)) !== 0);
}

export interface SignalTarget {
  signal(name: NodeJS.Signals): void;
}

/**
 * Take the signals over from now on.
 * @param target  COMMAND, once there is one
 * @param onEarly called for a signal that comes before
 */
export function forwardSignals(
  target: () => SignalTarget | undefined,
  onEarly: (name: NodeJS.Signals) => void,
): void {
  const ignored = ignoredSignals();
  for (const name of FORWARDED) {
    process.on(name, () => {
      if (ignored.includes(name)) return;
      const to = target();
      if (to === undefined) {
        if (!HARMLESS.includes(name)) onEarly(name);
      } else if (!(FROM_TERMINAL.includes(name) && inForeground())) {
        to.signal(name);
      }
    });
  }
}

/** Whether we are in the foreground process group of our terminal. */
export function inForeground(): boolean {
  const terminal = terminalState();
  return terminal !== undefined && terminal.foregroundGroup === terminal.ourGroup;
}

export interface TerminalState {
  readonly ourGroup: number;
  readonly foregroundGroup: number;
}

/** undefined without a controlling terminal. /proc/self/stat, proc(5): pgrp is field 5, tty_nr 7, tpgid 8; the name in parentheses may hold anything. */
export function terminalState(): TerminalState | undefined {
  const stat = readFileSync('/proc/self/stat', 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [ourGroup, tty, foregroundGroup] = [fields[2], fields[4], fields[5]].map(Number);
  return tty === 0 ? undefined : { ourGroup: ourGroup!, foregroundGroup: foregroundGroup! };
}
