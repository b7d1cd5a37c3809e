/**
 * Descriptors that our caller left open are not for COMMAND: Node closes some of them on exec (the low ones) and not others, so
 * all of them are. Standard input, output and error are handed on by name.
 */
import { readdirSync } from 'node:fs';
import { setCloexec } from '../sys/io.ts';

export function closeInheritedOnExec(): void {
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name);
    if (fd > 2) setCloexec(fd); // one that is closed by now says EBADF
  }
}
