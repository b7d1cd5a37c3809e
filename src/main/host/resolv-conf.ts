/**
 * /etc/resolv.conf, resolv.conf(5): what the host uses, and the text a namespace gets instead.
 *
 * More lenient than a strict reading (tabs, several `search` lines of which the last counts, `domain`), as
 * the C libraries are.
 */
import { readFileSync } from 'node:fs';

export const RESOLV_CONF = '/etc/resolv.conf';

export interface ResolvConf {
  /** In order; scope ids are kept, they mean host interfaces. */
  readonly nameservers: readonly string[];
  readonly search: readonly string[];
  /** The words of all `options` lines. */
  readonly options: readonly string[];
}

/** Comments and lines that mean nothing here are passed over. */
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

/** The host's, or undefined when it has none. */
export function readResolvConf(path = RESOLV_CONF): ResolvConf | undefined {
  try {
    return parseResolvConf(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/** The namespace's own file: our forwarding addresses, everything else as the host has it. */
export function resolvConfText(forwarders: readonly string[], host: ResolvConf): string {
  const lines = forwarders.map((address) => `nameserver ${address}`);
  if (host.search.length > 0) lines.push(`search ${host.search.join(' ')}`);
  if (host.options.length > 0) lines.push(`options ${host.options.join(' ')}`);
  return `${lines.join('\n')}\n`;
}
