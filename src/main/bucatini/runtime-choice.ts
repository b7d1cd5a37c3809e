// bundle: rare
/** Which runtime this process runs on, and why: for doctor and bug-report. */
import { existsSync, readFileSync } from 'node:fs';
import { packageRoot, runtimeText } from '#runtime/program';
import { launcherVariable } from '../process/launcher-env.ts';

/** "Bun 1.4.5 (the default)", "Node 26.10.0 (BUCATINI_RUNTIME=node)", "Node 26.10.0 (Bun does not run: ...)" ... */
export function runtimeChoice(): string {
  return `${runtimeText()} (${why()})`;
}

function why(): string {
  const wanted = launcherVariable('BUCATINI_RUNTIME');
  if (wanted !== undefined && wanted !== '') return `BUCATINI_RUNTIME=${wanted}`;
  return runtimeText().startsWith('Bun ') ? 'the default' : whyNotBun();
}

function whyNotBun(): string {
  try {
    return readFileSync(new URL('dist/bun/why.txt', packageRoot), 'utf8').trim();
  } catch {
    if (!existsSync(new URL('scripts/build-bun.ts', packageRoot))) return 'the npm package has no Bun';
    return 'dist/bun/bucatini is missing or not executable; npm run build makes it';
  }
}
