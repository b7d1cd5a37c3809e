// @vitest: beside
/**
 * `bucatini switch-agent` with a real filter, real connections, and a service manager that stores its listeners. Podman
 * with crun and runc is tried by `npm run test:podman -- switch`.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, supportProgram } from '../support/bed.ts';
import { engine, repoRoot } from '../support/engines.ts';
import { HOST4, PEER4, PEER6, PORT } from '../support/ports.ts';
import { eventually, killTree, type Started } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';
import { hideFuse } from '../support/switching/hidden-fuse.ts';

const LIMIT_MS = 10_000;
/** On the host's link, but nobody: a blocking connect() waits for 3 seconds. */
const NOBODY4 = '10.77.0.99';
const HOST_ONLY_PORT = 9481;

/**
 * Reads lines and prints answers. "netns" is that of the socket, seen after connect(): the cookie differs from that of
 * this program where a socket of the host has taken its place.
 *
 *   connect ADDR PORT   blocking     poll ADDR PORT   non-blocking, in an epoll set after connect()
 *   keep ADDR PORT      and keep it; then "echo" sends through it
 */
const PROGRAM = `
import os, select, socket, sys
COOKIE = 71
def cookie(s): return s.getsockopt(socket.SOL_SOCKET, COOKIE, 8)
own = cookie(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
def made(addr): return socket.socket(socket.AF_INET6 if ':' in addr else socket.AF_INET)
def where(s): return 'inside' if cookie(s) == own else 'host'
def connect(addr, port):
    s = made(addr); s.connect((addr, int(port))); s.sendall(b'x')
    return where(s) + ' ' + s.recv(1).decode()
def poll(addr, port):
    s = made(addr); s.setblocking(False); r = s.connect_ex((addr, int(port)))
    e = select.epoll(); e.register(s, select.EPOLLOUT)
    e.poll(5); r = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return where(s) + ' ' + str(r)
kept = None
def keep(addr, port):
    global kept
    kept = made(addr); kept.connect((addr, int(port)))
    return where(kept)
def echo():
    kept.sendall(b'y'); return kept.recv(1).decode()
def udp(addr, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect((addr, int(port))); s.send(b'u')
    return where(s) + ' ' + s.recv(1).decode()
def serve():
    l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(1)
    c = socket.create_connection(l.getsockname()); a, _ = l.accept()
    c.sendall(b'l'); return where(c) + ' ' + a.recv(1).decode()
def background(addr, port):
    if os.fork() == 0:
        r = made(addr).connect_ex((addr, int(port)))
        print('background', os.strerror(r), flush=True); os._exit(0)
    return 'started'
print('ready', flush=True)
while line := sys.stdin.readline():
    name, *args = line.split()
    try: r = globals()[name](*args)
    except OSError as e: r = e.strerror
    print(name, r, flush=True)
`;

/** Clients of the agent's socket that send no message of an OCI runtime. */
const HOSTILE = `
import array, os, socket, sys
def client():
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); return s
def send(data, fds=()):
    s = client()
    try:
        s.sendmsg([data[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else [])
        s.sendall(data[1:])
        s.shutdown(socket.SHUT_WR); s.recv(1)
    except OSError: pass
send(b'{"fds":["seccompFd"],"pid":1,"state":{}}', [0])
send(b'[' * 100000)
send(b'x' * 10000000)
send(b'{}', [0] * 100)
send(b'{}', [0] * 12)
silent = [client() for _ in range(20)]
print('done', flush=True)
sys.stdin.read()
`;

