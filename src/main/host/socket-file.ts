/**
 * A Unix socket's name, which has to be removed at the end. No path resolves in the sandbox
 * (host/sandbox.ts), so the name is removed through its directory, held open. Construct it before the root is
 * exchanged.
 */
import { existsSync } from 'node:fs';
import type { Server } from 'node:net';
import { basename, dirname } from 'node:path';
import { Errno } from '../../sys/constants.ts';
import { holdDirectory } from '../../sys/held-directory.ts';
import { close } from '../../sys/io.ts';
import { unlinkat } from '../../sys/path.ts';

/** The name of a Unix socket, and its directory, held open. */
export class SocketFile {
  #directory: number;
  readonly #path: string;
  readonly #name: string;

  constructor(path: string) {
    this.#directory = holdDirectory(dirname(path), true);
    this.#path = path;
    this.#name = basename(path);
  }

  /** Descriptors for SandboxPlan.removable. */
  get directories(): readonly number[] {
    return this.#directory < 0 ? [] : [this.#directory];
  }

  /**
   * Make `server` listen at the path.
   * @throws Error of the runtime with its errno; ENOENT, not EACCES, if the directory is missing
   */
  async listen(server: Server): Promise<void> {
    const listening = new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.#path, resolve);
    });
    try {
      await listening;
    } catch (error) {
      // libuv reports a missing directory as EACCES, for compatibility with Windows.
      if ((error as NodeJS.ErrnoException).code !== 'EACCES' || existsSync(dirname(this.#path))) throw error;
      const missing = new Error(`listen ENOENT: no such file or directory ${this.#path}`, { cause: error });
      throw Object.assign(missing, { code: 'ENOENT', errno: -Errno.ENOENT });
    }
  }

  /**
   * Close the directory.
   * @param listened  the socket has this name because of us: remove the name first
   */
  close(listened: boolean): void {
    if (this.#directory < 0) return;
    if (listened) unlinkat(this.#directory, this.#name, 0);
    close(this.#directory);
    this.#directory = -1;
  }
}
