/**
 * A Unix stream socket that answers one JSON request a connection. A request ends where its first JSON value ends, or with the
 * client's half of the connection; what comes behind it is not looked at. Nobody waits for anybody: a client that says nothing, half
 * a request or too much costs a bounded buffer for a bounded time.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { SocketFile } from './socket-file.ts';

/** Bytes of a request, at most; slirp4netns reads 4096 and wants one of them left over. */
const MAX_REQUEST_BYTES = 4095;
const MAX_CLIENTS = 256;
/** How long a client may take to say something. */
const IDLE_MS = 60_000;
/** How long a client that was answered may go on sending. */
const LINGER_MS = 2000;

export interface ApiSocketOptions {
  answer(request: string): Promise<string>;
  readonly tooLargeReply: string;
  /** A client has come; a request was read. */
  onClient?(): void;
  onRequest?(request: string): void;
  onError(error: Error): void;
}

export class ApiSocket {
  readonly #server: Server;
  readonly #clients = new Set<Socket>();
  #file: SocketFile | undefined;

  constructor(options: ApiSocketOptions) {
    // A client says that it is done by shutting down its half: the other is for the reply.
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      this.#clients.add(socket);
      socket.on('close', () => this.#clients.delete(socket));
      socket.on('error', () => socket.destroy()); // a client that goes away changes nothing
      serve(socket, options);
    });
    this.#server.maxConnections = MAX_CLIENTS;
  }

  /** A socket that lies there already is replaced. @throws Error of Node's, with its code */
  async listen(path: string): Promise<void> {
    try {
      if (lstatSync(path).isSocket()) unlinkSync(path);
    } catch {
      // Nothing there, or listen() says why not.
    }
    this.#file = new SocketFile(path);
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(path, resolve);
    });
  }

  /** Directories that the socket's name is to be removed from at the end. */
  get directories(): readonly number[] {
    return this.#file?.directories ?? [];
  }

  /** Takes the file away too. */
  close(): void {
    for (const socket of this.#clients) socket.destroy();
    const { listening } = this.#server;
    this.#server.close(); // takes the file away too, where there is a root with that path
    this.#file?.close(listening);
  }
}

function serve(socket: Socket, options: ApiSocketOptions): void {
  options.onClient?.();
  let received = Buffer.alloc(0);
  let done = false;
  const reply = async (request: string | undefined): Promise<void> => {
    done = true;
    socket.setTimeout(0);
    if (request !== undefined) options.onRequest?.(request);
    const text = request === undefined ? options.tooLargeReply : await options.answer(request);
    socket.end(text);
    // What else it sends is read and forgotten: closing on unread data would take the reply from it.
    setTimeout(() => socket.destroy(), LINGER_MS).unref();
  };
  const finish = (request: string | undefined): void => {
    reply(request).catch((error: Error) => {
      options.onError(error);
      socket.destroy();
    });
  };
  socket.setTimeout(IDLE_MS, () => socket.destroy());
  socket.on('data', (chunk: Buffer) => {
    if (done) return;
    received = Buffer.concat([received, chunk.subarray(0, MAX_REQUEST_BYTES + 1 - received.length)]);
    const value = firstJsonValue(received.toString('utf8'));
    if (value !== undefined) finish(value);
    else if (received.length > MAX_REQUEST_BYTES) finish(undefined);
  });
  socket.on('end', () => {
    if (!done) finish(received.toString('utf8'));
  });
}

/** The object or array that `text` begins with, once it is whole; undefined: not yet, or it begins with neither. */
export function firstJsonValue(text: string): string | undefined {
  const start = text.search(/\S/);
  if (start < 0 || !'{['.includes(text[start]!)) return undefined;
  let depth = 0;
  let inString = false;
  for (let at = start; at < text.length; at++) {
    const c = text[at];
    if (inString) {
      if (c === '\\') at++;
      else if (c === '"') inString = false;
    } else if (c === '"') inString = true;
    else if (c === '{' || c === '[') depth++;
    else if ((c === '}' || c === ']') && --depth === 0) return text.slice(start, at + 1);
  }
  return undefined;
}
