// @vitest: beside
/**
 * Socket switching: ordinary programs notice nothing. The same programs (test/support/switching/truth.py) run with and
 * without --switch-sockets and must see the same; which of their sockets were the host's is told by the cookie of
 * their namespace (SO_NETNS_COOKIE), and of other programs by how little came through the TAP.
 *
 * By hand: SWITCH_CONNECTIONS=100000 connections under signals (default 800); git, and nginx as a proxy, if they are
 * installed.
 */
import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, makeBed, succeedIn } from '../support/bed.ts';
import { engine, repoRoot } from '../support/engines.ts';
import { patternSlice } from '../support/pattern.ts';
import { HOST4, HOST6, PEER4, PEER6, PORT, UNREACHABLE4, UNREACHABLE6 } from '../support/ports.ts';
import { eventually, type Finished, killTree } from '../support/process.ts';
import { describeE2e, findTool, requireTool } from '../support/require.ts';
import {
  PYTHON,
  pythonProgram,
  requirePython,
  type SwitchedRun,
  startSwitched,
} from '../support/switching/switched.ts';

const needs = [
  requirePython,
  requireTool('curl', 'apt package curl'),
  requireTool('iperf3', 'apt package iperf3'),
  requireTool('socat', 'apt package socat'),
  requireTool('nc.openbsd', 'apt package netcat-openbsd'),
  requireTool('ncat', 'apt package ncat'),
  requireTool('busybox', 'apt package busybox-static'),
];
const CONNECTIONS = Number(process.env.SWITCH_CONNECTIONS ?? 800);
const BY_HAND_MS = CONNECTIONS > 800 ? 3_600_000 : 60_000;
const BYTES = 3_000_000;
/** What may pass the TAP while a switched program loads BYTES: neighbour discovery and DNS. */
const FEW_BYTES = 100_000;
/** The peer sends the bytes to who connects. */
const RAW = 7300;
const SERVER = 7001;
const PUBLISHED = 8081;
const NOBODY = ['198.18.7.7', '2001:db8:7::7'];

interface Told {
  readonly name: string;
  readonly seen: Readonly<Record<string, unknown>>;
  readonly switched: Readonly<Record<string, unknown>>;
}

