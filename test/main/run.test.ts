/** `bucatini run` and `attach` as processes: statuses, signals, terminals, leftovers. Traffic: test/e2e. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import type { Readable } from 'node:stream';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  childrenOf,
  descendantsOf,
  eventually,
  isAlive,
  killTree,
  processName,
  runToEnd,
  type Started,
  start,
} from '../support/process.ts';
import { describeNeeding, findTool, requireTool, tapNeeds } from '../support/require.ts';
import { makeSourceTree, type SourceTree } from './source-tree.ts';

let tree: SourceTree;
beforeAll(() => {
  tree = makeSourceTree();
});
afterAll(() => tree.remove());

const bucatini = (...args: string[]): string[] => [tree.program, ...args];
const sh = (script: string): string[] => ['run', '--', 'sh', '-c', script];

/** Processes of the launcher chain and of the PID namespace. */
const family = (started: Started): number[] => [started.pid, ...descendantsOf(started.pid)];

async function printedLine(started: Started, text: string): Promise<void> {
  await eventually(`"${text}" is printed`, 10_000, () => started.printed().stdout.includes(text));
}

async function allGone(pids: readonly number[]): Promise<void> {
  await eventually(`ended: ${pids}`, 1500, () => !pids.some(isAlive));
}

describeNeeding('run: status and standard streams', tapNeeds, () => {
  for (const [script, status] of [
    ['exit 0', 0],
    ['exit 5', 5],
    ['exit 255', 255],
    ['kill -TERM $$', 143],
    ['kill -KILL $$', 137],
    ['kill -HUP $$', 129],
  ] as const) {
    it(`${script}: status ${status}`, async () => {
      const ended = await runToEnd(bucatini(...sh(script)));
      expect(ended).toMatchObject({ status, stdout: '', stderr: '' });
    });
  }

  for (const [command, status, text] of [
    ['no-such-program', 127, 'no-such-program: command not found'],
    ['/no/such/program', 127, '/no/such/program: no such file'],
    ['/', 126, '/: is a directory'],
    ['', 127, 'command not found'],
  ] as const) {
    it(`"${command}": status ${status}, one line, nothing is started`, async () => {
      const ended = await runToEnd(bucatini('run', '--', command));
      expect(ended.stderr).toMatch(/^bucatini: run: [^\n]+\n$/);
      expect(ended.stderr).toContain(text);
      expect(ended).toMatchObject({ status, stdout: '' });
    });
  }

  it('a file without permission: 126; a script without #!: sh runs it', async () => {
    const file = `${tree.root}/script`;
    writeFileSync(file, 'echo from a script: $1\n', { mode: 0o644 });
    expect(await runToEnd(bucatini('run', file))).toMatchObject({
      status: 126,
      stderr: expect.stringContaining('permission'),
    });
    writeFileSync(`${tree.root}/script2`, 'echo from a script: $1\n', { mode: 0o755 });
    expect(await runToEnd(bucatini('run', `${tree.root}/script2`, 'x'))).toMatchObject({
      ...{ status: 0, stdout: 'from a script: x\n' },
    });
  });

  it('COMMAND is only a shell builtin: no such program', async () => {
    expect(await runToEnd(bucatini('run', 'exit', '3'))).toMatchObject({ status: 127 });
  });

  it("no COMMAND: the caller's shell, reading standard input", async () => {
    const ended = await runToEnd(bucatini('run'), {
      input: 'echo in $0; exit 9\n',
      env: { SHELL: '/bin/sh' },
    });
    expect(ended).toMatchObject({ status: 9, stdout: 'in /bin/sh\n' });
  });

  it('arguments, input and both outputs: arrive unchanged', async () => {
    const odd = ['', ' two  words ', '$HOME', "it's", '-n', 'a\nb'];
    const ended = await runToEnd(
      bucatini(
        'run',
        '--',
        'sh',
        '-c',
        'for a; do printf "<%s>" "$a"; done; cat; echo problem >&2',
        'sh',
        ...odd,
      ),
      { input: 'from stdin' },
    );
    expect(ended.stdout).toBe(`${odd.map((a) => `<${a}>`).join('')}from stdin`);
    expect(ended.stderr).toBe('problem\n');
  });

  it('environment and descriptors: only those of the caller', async () => {
    const script = 'env | grep -E "BUCATINI|NODE_" | sort; ls /proc/self/fd';
    const env = { NODE_OPTIONS: '--max-old-space-size=99' };
    const ended = await runToEnd(bucatini(...sh(script)), { env });
    expect(ended.stdout.split('\n').filter((l) => l.startsWith('BUCATINI'))).toEqual([]);
    expect(ended.stdout).toContain('NODE_OPTIONS=--max-old-space-size=99');
    expect(ended.stdout).not.toContain('NODE_COMPILE_CACHE');
    // Descriptors of the test runner are inherited, as by any program.
    const plain = await runToEnd(['sh', '-c', 'ls /proc/self/fd'], { env });
    expect(ended.stdout.replace(/^NODE_.*\n/gm, '')).toBe(plain.stdout);
  });

  it('the working directory was removed: COMMAND runs in it', { timeout: 60_000 }, async () => {
    const script = 'd=$(mktemp -d) && cd "$d" && rmdir "$d" && exec "$@"';
    const ended = await runToEnd([
      'sh',
      '-c',
      script,
      'sh',
      ...bucatini('run', '--', 'readlink', '/proc/self/cwd'),
    ]);
    expect(ended.status).toBe(0);
    expect(ended.stdout).toMatch(/^.* \(deleted\)\n$/);
  });

  it('signals that the caller ignores (nohup, "&") stay ignored in COMMAND and are not passed on', async () => {
    const argv = [
      '-c',
      'trap "" HUP INT; exec "$@"',
      'sh',
      ...bucatini(...sh('grep SigIgn /proc/self/status; read x; exit 6')),
    ];
    const started = start(['/bin/sh', ...argv]);
    await printedLine(started, 'SigIgn:\t0000000000000003');
    started.process.kill('SIGHUP');
    started.process.kill('SIGINT');
    setTimeout(() => started.process.stdin!.end('\n'), 200);
    expect(await started.exited).toBe(6);
  });

  it('signals not ignored by the caller: default actions in COMMAND, SIGINT and SIGQUIT included', async () => {
    const ended = await runToEnd(bucatini(...sh('grep -E "SigIgn|SigBlk" /proc/self/status')));
    expect(ended.stdout.match(/\t0{16}$/gm)).toHaveLength(2);
  });
});

