// @vitest: beside
/** Queues of frames for host sockets: order, bytes, and freed slots. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { NO_SLOT } from '../../src/ring/pool.ts';
import type { HostContext } from '../../src/workers/host-io/context.ts';
import { SendQueues } from '../../src/workers/host-io/stream/send-queues.ts';
import { ShardRig } from '../support/shard-rig.ts';

const GID = 2;
const AT = 66;
/** Bytes of a frame in its first slot. */
const IN_A = 2048 - AT;

/** A slot and the number of frame bytes in it. */
interface Piece {
  readonly slot: number;
  bytes: number;
}

function begin() {
  const { pool, small, large, u8 } = new ShardRig();
  const freed: number[] = [];
  const freeReaderSlots = (a: number, b: number): void => {
    for (const slot of [a, b]) {
      if (slot === NO_SLOT) continue;
      freed.push(slot);
      (slot < pool.smallSlots ? small : large).push(slot);
    }
  };
  const queues = new SendQueues({ pool, u8, freeReaderSlots } as unknown as HostContext, 4);
  queues.begin(GID);
  const push = (len: number): Piece[] => {
    const pieces = [{ slot: small.pop(), bytes: Math.min(len, IN_A) }];
    if (len > IN_A) pieces.push({ slot: large.pop(), bytes: len - IN_A });
    queues.push(GID, pieces[0]!.slot, pieces[1]?.slot ?? NO_SLOT, AT, len);
    return pieces;
  };
  return { queues, push, freed, pool };
}

it('any frames in, any bytes out, any tail removed: bytes and slots add up, each slot is freed once', () => {
  const length = fc.oneof(fc.integer({ min: 1, max: 1900 }), fc.integer({ min: 1980, max: 60_000 }));
  const step = fc.oneof(
    fc.record({ push: length }),
    fc.record({ pop: fc.double({ min: 0, max: 1, noNaN: true }) }),
    fc.record({ keep: fc.nat(4) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const { queues, push, freed, pool } = begin();
      let frames: Piece[][] = [];
      const sum = (of: Piece[][]): number => of.flat().reduce((n, { bytes }) => n + bytes, 0);
      for (const s of steps) {
        const gone: number[] = [];
        if ('push' in s) frames.push(push(s.push));
        else if ('pop' in s) {
          let n = Math.floor(s.pop * sum(frames));
          queues.pop(GID, n);
          for (const piece of frames.flat()) {
            const taken = Math.min(n, piece.bytes);
            n -= taken;
            piece.bytes -= taken;
            if (piece.bytes === 0) gone.push(piece.slot);
          }
          frames = frames.map((f) => f.filter(({ bytes }) => bytes > 0)).filter((f) => f.length > 0);
        } else {
          const dropped = frames.splice(s.keep);
          expect(queues.dropBehind(GID, sum(frames))).toBe(sum(dropped));
          gone.push(...dropped.flat().map(({ slot }) => slot));
        }
        expect(queues.bytes(GID)).toBe(sum(frames));
        expect(queues.isEmpty(GID)).toBe(frames.length === 0);
        expect(freed.splice(0)).toEqual(gone);
        const cost = gone.reduce((n, slot) => n + pool.slotCost(slot), 0);
        expect(queues.hasFreed(GID)).toBe(cost !== 0);
        expect(queues.takeFreed(GID)).toBe(cost);
      }
    }),
  );
});

it('after a tail is removed: the next frame follows the kept bytes', () => {
  const { queues, push, freed } = begin();
  const [[a], [b], [c]] = [push(100), push(200), push(300)];
  expect(queues.dropBehind(GID, 100)).toBe(500);
  expect(freed).toEqual([b!.slot, c!.slot]);
  push(400);
  expect(queues.bytes(GID)).toBe(500);
  queues.pop(GID, 100);
  expect(freed.at(-1)).toBe(a!.slot);
  expect(queues.bytes(GID)).toBe(400);
});

it('a new socket: freed count 0, whatever the previous one with its number had', () => {
  const { queues, push } = begin();
  push(10);
  queues.drop(GID);
  expect(queues.hasFreed(GID)).toBe(true);
  queues.begin(GID);
  expect([queues.hasFreed(GID), queues.takeFreed(GID)]).toEqual([false, 0]);
});
