// bundle: boot
/**
 * Texts of the kernel are bytes: arguments, environments and paths need not be valid UTF-8. Here a byte that
 * is not part of valid UTF-8 becomes the lone surrogate U+DC00 plus the byte, and that surrogate becomes the
 * byte again (as PEP 383 does). A runtime's own decoding makes U+FFFD of it, and the byte is lost.
 */

/** The character that a runtime puts in place of an invalid byte. */
export const REPLACEMENT = '\ufffd';

/** Lone surrogates for the bytes 0x80 to 0xff: others are never the first of an invalid sequence. */
const FIRST = 0xdc80;
const LAST = 0xdcff;

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function decode(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}

const sequenceLength = (first: number): number =>
  first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

/** The text of any bytes. */
export function textOfBytes(bytes: Uint8Array): string {
  const whole = decode(bytes);
  if (whole !== undefined) return whole;
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const length = sequenceLength(bytes[at]!);
    const sequence = decode(bytes.subarray(at, at + length));
    text += sequence ?? String.fromCharCode(0xdc00 | bytes[at]!);
    at += sequence === undefined ? 1 : length;
  }
  return text;
}

/**
 * Write the bytes of a text.
 * @param target  at least Buffer.byteLength(text) bytes
 * @returns the number of bytes written
 */
export function writeBytesOfText(text: string, target: Uint8Array): number {
  const encoder = new TextEncoder();
  if (text.isWellFormed()) return encoder.encodeInto(text, target).written;
  let at = 0;
  for (const character of text) {
    const code = character.codePointAt(0)!;
    if (code >= FIRST && code <= LAST) target[at++] = code & 0xff;
    else at += encoder.encodeInto(character, target.subarray(at)).written;
  }
  return at;
}

/** The bytes of a text, for functions that take a path. */
export function bytesOfText(text: string): Buffer {
  const bytes = Buffer.alloc(Buffer.byteLength(text));
  return bytes.subarray(0, writeBytesOfText(text, bytes));
}

/** Texts that end with NUL, one after the other, as in /proc/PID/cmdline and /proc/PID/environ. */
export function textsOfBytes(bytes: Uint8Array): readonly string[] {
  const texts: string[] = [];
  for (let at = 0, end: number; at < bytes.length; at = end + 1) {
    end = bytes.indexOf(0, at);
    if (end < 0) end = bytes.length;
    texts.push(textOfBytes(bytes.subarray(at, end)));
  }
  return texts;
}
