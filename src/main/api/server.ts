// bundle: rare
/**
 * The API socket of a front end: api/socket.ts reads requests, api.ts answers them. Loaded only if
 * --api-socket is given.
 */
import { strerrorOf } from '../../sys/error.ts';
import { UsageError } from '../cli/values.ts';
import type { Log } from '../host/log.ts';
import { Api, type ApiOptions, TOO_LARGE_REPLY } from './api.ts';
import { ApiSocket, type ApiSocketOptions } from './socket.ts';
import { AUTO_SOCKET, autoSocketPath, type SocketProgram } from './socket-directory.ts';

export { ownNamespace } from './engine-report.ts';

/** Events that slirp4netns logs on standard error. */
export type ApiEvents = Pick<ApiSocketOptions, 'onClient' | 'onRequest' | 'onTooLarge' | 'onError'>;

/**
 * Listen at `path`. Call it before the root is exchanged (host/sandbox.ts), and let the sandbox permit names
 * in `directories` of the result to be removed.
 * @throws Error of the runtime with its errno
 */
export async function openApi(path: string, options: ApiOptions, events: ApiEvents): Promise<ApiSocket> {
  const api = new Api(options);
  const server = new ApiSocket({
    answer: (request, client) => api.answer(request, client),
    tooLargeReply: TOO_LARGE_REPLY,
    ...events,
  });
  try {
    await server.listen(path);
  } catch (error) {
    server.close();
    throw error;
  }
  return server;
}

/**
 * The same for a value of the option --api-socket, which an error names.
 * @param value  a path, or "auto"
 * @param program  for the name of the socket with "auto"
 * @throws UsageError
 */
export async function openApiOption(
  value: string,
  program: SocketProgram,
  options: ApiOptions,
  events: ApiEvents,
  log: Log,
): Promise<ApiSocket> {
  const path = value === AUTO_SOCKET ? await autoSocketPath(program) : value;
  try {
    const socket = await openApi(path, options, events);
    if (value === AUTO_SOCKET) log('info', `API socket: ${path}`);
    return socket;
  } catch (cause) {
    // A socket would have been replaced.
    const text =
      (cause as { code?: string }).code === 'EADDRINUSE'
        ? 'a file that is no socket is there; remove it or write another path'
        : strerrorOf(cause);
    throw new UsageError(`--api-socket ${path}: ${text}`);
  }
}
