/**
 * The process of one network: `bucatini run` with a shell inside that only waits.
 *
 *   stdin    never written. The shell inside reads it: its end, also because this process was killed, ends the
 *            shell, and with it the engine and all programs inside
 *   stdout   the shell inside writes one line: `bucatini run` starts it when the network is ready
 *   stderr   what the engine logs; the last line says why a start failed
 *
 * A network that nobody closes does not keep this process from ending.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { unlinkSync } from 'node:fs';
import { createConnection } from 'node:net';
import { PassThrough, pipeline, type Readable } from 'node:stream';
import { ApiError, type ApiRequest, askApi } from '../main/api/client.ts';
import { findSockets } from '../main/api/socket-directory.ts';
import { BucatiniError } from './error.ts';
import { LAUNCHER } from './process.ts';

const WAITS = 'echo; while read -r _; do :; done';
/** How long the engine may take to end by itself. */
const END_LIMIT_MS = 5000;
/** An answer that is an error begins with `{`. */
const BRACE = 0x7b;
/** Test machines may be very busy. */
const ANSWER_LIMIT_MS = 30_000;
/** A message that is longer is cut. */
const MAX_LINE = 4096;

/** A handle that keeps the event loop alive, or not. Streams of child processes have these methods too. */
type Handle = { ref?(): void; unref?(): void } | null;

/** The engine of one network. */
export class Engine {
  /** Resolves when the process has ended; with an error, unless end() or kill() was called before. */
  readonly ended: Promise<BucatiniError | undefined>;
  readonly #child: ChildProcess;
  readonly #ready: Promise<void>;
  readonly #onLog: ((line: string) => void) | undefined;
  #socket: string | undefined;
  #lastLine = '';
  #closing = false;
  #over = false;

  /** @param args  options of `bucatini run` */
  constructor(args: readonly string[], onLog: ((line: string) => void) | undefined) {
    this.#onLog = onLog;
    try {
      this.#child = spawn(
        LAUNCHER,
        ['run', ...args, '--api-socket=auto', '--', '/bin/sh', '-c', WAITS],
        // Signals that a terminal sends to its foreground processes reach this process alone.
        { stdio: ['pipe', 'pipe', 'pipe'], detached: true },
      );
    } catch (error) {
      throw new BucatiniError('start', (error as Error).message, { cause: error });
    }
    const { stdin, stdout, stderr } = this.#child;
    stdin?.on('error', () => {});
    if (stderr !== null) this.#readLog(stderr);
    this.ended = new Promise((resolve) => {
      const over = (error: BucatiniError | undefined): void => {
        this.#over = true;
        this.#removeSocket();
        resolve(this.#closing ? undefined : error);
      };
      this.#child.once('error', (error) =>
        over(
          new BucatiniError('start', `${LAUNCHER} cannot be executed: ${error.message}`, { cause: error }),
        ),
      );
      this.#child.once('close', (status, signal) => {
        const how = signal === null ? `status ${status}` : `signal ${signal}`;
        over(new BucatiniError('ended', this.#lastLine || `the network has ended (${how})`));
      });
    });
    this.#ready = new Promise((resolve) => stdout?.once('data', () => resolve()));
  }

  /** Process id of the engine. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /**
   * Wait until the network is ready.
   * @throws BucatiniError
   */
  async ready(): Promise<void> {
    const error = await Promise.race([
      this.#ready,
      this.ended.then((error) => error ?? new BucatiniError('ended', 'the network has been closed')),
    ]);
    if (error !== undefined) throw new BucatiniError('start', error.message, { cause: error.cause });
    this.#socket = findSockets().find(({ pid, program }) => pid === this.pid && program === 'run')?.path;
    if (this.#socket === undefined) throw new BucatiniError('start', 'the API socket has been removed');
    for (const handle of this.#handles()) handle?.unref?.();
  }

  /**
   * Make a request to the API socket.
   * @throws BucatiniError
   */
  async ask(request: ApiRequest, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    await this.#check();
    try {
      return await askApi(this.#socket!, request, args, { timeoutMs: ANSWER_LIMIT_MS });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (['gone', 'closed'].includes(error.kind) || this.#closing)
        throw new BucatiniError('ended', this.#lastLine || 'the network has ended', { cause: error });
      const code = error.kind === 'timeout' ? 'timeout' : 'refused';
      throw new BucatiniError(code, error.message.replace(/^bad request: /, ''), { cause: error });
    }
  }

  /**
   * Make a request whose answer is a stream, until the connection ends.
   * @returns what comes over the connection, which does not keep this process from ending
   * @throws BucatiniError
   */
  async stream(request: 'start_capture', args: Readonly<Record<string, unknown>>): Promise<Readable> {
    await this.#check();
    const socket = createConnection(this.#socket!);
    socket.on('error', () => {}); // 'close' follows
    const first = await new Promise<Buffer | undefined>((resolve) => {
      socket.once('data', resolve);
      socket.once('close', () => resolve(undefined));
      socket.write(JSON.stringify({ execute: request, arguments: args }));
    });
    if (first === undefined) throw new BucatiniError('ended', 'the network has ended');
    if (first[0] !== BRACE) {
      // Another stream: one that has been read from does not begin to flow for its next reader.
      const stream = new PassThrough();
      stream.on('error', () => {}); // 'close' follows
      stream.write(first);
      pipeline(socket.unref(), stream, () => {});
      return stream;
    }
    socket.destroy();
    const { error } = JSON.parse(first.toString('utf8')) as { readonly error?: { readonly desc?: string } };
    throw new BucatiniError('refused', (error?.desc ?? 'no answer').replace(/^bad request: /, ''));
  }

  async #check(): Promise<void> {
    if (this.#closing) throw new BucatiniError('ended', 'the network has been closed');
    if (this.#over) throw (await this.ended) ?? new BucatiniError('ended', 'the network has ended');
  }

  /** End the engine and all programs inside, and wait for that. */
  async end(): Promise<void> {
    this.#closing = true;
    if (this.#over) return;
    this.ref();
    this.#child.stdin?.destroy();
    // In its start the engine does not read: a signal ends it there.
    if (this.#socket === undefined) this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.kill(), END_LIMIT_MS);
    await this.ended;
    clearTimeout(timer);
  }

  /** End the engine and all programs inside at once, without waiting. */
  kill(): void {
    this.#closing = true;
    if (this.#over) return;
    this.#child.kill('SIGKILL');
    this.#removeSocket();
  }

  /** From now on this process does not end before the engine. */
  ref(): void {
    for (const handle of this.#handles()) handle?.ref?.();
  }

  #removeSocket(): void {
    if (this.#socket === undefined) return;
    try {
      unlinkSync(this.#socket);
    } catch {
      // The engine has removed it.
    }
  }

  #handles(): readonly Handle[] {
    const { stdin, stdout, stderr } = this.#child;
    return [this.#child, stdin, stdout, stderr] as unknown as readonly Handle[];
  }

  #readLog(stream: Readable): void {
    let rest = '';
    stream.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop()!.slice(0, MAX_LINE);
      for (const line of lines) {
        const [, message] = /^bucatini: (.*)$/.exec(line) ?? [];
        if (message === undefined) continue;
        this.#lastLine = message.slice(0, MAX_LINE);
        this.#onLog?.(message);
      }
    });
  }
}
