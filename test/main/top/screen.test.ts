// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SORT_KEYS } from '../../../src/main/bucatini/options.ts';
import { onKey, type TopKey } from '../../../src/main/bucatini/top/keys.ts';
import type { Measured } from '../../../src/main/bucatini/top/sample.ts';
import { maxScroll, plainText, screenLines, type TopView } from '../../../src/main/bucatini/top/screen.ts';

const VIEW: TopView = {
  ...{ sort: 'rate', reversed: false, filter: '', paused: false, scroll: 0, help: false },
};
const NOW = new Date(2026, 0, 1, 14, 3, 22);

const measured = (pid: number, flows = 2, more: Partial<Measured> = {}): Measured => ({
  ...{ path: `/run/${pid}.sock`, name: 'run', pid, uptimeMs: 123_000, moreFlows: false },
  info: {
    ...{ program: 'bucatini run', version: '1', pid, interface: 'eth0', mtu: 1500 },
    ...{
      ipv4: { guest: '10.0.2.100', prefixLen: 24, gateway: '10.0.2.2' },
      threads: [],
      forwards: 0,
      uptimeMs: 0,
    },
  },
  ...{ fromGuestBytes: 2 ** 30, toGuestBytes: 2 ** 20, splicedBytes: 0, splicedRate: 0 },
  ...{ fromGuestRate: 2.1125e9, toGuestRate: 5.7e6 },
  rows: Array.from({ length: flows }, (_, i) => ({
    pid,
    flow: {
      ...{
        id: i,
        proto: 'tcp',
        state: 'established',
        path: 'tap',
        guest_addr: '10.0.2.100',
        guest_port: 40_000 + i,
      },
      ...{ remote_addr: '192.0.2.1', remote_port: 1000 + i, bytes_from_guest: 2 ** 34, bytes_to_guest: 1 },
      ...{ age_ms: 8000, rtt_us: 12_345, retransmits: 3, guest_retransmits: 1 },
    },
    ...{ fromGuestRate: 2.1125e9 - i, toGuestRate: 5.7e6 },
  })),
  drops: [
    { cause: 'tcpNoFlow', count: 7, perSecond: 0 },
    { cause: 'ipProtocol', count: 2, perSecond: 0 },
  ],
  threads: [
    { name: 'packet thread 0', share: 0.34 },
    { name: 'bucatini', share: 0.01 },
    { name: 'JITWorker', share: 0 },
  ],
  ...more,
});
const lines = (all: readonly Measured[], view: Partial<TopView> = {}, columns = 80, rows = 24): string[] =>
  screenLines(all, { ...VIEW, ...view }, { columns, rows }, NOW).map(({ text }) => text.trimEnd());

describe('the screen of top', () => {
  it('80x24, one instance: rates, flows, drops, threads; all columns; keys at the bottom', () => {
    const shown = lines([measured(1234)]);
    expect(shown).toHaveLength(24);
    expect(shown.slice(0, 7)).toEqual([
      'bucatini top  run 1234  eth0 10.0.2.100  up 2:03                        14:03:22',
      'from guest 16.9 Gbit/s (1.00 GiB)   to guest 45.6 Mbit/s (1.00 MiB)',
      'flows 2: tcp 2   drops 9: tcpNoFlow 7, ipProtocol 2',
      'threads 35%: packet thread 0 34%, bucatini 1%',
      'PROTO STATE REMOTE         FROM*   TO* BYTES    RTT RETX AGE',
      'tcp   estab 192.0.2.1:1000 16.9G 45.6M 16.0G 12.3ms    4  8s',
      'tcp   estab 192.0.2.1:1001 16.9G 45.6M 16.0G 12.3ms    4  8s',
    ]);
    expect(shown[23]).toMatch(/^q quit {2}s sort:rate/);
  });

  it('several instances: one line each, a column with the process; n shows one alone', () => {
    const all = [measured(7), measured(1234, 1, { problem: 'no answer within 3 s' })];
    const shown = lines(all);
    expect(shown[0]).toMatch(/^bucatini top {2}all 2 instances/);
    expect(shown[4]).toBe(' PID PROGRAM  FROM    TO FLOWS DROPS CPU ADDRESS');
    expect(shown[5]).toBe('   7 run     16.9G 45.6M     2     9 35% 10.0.2.100');
    expect(shown[6]).toContain('1234 run');
    expect(shown[6]).toContain('no answer: no answer within 3 s');
    expect(shown[7]).toMatch(/^ PID PROTO STATE/);
    const one = lines(all, { chosen: '/run/1234.sock' });
    expect(one[0]).toContain('run 1234');
    expect(one[0]).toContain('(2 of 2)');
    expect(one.join('\n')).toContain('no answer: no answer within 3 s');
    expect(one.join('\n')).not.toContain('   7 run');
    expect(lines(all, { chosen: '/gone' })[0]).toContain('all 2 instances');
  });

  it('narrow: columns of less use are left out, the remote end and the rate stay; its port stays', () => {
    const at = (columns: number): string =>
      lines([measured(1)], {}, columns, 24).find((l) => /REMOTE/.test(l))!;
    expect(at(60)).toContain('RETX');
    expect(at(50)).not.toContain('RETX');
    expect(at(30)).toBe('REMOTE         FROM*   TO*');
    const long = measured(1);
    const wide = {
      ...long,
      rows: long.rows.map((r) => ({ ...r, flow: { ...r.flow, remote_addr: '2001:db8:1:2:3:4:5:6' } })),
    };
    expect(lines([wide], {}, 24, 24).find((l) => /:1000/.test(l))).toMatch(/^~\S*:1000 /);
  });

  it('low: flows stay, the lines above them go', () => {
    expect(lines([measured(1)], {}, 80, 5).map((l) => l.slice(0, 10))).toEqual([
      ...['bucatini t', 'from guest', 'PROTO STAT', 'tcp   esta', 'q quit  s '],
    ]);
    expect(lines([measured(1)], {}, 80, 1)).toHaveLength(1);
  });

  it('any size, any view, hostile texts: never more lines or columns, only printable ASCII', () => {
    const hostile = '\x1b[2J\r\n\u202e\u0000日本';
    const nasty = measured(9, 3, { name: hostile, problem: hostile });
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 200 }),
        fc.integer({ min: 0, max: 60 }),
        fc.constantFrom(
          [],
          [measured(1, 50)],
          [measured(1), nasty],
          Array.from({ length: 40 }, (_, i) => measured(i)),
        ),
        fc.record({
          ...{ sort: fc.constantFrom(...SORT_KEYS), reversed: fc.boolean(), paused: fc.boolean() },
          ...{ filter: fc.constantFrom('', 'x', hostile), scroll: fc.nat(100), help: fc.boolean() },
        }),
        (columns, rows, all, view) => {
          const shown = screenLines(all, view, { columns, rows }, NOW);
          expect(shown.length).toBeLessThanOrEqual(rows);
          for (const { text } of shown) {
            expect(text.length).toBeLessThanOrEqual(columns);
            expect(text).toMatch(/^[\x20-\x7e]*$/);
          }
        },
      ),
    );
  });

  it('without a terminal: all rows, no keys', () => {
    const text = plainText([measured(1, 300)], VIEW, NOW);
    expect(text.split('\n').filter((l) => l.startsWith('tcp'))).toHaveLength(300);
    expect(text).not.toContain('quit');
    expect(plainText([], VIEW, NOW)).toContain('no running instance');
    const narrow = plainText([measured(1, 3), measured(2, 3)], VIEW, NOW, 40).split('\n'); // TERM=dumb
    expect(Math.max(...narrow.map((line) => line.length))).toBeLessThanOrEqual(40);
  });
});

