/**
 * The controlling terminal, held open, as it cannot be opened in the sandbox (host/sandbox.ts).
 *
 * A shell as COMMAND makes its own process group the terminal's foreground group, and cannot give the
 * terminal back: our group has no number in its PID namespace. So we take it back for our group. Otherwise
 * SIGTTIN would stop the next process of a surrounding script that reads from the terminal.
 */
import { O_NOCTTY, O_RDWR, SIGTTOU } from '../../sys/constants.ts';
import { openPath } from '../../sys/path.ts';
import { getpgid, getpgrp, signalIgnore, tcgetpgrp, tcsetpgrp } from '../../sys/process.ts';

/** The controlling terminal, if there is one. Construct it before COMMAND starts. */
export class Terminal {
  readonly #fd = openPath('/dev/tty', O_RDWR | O_NOCTTY);
  /** Whether our process group was in the foreground when we started. */
  readonly #wasOurs = this.inForeground();
  /** The foreground group when we were continued in the background, that of the shell; 0: we were not. */
  #shell = 0;

  /** Whether we are in its foreground process group. False without a controlling terminal. */
  inForeground(): boolean {
    return this.#fd >= 0 && tcgetpgrp(this.#fd) === getpgrp();
  }

  /**
   * We are continued. If our group is in the foreground, give the terminal to COMMAND's group, if that differs
   * (COMMAND is a shell).
   * @param pid  of COMMAND
   */
  handOver(pid: number): void {
    if (!this.inForeground()) {
      // A shell as COMMAND takes the terminal when it is continued, also in the background.
      this.#shell = this.#fd < 0 ? 0 : tcgetpgrp(this.#fd);
      return;
    }
    this.#shell = 0;
    const group = getpgid(pid);
    if (group > 0 && group !== getpgrp()) tcsetpgrp(this.#fd, group);
  }

  /**
   * Take the terminal back if our group had it at the start and does not have it now: for the shell that has
   * continued us in the background, or for our group. The process ends right after.
   */
  restore(): void {
    if (!this.#wasOurs || this.inForeground()) return;
    // The foreground group exists: a shell that has stopped us has taken the terminal back.
    if (getpgid(tcgetpgrp(this.#fd)) >= 0) return;
    signalIgnore(SIGTTOU); // tcsetpgrp() raises it in a background process
    if (this.#shell > 0 && tcsetpgrp(this.#fd, this.#shell) >= 0) return;
    tcsetpgrp(this.#fd, getpgrp());
  }
}
