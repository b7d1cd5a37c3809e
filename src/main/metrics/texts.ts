// bundle: texts
/** The table of docs/metrics.md, from the table of families. The rest of that page is written by hand. */
import { readFileSync } from 'node:fs';
import { boundsOf, ENGINE_FAMILIES, type FamilyInfo, INSTANCE_FAMILIES } from './families.ts';

const PAGE = 'docs/metrics.md';
const BEGIN =
  '<!-- The tables are written by `npm run docs` from `src/main/metrics/families.ts`; a test compares. -->\n';
const END = '<!-- End of the tables. -->\n';

const rows = (families: readonly FamilyInfo[]): string =>
  [
    '| metric | type | labels | |',
    '|---|---|---|---|',
    ...families.map(({ name, type, labels, help }) => {
      const shown = labels.filter((label) => label !== 'le').map((label) => `\`${label}\``);
      return `| \`${name}\` | ${type} | ${shown.join(', ')} | ${help} |`;
    }),
  ].join('\n');

function tables(): string {
  const seconds = boundsOf('us');
  return `${rows(ENGINE_FAMILIES)}

Bounds of the histograms in seconds are powers of two of a microsecond, from ${seconds[0]} to ${seconds.at(-1)}; those of frames are ${boundsOf('frames').join(', ')}.

Only of \`bucatini metrics\`:

${rows(Object.values(INSTANCE_FAMILIES))}
`;
}

/** The page with new tables. @param page  its present text. @throws Error if it has no place for them */
export function metricsMarkdown(page: string): string {
  const from = page.indexOf(BEGIN);
  const to = page.indexOf(END);
  if (from < 0 || to < from) throw new Error(`${PAGE}: the comments around the tables are missing`);
  return `${page.slice(0, from)}${BEGIN}\n${tables()}\n${page.slice(to)}`;
}

/** Generated files of the repository (`npm run docs`): path -> content. */
export function generatedDocs(): ReadonlyMap<string, string> {
  const page = readFileSync(new URL(`../../../${PAGE}`, import.meta.url), 'utf8');
  return new Map([[PAGE, metricsMarkdown(page)]]);
}
