/**
 * The kind of a test file, from its first line. vitest.config.ts runs the two kinds one after the other.
 *
 *   // @vitest: beside   mostly waits, or does not depend on load: several files at a time
 *   // @vitest: alone    one file at a time: rates, time limits, CPU time of an idle engine. The default
 *
 * A new file is `alone` until runs have shown that other files do not disturb it.
 */
export type TestKind = 'beside' | 'alone';

/** @throws Error for another value, or a pragma that is not in the first line */
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
