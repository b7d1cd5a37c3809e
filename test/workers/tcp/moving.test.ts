// @vitest: beside
/**
 * Connections over lossy links whose flows move from lane to lane all the time: every byte arrives once and in
 * order. NETSIM_RUNS and NETSIM_SEED as in transfer.test.ts.
 */
import { describe, expect, it } from 'vitest';
import { Counter } from '../../../src/ring/counters.ts';
import { SimLanes } from '../../support/netsim/lanes.ts';
import type { LinkOptions } from '../../support/netsim/link.ts';
import { Prng } from '../../support/netsim/prng.ts';
import {
  runTransferThrough,
  type TransferOptions,
  type TransferResult,
} from '../../support/netsim/transfer.ts';

const RUNS = Number(process.env.NETSIM_RUNS ?? 20);
const FIRST_SEED = Number(process.env.NETSIM_SEED ?? 1);

interface Moves {
  readonly lanes?: number;
  readonly moveMs?: number;
  readonly ringDescriptors?: number;
  readonly otherQueue?: number;
  readonly spread?: number;
}

function run(o: TransferOptions, moves: Moves = {}): TransferResult<SimLanes> {
  const lane = { lanes: 2, moveMs: 1, ...moves };
  return runTransferThrough(o, (options, prng) => new SimLanes(options, { ...lane, prng }));
}

/** Random options of a connection and its moves, from a seed. */
function draw(seed: number): [TransferOptions, Moves] {
  const r = new Prng(seed ^ 0x3a7e5);
  const family = r.pick([4, 4, 6] as const);
  const mtu = r.pick([1280, 1500, 1500, 9000, 65_520]);
  const bad = (): LinkOptions => ({
    loss: r.pick([0, 0, 0.001, 0.01, 0.05]),
    duplicate: r.pick([0, 0, 0.01, 0.1]),
    reorder: r.pick([0, 0, 0.02, 0.2]),
    reorderMs: r.pick([0.05, 0.5, 5]),
    delayMs: r.pick([0, 0.05, 1, 20]),
  });
  const size = (): number => r.pick([1, r.int(0, 5000), 65_536, 400_000, r.int(0, 1_500_000), 1_500_000]);
  const rcvBuf = r.pick([2000, 5000, 20_000, 65_535, 262_144, 1_048_576, 4_194_304]);
  const upBytes = size();
  const downBytes = size();
  const slowReader = r.chance(0.25) && downBytes < 500_000;
  const slowPeer = r.chance(0.25);
  const mss = r.pick([undefined, undefined, null, 536, 1400]);
  const options: TransferOptions = {
    ...{ seed, family, mtu, upBytes, downBytes, vnet: r.chance(0.75) },
    connections: r.pick([1, 1, 2, 5]),
    up: bad(),
    down: bad(),
    splitGso: r.chance(0.5),
    connectMs: r.pick([0, 0.5, 30]),
    socketQueue: r.pick([4000, 65_536, 262_144, 2_000_000]),
    ...(slowPeer
      ? { socketRoom: upBytes < 5000 ? 1 : r.pick([1000, 50_000]), drainPerMs: r.pick([200, 5000]) }
      : {}),
    peerClose: r.pick(['sent', 'eof', 'eof', 'eof'] as const),
    limitMs: 900_000,
    guest: {
      ...(mss !== undefined && { mss }),
      wscale: rcvBuf > 65_535 ? r.pick([7, 10, 14, null]) : r.pick([0, 7, null]),
      sack: r.chance(0.75),
      timestamps: r.chance(0.5),
      ...{ rcvBuf, tso: r.chance(0.6), delackMs: r.pick([0, 40]), closeWhen: 'sent' },
      ...(slowReader ? { readPerMs: r.pick([100, 2000]) } : {}),
      ...(r.chance(0.1) ? { readFromMs: r.pick([50, 2000]) } : {}),
    },
    engine: { largeSlots: r.pick([129, 257]), roundMs: r.pick([0.001, 0.02, 0.3]), bigTcp: r.chance(0.5) },
  };
  const moves = {
    lanes: r.pick([2, 2, 3]),
    moveMs: r.pick([0.05, 0.2, 0.2, 1, 1, 5]),
    ringDescriptors: r.pick([16, 256]),
    otherQueue: r.pick([0, 0.01, 0.01, 0.2]),
    spread: r.pick([0, 0.01, 0.2]),
  };
  return [options, moves];
}