describeNeeding('run: the environment of COMMAND', tapNeeds, () => {
  it("root in its namespaces, own /proc, our resolver with the search list; the host's files are unchanged", async () => {
    const before = readFileSync('/etc/resolv.conf', 'utf8');
    const mounts = readFileSync('/proc/self/mounts', 'utf8');
    const ended = await runToEnd(
      bucatini(...sh('id -u; echo pid $$; grep nameserver /etc/resolv.conf; ls -d /proc/[0-9]* | wc -l')),
    );
    expect(ended.stdout).toMatch(/^0\npid \d\d?\nnameserver 169\.254\.1\.1\n[1-9]\n$/);
    expect(readFileSync('/etc/resolv.conf', 'utf8')).toBe(before);
    expect(readFileSync('/proc/self/mounts', 'utf8')).toBe(mounts);
  });

  it('interface options: name, MTU, MAC and addresses are set', async () => {
    const args = [
      '--address',
      '10.0.2.15/24',
      '--gateway',
      '10.0.9.1',
      '--address',
      'fd12::15',
      '--gateway',
      'fd12::1',
    ];
    const ended = await runToEnd(
      bucatini(
        'run',
        ...args,
        '--mtu',
        '1400',
        '--interface-name',
        'net7',
        '--',
        'sh',
        '-c',
        'ip -o addr; ip route; ip -6 route',
      ),
    );
    expect(ended.stdout).toMatch(/net7 +inet 10\.0\.2\.15\/24 /);
    expect(ended.stdout).toMatch(/net7 +inet6 fd12::15\/64 /);
    expect(ended.stdout).not.toContain('tentative');
    expect(ended.stdout).toMatch(/^default via 10\.0\.9\.1 dev net7/m);
    expect(ended.stdout).toMatch(/^10\.0\.9\.1 dev net7 scope link/m);
    expect(ended.stdout).toMatch(/^default via fd12::1 dev net7/m);
  });

  it('--ipv4-only: no IPv6 address; --ipv6-only: no IPv4 address, and an IPv6 resolver', async () => {
    const only4 = await runToEnd(
      bucatini('run', '--ipv4-only', '--interface-name', 'net7', '--', 'ip', '-6', 'addr', 'show', 'net7'),
    );
    expect(only4.stdout).toBe('');
    const only6 = await runToEnd(
      bucatini(
        'run',
        '-6',
        '--interface-name',
        'net7',
        '--',
        'sh',
        '-c',
        'ip -4 addr show net7; cat /etc/resolv.conf',
      ),
    );
    expect(only6.stdout).toMatch(/^nameserver fd9a:559a:559a::53\n/);
  });

  it('--no-configure: the interface exists, down and without address', async () => {
    const ended = await runToEnd(
      bucatini('run', '--no-configure', '--interface-name', 'net7', '--', 'ip', 'addr', 'show', 'net7'),
    );
    expect(ended.stdout).toContain('state DOWN');
    expect(ended.stdout).not.toContain('inet');
  });
});

