/**
 * Reports long functions, long parameter lists, and comments wider than the code, for the reviewer of a
 * change. Nothing fails. The last part of `npm run lint`. Functions of tests are left out, because they are
 * lists of cases; comments of tests are not.
 *
 * usage: scripts/node.sh scripts/size-report.ts [--comments]    --comments: list the wide lines
 */
import { globSync, readFileSync } from 'node:fs';
import { parseAst } from 'rolldown/parseAst';

const MANY_LINES = 80;
const MANY_PARAMETERS = 7;
/** Line width of code (lineWidth in biome.json). */
const WIDE_COLUMNS = 110;

export interface FunctionSize {
  readonly name: string;
  /** Number of the first line, from 1. */
  readonly line: number;
  /** Number of lines. */
  readonly lines: number;
  readonly parameters: number;
}

/** The fields of an ESTree node that are read. */
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
 * Sizes of all functions of a module that have a body: declarations, methods, arrow functions. The lines of a
 * nested function also count for the outer one.
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
    // A function without a name gets the name of what it is assigned to, else that of the enclosing function.
    for (const value of Object.values(node))
      for (const child of Array.isArray(value) ? value : [value]) if (isNode(child)) visit(child, own);
  };
  visit(parseAst(source, { lang: 'ts' }) as unknown as Node, '(module)');
  return found;
}

/**
 * Numbers, from 1, of comment lines wider than WIDE_COLUMNS. Lines with a link are left out: links cannot be
 * wrapped.
 */
export function wideComments(source: string): readonly number[] {
  return source
    .split('\n')
    .flatMap((text, i) =>
      text.length > WIDE_COLUMNS && /^\s*(\/\/|\/?\*)/.test(text) && !/https?:\/\//.test(text) ? [i + 1] : [],
    );
}

function report(allComments: boolean): string {
  const modules = globSync('{src,bench,perf,scripts,test}/**/*.ts', {
    exclude: (name) => name === 'node_modules' || name.endsWith('/node_modules'),
  })
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
