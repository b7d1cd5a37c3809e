/**
 * Renders reports from results.
 *
 * usage: scripts/node.sh perf/render.ts [FILE.json...]    write FILE.md and FILE.html beside each; none named: all in perf/
 *        scripts/node.sh perf/render.ts --comparison      write docs/comparison.md and .svg from the newest full report in perf/
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { comparison, newestReport } from './harness/report/comparison.ts';
import { html } from './harness/report/html.ts';
import { markdown } from './harness/report/markdown.ts';
import { overviewSvg } from './harness/report/overview.ts';
import { parseResult } from './harness/result.ts';

const perf = fileURLToPath(new URL('.', import.meta.url));
const comparisonChart = fileURLToPath(new URL('../docs/comparison.svg', import.meta.url));
const comparisonPage = fileURLToPath(new URL('../docs/comparison.md', import.meta.url));

const keptReports = (): readonly string[] =>
  readdirSync(perf).filter((name) => /^\d{4}-\d{2}-\d{2}-.*\.json$/.test(name));

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new Error(`${file}: ${error instanceof Error ? errorText(error) : error}`, { cause: error });
  }
}

/**
 * Text of a Node error without its code, and without the call and path at the end, which the caller's text
 * has.
 */
const errorText = (error: Error): string =>
  error.message.replace(/^[A-Z]+: /, '').replace(/, \w+( '.*')?$/, '');

const USAGE = `usage: npm run report [-- FILE.json...]  write FILE.md and FILE.html beside each; none named: those in perf/
       npm run comparison                write docs/comparison.md and .svg from the newest full report in perf/
`;

const args = process.argv.slice(2);
if (args.includes('--help') || args.includes('-h')) {
  process.stdout.write(USAGE);
  process.exit(0);
}
const wrong = args.find((arg) => arg.startsWith('-') && !(arg === '--comparison' && args.length === 1));
if (wrong !== undefined) {
  process.stderr.write(`report: unknown option ${wrong} (--help: usage)\n`);
  process.exit(2);
}
try {
  if (args[0] === '--comparison') {
    const results = keptReports().flatMap((name) => {
      try {
        return [{ name, result: parseResult(readFileSync(`${perf}${name}`, 'utf8'), name) }];
      } catch (error) {
        // perf/ may also contain JSON files of other programs.
        process.stderr.write(`${error instanceof Error ? error.message : error}: skipped\n`);
        return [];
      }
    });
    const newest = newestReport(results);
    if (newest === null) throw new Error('perf/ has no report yet: scripts/iperf-harness.sh --json FILE');
    writeFileSync(comparisonPage, `${comparison(newest.result, newest.name)}\n`);
    writeFileSync(comparisonChart, overviewSvg(newest.result));
    console.log(`docs/comparison.md, docs/comparison.svg: from perf/${newest.name}`);
  } else
    for (const file of args.length > 0 ? args : keptReports().map((name) => `${perf}${name}`)) {
      const result = parseResult(read(file), basename(file));
      const stem = file.replace(/\.json$/, '');
      const title = basename(stem);
      writeFileSync(`${stem}.md`, `${markdown(result, title)}\n`);
      writeFileSync(`${stem}.html`, await html(result, title));
      console.log(`${stem}.md ${stem}.html`);
    }
} catch (error) {
  process.stderr.write(`report: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
