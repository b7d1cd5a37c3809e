/** What the steps of a command line make of the rules that a server has shown. Pure. */
import type { ShownTable } from '../control-codec.ts';

import { ForwardError, type ForwardRule, RuleTable, rulesConflict, ruleText } from '../forward-rules.ts';
import { applyPortSpec, type PortRange, parsePortSpec } from '../port-spec.ts';
import type { Step } from './options.ts';

/** Messages of passt's pesto. */
const Message = {
  unknownTable: (name: string): string => `Unsupported pif name ${name}`,
  notFound: (rule: string): string => `Couldn't find forwarding rule to delete: ${rule}`,
  differs: (rule: string, other: string): string =>
    `Specifier ${rule} conflicts with rule ${other}, but doesn't match it, can't delete`,
  unableToDelete: (rule: string): string => `Unable to delete rule ${rule}`,
} as const;

/**
 * Carry out the steps. Until the first --add or --delete, the first port option of a table replaces all of its
 * rules.
 * @param shown      tables of the server's greeting
 * @param ephemeral  ephemeral ports of the host
 * @returns the rules of all tables, by their id
 * @throws ForwardError with passt's message
 */
export function changedRules(
  shown: readonly ShownTable[],
  steps: readonly Step[],
  ephemeral: PortRange,
): ReadonlyMap<number, readonly ForwardRule[]> {
  const rules = new Map(shown.map(({ id, rules }) => [id, rules]));
  const named = (name: string): ShownTable => {
    const table = shown.find((one) => one.name === name);
    if (table === undefined) throw new ForwardError(Message.unknownTable(name));
    return table;
  };
  let mode: 'replace' | 'add' | 'delete' = 'replace';
  const cleared = new Set<number>();
  for (const step of steps) {
    if (step.kind === 'add' || step.kind === 'delete') {
      mode = step.kind;
      continue;
    }
    const { id, limits } = named(step.kind === 'clear' ? step.table : step.direction);
    if (step.kind === 'clear' || (mode === 'replace' && !cleared.has(id))) {
      rules.set(id, []);
      cleared.add(id);
    }
    if (step.kind === 'clear') continue;
    const { direction, proto, option, spec } = step;
    const table = new RuleTable(direction, limits);
    for (const rule of rules.get(id)!) table.add(rule);
    if (mode === 'delete' && spec !== 'none') {
      const unwanted = parsePortSpec(option, proto, spec, direction === 'SPLICE', ephemeral);
      rules.set(id, unwanted.reduce(without, table.rules));
    } else {
      applyPortSpec(option, proto, spec, table, ephemeral);
      rules.set(id, table.rules);
    }
  }
  return rules;
}

/** @returns `rules` without `rule`. @throws ForwardError if it is not one of them */
function without(rules: readonly ForwardRule[], rule: ForwardRule): readonly ForwardRule[] {
  const text = ruleText(rule);
  const index = rules.findIndex((known) => ruleText(known) === text);
  if (index >= 0) return rules.toSpliced(index, 1);
  const other = rules.find((known) => rulesConflict(known, rule));
  const reason = other === undefined ? Message.notFound(text) : Message.differs(text, ruleText(other));
  throw new ForwardError(`${reason}\n${Message.unableToDelete(text)}`);
}

/** The rules of all tables as passt's pesto lists them. */
export function rulesText(
  title: string,
  path: string,
  shown: readonly ShownTable[],
  rules: ReadonlyMap<number, readonly ForwardRule[]>,
): string {
  const lines = shown.flatMap(({ id, name }) => [
    `  ${name}`,
    ...(rules.get(id) ?? []).map((rule) => `    ${ruleText(rule)}`),
  ]);
  return `${[`${title} (${path})`, ...lines].join('\n')}\n`;
}
