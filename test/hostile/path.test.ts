// @vitest: beside
/**
 * Hostile frames through the packet path: every field wrong in every usual way, then random frames from a
 * seed.
 *
 * HOSTILE_FRAMES: total number (default 4 million, with those of engine.test.ts); HOSTILE_SEED:
 * another seed.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { Drop } from '../../src/proto/drop.ts';
import { Counter } from '../../src/ring/counters.ts';
import { StageDrop } from '../../src/workers/link/stage-drop.ts';
import { Prng } from '../support/netsim/prng.ts';
import { corpus } from './corpus.ts';
import { systematic } from './mutator.ts';
import { HostilePath } from './path.ts';
import { NOTHING_LEFT, PATH_FRAMES, randomRun, SEED } from './random-run.ts';
import { Verifier } from './verify.ts';

/** Causes that these frames cannot have, with the reasons. */
const ELSEWHERE: Record<string, string> = {
  // host-io counts these: engine.test.ts and its own tests.
  socketFull: 'of host sockets',
  sendRefused: 'of host sockets',
  unsolicited: 'of host sockets',
  groupRate: 'of host sockets',
  groupSource: 'of host sockets',
  // Needs a policy without the service: see the tests of the service.
  switchedOff: 'of policies that leave something out',
  // Unanswered flows are ended for new ones: shard-flows.test.ts, udp.test.ts.
  flowTableFull: 'of tables full of settled flows',
  // The code of the codec is not counted: the forwarder counts dnsQuery.
  dnsQuestion: 'counted as dnsQuery',
};

/** Kinds of frames that may have no effect. */
const SILENT: [RegExp, string][] = [
  [/^ARP (reply|probe|request)/, 'only says who has which address'],
  [/^neighbour advertisement|^duplicate address/, 'only says who has which address'],
  [/^fragment/, 'held until the others come'],
  [/^TCP/, 'a segment that its connection ignores'],
];

const FUSED = { kind: 'fused' } as const;

const hit: Record<string, number> = {};
const collect = (drops: Record<string, number>): void => {
  for (const [name, n] of Object.entries(drops)) hit[name] = (hit[name] ?? 0) + n;
};

describe('tunnels that start inside', () => {
  it.each([
    ['VXLAN, checksum left inside', {}, 1],
    ['IP in IP, checksum left inside', { ipProtocol: 1 }, 0],
    ['GRE, checksum left inside', { ipProtocol: 1 }, 0],
    ['IPv6 in IP', { ipProtocol: 1 }, 0],
  ])('%s: drops %j', (name, drops, flows) => {
    const path = new HostilePath({ threads: FUSED, prng: new Prng(SEED), onFrame: () => {} });
    try {
      path.guest.addCopy(corpus().find((seed) => seed.name === name)!.bytes);
      path.feed(1);
      expect(path.drops()).toEqual(drops);
      expect(path.counters[Counter.udpFlows]).toBe(flows);
      path.windDown();
      expect(path.leftovers()).toEqual(NOTHING_LEFT);
    } finally {
      path.close();
    }
  });
});

describe('hostile frames through the packet path', () => {
  let first: unknown;

  it.each([
    ['one thread', FUSED, false],
    ['two lanes', { kind: 'lanes', lanes: 2 }, false],
    ['one thread with multicast', FUSED, true],
  ] as const)(
    '%s, each field of each frame kind wrong in each usual way: counted or answered, no slot leaks',
    {
      timeout: 300_000,
    },
    (_name, threads, multicast) => {
      const verifier = new Verifier(true, 1500);
      const path = new HostilePath({
        threads,
        multicast,
        prng: new Prng(SEED),
        onFrame: (b, at, bytes) => verifier.check(b, at, bytes),
      });
      try {
        const unaccounted: string[] = [];
        let frames = 0;
        for (const { seed, what, bytes } of systematic(corpus())) {
          const before = path.effects;
          path.guest.addCopy(bytes);
          try {
            path.feed(0.1);
            if (threads.kind === 'lanes') path.settle();
          } catch (cause) {
            throw new Error(`${seed.name}, ${what}`, { cause });
          }
          frames++;
          const silent = SILENT.some(([name]) => name.test(seed.name));
          // A fragment is held wherever it comes from.
          const fragment = /fragOff|(nextHeader|next) = 44$|icmp.type = 13[46]$/.test(what);
          if (path.effects === before && !silent && !fragment) unaccounted.push(`${seed.name}, ${what}`);
        }
        expect(unaccounted).toEqual([]);
        expect(path.counters[Counter.framesFromGuest]).toBe(frames);
        expect(path.counters[Counter.handOverFull]).toBe(0);
        collect(path.drops());
        // What depends on the frames alone, not on sockets that the host has opened by then.
        const { counters } = path;
        const parsed = {
          ...Object.fromEntries(Object.entries(path.drops()).filter(([name]) => name in Drop)),
          fragmentsDropped: counters[Counter.fragmentsDropped],
          fragmentsReassembled: counters[Counter.fragmentsReassembled],
        };
        first ??= parsed;
        // With multicast there are causes that the others cannot have.
        if (!multicast) expect(parsed).toEqual(first);
        path.windDown();
        expect(path.leftovers()).toEqual(NOTHING_LEFT);
      } finally {
        path.close();
      }
    },
  );

  it('random frames: no exception, no leak, well-formed answers', { timeout: 3_600_000 }, () => {
    collect(randomRun('one shard', Math.ceil(PATH_FRAMES * 0.4), { threads: FUSED }));
  });

  it('every cause of a drop has occurred', () => {
    const missing = [...Object.keys(Drop), ...Object.keys(StageDrop)].filter(
      (name) => !hit[name] && !(name in ELSEWHERE),
    );
    expect(missing).toEqual([]);
  });

  afterAll(() => {
    process.stdout.write(`hostile, drops by cause: ${JSON.stringify(hit)}\n`);
  });
});
