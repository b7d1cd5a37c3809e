/**
 * A shell as COMMAND takes the terminal for its own process group and cannot give it back: our group has no number in its PID
 * namespace. So we take it back for ours, else the next reader of a script around us would be stopped by SIGTTIN.
 */
import { type TerminalState, terminalState } from './signals.ts';

/** Take the terminal back if it was ours at the start (`before`) and is not now. The process ends right after. */
export async function restoreForeground(before: TerminalState | undefined): Promise<void> {
  const now = terminalState();
  if (before === undefined || now === undefined) return;
  if (before.foregroundGroup !== before.ourGroup || now.foregroundGroup === now.ourGroup) return;
  const { openPath, signalIgnore, tcsetpgrp } = await import('../sys/namespace.ts');
  const { O_RDWR, SIGTTOU } = await import('../sys/constants.ts');
  const fd = openPath('/dev/tty', O_RDWR);
  if (fd < 0) return;
  signalIgnore(SIGTTOU); // what a background process gets for asking
  tcsetpgrp(fd, before.ourGroup);
}
