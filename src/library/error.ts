/** Errors of the library. */

/** What failed. */
export type ErrorCode =
  /** The network could not be made. The message is the line that `bucatini run` printed. */
  | 'start'
  /** The network has been closed, or has ended by itself. */
  | 'ended'
  /** The engine refused a request, for example a policy with a mistake. */
  | 'refused'
  /** The engine did not answer in time. */
  | 'timeout'
  /** The program or its working directory does not exist, or cannot be executed. */
  | 'not-found'
  /** A program printed more than `maxOutputBytes`. */
  | 'output'
  /** An argument of the library's functions is not one of those that its type allows. */
  | 'argument';

/** Every error that the library makes itself. The message is one line. */
export class BucatiniError extends Error {
  override readonly name = 'BucatiniError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
