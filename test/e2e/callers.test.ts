/**
 * Effects of the front ends on their callers: descriptors, environment, terminal, readers of the output.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { repoRoot } from '../main/source-tree.ts';
import { KINDS, type Kind, openThree } from '../support/open-files.ts';
import {
  childrenOf,
  descendantsOf,
  eventually,
  isAlive,
  runToEnd,
  sleepMs,
  start,
} from '../support/process.ts';
import { describeNeeding, requireTool, tapNeeds } from '../support/require.ts';

const BIN = `${repoRoot}/bin`;
const BUCATINI = `${BIN}/bucatini`;
const PASTA = `${BIN}/pasta`;
const SLIRP = `${BIN}/slirp4netns`;
/** This file runs for the second time; see test/support/both-files.ts. */
const ON_NODE = process.env.BUCATINI_RUNTIME === 'node';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(`${tmpdir()}/bucatini-callers-`);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Start a process in user and network namespaces of its own, as target of a front end. */
async function withTarget<T>(use: (pid: number) => Promise<T>): Promise<T> {
  const target = spawn('unshare', ['-Urn', 'sh', '-c', 'echo there; exec sleep 1000'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    await new Promise((resolve) => target.stdout!.once('data', resolve));
    return await use(target.pid!);
  } finally {
    target.kill('SIGKILL');
  }
}

/** Descriptors 3, 4 and 5 become the standard ones: spawn() itself makes 0 to 2 blocking. */
const AS_STANDARD = 'exec "$@" 0<&3 1>&4 2>&5 3<&- 4<&- 5<&-';

/** Root of the machine would become nobody. */
const AS_OURSELVES = ['--runas', `${process.getuid!()}:${process.getgid!()}`];

interface FrontEnd {
  readonly name: string;
  argv(pid: number): string[];
  /** The front end serves until a signal ends it. */
  readonly serves?: boolean;
}

/** Time that a front end serves while it is watched; four start at once. */
const SERVE_MS = 1200;

/** Prints the flags of COMMAND's descriptors, in octal. */
const LOOK = 'for fd in 0 1 2; do grep flags /proc/self/fdinfo/$fd; done >"$0"; sleep 0.2';

const frontEnds = (seen: string): readonly FrontEnd[] => [
  ...(ON_NODE ? ['fused'] : ['fused', 'pipeline=2']).flatMap((threads) => [
    {
      name: `run, ${threads}`,
      argv: () => [BUCATINI, 'run', `--threads=${threads}`, '--', 'sh', '-c', LOOK, seen],
    },
    {
      name: `attach, ${threads}`,
      argv: (pid: number) => [BUCATINI, 'attach', `--threads=${threads}`, String(pid)],
      serves: true,
    },
  ]),
  { name: 'pasta COMMAND', argv: () => [PASTA, '--config-net', '--', 'sh', '-c', LOOK, seen] },
  {
    name: 'pasta PID',
    argv: (pid) => [PASTA, '-f', ...AS_OURSELVES, '--config-net', String(pid)],
    serves: true,
  },
  {
    name: 'pasta PID in the background',
    argv: (pid) => [PASTA, ...AS_OURSELVES, '--config-net', '-P', `${dir}/pid-${pid}`, String(pid)],
  },
  { name: 'slirp4netns', argv: (pid) => [SLIRP, '-c', String(pid), 'tap0'], serves: true },
];

const allGone = (pids: readonly number[]) => eventually('all are gone', 3000, () => !pids.some(isAlive));

describeNeeding("flags of the caller's descriptors", tapNeeds, () => {
  const check = async (frontEnd: FrontEnd, kind: Kind, nonBlocking: boolean): Promise<void> => {
    const three = openThree(kind, nonBlocking);
    try {
      await withTarget(async (pid) => {
        const before = three.flags();
        const child = spawn('/bin/sh', ['-c', AS_STANDARD, 'sh', ...frontEnd.argv(pid)], {
          stdio: ['ignore', 'ignore', 'ignore', ...three.fds],
        });
        const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
        let over = false;
        void ended.then(() => {
          over = true;
        });
        const endAt = performance.now() + (frontEnd.serves === true ? SERVE_MS : 15_000);
        while (!over && performance.now() < endAt) {
          expect(three.flags()).toEqual(before);
          await sleepMs(2);
        }
        expect(over).toBe(frontEnd.serves !== true);
        if (over) expect(await ended).toBe(0);
        child.kill('SIGTERM');
        await ended;
        expect(three.flags()).toEqual(before);
      });
    } finally {
      three.close();
    }
  };
  for (const frontEnd of frontEnds('/dev/null')) {
    for (const nonBlocking of [false, true]) {
      it(`${frontEnd.name}: ${nonBlocking ? 'non-blocking' : 'blocking'} descriptors of all kinds keep their O_NONBLOCK flag`, async () => {
        // A front end in the background ends with its target.
        await Promise.all(KINDS.map((kind) => check(frontEnd, kind, nonBlocking)));
      }, 60_000);
    }
  }

  it('standard error of COMMAND, slow reader: all bytes arrive', async () => {
    const script = `"$0" run -- sh -c 'seq 1 100000 >&2; echo $? >&2' 2>&1 >/dev/null | (sleep 1; tail -n 1)`;
    expect((await runToEnd(['/bin/sh', '-c', script, BUCATINI])).stdout).toBe('0\n');
  });
});

describeNeeding('standard error is a full pipe without a reader', tapNeeds, () => {
  /** Standard output and error are one pipe, which is full. */
  const full = (argv: readonly string[]) =>
    spawn('/bin/sh', ['-c', `${AS_STANDARD}`, 'sh', ...argv], {
      stdio: ['ignore', 'ignore', 'ignore', ...fullPipe()],
    });
  let pipes: ReturnType<typeof openThree>[] = [];
  const fullPipe = (): [number, number, number] => {
    const three = openThree('pipe', true);
    pipes.push(three);
    const [input, output] = three.fds;
    const holder = spawnSync('/bin/sh', ['-c', 'yes >&3 2>/dev/null; exit 0'], {
      stdio: ['ignore', 'ignore', 'ignore', output],
    });
    expect(holder.status).toBe(0);
    spawnSync('/bin/sh', ['-c', ':']);
    three.blocking();
    return [input, output, output];
  };
  afterAll(() => {
    for (const three of pipes) three.close();
    pipes = [];
  });

  it('run: starts and returns the status of COMMAND', async () => {
    const child = full([BUCATINI, 'run', '--log-level=debug', '--stats', '--', 'sh', '-c', 'exit 5']);
    const status = await Promise.race([
      new Promise((resolve) => child.once('exit', resolve)),
      sleepMs(10_000),
    ]);
    child.kill('SIGKILL');
    expect(status).toBe(5);
  });

  for (const frontEnd of frontEnds('/dev/null').filter(({ serves }) => serves)) {
    it(`${frontEnd.name}: SIGTERM: it ends`, async () => {
      await withTarget(async (pid) => {
        const [program = '', ...args] = frontEnd.argv(pid);
        const loud = program === BUCATINI ? [args[0]!, '--log-level=debug', ...args.slice(1)] : args;
        const child = full([program, ...loud]);
        await sleepMs(1000);
        child.kill('SIGTERM');
        const ended = new Promise((resolve) => child.once('exit', () => resolve('ended')));
        expect(await Promise.race([ended, sleepMs(5000)])).toBe('ended');
      });
    });
  }

  it('the reader reads again: later log lines arrive', async () => {
    const script = `"$0" run --log-level=debug -- sh -c 'sleep 0.5; exit 0' 2>&1 >/dev/null`;
    const ended = await runToEnd(['/bin/sh', '-c', `{ ${script}; } | { sleep 2; cat; }`, BUCATINI]);
    expect(ended.stdout).toContain('start:');
  });
});

describeNeeding("COMMAND's environment and descriptors", tapNeeds, () => {
  const env = {
    PATH: process.env.PATH!,
    'a.b': '1',
    'BASH_FUNC_f%%': '() { echo two\n lines\n}',
    '1st': 'x=y',
    go: 'go',
    name: 'name',
    fd: '4',
    root: '/r',
    stopped: 'stopped',
    NODE_OPTIONS: '--require /does/not/exist',
    NODE_DEBUG: 'module,net,worker',
    NODE_CHANNEL_FD: '77',
    NODE_UNIQUE_ID: '3',
    NODE_V8_COVERAGE: '/does/not/exist',
    NODE_EXTRA_CA_CERTS: '/does/not/exist',
    NODE_REDIRECT_WARNINGS: '/does/not/exist',
    UV_THREADPOOL_SIZE: '1',
    EMPTY: '',
  };
  for (const [name, argv] of [
    ['run', [BUCATINI, 'run', '--', 'env', '-0']],
    ['pasta', [PASTA, '--config-net', '--', 'env', '-0']],
  ] as const) {
    it(`${name}: all names and values reach COMMAND, none changes us`, () => {
      const [program, ...args] = argv;
      const { stdout, stderr, status } = spawnSync(program, args, { encoding: 'utf8', env });
      const got = Object.fromEntries(
        stdout
          .split('\0')
          .filter(Boolean)
          .map((entry) => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)]),
      );
      expect(stderr.replace(/^Started as root.*\n/, '')).toBe('');
      expect(status).toBe(0);
      const { PWD: _, OLDPWD: __, ...rest } = got;
      expect(rest).toEqual(env);
      expect(existsSync('/does/not/exist')).toBe(false);
    });
  }

  it.each([
    ['run', [BUCATINI, 'run']],
    ['pasta', [PASTA, '--config-net']],
  ])('%s: arguments, values and names that are not UTF-8 reach COMMAND as they are', (_, command) => {
    // All but NUL. A line end is written as byte 1 on the way (bin/launch.sh).
    const bytes = Array.from({ length: 255 }, (_, i) => i + 1);
    const odd = String.fromCharCode(...bytes);
    const escapes = bytes.map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');
    const look = `printf '%s|%s|' "$ODD" "$1"; tr '\\0' '\\n' </proc/$$/environ | grep -a ^bad; printf '|%s' "$0"`;
    const script = `odd=$(printf '${escapes}'); bad=$(printf 'bad\\377=1')
      exec env ODD="$odd" "$bad" "$@" -- /bin/sh -c "$0" "$odd" "x$odd"`;
    const { stdout, status } = spawnSync('/bin/sh', ['-c', script, look, ...command], { encoding: 'latin1' });
    expect(status).toBe(0);
    expect(stdout).toBe(`${odd}|x${odd}|bad\xff=1\n|${odd}`);
  });

  it.each([
    ['--pcap', `"$0/bucatini" run --pcap "$1" -- true`],
    ['-P', `"$0/pasta" -q -P "$1" -- true`],
    ['--log-file', `"$0/pasta" -q --log-file="$1" -- true`],
    ['--netns', `"$0/pasta" -f -q --netns "$1"`],
    ['-a', `"$0/slirp4netns" -a "$1" 999999 tap0`],
    ['', `"$0/bucatini" attach "/run/$1"`],
    ['', `"$0/slirp4netns" --netns-type=path "/run/$1" tap0`],
  ])('%s, a value that is not UTF-8: one line with its bytes, status 1, no file', (option, script) => {
    const place = mkdtempSync(`${tmpdir()}/bucatini-name-`);
    chmodSync(place, 0o777);
    const command = `name=$(printf 'x\\377'); set -- "$name"; cd ${place}; ${script}`;
    const { status, stdout, stderr } = spawnSync('/bin/sh', ['-c', command, BIN], { encoding: 'utf8' });
    const lines = stderr.split('\n').filter((line) => !/^(Started as root|child failed)/.test(line));
    expect({ status, stdout, files: readdirSync(place) }).toEqual({ status: 1, stdout: '', files: [] });
    expect(lines).toEqual([expect.stringMatching(/"(\/run\/)?x\\xff": is not UTF-8; use another name$/), '']);
    expect(lines[0]).toContain(option);
    rmSync(place, { recursive: true });
  });

  it.each([
    ['run', [BUCATINI, 'run', '--']],
    ['pasta', [PASTA, '--config-net', '--']],
  ])('%s: line ends and bytes 1 and 2 in values: reach COMMAND as they are', (_, [program = '', ...args]) => {
    const large = 'line\n'.repeat(20_000);
    const values = { LINES: 'a\nb\n', ONE: 'a\x01b', BOTH: '\x01\n\x02\n', EMPTY: '', LARGE: large };
    const { stdout } = spawnSync(program, [...args, 'env', '-0'], {
      encoding: 'utf8',
      env: { PATH: process.env.PATH, ...values, 'BASH_FUNC_x%%': '() {\n :\n}', newline: '\x01' },
    });
    expect(stdout.split('\0')).toEqual(
      expect.arrayContaining([
        ...Object.entries(values).map((entry) => entry.join('=')),
        ...['BASH_FUNC_x%%=() {\n :\n}', 'newline=\x01'],
      ]),
    );
  });

  it('run: an environment of 500 KB reaches COMMAND', () => {
    const large = Object.fromEntries(
      Array.from({ length: 10 }, (_, i) => [`LARGE_${i}`, `${i}\n`.repeat(25_000)]),
    );
    const huge = 'x'.repeat(131_000);
    const { stdout, status } = spawnSync(BUCATINI, ['run', '--', 'env', '-0'], {
      encoding: 'utf8',
      env: { PATH: process.env.PATH, ...large, huge },
      maxBuffer: 2 ** 21,
    });
    expect(status).toBe(0);
    expect(
      stdout
        .split('\0')
        .filter((entry) => /^(LARGE|huge)/.test(entry))
        .sort(),
    ).toEqual([...Object.entries(large), ['huge', huge]].map((entry) => entry.join('=')).sort());
  });

  it('run: descriptors above 2 are inherited by their numbers, however many', () => {
    const script = (count: number): string => {
      const fds = Array.from({ length: count }, (_, i) => i + 3);
      const open = fds.map((fd) => `exec ${fd}<<<"number ${fd}"`).join('; ');
      const read = fds.map((fd) => `cat <&${fd}`).join('; ');
      return `${open}; exec 40</dev/zero; "$0" run -- bash -c 'echo in; ${read}; ls /proc/$$/fd | grep -c 40; readlink /proc/$$/fd/* | grep /bin/' <<<input`;
    };
    for (const count of [1, 4, 7, 12]) {
      const { stdout, stderr } = spawnSync('bash', ['-c', script(count), BUCATINI], { encoding: 'utf8' });
      const numbers = Array.from({ length: count }, (_, i) => `number ${i + 3}\n`).join('');
      expect({ stdout, stderr }).toEqual({ stdout: `in\n${numbers}1\n`, stderr: '' });
    }
  });

  it('run: COMMAND can read a process substitution', () => {
    const script = '"$0" run -- cat <(echo substituted)';
    expect(spawnSync('bash', ['-c', script, BUCATINI], { encoding: 'utf8' }).stdout).toBe('substituted\n');
  });

  it('run: socket activation: LISTEN_PID is that of COMMAND where it was ours', () => {
    const script =
      'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$0" run -- sh -c \'echo $LISTEN_FDS; [ $LISTEN_PID = $$ ]; echo $?; cat <&3\' 3<<<socket';
    expect(spawnSync('bash', ['-c', script, BUCATINI], { encoding: 'utf8' }).stdout).toBe('1\n0\nsocket\n');
    const other = 'export LISTEN_PID=1; "$0" run -- sh -c \'echo $LISTEN_PID\'';
    expect(spawnSync('bash', ['-c', other, BUCATINI], { encoding: 'utf8' }).stdout).toBe('1\n');
  });

  it.each([
    ['run', `${BUCATINI} run`],
    ['pasta', `${PASTA} --config-net -q`],
  ])(
    '%s: the working directory was removed: COMMAND runs in it, without a descriptor of it',
    (_, command) => {
      const script = `d=$(mktemp -d) && chmod 755 "$d" && cd "$d" && rmdir "$d" &&
      ${command} -- bash -c 'readlink /proc/$$/cwd; readlink /proc/$$/fd/*; exit 5' 2>/dev/null`;
      const { stdout, status } = spawnSync('bash', ['-c', script], { encoding: 'utf8' });
      expect(stdout).toMatch(/^.* \(deleted\)\n/);
      expect(stdout.match(/\(deleted\)/g)).toHaveLength(1);
      expect(status).toBe(5);
    },
  );

  it("pasta: descriptors above 2 are not inherited, as with passt's pasta", () => {
    const script = '"$0" --config-net -- sh -c "ls /proc/\\$\\$/fd" 5</dev/zero 12</dev/zero 2>/dev/null';
    const { stdout } = spawnSync('bash', ['-c', script, PASTA], { encoding: 'utf8' });
    expect(stdout.split('\n').filter((fd) => fd === '5' || fd === '12')).toEqual([]);
  });
});

