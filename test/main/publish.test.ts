// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parsePublish, publishConflict, publishText } from '../../src/main/bucatini/publish.ts';
import { UsageError } from '../../src/main/cli/values.ts';

describe('publish grammar', () => {
  for (const [text, expected] of [
    ['8080', { proto: 'tcp', address: '', port: 8080, targetPort: 8080 }],
    ['8080:80', { proto: 'tcp', address: '', port: 8080, targetPort: 80 }],
    ['*:8080:80', { proto: 'tcp', address: '', port: 8080, targetPort: 80 }],
    ['53/udp', { proto: 'udp', address: '', port: 53, targetPort: 53 }],
    ['5353:53/udp', { proto: 'udp', address: '', port: 5353, targetPort: 53 }],
    ['80/tcp', { proto: 'tcp', address: '', port: 80, targetPort: 80 }],
    ['127.0.0.1:8080', { proto: 'tcp', address: '127.0.0.1', port: 8080, targetPort: 8080 }],
    ['0.0.0.0:8080:80/udp', { proto: 'udp', address: '0.0.0.0', port: 8080, targetPort: 80 }],
    ['[::1]:8080:80', { proto: 'tcp', address: '::1', port: 8080, targetPort: 80 }],
    ['8000-8010', { proto: 'tcp', address: '', port: 8000, lastPort: 8010, targetPort: 8000 }],
    [
      '[::1]:8000-8010:90-100/udp',
      { proto: 'udp', address: '::1', port: 8000, lastPort: 8010, targetPort: 90 },
    ],
    ['[2001:DB8:0::1]:65535:1/udp', { proto: 'udp', address: '2001:db8::1', port: 65535, targetPort: 1 }],
  ] as const) {
    it(`${text}: taken`, () => expect(parsePublish(text)).toEqual(expected));
  }

  for (const text of [
    '',
    ':',
    '80:',
    ':80',
    '0',
    '65536',
    '80:0',
    '80:65536',
    '80/sctp',
    '80/',
    '80/TCP',
    '1:2:3',
    '::1:80',
    '[::1]80',
    '[::1]',
    '[127.0.0.1]:80',
    '[]:80',
    '300.0.0.1:80',
    '127.0.0.1:80:80:80',
    '8080-8090:80',
    '8080-8090:80-91',
    '8090-8080',
    '8080-',
    '-8080',
    '1-2-3',
    '65530-65536',
    '+80',
    ' 80',
    'http',
  ]) {
    it(`"${text}": refused in one line`, () => {
      expect(() => parsePublish(text)).toThrow(UsageError);
      expect(() => parsePublish(text)).toThrow(/^[^\n]+$/);
    });
  }

  it('parse(text(x)) = x', () => {
    const port = fc.integer({ min: 1, max: 65535 });
    const address = fc.oneof(fc.constant(''), fc.ipV4(), fc.constantFrom('::', '::1', '2001:db8::5'));
    fc.assert(
      fc.property(fc.constantFrom('tcp', 'udp'), address, port, port, (proto, where, from, to) => {
        const plan = { proto, address: where, port: from, targetPort: to } as const;
        expect(parsePublish(publishText(plan))).toEqual(plan);
      }),
    );
  });

  it('any text: a listener or a UsageError', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          const plan = parsePublish(text);
          expect(plan.port).toBeGreaterThan(0);
        } catch (error) {
          expect(error).toBeInstanceOf(UsageError);
        }
      }),
    );
  });
});

describe('publish conflicts', () => {
  const conflict = (...list: string[]): boolean => publishConflict(list.map(parsePublish)) !== undefined;

  it('same protocol and port, overlapping addresses: a conflict', () => {
    expect(conflict('80', '80:81')).toBe(true);
    expect(conflict('80', '127.0.0.1:80')).toBe(true);
    expect(conflict('0.0.0.0:80', '127.0.0.1:80')).toBe(true);
    expect(conflict('[::]:80', '[::1]:80')).toBe(true);
    expect(conflict('81', '82', '127.0.0.1:81')).toBe(true);
  });

  it('different protocol, port, address or family: no conflict', () => {
    expect(conflict('80', '80/udp')).toBe(false);
    expect(conflict('80', '81:80')).toBe(false);
    expect(conflict('127.0.0.1:80', '127.0.0.2:80')).toBe(false);
    expect(conflict('0.0.0.0:80', '[::]:80')).toBe(false);
  });
});
