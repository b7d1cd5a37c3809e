/** One question to the API socket of a running engine (api.ts), from another process. */
import { createConnection } from 'node:net';

const ANSWER_MS = 5000;

/**
 * @param request  what to execute, without arguments
 * @returns what stands under "return"
 * @throws Error with one line that does not name the path
 */
export async function askApi(path: string, request: 'info' | 'stats'): Promise<unknown> {
  const text = await new Promise<string>((resolve, reject) => {
    let got = '';
    const socket = createConnection({ path, allowHalfOpen: true }, () =>
      socket.write(JSON.stringify({ execute: request })),
    );
    socket.setTimeout(ANSWER_MS, () => socket.destroy(new Error(`no answer within ${ANSWER_MS / 1000} s`)));
    socket.setEncoding('utf8').on('data', (chunk) => {
      got += chunk;
    });
    socket.on('end', () => {
      socket.destroy();
      resolve(got);
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
