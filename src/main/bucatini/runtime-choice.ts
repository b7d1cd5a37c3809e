// bundle: rare
/** Which runtime this process runs on, and why: for doctor and bug-report. */
import { accessSync, constants, readFileSync } from 'node:fs';
import { packageRoot, runtimeText } from '#runtime/program';
import { launcherVariable } from '../process/launcher-env.ts';

/** "Node 26.10.0 (the default; ...)", "Bun 1.4.5 (BUCATINI_RUNTIME=bun)" ... */
export function runtimeChoice(): string {
  return `${runtimeText()} (${why()})`;
}

function why(): string {
  const wanted = launcherVariable('BUCATINI_RUNTIME');
  if (wanted !== undefined && wanted !== '') return `BUCATINI_RUNTIME=${wanted}`;
  return `the default; ${bunIsThere()}`;
}

function bunIsThere(): string {
  try {
    accessSync(new URL('dist/bun/bucatini', packageRoot), constants.X_OK);
    return 'BUCATINI_RUNTIME=bun starts faster';
  } catch {
    // Not built, or not executable for this user.
  }
  try {
    return readFileSync(new URL('dist/bun/why.txt', packageRoot), 'utf8').trim();
  } catch {
    return 'dist/bun/bucatini is missing or not executable; npm run build makes it';
  }
}
