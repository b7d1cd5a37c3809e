import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readRequestJson } from '../../src/main/api/request-json.ts';

/** Texts that slirp4netns 1.3.3 accepts and refuses. */
describe('requests are parsed as by slirp4netns', () => {
  it.each([
    ['{"a":1,}', { a: 1 }],
    ['{"a":[1,2 ,\n], "b":{"c":1,},}', { a: [1, 2], b: { c: 1 } }],
    [
      '{"a":1.,"b":-1.e2,"c":-.5,"d":0.,"e":-0.0,"f":2.5E-1}',
      { a: 1, b: -100, c: -0.5, d: 0, e: -0, f: 0.25 },
    ],
    ['{"a":1e-999}', { a: 0 }],
    ['\ufeff\v\f {"a"\v:\f1}', { a: 1 }],
    ['{"":1,"__proto__":2}', JSON.parse('{"":1,"__proto__":2}')],
    ['{"a":"\\ud83d\\ude00\\u0000\\/"}', { a: '😀\0/' }],
    ['{"a":"\u007f\u0085é😀"}', { a: '\u007f\u0085é😀' }],
    ['{} // and what comes behind', {}],
    ['{}}', {}],
    ['[1,]x', [1]],
    ['"a" x', 'a'],
    ['nullx', null],
    ['1.5x', 1.5],
    [`${'['.repeat(2047)}${']'.repeat(2047)}`.slice(0, 4094), expect.any(Array)],
  ])('%j is taken', (text, value) => {
    expect(readRequestJson(text)).toEqual(value);
  });

  it.each([
    ...[
      '',
      ' ',
      '{,}',
      '[,]',
      '[1,,2]',
      '{"a":1,,}',
      '{"a":1 "b":2}',
      '{"a"}',
      '{"a":}',
      '{"a" 1}',
      '{a:1}',
      '{1:2}',
    ],
    ...["{'a':1}", '{"a":1;"b":2}', '{"a":1', '[1', '[}', '{]', '{"a":[1}', '// c\n{}', '{"a":1 /* c */}'],
    ...['{"a":1,"a":1}', '{"a":{"b":1,"b":2}}', '{"a\\u0062":1,"ab":2}', '{"a\\u0000b":1}'],
    ...['[TRUE]', '[truex]', '[nul]', '[undefined]', '[NaN]', '[-inf]', '[Infinity]', '[1e999]', '[-1e999]'],
    ...[
      '[+1]',
      '[01]',
      '[-01]',
      '[00]',
      '[0x10]',
      '[.5]',
      '[1e]',
      '[1e+]',
      '[0e5]',
      '[-0e1]',
      '[-]',
      '[- 1]',
      '[1 2]',
      '[1_0]',
    ],
    ...[
      '["\t"]',
      '["\n"]',
      '["\\x41"]',
      '["\\\'"]',
      '["\\U0041"]',
      '["\\u004"]',
      '["\\ud800"]',
      '["\\udc00"]',
      '["\\ud800x"]',
    ],
    ...['["a', '["\\', '\u00a0{}', '\u2028{}', '{\u00a0}', '['.repeat(4094)],
  ])('%j is refused', (text) => {
    expect(() => readRequestJson(text)).toThrow(SyntaxError);
  });

  it('parse(JSON.stringify(x)) = x', () => {
    const strings = fc.string({ unit: 'grapheme' }).filter((s) => s.isWellFormed() && !s.includes('\0'));
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        ...[fc.constant(null), fc.boolean(), strings],
        fc.double({ noNaN: true, noDefaultInfinity: true }).filter((n) => !/^-?0e/.test(JSON.stringify(n))),
        fc.array(tie('value')),
        fc.dictionary(strings, tie('value')),
      ),
    }));
    fc.assert(
      fc.property(value, fc.constantFrom(undefined, 2), (v, indent) => {
        expect(readRequestJson(JSON.stringify(v, null, indent))).toEqual(JSON.parse(JSON.stringify(v)));
      }),
    );
  });

  it('any text: a value or a SyntaxError', () => {
    const pieces = fc.constantFrom(
      ...'{}[]",:\\ \n',
      '"a"',
      '1',
      '-',
      '.',
      'e5',
      'true',
      '\\u',
      'd800',
      '\0',
      '\ufeff',
    );
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 40 }), (parts) => {
        try {
          readRequestJson(parts.join(''));
        } catch (error) {
          expect(error).toBeInstanceOf(SyntaxError);
        }
      }),
    );
  });
});
