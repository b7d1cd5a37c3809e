// @vitest: beside
/** Frame slots queued for host sockets: their limit, and the share of flows that drain. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { poolPlan } from '../../../src/main/cli/pool-plan.ts';
import { Counter } from '../../../src/ring/counters.ts';
import type { ThreadsPlan } from '../../../src/workers/engine-plan.ts';
import { readerSlotsOfShard, slotShares, threadPlan } from '../../../src/workers/placement.ts';
import { reassemblyLimit } from '../../../src/workers/tap/reassembly.ts';
import { foreignLimit } from '../../../src/workers/tap/tap-reader.ts';
import { longQueryLimit } from '../../../src/workers/translator/dns-forward.ts';
import { TcbFlag, TcpControlBlocks } from '../../../src/workers/translator/tcp/control-blocks.ts';
import { outOfOrderLimit } from '../../../src/workers/translator/tcp/out-of-order.ts';
import {
  Admission,
  queueBudget,
  ReceiveBuffers,
  slotRoom,
} from '../../../src/workers/translator/tcp/receive-buffers.ts';
import { NOTHING_LEFT } from '../../support/netsim/engine.ts';
import type { FakeSocket } from '../../support/netsim/fake-host.ts';
import { script } from '../../support/netsim/test-script.ts';
import { ShardRig } from '../../support/shard-rig.ts';

const FRAME = 60_000;
const STALLED = 12;
/** Large slots that queues may hold, for the pool of SimEngine. */
const BUDGET = queueBudget(
  readerSlotsOfShard({ smallSlots: 1024, largeSlots: 65, flows: 64 }, { kind: 'fused' }),
);

interface Flow {
  readonly port: number;
  readonly iss: number;
  readonly socket: FakeSocket;
  /** Next byte to send. */
  seq: number;
}

