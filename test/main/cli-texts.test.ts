// @vitest: beside
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { BENCH_OPTIONS } from '../../src/main/bucatini/bench-options.ts';
import { COMMANDS, generatedDocs, generatedTexts, helpText } from '../../src/main/bucatini/cli-texts.ts';
import { OPTIONS } from '../../src/main/bucatini/options.ts';
import { causes, countersMarkdown } from '../../src/main/cli/counter-texts.ts';
import { generatedDocs as ofPesto } from '../../src/main/pasta/pesto/texts.ts';
import { generatedDocs as ofPasta } from '../../src/main/pasta/texts.ts';
import { generatedDocs as ofSlirp4netns } from '../../src/main/slirp4netns/texts.ts';
import { Drop } from '../../src/proto/drop.ts';
import { StageDrop } from '../../src/workers/link/stage-drop.ts';
import { repoRoot } from './source-tree.ts';

const generated = new Map([...generatedDocs(), ...ofPasta(), ...ofSlirp4netns(), ...ofPesto()]);

describe('texts from the option table', () => {
  it.each([...generated])('%s matches the option tables (else: npm run docs)', (file, text) => {
    expect(readFileSync(`${repoRoot}/${file}`, 'utf8')).toBe(text);
  });

  it('man/ and completions/ have nothing else', () => {
    const files = ['man', 'completions'].flatMap((dir) =>
      readdirSync(`${repoRoot}/${dir}`).map((f) => `${dir}/${f}`),
    );
    expect(files.filter((file) => !generated.has(file))).toEqual([]);
  });

  it('manual pages: every option and an example; no line that fills the width is a request by accident', () => {
    const page = generated.get('man/bucatini.1')!.replaceAll('\\-', '-');
    for (const { name } of OPTIONS) expect(page).toContain(`\\fB--${name}\\fR`);
    for (const { name } of COMMANDS) expect(page).toContain(`\n\\fB${name}\\fR\n`);
    for (const [file, text] of generated) {
      if (!file.startsWith('man/')) continue;
      expect(text, file).toContain('\n.SH EXAMPLES\n');
      for (const line of text.split('\n'))
        expect(line, file).toMatch(/^$|^[^.']|^\.(TH|SH|SS|TP|PP|B|BR|br|ad|nh)( |$)/);
    }
  });

  it.each([
    ['bucatini switch-', 'switch-agent switch-over switch-back'],
    ['bucatini run --mt', '--mtu'],
    ['bucatini run --threads la', 'lanes='],
    ['bucatini run --log-level = d', 'debug'],
    ['bucatini doctor --mt', ''],
    ['bucatini help sel', 'selftest'],
    ['slirp4netns --netns-type p', 'pid path'],
    ['pasta --netns-o', '--netns-only'],
    ['pasta --conf', '--conf-path --config-net'],
  ])('bash completes "%s" to "%s"', (line, expected) => {
    const words = line.split(' ');
    const script = `${generated.get(`completions/${words[0]}.bash`)}
COMP_WORDS=(${line}) COMP_CWORD=${words.length - 1}; _${words[0]}; echo "\${COMPREPLY[@]}"`;
    const { stdout, stderr } = spawnSync('bash', ['-c', script], { encoding: 'utf8' });
    expect({ words: stdout.trim(), stderr }).toEqual({ words: expected, stderr: '' });
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
      const all = [...OPTIONS, ...BENCH_OPTIONS];
      for (const option of all)
        expect(
          new RegExp(`^  (-\\w, )?--${option.name}(?![\\w-])`, 'm').test(text),
          `${name} --${option.name}`,
        ).toBe(all.some((other) => other.name === option.name && other.commands.includes(name)));
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
