/** Frame slots that wait for host sockets: how many there may be, and what flows that drain still get. */
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { poolPlan } from '../../../src/main/options.ts';
import { Counter } from '../../../src/ring/counters.ts';
import { slotShares } from '../../../src/workers/plan.ts';
import { reassemblyLimit } from '../../../src/workers/reassembly.ts';
import { longQueryLimit } from '../../../src/workers/translator/dns-forward.ts';
import { outOfOrderLimit } from '../../../src/workers/translator/tcp/out-of-order.ts';
import { queueBudget, slotRoom } from '../../../src/workers/translator/tcp/receive-buffers.ts';
import { NOTHING_LEFT } from '../../support/netsim/engine.ts';
import type { FakeSocket } from '../../support/netsim/fake-host.ts';
import { Script } from '../../support/netsim/script.ts';

const FRAME = 60_000;
const STALLED = 12;
/** Large slots that queues may hold: of SimEngine's pool. */
const SHARES = slotShares(1024, 65, 1);
const BUDGET = queueBudget(SHARES.readerSmall[1], SHARES.readerLarge[1], 1);

let open: Script[] = [];
afterEach(() => {
  for (const t of open) t.close();
  open = [];
});

interface Flow {
  readonly port: number;
  readonly iss: number;
  readonly socket: FakeSocket;
  /** Next byte to send. */
  seq: number;
}

function bed() {
  const t = new Script({ flows: 64, window: 65535 });
  open.push(t);
  let ports = 40_000;
  const connect = (room = Number.POSITIVE_INFINITY): Flow => {
    t.srcPort = ports++;
    t.establish();
    t.socket.room = room;
    return { port: t.srcPort, iss: t.ourIss, socket: t.socket, seq: 1 };
  };
  const send = (f: Flow, bytes: number, flags = 'PSH,ACK', at = f.seq): string[] => {
    t.srcPort = f.port;
    t.ourIss = f.iss;
    t.send(flags, at, 1, { bytes, gsoSize: bytes > 1460 ? 1460 : 0 });
    return t.out();
  };
  /** What was acknowledged of a flow, by sending an old byte again. */
  const acked = (f: Flow): number => {
    const [answer] = send(f, 0, 'ACK', 0);
    return Number(/ ack (\d+)/.exec(answer!)![1]);
  };
  /** Windows of what the guest hears about a flow, by the same means. */
  const window = (f: Flow): number => {
    t.srcPort = f.port;
    t.ourIss = f.iss;
    t.send('ACK', 0, 1);
    return t.windowOf(t.segments().at(-1)!);
  };
  const used = () => {
    const { readerSmall = 0, readerLarge = 0 } = t.engine.leftovers();
    return { readerSmall, readerLarge };
  };
  /** Flows that do not drain, and have sent all they can. */
  const stall = (count: number): Flow[] =>
    Array.from({ length: count }, () => {
      const f = connect(1000);
      for (let i = 0; i < 6; i++) {
        const before = acked(f);
        send(f, FRAME, 'PSH,ACK', before);
        if (acked(f) === before) break;
      }
      f.seq = acked(f);
      return f;
    });
  const reset = (f: Flow): void => {
    send(f, 0, 'RST', acked(f));
    t.out(5);
  };
  return { t, connect, send, acked, window, used, stall, reset };
}

