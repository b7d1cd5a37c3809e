// bundle: rare
/**
 * The HTTP server of `--metrics` and `bucatini metrics --listen`: GET and HEAD of /metrics and /. One request
 * for each connection. It runs on the main thread, in the sandbox too, so it is made of node:net, whose calls
 * the sandbox knows: how the servers of node:http keep the bounds below differs between the runtimes
 * (docs/decisions/132-metrics.md).
 */
import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { collectGarbage } from '#runtime/program';
import { strerrorOf } from '../../sys/error.ts';
import { answers } from '../api/socket-directory.ts';
import { type ListenAddress, listenAddressText } from '../cli/listen-address.ts';
import { UsageError } from '../cli/values.ts';
import { SocketFile } from '../host/socket-file.ts';
import { within } from '../process/time-limit.ts';
import { CONTENT_TYPES, exposition, negotiate } from './exposition.ts';
import type { Family } from './families.ts';
import { answerBytes, type HttpAnswer, type HttpRequest, parseHead, statusAnswer } from './http-request.ts';

/** When one more client connects, the one that has waited longest is closed. */
const MAX_CLIENTS = 32;
const TIME_LIMITS = {
  /** From the connection to the whole head of the request. */
  headMs: 5000,
  /** From there to the last byte of the answer: a reader that is slower is cut. */
  answerMs: 10_000,
} as const;
/**
 * An answer makes half a MiB of garbage, and collecting it takes 8 ms: after this many answers, and so long
 * after the last of them (docs/decisions/132-metrics.md).
 */
const COLLECT_EVERY = 10;
const COLLECT_AFTER_MS = 100;
/** How long the client may take to close its side after the answer. */
const LINGER_MS = 1000;

const HOME: HttpAnswer = {
  status: 200,
  type: 'text/html; charset=utf-8',
  body: '<!doctype html><title>bucatini</title><h1>bucatini</h1><p><a href="/metrics">Metrics</a></p>\n',
};

export interface MetricsOptions {
  /**
   * The current values. Called for one request after the other; requests that come meanwhile share its
   * result.
   */
  families(): Promise<readonly Family[]>;
  onError(error: Error): void;
  /** For tests. */
  readonly limits?: { readonly headMs: number; readonly answerMs: number };
}

export class MetricsServer {
  readonly #options: MetricsOptions;
  readonly #server: Server;
  /** In the order in which they connected. */
  readonly #clients = new Set<Socket>();
  #families: Promise<readonly Family[]> | undefined;
  #file: SocketFile | undefined;
  #answers = 0;

  constructor(options: MetricsOptions) {
    this.#options = options;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#onClient(socket));
  }

  /**
   * Listen. The socket belongs to the network namespace that the calling thread is in.
   * @param option  named by errors
   * @throws UsageError
   */
  async listen(to: ListenAddress, option: string): Promise<void> {
    const name = `${option} ${listenAddressText(to)}`;
    try {
      if (to.kind === 'unix') await this.#listenAtPath(to.path);
      else await this.#listenAtPort(to.address, to.port);
    } catch (cause) {
      this.close();
      throw new UsageError(`${name}: ${whyNot(to, cause)}`);
    }
    this.#server.on('error', (error) => this.#options.onError(error));
  }

