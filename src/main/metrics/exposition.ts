// bundle: rare
/**
 * Families as text: the text format of Prometheus, or OpenMetrics 1.0, written by prom-client's registry; and
 * which of the two a client's Accept header asks for (RFC 9110 section 12.5.1).
 */
import type { RegistryContentType } from 'prom-client';
import Registry from 'prom-client/lib/registry.js';
import type { Family } from './families.ts';

export type Format = 'text' | 'openmetrics';

/** Content-Type of each format. */
export const CONTENT_TYPES = {
  text: Registry.PROMETHEUS_CONTENT_TYPE,
  openmetrics: Registry.OPENMETRICS_CONTENT_TYPE,
} as const satisfies Record<Format, string>;

/** Write families as text. Families without samples are left out. */
export async function exposition(families: readonly Family[], format: Format): Promise<string> {
  const registry = new Registry<RegistryContentType>();
  registry.setContentType(CONTENT_TYPES[format]);
  for (const family of families)
    if (family.samples.length > 0) registry.registerMetric(metric(family) as never);
  return registry.metrics();
}

/** What the registry needs of a metric. It may change `name` before it calls get(). */
function metric({ name, type, help, samples }: Family): object {
  return {
    name,
    help,
    type,
    async get(this: { readonly name: string }) {
      const values = samples.map(({ suffix, labels, value }) => ({
        ...(suffix !== undefined && { metricName: `${name}${suffix}` }),
        labels,
        value,
      }));
      return { name: this.name, help, type, values };
    },
  };
}

interface Range {
  readonly type: string;
  readonly q: number;
  readonly version: string | undefined;
}

/** Media types of the header with their quality; what is malformed is left out. */
function ranges(accept: string): readonly Range[] {
  return accept.split(',').flatMap((part) => {
    const [type = '', ...parameters] = part.split(';').map((word) => word.trim().toLowerCase());
    if (!type.includes('/')) return [];
    const value = (name: string): string | undefined =>
      parameters.find((parameter) => parameter.startsWith(`${name}=`))?.slice(name.length + 1);
    const q = Number(value('q') ?? 1);
    return q >= 0 && q <= 1 ? [{ type, q, version: value('version')?.replaceAll('"', '') }] : [];
  });
}

const OPENMETRICS_VERSIONS: readonly (string | undefined)[] = [undefined, '1.0.0', '0.0.1'];

/**
 * Choose the format. OpenMetrics only for clients that name it, and do not prefer the other one.
 * @param accept  the header's value; absent: everything is accepted
 * @returns undefined: neither is acceptable
 */
export function negotiate(accept: string | undefined): Format | undefined {
  if (accept === undefined || accept.trim() === '') return 'text';
  const all = ranges(accept);
  const best = (matches: (range: Range) => boolean): number =>
    Math.max(-1, ...all.filter(matches).map(({ q }) => q));
  const openmetrics = best(
    ({ type, version }) => type === 'application/openmetrics-text' && OPENMETRICS_VERSIONS.includes(version),
  );
  // The most specific range that matches decides.
  const exact = best(({ type }) => type === 'text/plain');
  const ofText = best(({ type }) => type === 'text/*');
  const text = exact >= 0 ? exact : ofText >= 0 ? ofText : best(({ type }) => type === '*/*');
  if (openmetrics > 0 && openmetrics >= exact) return 'openmetrics';
  return text > 0 ? 'text' : undefined;
}
