// @vitest: beside
/** The listeners after a change of the set of rules. */
import { describe, expect, it } from 'vitest';
import { Errno } from '../../src/sys/constants.ts';
import type { ListenerPlan } from '../../src/workers/engine-plan.ts';
import { ListenerTable, listenerCount } from '../../src/workers/listen/listener-table.ts';

const { EADDRINUSE, EMFILE } = Errno;

/** Recorded sockets; ports in `busy` fail with EADDRINUSE. */
function makeTable(capacity: number, busy: readonly number[] = []) {
  const open = new Map<number, number>();
  const calls: string[] = [];
  const table = new ListenerTable(
    {
      open: (id, _plan, port) => {
        if (busy.includes(port)) return -EADDRINUSE;
        expect(open.has(id)).toBe(false);
        open.set(id, port);
        calls.push(`open ${port}`);
        return 0;
      },
      close: (id) => {
        calls.push(`close ${open.get(id)}`);
        expect(open.delete(id)).toBe(true);
      },
    },
    capacity,
  );
  return {
    calls,
    set: (plans: readonly ListenerPlan[]) => table.set(plans, EMFILE),
    change: (remove: readonly ListenerPlan[], add: readonly ListenerPlan[]) =>
      table.change(remove, add, EMFILE),
    ports: () => [...open.values()].sort((a, b) => a - b),
    ids: () => [...open.keys()],
  };
}

const rule = (port: number, lastPort = port, more: Partial<ListenerPlan> = {}): ListenerPlan => ({
  proto: 'tcp',
  address: '',
  port,
  lastPort,
  targetPort: port,
  ...more,
});

describe('listener table', () => {
  it('a new set: listeners in both sets stay open; others close before new ones open', () => {
    const t = makeTable(100);
    expect(t.set([rule(10, 14), rule(20)])).toEqual([]);
    t.calls.length = 0;
    expect(t.set([rule(12, 16)])).toEqual([]);
    expect(t.calls).toEqual(['close 10', 'close 11', 'close 20', 'open 15', 'open 16']);
    expect(t.ports()).toEqual([12, 13, 14, 15, 16]);
    t.set([]);
    expect(t.ports()).toEqual([]);
  });

  it('a change: closes its removals, then opens its additions; failures carry the index of the addition', () => {
    const t = makeTable(4, [30]);
    t.set([rule(10, 12), rule(20)]);
    t.calls.length = 0;
    expect(t.change([rule(11), rule(99)], [rule(30), rule(31)])).toEqual([
      { index: 0, port: 30, errno: EADDRINUSE },
    ]);
    expect(t.calls).toEqual(['close 11', 'open 31']);
    expect(t.change([], [rule(40)])).toEqual([{ index: 0, port: 40, errno: EMFILE }]);
    expect(t.change([rule(20, 20, { targetPort: 9 })], [])).toEqual([]);
    expect(t.ports()).toEqual([10, 12, 20, 31]);
  });

  it('another target, address, protocol, interface, side or path: another listener', () => {
    const t = makeTable(100);
    t.set([rule(80)]);
    const others: Partial<ListenerPlan>[] = [
      ...[{ targetPort: 81 }, { address: '127.0.0.1' }, { proto: 'udp' as const }, { interface: 'eth0' }],
      ...[
        { interface: 'eth1' },
        { targetAddress: '10.0.0.2' },
        { from: 'guest' as const },
        { path: 'splice' as const },
      ],
    ];
    for (const more of others) {
      t.calls.length = 0;
      t.set([rule(80, 80, more)]);
      expect(t.calls).toEqual(['close 80', 'open 80']);
    }
  });

  it('a port cannot be opened: the rule fails; a weak rule leaves it out, or fails if it has no other', () => {
    const t = makeTable(100, [11, 30]);
    expect(t.set([rule(10, 14)])).toEqual([{ index: 0, port: 11, errno: EADDRINUSE }]);
    expect(t.set([rule(10, 14, { weak: true }), rule(30, 30, { weak: true })])).toEqual([
      { index: 1, port: 0, errno: EADDRINUSE },
    ]);
    expect(t.ports()).toEqual([10, 12, 13, 14]);
  });

  it('capacity reached: a port fails; after a close another opens; an id is not used again at once', () => {
    const t = makeTable(3);
    expect(t.set([rule(1, 4)])).toEqual([{ index: 0, port: 4, errno: EMFILE }]);
    t.set([rule(3)]);
    expect(t.ids()).toEqual([2]);
    t.set([rule(3), rule(8)]);
    expect(t.ids()).toEqual([2, 0]);
    t.set([rule(3), rule(9)]);
    expect(t.ids()).toEqual([2, 1]);
  });

  it('a freed id: not used again while there are unused ones', () => {
    const t = makeTable(100);
    t.set([rule(1, 3)]);
    t.set([rule(1), rule(3)]);
    t.set([rule(1), rule(3), rule(7)]);
    expect(t.ids()).toEqual([0, 2, 3]);
  });

  it('socket count: the sockets that the rules need', () => {
    expect(listenerCount([rule(10, 14), { proto: 'udp', address: '', port: 5, targetPort: 5 }])).toBe(6);
  });
});
