// bundle: rare
/**
 * A Unix stream socket that answers one JSON request a connection. A request ends where its first JSON value
 * ends, with the client's half of the connection, or at the first word that begins none; what comes behind it
 * is not looked at. Nobody waits for anybody: a client that says nothing, half a request or too much costs a
 * bounded buffer for a bounded time, and has to make room for others.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { SocketFile } from '../host/socket-file.ts';
import { BEFORE_VALUE } from './request-json.ts';

/** Bytes of a request, at most: slirp4netns has room for 4095 and wants one of them left over. */
const MAX_REQUEST_BYTES = 4094;
/**
 * So many may take their time; of more, those who have been silent for so long make room. Nobody comes in
 * beyond the second number.
 */
const PATIENT_CLIENTS = 256;
const SILENT_MS = 1000;
const MAX_CLIENTS = 2048;
/**
 * How long a client may take to say something, and to go on with what it has begun: then what there is is
 * answered.
 */
const IDLE_MS = 60_000;
const PAUSE_MS = 5000;
/** How long a client that was answered may go on sending. */
const LINGER_MS = 2000;

export interface ApiSocketOptions {
  answer(request: string): Promise<string>;
  readonly tooLargeReply: string;
  /** A client has come; a request was read, or is too large to be one. */
  onClient?(): void;
  onRequest?(request: string): void;
  onTooLarge?(): void;
  onError(error: Error): void;
}

export class ApiSocket {
  readonly #server: Server;
  /** In the order in which they came. */
  readonly #clients = new Map<Socket, Client>();
  #file: SocketFile | undefined;

  constructor(options: ApiSocketOptions) {
    // A client says that it is done by shutting down its half: the other is for the reply.
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => socket.destroy()); // a client that goes away changes nothing
      if (!this.#hasRoom()) {
        socket.destroy();
        return;
      }
      const client: Client = { sinceMs: performance.now(), isAsking: false };
      this.#clients.set(socket, client);
      socket.on('close', () => this.#clients.delete(socket));
      serve(socket, client, options);
    });
  }

  #hasRoom(): boolean {
    if (this.#clients.size < PATIENT_CLIENTS) return true;
    const before = performance.now() - SILENT_MS;
    for (const [socket, { sinceMs, isAsking }] of this.#clients) {
      if (sinceMs > before) break; // and all behind it came later
      if (isAsking) continue;
      socket.destroy();
      this.#clients.delete(socket);
      return true;
    }
    return this.#clients.size < MAX_CLIENTS;
  }

  /** A socket that lies there already is replaced. @throws Error of Node's, with its code */
  async listen(path: string): Promise<void> {
    try {
      if (lstatSync(path).isSocket()) unlinkSync(path);
    } catch {
      // Nothing there, or listen() says why not.
    }
    this.#file = new SocketFile(path);
    await this.#file.listen(this.#server);
  }

  /** Directories that the socket's name is to be removed from at the end. */
  get directories(): readonly number[] {
    return this.#file?.directories ?? [];
  }

  /** Takes the file away too. */
  close(): void {
    for (const socket of this.#clients.keys()) socket.destroy();
    const { listening } = this.#server;
    this.#server.close(); // takes the file away too, where there is a root with that path
    this.#file?.close(listening);
  }
}

interface Client {
  readonly sinceMs: number;
  /** Its request has come whole, and its answer has not been given. */
  isAsking: boolean;
}

function serve(socket: Socket, client: Client, options: ApiSocketOptions): void {
  options.onClient?.();
  let received = Buffer.alloc(0);
  let done = false;
  const reply = async (request: string | undefined): Promise<void> => {
    done = true;
    client.isAsking = true;
    socket.setTimeout(0);
    if (request === undefined) options.onTooLarge?.();
    else options.onRequest?.(request);
    const text = request === undefined ? options.tooLargeReply : await options.answer(request);
    socket.end(text, () => {
      client.isAsking = false;
    });
    // What else it sends is read and forgotten: closing on unread data would take the reply from it.
    const linger = setTimeout(() => socket.destroy(), LINGER_MS).unref();
    // It would keep the socket's memory, and many requests come in a row.
    socket.once('close', () => clearTimeout(linger));
  };
  const finish = (request: string | undefined): void => {
    reply(request).catch((error: Error) => {
      options.onError(error);
      socket.destroy();
    });
  };
  socket.setTimeout(IDLE_MS, () => finish(received.toString('utf8')));
  socket.on('data', (chunk: Buffer) => {
    if (done) return;
    received = Buffer.concat([received, chunk.subarray(0, MAX_REQUEST_BYTES + 1 - received.length)]);
    const text = received.toString('utf8');
    const value = firstJsonValue(text) ?? (mayBecomeOne(text) ? undefined : text);
    if (received.length > MAX_REQUEST_BYTES) finish(undefined);
    else if (value !== undefined) finish(value);
    else socket.setTimeout(PAUSE_MS);
  });
  socket.on('end', () => {
    if (!done) finish(received.toString('utf8'));
  });
}

/** Whether an object or array begins here, or nothing has yet. */
const mayBecomeOne = (text: string): boolean => /^([{[]|$)/.test(text.replace(BEFORE_VALUE, ''));

/**
 * The object or array that `text` begins with, once it is whole; undefined: not yet, or it begins with
 * neither.
 */
export function firstJsonValue(text: string): string | undefined {
  const start = BEFORE_VALUE.exec(text)![0].length;
  if (start === text.length || !'{['.includes(text[start]!)) return undefined;
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
