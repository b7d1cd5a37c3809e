// @vitest: beside
import { describe, expect, test } from 'vitest';
import {
  addMemory,
  instanceOf,
  memorySum,
  NO_MEMORY,
  parseRollup,
  ThreadWatch,
} from '../../perf/memory/sample.ts';
import { type PeerFigures, table } from '../../perf/memory/table.ts';

const ROLLUP = `00400000-7ffcc16bc000 ---p 00000000 00:00 0                              [rollup]
Rss:               80452 kB
Pss:               76808 kB
Pss_Dirty:         29076 kB
Pss_Anon:          29052 kB
Shared_Clean:       5936 kB
Private_Clean:     45440 kB
Private_Dirty:     29076 kB
Anonymous:         29052 kB
`;

describe('memory of processes', () => {
  test('private is clean and dirty together; Pss_Anon is not taken for Pss', () => {
    expect(parseRollup(ROLLUP)).toEqual({ rss: 80452, pss: 76808, private: 74516, anonymous: 29052 });
    expect(parseRollup('')).toEqual(NO_MEMORY);
  });

  test('sums are by field', () => {
    const one = { rss: 1, pss: 2, private: 3, anonymous: 4 };
    expect(addMemory(one, addMemory(one, NO_MEMORY))).toEqual({ rss: 2, pss: 4, private: 6, anonymous: 8 });
  });

  test('this process is its own engine, and has memory', () => {
    const { engine } = instanceOf(process.pid, 'no such command');
    expect(engine).toContain(process.pid);
    expect(memorySum([process.pid]).rss).toBeGreaterThan(10_000);
    expect(memorySum([2 ** 30])).toEqual(NO_MEMORY);
  });

  test('work of a thread is counted from the start of the watch', async () => {
    const watch = new ThreadWatch([process.pid]);
    await new Promise((resolve) => setTimeout(resolve, 20)); // one switch at least
    const { switches, cpuMs } = watch.sample();
    expect(switches).toBeGreaterThan(0);
    expect(cpuMs).toBeGreaterThan(0);
  });
});

describe('the table', () => {
  const memory = (mib: number) => ({ rss: mib * 1024, pss: mib * 1024, private: mib * 1024, anonymous: 0 });
  const round = (mib: number): PeerFigures => ({
    peer: 'bucatini',
    one: { engine: memory(mib), helpers: memory(1) },
    count: 20,
    all: { engine: memory(mib / 2), helpers: memory(1) },
    minute: { switches: 10, cpuMs: 2.4 },
    idleWakes: 0,
  });

  test('one line for one instance and one for all, medians of the rounds', () => {
    expect(table([round(10), round(30), round(20)])).toMatchInlineSnapshot(`
      "peer       n   RSS   PSS  private  anonymous  helpers  CPU ms  wakes  then
      bucatini   1  20.0  20.0     20.0        0.0      1.0       2     10     0
      bucatini  20  10.0  10.0     10.0        0.0      1.0"
    `);
  });

  test('without a second measurement there is no second line', () => {
    expect(table([{ ...round(10), all: null }]).split('\n')).toHaveLength(2);
  });
});
