/** A capture without an engine: packet threads are FrameCaptures of the calling thread. */
import { COUNTER_WORDS, Counter } from '../../src/ring/counters.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import type { CaptureSink, SinkFile } from '../../src/workers/capture/capture-sink.ts';
import { Capture, type CapturePlan } from '../../src/workers/capture/capture-writer.ts';
import { FrameCapture } from '../../src/workers/capture/frame-capture.ts';

export interface RigOptions extends Partial<CapturePlan> {
  readonly threads?: number;
  readonly areLanes?: boolean;
}

export const POOL_BYTES = 256 * 1024;

export class CaptureRig {
  readonly pool = new NativeBuffer(POOL_BYTES);
  readonly counters = new Float64Array(COUNTER_WORDS);
  readonly capture: Capture;
  readonly threads: readonly FrameCapture[];
  readonly warned: string[] = [];
  #sent = 0;

  constructor(sink: CaptureSink & { begin?(file: SinkFile): void }, options: RigOptions = {}) {
    const { threads = 1, areLanes = false, ...plan } = options;
    this.capture = new Capture(
      {
        ...{ format: 'pcapng', snapBytes: 262_144, application: 'test 1', interfaceName: 't0' },
        ...{ description: 'of a test', ...plan },
      },
      {
        ...{ threads, areLanes },
        counters: () => ({ framesFromGuest: this.#sent, 'drop.short': 3 }),
        mac: () => undefined,
        warn: (text) => this.warned.push(text),
      },
      sink,
    );
    sink.begin?.(this.capture);
    this.threads = Array.from(
      { length: threads },
      (_, t) => new FrameCapture(this.capture.task, t, this.pool.u8, this.pool.address, this.counters),
    );
    this.capture.start();
  }

  get lost(): number {
    return this.counters[Counter.pcapLost]!;
  }

  /** Capture a frame of the guest, of so many bytes, which begin with its number. */
  send(bytes: number, thread = 0, cause = 0): void {
    this.pool.dv.setUint32(0, this.#sent++);
    this.threads[thread]!.fromGuest(0, Math.min(bytes, 100), 100, Math.max(0, bytes - 100), cause);
  }
}
