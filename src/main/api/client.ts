// bundle: rare
/**
 * A client of the API socket (api.ts, docs/api.md), for other processes than the engine's. The engine is not
 * trusted: an answer is bounded in bytes and in time, and no text in it has control characters that a
 * terminal would obey.
 */
import { createConnection } from 'node:net';

/** Requests that this client's users make. */
export type ApiRequest =
  | 'info'
  | 'stats'
  | 'metrics'
  | 'list_flows'
  | 'list_ports'
  | 'add_hostfwd'
  | 'remove_hostfwd'
  | 'get_policy'
  | 'set_policy'
  | 'get_impairment'
  | 'set_impairment'
  | 'stop_capture'
  | 'write_capture';

/** Why a request failed. */
export type ApiFailure =
  /** Nobody listens on the socket, or there is none. */
  | 'gone'
  /** This user may not connect. */
  | 'denied'
  /** No whole answer in time. */
  | 'timeout'
  /** The connection ended without an answer. */
  | 'closed'
  /** The engine answered with an error, for example because it does not know the request. */
  | 'refused'
  /** The answer is no JSON object with "return", or it is too long. */
  | 'malformed';

/** A request failed. The message is one line without the path of the socket. */
export class ApiError extends Error {
  readonly kind: ApiFailure;
  /** What the engine adds to the message of an error, in one line. */
  readonly reason: string | undefined;

  constructor(kind: ApiFailure, message: string, reason?: string) {
    super(message);
    this.kind = kind;
    this.reason = reason;
  }
}

export interface ApiClientOptions {
  /** For the whole exchange. */
  readonly timeoutMs?: number;
  readonly maxBytes?: number;
}

export const ANSWER_LIMIT_MS = 5000;
/** 1,000 flows of 400 bytes and the counters of 16 threads stay below a tenth of this. */
const ANSWER_LIMIT_BYTES = 8 * 1024 * 1024;

/**
 * Make one request.
 * @param path     of the socket
 * @param request  the name to execute
 * @returns the value of "return" in the answer; cleanTexts() was applied to it, nothing else was checked
 * @throws ApiError
 */
export async function askApi(
  path: string,
  request: ApiRequest,
  args?: Readonly<Record<string, unknown>>,
  { timeoutMs = ANSWER_LIMIT_MS, maxBytes = ANSWER_LIMIT_BYTES }: ApiClientOptions = {},
): Promise<unknown> {
  const text = await exchange(
    path,
    JSON.stringify({ execute: request, ...(args && { arguments: args }) }),
    timeoutMs,
    maxBytes,
  );
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    throw text === ''
      ? new ApiError('closed', 'the connection was closed without an answer')
      : new ApiError('malformed', 'the answer is not JSON');
  }
  const { return: value, error } = (typeof answer === 'object' && answer !== null ? answer : {}) as {
    return?: unknown;
    error?: { desc?: unknown; reason?: unknown } | null;
  };
  if (value !== undefined) return cleanTexts(value);
  const { desc, reason } = error ?? {};
  if (typeof desc !== 'string') throw new ApiError('malformed', 'no answer');
  throw new ApiError('refused', oneLine(desc), typeof reason === 'string' ? oneLine(reason) : undefined);
}

function exchange(path: string, request: string, timeoutMs: number, maxBytes: number): Promise<string> {
  return new Promise<string>((resolve, reject) => {
    const pieces: Buffer[] = [];
    let bytes = 0;
    const fail = (error: ApiError): void => {
      clearTimeout(timer);
      socket.destroy();
      reject(error);
    };
    const timer = setTimeout(
      () => fail(new ApiError('timeout', `no answer within ${timeoutMs / 1000} s`)),
      timeoutMs,
    );
    const socket = createConnection({ path, allowHalfOpen: true }, () => socket.write(request));
    socket.on('data', (piece: Buffer) => {
      bytes += piece.length;
      if (bytes > maxBytes)
        fail(new ApiError('malformed', `the answer is longer than ${maxBytes >> 20} MiB`));
      else pieces.push(piece);
    });
    socket.on('end', () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(Buffer.concat(pieces).toString('utf8'));
    });
    socket.on('error', (error: NodeJS.ErrnoException) => fail(connectionError(error)));
  });
}

function connectionError({ code, message }: NodeJS.ErrnoException): ApiError {
  switch (code) {
    case 'ENOENT':
      return new ApiError('gone', 'no such socket');
    case 'ECONNREFUSED':
      return new ApiError('gone', 'nobody listens on this socket');
    case 'EACCES':
    case 'EPERM':
      return new ApiError('denied', 'permission denied');
    case 'ENOTSOCK':
      return new ApiError('gone', 'not a socket');
    default:
      return new ApiError('closed', `the connection failed (${oneLine(code ?? message)})`);
  }
}

/**
 * Control characters (C0 without tab and line feed, DEL, C1), line and paragraph separators, and characters
 * that reorder text (Unicode TR9).
 */
const UNPRINTABLE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what a terminal would obey
  /[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]/g;

/** A text without characters that a terminal would obey; U+FFFD stands for each of them. */
export const cleanText = (text: string): string => text.replace(UNPRINTABLE, '\ufffd');

/** The same in one line. */
export const oneLine = (text: string): string => cleanText(text).replace(/[\t\n]+/g, ' ');

/** Answers are no deeper than this by far; recursion without a bound would end at the size of the stack. */
const MAX_DEPTH = 32;

/**
 * cleanText() for all texts in a value, names of members included.
 * @returns a copy
 * @throws ApiError: objects and arrays are in one another more than MAX_DEPTH deep
 */
export function cleanTexts(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return cleanText(value);
  if (typeof value !== 'object' || value === null) return value;
  if (depth === MAX_DEPTH) throw new ApiError('malformed', 'its answer is not understood');
  if (Array.isArray(value)) return value.map((member) => cleanTexts(member, depth + 1));
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) => [oneLine(name), cleanTexts(member, depth + 1)]),
  );
}
