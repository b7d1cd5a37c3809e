// @vitest: beside
/** Processes that are started by clone(2), a list of system calls and execve(2). */
import { expect, it } from 'vitest';
import { Errno } from '../../src/sys/constants.ts';
import { describeNeeding, namespaceNeeds } from '../support/require.ts';
import { runInNamespaces } from './in-namespaces.ts';

interface Ran {
  readonly status: number;
  readonly output: string;
  readonly refused: boolean;
}

describeNeeding('spawnProcess', namespaceNeeds, () => {
  it('signals, descriptors, directory, namespaces, failures: as the plan says', () => {
    const report = runInNamespaces<Record<string, Ran> & { ourMounts: string; passedFd: number }>('spawn.ts');
    const { isolated, ourMounts, passed, passedFd, ...others } = report;
    const ran = (output: string, status = 0): Ran => ({ status, output, refused: false });
    expect(others).toEqual({
      status: ran('', 7),
      signal: ran('', 143),
      environment: ran('x\ny\n/proc'),
      // SigBlk comes first in /proc/PID/status. Signal n is bit n - 1.
      defaults: ran('SigBlk: 0000000000000000\nSigIgn: 0000000000000000'),
      ignores: ran('SigBlk: 0000000000000000\nSigIgn: 0000000000004003'),
      nameTooLong: { ...ran('on'), refused: true },
      missing: { call: 'execve', errno: Errno.ENOENT },
      noDirectory: { call: 'chdir', errno: Errno.ENOENT },
      noNamespace: { call: 'setns', errno: Errno.EINVAL },
      // Without a PID namespace of its own that of the host would be shown: it is not ours.
      noProc: { call: 'mount', errno: Errno.EPERM },
    });
    expect(passed!.output.split(' ')).toContain(String(passedFd));
    const [pid, init, name, mounts] = isolated!.output.split('\n');
    expect([pid, init, name]).toEqual(['1', 'sh', 'elsewhere']);
    expect(mounts).not.toBe(ourMounts);
  });
});