describeNeeding('a process is killed', tapNeeds, () => {
  const up = async (argv: readonly string[]) => {
    const started = start(argv);
    await eventually('COMMAND runs', 10_000, () => started.printed().stdout.includes('up'));
    return { started, family: descendantsOf(started.pid) };
  };
  const command = ['--', 'sh', '-c', 'echo up; trap "" TERM HUP; sleep 1000; :'];
  for (const [name, argv] of [
    ['run', [BUCATINI, 'run', ...command]],
    ['pasta', [PASTA, '--config-net', ...command]],
    ['pasta --no-pidns', [PASTA, '--config-net', '--no-pidns', ...command]],
  ] as const) {
    it(`${name}: SIGKILL to the engine: COMMAND ends`, async () => {
      const { started, family } = await up(argv);
      const own = name === 'pasta --no-pidns' ? family.slice(0, 1) : family; // its children are not in our list
      process.kill(started.pid, 'SIGKILL');
      await allGone(own);
      for (const pid of family) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    });
  }
  it('pasta: SIGKILL to unshare: COMMAND and pasta end', async () => {
    const { started, family } = await up([PASTA, '--config-net', ...command]);
    process.kill(childrenOf(started.pid)[0]!, 'SIGKILL');
    await allGone(family);
    expect(await started.exited).toBe(137);
  });
  it('pasta: SIGTERM: status 0, and COMMAND ends', async () => {
    const { started, family } = await up([PASTA, '--config-net', ...command]);
    process.kill(started.pid, 'SIGTERM');
    expect(await started.exited).toBe(0);
    await allGone(family);
  });
});

