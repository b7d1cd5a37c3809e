/**
 * /etc/resolv.conf, resolv.conf(5): parses the host's file and makes the text for the namespace.
 *
 * The parser is as lenient as the C libraries: it accepts tabs, several `search` lines (the last one counts)
 * and `domain`.
 */
import { readFileSync } from 'node:fs';

export const RESOLV_CONF = '/etc/resolv.conf';

/** The contents of a resolv.conf. */
export interface ResolvConf {
  /** In order. Scope ids are kept: they name host interfaces. */
  readonly nameservers: readonly string[];
  readonly search: readonly string[];
  /** The words of all `options` lines. */
  readonly options: readonly string[];
}

/** Parse a text. Comments and unknown lines are ignored. */
export function parseResolvConf(text: string): ResolvConf {
  const nameservers: string[] = [];
  let search: string[] = [];
  const options: string[] = [];
  for (const line of text.split('\n')) {
    const [key, ...words] = line
      .replace(/[#;].*$/, '')
      .trim()
      .split(/\s+/);
    if (key === 'nameserver' && words[0] !== undefined) nameservers.push(words[0]);
    else if (key === 'search') search = words;
    else if (key === 'domain' && words[0] !== undefined) search = [words[0]];
    else if (key === 'options') options.push(...words);
  }
  return { nameservers, search, options };
}

/**
 * Read the host's file.
 * @returns undefined if it cannot be read
 */
export function readResolvConf(path = RESOLV_CONF): ResolvConf | undefined {
  try {
    return parseResolvConf(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/**
 * The text of the namespace's own file: our forwarders' addresses as nameservers, the host's search domains
 * and options.
 */
export function resolvConfText(forwarders: readonly string[], host: ResolvConf): string {
  const lines = forwarders.map((address) => `nameserver ${address}`);
  if (host.search.length > 0) lines.push(`search ${host.search.join(' ')}`);
  if (host.options.length > 0) lines.push(`options ${host.options.join(' ')}`);
  return `${lines.join('\n')}\n`;
}
