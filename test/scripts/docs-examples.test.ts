/** Every command line of ours that README and docs/ show is one that our option parsers accept. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { parseOptions } from '../../perf/harness/options.ts';
import { COMMAND_NAMES } from '../../src/main/bucatini/commands.ts';
import { parseArguments } from '../../src/main/bucatini/options.ts';
import { parsePasta } from '../../src/main/pasta/parse.ts';
import { parseSlirp } from '../../src/main/slirp4netns/options.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PAGES = ['README.md', ...readdirSync(`${ROOT}docs`).map((name) => `docs/${name}`)].filter((name) =>
  name.endsWith('.md'),
);

/** Lines of code blocks: indented by four spaces, or fenced; a line that ends in a backslash continues. */
function codeLines(text: string): string[] {
  const lines: string[] = [];
  let fenced = false;
  for (const line of text.replaceAll(/\\\n\s*/g, '').split('\n')) {
    if (line.startsWith('```')) fenced = !fenced;
    else if (fenced || line.startsWith('    ')) lines.push(line.trim());
  }
  return lines;
}

/** Words of a shell command, up to the first comment, pipe, redirection or operator. */
function shellWords(line: string): string[] {
  const words: string[] = [];
  for (const [word, single, double] of line.matchAll(/'([^']*)'|"([^"]*)"|[^\s'"]+/g)) {
    if (/^(?:#.*|[|&;<>]+|[0-9]?>.*|\$\(.*)$/.test(word)) break;
    const ends = word.endsWith(';') || word.endsWith('&');
    words.push(single ?? double ?? (ends ? word.slice(0, -1) : word));
    if (ends) break;
  }
  return words;
}

const PROGRAM = /(?:^|.*\/)(bucatini|pasta|slirp4netns)$/;

/** Command lines of ours: the program's name and its arguments. */
function ourCommands(line: string): string[][] {
  const words = shellWords(line.replace(/^(?:\$ |ExecStart=)/, ''));
  const at = words.findIndex((word) => !/^[A-Z_]+=/.test(word));
  const name = PROGRAM.exec(words[at] ?? '')?.[1];
  if (name === undefined) return [];
  const args = words.slice(at + 1);
  // "bucatini (host netns, …)" in a drawing, "pasta ... COMMAND" in a synopsis, "bucatini run, process 4711" in an output
  if (args.length > 0 && /^\(|^\.\.\.$|^…$|\[|,$/.test(args[0]!)) return [];
  return [[name, ...args]];
}

function accept([program, ...args]: readonly string[]): void {
  if (program === 'pasta') {
    const parsed = parsePasta(args, { SHELL: '/bin/sh' });
    if (parsed.kind === 'usage') throw new Error(JSON.stringify(parsed));
  } else if (program === 'slirp4netns') {
    const parsed = parseSlirp(
      args.map((word) => (word === 'PID' ? '4711' : word)),
      'slirp4netns',
      {
        exists: () => true,
        interfaceAddress: () => '192.0.2.2',
      },
    );
    if (parsed.kind === 'wrong') throw new Error(JSON.stringify(parsed));
  } else {
    const command = COMMAND_NAMES.find((name) => name === args[0]);
    if (command === undefined) {
      if (/^(?:--help|--version|help|version)$/.test(args[0] ?? '')) return;
      throw new Error(`${args[0]}: no such command`);
    }
    if (command === 'bench') {
      parseOptions(args.slice(1), 2);
      return;
    }
    const behind = command === 'policy' && args[1] === 'test' ? 2 : 1;
    try {
      parseArguments(command, args.slice(behind));
    } catch (error) {
      // A file of the reader's own is all that an example may lack.
      if (!/nor a file that can be read: No such file/.test((error as Error).message)) throw error;
    }
  }
}

const found = PAGES.flatMap((page) =>
  codeLines(readFileSync(`${ROOT}${page}`, 'utf8')).flatMap((line) =>
    ourCommands(line).map((words) => ({ page, words })),
  ),
);

describe('command lines in README and docs', () => {
  it('are found', () => {
    expect(found.length).toBeGreaterThan(30);
    expect(ourCommands("$ A=1 bin/bucatini run --mtu '1500' -- sh -c 'a b' # comment")).toEqual([
      ['bucatini', 'run', '--mtu', '1500', '--', 'sh', '-c', 'a b'],
    ]);
    expect(() => accept(['bucatini', 'run', '--no-such'])).toThrow('unknown option');
  });

  it.each(found.map(({ page, words }) => [page, words.join(' '), words] as const))(
    '%s: %s',
    (_, __, words) => {
      expect(() => accept(words)).not.toThrow();
    },
  );
});
