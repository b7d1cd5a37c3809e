// @vitest: beside
import { describe, expect, it } from 'vitest';
import type { FlowAnswer } from '../../../src/main/api/answers.ts';
import { type FlowRow, filterRows, flowTable, sortRows } from '../../../src/main/bucatini/flow-rows.ts';
import { SORT_KEYS } from '../../../src/main/bucatini/options.ts';
import { flowRow } from '../../../src/main/bucatini/top/sample.ts';

const FLOW: FlowAnswer = {
  ...{ id: 1, proto: 'tcp', state: 'established', path: 'tap', age_ms: 8120 },
  ...{ guest_addr: '10.0.2.100', guest_port: 43210, remote_addr: '192.0.2.1', remote_port: 443 },
  ...{ bytes_from_guest: 517, bytes_to_guest: 48_213, rtt_us: 12_345, retransmits: 2, guest_retransmits: 1 },
};
const row = (flow: Partial<FlowAnswer>, more: Partial<FlowRow> = {}): FlowRow => ({
  ...{ flow: { ...FLOW, ...flow }, pid: 1, fromGuestRate: 0, toGuestRate: 0 },
  ...more,
});
const ids = (rows: readonly FlowRow[]): number[] => rows.map(({ flow }) => flow.id);

describe('flows as rows', () => {
  it('cells: ends with ports, IPv6 in brackets, pings with their identifier, figures with units', () => {
    const {
      rtt_us: _,
      retransmits: __,
      guest_retransmits: ___,
      guest_port: ____,
      remote_port: _____,
      ...ping
    } = FLOW;
    const v6 = { remote_addr: '2001:db8::1', guest_addr: 'fd00::2' };
    const [head, ...cells] = flowTable([
      row({}),
      row(v6),
      { ...row({}), flow: { ...ping, proto: 'icmp', echo_id: 7 } },
      row({ path: 'switched', device: 'eth0' }),
    ]);
    expect(head).toHaveLength(10);
    expect(cells).toEqual([
      [
        'tcp',
        'established',
        '10.0.2.100:43210',
        '192.0.2.1:443',
        '517 B',
        '47.1 KiB',
        '12.3 ms',
        '3',
        '8.1 s',
        'tap',
      ],
      expect.arrayContaining(['[fd00::2]:43210', '[2001:db8::1]:443']),
      ['icmp', 'established', '10.0.2.100 id 7', '192.0.2.1', '517 B', '47.1 KiB', '-', '-', '8.1 s', 'tap'],
      expect.arrayContaining(['switched eth0']),
    ]);
  });

  it.each([
    ['rate', [2, 3, 1]],
    ['bytes', [3, 1, 2]],
    ['from-guest', [1, 3, 2]],
    ['to-guest', [3, 2, 1]],
    ['rtt', [2, 3, 1]],
    ['retransmits', [1, 2, 3]],
    ['age', [3, 2, 1]],
    ['remote', [2, 1, 3]],
    ['state', [3, 1, 2]],
  ] as const)('--sort %s', (key, expected) => {
    const { rtt_us: _, ...noRtt } = FLOW;
    const rows: FlowRow[] = [
      {
        ...row({}, { fromGuestRate: 1 }),
        flow: { ...noRtt, id: 1, remote_addr: 'b', bytes_from_guest: 9, bytes_to_guest: 0, age_ms: 1 },
      },
      row(
        {
          id: 2,
          remote_addr: 'a',
          bytes_from_guest: 1,
          bytes_to_guest: 2,
          age_ms: 2,
          rtt_us: 9,
          retransmits: 1,
          state: 'syn-sent',
        },
        { toGuestRate: 9 },
      ),
      row(
        {
          id: 3,
          remote_addr: 'c',
          bytes_from_guest: 2,
          bytes_to_guest: 20,
          age_ms: 3,
          rtt_us: 8,
          retransmits: 0,
          state: 'connecting',
        },
        { fromGuestRate: 2 },
      ),
    ];
    expect(ids(sortRows(rows, key))).toEqual(expected);
    expect(ids(sortRows(rows, key, true))).toEqual([...expected].reverse());
    expect(SORT_KEYS).toContain(key);
  });

  it('equal rows: by process and id, whatever the direction', () => {
    const rows = [row({ id: 2 }, { pid: 2 }), row({ id: 1 }, { pid: 2 }), row({ id: 3 }, { pid: 1 })];
    expect(ids(sortRows(rows, 'bytes'))).toEqual([3, 1, 2]);
    expect(ids(sortRows(rows, 'bytes', true))).toEqual([3, 1, 2]);
  });

  it.each([
    ['', [1, 2]],
    ['tcp', [1]],
    ['  TCP   :443 ', [1]],
    ['tcp :53', []],
    [':53', [2]],
    ['10.0.2.100', [1, 2]],
  ])('filter "%s"', (filter, expected) => {
    const rows = [row({}), row({ id: 2, proto: 'udp', state: 'replied', remote_port: 53 })];
    expect(ids(filterRows(rows, filter))).toEqual(expected);
  });

  it('rates: of the bytes since the last measurement; a new flow with the same ends does not count the old one', () => {
    const rates = (now: Partial<FlowAnswer>, before: Partial<FlowAnswer> | undefined, seconds: number) => {
      const made = flowRow({ ...FLOW, ...now }, 1, before && { ...FLOW, ...before }, seconds);
      return [made.fromGuestRate, made.toGuestRate];
    };
    const before = { bytes_from_guest: 100, bytes_to_guest: 200, age_ms: 1000 };
    expect(rates({ bytes_from_guest: 300, bytes_to_guest: 200, age_ms: 3000 }, before, 2)).toEqual([100, 0]);
    expect(rates({ bytes_from_guest: 300, bytes_to_guest: 400, age_ms: 500 }, before, 2)).toEqual([0, 0]);
    expect(rates({ bytes_from_guest: 300, bytes_to_guest: 400, age_ms: 500 }, undefined, 2)).toEqual([
      150, 200,
    ]);
    expect(rates({ bytes_from_guest: 300, bytes_to_guest: 400, age_ms: 5000 }, undefined, 2)).toEqual([0, 0]);
    expect(rates({}, undefined, 0)).toEqual([0, 0]);
  });
});
