// @vitest: beside
import { expect, it } from 'vitest';
import { CLONE_NEWNET, CLONE_NEWUSER, Errno } from '../../src/sys/constants.ts';
import { describeNeeding, namespaceNeeds } from '../support/require.ts';
import { runInNamespaces } from './in-namespaces.ts';

describeNeeding('namespaces, mounts, capabilities, processes', namespaceNeeds, () => {
  it('create, enter and inspect: the kernel reports the effect', () => {
    const report = runInNamespaces<Record<string, unknown>>('namespace.ts');
    expect(report).toEqual({
      types: [CLONE_NEWNET, CLONE_NEWUSER],
      ownerIsOurs: true,
      notANamespace: expect.toSatisfy((r: number) => r === -Errno.ENOTTY || r === -Errno.EBADF),
      cloexec: 1,
      isOpen: [true, false],
      // Node has threads.
      unshareUser: -Errno.EINVAL,
      worker: { moved: true, links: ['lo'] },
      pidFd: true,
      killed: 0,
      signal: 'SIGTERM',
      killGone: -Errno.ESRCH,
      killUs: 0,
      tid: true,
      lowered: 0,
      raisedTo600: 600,
      raised: true,
      coreIsNumber: expect.stringMatching('number'),
      signals: [0, -Errno.EINVAL],
      noTerminal: -Errno.ENOTTY,
      group: true,
      mkdir: 0,
      fileMode: 0o600,
      exists: -Errno.EEXIST,
      wrote: 2,
      unlinkBusy: -Errno.ENOTEMPTY,
      unlink: [0, 0],
      chdir: 0,
      rootEntries: [],
      noProc: -Errno.ENOENT,
      hadAdmin: true,
      capset: 0,
      capsLeft: String(1 << 10),
      capsBack: -Errno.EPERM,
      noNewPrivs: [0, 1],
      mountNow: -Errno.EPERM,
    });
  });
});
