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
  /** There was something left for a second call. */
  readonly again: boolean;
  readonly goesOn: boolean;
}

const NONE = '0000000000000000';
/** CAP_NET_BIND_SERVICE */
const KEPT = '0000000000000400';

describeNeeding('capabilities of threads', namespaceNeeds, () => {
  it('helper threads: lose all capabilities; the caller and threads with a kept set: keep theirs; all go on', () => {
    const { kept, before, after, again, goesOn } = runInNamespaces<Report>('thread-capabilities.ts');
    expect(kept).toBe(0);
    const helpers = Object.keys(before).filter((name) => name !== 'main' && name !== 'keeper');
    // Helper threads of V8 and of JavaScriptCore's collector.
    expect(helpers).toContain(ON_BUN ? 'HeapHelper' : 'node-V8Worker');
    for (const name of helpers) expect(before[name]![0], name).not.toBe(NONE);
    // JavaScriptCore starts helper threads when they are needed: one that the keeper has started has its set.
    const left = helpers.flatMap((name) => (after[name] ?? []).map((set) => ({ name, set })));
    expect(left.filter(({ set }) => set !== NONE && !(ON_BUN && set === KEPT))).toEqual([]);
    expect(after.main).toEqual(before.main);
    expect(after.keeper).toEqual([KEPT, KEPT, NONE]);
    if (!ON_BUN) expect(again).toBe(false);
    expect(goesOn).toBe(true);
  });
});
