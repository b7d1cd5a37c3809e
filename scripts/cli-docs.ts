/**
 * `npm run docs`: the pages, manual pages and completions that are made from tables in src. Modules whose first line says
 * `// bundle: texts` name theirs by generatedDocs(); tests compare the files with it.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { bundleRoles } from './bundle-roles.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
for (const [module, { kind }] of bundleRoles(`${root}src`)) {
  if (kind !== 'texts') continue;
  const { generatedDocs } = await import(`${root}src/${module}.ts`);
  for (const [file, text] of generatedDocs()) writeFileSync(`${root}${file}`, text);
}