describe('the launchers', () => {
  describe.each([
    ['run', [BUCATINI, 'run', '--', 'true']],
    ['pasta', [PASTA, '--config-net', '--', 'true']],
    ['slirp4netns', [SLIRP, '--configure', '1', 'tap0']],
    ['doctor', [BUCATINI, 'doctor']],
  ])('%s: one line where nothing of ours can run', (_, command) => {
    const lineOf = (script: string): string => {
      const env = { ...process.env, BUCATINI_RUNTIME: 'bun' };
      const { stderr, status } = spawnSync('/bin/sh', ['-c', script, ...command], { encoding: 'utf8', env });
      expect(status).not.toBe(0);
      return stderr.replace(/^Started as root.*\n/, '');
    };

    it('without /proc', () => {
      const hidden = 'mount -t tmpfs none /proc && exec "$0" "$@"';
      expect(lineOf(`exec unshare -Urm sh -c '${hidden}' "$0" "$@"`)).toMatch(/^.*\/proc is not there.*\n$/);
    });

    it('Bun, memory must not become executable', () => {
      // JavaScriptCore reserves address space for its code. Without that it cannot compile, as where
      // systemd has MemoryDenyWriteExecute=.
      expect(lineOf('ulimit -v 1000000; exec "$0" "$@"')).toMatch(/^.*cannot be made executable.*\n$/);
    });
  });

  it('environment variables that a shell drops or the launcher changes: kept for COMMAND', () => {
    const script =
      '. "$0"/launch.sh; keep_for_command; printf "%s\\n---\\n" "$BUCATINI_KEPT"; /usr/bin/env -u BUCATINI_KEPT';
    const { stdout } = spawnSync('/bin/sh', ['-c', script, BIN], {
      encoding: 'utf8',
      env: {
        PATH: '/bin',
        'x y': 'ab',
        TWO: 'a\nb',
        NODE_DEBUG: 'net',
        SECRET: '*',
        lower: '*',
        BUCATINI_KEPT_9: 'z=1\n',
      },
    });
    const [kept = '', left = ''] = stdout.split('---\n');
    expect(kept.split('\n')).toEqual(
      expect.arrayContaining(['PATH=/bin', 'x y=ab', 'TWO=a\x01b', 'NODE_DEBUG=net', 'SECRET=*', 'lower=*']),
    );
    const names = left.split('\n').map((line) => line.split('=')[0]!);
    expect(names).toEqual(expect.arrayContaining(['BUN_ENABLE_CRASH_REPORTING', 'PATH', 'lower']));
    expect(names.filter((name) => /NODE|SECRET|KEPT/.test(name))).toEqual([]);
  });
});