function bed() {
  const t = script({ flows: 64, window: 65535 });
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
  /** Acknowledged bytes of a flow: read from the answer to an old byte. */
  const acked = (f: Flow): number => {
    const [answer] = send(f, 0, 'ACK', 0);
    return Number(/ ack (\d+)/.exec(answer!)![1]);
  };
  /** Advertised window of a flow: read from the answer to an old byte. */
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
  /** Open flows that do not drain, and send until their windows are used up. */
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

describe('flows whose sockets accept no bytes', () => {
  it('together hold at most the budget; the rest is left for out-of-order segments and other frames', () => {
    const { stall, used } = bed();
    stall(STALLED);
    expect(used().readerLarge).toBeGreaterThan(BUDGET.large / 2);
    expect(used().readerLarge).toBeLessThanOrEqual(BUDGET.large);
    expect(used().readerSmall).toBeLessThanOrEqual(BUDGET.small);
  });

  it('a flow whose socket accepts everything: goes on with full frames and holds no slot', () => {
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

  it('scarce memory for a second: one log line, however many segments are refused', () => {
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

  it('a further one: only bytes that its socket took are acknowledged, no slot is held', () => {
    const { t, stall, connect, send, acked, used } = bed();
    stall(STALLED);
    const before = used();
    const refused = t.engine.counters[Counter.tcpRefused]!;
    const f = connect(1000);
    send(f, FRAME);
    expect(acked(f)).toBe(1001);
    expect(f.socket.received).toBe(1000);
    expect(t.engine.ctx.flows.fromGuestBytes[f.socket.flow]).toBe(1000);
    expect(used().readerLarge).toBe(before.readerLarge);
    expect(used().readerSmall).toBe(before.readerSmall);
    expect(t.engine.counters[Counter.tcpRefused]).toBe(refused + 1);
  });

  it('a refused flow: window update when its socket has room; no byte is lost or doubled', () => {
    const { t, stall, connect, send, acked, window } = bed();
    stall(STALLED);
    const f = connect(1000);
    send(f, FRAME);
    f.socket.giveRoom(1e6);
    // Sent unasked: the guest needs no window probe.
    const heard = t.segments();
    expect(heard.length).toBeGreaterThan(0);
    expect(t.windowOf(heard.at(-1)!)).toBeGreaterThan(FRAME);
    expect(window(f)).toBeGreaterThan(FRAME);
    send(f, FRAME, 'PSH,ACK', acked(f));
    expect(acked(f)).toBe(1001 + FRAME);
    expect(f.socket.received).toBe(1000 + FRAME);
  });

  it('FIN after refused bytes: accepted only after them', () => {
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

  it('FIN after provisional bytes: the peer gets all bytes and FIN', () => {
    const { stall, connect, send, acked } = bed();
    stall(STALLED);
    const f = connect();
    send(f, FRAME, 'FIN,PSH,ACK');
    expect(acked(f)).toBe(FRAME + 2);
    expect(f.socket.received).toBe(FRAME);
    expect(f.socket.gotFin).toBe(true);
  });

  it('they drain: all acknowledged bytes arrive, every window opens', () => {
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

  it('they are reset: their slots are free for as many new flows, repeatedly', () => {
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

  it('RST at the right edge of a window whose bytes were refused: challenge ACK; the exact RST ends the flow', () => {
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

  it('no byte accepted for a second: out-of-order segments are not kept', () => {
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

  it('bytes before out-of-order segments find no room: those segments are dropped', () => {
    const { t, stall, connect, send, used } = bed();
    stall(STALLED);
    const before = used().readerSmall;
    const f = connect(1000);
    send(f, FRAME);
    send(f, 1000, 'ACK', 5001);
    expect(used().readerSmall).toBe(before + 1);
    t.out(1500);
    send(f, FRAME, 'ACK', 1001);
    expect(used().readerSmall).toBe(before);
    // All of it arrives once there is room.
    f.socket.giveRoom(1e6);
    t.out();
    send(f, 5000, 'ACK', 1001);
    expect(f.socket.received).toBe(6000);
  });
});

describe('ReceiveBuffers', () => {
  const MIB = 1024 * 1024;
  const [A, B] = [0, 1];
  const begin = () => {
    const rig = new ShardRig();
    const tcb = new TcpControlBlocks(4);
    const buffers = new ReceiveBuffers(rig.ctx, tcb, { small: 1000, large: 160 });
    for (const flow of [A, B]) {
      tcb.begin(flow, 4, 0, 0);
      tcb.flags[flow]! |= TcbFlag.wscaleOk;
      buffers.begin(flow);
    }
    return { ctx: rig.ctx, tcb, buffers };
  };
  const large = (slots: number): number => slots << 16;

  it('admits exactly what fits, of either slot kind, and one more slot provisionally', () => {
    const { buffers } = begin();
    // Seven eighths of the budget are 875 and 140.
    buffers.add(B, 1, 800 + large(130), false);
    expect(buffers.admit(A, 37)).toBe(Admission.queued);
    expect(buffers.admit(A, 38)).toBe(Admission.provisional);
    expect(buffers.admit(A, large(5))).toBe(Admission.queued);
    expect(buffers.admit(A, large(6))).toBe(Admission.provisional);
  });

  it('after provisional bytes: nothing is queued, even if it fits', () => {
    const { buffers } = begin();
    buffers.add(A, 10, 1, true);
    expect(buffers.admit(A, 1)).toBe(Admission.provisional);
    buffers.onSent(A, 10, 1, true);
    expect(buffers.admit(A, 1)).toBe(Admission.queued);
  });

  it('small slots are scarce: a flow with large frames keeps its window', () => {
    const { buffers } = begin();
    buffers.add(B, 1, 1000, false);
    buffers.add(A, 1, large(1), false);
    buffers.onSent(A, 0, 0, false);
    expect(buffers.window(A, false) * 256).toBeGreaterThan(MIB / 8);
  });

  it('the last eighth of the budget: for a flow that drains, until a second after its last progress', () => {
    const { ctx, buffers } = begin();
    buffers.add(B, 1, large(130), false);
    const admit = () => buffers.admit(A, large(15));
    buffers.onSent(A, 16 * MIB - 1, 0, true);
    expect(admit()).toBe(Admission.provisional);
    buffers.onSent(A, 1, 0, true);
    expect(admit()).toBe(Admission.queued);
    ctx.now += 999;
    expect(admit()).toBe(Admission.queued);
    ctx.now += 1;
    expect(admit()).toBe(Admission.provisional);
  });

  it('a flow with a backlog, no progress for a second: stalled', () => {
    const { ctx, buffers } = begin();
    buffers.onSent(A, 10, 0, false);
    expect(buffers.isStalled(A)).toBe(false);
    ctx.now += 999;
    expect(buffers.isStalled(A)).toBe(false);
    ctx.now += 1;
    expect(buffers.isStalled(A)).toBe(true);
    buffers.onSent(A, 10, 0, true);
    ctx.now += 5000;
    expect(buffers.isStalled(A)).toBe(false);
  });

  it('provisional bytes before the right edge: the edge stays', () => {
    const { tcb, buffers } = begin();
    tcb.rcvNxt[A] = 1000;
    buffers.window(A, false);
    const edge = tcb.rcvAdv[A]!;
    // A backlog of the whole limit, then provisional bytes.
    buffers.add(A, buffers.limit[A]!, large(1), false);
    buffers.add(A, 20_000, large(1), true);
    tcb.rcvNxt[A]! += 20_000;
    const field = buffers.window(A, false);
    expect(tcb.rcvAdv[A]).toBe(edge);
    expect(1000 + field * 256).toBeGreaterThan(edge - 256);
  });
});

describe('segments out of order', () => {
  it('one flow: at most 1,024 are kept, whatever the pool has', () => {
    const t = script({ smallSlots: 16_384, largeSlots: 129, window: 65535 });
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

  it('any number of flows that use all their share: never more than the budget', () => {
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

  it('one flow alone: three quarters of the budget, then less, down to nothing', () => {
    expect(slotRoom(0, 0, 100)).toBe(75);
    expect(slotRoom(0, 80, 100)).toBe(10);
    expect(slotRoom(10, 80, 100)).toBe(0);
    expect(slotRoom(0, 98, 100)).toBe(1);
    expect(slotRoom(0, 100, 100)).toBe(0);
  });
});

/** docs/architecture.md, "Memory", has the same sum in words. */
describe('sum of all bounds', () => {
  const plans: { mib: number; threads: ThreadsPlan }[] = [];
  for (let mib = 8; mib <= 1024; mib++) {
    for (let shards = 1; shards <= 16; shards++) plans.push({ mib, threads: { kind: 'pipeline', shards } });
    for (let lanes = 1; lanes <= Math.min(8, mib / 8); lanes++)
      plans.push({ mib, threads: { kind: 'lanes', lanes } });
  }

  it("every pool size and thread plan: the sum is below the reader's slots of both kinds", () => {
    for (const { mib, threads } of plans) {
      const pool = poolPlan(mib);
      const { shards, readers } = threadPlan(threads);
      const shares = slotShares(pool.smallSlots, pool.largeSlots, shards, readers);
      const readerSmall = shares.readerSmall[0]![1];
      const readerLarge = shares.readerLarge[0]![1];
      const slots = readerSlotsOfShard(pool, threads);
      const queues = queueBudget(slots);
      const outOfOrder = outOfOrderLimit(slots);
      // Each may be a small or a large slot.
      const queries = longQueryLimit(slots);
      const sharing = shards / readers;
      const foreign = readers > 1 ? foreignLimit(readerSmall, readerLarge) : { small: 0, large: 0 };
      const small = (queues.small + outOfOrder.small + queries) * sharing + foreign.small;
      const reassembled = reassemblyLimit(readerLarge);
      const large = (queues.large + outOfOrder.large + queries) * sharing + reassembled + foreign.large;
      const what = `--pool-size ${mib}, ${JSON.stringify(threads)}`;
      // One slot of each kind is always ready for the next read.
      expect(readerSmall - small, `${what}: small`).toBeGreaterThan(1);
      expect(readerLarge - large, `${what}: large`).toBeGreaterThan(1);
      expect(queues.small, what).toBeGreaterThan(0);
    }
  });
});
