/**
 * Attacking peers beside ordinary traffic: open connections, new ones, UDP and name queries of others are
 * still served, and the engine has freed all resources of the attackers afterwards. The attacks are in
 * test/hostile/arena; its main.ts runs all of them by hand, larger and with times.
 */
import { expect, it } from 'vitest';
import { type ArenaOptions, type ArenaResult, fight, type Window } from '../hostile/arena/arena.ts';
import { ATTACKS, type AttackName } from '../hostile/arena/attacks.ts';
import type { Tally } from '../hostile/arena/witness.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const WINDOW_SECONDS = 2;
const TIMEOUT_MS = 120_000;
/**
 * Minimum share of requests that are answered in time. Datagrams may be lost when both processors are busy.
 */
const SHARE = { old: 1, connect: 0.95, udp: 0.9, dns: 0.9 } as const;
/** Independent of the number of peers: one line per cause in some seconds. */
const LOG_LINES = 12;
/** Size of pool and tables, if all of their pages are written. */
const GROWTH_MIB = 96;
const SPARE_DESCRIPTORS = 8;
/**
 * Their sockets close after the end of the test: connect() times out in two minutes, a query in ten seconds.
 */
const OUTLIVED: readonly AttackName[] = ['half-open', 'dns'];
/** These use all time of both processors, also that of the ordinary clients. */
const BUSY: readonly AttackName[] = ['resets', 'resets-inside', 'half-open', 'udp-peers', 'udp-sources'];
const BUSY_SHARE = { old: 1, connect: 0.75, udp: 0.75, dns: 0.75 } as const;

function expectServed(window: Window, when: string, shares: Record<keyof typeof SHARE, number>): void {
  for (const side of ['outbound', 'inbound'] as const) {
    for (const [kind, share] of Object.entries(shares) as [keyof typeof SHARE, number][]) {
      const tally: Tally = window[side][kind];
      if (side === 'inbound' && kind === 'dns') continue;
      const what = `${when}: ${side} ${kind}: ${JSON.stringify(tally)}`;
      expect(tally.asked, what).toBeGreaterThan(0);
      expect(tally.answered / tally.asked, what).toBeGreaterThanOrEqual(share);
    }
  }
}

function expectUnharmed(attack: AttackName, r: ArenaResult): void {
  const shares = BUSY.includes(attack) ? BUSY_SHARE : SHARE;
  expectServed(r.before, 'before', SHARE);
  expectServed(r.during, 'during', shares);
  expectServed(r.after, 'after', shares);
  expect(r.during.logLines - r.before.logLines, r.log).toBeLessThanOrEqual(LOG_LINES);
  expect(r.during.rssMiB - r.before.rssMiB, 'RSS in MiB').toBeLessThan(GROWTH_MIB);
  if (OUTLIVED.includes(attack)) return;
  expect(r.after.descriptors, `descriptors, before: ${r.before.descriptors}`).toBeLessThanOrEqual(
    r.before.descriptors + SPARE_DESCRIPTORS,
  );
}

const attacked = (front: ArenaOptions['front'], plan: string, attack: AttackName): void => {
  const size = ATTACKS[attack].quick;
  it(`${attack} × ${size}: ${ATTACKS[attack].about}`, { timeout: TIMEOUT_MS }, async () => {
    const options = { front, plan, attack, size, windowSeconds: WINDOW_SECONDS };
    expectUnharmed(attack, await fight(options));
  });
};

const needs = [requireTool('socat', 'apt package socat')];

describeE2e('run, fused: other clients are served during', needs, () => {
  for (const attack of [
    ...(['idle-readers', 'uploads', 'uploads-inwards', 'resets-inside', 'half-open'] as const),
    ...(['udp-peers', 'udp-sources', 'dns'] as const),
  ])
    attacked('run', 'fused', attack);
});
describeE2e('run, pipeline=2: other clients are served during', needs, () => {
  attacked('run', 'pipeline=2', 'udp-sources');
});
describeE2e('pasta: other clients are served during', needs, () => {
  attacked('pasta', 'auto', 'idle-readers');
});
describeE2e('slirp4netns: other clients are served during', needs, () => {
  attacked('slirp4netns', 'auto', 'uploads');
});