describe('flows whose sockets take nothing', () => {
  it('hold no more slots together than the budget, and leave out-of-order segments and passing frames the rest', () => {
    const { stall, used } = bed();
    stall(STALLED);
    expect(used().readerLarge).toBeGreaterThan(BUDGET.large / 2);
    expect(used().readerLarge).toBeLessThanOrEqual(BUDGET.large);
    expect(used().readerSmall).toBeLessThanOrEqual(BUDGET.small);
  });

  it('a flow whose socket takes everything goes on beside them, at full frames, and holds nothing', () => {
    const { t, stall, connect, send, acked, used } = bed();
    stall(STALLED);
    const before = used().readerLarge;
    const f = connect();
    for (let i = 0; i < 50; i++, f.seq += FRAME) send(f, FRAME);
    expect(acked(f)).toBe(1 + 50 * FRAME);
    expect(f.socket.received).toBe(50 * FRAME);
    expect(used().readerLarge).toBe(before);
    expect(t.engine.counters[Counter.tcpProvisional]).toBeGreaterThan(0);
  });

  it('memory is scarce for a second: one line says so, however many segments are held back', () => {
    const { t, stall, connect, send } = bed();
    stall(STALLED);
    expect(t.engine.logs).toEqual([]);
    const f = connect();
    for (let i = 0; i < 300; i++, f.seq += FRAME) {
      send(f, FRAME);
      t.out(10);
    }
    expect(t.engine.logs).toEqual([
      expect.stringContaining('memory for TCP uploads is taken by connections'),
    ]);
  });

  it('a further one gets nothing acknowledged that its socket did not take, and holds no slot', () => {
    const { t, stall, connect, send, acked, used } = bed();
    stall(STALLED);
    const before = used();
    const refused = t.engine.counters[Counter.tcpRefused]!;
    const f = connect(1000);
    send(f, FRAME);
    expect(acked(f)).toBe(1001);
    expect(f.socket.received).toBe(1000);
    expect(used().readerLarge).toBe(before.readerLarge);
    expect(used().readerSmall).toBe(before.readerSmall);
    expect(t.engine.counters[Counter.tcpRefused]).toBe(refused + 1);
  });

  it('a refused flow hears of room when its socket has some, and no byte is lost or doubled', () => {
    const { t, stall, connect, send, acked, window } = bed();
    stall(STALLED);
    const f = connect(1000);
    send(f, FRAME);
    f.socket.giveRoom(1e6);
    // Said by itself: the guest need not probe for it.
    const heard = t.segments();
    expect(heard.length).toBeGreaterThan(0);
    expect(t.windowOf(heard.at(-1)!)).toBeGreaterThan(FRAME);
    expect(window(f)).toBeGreaterThan(FRAME);
    send(f, FRAME, 'PSH,ACK', acked(f));
    expect(acked(f)).toBe(1001 + FRAME);
    expect(f.socket.received).toBe(1000 + FRAME);
  });

  it('FIN behind bytes that are refused: not taken before they are', () => {
    const { t, stall, connect, send, acked } = bed();
    stall(STALLED);
    const f = connect(1000);
    send(f, FRAME, 'FIN,PSH,ACK');
    expect(acked(f)).toBe(1001);
    expect(f.socket.gotFin).toBe(false);
    f.socket.giveRoom(1e6);
    t.out();
    send(f, FRAME - 1000, 'FIN,PSH,ACK', 1001);
    expect(acked(f)).toBe(FRAME + 2);
    expect(f.socket.received).toBe(FRAME);
    expect(f.socket.gotFin).toBe(true);
  });

  it('FIN behind bytes that are taken provisionally: the peer sees all of it and the end', () => {
    const { stall, connect, send, acked } = bed();
    stall(STALLED);
    const f = connect();
    send(f, FRAME, 'FIN,PSH,ACK');
    expect(acked(f)).toBe(FRAME + 2);
    expect(f.socket.received).toBe(FRAME);
    expect(f.socket.gotFin).toBe(true);
  });

  it('when they drain everything acknowledged arrives, and every window opens', () => {
    const { t, stall, window, used } = bed();
    const flows = stall(STALLED);
    for (const f of flows) f.socket.giveRoom(1e9);
    t.out(5);
    expect(used().readerLarge + used().readerSmall).toBe(0);
    for (const f of flows) {
      expect(f.socket.received).toBe(f.seq - 1);
      expect(window(f)).toBeGreaterThanOrEqual(FRAME);
    }
  });

  it('when they are reset their slots count no more: again and again as many are taken', () => {
    const { stall, reset, used, t } = bed();
    const held: number[] = [];
    for (let round = 0; round < 4; round++) {
      const flows = stall(STALLED);
      held.push(used().readerLarge);
      for (const f of flows) reset(f);
      t.out(5);
      expect(t.engine.leftovers(), `round ${round}`).toEqual(NOTHING_LEFT);
    }
    expect(new Set(held).size).toBe(1);
  });

  it('RST at the right edge of a window that was filled in vain is challenged, and its answer ends the flow', () => {
    const { t, stall, send, acked, window } = bed();
    const flows = stall(STALLED);
    const f = flows.at(-1)!;
    f.socket.giveRoom(1e9);
    t.out();
    const edge = acked(f) + window(f);
    expect(send(f, 0, 'RST', edge).length).toBe(1);
    send(f, 0, 'RST', acked(f));
    t.out(5);
    expect(t.engine.leftovers().connections).toBe(STALLED - 1);
  });

  it('their segments out of order are not kept once nothing has been taken for a second', () => {
    const { t, stall, connect, send, used } = bed();
    stall(STALLED);
    const f = connect(1000);
    send(f, FRAME);
    t.out(1500);
    const before = used().readerSmall;
    for (let i = 0; i < 20; i++) send(f, 1000, 'ACK', 1001 + 2000 * (i + 1));
    expect(used().readerSmall).toBe(before);
    f.socket.giveRoom(1e6);
    t.out();
    send(f, 1000, 'ACK', 5001);
    expect(used().readerSmall).toBe(before + 1);
  });
});