  #listenAtPort(host: string, port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host, port, ipv6Only: true }, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
  }

  async #listenAtPath(path: string): Promise<void> {
    await removeStale(path);
    const file = new SocketFile(path);
    this.#file = file;
    // Nobody else may connect, not even before chmod().
    const umask = process.umask(0o177);
    try {
      await file.listen(this.#server);
    } finally {
      process.umask(umask);
    }
    chmodSync(path, 0o600); // where a default ACL of the directory replaces the umask
  }

  /** Descriptors of the directory from which the socket's name is removed at the end. */
  get directories(): readonly number[] {
    return this.#file?.directories ?? [];
  }

  close(): void {
    for (const socket of this.#clients) socket.destroy();
    const { listening } = this.#server;
    this.#server.close();
    this.#file?.close(listening);
  }

  #onClient(socket: Socket): void {
    socket.on('error', () => socket.destroy()); // 'close' follows
    socket.on('close', () => this.#clients.delete(socket));
    const [oldest] = this.#clients;
    if (this.#clients.size >= MAX_CLIENTS) oldest!.destroy();
    this.#clients.add(socket);
    let received = Buffer.alloc(0);
    let done = false;
    const { headMs, answerMs } = this.#options.limits ?? TIME_LIMITS;
    let timer = setTimeout(() => answer(408, 'GET'), headMs);
    socket.on('close', () => clearTimeout(timer));
    const answer = (reply: HttpAnswer | number, method: string): void => {
      done = true;
      received = Buffer.alloc(0);
      clearTimeout(timer);
      timer = setTimeout(() => socket.destroy(), answerMs);
      socket.end(answerBytes(typeof reply === 'number' ? statusAnswer(reply) : reply, method), () => {
        // What the client still sends is read: a socket closed with unread data resets the connection.
        clearTimeout(timer);
        timer = setTimeout(() => socket.destroy(), LINGER_MS);
      });
    };
    socket.on('end', () => {
      if (!done) socket.destroy();
    });
    socket.on('data', (chunk: Buffer) => {
      if (done) return;
      received = Buffer.concat([received, chunk]);
      const head = parseHead(received);
      if (head === undefined) return;
      if ('status' in head) return answer(head.status, 'GET');
      done = true;
      clearTimeout(timer);
      timer = setTimeout(() => socket.destroy(), answerMs);
      this.#answer(head).then(
        (reply) => {
          if (!socket.destroyed) answer(reply, head.method);
        },
        (error: Error) => {
          this.#options.onError(error);
          if (!socket.destroyed) answer(500, head.method);
        },
      );
    });
  }

  async #answer({ method, path, accept }: HttpRequest): Promise<HttpAnswer | number> {
    if (path !== '/' && path !== '/metrics') return 404;
    if (method !== 'GET' && method !== 'HEAD') return 405;
    if (path === '/') return HOME;
    const format = negotiate(accept);
    if (format === undefined) return 406;
    const body = await exposition(await this.#collect(), format);
    if (++this.#answers % COLLECT_EVERY === 0) setTimeout(collectGarbage, COLLECT_AFTER_MS);
    return { status: 200, type: CONTENT_TYPES[format], body };
  }

  #collect(): Promise<readonly Family[]> {
    const { answerMs } = this.#options.limits ?? TIME_LIMITS;
    // Half of the time that the client has: it is to get status 500.
    this.#families ??= within(this.#options.families(), answerMs / 2, 'no metrics').finally(() => {
      this.#families = undefined;
    });
    return this.#families;
  }
}

class PathTaken extends Error {}

/** Remove a socket that nobody listens on. @throws PathTaken for anything else at the path */
async function removeStale(path: string): Promise<void> {
  let isSocket: boolean;
  try {
    isSocket = lstatSync(path).isSocket();
  } catch {
    return; // there is nothing, or listen() reports the problem
  }
  if (!isSocket) throw new PathTaken('there is a file of this name, which is not a socket');
  const code = await answers(path);
  if (code === 'connected') throw new PathTaken('another process listens on this socket');
  if (code === 'ECONNREFUSED') unlinkSync(path);
}

function whyNot(to: ListenAddress, cause: unknown): string {
  if (cause instanceof PathTaken) return `${cause.message}; choose another path`;
  const { code } = cause as NodeJS.ErrnoException;
  if (code === 'EADDRINUSE' && to.kind === 'tcp')
    return 'another program listens on this port; choose another one';
  if (code === 'EADDRNOTAVAIL' && to.kind === 'tcp')
    return `this host does not have the address ${to.address}`;
  if (code === 'EACCES' && to.kind === 'tcp')
    return 'permission denied: low ports are for root on this host; choose one from 1024 on';
  return `cannot listen: ${strerrorOf(cause)}`;
}