describeNeeding('run: signals and ends', tapNeeds, () => {
  it('the started process is called bucatini', async () => {
    const started = start(bucatini(...sh('echo up; sleep 20')));
    await printedLine(started, 'up');
    expect(processName(started.pid)).toBe('bucatini');
    expect(childrenOf(started.pid)).toHaveLength(1);
    started.process.kill('SIGTERM');
    expect(await started.exited).toBe(143);
  });

  it('each signal reaches COMMAND once', { timeout: 60_000 }, async () => {
    const names = ['TERM', 'HUP', 'INT', 'QUIT', 'USR1', 'USR2', 'WINCH', 'CONT'];
    const traps = names.map((name) => `trap "echo got ${name}" ${name}`).join('; ');
    const started = start(
      bucatini('run', '--', 'bash', '-c', `${traps}; echo up; while :; do sleep 0.05; done`),
    );
    await printedLine(started, 'up');
    for (const name of names) {
      started.process.kill(`SIG${name}` as NodeJS.Signals);
      await printedLine(started, `got ${name}`);
    }
    expect(started.printed().stdout).toBe(`up\n${names.map((n) => `got ${n}\n`).join('')}`);
    const pids = family(started);
    started.process.kill('SIGKILL');
    await allGone(pids);
  });

  it('SIGTERM at any moment of the start: ends within a second, nothing is left', {
    timeout: 60_000,
  }, async () => {
    for (const delayMs of [0, 40, 80, 120, 160, 200, 260, 320, 400]) {
      const started = start(bucatini('run', '--', 'sleep', '30'));
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      const pids = family(started);
      started.process.kill('SIGTERM');
      expect(await started.exited).toBe(143);
      await allGone(pids);
    }
  });

  it('kill -9 of bucatini: COMMAND, its children and the launcher chain end', async () => {
    const started = start(bucatini(...sh('setsid sleep 100 & (sleep 100; :) & echo up; sleep 100')));
    await printedLine(started, 'up');
    const pids = family(started);
    expect(pids.length).toBeGreaterThan(5);
    started.process.kill('SIGKILL');
    await allGone(pids);
  });

  it('COMMAND ends: its background processes end too', async () => {
    const started = start(
      bucatini(...sh('setsid sleep 100 </dev/null >/dev/null 2>&1 & echo up; read x; exit 4')),
    );
    await printedLine(started, 'up');
    const pids = family(started);
    started.process.stdin!.end('\n');
    expect(await started.exited).toBe(4);
    await allGone(pids);
  });

  it('COMMAND, or the init of its PID namespace, is killed from outside: status 137', async () => {
    for (const victim of ['sleep', 'sh']) {
      const started = start(bucatini('run', '--', 'sleep', '100'));
      const pid = await eventually(
        `${victim} runs`,
        10_000,
        () =>
          family(started).some((p) => processName(p) === 'sleep') &&
          family(started).find((p) => processName(p) === victim),
      );
      const pids = family(started);
      process.kill(pid, 'SIGKILL');
      // When the init was killed, unshare of util-linux 2.38 returns 1, of 2.41 137.
      expect(victim === 'sleep' ? [137] : [1, 137]).toContain(await started.exited);
      await allGone(pids);
    }
  });

  it('the interface is removed: all ends with status 1 and a reason', async () => {
    const ended = await runToEnd(
      bucatini(...sh('ip link del "$(ip -o link | sed -n "2s/[0-9]*: \\([^:]*\\):.*/\\1/p")"; sleep 50')),
    );
    expect(ended.stderr).toMatch(/^bucatini: run: the engine failed: [^\n]+\n$/);
    expect(ended.status).toBe(1);
  });
});

