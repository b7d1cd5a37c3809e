// Write docs/cli.md from the option table, docs/counters.md from the counters', pasta's manual page and completion from its table. usage: sh scripts/node.sh scripts/cli-docs.mjs
import { writeFileSync } from 'node:fs';
import { cliMarkdown } from '../src/main/cli-texts.ts';
import { countersMarkdown } from '../src/main/counter-texts.ts';
import { bashCompletion, manPage } from '../src/main/pasta/texts.ts';

writeFileSync(new URL('../docs/cli.md', import.meta.url), cliMarkdown());
writeFileSync(new URL('../docs/counters.md', import.meta.url), countersMarkdown());
writeFileSync(new URL('../man/pasta.1', import.meta.url), manPage());
writeFileSync(new URL('../completions/pasta.bash', import.meta.url), bashCompletion());
