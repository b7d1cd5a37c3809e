/**
 * Errors of failed system calls, with call, arguments, errno and a remedy. For the cold path; the hot path
 * returns -errno.
 */
import { errnoName } from './constants.ts';
import { errnoText, strerror } from './libc.ts';

/** A failed system call. */
export class SysError extends Error {
  override readonly name = 'SysError';
  /** Name of the call as in `man 2`: `ioctl`. */
  readonly call: string;
  /** The arguments that matter to a reader: `TUNSETIFF, "tap0"`. */
  readonly args: string;
  /** Positive errno. */
  readonly errno: number;
  /** What the user can do, if known. */
  readonly remedy: string | undefined;

  constructor(call: string, args: string, errno: number, remedy?: string) {
    const hint = remedy === undefined ? '' : `; ${remedy}`;
    super(`${call}(${args}): ${errnoName(errno)} (${errnoText(errno)})${hint}`);
    this.call = call;
    this.args = args;
    this.errno = errno;
    this.remedy = remedy;
  }

  /** Name of the errno, such as `EACCES`: the same property as in the runtime's own errors. */
  get code(): string {
    return errnoName(this.errno);
  }
}

/**
 * Turn a wrapper's -errno into an exception.
 * @param result  what the wrapper returned
 * @returns `result`, which is not negative
 * @throws SysError when `result` is negative
 */
export function checked(result: number, call: string, args: string, remedy?: string): number {
  if (result < 0) throw new SysError(call, args, -result, remedy);
  return result;
}

/**
 * The positive errno of an error: SysError has it, a runtime's own errors have it or its negative.
 * @returns undefined for an error that is not of a system call
 */
export function errnoOf(error: unknown): number | undefined {
  const { errno } = error as NodeJS.ErrnoException;
  return errno === undefined ? undefined : Math.abs(errno);
}

/** The text of strerror(3) for the error of a system call; any other error's message. */
export function strerrorOf(error: unknown): string {
  const errno = errnoOf(error);
  return errno === undefined ? (error as Error).message : strerror(errno);
}