describeNeeding('run: errors', tapNeeds, () => {
  it('the port is in use: one line that names it, status 1', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const ended = await runToEnd(bucatini('run', '--publish', `127.0.0.1:${port}:80`, '--', 'true'));
    server.close();
    expect(ended.stderr).toMatch(new RegExp(`^bucatini: run: [^\n]*${port}[^\n]*\n$`));
    expect(ended).toMatchObject({ status: 1, stdout: '' });
  });

  it('/dev/net/tun is missing or not accessible: one line with a remedy, status 1', async () => {
    for (const [how, reason] of [
      ['mount -t tmpfs none /dev/net', /open\(\/dev\/net\/tun\): ENOENT .*modprobe tun/],
      ['mount -t tmpfs none /dev/net; mkdir /dev/net/tun', /\/dev\/net\/tun.*EISDIR/],
    ] as const) {
      const argv = [
        '-Urm',
        '--',
        '/bin/sh',
        '-c',
        `${how}; exec "$@"`,
        'sh',
        ...bucatini('run', '--', 'true'),
      ];
      const ended = await runToEnd([findTool('unshare')!, ...argv]);
      expect(ended.stderr).toMatch(/^bucatini: run: [^\n]+\n$/);
      expect(ended.stderr).toMatch(reason);
      expect(ended).toMatchObject({ status: 1, stdout: '' });
    }
  });

  it('--pcap cannot be written: one line, status 1', async () => {
    const ended = await runToEnd(bucatini('run', '--pcap', '/proc/nowhere/x.pcap', '--', 'true'));
    expect(ended.stderr).toBe(
      'bucatini: run: --pcap /proc/nowhere/x.pcap: cannot be written: no such file or directory\n',
    );
    expect(ended.status).toBe(1);
  });

  it('--stats and --pcap: a table on standard error, and a capture file', async () => {
    mkdirSync(`${tree.root}/out`, { recursive: true });
    const file = `${tree.root}/out/frames.pcap`;
    const ended = await runToEnd(
      bucatini(
        'run',
        '--stats',
        '--pcap',
        file,
        ...sh('ping -c 1 -W 1 169.254.1.1 >/dev/null; sleep 0.2').slice(1),
      ),
    );
    expect(ended.stderr).toMatch(/^elapsed +\d.*\nfrom guest .*\nto guest .*\n\ncounter +value\n/);
    expect(ended.stderr).toMatch(/^framesFromGuest +\d+$/m);
    expect(statSync(file).size).toBeGreaterThan(24);
  });

  it('--stats, an idle guest: multicast of its kernel is not counted as loss', async () => {
    const ended = await runToEnd(bucatini('run', '--stats', ...sh('sleep 2').slice(1)));
    expect(ended.stderr).not.toContain('drop.');
    expect(ended.stderr).toMatch(/^groupReports +\d+$/m);
  });
});

