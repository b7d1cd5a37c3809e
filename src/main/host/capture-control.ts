// bundle: rare
/**
 * Captures of a front end: that of --pcap, from the start, and those that API clients ask for, as a stream
 * over the API's connection. In the sandbox no file can be opened, so a client writes the file itself.
 */
import type { Socket } from 'node:net';
import { dup3 } from '../../sys/io.ts';
import { addressOf, copyBytes } from '../../sys/memory.ts';
import type { CaptureSink, SinkFile, SinkTotals, Taken } from '../../workers/capture/capture-sink.ts';
import type { CapturePlan } from '../../workers/capture/capture-writer.ts';
import type { CaptureStart, EngineHandle } from '../../workers/engine.ts';
import type { CaptureOptions } from '../cli/capture-options.ts';
import {
  type CaptureAbout,
  capturePlan,
  captureStart,
  captureTo,
  parseFilter,
  takeStandardOutput,
} from './capture-file.ts';

/** What the captures need of an engine. */
export type CaptureEngine = Pick<EngineHandle, 'startCapture' | 'stopCapture' | 'dumpCapture'>;

export class CaptureControl {
  readonly #options: CaptureOptions;
  readonly #filter: CapturePlan['filter'];
  readonly #output: number | undefined;
  #about: CaptureAbout | undefined;
  #engine: CaptureEngine | undefined;

  /**
   * @param toOutput  the file is standard output, which is taken here
   * @throws UsageError
   */
  constructor(options: CaptureOptions, toOutput = false) {
    this.#options = options;
    this.#filter = parseFilter(options.pcapFilter, '--pcap-filter');
    this.#output = toOutput ? takeStandardOutput() : undefined;
  }

  /** Make standard output what it was: this process is about to execute our program again. */
  giveOutputBack(): void {
    if (this.#output !== undefined) dup3(this.#output, 1, 0);
  }

  /** The capture of --pcap. */
  atStart(about: CaptureAbout): CaptureStart | undefined {
    this.#about = about;
    const { pcap } = this.#options;
    if (pcap === undefined) return undefined;
    return captureStart({ ...this.#options, pcap }, about, this.#filter, this.#output);
  }

  /**
   * The engine runs.
   * @param tell  prints a line about frames that were written on SIGUSR2
   */
  started(engine: CaptureEngine, tell: (text: string) => void): void {
    this.#engine = engine;
    if (this.#options.pcapRing === undefined) return;
    // Signals that come while frames are written are one: the main thread has other work.
    let isPending = false;
    process.on('SIGUSR2', () => {
      if (isPending) return;
      isPending = true;
      setImmediate(() => {
        isPending = false;
        tell(`--pcap-ring: ${engine.dumpCapture() ?? 'the capture has ended'}`);
      });
    });
  }

  /**
   * Capture to a client.
   * @param filter   expression; undefined: all frames
   * @param snaplen  most bytes of a frame; undefined: all
   * @throws UsageError about the filter, Error with one line: a capture runs already, the client sends no
   *   more
   */
  stream(client: Socket, filter: string | undefined, snaplen: number | undefined): void {
    if (client.readableEnded) throw new Error('keep the connection open: its end is the end of the capture');
    const engine = this.#engine!;
    const plan = capturePlan(this.#about!, 'pcapng', parseFilter(filter, 'filter'), snaplen);
    const sink = new ClientSink(client);
    engine.startCapture(captureTo(sink, plan));
    // Whether a client that has shut down its half still reads is seen only when something is written to it.
    client.once('end', () => void engine.stopCapture());
    client.once('close', () => {
      sink.hasFailed = true;
      void engine.stopCapture();
    });
  }

  /** End the capture that runs. @returns whether one did */
  stop(): Promise<boolean> {
    return this.#engine!.stopCapture();
  }

  /** Write out the frames of --pcap-ring. @returns undefined without a capture */
  dump(): string | undefined {
    return this.#options.pcapRing === undefined ? undefined : this.#engine!.dumpCapture();
  }
}

/** What may wait for a client: beyond that frames stay in the rings, and are lost once these are full. */
const MAX_WAITING_BYTES = 1024 * 1024;

/** An API client that gets a capture as a stream. */
class ClientSink implements CaptureSink {
  readonly name = 'start_capture';
  readonly waitMs = 0;
  readonly failure = undefined;
  /** The client has gone. */
  hasFailed = false;
  readonly #client: Socket;
  #start: readonly [number, number] = [0, 0];
  #before: SinkTotals = { received: 0, drops: 0, accepted: 0, lost: 0 };

  constructor(client: Socket) {
    this.#client = client;
  }

  begin(file: SinkFile): void {
    this.#start = file.now();
    this.#before = file.totals();
    this.#client.write(file.header());
  }

  take(file: SinkFile, address: number, starts: readonly number[], from: number): Taken {
    if (this.#client.writableLength > MAX_WAITING_BYTES) return { records: 0, bytes: 0 };
    const end = starts.length - 1;
    const bytes = new Uint8Array(starts[end]! - starts[from]!);
    copyBytes(addressOf(bytes), address + starts[from]!, bytes.length);
    this.#client.write(bytes);
    file.wrote(end - from);
    return { records: end - from, bytes: 0 };
  }

  end(file: SinkFile): void {
    if (this.hasFailed) return;
    this.#client.end(file.statistics(this.#start, this.#before, true));
  }
}
