/**
 * The controlling terminal, held open: in the sandbox (host/sandbox.ts) it cannot be opened any more.
 *
 * A shell as COMMAND takes the terminal for its own process group and cannot give it back: our group has no
 * number in its PID namespace. So we take it back for ours, else the next reader of a script around us would
 * be stopped by SIGTTIN.
 */
import { O_NOCTTY, O_RDWR, SIGTTOU } from '../../sys/constants.ts';
import { openPath } from '../../sys/path.ts';
import { getpgid, getpgrp, signalIgnore, tcgetpgrp, tcsetpgrp } from '../../sys/process.ts';

export class Terminal {
  readonly #fd = openPath('/dev/tty', O_RDWR | O_NOCTTY);
  /** It was ours when we started. */
  readonly #wasOurs = this.inForeground();

  /** Whether we are in its foreground process group; no without a controlling terminal. */
  inForeground(): boolean {
    return this.#fd >= 0 && tcgetpgrp(this.#fd) === getpgrp();
  }

  /** When we have it: give it to the process group of COMMAND, where that is a shell with one of its own. */
  handOver(pid: number): void {
    if (!this.inForeground()) return;
    const group = getpgid(pid);
    if (group > 0 && group !== getpgrp()) tcsetpgrp(this.#fd, group);
  }

  /** Take it back if it was ours at the start and is not now. The process ends right after. */
  restore(): void {
    if (!this.#wasOurs || this.inForeground()) return;
    if (getpgid(tcgetpgrp(this.#fd)) >= 0) return; // its group lives: a shell that has stopped us, and has it back
    signalIgnore(SIGTTOU); // what a background process gets for asking
    tcsetpgrp(this.#fd, getpgrp());
  }
}