describeE2e('socket switching: truth', needs, () => {
  if (engine.name !== 'bucatini') return it.skip('other engines have none', () => {});
  let bed: Bed;
  let plain: SwitchedRun;
  let run: SwitchedRun;
  const truth = (...names: string[]): string[] =>
    pythonProgram(
      'truth.py',
      JSON.stringify({
        ...{ peers: [PEER4, PEER6], nobody: NOBODY, unreachable: [UNREACHABLE4, UNREACHABLE6], waiting: 300 },
        ...{
          echo: PORT.echo,
          closed: PORT.closed,
          http: PORT.http,
          reset: PORT.reset,
          directory: bed.ramDir,
        },
        connections: CONNECTIONS / 8,
      }),
      ...names,
    );
  const told = (done: Finished): Told => {
    expect(done.status, done.stdout + done.stderr).toBe(0);
    const [one] = done.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(one?.seen.FAILED, done.stdout + done.stderr).toBeUndefined();
    return one;
  };
  /** What both runs saw: the same. @returns that of the switched run */
  const compared = async (name: string): Promise<Told> => {
    const [without, result] = (
      await Promise.all([plain, run].map((one) => one.run(truth(name), { timeoutMs: BY_HAND_MS })))
    ).map(told);
    if (process.env.SWITCH_SHOW) console.log(JSON.stringify({ without, result }));
    expect(result!.seen).toEqual(without!.seen);
    expect(Object.values(without!.switched)).not.toContain(true);
    return result!;
  };
  const allSwitched = (switched: Readonly<Record<string, unknown>>): void => {
    expect(Object.keys(switched).length).toBeGreaterThan(0);
    expect(Object.entries(switched).filter(([, is]) => is !== true)).toEqual([]);
  };

  beforeAll(async () => {
    bed = await makeBed({ plainRoutes: true });
    await succeedIn(bed, 'peer', [
      ...['sh', '-ec'],
      `ip route add blackhole ${NOBODY[0]}; ip -6 route add blackhole ${NOBODY[1]}`,
    ]);
    const extra = ['--switch-sockets', '--no-switch', '198.18.0.0/24'];
    [plain, run] = await Promise.all([
      startSwitched(bed, { extra: ['--publish', '8080:7002'] }),
      startSwitched(bed, { extra: [...extra, '--publish', `${PUBLISHED}:${SERVER}`] }),
    ]);
  });
  afterAll(async () => {
    await Promise.all([plain?.stop(), run?.stop()]);
    await bed?.close();
  });

  describe.concurrent('as without it, while nothing comes', () => {
    it('a destination that answers nothing: signals and time limits', async () => {
      const { seen } = await compared('silence');
      // Not only the same in both, but right.
      expect(seen).toMatchObject({
        SO_SNDTIMEO: ['EINPROGRESS', 'in time'],
        'SO_SNDTIMEO, again': ['EALREADY', 'in time'],
        EINTR: ['EINTR', 'in time'],
        SA_RESTART: ['ETIMEDOUT', 'in time'],
        alarm: 'in time',
      });
    });

    it('destinations that the kernel gives up', async () => {
      await compared('timeouts');
    });

    it('sockets that threads and processes share', async () => {
      const { seen } = await compared('shared');
      expect(seen['while many wait']).toBe(true);
    });
  });

  describe('as without it', () => {
    it.each(['connects', 'flags', 'options'])('%s, and all are switched', async (name) => {
      const { switched } = await compared(name);
      allSwitched(switched);
    });

    it.each(['failures', 'retries', 'arguments', 'int80', 'processes'])('%s', async (name) => {
      await compared(name);
    });

    it(
      'threads connect under a signal every millisecond',
      async () => {
        const { seen } = await compared('storm');
        expect(seen.right).toEqual([CONNECTIONS, 0]);
      },
      BY_HAND_MS,
    );

    it('other sockets, bound ones and options that stay inside', async () => {
      const { switched } = await compared('others');
      expect(Object.entries(switched).filter(([, is]) => is === true)).toEqual([]);
    });

    it('epoll and asyncio', async () => {
      const { switched } = await compared('sets');
      for (const [what, is] of Object.entries(switched))
        expect(is, what).toBe(!what.startsWith('before=True'));
    });

    it('MSG_FASTOPEN: EOPNOTSUPP', async () => {
      const { switched } = told(await run.run(truth('fast_open')));
      expect(switched.MSG_FASTOPEN).toMatch(/^E(OPNOTSUPP|NOTSUP)$/);
    });
  });

  describe('programs', () => {
    const sha = (data: string | Uint8Array): string => createHash('sha256').update(data).digest('hex');
    const want = sha(patternSlice(0, BYTES));
    const path = `/bytes/${BYTES}`;
    const url = `http://${PEER4}:${PORT.http}${path}`;
    const get = `GET ${path} HTTP/1.0\\r\\n\\r\\n`;
    /** Bytes that have passed the TAP, in both directions. */
    const tapBytes = async (): Promise<number> => {
      const { stdout } = await run.run(['cat', '/proc/net/dev']);
      return stdout
        .split('\n')
        .slice(2)
        .filter((line) => line.includes(':') && !line.trim().startsWith('lo:'))
        .map((line) => line.split(':')[1]!.trim().split(/\s+/).map(Number))
        .reduce((sum, fields) => sum + fields[0]! + fields[8]!, 0);
    };
    const shell = (script: string): string[] => ['bash', '-c', script];
    const body = `sed '1,/^\\r$/d'`;
    const python = (code: string): string[] => [PYTHON, '-c', `import sys\n${code}`];
    const clients: readonly { name: string; argv: () => string[]; byTap?: boolean }[] = [
      { name: 'curl', argv: () => ['curl', '-s', '--noproxy', '*', url] },
      {
        name: 'curl, IPv6',
        argv: () => ['curl', '-gs', '--noproxy', '*', `http://[${PEER6}]:${PORT.http}${path}`],
      },
      {
        name: 'curl, by name',
        argv: () => ['curl', '-s', '--noproxy', '*', `http://peer.bed.test:${PORT.http}${path}`],
      },
      { name: 'busybox wget', argv: () => ['busybox', 'wget', '-q', '-O', '-', url] },
      {
        name: 'Node, fetch',
        argv: () => [
          process.execPath,
          '-e',
          `fetch('${url}').then((r) => r.arrayBuffer()).then((b) => process.stdout.write(Buffer.from(b)))`,
        ],
      },
      {
        name: 'Python, urllib',
        argv: () =>
          python(`import urllib.request
sys.stdout.buffer.write(urllib.request.build_opener(urllib.request.ProxyHandler({})).open('${url}').read())`),
      },
      {
        name: 'Python, asyncio',
        argv: () =>
          python(`import asyncio
async def main():
    r, w = await asyncio.open_connection('${PEER4}', ${PORT.http})
    w.write(b'${get}')
    sys.stdout.buffer.write((await r.read()).split(b'\\r\\n\\r\\n', 1)[1])
asyncio.run(main())`),
      },
      {
        name: 'bash',
        argv: () => shell(`exec 3<>/dev/tcp/${PEER4}/${PORT.http}; printf '${get}' >&3; ${body} <&3`),
      },
      { name: 'socat', argv: () => ['socat', '-u', `TCP:${PEER4}:${RAW}`, '-'] },
      { name: 'ncat', argv: () => ['ncat', '--recv-only', PEER4, String(RAW)] },
      { name: 'nc', argv: () => ['nc.openbsd', '-d', PEER4, String(RAW)] },
      {
        name: 'perl',
        argv: () => [
          ...['perl', '-MIO::Socket::INET', '-e'],
          `$s = IO::Socket::INET->new("${PEER4}:${PORT.http}"); print $s "${get}"; local $/; $_ = <$s>; s/.*?\\r\\n\\r\\n//s; print`,
        ],
      },
      {
        name: 'a program with epoll before connect',
        argv: () => truth('fetch', get.replaceAll('\\r\\n', '\r\n')),
        byTap: true,
      },
    ];

    beforeAll(async () => {
      const file = `${bed.ramDir}/data`;
      await succeedIn(bed, 'peer', shell(`curl -s --noproxy '*' ${url} >${file}`));
      bed.start('peer', ['socat', '-U', `TCP-LISTEN:${RAW},fork,reuseaddr`, `OPEN:${file},rdonly`]);
      await eventually('it listens', 5000, async () =>
        (await succeedIn(bed, 'peer', ['ss', '-Hltn', 'sport', '=', `:${RAW}`])).includes('LISTEN'),
      );
    });

    it.each(clients)('$name loads what the peer sends', async ({ argv, byTap = false }) => {
      const before = await tapBytes();
      // The jobs' output is text, so only the checksum passes it.
      const done = await run.run(['bash', '-c', 'set -o pipefail; "$@" | sha256sum', 'bash', ...argv()]);
      expect(done.status, done.stderr).toBe(0);
      expect(done.stdout.split(' ')[0], done.stderr).toBe(want);
      const passed = (await tapBytes()) - before;
      if (byTap) expect(passed).toBeGreaterThan(BYTES);
      else expect(passed).toBeLessThan(FEW_BYTES);
    });

    it.each(['up', 'down'])('iperf3, %s', async (direction) => {
      const server = bed.start('peer', ['iperf3', '-s', '-1', '-p', '5201', '--forceflush']);
      await eventually('it listens', 5000, () => server.printed().stdout.includes('listening'));
      const before = await tapBytes();
      const reverse = direction === 'down' ? ['-R'] : [];
      const done = await run.run(['iperf3', '-c', PEER4, '-n', '50M', '-P', '2', '-J', ...reverse]);
      expect(done.status, done.stdout).toBe(0);
      expect(JSON.parse(done.stdout).end.sum_sent.bytes).toBeGreaterThan(49_000_000);
      expect((await tapBytes()) - before).toBeLessThan(FEW_BYTES);
      await server.exited;
    });

    it('the peer sees the host, and a switched connection is one of the host’s', async () => {
      for (const [peer, host] of [
        [PEER4, HOST4],
        [PEER6, HOST6],
      ]) {
        const held = run.start(
          python(`import socket
s = socket.create_connection(('${peer}', ${PORT.echo}))
print(s.getsockname()[1], flush=True)
s.recv(1)`),
        );
        await eventually('it is connected', 5000, () => held.printed().stdout.endsWith('\n'));
        const port = held.printed().stdout.trim();
        const sockets = await succeedIn(bed, 'host', ['ss', '-Htn', 'sport', '=', `:${port}`]);
        expect(sockets).toContain('ESTAB');
        expect(sockets).toMatch(new RegExp(`${host!.replaceAll('.', '\\.')}\\]?(%veth0)?:${port}`));
        held.kill(9);
        await held.finished;
      }
    });

    it('servers inside are reached, by published ports too', async () => {
      const server = run.start(truth('serve'));
      await eventually('it listens', 5000, () => server.printed().stdout.includes('ready'));
      const ask = (host: string, port: number): string[] => [
        'bash',
        '-c',
        `exec 3<>/dev/tcp/${host}/${port}; echo asked >&3; head -n1 <&3`,
      ];
      expect(await succeedIn(bed, 'peer', ask(HOST4, PUBLISHED))).toBe('asked\n');
      expect(await succeedIn(bed, 'peer', ask(HOST6, PUBLISHED))).toBe('asked\n');
      expect(await succeedIn(bed, 'host', ask('127.0.0.1', PUBLISHED))).toBe('asked\n');
      for (const own of ['127.0.0.1', '::1', HOST4, HOST6])
        expect(await run.run(ask(own, SERVER)), own).toMatchObject({ status: 0, stdout: 'asked\n' });
      server.kill(9);
      await server.finished;
    });

    it.runIf(findTool('git') !== undefined)('git clones', async () => {
      const at = `${bed.ramDir}/git`;
      const make = `git init -q ${at}/from && cd ${at}/from && head -c 300000 /dev/urandom >file && git add file &&
        git -c user.name=a -c user.email=a@b.c commit -qm first && touch .git/git-daemon-export-ok`;
      await succeedIn(bed, 'peer', shell(make), { env: { HOME: bed.ramDir } });
      const daemon = bed.start('peer', [
        'git',
        'daemon',
        '--reuseaddr',
        `--base-path=${at}`,
        '--port=9418',
        '--verbose',
      ]);
      await eventually('it listens', 5000, () => daemon.printed().stderr.includes('Ready'));
      const before = await tapBytes();
      const done = await run.run(
        shell(`git clone -q git://${PEER4}/from ${at}/to && cmp ${at}/from/file ${at}/to/file`),
      );
      expect(done.status, done.stderr).toBe(0);
      expect((await tapBytes()) - before).toBeLessThan(FEW_BYTES);
      killTree(daemon.pid);
    });

    it.runIf(findTool('nginx') !== undefined)('nginx as a proxy', async () => {
      const conf = `${bed.ramDir}/nginx.conf`;
      bed.write(
        conf,
        // No other user is mapped inside.
        `user root root; daemon off; master_process off; pid ${bed.ramDir}/nginx.pid; error_log stderr; events {}
http { access_log off; client_body_temp_path ${bed.ramDir}/n1; proxy_temp_path ${bed.ramDir}/n2;
 fastcgi_temp_path ${bed.ramDir}/n3; uwsgi_temp_path ${bed.ramDir}/n4; scgi_temp_path ${bed.ramDir}/n5;
 server { listen 127.0.0.1:8088; location / { proxy_pass http://${PEER4}:${PORT.http}; } } }`,
      );
      const proxy = run.start(['nginx', '-c', conf]);
      const load = `curl -s --noproxy '*' --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:8088${path}`;
      const { stdout } = await run.run(shell(`${load} | sha256sum`));
      expect(stdout.split(' ')[0]).toBe(want);
      proxy.kill(15);
      await proxy.finished;
    });
  });

  it('pasta COMMAND: the same', async () => {
    const none = ['-u', 'none', '-T', 'none', '-U', 'none'];
    const argv = [
      `${repoRoot}/bin/pasta`,
      '--config-net',
      '-q',
      '-t',
      '8082:7001',
      ...none,
      '--switch-sockets',
      '--',
    ];
    const pasta = await startSwitched(bed, {}, argv);
    try {
      const { switched } = told(await pasta.run(truth('connects')));
      allSwitched(switched);
      const sets = told(await pasta.run(truth('others')));
      expect(Object.entries(sets.switched).filter(([, is]) => is === true)).toEqual([]);
      const server = pasta.start(truth('serve'));
      await eventually('it listens', 5000, () => server.printed().stdout.includes('ready'));
      const ask = 'exec 3<>/dev/tcp/10.77.0.1/8082; echo asked >&3; head -n1 <&3';
      expect(await succeedIn(bed, 'peer', ['bash', '-c', ask])).toBe('asked\n');
    } finally {
      await pasta.stop();
    }
  });

  describe('is refused in one line', () => {
    const bucatini = `${repoRoot}/bin/bucatini`;
    const pasta = `${repoRoot}/bin/pasta`;
    it.each([
      { argv: [bucatini, 'run', '--switch-sockets', '--pcap', '/dev/null', '--', 'true'], says: ['--pcap'] },
      {
        argv: [bucatini, 'run', '--switch-sockets', '--pcap-ring', '1m', '--pcap', '/dev/null', '--', 'true'],
        says: ['--pcap'],
      },
      { argv: [bucatini, 'run', '--switch-sockets', '--rate', '1mbit', '--', 'true'], says: ['--rate'] },
      { argv: [bucatini, 'run', '--switch-sockets', '--delay', '1ms', '--', 'true'], says: ['--delay'] },
      { argv: [bucatini, 'run', '--switch-sockets', '--loss', '1%', '--', 'true'], says: ['--loss'] },
      { argv: [bucatini, 'run', '--switch-sockets', '--impair', 'lte', '--', 'true'], says: ['--impair'] },
      { argv: [bucatini, 'run', '--no-switch', '10.0.0.0/8', '--', 'true'], says: ['--no-switch'] },
      {
        argv: [bucatini, 'run', '--switch-sockets', '--no-switch', '10.0.0.0/33', '--', 'true'],
        says: ['--no-switch', '10.0.0.0/33'],
      },
      {
        argv: [bucatini, 'run', '--switch-sockets', '--no-switch', 'lan', '--', 'true'],
        says: ['--no-switch', 'lan'],
      },
      { argv: [bucatini, 'attach', '--switch-sockets', '1'], says: [] },
      { argv: [pasta, '--switch-sockets', '--pcap', '/dev/null', '--', 'true'], says: ['--pcap'] },
      { argv: [pasta, '--switch-sockets', '--config-net', '1'], says: [] },
      { argv: [pasta, '--switch-sockets', '--netns', '/proc/self/ns/net'], says: [] },
    ])('$argv', async ({ argv, says }) => {
      const done = await bed.run('user', argv, { env: { HOME: bed.ramDir }, timeoutMs: 10_000 });
      expect(done.status).not.toBe(0);
      const lines = done.stderr.trim().split('\n');
      expect(lines[0]).toContain('switch');
      for (const text of says) expect(lines[0]).toContain(text);
      // attach names the option and then its usage, as for every option that it does not have.
      if (argv[1] !== 'attach') expect(lines, done.stderr).toHaveLength(1);
    });
  });
});
