/**
 * Runs one end of a TCP conversation from a list of steps. Both ends of a test use this interpreter: the
 * client program (clients/tcp-client.ts) runs its own list and sends the list of the other end as its first
 * line; a script server runs that list and keeps the outcome for later requests.
 */
import { createHash } from 'node:crypto';
import net from 'node:net';
import { patternSlice } from './pattern.ts';

export type Step =
  /** Send the next bytes of the pattern; done when the kernel has accepted all. */
  | readonly ['send', bytes: number]
  /** Send the next bytes of the pattern in writes of one byte each. */
  | readonly ['sendSingles', bytes: number]
  /** Read until this many more bytes have arrived. */
  | readonly ['recv', bytes: number]
  /** Read until FIN of the other end. */
  | readonly ['recvEof']
  /** Send and read at the same time, until both are done. */
  | readonly ['both', sendBytes: number, recvBytes: number]
  /** Neither read nor write for a while. */
  | readonly ['pause', ms: number]
  /** Finish sending: shutdown(SHUT_WR). */
  | readonly ['fin']
  /** Close with RST. */
  | readonly ['reset']
  /** Read until the connection fails. */
  | readonly ['awaitError'];

export interface Outcome {
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** SHA-256 of the received bytes. */
  readonly sha256: string;
  readonly eof: boolean;
  /** Name of the errno with which the connection failed. */
  readonly error: string | null;
  readonly remoteAddress: string;
  readonly ms: number;
}

/** First line from client to script server. */
export interface Request {
  readonly id: string;
  readonly steps: readonly Step[];
}

const PIECE_BYTES = 1 << 20;

export async function playSteps(socket: net.Socket, steps: readonly Step[]): Promise<Outcome> {
  const startedAt = performance.now();
  const hash = createHash('sha256');
  let sentBytes = 0;
  let receivedBytes = 0;
  /** What the steps so far asked for. */
  let wantedBytes = 0;
  let eof = false;
  let closed = false;
  let error: string | null = null;
  let wake = () => {};
  const remoteAddress = (socket.remoteAddress ?? '').replace(/^::ffff:/, '');

  socket.on('data', (chunk: Buffer) => {
    hash.update(chunk);
    receivedBytes += chunk.length;
    wake();
  });
  socket.on('end', () => {
    eof = true;
    wake();
  });
  socket.on('error', (e: NodeJS.ErrnoException) => {
    error ??= e.code ?? e.message;
    wake();
  });
  socket.on('close', () => {
    closed = true;
    wake();
  });
  socket.pause();

  const readUntil = async (enough: () => boolean): Promise<void> => {
    socket.resume();
    while (!enough() && error === null && !closed) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    socket.pause();
  };
  const recv = (bytes: number): Promise<void> => {
    wantedBytes += bytes;
    return readUntil(() => receivedBytes >= wantedBytes || eof);
  };
  const write = (piece: Buffer): Promise<void> =>
    new Promise((resolve) => {
      socket.write(piece, (e) => {
        if (e) error ??= (e as NodeJS.ErrnoException).code ?? e.message;
        else sentBytes += piece.length;
        resolve();
      });
    });
  const send = async (bytes: number, pieceBytes: number): Promise<void> => {
    for (const end = sentBytes + bytes; sentBytes < end && error === null && !closed; ) {
      await write(patternSlice(sentBytes, Math.min(pieceBytes, end - sentBytes)));
    }
  };

  for (const step of steps) {
    switch (step[0]) {
      case 'send':
        await send(step[1], PIECE_BYTES);
        break;
      case 'sendSingles':
        socket.setNoDelay(true);
        await send(step[1], 1);
        break;
      case 'recv':
        await recv(step[1]);
        break;
      case 'recvEof':
        await readUntil(() => eof);
        break;
      case 'both':
        await Promise.all([send(step[1], PIECE_BYTES), recv(step[2])]);
        break;
      case 'pause':
        await new Promise((resolve) => setTimeout(resolve, step[1]));
        break;
      case 'fin':
        socket.end();
        break;
      case 'reset':
        socket.resetAndDestroy();
        break;
      case 'awaitError':
        await readUntil(() => false);
        break;
    }
  }
  if (!closed && !(eof && socket.writableEnded)) socket.destroy();
  return {
    sentBytes,
    receivedBytes,
    sha256: hash.digest('hex'),
    eof,
    error,
    remoteAddress,
    ms: Math.round(performance.now() - startedAt),
  };
}

/**
 * A server that runs the steps that each client sends first; `done` gets the outcome with the client's id.
 */
export function scriptServer(done: (id: string, outcome: Outcome) => void): net.Server {
  return net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    let head = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf(10);
      if (end < 0) return;
      socket.off('data', onData);
      socket.off('error', ignore);
      const request = JSON.parse(head.subarray(0, end).toString()) as Request;
      socket.pause();
      if (end + 1 < head.length) socket.unshift(head.subarray(end + 1));
      playSteps(socket, request.steps).then((outcome) => done(request.id, outcome));
    };
    const ignore = (): void => {};
    socket.on('data', onData);
    socket.on('error', ignore);
  });
}
