// @vitest: beside
/** docs/metrics.md and the Grafana dashboard name only what is exported. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { CommandName } from '../../../src/main/bucatini/commands.ts';
import { parseArguments } from '../../../src/main/bucatini/options.ts';
import { ENGINE_FAMILIES, INSTANCE_FAMILIES } from '../../../src/main/metrics/families.ts';
import { generatedDocs } from '../../../src/main/metrics/texts.ts';
import { repoRoot } from '../../support/engines.ts';

/** Labels that every sample may have: of Prometheus, and of `bucatini metrics`. */
const OF_ALL = ['job', 'instance', 'pid', 'program', 'container', 'api_socket'];

/** Labels of each series. */
const SERIES = new Map<string, readonly string[]>(
  [...ENGINE_FAMILIES, ...Object.values(INSTANCE_FAMILIES)].flatMap(({ name, type, labels }) =>
    (type === 'histogram' ? ['_bucket', '_sum', '_count'] : ['']).map(
      (suffix) => [`${name}${suffix}`, [...labels, ...OF_ALL]] as const,
    ),
  ),
);

/** Series and labels of an expression of PromQL that are not exported. */
function unknown(expression: string): string[] {
  const names = [...expression.matchAll(/\bbucatini_\w+/g)].map(([name]) => name);
  const wrong = names.filter((name) => !SERIES.has(name));
  const labels = new Set(names.flatMap((name) => SERIES.get(name) ?? []));
  const grouped = [...expression.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, list = '']) => list.split(/, ?/));
  const matched = [...expression.matchAll(/[{,]\s*(\w+)(?==~?")/g)].map(([, label = '']) => label);
  return [...wrong, ...[...grouped, ...matched].filter((label) => !labels.has(label))];
}

interface Panel {
  readonly id: number;
  readonly title: string;
  readonly type: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets?: readonly { readonly expr: string; readonly legendFormat?: string }[];
}

const dashboard = JSON.parse(readFileSync(`${repoRoot}/docs/grafana/bucatini.json`, 'utf8'));
const panels: readonly Panel[] = dashboard.panels;
const page = readFileSync(`${repoRoot}/docs/metrics.md`, 'utf8');

describe('dashboard', () => {
  it('the check finds names that are not exported', () => {
    expect(unknown('sum by (thread, x) (rate(bucatini_cpu_seconds_total{mode="user",y="z"}[1m]))')).toEqual([
      'x',
      'y',
    ]);
    expect(unknown('bucatini_guest_rtt_seconds + bucatini_guest_rtt_seconds_sum')).toEqual([
      'bucatini_guest_rtt_seconds',
    ]);
  });

  it('every expression, legend and variable uses series and labels that are exported', () => {
    for (const { title, type, targets = [] } of panels) {
      expect(targets.length > 0, title).toBe(type !== 'row');
      for (const { expr, legendFormat = '' } of targets) {
        expect(unknown(expr), title).toEqual([]);
        expect(expr, title).toMatch(/bucatini_/);
        const shown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label);
        const kept = /\bby \(([^)]*)\)/.exec(expr)?.[1]?.split(/, ?/) ?? OF_ALL;
        expect(kept, `${title}: ${legendFormat}`).toEqual(expect.arrayContaining(shown));
      }
    }
    for (const { type, definition } of dashboard.templating.list)
      if (type === 'query')
        expect(unknown(definition.replace(/^label_values\((.*), (\w+)\)$/, 'sum by ($2) ($1)'))).toEqual([]);
  });

  it('panels lie beside each other, and lead to one data source', () => {
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    const taken = new Set<string>();
    for (const {
      title,
      gridPos: { x, y, w, h },
    } of panels) {
      expect(x + w, title).toBeLessThanOrEqual(24);
      for (let i = x; i < x + w; i++)
        for (let j = y; j < y + h; j++) {
          expect(taken.has(`${i} ${j}`), `${title} over another panel`).toBe(false);
          taken.add(`${i} ${j}`);
        }
    }
    const uids = [...JSON.stringify(dashboard).matchAll(/"uid":"([^"]*)"/g)].map(([, uid]) => uid);
    // biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of Grafana
    expect(new Set(uids)).toEqual(new Set(['${datasource}', 'bucatini']));
  });
});

describe('docs/metrics.md and docs/logs.md', () => {
  it.each(['metrics', 'logs'])('%s: every command of ours is one', (name) => {
    const text = readFileSync(`${repoRoot}/docs/${name}.md`, 'utf8');
    const commands = [...text.matchAll(/^(?: {4}|ExecStart=.*\/)bucatini ([^#\n]*)/gm)];
    expect(commands.length).toBeGreaterThan(0);
    for (const [line, words = ''] of commands) {
      const [command, ...args] = words.trim().split(/ +/);
      expect(parseArguments(command as CommandName, args), line).toMatchObject({ kind: 'go' });
    }
  });

  it('has the tables of the source', () => {
    for (const [file, text] of generatedDocs())
      expect(readFileSync(`${repoRoot}/${file}`, 'utf8')).toBe(text);
  });

  it('every expression and every metric in it is exported', () => {
    const expressions = [...page.matchAll(/`([^`\n]*bucatini_[^`\n]*)`/g)].map(([, text = '']) => text);
    expect(expressions.length).toBeGreaterThan(100);
    const families = new Set([...SERIES.keys()].map((name) => name.replace(/_(bucket|sum|count)$/, '')));
    for (const text of expressions) if (!families.has(text)) expect(unknown(text), text).toEqual([]);
  });
});
