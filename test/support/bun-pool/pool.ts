/** A pool of vitest whose test processes run on Bun. vitest's main process stays on Node. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { PoolOptions, PoolRunnerInitializer, PoolWorker } from 'vitest/node';
import { decode, encode } from './messages.ts';

const PROGRAM = fileURLToPath(new URL('./worker.ts', import.meta.url));

/** After this time a test process that does not obey SIGTERM is killed. */
const GRACE_MS = 500;

/** @param bun  Bun's executable */
export const bunPool = (bun: string): PoolRunnerInitializer => ({
  name: 'bun',
  createPoolWorker: (options) => new BunProcess(bun, options),
});

/** One test process. */
class BunProcess implements PoolWorker {
  readonly name = 'bun';
  readonly #bun: string;
  readonly #env: NodeJS.ProcessEnv;
  #child: ChildProcess | undefined;

  constructor(bun: string, { env }: PoolOptions) {
    this.#bun = bun;
    const { NODE_OPTIONS: _node, BUN_OPTIONS: _bun, ...kept } = env;
    // Bun would write compiled sources to the user's cache directory.
    this.#env = { ...kept, BUN_RUNTIME_TRANSPILER_CACHE_PATH: '0' };
  }

  async start(): Promise<void> {
    this.#child = fork(PROGRAM, [], {
      execPath: this.#bun,
      execArgv: ['--no-install', '--no-env-file'],
      env: this.#env,
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'json',
    });
  }

  async stop(): Promise<void> {
    const child = this.#running();
    if (child.exitCode === null && child.signalCode === null) {
      const timer = setTimeout(() => child.kill('SIGKILL'), GRACE_MS);
      const exited = once(child, 'exit');
      child.kill();
      await exited;
      clearTimeout(timer);
    }
    this.#child = undefined;
  }

  send(message: unknown): void {
    this.#running().send(encode(message));
  }

  deserialize(data: unknown): unknown {
    return decode(data as string);
  }

  on(event: string, listener: (...args: never[]) => void): void {
    this.#running().on(event, listener as () => void);
  }

  off(event: string, listener: (...args: never[]) => void): void {
    this.#running().off(event, listener as () => void);
  }

  #running(): ChildProcess {
    if (this.#child === undefined) throw new Error('the test process on Bun does not run');
    return this.#child;
  }
}
