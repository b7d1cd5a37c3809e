// Write docs/cli.md from the option table, docs/counters.md from the counters', manual pages and completions of pasta and slirp4netns from theirs. usage: sh scripts/node.sh scripts/cli-docs.ts
import { writeFileSync } from 'node:fs';
import { cliMarkdown } from '../src/main/cli-texts.ts';
import { countersMarkdown } from '../src/main/counter-texts.ts';
import * as pasta from '../src/main/pasta/texts.ts';
import * as slirp from '../src/main/slirp4netns/texts.ts';

writeFileSync(new URL('../docs/cli.md', import.meta.url), cliMarkdown());
writeFileSync(new URL('../docs/counters.md', import.meta.url), countersMarkdown());
for (const [name, texts] of Object.entries({ pasta, slirp4netns: slirp })) {
  writeFileSync(new URL(`../man/${name}.1`, import.meta.url), texts.manPage());
  writeFileSync(new URL(`../completions/${name}.bash`, import.meta.url), texts.bashCompletion());
}
