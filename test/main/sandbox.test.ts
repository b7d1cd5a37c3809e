/** The sandbox, entered in processes of their own: what works inside and what ends the process. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type SandboxPlan, sandboxFilter } from '../../src/main/host/sandbox.ts';
import { Errno } from '../../src/sys/constants.ts';
import { kernelAtLeast } from '../../src/sys/kernel-version.ts';
import { filterProgram } from '../../src/sys/seccomp.ts';
import { syscallNames, syscallNumber } from '../../src/sys/syscall-numbers.ts';
import { ON_BUN } from '../support/runtime.ts';
import { callText } from './filter-text.ts';

const fixture = fileURLToPath(new URL('./fixtures/in-sandbox.ts', import.meta.url));
let directory = '';

beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/sandbox-`);
});
beforeEach(() => {
  rmSync(`${directory}/sockets`, { recursive: true, force: true });
  mkdirSync(`${directory}/sockets`);
  for (const at of [directory, `${directory}/sockets`]) writeFileSync(`${at}/wanted`, 'here');
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function behind(what: string, more = ''): { readonly said: unknown; readonly signal: string | null } {
  const args = [
    '-Ur',
    '-m',
    '--propagation',
    'slave',
    '--',
    process.execPath,
    fixture,
    what,
    directory,
    more,
  ];
  const r = spawnSync('unshare', args, {
    encoding: 'utf8',
    env: { ...process.env, BUCATINI_OWN_MOUNTS: '1', NODE_OPTIONS: '' },
  });
  if (r.status !== 0 && r.signal === null) throw new Error(`${what}: status ${r.status}: ${r.stderr}`);
  return { said: r.stdout === '' ? undefined : JSON.parse(r.stdout), signal: r.signal };
}

describe('in the sandbox', () => {
  it('files: none exist, none can be created', () => {
    expect(behind('files')).toEqual({ said: ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT'], signal: null });
  });

  it('an open directory: its files are readable, nothing above it is', () => {
    expect(behind('held')).toEqual({ said: [true, -Errno.ENOENT, -Errno.ENOENT], signal: null });
  });

  it('a stack trace can be printed and memory can grow', () => {
    expect(behind('stack')).toEqual({ said: true, signal: null });
  });

  it('a file in an open directory: cannot be truncated', () => {
    expect(behind('truncate')).toEqual({ said: [-1, 'here'], signal: null });
  });

  it('unlink: works in the directory of socket files, not where files are read', () => {
    expect(behind('unlink')).toEqual({ said: [-1, 0], signal: null });
  });

  it('a directory that was watched before: changes are reported; no other can be watched', () => {
    expect(behind('watch')).toEqual({ said: [-Errno.ENOENT, 'wanted'], signal: null });
  });

  it('sockets for TCP, UDP and ping: can be created', () => {
    expect(behind('sockets')).toEqual({ said: true, signal: null });
  });

  it('signals to COMMAND: allowed', () => {
    expect(behind('child')).toEqual({ said: 0, signal: null });
  });

  it('abstract Unix sockets of the host: cannot be reached', () => {
    expect(behind('abstract', 'unscoped')).toEqual({ said: -Errno.EAGAIN, signal: null });
  });

  // Linux 6.12: earlier kernels cannot close this to a pasta in the background.
  it.skipIf(!kernelAtLeast(6, 12))('the socket of the system log: reaches no abstract socket either', () => {
    expect(behind('abstract', 'syslog')).toEqual({ said: -Errno.EAGAIN, signal: null });
  });

  it('TIOCSTI, a new TAP, F_DUPFD and PR_SET_DUMPABLE: refused', () => {
    expect(behind('ptyInput').said).toBe(-1);
    expect(behind('tapElsewhere').said).toBe(-1);
    expect(behind('duplicate').said).toBe(-Errno.EINVAL);
    expect(behind('dumpable').said).toBe(-1);
  });

  // libuv tries it in a new thread, and ignores the failure.
  it.skipIf(ON_BUN)('a ring of io_uring: cannot be made', () => {
    expect(behind('ringSetup')).toEqual({ said: -1, signal: null });
  });

  it.each([
    ...[
      'parent',
      'tgkill',
      'cloneNamespace',
      'mptcp',
      'udpLite',
      'ping4By6',
      'sequenced',
      'unixPair',
      'otherMemory',
    ],
    ...['mount', 'unshare', 'setns', 'pidfd', 'netlink', 'raw', 'unix', 'exec', 'group', 'ptrace', 'limit'],
    ...(ON_BUN ? ['ringSetup'] : []),
    ...['ringRegister', 'ringElsewhere', 'ringFlags'],
  ])('%s: ends the process', (what) => {
    expect(behind(what)).toEqual({ said: undefined, signal: 'SIGSYS' });
  });
});

it('the filter: every jump stays inside, every path ends in a return', () => {
  const program = filterProgram(
    sandboxFilter(
      {
        readable: [40, 41],
        listable: [43],
        removable: [42],
        signals: [44, 45],
        watchesProcess: false,
      },
      RINGS,
    ),
  );
  expect(program.length).toBeLessThan(4096); // BPF_MAXINSNS
  program.forEach(([code, jt, jf, k], i) => {
    if (code === 0x06) return; // a verdict
    const next = code === 0x05 ? [i + 1 + k] : (code & 7) === 5 ? [i + 1 + jt, i + 1 + jf] : [i + 1];
    for (const at of next) expect(at).toBeLessThan(program.length);
    expect(Math.max(jt, jf)).toBeLessThan(256);
  });
});

/**
 * The filters of the front ends, as far as they differ: `run` and `pasta COMMAND` send signals, `slirp4netns`
 * lists directories, all with an API socket remove files, and `attach` does none of these.
 */
const PLANS: Record<string, SandboxPlan> = {
  run: { readable: [40], removable: [42], signals: [44, 45], watchesProcess: false },
  attach: { readable: [], removable: [], signals: [], watchesProcess: false },
  slirp4netns: { readable: [40], listable: [43], removable: [42], signals: [], watchesProcess: true },
};
const RINGS = [30, 31];
const PID = 1234;
const LAST_CALL = 1024;

/**
 * The snapshot is made from the instructions, so that a change of the rules or of the compiler shows.
 */
function filterText(plan: SandboxPlan): string {
  const filter = sandboxFilter(plan, RINGS, PID);
  const lines = syscallNames.flatMap((name) => {
    const number = syscallNumber(name);
    const text = number < 0 ? undefined : callText(filter, number);
    return text === undefined ? [] : [`${name}: ${text}`];
  });
  return `${lines.sort().join('\n')}\n`;
}

// The list of the other architecture differs in the calls that it does not have.
describe.skipIf(process.arch !== 'x64')('the filter matches its text snapshot', () => {
  it.each(Object.keys(PLANS))('%s', async (name) => {
    await expect(filterText(PLANS[name]!)).toMatchFileSnapshot(
      `./filters/${ON_BUN ? 'bun/' : ''}${name}.txt`,
    );
  });

  it('calls without a name, and x32 calls: end the process', () => {
    const filter = sandboxFilter(PLANS.run!, RINGS, PID);
    const named = new Set(syscallNames.map(syscallNumber));
    for (let nr = 0; nr < LAST_CALL; nr++)
      if (!named.has(nr)) expect([nr, callText(filter, nr)]).toEqual([nr, undefined]);
    expect(callText(filter, 0x4000_0000)).toBeUndefined();
    expect(callText(filter, syscallNumber('read'), 'arm64')).toBeUndefined();
  });
});