describe('segments out of order', () => {
  it('of one flow 1,024 are kept at the most, whatever the pool has', () => {
    const t = new Script({ smallSlots: 16_384, largeSlots: 129, window: 65535 });
    open.push(t);
    t.establish();
    for (let i = 1; i <= 1100; i++) {
      t.send('ACK', 1 + 2 * i, 1, { bytes: 1 });
      if (i % 50 === 0) t.out();
    }
    t.out();
    expect(t.engine.leftovers().readerSmall).toBe(1024);
  });
});

describe('slotRoom', () => {
  const budgets = fc.integer({ min: 1, max: 60_000 });

  it('flows that take all they may never hold more than the budget, however many', () => {
    fc.assert(
      fc.property(budgets, fc.integer({ min: 1, max: 300 }), (budget, flows) => {
        const held = new Array<number>(flows).fill(0);
        let all = 0;
        for (let round = 0; round < 3; round++) {
          for (let f = 0; f < flows; f++) {
            const room = slotRoom(held[f]!, all, budget);
            held[f]! += room;
            all += room;
            if (all > budget) return false;
          }
        }
        return true;
      }),
    );
  });

  it('a flow alone gets three quarters; beyond that it shrinks to nothing', () => {
    expect(slotRoom(0, 0, 100)).toBe(75);
    expect(slotRoom(0, 80, 100)).toBe(10);
    expect(slotRoom(10, 80, 100)).toBe(0);
    expect(slotRoom(0, 98, 100)).toBe(1);
    expect(slotRoom(0, 100, 100)).toBe(0);
  });
});

/** docs/architecture.md, "Memory", has the same sum in words. */
describe('sum of all bounds', () => {
  const plans: { mib: number; shards: number }[] = [];
  for (let mib = 8; mib <= 1024; mib++)
    for (let shards = 1; shards <= 16; shards++) plans.push({ mib, shards });

  it('what may wait is less than the reader has, of both kinds, for every pool size and thread plan', () => {
    for (const { mib, shards } of plans) {
      const { smallSlots, largeSlots } = poolPlan(mib);
      const shares = slotShares(smallSlots, largeSlots, shards);
      const readerSmall = shares.readerSmall[1];
      const readerLarge = shares.readerLarge[1];
      const queues = queueBudget(readerSmall, readerLarge, shards);
      const outOfOrder = outOfOrderLimit(shares, shards);
      // Each may be of either kind.
      const queries = longQueryLimit(readerLarge, shards);
      const small = (queues.small + outOfOrder.small + queries) * shards;
      const large = (queues.large + outOfOrder.large + queries) * shards + reassemblyLimit(readerLarge);
      const what = `--pool-size ${mib}, ${shards} shards`;
      // One slot of each kind stays armed.
      expect(readerSmall - small, `${what}: small`).toBeGreaterThan(1);
      expect(readerLarge - large, `${what}: large`).toBeGreaterThan(1);
      expect(queues.small, what).toBeGreaterThan(0);
    }
  });
});
