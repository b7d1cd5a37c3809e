// @vitest: beside
/**
 * The library in real namespaces (dist/library, which `bucatini` is here). The engine's own behaviour is
 * tested in test/e2e; here it is whether the library starts, asks and ends it as it says.
 */
import { getEventListeners, once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { BucatiniError, createNetwork, type Network, type NetworkProcess } from 'bucatini';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { findSockets } from '../../src/main/api/socket-directory.ts';
import { OPTIONS } from '../../src/main/bucatini/options.ts';
import { descendantsOf, eventually, isAlive, runToEnd } from '../support/process.ts';
import { describeNeeding, requireTool, tapNeeds } from '../support/require.ts';
import { gone, socketOf } from './leftovers.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
/** Inside, this address is the host's 127.0.0.1. */
const HOST = '198.51.100.1';

const started = (child: NetworkProcess): Promise<unknown> =>
  eventually('the program has started', 3000, () => child.pid);
const openDescriptors = (): string[] =>
  readdirSync('/proc/self/fd').map((fd) => {
    try {
      return `${fd} ${readlinkSync(`/proc/self/fd/${fd}`)}`;
    } catch {
      return 'that of readdir()';
    }
  });
/** Types of blocks in a pcapng file. */
const SECTION_HEADER = 0x0a0d0d0a;
const ENHANCED_PACKET = 6;
function blocksOf(file: Buffer): readonly number[] {
  const types: number[] = [];
  for (let at = 0; at < file.length; at += file.readUInt32LE(at + 4)) types.push(file.readUInt32LE(at));
  return types;
}
const hasCaptures = OPTIONS.some(({ name }) => name === 'pcap-filter');
/** A BucatiniError. @param message  a part of its message */
const failure = (code: string, message: string | RegExp): object =>
  expect.objectContaining({ name: 'BucatiniError', code, message: expect.stringMatching(message) });

describeNeeding('a network', [...tapNeeds, requireTool('ip', 'apt package iproute2')], () => {
  let network: Network;
  beforeAll(async () => {
    network = await createNetwork({ interfaceName: 'net7', mtu: 1400, hostLoopback: HOST });
  });
  afterAll(() => network?.close());

  it('runs programs: their statuses, outputs, input, directory and environment', async () => {
    expect(network.info).toMatchObject({ interfaceName: 'net7', mtu: 1400 });
    const link = await network.run('ip', ['-o', 'link', 'show', 'net7']);
    expect(link).toMatchObject({ status: 0, stderr: '', stdout: expect.stringContaining('mtu 1400') });
    const script = 'cat; pwd; echo wrong >&2; exit 3';
    const done = await network.run('sh', ['-c', script], { input: 'first\n', cwd: '/usr' });
    expect(done).toEqual({ status: 3, signal: null, stdout: 'first\n/usr\n', stderr: 'wrong\n' });
    const env = { PATH: '/usr/bin:/bin', 'odd-name': 'a=b\nc' };
    const { stdout } = await network.run('env', ['-0'], { cwd: '/usr', env });
    expect(stdout.split('\0').sort()).toEqual(['', 'PATH=/usr/bin:/bin', 'PWD=/usr', 'odd-name=a=b\nc']);
    expect(await network.run('sh', ['-c', 'kill -USR1 $$'])).toMatchObject({
      status: null,
      signal: 'SIGUSR1',
    });
  });

  it('a program is ended by kill(), by its signal, when it is disposed, and when it prints too much', async () => {
    const trap = 'trap "exit 5" TERM; echo up; while :; do sleep 0.01; done';
    const graceful = network.spawn('sh', ['-c', trap]);
    graceful.stdout!.once('data', () => graceful.kill());
    expect(await graceful.exited).toEqual({ status: 5, signal: null });
    expect([graceful.kill(), graceful.pid]).toEqual([false, undefined]);
    const early = network.spawn('sleep', ['1000']);
    expect(early.kill('SIGINT')).toBe(true); // most likely before it has started
    expect(await early.exited).toMatchObject({ signal: 'SIGINT' });
    const signal = AbortSignal.timeout(50);
    await expect(network.run('sleep', ['1000'], { signal })).rejects.toBe(await reasonOf(signal));
    // Other programs that have the outputs are not waited for.
    const other = AbortSignal.timeout(100);
    await expect(network.run('sh', ['-c', 'sleep 1000 & wait'], { signal: other })).rejects.toBe(
      await reasonOf(other),
    );
    const late = AbortSignal.timeout(100);
    await expect(network.run('sh', ['-c', 'sleep 1000 &'], { signal: late })).rejects.toBe(
      await reasonOf(late),
    );
    await expect(network.run('sh', ['-c', 'yes & yes'], { maxOutputBytes: 10_000 })).rejects.toEqual(
      failure('output', 'more than 10000 bytes'),
    );
    await expect(network.run('yes', [], { maxOutputBytes: 10_000 })).rejects.toEqual(
      failure('output', 'more than 10000 bytes'),
    );
    const left = network.spawn('sleep', ['1000']);
    await left[Symbol.asyncDispose]();
    expect(await left.exited).toMatchObject({ signal: 'SIGKILL' });
  });

  it('what cannot be run is an error that names it', async () => {
    const errors: [string, Parameters<Network['run']>[2], string][] = [
      ['no-such-program', {}, 'no-such-program: command not found'],
      ['./no-such-program', {}, './no-such-program: no such file'],
      ['/etc', {}, '/etc: is a directory'],
      ['/etc/passwd', {}, '/etc/passwd: permission denied'],
      ['true', { cwd: '/no/such' }, '/no/such: no such directory'],
    ];
    for (const [program, options, message] of errors)
      await expect(network.run(program, [], options)).rejects.toEqual(failure('not-found', message));
    await expect(network.run('true', ['\0'])).rejects.toEqual(failure('argument', /^true: .*null bytes/));
  });

  it('publishes ports, and lists the flows through them', async () => {
    await using server = network.spawn(process.execPath, ['server.mjs'], { cwd: `${ROOT}examples/programs` });
    await new Promise((resolve) => server.stdout!.once('data', resolve));
    const published = await network.publish(8000);
    const other = await network.publish({ port: 8000, protocol: 'udp' });
    expect([published.hostAddress, published.protocol, other.protocol]).toEqual(['127.0.0.1', 'tcp', 'udp']);
    const client = connect(published.hostPort, published.hostAddress);
    await new Promise((resolve) => client.once('connect', resolve));
    const flow = await eventually('the flow is listed', 3000, async () => (await network.flows())[0]);
    expect(flow).toMatchObject({ proto: 'tcp', guestPort: 8000, guestAddress: network.info.ipv4!.address });
    expect(flow.ageMs).toBeGreaterThanOrEqual(0);
    client.destroy();
    expect((await network.stats()).counters.framesToGuest).toBeGreaterThan(0);
    const taken = { port: 8000, hostPort: published.hostPort };
    await expect(network.publish(taken)).rejects.toEqual(
      failure(
        'refused',
        `127.0.0.1 port ${published.hostPort}/tcp to port 8000: this program publishes the port already`,
      ),
    );
    await published.close();
    await published.close();
    await (await network.publish(taken)).close();
    await expect(network.publish(0)).rejects.toEqual(failure('argument', 'port 0: write a number'));
    await expect(network.publish({ port: 80, hostAddress: HOST })).rejects.toEqual(failure('refused', HOST));
  });

  it('takes a policy, and says what is wrong with one', async () => {
    const server = createServer((_request, response) => response.end('reached'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const fetches = `fetch('http://${HOST}:${port}/').then((r) => r.text()).then(console.log, () => console.log('refused'))`;
    const ask = async (): Promise<string> => (await network.run(process.execPath, ['-e', fetches])).stdout;
    try {
      expect(await ask()).toBe('reached\n');
      expect(await network.setPolicy('deny host')).toBeGreaterThanOrEqual(0);
      expect(await network.policy()).toContain('deny host');
      expect(await ask()).toBe('refused\n');
      await expect(network.setPolicy('permit all')).rejects.toEqual(failure('refused', 'line 1: permit'));
      await network.setPolicy(null);
      expect(await network.policy()).toBeNull();
    } finally {
      server.close();
    }
  });

  it.runIf(hasCaptures)('captures to a file and to a stream', async () => {
    const directory = mkdtempSync(`${tmpdir()}/bucatini-capture-`);
    try {
      const file = `${directory}/frames.pcapng`;
      const first = await network.capture({ file, filter: 'icmp' });
      expect(first.stream).toBeNull();
      await expect(network.capture()).rejects.toEqual(failure('refused', 'start_capture'));
      await network.run('ping', ['-c1', '-W1', network.info.ipv4!.gateway]);
      await first.stop();
      await first.stop();
      expect(blocksOf(readFileSync(file)).filter((type) => type === ENHANCED_PACKET)).toHaveLength(2);
      await expect(network.capture({ filter: 'nonsense' })).rejects.toEqual(failure('refused', 'nonsense'));
      await expect(network.capture({ file: `${directory}/no/x` })).rejects.toEqual(
        failure('argument', 'ENOENT'),
      );
      const second = await network.capture();
      const pieces: Buffer[] = [];
      second.stream!.on('data', (piece: Buffer) => pieces.push(piece));
      const closed = once(second.stream!, 'close');
      await second.stop();
      await closed;
      expect(blocksOf(Buffer.concat(pieces))[0]).toBe(SECTION_HEADER);
      await expect(network.writeCapture()).rejects.toEqual(failure('refused', 'write_capture'));
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  it('without a line, the line cannot be set; with one, it can', async () => {
    await expect(network.setImpairment('3g')).rejects.toEqual(failure('refused', "impairment: 'none'"));
    await expect(network.impairment()).rejects.toEqual(failure('refused', "impairment: 'none'"));
    await using other = await createNetwork({ impairment: { delay: '7ms/up', seed: 5 } });
    expect(await other.impairment()).toMatchObject({ seed: 5, up: { delay_ms: 7 }, down: { delay_ms: 0 } });
    const line = await other.setImpairment({ maxPacket: '1200', to: { addresses: '192.0.2.0/24' } });
    expect(line).toMatchObject({ seed: 5, up: { max_packet: 1200 }, rules: [{}] });
    await expect(other.setImpairment({ delay: 'long' })).rejects.toEqual(failure('refused', 'delay long'));
  });
});

const reasonOf = (signal: AbortSignal): Promise<unknown> =>
  new Promise((resolve) => signal.addEventListener('abort', () => resolve(signal.reason)));

describeNeeding('the start and the end of a network', tapNeeds, () => {
  it('a wrong option fails with the line of `bucatini run`', async () => {
    const line = await runToEnd([`${ROOT}bin/bucatini`, 'run', '--mtu=10', '--', 'true']);
    const error = await createNetwork({ mtu: 10 }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(BucatiniError);
    expect(error).toMatchObject({ code: 'start', message: line.stderr.trim().replace('bucatini: ', '') });
    await expect(createNetwork({ impairment: { delay: 'x' } })).rejects.toEqual(
      failure('refused', 'delay x'),
    );
    expect(descendantsOf(process.pid)).toEqual([]);
  });

  it('nothing is left: no process, descriptor, socket or listener, also when the caller throws', async () => {
    const pids: (number | undefined)[] = [];
    const { signal } = new AbortController();
    const use = async (): Promise<void> => {
      await using network = await createNetwork({ signal });
      const child = network.spawn('sh', ['-c', 'sleep 1000 & echo up; wait']);
      await new Promise((resolve) => child.stdout!.once('data', resolve));
      await network.publish(80);
      await network.run('true', [], { signal });
      pids.push(network.info.pid, network.info.namespacePid, child.pid, ...descendantsOf(network.info.pid));
      expect(socketOf(network.info.pid)).toBeDefined();
      throw new Error('the caller failed');
    };
    await expect(use()).rejects.toThrow('the caller failed'); // opens what the runtime opens once
    const before = [openDescriptors(), process.eventNames().map((name) => process.listenerCount(name))];
    await expect(use()).rejects.toThrow('the caller failed');
    expect([openDescriptors(), process.eventNames().map((name) => process.listenerCount(name))]).toEqual(
      before,
    );
    expect(getEventListeners(signal, 'abort')).toEqual([]);
    expect(pids.length).toBeGreaterThan(8);
    expect(pids.filter((pid) => pid !== undefined && isAlive(pid))).toEqual([]);
    expect(findSockets().filter(({ pid }) => pids.includes(pid))).toEqual([]);
  });

  it('closes once, however often it is asked, and refuses what comes later', async () => {
    const network = await createNetwork();
    const { ended } = network;
    const child = network.spawn('sleep', ['1000']);
    await started(child);
    await Promise.all([network.close(), network.close(), network[Symbol.asyncDispose]()]);
    network[Symbol.dispose]();
    expect(await ended).toBeUndefined();
    expect(await child.exited).toMatchObject({ signal: 'SIGKILL' });
    for (const late of [() => network.run('true'), () => network.flows(), () => network.publish(80)])
      await expect(late()).rejects.toEqual(failure('ended', /ended|closed/));
  });

  it('`using` ends it without waiting', async () => {
    const pids: number[] = [];
    {
      using network = await createNetwork();
      pids.push(network.info.pid, network.info.namespacePid);
    }
    await gone(pids);
    expect(socketOf(pids[0]!)).toBeUndefined();
  });

  it('a signal ends the start, or the network later', async () => {
    const reason = new Error('enough');
    for (const afterMs of [0, 15, 40]) {
      const stop = new AbortController();
      setTimeout(() => stop.abort(reason), afterMs);
      await expect(createNetwork({ signal: stop.signal })).rejects.toBe(reason);
    }
    await expect(createNetwork({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect(descendantsOf(process.pid)).toEqual([]);
    const stop = new AbortController();
    const network = await createNetwork({ signal: stop.signal });
    stop.abort();
    expect(await network.ended).toBeUndefined();
    await gone([network.info.pid, network.info.namespacePid]);
  });

  it('an engine that is killed is an error of what follows, and leaves nothing', async () => {
    const network = await createNetwork();
    const child = network.spawn('sleep', ['1000']);
    await started(child);
    process.kill(network.info.pid, 'SIGKILL');
    expect(await network.ended).toEqual(failure('ended', 'signal SIGKILL'));
    expect(await child.exited).toMatchObject({ signal: 'SIGKILL' });
    await expect(network.flows()).rejects.toEqual(failure('ended', 'SIGKILL'));
    await expect(network.run('true')).rejects.toEqual(failure('ended', 'true: the network has ended'));
    await network.close();
    expect(socketOf(network.info.pid)).toBeUndefined();
  });
});
