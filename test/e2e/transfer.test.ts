/** Bulk transfers by curl, both ways, both families, every MTU and plan; the data compared by SHA-256. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, succeedIn, supportProgram } from '../support/bed.ts';
import { engine, full } from '../support/engines.ts';
import { patternSha256 } from '../support/pattern.ts';
import { FAMILIES, PORT, urlHost } from '../support/ports.ts';
import { describeE2e, requireTool } from '../support/require.ts';
import { curlDownload, curlUpload, gbits } from '../support/transfers.ts';

const BYTES = full(2 ** 30, 64 * 2 ** 20);
/** In further plans and at small MTUs. */
const FEWER_BYTES = full(2 ** 28, 64 * 2 ** 20);
const TIMEOUT_MS = 120_000;

describeE2e('bulk transfers', [requireTool('curl', 'apt package curl')], () => {
  let bed: Bed;
  const uploadFile = (bytes: number): string => `${bed.ramDir}/upload-${bytes}`;
  const rates: Record<string, string> = {};

  beforeAll(async () => {
    bed = await makeBed();
    const [sh = '', script = '', program = ''] = supportProgram('pattern.ts');
    for (const bytes of [BYTES, FEWER_BYTES]) {
      await succeedIn(bed, 'host', ['sh', '-c', `${sh} ${script} ${program} ${bytes} >${uploadFile(bytes)}`]);
      patternSha256(bytes);
    }
  });
  afterAll(async () => {
    await bed.close();
    console.table(rates);
  });

  describe.each(engine.plans)('%s', (plan) => {
    describe.each([65520, 1500, 1280])('MTU %i', (mtu) => {
      const bytes = plan === engine.plans[0] && mtu === 65520 ? BYTES : FEWER_BYTES;
      let guest: Guest;
      beforeAll(async () => {
        guest = await bed.engine({ plan, mtu });
      });
      afterAll(() => guest?.stop());

      it('the interface has the MTU asked for', async () => {
        expect(await succeed(guest, ['ip', '-o', 'link'])).toContain(` mtu ${mtu} `);
      });

      for (const family of FAMILIES) {
        const url = `http://${urlHost(family.peer)}:${PORT.http}`;
        it(`${family.name} download of ${bytes} bytes arrives complete and unchanged`, {
          timeout: TIMEOUT_MS,
        }, async () => {
          const got = await curlDownload(guest, `${url}/bytes/${bytes}`, TIMEOUT_MS - 5000);
          expect(got).toMatchObject({ bytes, sha256: patternSha256(bytes) });
          rates[`${plan} ${mtu} ${family.name} download`] = gbits(got);
        });
        it(`${family.name} upload of ${bytes} bytes arrives complete and unchanged`, {
          timeout: TIMEOUT_MS,
        }, async () => {
          const got = await curlUpload(guest, uploadFile(bytes), `${url}/upload`, TIMEOUT_MS - 5000);
          expect(got).toMatchObject({ bytes, sha256: patternSha256(bytes) });
          rates[`${plan} ${mtu} ${family.name} upload`] = gbits(got);
        });
      }
    });
  });
});
