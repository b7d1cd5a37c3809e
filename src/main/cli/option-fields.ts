/**
 * Setters for option tables. Most options put their value into one field of the draft, which holds the
 * command line as far as it has been parsed.
 *
 *     const { fixed, verbatim, parsed } = fieldsOf<Draft>();
 *     { name: 'quiet', set: fixed('verbosity', 'quiet') },
 *     { name: 'log-file', value: 'FILE', set: verbatim('logFile') },
 *     { name: 'mac-addr', value: 'MAC', set: parsed('mac', mac) },
 */
export interface Fields<D> {
  /** A flag: the field becomes `value`. */
  fixed<K extends keyof D>(key: K, value: D[K]): (draft: D) => void;
  /** The field becomes the text, unchecked. */
  verbatim<K extends TextKey<D>>(key: K): (draft: D, text: string) => void;
  /** The field becomes the result of `parse`, which may throw UsageError. */
  parsed<K extends keyof D>(key: K, parse: (text: string) => D[K]): (draft: D, text: string) => void;
}

type TextKey<D> = { [K in keyof D]-?: string extends D[K] ? K : never }[keyof D];

/** The setters for a table whose draft has type D. */
export function fieldsOf<D extends object>(): Fields<D> {
  return {
    fixed: (key, value) => (draft) => {
      draft[key] = value;
    },
    verbatim: (key) => (draft, text) => {
      Object.assign(draft, { [key]: text });
    },
    parsed: (key, parse) => (draft, text) => {
      draft[key] = parse(text);
    },
  };
}

/** The names of an option as a user writes them: -s, --long. */
export const namesOf = (o: { readonly name: string; readonly short?: string }): string[] =>
  o.short === undefined ? [`--${o.name}`] : [`-${o.short}`, `--${o.name}`];

/** Help text of --api-socket, in `bucatini` and in `pasta`. */
export const API_SOCKET_HELP =
  'Unix socket for requests while running: publish ports, list flows, read counters';
