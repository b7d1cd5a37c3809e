/**
 * A system call that failed, told in full: call, arguments, errno, and what to do about it. For the cold
 * path; the hot path passes -errno on.
 */
import { errnoName } from './constants.ts';
import { errnoText } from './libc.ts';

export class SysError extends Error {
  override readonly name = 'SysError';
  /** Name of the call as in `man 2`: `ioctl`. */
  readonly call: string;
  /** Its arguments as a reader wants them: `TUNSETIFF, "tap0"`. */
  readonly args: string;
  /** Positive errno. */
  readonly errno: number;
  /** What the user can do, if we know. */
  readonly remedy: string | undefined;

  constructor(call: string, args: string, errno: number, remedy?: string) {
    const hint = remedy === undefined ? '' : `; ${remedy}`;
    super(`${call}(${args}): ${errnoName(errno)} (${errnoText(errno)})${hint}`);
    this.call = call;
    this.args = args;
    this.errno = errno;
    this.remedy = remedy;
  }

  /** `EACCES` and the like, as Node's own errors have it. */
  get code(): string {
    return errnoName(this.errno);
  }
}

/** Give back a result that is not negative, throw what a wrapper returned as -errno. */
export function checked(result: number, call: string, args: string, remedy?: string): number {
  if (result < 0) throw new SysError(call, args, -result, remedy);
  return result;
}
