// @vitest: beside
import { expect, it } from 'vitest';
import { describeNeeding, tapNeeds } from '../support/require.ts';
import { runInNamespaces } from './in-namespaces.ts';

describeNeeding('a TAP left behind', tapNeeds, () => {
  it('goes soon after the process has ended', () => {
    const { status, gone } = runInNamespaces<{ status: number; gone: boolean }>('deferred-close.ts');
    expect(status).toBe(0);
    expect(gone).toBe(true);
  });
});
