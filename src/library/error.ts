/** Errors of the library. */

/**
 * What failed:
 *
 * - `start`: the network could not be made. The message is the line that `bucatini run` printed.
 * - `ended`: the network has been closed, or has ended by itself.
 * - `refused`: the engine refused a request, for example a policy with a mistake.
 * - `timeout`: the engine did not answer in time.
 * - `not-found`: the program or its working directory does not exist, or cannot be executed.
 * - `output`: a program printed more than `maxOutputBytes`.
 * - `argument`: an argument is not one of those that its type allows.
 */
export type ErrorCode = 'start' | 'ended' | 'refused' | 'timeout' | 'not-found' | 'output' | 'argument';

/** Every error that the library makes itself. The message is one line. */
export class BucatiniError extends Error {
  override readonly name = 'BucatiniError';
  readonly code: ErrorCode;

  /** @internal */
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
