// bundle: rare
/**
 * The part of HTTP/1.1 that an exporter needs (RFC 9112): the head of a request for one of a few resources.
 * What is malformed or too long is an error status, never a guess.
 */

/** Most bytes of a request's head. */
export const MAX_HEAD_BYTES = 8192;

export interface HttpRequest {
  readonly method: string;
  /** Without query and fragment. */
  readonly path: string;
  readonly accept: string | undefined;
}

/** A request, the status of the error that it is, or undefined: its head is not complete yet. */
export type ParsedHead = HttpRequest | { readonly status: number } | undefined;

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/**
 * Parse the head of a request.
 * @param bytes  what has arrived so far; whatever follows the head is ignored
 */
export function parseHead(bytes: Buffer): ParsedHead {
  const text = bytes.toString('latin1');
  // Empty lines before the request line are ignored (section 2.2).
  const start = /^(?:\r?\n)*/.exec(text)![0].length;
  const end = /\r?\n\r?\n/.exec(text.slice(start));
  if (end === null || start + end.index > MAX_HEAD_BYTES)
    return bytes.length > MAX_HEAD_BYTES ? { status: 431 } : undefined;
  const [line = '', ...fields] = text.slice(start, start + end.index).split(/\r?\n/);
  const [, method = '', target = '', version = ''] = /^(\S+) (\S+) (HTTP\/\S+)$/.exec(line) ?? [];
  if (!TOKEN.test(method)) return { status: 400 };
  if (!/^HTTP\/1\.[0-9]$/.test(version)) return { status: /^HTTP\/[0-9]/.test(version) ? 505 : 400 };
  const accept: string[] = [];
  for (const field of fields) {
    const [, name = '', value = ''] = /^([^:\s]+):[ \t]*(.*)$/.exec(field) ?? [];
    if (!TOKEN.test(name)) return { status: 400 };
    if (name.toLowerCase() === 'accept') accept.push(value);
  }
  const path = pathOf(target);
  if (path === undefined) return { status: 400 };
  return { method, path, accept: accept.length === 0 ? undefined : accept.join(',') };
}

/** The path of a target in origin or absolute form (section 3.2). @returns undefined for other forms */
function pathOf(target: string): string | undefined {
  const path = target.replace(/^https?:\/\/[^/?#]*/i, '').replace(/[?#].*$/, '');
  if (path === '' && target !== path) return '/';
  return path.startsWith('/') ? path : undefined;
}

const REASONS: Readonly<Record<number, string>> = {
  200: 'OK',
  400: 'Bad Request',
  404: 'Not Found',
  405: 'Method Not Allowed',
  406: 'Not Acceptable',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  505: 'HTTP Version Not Supported',
};

export interface HttpAnswer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

/** An answer that says no more than its status. */
export const statusAnswer = (status: number): HttpAnswer => ({
  status,
  type: 'text/plain; charset=utf-8',
  body: `${status} ${REASONS[status]}\n`,
});

/**
 * The bytes of an answer. The connection ends with it.
 * @param method  HEAD: without the body
 */
export function answerBytes({ status, type, body }: HttpAnswer, method: string): Buffer {
  const head = [
    `HTTP/1.1 ${status} ${REASONS[status]}`,
    `Content-Type: ${type}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Cache-Control: no-store',
    'X-Content-Type-Options: nosniff',
    ...(status === 405 ? ['Allow: GET, HEAD'] : []),
    ...(status === 200 ? ['Vary: Accept'] : []),
    'Connection: close',
    '',
    '',
  ].join('\r\n');
  return Buffer.from(method === 'HEAD' ? head : head + body);
}