const LOSS: LinkOptions = { loss: 0.02, delayMs: 2 };

describe('TCP flows that move between lanes', () => {
  describe.each([
    ['timestamps, SACK, window scaling', { timestamps: true, sack: true, wscale: 7 }],
    ['none of them', { timestamps: false, sack: false, wscale: null }],
  ] as const)('options: %s', (_name, guest) => {
    it.each<[string, number, Omit<TransferOptions, 'seed'>]>([
      ['download', 50, { downBytes: 2_000_000 }],
      ['download, half-closed by the guest from the beginning', 50, { downBytes: 2_000_000, upBytes: 10 }],
      ['download, frames lost', 20, { downBytes: 2_000_000, down: LOSS }],
      ['download, acknowledgements lost', 20, { downBytes: 2_000_000, up: LOSS }],
      [
        'download, the guest does not read for two seconds, then slowly',
        100,
        { downBytes: 400_000, guest: { rcvBuf: 20_000, readFromMs: 2000, readPerMs: 1000 } },
      ],
      ['upload', 20, { upBytes: 2_000_000 }],
      ['upload, frames lost', 3, { upBytes: 1_000_000, up: LOSS }],
      ['upload to a peer that reads slowly', 1, { upBytes: 1_000_000, socketRoom: 20_000, drainPerMs: 1000 }],
      [
        'both ways, three connections',
        20,
        { upBytes: 500_000, downBytes: 500_000, connections: 3, up: LOSS, down: LOSS },
      ],
    ])('%s', (what, least, o) => {
      for (let seed = 1; seed <= 3; seed++) {
        const delay = { delayMs: 2 };
        const all: TransferOptions = {
          ...{ up: delay, down: delay, peerClose: 'eof', ...o, seed },
          guest: { rcvBuf: 65_535, ...guest, ...o.guest },
        };
        const { engine } = run(all, { moveMs: 0.5, spread: 0, lanes: seed === 3 ? 3 : 2 });
        if (process.env.NETSIM_VERBOSE) process.stderr.write(`${what}: ${engine.moved}\n`);
        expect(engine.moved, `seed ${seed}`).toBeGreaterThanOrEqual(least);
      }
    });
  });

  it('a move costs no retransmission, and no pause, where nothing is lost', () => {
    const o: TransferOptions = {
      ...{ seed: 9, downBytes: 8_000_000, socketQueue: 1_000_000, peerClose: 'eof' },
      ...{ up: { delayMs: 2 }, down: { delayMs: 2 } },
      guest: { timestamps: true, wscale: 7, rcvBuf: 131_072 },
    };
    const { engine, longestStallMs, guests } = run(o, { moveMs: 0.2, otherQueue: 0, spread: 0 });
    expect(engine.moved).toBeGreaterThan(50);
    expect(engine.counters[Counter.tcpRetransmits]).toBe(0);
    expect(guests[0]!.retransmits).toBe(0);
    expect(longestStallMs).toBeLessThan(5);
  });

  it(`${RUNS} random connections: every byte arrives once and in order, all slots and flows are freed`, {
    timeout: 300_000,
  }, () => {
    let moved = 0;
    let given = 0;
    for (let seed = FIRST_SEED; seed < FIRST_SEED + RUNS; seed++) {
      const [options, moves] = draw(seed);
      const t = performance.now();
      const { engine } = run(options, moves);
      moved += engine.moved;
      given += engine.given;
      if (process.env.NETSIM_VERBOSE)
        process.stderr.write(`${seed} ${Math.round(performance.now() - t)} ms, ${engine.moved} moves\n`);
    }
    console.log(`${RUNS} runs: ${given} requests, ${moved} moves of flows`);
    expect(moved).toBeGreaterThan(20 * RUNS);
  });
});
