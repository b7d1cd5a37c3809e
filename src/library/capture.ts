/**
 * A capture that begins while the network runs. The engine is in a sandbox and can open no file, so it sends the
 * frames over a connection of the API socket (`start_capture`), and this process writes the file.
 */
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Engine } from './engine.ts';
import { BucatiniError } from './error.ts';

/** What to capture, and where to. */
export interface CaptureOptions {
  /** A file for Wireshark, in the format pcapng; an old one is replaced. Default: the frames are in `stream`. */
  readonly file?: string | undefined;
  /** Which frames, in the language of tcpdump: `tcp port 443 and not dropped`. Default: all. */
  readonly filter?: string | undefined;
  /** The most bytes that are kept of a frame. Default: all. */
  readonly snaplen?: number | undefined;
}

/** A capture that runs. */
export class Capture implements AsyncDisposable {
  /** The capture in the format pcapng, as it comes; `null` if it goes to a file. */
  readonly stream: Readable | null;
  readonly #engine: Engine;
  readonly #ended: Promise<void>;
  #stopped: Promise<void> | undefined;
  #isOver = false;

  /** @internal */
  constructor(engine: Engine, stream: Readable, written: Promise<void> | undefined) {
    this.#engine = engine;
    this.stream = written === undefined ? stream : null;
    const closed = new Promise<void>((resolve) => stream.once('close', () => resolve()));
    this.#ended = (written ?? closed).then(
      () => this.#over(),
      (error: Error) => {
        this.#over();
        throw new BucatiniError('ended', `capture: ${error.message}`, { cause: error });
      },
    );
    this.#ended.catch(() => {});
  }

  #over(): void {
    this.#isOver = true;
  }

  /**
   * End the capture. With a file, resolves when the file is complete. Later calls wait for the same end.
   * @throws BucatiniError if the file could not be written, or the engine ended before the capture
   */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    if (!this.#isOver) {
      await this.#engine.ask('stop_capture').catch((error: BucatiniError) => {
        // It has just ended by itself.
        if (error.code !== 'refused' && error.code !== 'ended') throw error;
      });
    }
    if (this.stream === null) await this.#ended;
  }

  /** The same as stop(), for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

/**
 * Begin a capture.
 * @throws BucatiniError
 * @internal
 */
export async function startCapture(engine: Engine, options: CaptureOptions): Promise<Capture> {
  const { file, filter, snaplen } = options;
  const request = { ...(filter !== undefined && { filter }), ...(snaplen !== undefined && { snaplen }) };
  if (file === undefined)
    return new Capture(engine, await engine.stream('start_capture', request), undefined);
  const target = createWriteStream(file);
  try {
    await once(target, 'open');
  } catch (error) {
    throw new BucatiniError('argument', `capture: ${(error as Error).message}`, { cause: error });
  }
  try {
    const stream = await engine.stream('start_capture', request);
    return new Capture(engine, stream, pipeline(stream, target));
  } catch (error) {
    target.destroy();
    throw error;
  }
}
