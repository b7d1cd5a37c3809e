/**
 * A fixed number of lanes: frames that reach a lane which does not own their flow, and ports that are published
 * while flows of another lane use them. Lanes that come and go: elastic-lanes.test.ts.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, succeedIn, supportProgram } from '../support/bed.ts';
import { engine, full } from '../support/engines.ts';
import { patternSha256 } from '../support/pattern.ts';
import { FAMILIES, HOST4, PEER4, PORT, urlHost } from '../support/ports.ts';
import { eventually, killTree } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';
import { curlDownload, curlUpload } from '../support/transfers.ts';

const MIB = 2 ** 20;
const BYTES = full(256, 32) * MIB;
const TIMEOUT_MS = 60_000;
/** Every seventh frame: ACKs and data of each flow, but not always the same ones. */
const WRONG_LANE_EVERY = 7;
const PLANS = engine.name === 'bucatini' ? ['lanes=2', 'lanes=3'] : [];
const SIZES = [0, 1, 1472, 1473, 9000, 65507];
const FIRST_PORT = 20_000;
const PORTS = 12;

describeE2e(
  'lanes',
  [requireTool('curl', 'apt package curl'), requireTool('ping', 'apt package iputils-ping')],
  () => {
    let bed: Bed;
    let uploadFile: string;
    beforeAll(async () => {
      bed = await makeBed();
      uploadFile = `${bed.ramDir}/upload.bin`;
      const program = supportProgram('pattern.ts', BYTES).join(' ');
      await succeedIn(bed, 'host', ['sh', '-c', `${program} >${uploadFile}`]);
    });
    afterAll(() => bed?.close());

    // biome-ignore lint/suspicious/noExplicitAny: the tests check the replies
    const ask = async (path: string, ...requests: object[]): Promise<any[]> => {
      const texts = requests.map((request) => JSON.stringify(request));
      return JSON.parse(
        await succeedIn(bed, 'host', supportProgram('clients/api-client.ts', path, ...texts)),
      );
    };

    describe.each(PLANS)(`%s, every ${WRONG_LANE_EVERY}th frame goes to a wrong lane`, (plan) => {
      let guest: Guest;
      let path: string;
      const counters = async (): Promise<Record<string, number>> =>
        (await ask(path, { execute: 'stats' }))[0].return.counters;
      beforeAll(async () => {
        path = `${bed.ramDir}/api-${plan}`;
        const impair = { fromGuest: 0, toGuest: 0, seed: 1, wrongLane: WRONG_LANE_EVERY };
        guest = await bed.engine({ plan, impair, extra: ['--api-socket', path] });
      });
      afterAll(() => guest?.stop());

      it.each(FAMILIES)(`$name: ${BYTES / MIB} MiB each way arrive unchanged`, async (family) => {
        const url = `http://${urlHost(family.peer)}:${PORT.http}`;
        const whole = { bytes: BYTES, sha256: patternSha256(BYTES) };
        expect(await curlDownload(guest, `${url}/bytes/${BYTES}`, TIMEOUT_MS)).toMatchObject(whole);
        expect(await curlUpload(guest, uploadFile, `${url}/upload`, TIMEOUT_MS)).toMatchObject(whole);
      });

      it.each(FAMILIES)('$name: UDP of every size, fragments too, comes back unchanged', async (family) => {
        const argv = supportProgram('clients/udp-echo.ts', family.peer, PORT.echo, ...SIZES);
        const results = JSON.parse(await succeed(guest, argv)) as { size: number; outcome: string }[];
        expect(results.map(({ size, outcome }) => ({ size, outcome }))).toEqual(
          SIZES.map((size) => ({ size, outcome: 'same' })),
        );
      });

      it('500 connections, 50 at a time: all succeed, each is one connection to the host', async () => {
        const before = await counters();
        const argv = supportProgram('clients/tcp-crowd.ts', PEER4, PORT.once, 500, 50, 3000, 0);
        expect(JSON.parse(await succeed(guest, argv, { timeoutMs: TIMEOUT_MS }))).toMatchObject({
          ok: 500,
          failed: {},
        });
        const opened = async (): Promise<number> => (await counters()).tcpOpened! - before.tcpOpened!;
        expect(await opened()).toBe(500);
        await eventually('all are closed', 10_000, async () => {
          const { tcpOpened, tcpClosed } = await counters();
          return tcpOpened === tcpClosed;
        });
      });

      it('frames were handed over', async () => {
        const { handedOver, framesFromGuest } = await counters();
        expect(handedOver).toBeGreaterThan(framesFromGuest! / WRONG_LANE_EVERY / 2);
      });
    });

    describe.each(engine.name === 'bucatini' ? ['fused', 'lanes=2'] : [])('%s', (plan) => {
      it('UDP ports are published while the guest sends from them', { timeout: TIMEOUT_MS }, async () => {
        const path = `${bed.ramDir}/publish-${plan}`;
        const guest = await bed.engine({ plan, extra: ['--api-socket', path] });
        try {
          const ports = Array.from({ length: PORTS }, (_, i) => FIRST_PORT + i);
          for (const port of ports) {
            // A flow of the guest from that port, which has the same port on the host.
            const client = supportProgram('clients/udp-ask.ts', PEER4, PORT.echo, port, 'from inside');
            expect(await succeed(guest, client)).toContain('from inside');
          }
          const add = ports.map((port) => ({
            execute: 'add_hostfwd',
            arguments: { proto: 'udp', host_addr: HOST4, host_port: port, guest_port: port },
          }));
          expect(await ask(path, ...add)).toEqual(ports.map((_, i) => ({ return: { id: i + 1 } })));
          for (const port of ports) {
            const server = guest.startInside(supportProgram('clients/udp-server.ts', port));
            await eventually('it listens', 10_000, () => server.printed().stdout.includes('ready'));
            const hello = supportProgram('clients/udp-ask.ts', HOST4, port, 0, 'hello');
            expect(await succeedIn(bed, 'host', hello)).toMatch(/ hello\n$/);
            killTree(server.process.pid!);
          }
        } finally {
          await guest.stop();
        }
      });
    });
  },
);
