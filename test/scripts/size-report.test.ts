// @vitest: beside
import { expect, it } from 'vitest';
import { functionSizes, wideComments } from '../../scripts/size-report.ts';

it('functions: declarations, methods and arrows, with lines and parameters', () => {
  const source = `type F = (a: number, b: number) => void;
export function one(a: number,
  b: string): void {
  const inner = (x: number) => x;
}
class C {
  #two(a: number, b: number, c: number): number {
    return a + b + c;
  }
}
`;
  expect(functionSizes(source)).toEqual([
    { name: 'one', line: 2, lines: 4, parameters: 2 },
    { name: 'inner', line: 4, lines: 1, parameters: 1 },
    { name: 'two', line: 7, lines: 3, parameters: 3 },
  ]);
});

it('wide comments: listed; code and lines with a link: not', () => {
  const wide = 'x'.repeat(110);
  expect(
    wideComments(`// ${wide}\nconst a = '${wide}';\n * ${wide}\n * https://x/${wide}\n// short\n`),
  ).toEqual([1, 3]);
});
