/** What an engine gives back some time after its start, and that it works as before. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bed, makeBed } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { patternSha256 } from '../support/pattern.ts';
import { PEER4, PORT } from '../support/ports.ts';
import { descendantsOf, eventually, openFiles, processName, rssKib } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';
import { curlDownload } from '../support/transfers.ts';

const BYTES = 64 * 2 ** 20;
const fileKib = (pid: number): number =>
  Number(/^RssFile:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]);

describeE2e('memory of an idle engine', [requireTool('curl', 'apt package curl')], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  it.skipIf(engine.name !== 'bucatini').each(engine.plans)(
    '%s: most mapped code is dropped, and transfers go on',
    { timeout: 60_000 },
    async (plan) => {
      const guest = await bed.engine({ plan });
      const pid = guest.enginePids().find((p) => processName(p) === 'bucatini')!;
      const url = `http://${PEER4}:${PORT.http}/bytes/${BYTES}`;
      const download = async (): Promise<void> => {
        const got = await curlDownload(guest, url, 20_000);
        expect(got).toMatchObject({ bytes: BYTES, sha256: patternSha256(BYTES) });
      };
      const first = fileKib(pid);
      const smaps = (): boolean => openFiles(pid).some((file) => file.endsWith('/smaps'));
      await download();
      await eventually('smaps is closed', 10_000, () => (smaps() ? undefined : true));
      const then = fileKib(pid);
      console.log(`${plan}: ${first} → ${then} KiB of files, RSS ${rssKib(pid)} KiB`);
      expect(then).toBeLessThan(first / 2);
      await download();
      expect(descendantsOf(pid).length).toBeGreaterThan(1); // COMMAND is still there
      await guest.stop();
    },
  );
});
