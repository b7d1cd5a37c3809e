/**
 * What a test file says of itself in its first line; vitest.config.ts runs the two kinds one after the other.
 *
 *   // @vitest: beside   it mostly waits, or no neighbour can change its outcome: several at a time
 *   // @vitest: alone    one at a time: rates, starts and ends within a time, CPU time of an idle engine. The default
 *
 * A new file is `alone` until somebody has seen that neighbours do not disturb it.
 */
export type TestKind = 'beside' | 'alone';

/** @throws Error where the line says something else, or is not the first */
export function testKind(source: string): TestKind {
  const said = [...source.matchAll(/^\/\/ *@vitest:(.*)$/gm)];
  if (said.length === 0) return 'alone';
  const kind = said[0]![1]!.trim();
  if (said.length > 1 || said[0]!.index !== 0)
    throw new Error('"// @vitest:" belongs into the first line, once');
  if (kind !== 'beside' && kind !== 'alone')
    throw new Error(`"// @vitest: ${kind}" is neither beside nor alone`);
  return kind;
}
