/**
 * What modules of src/ say about the bundles that scripts/build.ts makes of them, in their first line:
 *
 *   // bundle: front-end NAME   what a launcher starts; dist/main/NAME.js
 *   // bundle: thread NAME      what a worker thread is started from; compiled ahead like the start of a front end
 *   // bundle: process NAME     what another process of ours is started from
 *   // bundle: boot             needed before the options are read, so that the packet thread starts as early as it can
 *   // bundle: rare             most starts do without it: never part of what every start loads
 *   // bundle: texts            rare, and writes files: generatedTexts(version) into dist/texts, generatedDocs() into the repository
 */
import { readdirSync, readFileSync } from 'node:fs';

export type BundleRole =
  | { readonly kind: 'front-end' | 'thread' | 'process'; readonly name: string }
  | { readonly kind: 'boot' | 'rare' | 'texts' };

/**
 * The role that a module's source states.
 * @returns undefined where it states none
 * @throws Error where the line says something else
 */
export function bundleRole(source: string): BundleRole | undefined {
  const line = /^\/\/ bundle:(.*)/.exec(source)?.[1];
  if (line === undefined) {
    if (/^\/\/\s*bundle:/m.test(source)) throw new Error('"// bundle:" belongs into the first line');
    return undefined;
  }
  const entry = /^ (front-end|thread|process) ([\w/-]+)$/.exec(line);
  if (entry !== null) return { kind: entry[1] as 'front-end' | 'thread' | 'process', name: entry[2]! };
  const kind = /^ (boot|rare|texts)$/.exec(line)?.[1];
  if (kind === undefined)
    throw new Error(`"// bundle:${line}" is none of front-end, thread, process, boot, rare, texts`);
  return { kind: kind as 'boot' | 'rare' | 'texts' };
}

/** Roles of all modules below `directory` that state one, by path from there without ".ts". */
export function bundleRoles(directory: string): ReadonlyMap<string, BundleRole> {
  const roles = new Map<string, BundleRole>();
  for (const file of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts')) continue;
    try {
      const role = bundleRole(readFileSync(`${directory}/${file}`, 'utf8'));
      if (role !== undefined) roles.set(file.slice(0, -'.ts'.length), role);
    } catch (cause) {
      throw new Error(`${directory}/${file}: ${(cause as Error).message}`, { cause });
    }
  }
  return roles;
}
