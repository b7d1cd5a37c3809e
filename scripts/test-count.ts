// Prints one line from vitest's JSON report: `N passed, N failed, N skipped`. Called by scripts/test.sh.
// usage: scripts/node.sh scripts/test-count.ts REPORT STATUS      STATUS: vitest's exit status
// Fails when anything failed.
import { readFileSync } from 'node:fs';

/** The fields of the report that are read. */
interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

const [path = '', status = '0'] = process.argv.slice(2);
let passed = 0;
let failed = 0;
let skipped = 0;
try {
  const report: Report = JSON.parse(readFileSync(path, 'utf8'));
  passed = report.numPassedTests;
  failed = report.numFailedTests;
  skipped = report.numPendingTests + report.numTodoTests;
  for (const file of report.testResults) {
    // A file that could not be loaded, or whose hook threw, has status "failed" but no failed test.
    if (file.status === 'failed' && !file.assertionResults.some((t) => t.status === 'failed')) {
      console.log(`failed outside any test: ${file.name}`);
      failed++;
    }
  }
} catch (error) {
  console.log(`no readable report: ${error instanceof Error ? error.message : error}`);
  failed = 1;
}
if (status !== '0' && failed === 0) {
  console.log(`vitest ended with status ${status} and no failed test: see the errors above`);
  failed = 1;
}
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed === 0 ? 0 : 1;
