/**
 * Command-line words as getopt_long(3) reads them does. In POSIX order ("+" in front of its short options)
 * the first word that is no option ends them; in GNU order options may follow operands. `--` ends them in
 * both. Long names may be cut short while only one begins so; values stand behind `=` or in the next word;
 * short options may be bundled, `-qI eth0` and `-Ieth0` alike. Pure.
 */

export interface OptionShape {
  /** Without dashes. */
  readonly name: string;
  readonly short?: string;
  readonly takesValue: boolean;
  /** The original has no such option: it is what the whole name means, never a part of it. */
  readonly ours?: true;
}

export interface Occurrence<T extends OptionShape> {
  readonly option: T;
  readonly value: string;
  /** As the user wrote it: `--mtu`, `-m`. */
  readonly written: string;
}

export interface Words<T extends OptionShape> {
  readonly options: readonly Occurrence<T>[];
  readonly operands: readonly string[];
  /** What is wrong with the first bad word, in getopt's phrase; `options` holds those before it. */
  readonly error?: string;
}

/**
 * Read words as options of a table.
 * @param order  whether operands end the options (posix) or may stand among them (gnu)
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