/** A terminal by script(1): types each input when the text before it has appeared. @returns all output */
async function onTerminal(
  command: string,
  dialogue: readonly (readonly [wait: string, type: string])[],
): Promise<string> {
  const child = spawn(findTool('script')!, ['-qfec', command, '/dev/null'], {
    env: { ...process.env, SHELL: '/bin/sh', PS1: '$ ', TERM: 'dumb', B: tree.program },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let shown = '';
  let from = 0;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    shown += text;
  });
  try {
    for (const [wait, type] of dialogue) {
      const at = await eventually(`"${wait}" is shown`, 10_000, () => {
        const found = shown.indexOf(wait, from);
        return found < 0 ? undefined : found + 1;
      });
      from = at + wait.length - 1;
      // The process that printed the text may not yet have set the terminal or become the foreground.
      await new Promise((resolve) => setTimeout(resolve, 300));
      child.stdin.write(type);
    }
    await once(child, 'exit');
    return shown;
  } catch (cause) {
    throw new Error(`${(cause as Error).message}; the terminal shows:\n${shown}`, { cause });
  } finally {
    for (const pid of [...descendantsOf(child.pid!), child.pid!])
      if (isAlive(pid)) process.kill(pid, 'SIGKILL');
  }
}

describeNeeding('run on a terminal', [...tapNeeds, requireTool('script', 'apt package bsdutils')], () => {
  it('a shell has job control, and the script around it gets the terminal back', {
    timeout: 60_000,
  }, async () => {
    const shown = await onTerminal(
      'sh -c \'"$B" run bash --norc -i; echo "status=$?"; read x; echo "read=$x"\'',
      [
        ['$ ', 'sleep 100\n'],
        ['sleep 100', '\x1a'],
        ['Stopped', 'jobs; echo listed\n'],
        ['Stopped', 'fg\n'],
        ['fg\r\nsleep 100', '\x03'],
        ['$ ', 'exit 7\n'],
        ['status=7', 'hello\n'],
      ],
    );
    expect(shown).not.toContain('no job control');
    expect(shown).toContain('read=hello');
  });

  it('^C: COMMAND ends first, then bucatini with 128 + 2', { timeout: 60_000 }, async () => {
    const shown = await onTerminal(
      'trap : INT; "$B" run sh -c "trap \'echo caught; exit 3\' INT; echo up; while :; do sleep 0.1; done"; echo "status=$?"',
      [['up', '\x03']],
    );
    expect(shown.match(/caught/g)).toHaveLength(1);
    expect(shown).toContain('status=3');
    expect(
      await onTerminal('trap : INT; "$B" run sh -c "echo up; exec sleep 100"; echo "status=$?"', [
        ['up', '\x03'],
      ]),
    ).toContain('status=130');
  });

  it('^Z: stopped as a job of the outer shell; fg: goes on', { timeout: 60_000 }, async () => {
    const shown = await onTerminal('bash --norc -i', [
      ['$ ', '"$B" run sh -c "echo running; cat"\n'],
      ['running\r\n', '\x1a'],
      ['Stopped', 'fg\n'],
      ['running', 'typed\n'],
      ['typed\r\ntyped', '\x04'],
      ['$ ', 'echo "status=$?"; exit\n'],
    ]);
    expect(shown).toContain('status=0');
  });
});

