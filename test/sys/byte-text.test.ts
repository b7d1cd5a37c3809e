// @vitest: beside
import { expect, it } from 'vitest';
import { bytesOfText, textOfBytes, textsOfBytes } from '../../src/sys/byte-text.ts';

const bytes = (...values: readonly number[]): Buffer => Buffer.from(values);

it('valid UTF-8 is decoded as usual, a byte order mark included', () => {
  for (const text of ['', 'abc', 'é€😀', '\ufeffx', '\ufffd'])
    expect(textOfBytes(Buffer.from(text))).toBe(text);
});

it.each([
  ['a byte that no sequence begins with', bytes(0x61, 0xff, 0xfe, 0x62)],
  ['continuation bytes alone', bytes(0x80, 0xbf)],
  [
    'truncated sequences, at the end and before another character',
    bytes(0xc3, 0xe2, 0x82, 0x41, 0xf0, 0x9f, 0x98),
  ],
  ['overlong forms', bytes(0xc0, 0x80, 0xe0, 0x80, 0x80, 0xf0, 0x80, 0x80, 0x80)],
  ['surrogates', bytes(0xed, 0xa0, 0x80, 0xed, 0xb2, 0x80)],
  ['beyond U+10FFFF', bytes(0xf4, 0x90, 0x80, 0x80, 0xf8, 0x88, 0x80, 0x80, 0x80)],
  ['among valid ones', Buffer.concat([Buffer.from('é😀'), bytes(0xff), Buffer.from('€')])],
  ['all bytes', Buffer.from(Array.from({ length: 256 }, (_, i) => i))],
])('%s: the same bytes again', (_, given) => {
  const text = textOfBytes(given);
  expect(text.isWellFormed()).toBe(false);
  expect(bytesOfText(text)).toEqual(given);
});

it('texts that end with NUL: empty ones count, an end without NUL too', () => {
  expect(textsOfBytes(Buffer.from('a\0\0b\0'))).toEqual(['a', '', 'b']);
  expect(textsOfBytes(Buffer.from('a\0b'))).toEqual(['a', 'b']);
  expect(textsOfBytes(bytes())).toEqual([]);
});
