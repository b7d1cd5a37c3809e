// @vitest: beside
/**
 * The protocol of the control socket. The bytes of the greeting are those of passt 2026-10-02 with the same
 * rules, and one capability of ours (0x40).
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeGreeting,
  decodeRequest,
  decodeRule,
  encodeGreeting,
  encodeRequest,
  encodeRule,
} from '../../../src/main/pasta/control-codec.ts';
import { type ForwardRule, RuleTable } from '../../../src/main/pasta/forward-rules.ts';
import { parsePortSpec } from '../../../src/main/pasta/port-spec.ts';

const LIMITS = { ipv4: true, ipv6: true, tcp: true, udp: true };
const EPHEMERAL = { first: 32768, last: 60999 };

const rules = (option: string, spec: string): readonly ForwardRule[] =>
  parsePortSpec(option, option === '-u' ? 'udp' : 'tcp', spec, option === '-T', EPHEMERAL);

const hex = (text: string): Buffer => Buffer.from(text.replace(/\/\/.*$/gm, '').replace(/\s/g, ''), 'hex');
const zeros = (count: number): string => '00'.repeat(count);

describe('control socket', () => {
  it("greeting: the bytes of passt's pesto protocol", () => {
    const inbound = new RuleTable('HOST', LIMITS);
    const outbound = new RuleTable('SPLICE', LIMITS);
    for (const [option, spec] of [
      ['-t', '8000-8010:9000-9010'],
      ['-t', '127.0.0.1%lo/7000:192.0.2.9/70'],
      ['-u', '::1/5300'],
    ] as const) {
      for (const rule of rules(option, spec)) inbound.add(rule);
    }
    for (const rule of rules('-T', '5000,auto')) outbound.add(rule);
    const expected = hex(`
      62617369 6c3a7300  00000002 00000080 00000010   // "basil:s", version 2, 128, 16
      01 484f5354 ${zeros(124)} 0000007f 00000003      // HOST, all capabilities, three rules
      ${zeros(48)}                                     // any address, no target, no interface
      1f40 1f4a 2328 06 01                             // 8000-8010 to 9000, TCP, dual stack
      ${zeros(10)} ffff 7f000001  ${zeros(10)} ffff c0000209  6c6f ${zeros(14)}
      1b58 1b58 0046 06 00                             // 7000 to 70
      ${zeros(15)} 01 ${zeros(32)}
      14b4 14b4 14b4 11 00                             // UDP
      03 53504c494345 ${zeros(122)} 0000007f 00000001  // SPLICE
      ${zeros(32)} 6c6f ${zeros(14)}
      1388 1388 1388 06 05                             // auto: scan, dual stack
      00`);
    expect(encodeGreeting([inbound, outbound]).toString('hex')).toBe(expected.toString('hex'));
  });

  it('greeting in any pieces, and request: what one end encodes the other decodes', () => {
    const table = new RuleTable('HOST', { ...LIMITS, udp: false });
    for (const rule of rules('-t', '8000-8010:9000-9010')) table.add(rule);
    const greeting = encodeGreeting([table, new RuleTable('SPLICE', LIMITS)]);
    for (let n = 0; n < greeting.length; n++)
      expect(decodeGreeting(greeting.subarray(0, n)).kind).toBe('more');
    const decoded = decodeGreeting(greeting);
    expect(decoded).toMatchObject({
      kind: 'tables',
      tables: [
        { id: 1, name: 'HOST', limits: { tcp: true, udp: false }, reports: true, rules: table.rules },
        { id: 3, name: 'SPLICE', rules: [] },
      ],
    });
    for (const wantsReport of [true, false]) {
      const request = encodeRequest(new Map([[1, table.rules]]), wantsReport);
      expect(decodeRequest(request)).toEqual({
        ...{ kind: 'tables', tables: new Map([['HOST', table.rules]]) },
        ...(wantsReport && { wantsReport }),
      });
    }
  });

  it('greeting of something else, or of random changes: invalid with a reason, no read out of bounds', () => {
    const greeting = encodeGreeting([new RuleTable('HOST', LIMITS), new RuleTable('SPLICE', LIMITS)]);
    expect(decodeGreeting(Buffer.from('HTTP/1.0 '))).toEqual({
      kind: 'invalid',
      reason: 'Bad magic number from server',
    });
    const version = Buffer.from(greeting);
    version[11] = 3;
    expect(decodeGreeting(version)).toMatchObject({ reason: 'Unsupported protocol version 3' });
    fc.assert(
      fc.property(fc.nat(greeting.length - 1), fc.nat(255), (at, value) => {
        const changed = Buffer.from(greeting);
        changed[at] = value;
        decodeGreeting(changed);
      }),
    );
  });

  it('greeting without an end, with a table twice, with a name that a terminal would obey: invalid', () => {
    const [one] = rules('-t', '80') as [ForwardRule];
    const greeting = (ids: readonly number[], rule: ForwardRule): Buffer => {
      const [hello, table] = [encodeGreeting([]).subarray(0, 20), new RuleTable('HOST', LIMITS)];
      table.add(rule);
      const bytes = encodeGreeting([table]).subarray(20, -1);
      return Buffer.concat([hello, ...ids.map((id) => Buffer.concat([Buffer.of(id), bytes.subarray(1)]))]);
    };
    expect(decodeGreeting(greeting([1, 3, 5], one)).kind).toBe('more');
    const invalid = { kind: 'invalid', reason: 'Invalid table from server' };
    expect(decodeGreeting(greeting([1, 3, 1], one))).toEqual(invalid);
    expect(
      decodeGreeting(
        greeting(
          Array.from({ length: 200 }, (_, i) => i + 1),
          one,
        ),
      ),
    ).toEqual(invalid);
    const named = { ...one, interface: '\x1b[2J' };
    expect(decodeGreeting(greeting([1], named))).toMatchObject({ reason: 'Invalid rule from server' });
  });

  it('rules: decode(encode(x)) = x', () => {
    for (const [option, spec] of [
      ['-t', 'all'],
      ['-T', 'auto'],
      ['-t', '0.0.0.0/80:192.0.2.1'],
      ['-t', '[2001:db8::1:0:0]%eth0.7/1-9'],
      ['-u', '::/53'],
    ] as const) {
      for (const rule of rules(option, spec)) expect(decodeRule(encodeRule(rule), 0)).toEqual(rule);
    }
  });

  const [rule] = rules('-t', '80') as [ForwardRule];
  const table = (id: number, ...list: readonly Buffer[]): Buffer =>
    Buffer.concat([Buffer.from([id, 0, 0, 0, list.length]), ...list]);

  it('request in any pieces: complete only with its last byte', () => {
    const whole = Buffer.concat([table(1, encodeRule(rule)), table(3), Buffer.alloc(1)]);
    for (let n = 0; n < whole.length; n++) expect(decodeRequest(whole.subarray(0, n)).kind).toBe('more');
    expect(decodeRequest(whole)).toEqual({
      kind: 'tables',
      tables: new Map([
        ['HOST', [rule]],
        ['SPLICE', []],
      ]),
    });
  });

  it.each([
    ['an unknown table', table(2)],
    ['a table twice', Buffer.concat([table(1), table(1)])],
    ['more rules than a table holds', Buffer.from([1, 0, 0, 1, 0])],
    ['bytes behind the end', Buffer.from([0, 0])],
    ['an unknown flag', table(1, Buffer.concat([encodeRule(rule).subarray(0, 55), Buffer.from([8])]))],
    ['an unknown protocol', table(1, Buffer.concat([encodeRule(rule).subarray(0, 54), Buffer.from([1, 0])]))],
    ['a range that ends before it starts', table(1, encodeRule({ ...rule, first: 81 }))],
  ])('request: %s is invalid', (_, data) => {
    expect(decodeRequest(data).kind).toBe('invalid');
  });

  it('request with changed bytes: no read out of bounds; some are still valid', () => {
    const kinds: Record<string, number> = {};
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 }),
        fc.nat(3),
        (changes, count) => {
          const data = table(count, Buffer.concat(Array.from({ length: count }, () => encodeRule(rule))));
          for (const [at, value] of changes) data[at % data.length] = value;
          const { kind } = decodeRequest(data);
          kinds[kind] = (kinds[kind] ?? 0) + 1;
        },
      ),
      { numRuns: 500 },
    );
    expect(Object.keys(kinds).length).toBeGreaterThan(1);
    expect(kinds.invalid).toBeGreaterThan(0);
  });

  it('request of random bytes: no read out of bounds', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void decodeRequest(Buffer.from(bytes))),
    );
  });
});
