// @vitest: beside
import { expect, it } from 'vitest';
import { describeNeeding, tapNeeds } from '../support/require.ts';
import { runInNamespaces } from './in-namespaces.ts';

describeNeeding('a TAP descriptor left open at exit', tapNeeds, () => {
  it('closed soon after the process has ended', () => {
    const { status, gone } = runInNamespaces<{ status: number; gone: boolean }>('deferred-close.ts');
    expect(status).toBe(0);
    expect(gone).toBe(true);
  });
});
