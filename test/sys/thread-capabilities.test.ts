// @vitest: beside
import { expect, it } from 'vitest';
import { describeNeeding, namespaceNeeds } from '../support/require.ts';
import { ON_BUN } from '../support/runtime.ts';
import { runInNamespaces } from './in-namespaces.ts';

interface Report {
  readonly kept: number;
  /** CapPrm, CapEff and CapInh of the threads of each name. */
  readonly before: Readonly<Record<string, readonly string[]>>;
  readonly after: Readonly<Record<string, readonly string[]>>;
  /** After the main thread has dropped its capabilities, and a second look at the threads. */
  readonly last: Readonly<Record<string, readonly string[]>>;
  readonly goesOn: boolean;
}

const NONE = '0000000000000000';
const BIND_SERVICE = '0000000000000400';

describeNeeding('capabilities of threads', namespaceNeeds, () => {
  it('helper threads: lose all capabilities; the caller and threads with a kept set: keep theirs; all go on', () => {
    const { kept, before, after, last, goesOn } = runInNamespaces<Report>('thread-capabilities.ts');
    expect(kept).toBe(0);
    const helpers = Object.keys(before).filter((name) => name !== 'main' && name !== 'keeper');
    // Helper threads of V8 and of JavaScriptCore's collector.
    expect(helpers).toContain(ON_BUN ? 'HeapHelper' : 'node-V8Worker');
    for (const name of helpers) expect(before[name]![0], name).not.toBe(NONE);
    for (const name of helpers) expect([name, ...new Set(after[name] ?? [NONE])]).toEqual([name, NONE]); // or it ended
    expect(after.main).toEqual(before.main);
    expect(after.keeper).toEqual([BIND_SERVICE, BIND_SERVICE, NONE]);
    // JavaScriptCore's threads that were started by the keeper have its capability.
    const most = ON_BUN ? [NONE, BIND_SERVICE] : [NONE];
    for (const [name, sets] of Object.entries(last))
      if (name !== 'keeper') expect([name, sets.filter((set) => !most.includes(set))]).toEqual([name, []]);
    expect(last.keeper).toEqual(after.keeper);
    expect(goesOn).toBe(true);
  });
});
