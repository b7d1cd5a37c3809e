// bundle: rare
/**
 * Compiles the expression of --pcap-filter to a program of proto/frame-filter.ts. The language is a part of
 * pcap-filter(7), and the word `dropped`:
 *
 *     expression   term (and|or|&&||| term)...    `and` binds more tightly than `or`
 *     term         not|! term | ( expression ) | primitive
 *     primitive    [tcp|udp] [src|dst] host ADDR | net ADDR[/N] | port N | portrange N-M
 *                  ip | ip6 | arp | tcp | udp | icmp | icmp6 | less N | greater N
 *                  inbound | outbound | dropped
 *
 * A value alone repeats the qualifiers of the primitive before: `port 80 or 443`.
 */
import { addressParse, isV4Mapped } from '../../proto/address.ts';
import { EtherType } from '../../proto/ethernet.ts';
import { ACCEPT, FILTER_WORDS, FilterOp, REJECT } from '../../proto/frame-filter.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import { quoted, UsageError } from './values.ts';

/** Most words of an expression, and most parentheses and `not` inside one another. */
const MAX_TOKENS = 1000;
const MAX_DEPTH = 100;
const MAX_LENGTH = 0x7fff_ffff;

type Node =
  | { readonly kind: 'test'; readonly op: number; readonly args: readonly number[] }
  | { readonly kind: 'not'; readonly of: Node }
  | { readonly kind: 'and' | 'or'; readonly left: Node; readonly right: Node };

interface Token {
  readonly text: string;
  /** Of its first character, from 1 on. */
  readonly column: number;
}

/** Qualifiers, which a value alone takes over. */
interface Qualifiers {
  readonly protocol: string | undefined;
  readonly direction: 'src' | 'dst' | undefined;
  readonly kind: 'host' | 'net' | 'port' | 'portrange';
}

const test = (op: number, ...args: readonly number[]): Node => ({ kind: 'test', op, args });
const both = (kind: 'and' | 'or', left: Node, right: Node): Node => ({ kind, left, right });

/** Primitives of one word. */
const WORDS = new Map<string, Node>([
  ['ip', test(FilterOp.etherType, EtherType.ipv4)],
  ['ip6', test(FilterOp.etherType, EtherType.ipv6)],
  ['arp', test(FilterOp.etherType, EtherType.arp)],
  ['tcp', test(FilterOp.protocol, IpProtocol.tcp)],
  ['udp', test(FilterOp.protocol, IpProtocol.udp)],
  ['icmp', test(FilterOp.protocol, IpProtocol.icmp)],
  ['icmp6', test(FilterOp.protocol, IpProtocol.icmpv6)],
  ['outbound', test(FilterOp.fromGuest)],
  ['inbound', { kind: 'not', of: test(FilterOp.fromGuest) }],
  ['dropped', test(FilterOp.dropped)],
]);
const KINDS: readonly string[] = ['host', 'net', 'port', 'portrange'];
const OPERATORS: readonly string[] = ['and', '&&', 'or', '||', ')'];

/**
 * Compile an expression.
 * @returns a program for FrameFilter
 * @throws UsageError with one line that names the column
 */
export function captureFilter(text: string): Int32Array {
  return programOf(new Parser(text).parse());
}

class Parser {
  readonly #tokens: readonly Token[];
  readonly #endColumn: number;
  #next = 0;
  #depth = 0;
  #before: Qualifiers | undefined;

