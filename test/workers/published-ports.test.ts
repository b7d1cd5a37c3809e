// @vitest: beside
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { addressParse } from '../../src/proto/address.ts';
import type { ListenerPlan } from '../../src/workers/engine-plan.ts';
import { Addressing } from '../../src/workers/flow/addressing.ts';
import { NO_LISTENER, PublishedPorts } from '../../src/workers/host-io/published-ports.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const LISTENERS = 8;
const INSIDE = [53, 8080];
const PEERS = { 4: '192.0.2.9', 6: '2001:db8::9' } as const;
const GUESTS = { 4: '10.0.2.15', 6: 'fd00::15' } as const;

const words = (text: string): Uint32Array => {
  const w = new Uint32Array(4);
  addressParse(text, w, 0);
  return w;
};

interface Open {
  readonly index: number;
  readonly inside: number;
  readonly families: readonly number[];
}

it('any order of opening and closing: behaves as a list in the order of opening', () => {
  const kind = fc.constantFrom(
    { address: '', isV4: false, families: [4, 6] },
    { address: '', isV4: true, families: [4] },
    { address: '203.0.113.5', isV4: true, families: [4] },
    { address: '2001:db8::5', isV4: false, families: [6] },
  );
  const step = fc.record({ index: fc.nat(LISTENERS - 1), inside: fc.constantFrom(...INSIDE), kind });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const ports = new PublishedPorts(new Addressing(TEST_PLAN.addresses, TEST_PLAN.policy), LISTENERS);
      let model: Open[] = [];
      for (const { index, inside, kind } of steps) {
        if (model.some((l) => l.index === index)) {
          ports.remove(index);
          ports.remove(index); // a second time: no effect
          model = model.filter((l) => l.index !== index);
        } else {
          const plan: ListenerPlan = { proto: 'udp', address: kind.address, port: 9000, targetPort: inside };
          ports.add(index, plan, 9000, kind.isV4);
          expect(ports.hostPort(index)).toBe(9000);
          model.push({ index, inside, families: kind.families });
        }
        expect(ports.count).toBe(model.length);
        for (const port of INSIDE) {
          const there = model.filter((l) => l.inside === port);
          for (const family of [4, 6] as const) {
            const first = there.find((l) => l.families.includes(family))?.index ?? NO_LISTENER;
            const [guest, peer] = [words(GUESTS[family]), words(PEERS[family])];
            expect(ports.find(guest, 0, port, peer, 0)).toBe(first);
            expect(ports.find(words(family === 4 ? '10.0.2.99' : 'fd00::99'), 0, port, peer, 0)).toBe(
              NO_LISTENER,
            );
          }
          if (there.length === 0) continue;
          const chain: number[] = [];
          for (let i = ports.firstFor(there[0]!.index); i >= 0; i = ports.after(i)) chain.push(i);
          expect(chain).toEqual(there.map((l) => l.index));
        }
      }
    }),
  );
});
