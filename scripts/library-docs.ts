/**
 * `npm run docs:library`: write docs/library-api.md, the interface of the library, from the types and comments of
 * src/library/, by TypeDoc (scripts/library-pages/, which is installed at the first call). The page has the
 * digest of the types that it was written from, and a test compares it with those of dist/library.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const tools = `${root}scripts/library-pages`;

/** @returns digest of the types in dist/library, as the page has it */
export function typesDigest(): string {
  const hash = createHash('sha256');
  const types = readdirSync(`${root}dist/library`).filter((name) => name.endsWith('.d.ts'));
  for (const name of types.sort()) hash.update(readFileSync(`${root}dist/library/${name}`));
  return hash.digest('hex').slice(0, 16);
}

export const PAGE = `${root}docs/library-api.md`;
export const headOf = (digest: string): string =>
  `<!-- Written by npm run docs:library from the types of src/library/, digest ${digest} -->\n`;

function run(command: string, ...args: string[]): void {
  const { status, error } = spawnSync(command, args, { cwd: tools, stdio: ['ignore', 2, 2] });
  if (status === 0) return;
  console.error(`docs:library: ${command} ${args.join(' ')} failed: ${error?.message ?? `status ${status}`}`);
  process.exit(1);
}

if (import.meta.main) {
  if (!existsSync(`${tools}/node_modules/typedoc`)) run('npm', 'ci', '--no-audit', '--no-fund');
  const out = mkdtempSync(`${tmpdir()}/library-docs-`);
  try {
    run(process.execPath, 'node_modules/typedoc/bin/typedoc', '--out', out, '--logLevel', 'Warn');
    const page = readFileSync(`${out}/README.md`, 'utf8')
      // Names of other pages become links, and names of symbols are written as in code.
      .replace(/(?<!\]\(|[/\w])docs\/([a-z-]+\.md)/g, '[docs/$1]($1)')
      .replace(/\\\[(asyncDispose|dispose)\\\]/g, '\\[Symbol.$1\\]')
      .replace(/^\[(asyncDispose|dispose)\]/gm, '[Symbol.$1]');
    writeFileSync(PAGE, headOf(typesDigest()) + page);
  } finally {
    rmSync(out, { recursive: true });
  }
}
