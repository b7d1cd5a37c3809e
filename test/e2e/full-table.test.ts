/**
 * More flows than the flow table has entries: unanswered ones are ended for new ones, other traffic goes on.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, supportProgram } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { GATEWAY4, HOST4, PEER4, PORT } from '../support/ports.ts';
import { eventually, type Started } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const PUBLISHED = 5353;
const FLOOD_TIMEOUT_MS = 40_000;
const OURS = engine.name === 'bucatini';
const needs = [requireTool('dig', 'apt package bind9-dnsutils'), requireTool('curl', 'apt package curl')];

describeE2e('a full flow table', needs, () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  describe.each(engine.plans)('%s', (plan) => {
    let guest: Guest;
    beforeEach(async () => {
      // A small table of 4,096 flows per shard, for some datagrams of a flood are always lost before the
      // engine.
      const extra = OURS ? ['--pool-size', '8'] : [];
      guest = await bed.engine({ plan, extra, publish: [`${PUBLISHED}:${PUBLISHED}/udp`] });
    });
    afterEach(() => guest?.stop());

    const connect = async (): Promise<void> => {
      const args = ['curl', '-sS', '-m', '3', '-o', '/dev/null', `http://${PEER4}:${PORT.http}/`];
      const { stderr } = await guest.inside(args);
      // Any answer of the server to "/": the connection was established.
      expect(stderr).not.toMatch(/timed out|[Cc]onnect/);
    };
    // A query may be lost where the kernel queues frames for the TAP device: asked up to three times, as a
    // resolver library does.
    const ask = async (): Promise<void> => {
      const answer = await succeed(guest, ['dig', '+tries=3', '+time=1', 'peer.bed.test', 'A']);
      expect(answer).toMatch(new RegExp(`^peer\\.bed\\.test\\..*\\sA\\s+${PEER4}$`, 'm'));
    };
    /** New connections and name queries succeed during and after the flood; an old connection stays open. */
    const goesOn = async (flood: Started): Promise<void> => {
      const echo = 'while echo t >&3 && read -r -t 3 x <&3; do echo $x; sleep 0.1; done; echo over';
      const old = guest.startInside(['bash', '-c', `exec 3<>/dev/tcp/${PEER4}/${PORT.echo}; ${echo}`]);
      const echoes = (): number => old.printed().stdout.split('t').length;
      await eventually('an old connection is open', 5000, () => echoes() > 2);
      const over = eventually('the flood is over', FLOOD_TIMEOUT_MS, () =>
        flood.printed().stdout.includes('done'),
      );
      for (let i = 0; i < 5; i++) {
        await connect();
        await ask();
      }
      await over;
      for (let i = 0; i < 5; i++) {
        await connect();
        await ask();
      }
      const before = echoes();
      await eventually('the old connection goes on', 5000, () => echoes() > before);
      expect(old.printed().stdout).not.toContain('over');
      const lines = guest.started
        .printed()
        .stderr.split('\n')
        .filter((line) => line.includes('flow table'));
      if (OURS) expect(lines.length).toBeGreaterThan(0);
      expect(lines.length).toBeLessThanOrEqual(8); // one per shard in ten seconds
    };

    it('40,000 UDP peers of one guest port: other traffic goes on', async () => {
      await goesOn(guest.startInside(supportProgram('clients/udp-peers.ts', 'to', PEER4, 20_000, 40_000)));
    });

    it('40,000 sources at a published UDP port: other traffic goes on', async () => {
      const args = ['from', `${PEER4},${GATEWAY4}`, 20_000, 20_000, HOST4, PUBLISHED];
      await goesOn(bed.start('peer', supportProgram('clients/udp-peers.ts', ...args)));
    });
  });
});
