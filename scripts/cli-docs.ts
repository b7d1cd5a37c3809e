/**
 * `npm run docs`: write the pages, manual pages and completions that are generated from tables in src. Modules
 * whose first line is `// bundle: texts` return theirs from generatedDocs(); tests compare the files with its
 * result.
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
