/**
 * The thread that gives the namespace its interface. One thread has to move into the namespace and cannot
 * come back: without privileges in the host's user namespace, the kernel refuses setns(2) to the host's
 * network namespace. The packet threads open host sockets, so they must stay.
 *
 *   NetnsHere     the main thread moves. No thread has to be booted. Every thread that opens host sockets
 *                 must have been started before, as a thread inherits the namespace of its creator. Child
 *                 processes start inside.
 *   NetnsThread   a thread made for this moves. Booting it takes 30 ms. Used where packet threads are still
 *                 to be started later (decision 018).
 */
import { programUrl } from '#runtime/program';
import { onFirstMessage, postToCreator, startThread, type Thread } from '#runtime/threads';

/** The part of a job that all front ends have in common. */
export interface SocketsInside {
  /** After set-up, stay in the namespace and make sockets there (workers/splice/socket-source.ts). */
  readonly sockets?: SharedArrayBuffer | undefined;
}

/**
 * One step is done. The thread has to continue with the next step, but may do other things between. `Made` is
 * what the front end's set-up reports about the TAP.
 */
export type NetnsStep<Made> =
  /** The namespace exists. The process owns the descriptor from now on. Only with target kind 'new'. */
  | { readonly kind: 'namespace'; readonly fd: number }
  /** The TAP exists: the engine may start while the rest is configured. */
  | { readonly kind: 'tap'; readonly made: Made }
  /** Everything is done. `notes`, for the log, say what failed and is not needed for traffic. */
  | { readonly kind: 'configured'; readonly notes: readonly string[] };

/** A front end's set-up. One thread runs it, step by step. */
export type NetnsSetup<Job, Made> = (job: Job) => Iterable<NetnsStep<Made>>;

export type NetnsMessage<Made> =
  | NetnsStep<Made>
  | { readonly kind: 'failed'; readonly message: string; readonly code?: string };

/** Set-up failed. `code` is the name of the errno if a system call failed. */
export class NetnsError extends Error {
  override readonly name = 'NetnsError';
  readonly code: string | undefined;
  constructor(message: string, code: string | undefined) {
    super(message);
    this.code = code;
  }
}

/**
 * Each step as it comes; all that are still to come reject when one fails. `failed` is for what happens after
 * the last one.
 */
export abstract class Netns<Job extends SocketsInside, Made> {
  readonly #namespace = Promise.withResolvers<number>();
  readonly #tap = Promise.withResolvers<Made>();
  readonly #configured = Promise.withResolvers<readonly string[]>();
  /** Descriptor of the new namespace; only with target kind 'new'. */
  readonly namespaceFd = this.#namespace.promise;
  readonly tap = this.#tap.promise;
  /** Gives what could not be done, for the log. */
  readonly configured = this.#configured.promise;
  readonly #failure = Promise.withResolvers<Error>();
  /**
   * Resolves when the thread fails after the last step, while it opens sockets in the namespace: the engine
   * gets no more of them.
   */
  readonly failed = this.#failure.promise;
  protected isConfigured = false;
  /** Whether the main thread, and so every child that it starts, is in the namespace. */
  abstract readonly mainInside: boolean;

  constructor() {
    // Code that awaits one step must not be ended by the unhandled rejection of another.
    for (const promise of [this.namespaceFd, this.tap, this.configured]) promise.catch(() => {});
  }

  /** Start the set-up; the promises report its progress. */
  abstract start(job: Job): void;

  protected tell(message: NetnsMessage<Made>): void {
    if (message.kind === 'namespace') this.#namespace.resolve(message.fd);
    else if (message.kind === 'tap') this.#tap.resolve(message.made);
    else if (message.kind === 'configured') {
      this.isConfigured = true;
      this.#configured.resolve(message.notes);
    } else this.fail(new NetnsError(message.message, message.code));
  }

  protected fail(error: Error): void {
    if (this.isConfigured) {
      this.#failure.resolve(
        new Error(`the thread that opens sockets in the namespace failed: ${error.message}`),
      );
      return;
    }
    this.#namespace.reject(error);
    this.#tap.reject(error);
    this.#configured.reject(error);
  }
}

/**
 * Set-up on the main thread. The event loop gets a turn after each step, so that code which awaits the step
 * runs at once.
 */
export class NetnsHere<Job extends SocketsInside, Made> extends Netns<Job, Made> {
  readonly mainInside = true;
  readonly #load: () => Promise<NetnsSetup<Job, Made>>;

  /** @param load  loads the module of the set-up */
  constructor(load: () => Promise<NetnsSetup<Job, Made>>) {
    super();
    this.#load = load;
  }

  start(job: Job): void {
    void this.#run(job);
  }

  async #run(job: Job): Promise<void> {
    try {
      const setUp = await this.#load();
      for (const step of setUp(job)) {
        this.tell(step);
        await new Promise((resolve) => setImmediate(resolve));
      }
      if (job.sockets !== undefined)
        await (await import('../../workers/splice/socket-source.ts')).serveSocketsBeside(job.sockets);
    } catch (error) {
      const { message, code } = error as NodeJS.ErrnoException;
      this.fail(new NetnsError(message, code));
    }
  }
}

/**
 * Set-up on a thread of its own. Nobody waits for the end of that thread: the process owns the descriptors as
 * soon as they are reported.
 */
export class NetnsThread<Job extends SocketsInside, Made> extends Netns<Job, Made> {
  readonly mainInside = false;
  readonly #worker: Thread;

  /** @param file  the thread's program, as programUrl() takes its name */
  constructor(file: string) {
    super();
    this.#worker = startThread(programUrl(file, `main/${file}`));
    this.#worker.onMessage((message: NetnsMessage<Made>) => this.tell(message));
    this.#worker.onError((error) => this.fail(error));
    this.#worker.onExit((code) => this.#exited(code));
  }

  start(job: Job): void {
    this.#worker.post(job);
  }

  #exited(code: number): void {
    // After the last step: there are no sockets to open, or the engine has stopped and needs no more of them.
    if (code === 0 && this.isConfigured) return;
    this.fail(new Error(`the namespace thread ended with code ${code}`));
  }
}

/** The program of that worker: receives one job, runs `setUp`, posts each step. */
export function runNetnsThread<Job extends SocketsInside, Made>(setUp: NetnsSetup<Job, Made>): void {
  const post = (message: NetnsMessage<Made>): void => postToCreator(message);
  onFirstMessage(async (job: Job) => {
    try {
      // Load modules before the last step is reported: nothing can be loaded in the sandbox
      // (host/sandbox.ts).
      const { checked } = await import('../../sys/error.ts');
      const { scopeAbstractSockets } = await import('../../sys/landlock.ts');
      const { keepCapabilities } = await import('../../sys/capability.ts');
      const source = job.sockets && (await import('../../workers/splice/socket-source.ts'));
      for (const step of setUp(job)) {
        if (step.kind === 'configured') {
          checked(keepCapabilities([]), 'capset', 'namespace thread');
          scopeAbstractSockets();
        }
        post(step);
      }
      // No other thread is in the namespace, so this one stays there until the process ends.
      if (job.sockets !== undefined) source!.serveSockets(job.sockets);
    } catch (error) {
      const { message, code } = error as NodeJS.ErrnoException;
      post({ kind: 'failed', message, ...(code !== undefined && { code }) });
    }
  });
}
