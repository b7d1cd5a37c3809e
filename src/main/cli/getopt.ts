/**
 * Parses command-line words by the rules of getopt_long(3). In POSIX order ("+" as the first of its short
 * options) the first word that is not an option ends the options; in GNU order options may follow operands.
 * `--` ends the options in both. A long name may be abbreviated if the abbreviation is unique. A value
 * follows `=` or is the next word. Short options may be combined, and -Ieth0 means the same as -I eth0. Pure.
 */

/** What the parser needs to know about an option. */
export interface OptionShape {
  /** Without dashes. */
  readonly name: string;
  readonly short?: string;
  readonly takesValue: boolean;
  /**
   * The original program has no such option, so it cannot be abbreviated: the abbreviation may mean another
   * option.
   */
  readonly ours?: true;
}

/** An option in the command line. */
export interface Occurrence<T extends OptionShape> {
  readonly option: T;
  readonly value: string;
  /** As the user wrote it: `--mtu`, `-m`. */
  readonly written: string;
}

/** The command line, parsed. */
export interface Words<T extends OptionShape> {
  readonly options: readonly Occurrence<T>[];
  readonly operands: readonly string[];
  /** The error at the first bad word, in getopt's wording. `options` holds those before it. */
  readonly error?: string;
}

/**
 * Parse words as options of a table.
 * @param argv   without the program's name
 * @param table  all options
 * @param order  posix: the first operand ends the options; gnu: operands may stand between options
 */
export function getopt<T extends OptionShape>(
  argv: readonly string[],
  table: readonly T[],
  order: 'posix' | 'gnu' = 'posix',
): Words<T> {
  const options: Occurrence<T>[] = [];
  const before: string[] = [];
  let at = 0;
  while (at < argv.length) {
    const word = argv[at]!;
    if (word === '--') {
      at++;
      break;
    }
    if (word.length < 2 || word[0] !== '-') {
      if (order === 'posix') break;
      before.push(word);
      at++;
      continue;
    }
    at++;
    const error = word.startsWith('--') ? long(word) : bundle(word);
    if (error !== undefined) return { options, operands: [...before, ...argv.slice(at)], error };
  }
  return { options, operands: [...before, ...argv.slice(at)] };

  function long(word: string): string | undefined {
    const equals = word.indexOf('=');
    const name = word.slice(2, equals < 0 ? undefined : equals);
    const option = table.find((o) => o.name === name) ?? abbreviated(name);
    if (typeof option === 'string') return option;
    const written = `--${option.name}`;
    if (!option.takesValue) {
      if (equals >= 0) return `option '${written}' doesn't allow an argument`;
      options.push({ option, value: '', written });
      return undefined;
    }
    if (equals < 0 && at >= argv.length) return `option '${written}' requires an argument`;
    options.push({ option, value: equals < 0 ? argv[at++]! : word.slice(equals + 1), written });
    return undefined;
  }

  function abbreviated(name: string): T | string {
    const known = table.filter((o) => !o.ours && o.name.startsWith(name));
    if (known.length === 1) return known[0]!;
    if (known.length === 0) return `unrecognized option '--${name}'`;
    const names = known.map((o) => `'--${o.name}'`).join(' ');
    return `option '--${name}' is ambiguous; possibilities: ${names}`;
  }

  function bundle(word: string): string | undefined {
    for (let i = 1; i < word.length; i++) {
      const letter = word[i]!;
      const option = table.find((o) => o.short === letter);
      if (option === undefined) return `invalid option -- '${letter}'`;
      const written = `-${letter}`;
      if (!option.takesValue) {
        options.push({ option, value: '', written });
        continue;
      }
      const rest = word.slice(i + 1);
      if (rest === '' && at >= argv.length) return `option requires an argument -- '${letter}'`;
      options.push({ option, value: rest === '' ? argv[at++]! : rest, written });
      return undefined;
    }
    return undefined;
  }
}
