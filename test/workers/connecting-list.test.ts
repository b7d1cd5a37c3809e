// @vitest: beside
/** Sockets whose connect() runs: order of age, removal at either end and in between. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { ConnectingList } from '../../src/workers/host-io/stream/connecting-list.ts';

const GIDS = 8;

it('any order of append and remove: the oldest one and the count are those of a plain list', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(GIDS - 1), { maxLength: 60 }), (gids) => {
      const list = new ConnectingList(GIDS);
      const model: number[] = [];
      for (const gid of gids) {
        const at = model.indexOf(gid);
        if (at >= 0) {
          list.remove(gid);
          model.splice(at, 1);
        } else {
          list.append(gid);
          model.push(gid);
        }
        expect([list.oldest, list.count]).toEqual([model[0] ?? -1, model.length]);
      }
    }),
  );
});