/**
 * A terminal with a shell, by python3, for Node has no pty. Types a line, and reports the output of the next
 * seconds.
 */
const TERMINAL = `
import os, pty, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execvp("bash", ["bash", "--norc", "-i"])
def until(text, seconds=10):
    out, end = "", time.time() + seconds
    while text not in out and time.time() < end:
        if select.select([fd], [], [], 0.05)[0]:
            try: out += os.read(fd, 65536).decode(errors="replace")
            except OSError: break
    return text in out
os.write(fd, b"PS1=OU''T_; PS2=\\n")
until("OUT_")
for step in sys.argv[1:]:
    line, wanted = step.split(" => ")
    os.write(fd, line.encode().decode("unicode_escape").encode())
    print(wanted if until(wanted) else "not: " + wanted)
    time.sleep(0.2)
os.kill(pid, 9)
`;

describeNeeding('job control', [...tapNeeds, requireTool('python3', 'apt package python3')], () => {
  const terminal = async (...steps: string[]): Promise<void> => {
    const ended = await runToEnd(['python3', '-c', TERMINAL, ...steps], { timeoutMs: 60_000 });
    expect(ended.stdout).toBe(steps.map((step) => `${step.split(' => ')[1]}\n`).join(''));
  };
  const run = `${BUCATINI} run --`;

  it('COMMAND stops itself: the outer shell prompts; fg: COMMAND goes on', () =>
    terminal(
      `${run} bash -c 'kill -STOP $$; echo on a""gain'\\n => Stopped`,
      'echo out$((1+1))side\\n => out2side',
      'fg\\n => on again',
    ));

  it('suspend in a shell of its own process group, twice', () =>
    terminal(
      `${run} bash --norc -i\\n => bash`,
      'PS1=I""N_\\n => IN_',
      'suspend\\n => Stopped',
      'echo out$((1+1))side\\n => out2side',
      'fg\\n => IN_',
      'echo in$((1+1))side; sleep 0.1 | cat\\n => in2side',
      'suspend\\n => Stopped',
      'fg\\n => IN_',
      'exit 7\\n => OUT_',
      'echo status $?\\n => status 7',
    ));

  it('^Z stops COMMAND, fg continues it, ^C ends it', () =>
    terminal(
      `${run} sh -c 'echo r""uns; sleep 100'\\n => runs`,
      '\\x1a => Stopped',
      'fg\\n => sleep 100',
      '\\x03 => OUT_',
      'echo status $?\\n => status 130',
    ));

  it('COMMAND is stopped: kill %1 ends it, and the outer shell has the terminal', () =>
    terminal(
      `${run} bash -c 'kill -STOP $$; sleep 100'\\n => Stopped`,
      'kill %1\\n => OUT_',
      'wait; echo wa""ited\\n => waited',
      `${run} bash --norc -i\\n => bash`,
      'suspend\\n => Stopped',
      'kill -HUP %1; wait; echo a""gain\\n => again',
      'echo out$((1+1))side\\n => out2side',
    ));

  it('no terminal, COMMAND stopped: SIGCONT to COMMAND alone: the engine goes on too', async () => {
    const started = start([BUCATINI, 'run', '--', 'sh', '-c', 'echo up; kill -STOP $$; exit 9']);
    const state = (): string =>
      readFileSync(`/proc/${started.pid}/stat`, 'latin1')
        .replace(/^.*\) /, '')
        .charAt(0);
    await eventually('bucatini is stopped', 10_000, () => state() === 'T');
    process.kill(descendantsOf(started.pid).at(-1)!, 'SIGCONT');
    expect(await started.exited).toBe(9);
  });

  it('COMMAND is stopped: SIGKILL to COMMAND: bucatini ends', async () => {
    const started = start([BUCATINI, 'run', '--', 'sh', '-c', 'kill -STOP $$; exit 9']);
    const state = (): string =>
      readFileSync(`/proc/${started.pid}/stat`, 'latin1')
        .replace(/^.*\) /, '')
        .charAt(0);
    await eventually('bucatini is stopped', 10_000, () => state() === 'T');
    process.kill(descendantsOf(started.pid).at(-1)!, 'SIGKILL');
    expect(await started.exited).toBe(137);
  });

  it('COMMAND is stopped: SIGTERM then SIGCONT, as supervisors send them: both end', async () => {
    const started = start([BUCATINI, 'run', '--', 'sh', '-c', 'echo up; kill -STOP $$; exit 9']);
    const state = (): string =>
      readFileSync(`/proc/${started.pid}/stat`, 'latin1')
        .replace(/^.*\) /, '')
        .charAt(0);
    await eventually('bucatini is stopped', 10_000, () => state() === 'T');
    const family = descendantsOf(started.pid);
    process.kill(started.pid, 'SIGTERM');
    process.kill(started.pid, 'SIGCONT');
    // Depends on which signal Node handles first: COMMAND has continued, or was ended.
    expect([143, 9]).toContain(await started.exited);
    await allGone(family);
  });
});

