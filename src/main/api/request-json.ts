// bundle: rare
/**
 * Parser for JSON (RFC 8259) with the deviations of slirp4netns's parser, so JSON.parse cannot be used. Pure.
 *
 *   accepted   a comma behind the last member or element; digits missing on one side of the point (`1.`,
 *              `-.5`); vertical tab and form feed as white space; a byte order mark in front; anything
 *              behind the first value
 *   refused    a name twice in one object, or one with U+0000; half a surrogate pair; zero with an exponent
 *              and no point (`0e5`); numbers that do not fit a double; more than 2048 nested brackets
 */

/** What may precede a request: a byte order mark, and white space as isspace(3) defines it. */
export const BEFORE_VALUE = /^\ufeff?[ \t\n\v\f\r]*/;
const SPACE = /[ \t\n\v\f\r]*/y;
const NUMBER = /-?(?:\d+(?:\.\d*)?|(?<=-)\.\d+)(?:[eE][+-]?\d+)?/y;
/** Characters of a string up to its end, to an escape or to a control character (RFC 8259 section 7). */
const PLAIN = /[\u0020\u0021\u0023-\u005b\u005d-\uffff]*/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
const LITERALS: readonly (readonly [string, unknown])[] = [
  ['true', true],
  ['false', false],
  ['null', null],
];
/** A leading zero before another digit or before an exponent. */
const LEADING_ZERO = /^-?0[^.]/;
const MAX_DEPTH = 2048;

/**
 * Parse the first value of a text.
 * @returns the value; its objects have no prototype
 * @throws SyntaxError
 */
export const readRequestJson = (text: string): unknown => new Reader(text).first();

class Reader {
  readonly #text: string;
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
  }

  first(): unknown {
    this.#at = BEFORE_VALUE.exec(this.#text)![0].length;
    return this.#value();
  }

  #value(): unknown {
    this.#match(SPACE);
    const first = this.#text[this.#at];
    if (first === '{' || first === '[') {
      if (++this.#depth > MAX_DEPTH) throw malformed();
      const value = first === '{' ? this.#object() : this.#array();
      this.#depth--;
      return value;
    }
    if (first === '"') return this.#string();
    for (const [word, value] of LITERALS) if (this.#take(word)) return value;
    return this.#number();
  }

  #object(): Readonly<Record<string, unknown>> {
    const members: Record<string, unknown> = Object.create(null);
    this.#at++;
    while (this.#hasNext('}')) {
      const name = this.#string();
      if (name in members || name.includes('\0')) throw malformed();
      this.#match(SPACE);
      if (!this.#take(':')) throw malformed();
      members[name] = this.#value();
      if (this.#isLast('}')) break;
    }
    return members;
  }

  #array(): readonly unknown[] {
    const elements: unknown[] = [];
    this.#at++;
    while (this.#hasNext(']')) {
      elements.push(this.#value());
      if (this.#isLast(']')) break;
    }
    return elements;
  }

  /** Whether another member or element follows an opening bracket or a comma. */
  #hasNext(end: string): boolean {
    this.#match(SPACE);
    return !this.#take(end);
  }

  /** Whether the closing bracket follows. Otherwise a comma must follow, and is consumed. */
  #isLast(end: string): boolean {
    this.#match(SPACE);
    if (this.#take(end)) return true;
    if (!this.#take(',')) throw malformed();
    return false;
  }

  #string(): string {
    const from = this.#at;
    if (!this.#take('"')) throw malformed();
    while (!this.#take('"')) if (this.#match(PLAIN) + this.#match(ESCAPE) === '') throw malformed();
    const text: string = JSON.parse(this.#text.slice(from, this.#at));
    if (!text.isWellFormed()) throw malformed();
    return text;
  }

  #number(): number {
    const text = this.#match(NUMBER);
    const value = Number(text.replace(/\.(?=[eE]|$)/, ''));
    if (text === '' || LEADING_ZERO.test(text) || !Number.isFinite(value)) throw malformed();
    return value;
  }

  /**
   * Consume the text that a sticky pattern matches here.
   * @returns the text, maybe empty
   */
  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const text = pattern.exec(this.#text)?.[0] ?? '';
    this.#at += text.length;
    return text;
  }

  /**
   * Consume `word` if it is here.
   * @returns whether it was
   */
  #take(word: string): boolean {
    if (!this.#text.startsWith(word, this.#at)) return false;
    this.#at += word.length;
    return true;
  }
}

const malformed = (): SyntaxError => new SyntaxError('no JSON');
