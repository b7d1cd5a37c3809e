/**
 * Name of a Unix socket that is to be removed at the end: in the sandbox (host/sandbox.ts) by its directory,
 * held open, as paths lead nowhere there. Make it before the root is exchanged.
 */
import { existsSync } from 'node:fs';
import type { Server } from 'node:net';
import { basename, dirname } from 'node:path';
import { Errno } from '../../sys/constants.ts';
import { holdDirectory } from '../../sys/held-directory.ts';
import { close } from '../../sys/io.ts';
import { strerror } from '../../sys/libc.ts';
import { unlinkat } from '../../sys/path.ts';

export class SocketFile {
  #directory: number;
  readonly #path: string;
  readonly #name: string;

  constructor(path: string) {
    this.#directory = holdDirectory(dirname(path), true);
    this.#path = path;
    this.#name = basename(path);
  }

  /** For SandboxPlan.removable. */
  get directories(): readonly number[] {
    return this.#directory < 0 ? [] : [this.#directory];
  }

  /** Make `server` listen there. @throws Error of Node's, with its errno */
  async listen(server: Server): Promise<void> {
    const listening = new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.#path, resolve);
    });
    try {
      await listening;
    } catch (error) {
      // libuv calls a missing directory EACCES, as on Windows.
      if ((error as NodeJS.ErrnoException).code !== 'EACCES' || existsSync(dirname(this.#path))) throw error;
      const missing = new Error(`listen ENOENT: no such file or directory ${this.#path}`, { cause: error });
      throw Object.assign(missing, { code: 'ENOENT', errno: -Errno.ENOENT });
    }
  }

  /** @param listened  the name is ours: it is removed. The directory is let go of either way. */
  close(listened: boolean): void {
    if (this.#directory < 0) return;
    if (listened) unlinkat(this.#directory, this.#name, 0);
    close(this.#directory);
    this.#directory = -1;
  }
}

/**
 * What strerror(3) says of why a socket could not be bound there: libuv tells EACCES where the directory is
 * missing.
 */
export function bindErrorText(path: string, error: unknown): string {
  const { errno, message } = error as NodeJS.ErrnoException;
  if (errno === undefined) return message;
  const isMissing = errno === -Errno.EACCES && !existsSync(dirname(path));
  return strerror(isMissing ? Errno.ENOENT : -errno);
}
