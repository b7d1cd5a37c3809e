// bundle: rare
/**
 * The API socket of a front end: requests from api/socket.ts, answers from api.ts. Loaded only where
 * --api-socket is written.
 */
import { strerror } from '../../sys/libc.ts';
import { UsageError } from '../cli/values.ts';
import { Api, type ApiOptions, TOO_LARGE_REPLY } from './api.ts';
import { ApiSocket, type ApiSocketOptions } from './socket.ts';

/** What slirp4netns tells on standard error as it happens. */
export type ApiTelling = Pick<ApiSocketOptions, 'onClient' | 'onRequest' | 'onTooLarge' | 'onError'>;

/**
 * Listen at `path`; call it before the root is exchanged (host/sandbox.ts). The names in `directories` are to
 * be removable behind it.
 * @throws Error of Node's, with its errno
 */
export async function openApi(path: string, options: ApiOptions, telling: ApiTelling): Promise<ApiSocket> {
  const api = new Api(options);
  const server = new ApiSocket({
    answer: (request) => api.answer(request),
    tooLargeReply: TOO_LARGE_REPLY,
    ...telling,
  });
  try {
    await server.listen(path);
  } catch (error) {
    server.close();
    throw error;
  }
  return server;
}

/** The same, told as option and value. @throws UsageError */
export async function openApiOption(
  path: string,
  options: ApiOptions,
  telling: ApiTelling,
): Promise<ApiSocket> {
  try {
    return await openApi(path, options, telling);
  } catch (cause) {
    const { errno, message } = cause as NodeJS.ErrnoException;
    throw new UsageError(`--api-socket ${path}: ${errno === undefined ? message : strerror(-errno)}`);
  }
}
