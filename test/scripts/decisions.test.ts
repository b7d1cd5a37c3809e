// @vitest: beside
/** docs/decisions: index and pages agree. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';

const DIRECTORY = path.resolve(import.meta.dirname, '../../docs/decisions');
const read = (file: string): string => readFileSync(`${DIRECTORY}/${file}`, 'utf8');
const pages = readdirSync(DIRECTORY)
  .filter((file) => file !== 'README.md')
  .sort();
const rows = [...read('README.md').matchAll(/^\| \[(\d+)\]\(([^)]*)\) \| (.*) \| (.*) \|$/gm)].map(
  ([, no, file, title, status]) => ({ no: no!, file: file!, title: title!, status: status! }),
);

describe('decisions', () => {
  it('index: one line for each page, in order', () => {
    expect(rows.map(({ file }) => file)).toEqual(pages);
  });

  it.each(rows)('$no: number, title and status', ({ no, file, title, status }) => {
    expect(file.slice(0, no.length + 1)).toBe(`${no}-`);
    const heading = /^# (\d+): (.*)/.exec(read(file));
    expect(heading?.[1]).toBe(no);
    // Titles in the index begin with a capital letter.
    expect(heading?.[2]?.replace(/^./, (c) => c.toUpperCase())).toBe(title);
    expect(status).toMatch(/^(in force|open|superseded by \d{3})\b/);
  });

  it('a status that refers to a page: the page exists', () => {
    const numbers = new Set(rows.map(({ no }) => no));
    const named = rows.flatMap(({ status }) => status.match(/\b\d{3}\b/g) ?? []);
    expect(named.filter((no) => !numbers.has(no))).toEqual([]);
  });

  it.each(pages)('%s: has its context, and what would reopen it', (file) => {
    expect(read(file)).toMatch(/^\*\*Context\.\*\*/m);
    expect(read(file)).toMatch(/^\*\*What would reopen it\.\*\*/m);
  });
});
