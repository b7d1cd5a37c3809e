// @vitest: beside
/**
 * `bucatini switch-agent` and containers that are not like others: on the host's network, without a network, and
 * with a listener that comes twice.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bed, makeBed, supportProgram } from '../support/bed.ts';
import { engine, repoRoot } from '../support/engines.ts';
import { HOST4, PEER4, PEER6, PORT } from '../support/ports.ts';
import { eventually, killTree, type Started } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';
import { hideFuse } from '../support/switching/hidden-fuse.ts';

const LIMIT_MS = 10_000;

/**
 * Reads lines of Python and prints the value of each, or its error. where(): "inside" if the socket belongs to the
 * network namespace in which the program began.
 */
const PROGRAM = `
import ctypes, os, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def cookie(s): return s.getsockopt(socket.SOL_SOCKET, 71, 8)
own = cookie(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
def where(s): return 'inside' if cookie(s) == own else 'other'
def connect(addr, port, s=None):
    s = s or socket.socket(); s.settimeout(None)
    r = s.connect_ex((addr, port))
    return where(s) + ' ' + (os.strerror(r) if r else 'connected')
def serve():
    l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(1)
    c = socket.create_connection(l.getsockname()); a, _ = l.accept()
    c.sendall(b'l'); return where(c) + ' ' + a.recv(1).decode()
def default_route():
    return os.system('ip link set lo up; ip link add v0 type veth peer name v1 && ip addr add 10.9.9.9/24 dev v0 && ip link set v0 up && ip link set v1 up && ip route add default via 10.9.9.1')
def nested_socket():
    'A socket of a network namespace below, and one of ours in a thread that is there.'
    ours = socket.socket(); found = []
    def work():
        if libc.unshare(0x40000000): found.append(os.strerror(ctypes.get_errno())); return
        default_route(); theirs = socket.socket(); found.append(theirs)
        found.append(connect('${PEER4}', ${PORT.echo}, ours))
    t = threading.Thread(target=work); t.start(); t.join(); return found
print('ready', flush=True)
while line := sys.stdin.readline():
    try: r = eval(line)
    except Exception as e: r = e
    print('=', r, flush=True)
`;

describeE2e('switch-agent and unusual containers', [requireTool('python3', 'apt package python3')], () => {
  if (engine.name !== 'bucatini') return it.skip('other engines have none', () => {});
  let bed: Bed;
  let agent: Started;
  let fuse: string | undefined;
  const started: Started[] = [];
  const socketPath = (): string => `${bed.ramDir}/agent.sock`;
  const shows = (program: Started, what: RegExp, from = 0): Promise<string> =>
    eventually(
      `${what}`,
      LIMIT_MS,
      () => what.exec(program.printed().stdout.slice(from))?.[1] ?? undefined,
    ).catch((error: Error) => {
      throw new Error(`${error.message}\n${JSON.stringify(program.printed())}\n${agent.printed().stderr}`);
    });
  const ask = (program: Started, text: string): Promise<string> => {
    const from = program.printed().stdout.length;
    program.process.stdin!.write(`${text}\n`);
    return shows(program, /^= (.*)\n/m, from);
  };
  /** @param before  a command that executes the runtime, in namespaces of its own */
  const begin = async (id: string, before: readonly string[]): Promise<Started> => {
    const runtime = supportProgram('clients/oci-runtime.ts', socketPath(), id);
    // The shell's process id is that of the container's first process.
    const script = `exec ${runtime.map((word) => `'${word}'`).join(' ')} $$ "$@"`;
    const one = bed.start('user', [...before, 'sh', '-c', script, 'sh', 'python3', '-c', PROGRAM]);
    started.push(one);
    await shows(one, /^(ready)\n/m);
    return one;
  };

  beforeAll(async () => {
    bed = await makeBed();
    fuse = await hideFuse(bed);
    agent = bed.start('user', [
      ...[`${repoRoot}/bin/bucatini`, 'switch-agent', '--socket', socketPath(), '--log-level', 'debug'],
    ]);
    started.push(agent);
    await eventually('it listens', LIMIT_MS, () => agent.printed().stderr.includes('listening at'));
  });
  afterAll(async () => {
    for (const { pid } of started) killTree(pid);
    await bed?.close();
  });

  it('a container on the host’s network: everything as without the agent', async () => {
    const one = await begin('host', ['unshare', '-Ur']);
    expect(await ask(one, 'serve()')).toBe('inside l');
    expect(await ask(one, `connect('${PEER4}', ${PORT.echo})`)).toBe('inside connected');
  });

  it('run --ipv4-only: no IPv6 by a route that a program makes', async () => {
    const make = `ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up
      ip -6 addr add fd99::1/64 dev v0 nodad; ip -6 route add default dev v0`;
    const connect = `import socket,sys
for a in sys.argv[1:]:
    s = socket.socket(socket.AF_INET6 if ':' in a else socket.AF_INET); s.settimeout(0.5)
    try: s.connect((a, ${PORT.echo})); print(s.getsockname()[0])
    except OSError as e: print('no')`;
    const job = ['sh', '-ec', `${make}; exec python3 -c "$@"`, 'sh', connect, PEER4, PEER6];
    const options = ['--ipv4-only', '--switch-sockets'];
    const done = await bed.run('user', [`${repoRoot}/bin/bucatini`, 'run', ...options, '--', ...job]);
    expect(done).toMatchObject({ status: 0, stdout: `${HOST4}\nno\n` });
  });

  it('a listener that comes twice: the container and others are served', async () => {
    const [one, other] = await Promise.all([
      begin('twice', ['env', 'TWICE=1', 'unshare', '-Urn']),
      begin('other', ['unshare', '-Urn']),
    ]);
    for (const each of [one, one, other, one, other])
      expect(await ask(each, `connect('${PEER4}', ${PORT.echo})`)).toBe('inside Network is unreachable');
    expect(agent.printed().stderr).toContain(
      'refused the message of an OCI runtime: twice: it is served already',
    );
  });

  it('a container with /dev/fuse is left alone', async ({ skip }) => {
    if (fuse === undefined) return skip('this machine has no /dev/fuse');
    const withFuse = `mount --bind ${fuse} /dev/fuse; exec "$@"`;
    const one = await begin('fuse', ['unshare', '-Urnm', 'sh', '-c', withFuse, 'sh']);
    expect(await ask(one, 'serve()')).toContain('Network is unreachable');
    expect(agent.printed().stderr).toContain('fuse: has /dev/fuse, so it is not switched');
  });

  it('a container without a network gets none by what it makes itself', async () => {
    const one = await begin('none', ['unshare', '-Urn']);
    expect(await ask(one, `connect('${PEER4}', ${PORT.echo})`)).toBe('inside Network is unreachable');
    expect(await ask(one, 'nested_socket()')).not.toContain('connected');
  });
});
