/**
 * Renders reports from results.
 *
 * `--help` prints the usage.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { compared, readResult } from './harness/comparing.ts';
import { requirementList } from './harness/options.ts';
import { printReport } from './harness/outputs.ts';
import { comparison, newestReport } from './harness/report/comparison.ts';
import { withGains } from './harness/report/gains.ts';
import { CHECK_FAILED, checkFailures } from './harness/report/gate.ts';
import { html } from './harness/report/html.ts';
import { markdown } from './harness/report/markdown.ts';
import { parseResult } from './harness/result.ts';

const perf = fileURLToPath(new URL('.', import.meta.url));
const readme = fileURLToPath(new URL('../README.md', import.meta.url));
const docs = fileURLToPath(new URL('../docs/', import.meta.url));

const keptReports = (): readonly string[] =>
  readdirSync(perf).filter((name) => /^\d{4}-\d{2}-\d{2}-.*\.json$/.test(name));

const USAGE = `usage: npm run report -- [OPTION...] [FILE.json...]  write FILE.md and FILE.html beside each; none named: those in perf/
       npm run report -- --compare OLD.json NEW.json [--html FILE] [--json FILE]
       npm run comparison                            write docs/comparison.md, its charts and the README's figures from the newest full report in perf/

  --compare    print what is better and worse in NEW.json, beyond the spread of the rounds
  --check      status 3 when a target is missed; with --compare: when a figure is worse or a target no longer reached
  --require CELL:METRIC>=N   status 3 unless bucatini's median is so, e.g. tcp-1-up-65520:mbit>=10000; may be repeated
`;

/** Report an error in the command line in one line and exit. */
function usageError(text: string): never {
  process.stderr.write(`report: ${text} (--help: usage)\n`);
  process.exit(2);
}

function commandLine() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' },
        comparison: { type: 'boolean' },
        compare: { type: 'boolean' },
        check: { type: 'boolean' },
        require: { type: 'string', multiple: true },
        html: { type: 'string' },
        json: { type: 'string' },
      },
    });
  } catch (error) {
    return usageError(error instanceof Error ? (error.message.split('. ')[0] ?? '') : `${error}`);
  }
}

/** Print why a check failed. @returns the status */
function checkStatus(failures: readonly string[]): number {
  for (const failure of failures) process.stderr.write(`check: ${failure}\n`);
  return failures.length > 0 ? CHECK_FAILED : 0;
}

function renderComparisonPage(): void {
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
  const files = comparison(newest.result, newest.name);
  for (const { name, text } of files) writeFileSync(`${docs}${name}`, text);
  writeFileSync(readme, withGains(readFileSync(readme, 'utf8'), newest.result));
  console.log(`README.md, docs/ ${files.map(({ name }) => name).join(' ')}: from perf/${newest.name}`);
}

const { values, positionals } = commandLine();
if (values.help === true) {
  process.stdout.write(USAGE);
  process.exit(0);
}
if (values.comparison === true && (positionals.length > 0 || Object.keys(values).length > 1))
  usageError('--comparison: stands alone');
if (values.compare === true && positionals.length !== 2) usageError('--compare: want OLD.json and NEW.json');
if (values.compare !== true && (values.html !== undefined || values.json !== undefined))
  usageError('--html and --json: with --compare only');
try {
  const requirements = requirementList(values.require);
  const check = values.check === true || requirements.length > 0;
  const [oldFile = '', newFile = ''] = positionals;
  if (values.comparison === true) renderComparisonPage();
  else if (values.compare === true) {
    const now = readResult(newFile);
    const texts = compared(readResult(oldFile), oldFile, now, newFile);
    if (!printReport(texts.markdown)) process.exitCode = 1;
    if (values.html !== undefined) writeFileSync(values.html, texts.html());
    if (values.json !== undefined) writeFileSync(values.json, texts.json());
    if (check)
      process.exitCode = checkStatus(checkFailures(now, texts.comparison, requirements)) || process.exitCode;
  } else
    for (const file of positionals.length > 0 ? positionals : keptReports().map((name) => `${perf}${name}`)) {
      const result = readResult(file);
      const stem = file.replace(/\.json$/, '');
      writeFileSync(`${stem}.md`, `${markdown(result, basename(stem))}\n`);
      writeFileSync(`${stem}.html`, html(result));
      console.log(`${stem}.md ${stem}.html`);
      if (check)
        process.exitCode = checkStatus(checkFailures(result, null, requirements)) || process.exitCode;
    }
} catch (error) {
  process.stderr.write(`report: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