describeNeeding('a full disk', tapNeeds, () => {
  /** In namespaces of its own: /mnt is a tmpfs of one page. */
  const onTiny = (script: string): ReturnType<typeof runToEnd> =>
    runToEnd(['unshare', '-Urm', 'sh', '-c', `mount -t tmpfs -o size=4k tmpfs /mnt; BIN=${BIN}; ${script}`]);

  it('--pid and --log-file: one line names option, file and reason', async () => {
    for (const option of ['--pid', '--log-file']) {
      const ended = await onTiny(
        `head -c 4096 /dev/zero >/mnt/fill; "$BIN/pasta" --config-net ${option} /mnt/file -- true`,
      );
      expect(ended.status).toBe(1);
      expect(ended.stderr).toContain(`${option} /mnt/file: cannot be written: No space left on device\n`);
    }
  });

  it('--pcap: no room for the file header: one line', async () => {
    const ended = await onTiny(
      'head -c 4096 /dev/zero >/mnt/fill; "$BIN/bucatini" run --pcap /mnt/file -- true',
    );
    expect(ended.status).toBe(1);
    expect(ended.stderr).toContain('--pcap /mnt/file: cannot be written: no space left on device');
  });

  for (const threads of ['fused', 'pipeline=2']) {
    it(`--pcap, ${threads}: only whole records are written; one line says that some are missing`, async () => {
      const ping =
        'for i in 1 2 3 4 5 6 7 8; do ping -c 1 -W 1 -s 900 $(ip route | sed -n "s/default via \\([^ ]*\\).*/\\1/p") >/dev/null; done';
      const ended = await onTiny(
        `"$BIN/bucatini" run --threads=${threads} --pcap /mnt/file -- sh -c '${ping}' >&2; cat /mnt/file | od -An -v -tu1 | tr -d '\\n'`,
      );
      expect(ended.stderr).toContain('--pcap /mnt/file: no space left on device: frames are missing from it');
      const file = Buffer.from(ended.stdout.trim().split(/ +/).map(Number));
      expect(file.length).toBeGreaterThan(2000);
      let at = 24;
      while (at < file.length) at += 16 + file.readUInt32LE(at + 8);
      expect(at).toBe(file.length);
    });
  }
});

