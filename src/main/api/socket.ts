// bundle: rare
/**
 * A Unix stream socket that answers one JSON request for each connection. A request ends where its first JSON
 * value ends, at the end of the client's half of the connection, or at the first word that cannot begin a
 * value. Whatever comes after it is ignored. No client delays another: one that sends nothing, half a request
 * or too much occupies a bounded buffer for a bounded time, and is disconnected if others need its place.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { SocketFile } from '../host/socket-file.ts';
import { BEFORE_VALUE } from './request-json.ts';

/** Maximum bytes of a request: slirp4netns has a buffer of 4095 bytes, of which one must stay free. */
const MAX_REQUEST_BYTES = 4094;
/** The same for a request that sets a policy, which begins as follows (api.ts). */
const MAX_POLICY_BYTES = 1024 * 1024;
const SETS_POLICY = /^\ufeff?\s*\{\s*"execute"\s*:\s*"set_policy"/;
/**
 * Up to EVICT_ABOVE_CLIENTS clients may be idle. Above that number, a new client takes the place of one that
 * has been connected for EVICTABLE_AFTER_MS without a whole request. More than MAX_CLIENTS are never
 * accepted.
 */
const EVICT_ABOVE_CLIENTS = 256;
const EVICTABLE_AFTER_MS = 1000;
const MAX_CLIENTS = 2048;
/**
 * How long a client may take to begin a request (IDLE_MS), and how long it may pause within one (PAUSE_MS).
 * Then whatever has arrived is answered.
 */
const IDLE_MS = 60_000;
const PAUSE_MS = 5000;
/** How long a client may continue to send after its answer. */
const LINGER_MS = 2000;

/** How requests are answered, and hooks for events. */
export interface ApiSocketOptions {
  /** @returns the reply; '': `client` gets a stream, and is closed elsewhere */
  answer(request: string, client: Socket): Promise<string>;
  readonly tooLargeReply: string;
  /** Called when a client connects, when a request has been read, and when a request is too large. */
  onClient?(): void;
  onRequest?(request: string): void;
  onTooLarge?(): void;
  onError(error: Error): void;
}

/** A server on a Unix socket; see the top of this file for its rules. */
export class ApiSocket {
  readonly #server: Server;
  /** In the order in which they connected. */
  readonly #clients = new Map<Socket, Client>();
  #file: SocketFile | undefined;

  constructor(options: ApiSocketOptions) {
    // A client may end its request by shutting down its half of the connection: the other half is for the
    // reply.
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => socket.destroy()); // 'close' follows, which removes the client
      if (!this.#hasRoom()) {
        socket.destroy();
        return;
      }
      const client: Client = { sinceMs: performance.now(), awaitsReply: false };
      this.#clients.set(socket, client);
      socket.on('close', () => this.#clients.delete(socket));
      serve(socket, client, options);
    });
  }

  #hasRoom(): boolean {
    if (this.#clients.size < EVICT_ABOVE_CLIENTS) return true;
    const before = performance.now() - EVICTABLE_AFTER_MS;
    for (const [socket, { sinceMs, awaitsReply }] of this.#clients) {
      if (sinceMs > before) break; // all others connected later
      if (awaitsReply) continue;
      socket.destroy();
      this.#clients.delete(socket);
      return true;
    }
    return this.#clients.size < MAX_CLIENTS;
  }

  /**
   * Listen at a path. An existing socket there is replaced.
   * @throws Error of the runtime with its code
   */
  async listen(path: string): Promise<void> {
    try {
      if (lstatSync(path).isSocket()) unlinkSync(path);
    } catch {
      // The path does not exist, or listen() reports the problem.
    }
    this.#file = new SocketFile(path);
    await this.#file.listen(this.#server);
  }

  /** Descriptors of the directory from which the socket's name is removed at the end. */
  get directories(): readonly number[] {
    return this.#file?.directories ?? [];
  }

  /** Close all connections and the socket, and remove its name. */
  close(): void {
    for (const socket of this.#clients.keys()) socket.destroy();
    const { listening } = this.#server;
    this.#server.close(); // removes the name too, unless the process is in the sandbox
    this.#file?.close(listening);
  }
}

interface Client {
  readonly sinceMs: number;
  /** Its request is complete and its answer has not been sent. */
  awaitsReply: boolean;
}

function serve(socket: Socket, client: Client, options: ApiSocketOptions): void {
  options.onClient?.();
  let received = Buffer.alloc(0);
  let done = false;
  let isPolicy = false;
  const reply = async (request: string | undefined): Promise<void> => {
    done = true;
    client.awaitsReply = true;
    socket.setTimeout(0);
    if (request === undefined) options.onTooLarge?.();
    else options.onRequest?.(request);
    const text = request === undefined ? options.tooLargeReply : await options.answer(request, socket);
    if (text === '') return;
    socket.end(text, () => {
      client.awaitsReply = false;
    });
    // Whatever else the client sends is read and ignored: closing a socket with unread data resets the
    // connection, and the client would lose the reply.
    const linger = setTimeout(() => socket.destroy(), LINGER_MS).unref();
    // A running timer would keep the socket's memory, and some clients send many requests in a short time.
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
    if (received.length === 0) isPolicy = SETS_POLICY.test(chunk.toString('utf8'));
    const most = isPolicy ? MAX_POLICY_BYTES : MAX_REQUEST_BYTES;
    received = Buffer.concat([received, chunk.subarray(0, most + 1 - received.length)]);
    const text = received.toString('utf8');
    const value = firstJsonValue(text) ?? (mayBecomeJsonValue(text) ? undefined : text);
    if (received.length > most) finish(undefined);
    else if (value !== undefined) finish(value);
    else socket.setTimeout(PAUSE_MS);
  });
  socket.on('end', () => {
    // Bun emits this for a socket that we have destroyed, too.
    if (!done && !socket.destroyed) finish(received.toString('utf8'));
  });
}

/** Whether the text begins with an object or an array, or is empty so far. */
const mayBecomeJsonValue = (text: string): boolean => /^([{[]|$)/.test(text.replace(BEFORE_VALUE, ''));

/**
 * The object or array that `text` begins with.
 * @returns undefined if it is not complete yet, or the text begins with something else
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
