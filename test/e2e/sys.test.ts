// @vitest: beside
/** COMMAND's /sys: the interfaces of its own namespace, and all else as on the host. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, makeBed, succeedIn } from '../support/bed.ts';
import { engine, repoRoot } from '../support/engines.ts';
import { describeE2e } from '../support/require.ts';

const NAMES = 'ls /sys/class/net';
/** Mount points below /sys and the types of what is mounted last at each. */
const BELOW = `awk '$2 ~ "^/sys/" { type[$2] = $3 } END { for (path in type) print path, type[path] }' /proc/self/mounts | sort`;
const sorted = (text: string): string[] => text.trim().split('\n').sort();

describeE2e('/sys', [], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  const run = async (command: readonly string[], options: readonly string[] = []): Promise<string> => {
    const launched = engine.run({ extra: [...options] }, command);
    return succeedIn(bed, 'user', launched.argv, { env: { HOME: bed.ramDir } });
  };
  const inShell = (script: string, options: readonly string[] = []) => run(['sh', '-c', script], options);

  describe.each(engine.plans)('%s', (plan) => {
    it("the namespace's interfaces, with what the kernel says of them", async () => {
      const script = `${NAMES}; cat /sys/class/net/inside/mtu`;
      const options = ['--threads', plan, '--interface-name', 'inside', '--mtu', '4321'];
      expect(sorted(await inShell(script, options))).toEqual(['4321', 'inside', 'lo']);
    });
  });

  it('what is mounted below it on the host is there', async () => {
    const ofHost = await succeedIn(bed, 'user', ['sh', '-c', BELOW]);
    expect(sorted(await inShell(BELOW))).toEqual(sorted(ofHost));
    const groups = 'ls /sys/fs/cgroup';
    expect(await inShell(groups)).toBe(await succeedIn(bed, 'user', ['sh', '-c', groups]));
  });

  it('programs inside can mount their own, as container engines do; runs nest', async () => {
    const own = 'mount -t sysfs sysfs /sys && ls /sys/class/net';
    expect(await run(['unshare', '--user', '--map-root-user', '--net', '--mount', 'sh', '-c', own])).toBe(
      'lo\n',
    );
    const nested = ['run', '--interface-name', 'deeper', '--', 'sh', '-c', NAMES];
    expect(sorted(await run([`${repoRoot}/bin/bucatini`, ...nested]))).toEqual(['deeper', 'lo']);
  });
});
