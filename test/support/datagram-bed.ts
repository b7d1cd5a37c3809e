/** Host rigs and peers for a test file; they are closed after each test. */
import { afterEach } from 'vitest';
import type { TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { Peer } from './datagram-peer.ts';
import { HostRig } from './host-rig.ts';

export interface DatagramBed {
  rig(plan?: TapEnginePlan): HostRig;
  /** A peer on a free port of the address. */
  peer(address?: string): Promise<Peer>;
}

export function datagramBed(): DatagramBed {
  let rigs: HostRig[] = [];
  let peers: Peer[] = [];
  afterEach(() => {
    for (const r of rigs) r.close();
    for (const p of peers) p.socket.close();
    rigs = [];
    peers = [];
  });
  return {
    rig(plan) {
      const r = new HostRig(plan);
      rigs.push(r);
      return r;
    },
    async peer(address = '127.0.0.1') {
      const p = await new Peer(address.includes(':') ? 6 : 4).bind(address);
      peers.push(p);
      return p;
    },
  };
}
