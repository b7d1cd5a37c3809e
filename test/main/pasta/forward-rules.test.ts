// @vitest: beside
/**
 * Rules that the forwarding table accepts and refuses, also rules of the control socket that options cannot
 * express.
 */
import { describe, expect, it } from 'vitest';
import { ForwardMessage as M } from '../../../src/main/pasta/forward-messages.ts';
import {
  type ForwardRule,
  MAX_LISTENERS,
  MAX_RULES,
  RuleTable,
} from '../../../src/main/pasta/forward-rules.ts';

const rule = (first: number, last: number, more: Partial<ForwardRule> = {}): ForwardRule => ({
  ...{
    proto: 'tcp',
    address: '',
    interface: '',
    first,
    last,
    to: first,
    target: '',
    weak: false,
    scan: false,
  },
  ...more,
});
const empty = (): RuleTable => new RuleTable('HOST', { ipv4: true, ipv6: true, tcp: true, udp: true });

describe('a table of forwarding rules', () => {
  it('targets up to port 65535 are accepted, beyond it refused', () => {
    expect(() => empty().add(rule(80, 81, { to: 65_535 }))).toThrow(M.toPortZero);
    expect(() => empty().add(rule(80, 90, { to: 65_526 }))).toThrow(M.toPortZero);
    empty().add(rule(80, 81, { to: 65_534 }));
    empty().add(rule(80, 80, { to: 65_535 }));
    expect(() => empty().add(rule(80, 80, { to: 0 }))).toThrow(M.toPortZero);
  });

  it(`${MAX_LISTENERS} listening ports are accepted, one more is refused`, () => {
    const table = empty();
    const all = Array.from({ length: 5 }, (_, i) => rule(1, 65_535, { address: `127.0.0.${i + 1}` }));
    for (const one of all) table.add(one); // 5 short of it, as there is no port 0
    table.add(rule(1, 5, { address: '127.0.0.6' }));
    expect(table.rules.reduce((sum, { first, last }) => sum + last - first + 1, 0)).toBe(MAX_LISTENERS);
    expect(() => table.add(rule(6, 6, { address: '127.0.0.6' }))).toThrow(M.tooManyListeners(MAX_LISTENERS));
  });

  it(`${MAX_RULES} rules are accepted, one more is refused`, () => {
    const table = empty();
    for (let port = 1; port <= MAX_RULES; port++) table.add(rule(port, port));
    expect(() => table.add(rule(1000, 1000))).toThrow(M.tooManyRules(MAX_RULES));
  });
});
