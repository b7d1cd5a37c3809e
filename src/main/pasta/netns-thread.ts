/** The namespace thread of `pasta`, seen from the main thread; ../netns.ts is that of `bucatini`. */
import { Worker } from 'node:worker_threads';
import { NetnsError, workerUrl } from '../netns.ts';
import type { PastaJob, PastaTap } from './netns-setup.ts';

export type PastaNetnsMessage =
  | { readonly kind: 'namespace'; readonly fd: number }
  | { readonly kind: 'tap'; readonly made: PastaTap }
  | { readonly kind: 'configured'; readonly notes: readonly string[] }
  | { readonly kind: 'failed'; readonly message: string; readonly code?: string };

/** Each step as it comes; all reject when one fails. */
export class PastaNetns {
  readonly #worker = new Worker(workerUrl('pasta/netns-worker'));
  readonly #namespace = Promise.withResolvers<number>();
  readonly #tap = Promise.withResolvers<PastaTap>();
  readonly #configured = Promise.withResolvers<readonly string[]>();
  /** Descriptor of the new namespace; only with target kind 'new'. */
  readonly namespaceFd = this.#namespace.promise;
  readonly tap = this.#tap.promise;
  /** Gives what could not be done, for the log. */
  readonly configured = this.#configured.promise;

  constructor() {
    // Whoever awaits one step must not be killed by another's rejection.
    for (const promise of [this.namespaceFd, this.tap, this.configured]) promise.catch(() => {});
    this.#worker.on('message', (message: PastaNetnsMessage) => {
      if (message.kind === 'namespace') this.#namespace.resolve(message.fd);
      else if (message.kind === 'tap') this.#tap.resolve(message.made);
      else if (message.kind === 'configured') this.#configured.resolve(message.notes);
      else this.#fail(new NetnsError(message.message, message.code));
    });
    this.#worker.on('error', (error) => this.#fail(error as Error));
    this.#worker.on('exit', (code) => this.#fail(new Error(`the namespace thread ended with code ${code}`)));
  }

  start(job: PastaJob): void {
    this.#worker.postMessage(job);
  }

  #fail(error: Error): void {
    this.#namespace.reject(error);
    this.#tap.reject(error);
    this.#configured.reject(error);
  }
}
