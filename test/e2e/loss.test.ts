// @vitest: beside
/**
 * Transfers over a lossy TAP: frames lost inside the engine in both directions, and packets dropped by
 * nftables in the guest. The sender's and the receiver's recovery are the guest kernel's and the engine's;
 * the data must arrive unchanged, and at 1 % without a long stall.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type Bed,
  type Guest,
  makeBed,
  setRoutes,
  succeed,
  succeedIn,
  supportProgram,
} from '../support/bed.ts';
import { type EngineOptions, engine, full } from '../support/engines.ts';
import { patternSha256 } from '../support/pattern.ts';
import { FAMILIES, PORT, urlHost } from '../support/ports.ts';
import { eventually } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';
import { curlDownload, curlUpload, type Transferred } from '../support/transfers.ts';

const MIB = 2 ** 20;
const LEVELS = [
  { percent: 1, bytes: full(64, 16) * MIB, maxGapMs: 3000 },
  { percent: 5, bytes: full(16, 4) * MIB, maxGapMs: Number.POSITIVE_INFINITY },
  { percent: 20, bytes: full(2, 1) * MIB, maxGapMs: Number.POSITIVE_INFINITY, shortTimers: true },
] as const;
const MTUS = [65520, 1500] as const;
const TIMEOUT_MS = full(180_000, 60_000);

const needs = [
  requireTool('curl', 'apt package curl'),
  requireTool('nft', 'apt package nftables'),
  requireTool('ping', 'apt package iputils-ping'),
];

/**
 * Drop a share of the packets that the guest receives, after reassembly by its kernel, and of those that it
 * sends.
 */
const dropRules = (percent: number): string => `
table inet loss {
  chain in  { type filter hook input priority 0;  iifname != "lo" numgen random mod 1000 < ${percent * 10} drop; }
  chain out { type filter hook output priority 0; oifname != "lo" numgen random mod 1000 < ${percent * 10} drop; }
}`;

/**
 * Set a permanent neighbour entry for the gateway in the guest: the kernel sends three requests only, and at
 * 20 % loss one in twenty resolutions fails. These tests are about the recovery of TCP.
 */
async function pinNeighbours(guest: Guest): Promise<void> {
  for (const { name, peer } of FAMILIES) {
    const entry = await eventually(`${name} neighbour ${peer}`, 20_000, async () => {
      await guest.inside(['ping', '-c1', '-W1', peer]);
      return /dev (\S+) lladdr (\S+)/.exec(await succeed(guest, ['ip', 'neigh', 'show', peer])) ?? undefined;
    });
    const [, device = '', mac = ''] = entry;
    await succeed(guest, ['ip', 'neigh', 'replace', peer, 'lladdr', mac, 'dev', device, 'nud', 'permanent']);
  }
}

/**
 * At 20 % a third of all segments wait for the guest kernel's retransmission timer, which takes an ACK that
 * was lost for a long round trip: with its usual range of 200 ms to 2 min and MTU 1500 that alone is minutes.
 * The kernel gives up (ETIMEDOUT) when one spell of loss recovery lasts longer than tcp_retries2 timers
 * would: 15 min with its usual range, but 14 s with timers of 1 s at most, progress or not, as the clock
 * starts at the first retransmission of the spell (retransmits_timed_out in tcp_timer.c).
 */
async function shortenTimers(guest: Guest): Promise<void> {
  await setRoutes(guest, 'rto_min', '20ms');
  const file = '/proc/sys/net/ipv4/tcp_rto_max_ms'; // Linux 6.15
  await succeed(guest, ['sh', '-c', `[ ! -e ${file} ] || echo 1000 >${file}`]);
  await succeed(guest, ['sh', '-c', 'echo 255 >/proc/sys/net/ipv4/tcp_retries2']);
}

describeE2e('a lossy TAP', needs, () => {
  let bed: Bed;
  const figures: Record<string, string> = {};

  beforeAll(async () => {
    bed = await makeBed();
    for (const { bytes } of LEVELS) {
      const program = supportProgram('pattern.ts', bytes).join(' ');
      await succeedIn(bed, 'host', ['sh', '-c', `${program} >${bed.ramDir}/${bytes}.bin`]);
    }
  });
  afterAll(async () => {
    await bed.close();
    console.table(figures);
  });

  const transfers = (label: string, guest: () => Guest, level: (typeof LEVELS)[number]): void => {
    for (const family of FAMILIES) {
      const url = `http://${urlHost(family.peer)}:${PORT.http}`;
      const { bytes, percent, maxGapMs } = level;
      const concurrent = 'shortTimers' in level;
      const judge = (direction: string, got: Transferred): void => {
        figures[`${label} ${family.name} ${direction}`] = `${got.ms} ms, longest gap ${got.maxGapMs} ms`;
        expect(got).toMatchObject({ bytes, sha256: patternSha256(bytes) });
        expect(got.maxGapMs).toBeLessThanOrEqual(maxGapMs);
      };
      it(`${family.name} download at ${percent} % loss: ${bytes} bytes arrive`, {
        timeout: TIMEOUT_MS,
        concurrent,
      }, async () => {
        judge('download', await curlDownload(guest(), `${url}/bytes/${bytes}`, TIMEOUT_MS - 5000));
      });
      it(`${family.name} upload at ${percent} % loss: ${bytes} bytes arrive`, {
        timeout: TIMEOUT_MS,
        concurrent,
      }, async () => {
        judge(
          'upload',
          await curlUpload(guest(), `${bed.ramDir}/${bytes}.bin`, `${url}/upload`, TIMEOUT_MS - 5000),
        );
      });
    }
  };

  // Recovery is mostly waiting for timers: the plans run side by side, each with engines of its own, and so
  // do the transfers at 20 %, where a few waits of many seconds are most of the time.
  describe.concurrent.each(engine.plans)('%s', (plan) => {
    describe.each(MTUS)('MTU %i', { concurrent: false }, (mtu) => {
      describe.each(LEVELS)('$percent %', (level) => {
        const name = `${plan} ${mtu} ${level.percent} %`;
        const lossy = (
          title: string,
          options: EngineOptions,
          prepare: (guest: Guest) => Promise<unknown>,
        ): void => {
          describe(title, () => {
            let guest: Guest | undefined;
            beforeAll(async () => {
              guest = await bed.engine({ plan, mtu, ...options });
              if ('shortTimers' in level) await shortenTimers(guest);
              await pinNeighbours(guest);
              await prepare(guest);
            });
            afterAll(() => guest?.stop());
            transfers(`${name} ${title}`, () => guest!, level);
          });
        };
        const share = level.percent / 100;
        if (engine.can.impair) {
          lossy('in the engine', { impair: { fromGuest: share, toGuest: share, seed: 1 } }, async () => {});
        } else {
          it.skip(`in the engine (${engine.name} has no impairment stage)`);
        }
        lossy('by nftables', {}, (guest) =>
          succeed(guest, ['nft', '-f', '-'], { input: dropRules(level.percent) }),
        );
      });
    });
  });
});
