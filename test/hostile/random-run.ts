/** Sends a number of random hostile frames through a path, and checks its state afterwards. */
import { expect } from 'vitest';
import { Counter } from '../../src/ring/counters.ts';
import { Prng } from '../support/netsim/prng.ts';
import { corpus } from './corpus.ts';
import { LiveTcp } from './live-tcp.ts';
import { Mutator } from './mutator.ts';
import { HostilePath, type PathOptions } from './path.ts';
import { Verifier } from './verify.ts';

/** Number of frames for the whole engine (engine.test.ts). */
export const ENGINE_FRAMES = 900_000;
/** HOSTILE_FRAMES: total number of frames, by hand 10 million. */
export const ALL_FRAMES = Number(process.env.HOSTILE_FRAMES ?? 4_000_000);
export const PATH_FRAMES = Math.max(300_000, ALL_FRAMES - ENGINE_FRAMES);
export const SEED = Number(process.env.HOSTILE_SEED ?? 20_260_101);

export const NOTHING_LEFT = {
  readerSmall: 0,
  readerLarge: 0,
  hostSmall: 0,
  hostLarge: 0,
  sockets: 0,
  tcp: 0,
};
const RSS_LIMIT_BYTES = 48 * 2 ** 20;

/** @returns drops by cause */
export function randomRun(
  name: string,
  frames: number,
  options: Omit<PathOptions, 'prng' | 'onFrame'>,
): Record<string, number> {
  const prng = new Prng(SEED);
  const vnet = options.vnet ?? true;
  const verifier = new Verifier(vnet, 1500);
  const live = new LiveTcp(prng);
  const path = new HostilePath({
    ...options,
    prng,
    onFrame: (b, at, bytes) => {
      verifier.check(b, at, bytes);
      if (vnet) live.hear(b, at, bytes);
    },
  });
  const mutator = new Mutator(corpus(), prng);
  const skip = vnet ? 0 : 12;
  let rssWarm = 0;
  const started = performance.now();
  try {
    for (let i = 0; i < frames; i++) {
      const guest = path.guest;
      const bytes =
        (i & 3) === 0 && vnet ? live.next(guest.out.u8, guest.at) : mutator.next(guest.out.u8, guest.at);
      // No frames of 0 bytes: on a socket they mean end of stream, and a TAP has none.
      if (bytes <= skip) continue;
      guest.add(bytes, skip);
      if (guest.full) path.feed(1);
      if (i === Math.floor(frames / 3)) rssWarm = process.memoryUsage.rss();
    }
    path.feed(1);
    const seconds = (performance.now() - started) / 1000;
    const grown = process.memoryUsage.rss() - rssWarm;
    process.stdout.write(
      `hostile, ${name}: ${frames} frames, ${Math.round(frames / seconds)} a second, ${path.framesToGuest} answers, ` +
        `${path.dropped} dropped, ${path.counters[Counter.handedOver]} handed over, ${path.counters[Counter.handOverFull]} full, ${live.established} handshakes, RSS +${(grown / 2 ** 20).toFixed(1)} MiB\n`,
    );
    expect(grown).toBeLessThan(RSS_LIMIT_BYTES);
    if (vnet) expect(live.established).toBeGreaterThan(frames / 2000);
    if (options.give) {
      path.checkFlows();
      process.stdout.write(
        `hostile, ${name}: ${path.bucketsGiven} buckets given, ${path.flowsChecked} flows checked, ${path.counters[Counter.flowsMoved]} moved\n`,
      );
      expect(path.bucketsGiven).toBeGreaterThan(0);
      expect(path.counters[Counter.flowsMoved]).toBeGreaterThan(20);
    }
    const handedOver = path.counters[Counter.handedOver]!;
    if (options.threads.kind === 'lanes') expect(handedOver).toBeGreaterThan(frames / 4);
    else expect(handedOver).toBe(0);
    const drops = path.drops();
    path.windDown();
    expect(path.leftovers()).toEqual(NOTHING_LEFT);
    return drops;
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    const count = path.counters[Counter.framesFromGuest];
    throw new Error(`HOSTILE_SEED=${SEED}, ${name}, after ${count} frames: ${text}`, { cause });
  } finally {
    path.close();
  }
}