describeNeeding('attach', tapNeeds, () => {
  const target = async (): Promise<Started> => {
    const started = start([findTool('unshare')!, '-Urn', '--', 'sh', '-c', 'echo up; exec sleep 60']);
    await printedLine(started, 'up');
    return started;
  };
  const ready = (started: Started): Promise<unknown> =>
    eventually(`ready: ${started.printed().stderr}`, 10_000, () =>
      /^bucatini: ready: /m.test(started.printed().stderr),
    );

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`PID: configures the namespace, prints ready; ${signal}: status 0`, async () => {
      const inside = await target();
      const started = start(bucatini('attach', '--interface-name', 'net7', String(inside.pid)));
      await ready(started);
      expect(processName(started.pid)).toBe('bucatini');
      const look = [
        '--preserve-credentials',
        '-U',
        '-n',
        '-t',
        String(inside.pid),
        '--',
        'ip',
        '-o',
        'addr',
        'show',
        'net7',
      ];
      expect(spawnSync(findTool('nsenter')!, look, { encoding: 'utf8' }).stdout).toContain('inet ');
      started.process.kill(signal);
      expect(await started.exited).toBe(0);
      // The interface is removed with the engine; the namespace stays.
      expect(spawnSync(findTool('nsenter')!, look, { encoding: 'utf8' }).status).toBe(1);
      expect(isAlive(inside.pid)).toBe(true);
      inside.process.kill('SIGKILL');
    });
  }

  it('PID, the process ends: status 0', async () => {
    const inside = await target();
    const started = start(bucatini('attach', String(inside.pid)));
    await ready(started);
    inside.process.kill('SIGKILL');
    expect(await started.exited).toBe(0);
    expect(started.printed().stderr).toContain('the namespace is gone');
  });

  it('--ready-fd gets "1" and is closed, --exit-fd ends it; a descriptor that is not open: one line', async () => {
    const inside = await target();
    const [file = '', ...args] = bucatini('attach', '--ready-fd', '3', '--exit-fd', '4', String(inside.pid));
    const attached = spawn(file, args, { stdio: ['ignore', 'ignore', 'inherit', 'pipe', 'pipe'] });
    let told = '';
    for await (const part of attached.stdio[3] as Readable) told += part;
    expect(told).toBe('1');
    expect(attached.exitCode).toBeNull();
    attached.stdio[4]!.destroy();
    expect(await once(attached, 'exit')).toEqual([0, null]);
    const ended = await runToEnd(bucatini('attach', '--exit-fd', '77', String(inside.pid)));
    expect(ended.stderr).toBe(
      'bucatini: attach: --exit-fd 77: this descriptor is not open; leave it open for bucatini\n',
    );
    expect(ended.status).toBe(1);
    inside.process.kill('SIGKILL');
  });

  it('the interface name is in use: the error asks for another', async () => {
    const inside = await target();
    const first = start(bucatini('attach', '--interface-name', 'net7', String(inside.pid)));
    await ready(first);
    const second = await runToEnd(bucatini('attach', '--interface-name', 'net7', String(inside.pid)));
    expect(second.status).toBe(1);
    expect(second.stderr).toMatch(/^bucatini: attach: [^\n]*--interface-name NAME\n$/);
    first.process.kill('SIGTERM');
    expect(await first.exited).toBe(0);
    inside.process.kill('SIGKILL');
  });

  it('a file that is no network namespace: refused in one line', async () => {
    for (const path of ['/etc/passwd', '/proc/self/ns/user']) {
      const ended = await runToEnd(bucatini('attach', path));
      expect(ended.stderr).toMatch(/^bucatini: attach: [^\n]+\n$/);
      expect(ended.status).toBe(1);
    }
  });
});

/**
 * An ordinary user, as whom all must work; undefined when the tests run as one, or when that user cannot read
 * these files.
 */
const ordinary = (): readonly string[] | undefined => {
  if (process.getuid!() !== 0) return undefined;
  const argv = [findTool('setpriv')!, '--reuid=65534', '--regid=65534', '--clear-groups', '--'];
  const reads = spawnSync(argv[0]!, [...argv.slice(1), process.execPath, '--version'], { stdio: 'ignore' });
  return reads.status === 0 ? argv : undefined;
};

