/** Sends one request to the API socket of a running engine (api.ts), from another process. */
import { createConnection } from 'node:net';

const ANSWER_LIMIT_MS = 5000;

/**
 * @param path     of the socket
 * @param request  the name to execute, without arguments
 * @returns the value of "return" in the answer
 * @throws Error whose message is one line and does not contain the path
 */
export async function askApi(path: string, request: 'info' | 'stats'): Promise<unknown> {
  const text = await new Promise<string>((resolve, reject) => {
    let received = '';
    const socket = createConnection({ path, allowHalfOpen: true }, () =>
      socket.write(JSON.stringify({ execute: request })),
    );
    socket.setTimeout(ANSWER_LIMIT_MS, () =>
      socket.destroy(new Error(`no answer within ${ANSWER_LIMIT_MS / 1000} s`)),
    );
    socket.setEncoding('utf8').on('data', (chunk) => {
      received += chunk;
    });
    socket.on('end', () => {
      socket.destroy();
      resolve(received);
    });
    socket.on('error', (error: NodeJS.ErrnoException) => reject(new Error(error.code ?? error.message)));
  });
  let answer: { return?: unknown; error?: { desc?: unknown } };
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Error('the answer is not JSON');
  }
  if (answer.return === undefined) throw new Error(String(answer.error?.desc ?? 'no answer'));
  return answer.return;
}
