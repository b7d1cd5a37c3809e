// @vitest: beside
/**
 * The whole engine under hostile frames, in each thread plan: it neither ends nor hangs, and works
 * afterwards. It runs in a network namespace with loopback only, so that its packets reach no other host.
 */
import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { describeE2e } from '../support/require.ts';
import { ENGINE_FRAMES, SEED } from './random-run.ts';

interface Result {
  readonly frames: number;
  readonly framesPerSecond: number;
  readonly handshakes: number;
  readonly connected: boolean;
  readonly stopMs: number;
  readonly rssGrownMiB: number;
  readonly openFds: number;
  readonly failure: string | null;
  readonly errors: readonly string[];
  readonly counters: Record<string, number>;
}

const PLANS = ['fused', 'pipeline=2', 'lanes=2', 'lanes=3'];
const CHILD = new URL('./engine-child.ts', import.meta.url).pathname;
/** Allow ping sockets for all groups, if permitted. */
const SETUP =
  'ip link set lo up && { echo 0 0 > /proc/sys/net/ipv4/ping_group_range; } 2>/dev/null; exec "$@"';
const IN_NAMESPACE = ['--user', '--map-root-user', '--net', 'sh', '-c', SETUP, 'sh'];

describeE2e('hostile frames through the whole engine', [], () => {
  it.each(PLANS)(
    '%s: the engine answers afterwards, stops, and leaves nothing open',
    { timeout: 600_000 },
    (plan) => {
      const frames = Math.floor(ENGINE_FRAMES / PLANS.length);
      const argv = [...IN_NAMESPACE, process.execPath, CHILD, plan, String(frames), String(SEED)];
      const run = spawnSync('unshare', argv, { encoding: 'utf8', maxBuffer: 1 << 24, timeout: 500_000 });
      expect(run.status, run.stderr).toBe(0);
      const result = JSON.parse(run.stdout.trim().split('\n').at(-1)!) as Result;
      process.stdout.write(
        `hostile, engine ${plan}: ${result.frames} frames, ${result.framesPerSecond} a second, ${result.handshakes} handshakes, RSS +${result.rssGrownMiB} MiB\n`,
      );
      expect(result.failure).toBeNull();
      expect(result.errors).toEqual([]);
      expect(result.connected).toBe(true);
      expect(result.openFds).toBeLessThanOrEqual(0);
      expect(result.stopMs).toBeLessThan(5000);
      expect(result.rssGrownMiB).toBeLessThan(64);
      expect(result.handshakes).toBeGreaterThan(frames / 5000);
      if (plan.startsWith('lanes')) expect(result.counters.handedOver).toBeGreaterThan(frames / 4);
    },
  );
});