describeNeeding("a thread's program cannot be loaded", tapNeeds, () => {
  if (ON_NODE) return it.skip('on Node, whichever runtime the launchers choose otherwise', () => {});
  const tree = (): string => `${dir}/tree`;
  beforeAll(() => {
    cpSync(BIN, `${tree()}/bin`, { recursive: true });
    cpSync(`${repoRoot}/package.json`, `${tree()}/package.json`);
    symlinkSync(`${repoRoot}/node_modules`, `${tree()}/node_modules`);
    chmodSync(dir, 0o755);
  });
  // Bun has all programs in one executable: none of them can be missing.
  beforeEach(() => {
    const filter = (path: string): boolean => path !== `${repoRoot}/dist/bun`;
    cpSync(`${repoRoot}/dist`, `${tree()}/dist`, { recursive: true, filter });
  });
  afterEach(() => rmSync(`${tree()}/dist`, { recursive: true }));

  /** Lines about the start that pasta and slirp4netns write too. */
  const PROGRESS = /^(Started as root|sent tapfd|received tapfd|child failed)/;
  /** @returns the other lines of standard error */
  const startFails = async (program: string, ...args: readonly string[]): Promise<readonly string[]> => {
    const env = { BUCATINI_RUNTIME: 'node' };
    const ended = await runToEnd([`${tree()}/bin/${program}`, ...args], { timeoutMs: 10_000, env });
    expect(ended.status).toBe(1);
    return ended.stderr.split('\n').filter((line) => line !== '' && !PROGRESS.test(line));
  };
  /** pasta and slirp4netns choose the plan themselves, always with one packet thread at the start. */
  const startsOf = (threads: string, pid: number): string[][] => [
    ['bucatini', 'run', `--threads=${threads}`, '--', 'true'],
    ['bucatini', 'attach', `--threads=${threads}`, String(pid)],
    ...(threads === 'auto'
      ? [
          ['pasta', '--config-net', '--', 'true'],
          ['slirp4netns', '--configure', String(pid), 'tap0'],
        ]
      : []),
  ];
  /** As on a machine with more than two processors: the plan `auto` then has lanes. */
  const manyProcessors = (): void => {
    for (const file of readdirSync(`${tree()}/dist/main`, { recursive: true, encoding: 'utf8' })) {
      if (!file.endsWith('.js')) continue;
      const path = `${tree()}/dist/main/${file}`;
      writeFileSync(path, readFileSync(path, 'utf8').replaceAll('availableParallelism()', '4'));
    }
  };
  const allFail = (threads: string, why: RegExp): Promise<void> =>
    withTarget(async (pid) => {
      for (const [program = '', ...args] of startsOf(threads, pid))
        expect(await startFails(program, ...args)).toEqual([expect.stringMatching(why)]);
    });

  it.each([
    ['auto', 'two processors'],
    ['auto', 'four processors'],
    ['pipeline=2', 'two processors'],
  ])('packet thread, %s, %s: every front end ends with one line', async (threads, processors) => {
    if (processors !== 'two processors') manyProcessors();
    rmSync(`${tree()}/dist/main/packet-thread.js`);
    await allFail(threads, /packet-thread\.js/);
  });

  it('namespace thread, pipeline=2: run and attach end with one line', async () => {
    rmSync(`${tree()}/dist/main/bucatini/netns-worker.js`);
    await allFail('pipeline=2', /netns-worker\.js/);
  });

  it('packet threads of shards throw while they are loaded: run and attach end with one line', async () => {
    writeFileSync(
      `${tree()}/dist/main/packet-thread.js`,
      `import { workerData } from 'node:worker_threads';
       if (!workerData?.taskFollows) throw new Error('cannot be loaded');
       setInterval(() => {}, 1000);`,
    );
    await allFail('pipeline=2', /cannot be loaded/);
  });

  describe('four processors', () => {
    const packetThreads = (pid: number): number =>
      readdirSync(`/proc/${pid}/task`).filter((id) =>
        readFileSync(`/proc/${pid}/task/${id}/comm`, 'utf8').startsWith('packet'),
      ).length;
    const inside = (pid: number, script: string) =>
      runToEnd(['nsenter', '-U', '-n', '--preserve-credentials', '-t', String(pid), 'sh', '-c', script]);
    const settled = async (pid: number, ready: () => boolean): Promise<void> => {
      await eventually('it serves', 10_000, ready);
      expect(packetThreads(pid)).toBe(1);
    };
    const served = async (
      argv: (pid: number) => string[],
      ping: string,
      env: NodeJS.ProcessEnv = {},
      threads = 1,
    ): Promise<void> => {
      manyProcessors();
      await withTarget(async (pid) => {
        const [program = '', ...args] = argv(pid);
        const child = spawn(`${tree()}/bin/${program}`, args, {
          env: { ...process.env, BUCATINI_RUNTIME: 'node', ...env },
          stdio: ['ignore', 'ignore', 'pipe'],
        });
        try {
          let pings = false;
          for (let i = 0; i < 50 && !pings; i++) {
            await sleepMs(100);
            pings = (await inside(pid, ping)).status === 0;
          }
          expect(pings).toBe(true);
          if (threads === 1) await settled(child.pid!, () => packetThreads(child.pid!) > 0);
          else {
            await eventually('more lanes are open', 10_000, () => packetThreads(child.pid!) >= threads);
            expect((await inside(pid, ping)).status).toBe(0);
          }
        } finally {
          child.kill('SIGTERM');
          await new Promise((resolve) => child.once('exit', resolve));
        }
      });
    };
    const GATEWAY = 'ping -c 1 -W 1 $(ip -4 route | sed -n "s/default via \\([^ ]*\\).*/\\1/p")';
    const fronts = [
      ['attach', (pid: number) => ['bucatini', 'attach', String(pid)]],
      ['pasta', (pid: number) => ['pasta', '-f', ...AS_OURSELVES, '--config-net', String(pid)]],
      ['slirp4netns', (pid: number) => ['slirp4netns', '-c', String(pid), 'tap0']],
    ] as const;
    it.each([
      ['one packet thread at the start', '', '^1$'],
      ['more packet threads under load', 'lanesTurn=200', '^[2-9]$'],
    ])('run: %s, and traffic', async (_, impair, count) => {
      manyProcessors();
      // COMMAND sees no other process: we look from outside while it waits.
      const env = { BUCATINI_RUNTIME: 'node', BUCATINI_TEST_IMPAIR: impair };
      const script = `${GATEWAY} >/dev/null && sleep 1 && ${GATEWAY} >/dev/null && echo pinged`;
      const started = start([`${tree()}/bin/bucatini`, 'run', '--', 'sh', '-c', script], { env });
      await sleepMs(1000);
      expect(String(packetThreads(started.pid))).toMatch(new RegExp(count));
      expect(await started.exited).toBe(0);
      expect(started.printed().stdout).toBe('pinged\n');
    });
    it.each(fronts)('%s: one packet thread at the start, and traffic', (_, argv) => served(argv, GATEWAY));
    it.each(fronts)('%s: more packet threads under load, and traffic', (_, argv) =>
      served(argv, GATEWAY, { BUCATINI_TEST_IMPAIR: 'lanesTurn=200' }, 3),
    );
  });
});