  constructor(text: string) {
    this.#tokens = [...text.matchAll(/[()]|&&|\|\||!|[^\s()&|!]+|[&|]/g)].map((match) => ({
      text: match[0],
      column: match.index + 1,
    }));
    this.#endColumn = text.length + 1;
    if (this.#tokens.length > MAX_TOKENS) throw new UsageError(`has more than ${MAX_TOKENS} words`);
  }

  parse(): Node {
    const node = this.#or();
    if (this.#peek() !== undefined) this.#fail('needs "and" or "or" in front of it');
    return node;
  }

  #peek(): string | undefined {
    return this.#tokens[this.#next]?.text;
  }

  #fail(why: string): never {
    const token = this.#tokens[this.#next];
    if (token === undefined)
      throw new UsageError(`column ${this.#endColumn}: the expression ends; it ${why}`);
    throw new UsageError(`column ${token.column}: ${quoted(token.text)}: ${why}`);
  }

  #takes(...words: readonly string[]): boolean {
    const found = words.includes(this.#peek() ?? '');
    if (found) this.#next++;
    return found;
  }

  #or(): Node {
    let node = this.#and();
    while (this.#takes('or', '||')) node = both('or', node, this.#and());
    return node;
  }

  #and(): Node {
    let node = this.#term();
    while (this.#takes('and', '&&')) node = both('and', node, this.#term());
    return node;
  }

  #term(): Node {
    if (++this.#depth > MAX_DEPTH) this.#fail(`is inside more than ${MAX_DEPTH} parentheses`);
    let node: Node;
    if (this.#takes('not', '!')) node = { kind: 'not', of: this.#term() };
    else if (this.#takes('(')) {
      node = this.#or();
      if (!this.#takes(')')) this.#fail('needs ")" here');
    } else node = this.#primitive();
    this.#depth--;
    return node;
  }

  #primitive(): Node {
    const word = this.#peek();
    if (word === undefined || OPERATORS.includes(word))
      this.#fail('needs a primitive here, for example host 192.0.2.1 or port 443');
    if (word === 'less' || word === 'greater') {
      this.#next++;
      const bytes = this.#number(0, MAX_LENGTH, 'a number of bytes');
      return word === 'less' ? test(FilterOp.length, 0, bytes) : test(FilterOp.length, bytes, MAX_LENGTH);
    }
    const protocol = WORDS.has(word) ? word : undefined;
    if (protocol !== undefined) this.#next++;
    const direction: Qualifiers['direction'] = this.#takes('src')
      ? 'src'
      : this.#takes('dst')
        ? 'dst'
        : undefined;
    const kind = KINDS.includes(this.#peek() ?? '') ? this.#tokens[this.#next++]!.text : undefined;
    if (protocol !== undefined && direction === undefined && kind === undefined) return WORDS.get(protocol)!;
    if (protocol === undefined && direction === undefined && kind === undefined) {
      if (this.#before === undefined || !/^[0-9a-f]/i.test(word))
        this.#fail('is no primitive; write for example host 192.0.2.1, port 443, tcp or not arp');
      return this.#value(this.#before);
    }
    const qualifiers: Qualifiers = { protocol, direction, kind: (kind ?? 'host') as Qualifiers['kind'] };
    this.#before = qualifiers;
    return this.#value(qualifiers);
  }

  #value({ protocol, direction, kind }: Qualifiers): Node {
    const isPort = kind === 'port' || kind === 'portrange';
    const args = isPort ? this.#ports(kind === 'portrange') : this.#network(kind === 'net');
    const source = test(isPort ? FilterOp.sourcePort : FilterOp.source, ...args);
    const destination = test(isPort ? FilterOp.destinationPort : FilterOp.destination, ...args);
    const node =
      direction === 'src' ? source : direction === 'dst' ? destination : both('or', source, destination);
    return protocol === undefined ? node : both('and', WORDS.get(protocol)!, node);
  }

  #number(min: number, max: number, what: string): number {
    const text = this.#peek() ?? '';
    if (!/^[0-9]{1,10}$/.test(text) || Number(text) < min || Number(text) > max)
      this.#fail(`needs ${what} here, ${min} to ${max}`);
    this.#next++;
    return Number(text);
  }

  #ports(isRange: boolean): readonly number[] {
    if (!isRange) {
      const port = this.#number(0, 65535, 'a port');
      return [port, port];
    }
    const [, first, last] = /^([0-9]{1,5})-([0-9]{1,5})$/.exec(this.#peek() ?? '') ?? [];
    if (first === undefined || Number(first) > Number(last) || Number(last) > 65535)
      this.#fail('needs a range of ports here, for example 8000-8010');
    this.#next++;
    return [Number(first), Number(last)];
  }

  #network(hasPrefix: boolean): readonly number[] {
    const text = this.#peek() ?? '';
    const [, address = '', prefix] = /^([^/]*)(?:\/([0-9]{1,3}))?$/.exec(text) ?? [];
    const words = new Uint32Array(4);
    const what = hasPrefix ? 'a network here, for example 10.0.0.0/8' : 'an IPv4 or IPv6 address here';
    if (!addressParse(address, words, 0) || (prefix !== undefined && !hasPrefix)) this.#fail(`needs ${what}`);
    const isV4 = isV4Mapped(words, 0) && !address.includes(':');
    const most = isV4 ? 32 : 128;
    const bits = prefix === undefined ? most : Number(prefix);
    if (bits > most) this.#fail(`needs ${what}`);
    this.#next++;
    return [...Int32Array.from(words), isV4 ? 96 + bits : bits];
  }
}

/** From a tree to a program. Code is made from the end, so that every jump leads to code that exists. */
function programOf(node: Node): Int32Array {
  // Instructions in the reverse order; `next` counts from the end until it is turned round.
  const reversed: { op: number; yes: number; no: number; args: readonly number[] }[] = [];
  const emit = (of: Node, yes: number, no: number): number => {
    if (of.kind === 'not') return emit(of.of, no, yes);
    if (of.kind === 'test') return reversed.push({ op: of.op, yes, no, args: of.args }) - 1;
    const right = emit(of.right, yes, no);
    return of.kind === 'and' ? emit(of.left, right, no) : emit(of.left, yes, right);
  };
  emit(node, ACCEPT, REJECT);
  const count = reversed.length;
  const place = (next: number): number => (next < 0 ? next : count - 1 - next);
  const program = new Int32Array(count * FILTER_WORDS);
  reversed.reverse().forEach(({ op, yes, no, args }, i) => {
    program.set([op, place(yes), place(no), ...args], i * FILTER_WORDS);
  });
  return program;
}
