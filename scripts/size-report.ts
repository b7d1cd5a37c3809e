/**
 * Functions and parameter lists that have grown long, comments wider than the code: a report for whoever
 * reads a change, no limit. The last part of `npm run lint`. Tests are left out, whose functions are lists of
 * cases; their comments are not.
 *
 * usage: scripts/node.sh scripts/size-report.ts [--comments]      --comments: names each wide line, not only how many there are
 */
import { globSync, readFileSync } from 'node:fs';
import { parseAst } from 'rolldown/parseAst';

const MANY_LINES = 80;
const MANY_PARAMETERS = 7;
/** As wide as Biome lets code be (biome.json). */
const WIDE_COLUMNS = 110;

export interface FunctionSize {
  readonly name: string;
  /** First line, from 1. */
  readonly line: number;
  readonly lines: number;
  readonly parameters: number;
}

/** An ESTree node, as far as it is read. */
interface Node {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly params?: readonly unknown[];
  readonly body?: unknown;
  readonly id?: { readonly name?: string } | null;
  readonly key?: { readonly name?: string };
}

const isNode = (value: unknown): value is Node =>
  typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string';

/**
 * Every function of a module with a body: declarations, methods, arrows. A nested one counts for the outer as
 * well.
 */
export function functionSizes(source: string): readonly FunctionSize[] {
  const starts = [0, ...[...source.matchAll(/\n/g)].map((match) => match.index + 1)];
  const lineOf = (at: number): number => starts.findLastIndex((start) => start <= at) + 1;
  const found: FunctionSize[] = [];
  const visit = (node: Node, name: string): void => {
    const own = node.id?.name ?? node.key?.name ?? name;
    if (/Function/.test(node.type) && node.params !== undefined && isNode(node.body)) {
      const line = lineOf(node.start);
      found.push({ name: own, line, lines: lineOf(node.end) - line + 1, parameters: node.params.length });
    }
    // A function without a name of its own is called by what it is assigned to, and else by what it lies in.
    for (const value of Object.values(node))
      for (const child of Array.isArray(value) ? value : [value]) if (isNode(child)) visit(child, own);
  };
  visit(parseAst(source, { lang: 'ts' }) as unknown as Node, '(module)');
  return found;
}

/** Lines, from 1, whose comment goes beyond the columns of code. A line with a link cannot be broken. */
export function wideComments(source: string): readonly number[] {
  return source
    .split('\n')
    .flatMap((text, i) =>
      text.length > WIDE_COLUMNS && /^\s*(\/\/|\/?\*)/.test(text) && !/https?:\/\//.test(text) ? [i + 1] : [],
    );
}

function report(allComments: boolean): string {
  const modules = globSync('{src,bench,perf,scripts,test}/**/*.ts')
    .sort()
    .map((file) => ({ file, source: readFileSync(file, 'utf8') }));
  const functions = modules
    .filter(({ file }) => !file.startsWith('test/'))
    .flatMap(({ file, source }) => functionSizes(source).map((size) => ({ file, ...size })));
  const long = functions.filter(({ lines }) => lines > MANY_LINES).sort((a, b) => b.lines - a.lines);
  const many = functions
    .filter(({ parameters }) => parameters > MANY_PARAMETERS)
    .sort((a, b) => b.parameters - a.parameters);
  const wide = modules.flatMap(({ file, source }) => wideComments(source).map((line) => `${file}:${line}`));
  const place = ({ file, line, name }: { file: string; line: number; name: string }) =>
    `${file}:${line} ${name}`;
  return [
    `${long.length} functions of more than ${MANY_LINES} lines:`,
    ...long.map((one) => `  ${`${one.lines}`.padStart(4)}  ${place(one)}`),
    `${many.length} functions with more than ${MANY_PARAMETERS} parameters:`,
    ...many.map((one) => `  ${`${one.parameters}`.padStart(4)}  ${place(one)}`),
    `${wide.length} comment lines beyond column ${WIDE_COLUMNS}${wide.length > 0 && !allComments ? ' (--comments names them)' : ''}`,
    ...(allComments ? wide.map((line) => `  ${line}`) : []),
  ].join('\n');
}

if (import.meta.main) console.log(report(process.argv.includes('--comments')));
