/**
 * The namespace thread, seen from the main thread. It is spawned before the command line is read, as it takes 30 ms to boot, and
 * then told what to do. It is not waited for to end: its descriptors are ours from the moment they are told.
 */
import { Worker } from 'node:worker_threads';
import type { NetnsTap, NetnsTarget } from './netns-setup.ts';
import type { Settings } from './options.ts';

export interface NetnsJob {
  readonly settings: Settings;
  readonly target: NetnsTarget;
  /** Once the namespace is set up, stay in it and make sockets there (workers/splice/socket-source.ts). */
  readonly sockets?: SharedArrayBuffer | undefined;
}

export type NetnsMessage =
  | { readonly kind: 'namespace'; readonly fd: number }
  | { readonly kind: 'tap'; readonly made: NetnsTap }
  | { readonly kind: 'configured'; readonly notes: readonly string[] }
  | { readonly kind: 'failed'; readonly message: string; readonly code?: string };

/** Set-up failed; `code` is the errno's name where a system call said no. */
export class NetnsError extends Error {
  override readonly name = 'NetnsError';
  readonly code: string | undefined;
  constructor(message: string, code: string | undefined) {
    super(message);
    this.code = code;
  }
}

/** Each step as it comes; all reject when one fails. */
export class NetnsThread {
  readonly #worker = new Worker(workerUrl('netns-worker'));
  readonly #namespace = Promise.withResolvers<number>();
  readonly #tap = Promise.withResolvers<NetnsTap>();
  readonly #configured = Promise.withResolvers<readonly string[]>();
  /** Descriptor of the new namespace; only with target kind 'new'. */
  readonly namespaceFd = this.#namespace.promise;
  readonly tap = this.#tap.promise;
  /** Gives what could not be done, for the log. */
  readonly configured = this.#configured.promise;

  constructor() {
    // Whoever awaits one step must not be killed by another's rejection.
    for (const promise of [this.namespaceFd, this.tap, this.configured]) promise.catch(() => {});
    this.#worker.on('message', (message: NetnsMessage) => {
      if (message.kind === 'namespace') this.#namespace.resolve(message.fd);
      else if (message.kind === 'tap') this.#tap.resolve(message.made);
      else if (message.kind === 'configured') this.#configured.resolve(message.notes);
      else this.#fail(new NetnsError(message.message, message.code));
    });
    this.#worker.on('error', (error) => this.#fail(error as Error));
    this.#worker.on('exit', (code) => this.#fail(new Error(`the namespace thread ended with code ${code}`)));
  }

  start(job: NetnsJob): void {
    this.#worker.postMessage(job);
  }

  #fail(error: Error): void {
    this.#namespace.reject(error);
    this.#tap.reject(error);
    this.#configured.reject(error);
  }
}

/** A worker's file beside this one: .ts when run from source, .js when compiled. */
export function workerUrl(name: string): URL {
  return new URL(`./${name}${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url);
}