describeE2e('switch-agent', [requireTool('python3', 'apt package python3-minimal')], () => {
  if (engine.name !== 'bucatini') return it.skip('other engines have none', () => {});
  const BUCATINI = `${repoRoot}/bin/bucatini`;
  let bed: Bed;
  let guest: Guest;
  let manager: Started;
  let container: Started;
  const started: Started[] = [];
  const socketPath = (): string => `${bed.ramDir}/agent.sock`;

  /** Lines that a program prints after \`from\` characters of its output. */
  const line = async (program: Started, what: RegExp, from = 0): Promise<string> =>
    (
      await eventually(
        `${what} of ${program.printed().stdout}`,
        LIMIT_MS,
        () => what.exec(program.printed().stdout.slice(from)) ?? undefined,
      ).catch((error: Error) => {
        throw new Error(`${error.message}\n${program.printed().stdout}\n${program.printed().stderr}`);
      })
    )[0];
  const tell = async (program: Started, text: string, answer: RegExp): Promise<string> => {
    const from = program.printed().stdout.length;
    program.process.stdin!.write(`${text}\n`);
    return line(program, answer, from);
  };
  const ask = async (text: string): Promise<string> => {
    const [name = ''] = text.split(' ');
    const said = await tell(container, text, new RegExp(`^${name} .*\n`, 'm'));
    return said.slice(name.length + 1, -1);
  };
  const begin = async (id: string): Promise<Started> => {
    const one = guest.startInside([
      ...supportProgram('clients/oci-runtime.ts', socketPath(), id, bed.pidSeenInside(guest.commandPid)),
      ...['python3', '-c', PROGRAM],
    ]);
    started.push(one);
    await line(one, /^ready\n/m);
    return one;
  };

  beforeAll(async () => {
    bed = await makeBed();
    await hideFuse(bed);
    manager = bed.start('user', [
      ...supportProgram('clients/fake-manager.ts', socketPath(), `${bed.ramDir}/notify`),
      ...[BUCATINI, 'switch-agent', '--no-switch', `192.0.2.0/24,${PEER6}`, '--log-level', 'debug'],
    ]);
    started.push(manager);
    [guest] = await Promise.all([
      bed.engine({ plan: 'fused' }),
      line(manager, /^READY=1 STATUS=no container\n/m),
    ]);
    container = await begin('c1');
  });
  afterAll(async () => {
    for (const { pid } of started) killTree(pid);
    await guest?.stop();
    await bed?.close();
  });

  it('TCP to the world leaves by sockets of the host; all else stays inside', async () => {
    expect(await line(manager, /^FDSTORE=1 FDNAME=\d+-c1\n/m)).toBeTruthy();
    expect(await ask(`connect ${PEER4} ${PORT.echo}`)).toBe('host x');
    expect(await ask(`connect ${PEER6} ${PORT.echo}`)).toBe('inside x'); // --no-switch
    expect(await ask(`poll ${PEER4} ${PORT.echo}`)).toBe('host 0');
    expect(await ask(`udp ${PEER4} ${PORT.echo}`)).toBe('inside u');
    expect(await ask('serve')).toBe('inside l');
    expect(await ask(`connect ${PEER4} ${PORT.closed}`)).toBe('Connection refused');
  });

  it("the host's loopback and addresses are not reached", async () => {
    const canary = bed.start('host', ['python3', '-c', CANARY, String(HOST_ONLY_PORT)]);
    started.push(canary);
    await line(canary, /^ready\n/m);
    for (const address of ['127.0.0.1', '0.0.0.0', '::1', '::', '::ffff:127.0.0.1'])
      expect([address, await ask(`connect ${address} ${HOST_ONLY_PORT}`)]).toEqual([
        address,
        'Connection refused',
      ]);
    expect(await ask(`connect ${HOST4} ${HOST_ONLY_PORT}`)).not.toMatch(/^host/);
    expect(canary.printed().stdout).toBe('ready\n');
  });

  it.each(['restart', 'kill'])('%s of the agent: connections and containers live on', async (how) => {
    expect(await ask(`keep ${PEER4} ${PORT.echo}`)).toBe('host');
    if (how === 'restart') await ask(`background ${NOBODY4} 1`);
    await tell(manager, how, /^READY=1 STATUS=1 listener\n/m);
    expect(await ask('echo')).toBe('y');
    expect(await ask(`connect ${PEER4} ${PORT.echo}`)).toBe('host x');
    expect(await ask('serve')).toBe('inside l');
    // A connect() that waited when the agent ended: interrupted, as by a signal, and Python waits on.
    if (how === 'restart') await line(container, /^background No route to host\n/m);
  });

  it('hostile clients of the socket: refused in time, a container behind them is served', async () => {
    const hostile = bed.start('user', ['python3', '-c', HOSTILE, socketPath()]);
    started.push(hostile);
    await line(hostile, /^done\n/m);
    const other = await begin('c2');
    expect(await ask(`connect ${PEER4} ${PORT.echo}`)).toBe('host x');
    expect((await tell(other, `connect ${PEER4} ${PORT.echo}`, /^connect .*\n/m)).trim()).toBe(
      'connect host x',
    );
    for (const why of [
      'is not JSON',
      'is longer than 256 KiB',
      'more than 8 descriptors',
      'not complete after 5 seconds',
    ])
      expect(manager.printed().stderr).toContain(why);
    const from = manager.printed().stdout.length;
    other.process.stdin!.end();
    await line(manager, /^FDSTOREREMOVE=1 FDNAME=\d+-c2\n/m, from);
    expect(await tell(manager, 'stored', /^stored .*\n/m)).toMatch(/^stored \d+-c1\n$/);
  });

  it('without a socket unit: one agent at a path, a socket that is left over is replaced', async () => {
    const path = `${bed.ramDir}/own.sock`;
    const own = [BUCATINI, 'switch-agent', '--socket', path];
    const first = bed.start('user', own);
    started.push(first);
    const listening = (one: Started) =>
      eventually('it listens', LIMIT_MS, () => one.printed().stderr.includes(`listening at ${path}`));
    await listening(first);
    const second = await bed.run('user', own);
    expect(second).toMatchObject({
      status: 1,
      stderr: `bucatini: switch-agent: --socket ${path}: another program listens on this socket; end it, or write another path\n`,
    });
    const modes = await bed.run('user', ['stat', '-c', '%a %F', path]);
    expect(modes.stdout).toBe('600 socket\n');
    killTree(first.pid);
    await first.exited;
    const third = bed.start('user', own);
    started.push(third);
    await listening(third);
    const [agent] = bed.enginePids(third, 'bucatini');
    process.kill(agent!, 'SIGTERM');
    expect(await third.exited).toBe(0);
    expect((await bed.run('user', ['ls', path])).status).not.toBe(0);
  });
});

/** Listens on the host's loopback, IPv4 and IPv6, and prints when somebody connects. */
const CANARY = `
import select, socket, sys
def listener(family, addr):
    s = socket.socket(family); s.bind((addr, int(sys.argv[1]))); s.listen(8); return s
all = [listener(socket.AF_INET, '127.0.0.1'), listener(socket.AF_INET6, '::1')]
print('ready', flush=True)
while True:
    for s in select.select(all, [], [])[0]: print('reached', s.accept()[1], flush=True)
`;
