/**
 * An engine whose packet threads sleep when the main thread throws or exits; see engine-exit.test.ts.
 * `engine-exit.child.ts PLAN throw|exit`
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { startEngine } from '../../src/workers/engine.ts';
import { DEFAULT_POLICY, type EnginePlan } from '../../src/workers/engine-plan.ts';

const [planName, how] = process.argv.slice(2);
const threads: EnginePlan['threads'] =
  planName === 'fused'
    ? { kind: 'fused' }
    : planName === 'lanes=2'
      ? { kind: 'lanes', lanes: 2 }
      : { kind: 'pipeline', shards: 1 };
await startEngine({
  threads,
  addresses: { mtu: 1500, mac: '9a:55:9a:55:9a:55', resolvers: [], offeredDns: [], searchDomains: [] },
  policy: DEFAULT_POLICY,
  listeners: [],
  pool: { smallSlots: 256, largeSlots: 64, flows: 64 },
  hashKey: [1, 2],
  isnKey: [1, 2, 3, 4],
  logLevel: 'warning',
});
await sleep(1500); // until the threads sleep
console.log(Date.now());
if (how === 'throw') throw new Error('of the main thread');
process.exit(7);
