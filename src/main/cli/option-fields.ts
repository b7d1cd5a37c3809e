import { UsageError } from './values.ts';

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
  'Unix socket for requests while running: publish ports, list flows, read counters, change the policy';

/** The value `auto` of --api-socket, in all programs (main/api/socket-directory.ts). */
export const API_SOCKET_AUTO =
  'auto: a path below XDG_RUNTIME_DIR where `bucatini top`, `flows`, `ports`, `stats` and `policy` find it.';

/** Help text of --metrics, in all programs. */
export const METRICS_HELP =
  'Serve metrics for Prometheus by HTTP (docs/metrics.md): on this port of the host, on 127.0.0.1 unless ADDR is given, or on a Unix socket of mode 0600.';

/** The options of an egress policy, unparsed. */
export interface EgressOptions {
  /** Values of --allow and --deny, in their order. */
  readonly egress: readonly { readonly allow: boolean; readonly text: string }[];
  /** File of --policy. */
  readonly policy?: string;
}

type EgressDraft = { -readonly [K in keyof EgressOptions]?: EgressOptions[K] };

const addRule =
  (allow: boolean) =>
  (draft: EgressDraft, text: string): void => {
    draft.egress = [...(draft.egress ?? []), { allow, text }];
  };

const RULES = 'TARGET[:PORT[-PORT]][/PROTO],...';

/** The options of the egress policy, in all programs. `set` throws UsageError without option and value. */
export const POLICY_OPTIONS = [
  {
    name: 'allow',
    value: RULES,
    help: 'Programs inside may reach these destinations: a prefix (10.0.0.0/8; an IPv6 one with ports in brackets), a name (example.org, *.example.org: the addresses that our DNS forwarder answers), or any, private, internet, host, multicast. PROTO: tcp, udp, icmp or dns (docs/policy.md). The first of all --allow and --deny that matches decides; what none matches is denied if there is an --allow.',
    set: addRule(true),
  },
  {
    name: 'deny',
    value: RULES,
    help: 'Programs inside may not reach these destinations: TCP is reset, UDP and ping get an ICMP error, names REFUSED. Values as for --allow.',
    set: addRule(false),
  },
  {
    name: 'policy',
    value: 'FILE',
    help: 'Rules as for --allow and --deny, one in each line (docs/policy.md). They come after those of the options.',
    set: (draft: EgressDraft, text: string): void => {
      if (text === '') throw new UsageError('is empty; write a file name');
      draft.policy = text;
    },
  },
] as const;
