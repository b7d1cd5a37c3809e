/**
 * Use of idle engines: processor time, wake-ups, memory. All run at the same time, for each is measured by what
 * the kernel counts for its own threads.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, makeBed, supportProgram } from '../support/bed.ts';
import { engine, full, repoRoot } from '../support/engines.ts';
import { watchLeft } from '../support/left.ts';
import { PEER4, PORT } from '../support/ports.ts';
import {
  cpuTicks,
  descendantsOf,
  eventually,
  isAlive,
  killTree,
  processName,
  rssKib,
  type Started,
  sleepMs,
  sleeps,
  threadStatus,
  wakesBetween,
} from '../support/process.ts';
import { describeE2e } from '../support/require.ts';

const IDLE_MS = full(5000, 2000);
/**
 * Of 500 ticks in 5 s. An idle engine runs for 3 ms in that time (schedstat), but time that the hypervisor
 * takes from a virtual processor counts too: up to 11 ticks were measured. A spinning thread uses all 500;
 * polling by a timer shows in the wake-ups.
 */
const IDLE_TICKS = 100;
/** No periodic timer is armed; one would wake a thread at least once a second. */
const IDLE_WAKES = IDLE_MS / 1000 - 1;
/** Mapped code is dropped two seconds after the start (main/host/idle-memory.ts). */
const IDLE_KIB = 60 * 1024;
const PERIODS = 8;

/** Ticks of processor time, and wake-ups of all threads. */
interface Idling {
  readonly ticks: number;
  readonly wakes: number;
}

/**
 * Use of these processes without traffic: the minimum of up to eight periods, for V8 collects garbage some
 * seconds after a start, JavaScriptCore's helper threads end, and the kernel solicits routers in the
 * namespace. Polling shows in each period.
 */
async function idling(pids: readonly number[]): Promise<Idling> {
  const ticks = (): number => pids.reduce((total, pid) => total + cpuTicks(pid), 0);
  let least: Idling = { ticks: Number.POSITIVE_INFINITY, wakes: Number.POSITIVE_INFINITY };
  for (
    let stretch = 0;
    stretch < PERIODS && (least.ticks > IDLE_TICKS || least.wakes > IDLE_WAKES);
    stretch++
  ) {
    const before = { ticks: ticks(), sleeps: sleeps(pids) };
    await sleepMs(IDLE_MS);
    least = {
      ticks: Math.min(least.ticks, ticks() - before.ticks),
      wakes: Math.min(least.wakes, wakesBetween(before.sleeps, sleeps(pids))),
    };
  }
  return least;
}

describeE2e('idle engines', [], () => {
  let bed: Bed;
  let nothingLeft: () => Promise<void>;
  beforeAll(async () => {
    bed = await makeBed();
    nothingLeft = await watchLeft(bed);
  });
  afterAll(() => bed?.close());

  describe.concurrent('run, fused plan', () => {
    const plan = engine.plans.includes('fused') ? 'fused' : (engine.plans[0] ?? '');

    it('no connections: no CPU time, little memory', { timeout: 60_000 }, async () => {
      const guest = await bed.engine({ plan });
      await sleepMs(1500);
      const { ticks, wakes } = await idling(guest.enginePids());
      const kib = guest.enginePids().reduce((sum, pid) => sum + rssKib(pid), 0);
      console.log(
        `idle ${plan}: ${ticks} ticks, ${wakes} wakes in ${IDLE_MS} ms, RSS ${(kib / 1024).toFixed(1)} MiB`,
      );
      await guest.stop();
      expect(ticks).toBeLessThanOrEqual(IDLE_TICKS);
      expect(wakes).toBeLessThanOrEqual(IDLE_WAKES);
      expect(kib).toBeLessThan(IDLE_KIB);
    });

    it('an idle and two half-closed connections: no CPU time', { timeout: 60_000 }, async () => {
      const guest = await bed.engine({ plan });
      const play = (client: unknown, server: unknown): Started =>
        guest.startInside(
          supportProgram(
            'clients/tcp-client.ts',
            PEER4,
            PORT.script,
            JSON.stringify(client),
            JSON.stringify({ id: `idle${Math.random()}`, steps: server }),
          ),
        );
      const stay = ['pause', 60_000];
      const players = [
        play([['send', 10], stay], [['recv', 10], stay]),
        play([['fin'], stay], [['recvEof'], stay]),
        play([['recvEof'], stay], [['fin'], stay]),
      ];
      await sleepMs(2000);
      const { ticks, wakes } = await idling(guest.enginePids());
      console.log(`idle ${plan}, three connections: ${ticks} ticks, ${wakes} wakes in ${IDLE_MS} ms`);
      for (const player of players) expect(isAlive(player.pid)).toBe(true);
      for (const player of players) killTree(player.pid);
      await guest.stop();
      expect(ticks).toBeLessThanOrEqual(IDLE_TICKS);
      expect(wakes).toBeLessThanOrEqual(IDLE_WAKES);
    });
  });

  describe.skipIf(engine.name !== 'bucatini').concurrent('for a process id', () => {
    const ports = ['-t', 'none', '-u', 'none', '-T', 'none', '-U', 'none']; // no scan of `auto` ports
    it.each([
      ['bucatini', ['bucatini', 'attach'], []],
      ['pasta', ['pasta', '--config-net', '-f', ...ports], []],
      ['slirp4netns', ['slirp4netns', '-c'], ['tap0']],
    ])('%s: no CPU time', { timeout: 60_000 }, async (name, [program, ...options], operands) => {
      const target = await bed.emptyGuest();
      const pidThere = String(bed.pidSeenInside(target.pid));
      const argv = [`${repoRoot}/bin/${program}`, ...options, pidThere, ...operands];
      const started = bed.start('user', argv);
      try {
        const pid = await eventually(`an engine in its sandbox: ${argv}`, 10_000, () =>
          descendantsOf(started.pid).find(
            (p) => processName(p) === name && threadStatus(p).every(({ seccomp }) => seccomp === 2),
          ),
        );
        await sleepMs(1500);
        const { ticks, wakes } = await idling([pid]);
        console.log(`idle ${name} for a process id: ${ticks} ticks, ${wakes} wakes in ${IDLE_MS} ms`);
        expect(ticks).toBeLessThanOrEqual(IDLE_TICKS);
        expect(wakes).toBeLessThanOrEqual(IDLE_WAKES);
      } finally {
        killTree(started.pid);
        await target.end();
      }
    });
  });

  it('they have ended: no process and no mount is left', () => nothingLeft());
});
