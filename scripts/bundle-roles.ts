/**
 * Roles of modules in the bundles that scripts/build.ts makes for Node, and which modules are programs of the
 * executable with Bun (build-bun.ts). A module of src/ states its role in its first line:
 *
 *   // bundle: front-end NAME   entry that a launcher starts, dist/main/NAME.js
 *   // bundle: thread NAME      entry of a worker thread; its compiled code is cached too
 *   // bundle: process NAME     entry of another process of this program
 *   // bundle: boot             needed before the options are read, so that the packet thread starts early
 *   // bundle: rare             not needed by most starts: not part of the bundle that every start loads
 *   // bundle: texts            rare, and generates files: generatedTexts(version) those in dist/texts,
 *                               generatedDocs() those in the repository
 */
import { readdirSync, readFileSync } from 'node:fs';

/** A module's role; `name` is the NAME of the line. */
export type BundleRole =
  | { readonly kind: 'front-end' | 'thread' | 'process'; readonly name: string }
  | { readonly kind: 'boot' | 'rare' | 'texts' };

/**
 * The role that a module states.
 * @param source  text of the module
 * @returns undefined if it states none
 * @throws Error for a malformed line, or one that is not the first
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

/** A module with a bundle of its own, and its role. */
export type BundleEntry = { readonly module: string } & Extract<BundleRole, { readonly name: string }>;

/** The modules that have a bundle of their own. @param roles  of bundleRoles() */
export const bundleEntries = (roles: ReadonlyMap<string, BundleRole>): readonly BundleEntry[] =>
  [...roles].flatMap(([module, role]) => ('name' in role ? [{ module, ...role }] : []));

/**
 * Roles of the modules below `directory` that state one.
 * @returns role by path relative to `directory`, without ".ts"
 * @throws Error naming the module
 */
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