describe('keys of top', () => {
  const paths = ['/a', '/b'];
  const context = { paths, pageRows: 10, maxScroll: 35 };
  const press = (view: TopView, ...keys: (string | TopKey)[]): TopView => {
    let now = view;
    for (const key of keys) {
      const next = onKey(now, typeof key === 'string' ? { name: key, text: key } : key, context);
      if (typeof next === 'string') throw new Error(next);
      now = next;
    }
    return now;
  };
  const named = (name: string): TopKey => ({ name, text: '' });

  it('q and ^C quit, ^Z suspends, also while a filter is typed', () => {
    const typing = press(VIEW, '/');
    expect(onKey(VIEW, { name: 'q', text: 'q' }, context)).toBe('quit');
    for (const view of [VIEW, typing]) {
      expect(onKey(view, { name: 'c', ctrl: true, text: '\x03' }, context)).toBe('quit');
      expect(onKey(view, { name: 'z', ctrl: true, text: '\x1a' }, context)).toBe('suspend');
    }
  });

  it('s goes through all orders and back, S the other way; r reverses', () => {
    const seen = SORT_KEYS.map((_, i) => press(VIEW, ...Array(i).fill('s')).sort);
    expect(new Set(seen).size).toBe(SORT_KEYS.length);
    expect(press(VIEW, ...SORT_KEYS.map(() => 's')).sort).toBe('rate');
    expect(press(VIEW, 's', 'S').sort).toBe('rate');
    expect(press(VIEW, 'r').reversed).toBe(true);
  });

  it('/ takes words until Enter; Escape removes them; other keys are text meanwhile', () => {
    const typed = press(VIEW, '/', 'q', named('backspace'), ':', '8', '0');
    expect(typed.typed).toBe(':80');
    const kept = press(typed, named('return'));
    expect(kept).toMatchObject({ filter: ':80' });
    expect(kept.typed).toBeUndefined();
    expect(press(kept, '/').typed).toBe(':80');
    expect(press(typed, named('escape')).filter).toBe('');
    expect(press(kept, named('escape')).filter).toBe('');
    expect(press(typed, { name: undefined, text: '\x1b[200~' }).typed).toBe(':80');
  });

  it('n and N: all, each instance, all again', () => {
    expect(press(VIEW, 'n').chosen).toBe('/a');
    expect(press(VIEW, 'n', 'n').chosen).toBe('/b');
    expect(press(VIEW, 'n', 'n', 'n').chosen).toBeUndefined();
    expect(press(VIEW, 'N').chosen).toBe('/b');
    expect(press({ ...VIEW, chosen: '/gone' }, 'n').chosen).toBe('/a');
  });

  it('scrolling stays within the rows', () => {
    expect(press(VIEW, named('pagedown'), named('down')).scroll).toBe(11);
    expect(press(VIEW, named('end'), named('pagedown')).scroll).toBe(35);
    expect(press(VIEW, named('up')).scroll).toBe(0);
    expect(press(VIEW, named('end'), named('home')).scroll).toBe(0);
    expect(maxScroll([measured(1, 50)], VIEW, { columns: 80, rows: 24 })).toBe(50 - 18);
  });
});
