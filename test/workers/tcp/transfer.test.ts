// @vitest: beside
/**
 * Complete connections over lossy links. NETSIM_RUNS: number of random ones (default 300); NETSIM_SEED: the
 * first seed, e.g. the seed that a failure printed, with NETSIM_RUNS=1.
 */
import { describe, expect, it } from 'vitest';
import { Counter } from '../../../src/ring/counters.ts';
import type { LinkOptions } from '../../support/netsim/link.ts';
import { Prng } from '../../support/netsim/prng.ts';
import { runTransfer, type TransferOptions } from '../../support/netsim/transfer.ts';

const RUNS = Number(process.env.NETSIM_RUNS ?? 300);
const FIRST_SEED = Number(process.env.NETSIM_SEED ?? 1);

/** Random options of a connection, from a seed. */
function draw(seed: number): TransferOptions {
  const r = new Prng(seed ^ 0x5eed);
  const family = r.pick([4, 4, 6] as const);
  const vnet = r.chance(0.75);
  const mtu = r.pick([1280, 1500, 1500, 9000, 65520]);
  const bad = (): LinkOptions => ({
    loss: r.pick([0, 0, 0.001, 0.01, 0.05]),
    duplicate: r.pick([0, 0, 0.01, 0.1]),
    reorder: r.pick([0, 0, 0.02, 0.2]),
    reorderMs: r.pick([0.05, 0.5, 5]),
    delayMs: r.pick([0, 0.05, 1, 20]),
  });
  const size = (): number =>
    r.pick([0, 1, 2, 1460, 65536, r.int(0, 5000), r.int(0, 400_000), r.int(0, 1_500_000)]);
  const rcvBuf = r.pick([2000, 5000, 20_000, 65_535, 262_144, 1_048_576, 4_194_304]);
  const upBytes = size();
  const downBytes = size();
  // Slow readers get fewer bytes, so that no run exceeds the time limit.
  const slowReader = r.chance(0.2) && downBytes < 300_000;
  const slowPeer = r.chance(0.25);
  return {
    seed,
    family,
    vnet,
    mtu,
    upBytes,
    downBytes,
    connections: r.pick([1, 1, 1, 2, 5]),
    up: bad(),
    down: bad(),
    splitGso: r.chance(0.5),
    connectMs: r.pick([0, 0.5, 30]),
    socketQueue: r.pick([4000, 65_536, 262_144, 2_000_000]),
    ...(slowPeer
      ? { socketRoom: upBytes < 5000 ? 1 : r.pick([1000, 50_000]), drainPerMs: r.pick([200, 5000]) }
      : {}),
    peerClose: r.pick(['sent', 'eof'] as const),
    limitMs: 900_000,
    guest: {
      mss: r.pick(
        [undefined, undefined, null, 536, 1400, 9000, 65_495, 88].filter(
          (m) => m === null || m === undefined || m <= mtu - 40,
        ),
      ) as number | null,
      wscale: rcvBuf > 65_535 ? r.pick([7, 10, 14, null]) : r.pick([0, 7, null]),
      sack: r.chance(0.75),
      timestamps: r.chance(0.5),
      rcvBuf,
      tso: r.chance(0.6),
      delackMs: r.pick([0, 40]),
      closeWhen: 'sent',
      ...(slowReader ? { readPerMs: r.pick([100, 2000]) } : {}),
    },
    engine: {
      smallSlots: r.pick([512, 2048]),
      largeSlots: r.pick([65, 257]),
      roundMs: r.pick([0.001, 0.02, 0.3]),
      linkMs: r.pick([0, 0, 0.03, 2]),
      bigTcp: r.chance(0.5),
    },
  };
}

describe('TCP transfers', () => {
  it(`${RUNS} random connections: every byte arrives once and in order, all slots and flows are freed`, {
    timeout: 300_000,
  }, () => {
    for (let seed = FIRST_SEED; seed < FIRST_SEED + RUNS; seed++) {
      const options = draw(seed);
      // At most one side waits for the FIN of the other.
      const both = options.peerClose === 'eof' && options.guest?.closeWhen === 'eof';
      expect(both).toBe(false);
      const { guest } = options;
      if (guest && guest.mss === undefined) delete (guest as { mss?: unknown }).mss;
      const t = performance.now();
      runTransfer(options);
      if (process.env.NETSIM_VERBOSE) process.stderr.write(`${seed} ${Math.round(performance.now() - t)}\n`);
    }
  });

  describe.each([4, 6] as const)('IPv%d frames beyond 64 KiB', (family) => {
    const ETHER_AND_IP_BYTES = 14 + 65_535;
    const big = (o: Partial<TransferOptions>): TransferOptions => ({
      seed: 40,
      family,
      downBytes: 8_000_000,
      socketQueue: 2_000_000,
      guest: { mss: 1400, wscale: 10, sack: true, timestamps: true, rcvBuf: 4_194_304 },
      ...o,
      engine: { bigTcp: true, largeSlots: 257, ...o.engine },
    });

    it('the guest accepts them: sent', () => {
      const { frames, engine } = runTransfer(big({}));
      expect(frames.largest).toBeGreaterThan(3 * 65_536);
      expect(engine.counters[Counter.tcpRetransmits]).toBe(0);
    });

    it('the SYN of the guest was forwarded: not sent', () => {
      const { frames } = runTransfer(big({ engine: { guestTtl: 63 } }));
      expect(frames.largest).toBeLessThanOrEqual(ETHER_AND_IP_BYTES);
    });

    it('each is dropped by the guest: shorter frames within a second', () => {
      const { frames, longestStallMs } = runTransfer(big({ dropAboveBytes: ETHER_AND_IP_BYTES }));
      expect(frames.largest).toBeGreaterThan(ETHER_AND_IP_BYTES);
      expect(longestStallMs).toBeLessThan(1000);
    });

    it('refused by the TAP: sent at once in smaller frames', () => {
      const { frames, engine, longestStallMs } = runTransfer(big({ engine: { tapTakesBytes: 100_000 } }));
      expect(engine.counters[Counter.tapWriteErrors]).toBe(1);
      expect(frames.largest).toBeLessThanOrEqual(100_000);
      expect(engine.counters[Counter.tcpRetransmits]).toBe(0);
      expect(longestStallMs).toBeLessThan(10);
    });
  });
});
