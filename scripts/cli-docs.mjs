// Write docs/cli.md from the option table. usage: sh scripts/node.sh scripts/cli-docs.mjs
import { writeFileSync } from 'node:fs';
import { cliMarkdown } from '../src/main/cli-texts.ts';

writeFileSync(new URL('../docs/cli.md', import.meta.url), cliMarkdown());
