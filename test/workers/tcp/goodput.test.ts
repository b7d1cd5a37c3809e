// @vitest: beside
/**
 * Goodput over a link of 2 ms round-trip time, in MB per virtual second: loss x window of the guest, in each
 * direction. A change that makes a cell worse shows in the diff of the snapshot; an improvement is recorded
 * with `vitest -u`.
 */
import { describe, expect, it } from 'vitest';
import { runTransfer, type TransferOptions } from '../../support/netsim/transfer.ts';

const LOSSES = [0, 0.001, 0.01, 0.03] as const;
const WINDOWS = [16_384, 65_535, 262_144, 1_048_576] as const;
const SEEDS = [1, 2, 3, 4, 5] as const;
const BYTES = 3_000_000;

/** The median over the seeds, as a single seed may be an outlier. */
function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}

function grid(name: string, base: (loss: number, window: number) => Omit<TransferOptions, 'seed'>): string {
  const rows = LOSSES.map((loss) => {
    const cells = WINDOWS.map((window) => {
      const runs = SEEDS.map(
        (seed) => runTransfer({ seed, limitMs: 600_000, ...base(loss, window) }).goodput / 1e6,
      );
      return `${Number(median(runs).toPrecision(2))}`.padStart(9);
    });
    return `${(loss * 100).toFixed(1).padStart(4)} %${cells.join('')}`;
  });
  return [`${name}: MB/s`, `  loss${WINDOWS.map((w) => `${w}`.padStart(9)).join('')}`, ...rows].join('\n');
}

const wscale = (window: number): number | null => (window > 65_535 ? 7 : null);

describe('TCP goodput over 2 ms', () => {
  it('to the guest, frames of one MSS', { timeout: 120_000 }, () => {
    expect(
      grid('to guest', (loss, window) => ({
        vnet: false,
        downBytes: BYTES,
        socketQueue: 4_000_000,
        up: { delayMs: 1 },
        down: { delayMs: 1, loss },
        guest: { rcvBuf: window, wscale: wscale(window) },
      })),
    ).toMatchSnapshot();
  });

  it('to the guest, large frames whose segments are lost one by one', { timeout: 120_000 }, () => {
    expect(
      grid('to guest, GSO', (loss, window) => ({
        downBytes: BYTES,
        socketQueue: 4_000_000,
        splitGso: true,
        up: { delayMs: 1 },
        down: { delayMs: 1, loss },
        guest: { rcvBuf: window, wscale: wscale(window) },
      })),
    ).toMatchSnapshot();
  });

  it('from the guest, acknowledgements lost', { timeout: 120_000 }, () => {
    expect(
      grid('from guest', (loss, window) => ({
        upBytes: BYTES,
        socketRoom: window,
        drainPerMs: 50_000,
        up: { delayMs: 1 },
        down: { delayMs: 1, loss },
        guest: { rcvBuf: window, wscale: wscale(window) },
      })),
    ).toMatchSnapshot();
  });

  it.each([
    ['to the guest', { downBytes: 2_000_000, down: { loss: 0.01, delayMs: 1 }, up: { delayMs: 1 } }],
    [
      'to the guest, ACKs lost too',
      { downBytes: 2_000_000, down: { loss: 0.01, delayMs: 1 }, up: { loss: 0.01, delayMs: 1 } },
    ],
    [
      'to the guest, without SACK',
      { downBytes: 2_000_000, down: { loss: 0.01, delayMs: 1 }, up: { delayMs: 1 }, guest: { sack: false } },
    ],
    ['from the guest', { upBytes: 2_000_000, up: { loss: 0.01, delayMs: 1 }, down: { delayMs: 1 } }],
  ] as [string, Omit<TransferOptions, 'seed'>][])(
    'no stall at 1 percent loss is longer than two time-outs: %s',
    (_name, options) => {
      for (let seed = 1; seed <= 20; seed++) {
        const r = runTransfer({ seed, socketQueue: 1_000_000, ...options });
        // The SYN,ACK may be lost: its time-out is a second (RFC 6298).
        expect(r.longestStallMs, `seed ${seed}`).toBeLessThan(650);
      }
    },
  );
});