describeNeeding('as an ordinary user', tapNeeds, () => {
  const prefix = ordinary() ?? [];

  it('run, attach by PID, attach by path: work', { timeout: 60_000 }, async () => {
    expect(await runToEnd([...prefix, ...bucatini(...sh('id -u; exit 3'))])).toMatchObject({
      status: 3,
      stdout: '0\n',
    });
    const inside = start([
      ...prefix,
      findTool('unshare')!,
      '-Urn',
      '--',
      'sh',
      '-c',
      'echo up; exec sleep 60',
    ]);
    await printedLine(inside, 'up');
    for (const target of [`${inside.pid}`, `/proc/${inside.pid}/ns/net`]) {
      const started = start([...prefix, ...bucatini('attach', target)]);
      await eventually(`ready: ${target}`, 10_000, () =>
        /^bucatini: ready: /m.test(started.printed().stderr),
      );
      expect(processName(started.pid)).toBe('bucatini');
      started.process.kill('SIGTERM');
      expect(await started.exited).toBe(0);
    }
    inside.process.kill('SIGKILL');
  });

  it('run without the launcher: Node enters the namespaces itself', async () => {
    const argv = [
      process.execPath,
      `${tree.root}/dist/main/bucatini.js`,
      ...sh('id -u; env | grep -c BUCATINI; exit 3'),
    ];
    expect(await runToEnd([...prefix, ...argv])).toMatchObject({
      status: 3,
      stdout: '0\n0\n',
      stderr: '',
    });
  });
});

describeNeeding('doctor and selftest', tapNeeds, () => {
  it('doctor, on a host where run works: no FAIL, status 0', async () => {
    const ended = await runToEnd(bucatini('doctor'));
    expect(ended.stdout).not.toMatch(/^FAIL/m);
    expect(ended.stdout).toContain('bucatini run works on this host');
    expect(ended.status).toBe(0);
  });

  it('bug-report, a running engine: its state, without addresses and without COMMAND', async () => {
    const running = start(bucatini('run', '--mtu', '1400', '--dns', '192.0.2.77', '--', 'sleep', '1234.5'));
    try {
      const report = await eventually('the engine is in the report', 10_000, async () => {
        const ended = await runToEnd(bucatini('bug-report'));
        return ended.stdout.includes('run --mtu 1400 --dns …') && ended;
      });
      expect(report.status).toBe(0);
      expect(report.stdout).toMatch(/^bucatini {2,}\d+\.\d+/m);
      expect(report.stdout).toMatch(/^ok +TAP/m);
      expect(report.stdout).toMatch(/^ {2}resident memory +\d+ kB$/m);
      expect(report.stdout).not.toMatch(/192\.0\.2\.77|1234\.5/);
    } finally {
      killTree(running.pid);
      await running.exited;
    }
  });

  it('bug-report with an API socket: the counters of that engine, without the path', async () => {
    const dir = mkdtempSync(`${tmpdir()}/report-`);
    const socket = `${dir}/secret-name`;
    const running = start(bucatini('run', '--api-socket', socket, '--', 'sleep', '1234.5'));
    try {
      await eventually('the socket is there', 10_000, async () => existsSync(socket));
      const report = await runToEnd(bucatini('bug-report', socket, `${dir}/none`));
      expect(report.status).toBe(0);
      expect(report.stdout).toMatch(/^## Counters\n\ncounter +value.*^tapReads +\d/ms);
      expect(report.stdout).toMatch(/^not available: no such socket$/m);
      expect(report.stdout).not.toContain('secret-name');
    } finally {
      killTree(running.pid);
      await running.exited;
      rmSync(dir, { recursive: true });
    }
  });

  it('selftest: every step passes', { timeout: 60_000 }, async () => {
    const ended = await runToEnd(bucatini('selftest'), { timeoutMs: 45_000 });
    expect(ended.stdout, ended.stderr).toContain('selftest passed');
    expect(ended.status).toBe(0);
  });
});
