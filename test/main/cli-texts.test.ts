// @vitest: beside
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { COMMANDS, cliMarkdown, generatedTexts, helpText } from '../../src/main/bucatini/cli-texts.ts';
import { OPTIONS } from '../../src/main/bucatini/options.ts';
import { causes, countersMarkdown } from '../../src/main/cli/counter-texts.ts';
import { Drop } from '../../src/proto/drop.ts';
import { StageDrop } from '../../src/workers/link/stage-drop.ts';
import { repoRoot } from './source-tree.ts';

describe('texts from the option table', () => {
  it('docs/cli.md matches the option table (else: npm run docs)', () => {
    expect(readFileSync(`${repoRoot}/docs/cli.md`, 'utf8')).toBe(cliMarkdown());
  });

  it('docs/counters.md matches the counter tables (else: npm run docs)', () => {
    expect(readFileSync(`${repoRoot}/docs/counters.md`, 'utf8')).toBe(countersMarkdown());
  });

  it('docs/counters.md has a row for every cause of loss, from its comment', () => {
    const named = causes();
    expect(named.map(({ name }) => name)).toEqual([...Object.keys(Drop), ...Object.keys(StageDrop)]);
    for (const { name, help } of named) expect(help, name).toMatch(/^\S.*\.$/);
  });

  it('help lists every option of its command, no line is over 100 columns', () => {
    for (const { name } of COMMANDS) {
      const text = helpText(name);
      for (const option of OPTIONS)
        expect(new RegExp(`^ +(-., )?--${option.name}(?![\\w-])`, 'm').test(text)).toBe(
          option.commands.includes(name),
        );
      for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
    }
  });

  it('every command has a help text that the launcher finds', () => {
    const names = [...generatedTexts('1.2.3').keys()];
    expect(names).toEqual([
      'bucatini.help.sh',
      'bucatini.version.sh',
      ...COMMANDS.map((c) => `bucatini-${c.name}.help.sh`),
    ]);
    expect(generatedTexts('1.2.3').get('bucatini.version.sh')).toContain('bucatini 1.2.3\n');
  });
});
