/** `--compare OLD.json NEW.json` of the harness and of `npm run report`: reads two results, measures nothing. */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { UsageError } from './options.ts';
import { reasonText } from './outputs.ts';
import { type Comparison, compareResults } from './report/compare.ts';
import { compareHtml, compareMarkdown } from './report/compare-report.ts';
import { parseResult, type Result } from './result.ts';

/** @throws UsageError naming the file, when it cannot be read or is no result */
export function readResult(file: string): Result {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(`${file}: ${reasonText(error, 'file')}`);
  }
  try {
    return parseResult(text, file);
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : `${error}`);
  }
}

/** A comparison in all of its forms. */
export interface ComparisonTexts {
  readonly comparison: Comparison;
  readonly markdown: string;
  readonly html: () => string;
  /** A row for each figure, for other programs. */
  readonly json: () => string;
}

/**
 * @param oldName  of the old result, in titles
 * @throws UsageError when the two have nothing in common
 */
export function compared(old: Result, oldName: string, now: Result, nowName: string): ComparisonTexts {
  const names = [basename(oldName), basename(nowName)] as const;
  let comparison: Comparison;
  try {
    comparison = compareResults(old, now);
  } catch (error) {
    throw new UsageError(
      `--compare ${oldName} ${nowName}: ${error instanceof Error ? error.message : error}`,
    );
  }
  const rows = comparison.rows.map(({ cell, kind: _, isMain: __, ...row }) => ({ cell: cell.id, ...row }));
  return {
    comparison,
    markdown: compareMarkdown(comparison, names),
    html: () => compareHtml(comparison, names),
    json: () =>
      `${JSON.stringify({ old: names[0], now: names[1], warnings: comparison.warnings, rows }, null, 1)}\n`,
  };
}
