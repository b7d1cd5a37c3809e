// Write docs/cli.md from the option table and docs/counters.md from the counters'. usage: sh scripts/node.sh scripts/cli-docs.mjs
import { writeFileSync } from 'node:fs';
import { cliMarkdown } from '../src/main/cli-texts.ts';
import { countersMarkdown } from '../src/main/counter-texts.ts';

writeFileSync(new URL('../docs/cli.md', import.meta.url), cliMarkdown());
writeFileSync(new URL('../docs/counters.md', import.meta.url), countersMarkdown());
