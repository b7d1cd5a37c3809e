/** The agent leaves containers alone that have /dev/fuse: those of tests share the bed's. */
import { existsSync } from 'node:fs';
import { type Bed, succeedIn } from '../bed.ts';

/**
 * Put another device over /dev/fuse, for all programs that are started from now on.
 * @returns where it is seen as before; undefined: this machine has none
 */
export async function hideFuse(bed: Bed): Promise<string | undefined> {
  if (!existsSync('/dev/fuse')) return undefined;
  const elsewhere = `${bed.ramDir}/fuse`;
  bed.write(elsewhere, '');
  await succeedIn(bed, 'host', ['mount', '--bind', '/dev/fuse', elsewhere]);
  await succeedIn(bed, 'host', ['mount', '--bind', '/dev/null', '/dev/fuse']);
  return elsewhere;
}
