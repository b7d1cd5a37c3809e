/** Bun's executable for this machine, from its npm package. */
import { existsSync } from 'node:fs';

const PACKAGES: Readonly<Record<string, string>> = { x64: 'bun-linux-x64', arm64: 'bun-linux-aarch64' };

/**
 * Path of the executable. Whether this machine can run it is not tried.
 * @param root  directory of package.json, with a final slash
 * @returns undefined: the optional dependency is not installed, or there is none for this architecture
 */
export function bunExecutable(root: string): string | undefined {
  const path = `${root}node_modules/@oven/${PACKAGES[process.arch]}/bin/bun`;
  return existsSync(path) ? path : undefined;
}
