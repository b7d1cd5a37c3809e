// @vitest: beside
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { bashCompletion } from '../../../src/main/cli/completion.ts';
import { SHOWN_OPTIONS } from '../../../src/main/pasta/options.ts';
import { generatedDocs, manPage, PROGRAM, usageText } from '../../../src/main/pasta/texts.ts';
import { repoRoot } from '../source-tree.ts';

describe('texts of pasta', () => {
  it.each([...generatedDocs()])('%s matches the option table (else: npm run docs)', (file, text) => {
    expect(readFileSync(`${repoRoot}/${file}`, 'utf8')).toBe(text);
  });

  it('help and manual list every accepted option, in lines that fit', () => {
    const help = usageText();
    const page = manPage().replaceAll('\\-', '-');
    for (const { name } of SHOWN_OPTIONS) {
      expect(help).toContain(`--${name}`);
      expect(page).toContain(`\\fB--${name}\\fR`);
    }
    for (const line of help.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });

  it.each([
    ['--conf', ['--conf-path', '--config-net']],
    ['--netns-o', ['--netns-only']],
  ])('completion of %s: the expected words', (word, expected) => {
    const script = `${bashCompletion(PROGRAM)}
COMP_WORDS=(pasta ${word}) COMP_CWORD=1; _pasta; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout, stderr } = spawnSync('bash', ['-c', script], { encoding: 'utf8' });
    expect({ words: stdout.trim().split('\n'), stderr }).toEqual({ words: expected, stderr: '' });
  });
});
