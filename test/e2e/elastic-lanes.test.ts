/**
 * Lanes that open and are given up while the engine runs (`--threads lanes=MIN-MAX`): by load, and by a test
 * hook in the middle of every kind of traffic. Their threads are confined as the first one; the end of the
 * engine at any moment is clean.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, succeedIn, supportProgram } from '../support/bed.ts';
import { type EngineOptions, engine, full, repoRoot } from '../support/engines.ts';
import { patternSha256 } from '../support/pattern.ts';
import { FAMILIES, HOST4, PEER4, PEER6, PORT, urlHost } from '../support/ports.ts';
import {
  anonymousKib,
  eventually,
  isAlive,
  killTree,
  openFiles,
  packetThreads,
  type Started,
  type ThreadStatus,
} from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';
import { curlDownload, curlUpload } from '../support/transfers.ts';

const MIB = 2 ** 20;
const BYTES = 64 * MIB;
const PUBLISHED = { host: 8080, guest: 7001 };
const ADDED = { host: 8081, guest: 7002 };
const LARGE_BYTES = full(256, 32) * MIB;
const SIZES = [0, 1, 1472, 1473, 9000, 65507];
const START_MS = 10_000;
const LARGE_MS = 60_000;
/** Longer than a lane takes to open. */
const TURN_MS = 150;
const TRANSFER_MS = 30_000;
/** A lane is given up after ten seconds of calm; its last load counts for three, and timers look each three. */
const CLOSE_MS = 25_000;
/** On a machine with other work a thread seldom gets three quarters of a processor. */
const SOON_BUSY = { fromGuest: 0, toGuest: 0, seed: 1, busyShare: 0.1 };
const TURNS = { fromGuest: 0, toGuest: 0, seed: 1, lanesTurn: 100, wrongLane: 5 };
const needs = [
  requireTool('curl', 'apt package curl'),
  requireTool('dig', 'apt package bind9-dnsutils'),
  requireTool('iperf3', 'apt package iperf3'),
  requireTool('ping', 'apt package iputils-ping'),
];

/** One thread's counters. */
type Counters = Readonly<Record<string, number>>;

interface Flow {
  readonly id: number;
  readonly proto: string;
  readonly state: string;
  readonly guest_addr: string;
  readonly guest_port: number;
  readonly remote_addr: string;
  readonly remote_port: number;
}

describeE2e('elastic lanes', engine.name === 'bucatini' ? needs : [() => 'only of bucatini'], () => {
  let bed: Bed;
  let guest: Guest;
  let serial = 0;
  let path: string;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  // biome-ignore lint/suspicious/noExplicitAny: the tests check the replies
  const ask = async (...requests: object[]): Promise<any[]> => {
    const texts = requests.map((request) => JSON.stringify(request));
    return JSON.parse(await succeedIn(bed, 'host', supportProgram('clients/api-client.ts', path, ...texts)));
  };
  const begin = async (plan: string, impair?: EngineOptions['impair']): Promise<void> => {
    path = `${bed.ramDir}/lanes-${++serial}`;
    const extra = ['--api-socket', path, '--log-level', 'debug'];
    const publish = [`${PUBLISHED.host}:${PUBLISHED.guest}`];
    guest = await bed.engine({ plan, publish, extra, ...(impair && { impair }) });
  };
  const said = (): string => guest.started.printed().stderr;
  const count = (what: string): number => said().split(what).length - 1;
  const opened = (times = 1, lane = 1): Promise<unknown> =>
    eventually(`lane ${lane} opens: ${said()}`, START_MS, () => count(`lane ${lane} opened`) >= times);
  const server = async (argv: readonly string[]): Promise<Started> => {
    const started = guest.startInside(argv);
    await eventually('it listens', START_MS, () => started.printed().stdout.includes('ready'));
    return started;
  };
  /** Connections, ten at a time, that the server ends. */
  const crowd = (address: string, port: number, total: number): string[] =>
    supportProgram('clients/tcp-crowd.ts', address, port, total, 10, 3000, 0);
  /** Connections, all at a time, that the client ends. */
  const held = (address: string, port: number, total: number): string[] =>
    supportProgram('clients/tcp-crowd.ts', address, port, total, total, 3000, 1);
  /** All threads have what the first one has. */
  const confinedAlike = (count: number): void => {
    const threads = packetThreads(guest.enginePid);
    expect(threads.map(({ name }) => name)).toEqual(
      Array.from({ length: count }, (_, i) => `packet thread ${i}`),
    );
    const [{ name: _, ...first }] = threads as [ThreadStatus];
    expect(first).toMatchObject({ seccomp: 2, noNewPrivs: true });
    for (const { name, ...state } of threads) expect([name, state]).toEqual([name, first]);
  };
  const whole = { bytes: BYTES, sha256: patternSha256(BYTES) };
  const url = `http://${PEER4}:${PORT.http}`;
  const descriptors = (): number => readdirSync(`/proc/${guest.enginePid}/fd`).length;
  const stats = async (): Promise<{
    counters: Counters;
    threads: { thread: string; counters: Counters }[];
  }> => (await ask({ execute: 'stats' }))[0].return;
  const moved = async (): Promise<number> => (await stats()).counters.flowsMoved ?? 0;
  /** Flows that list_flows has twice. A page of each lane is of another moment: a flow may move between two. */
  const listedTwice = async (): Promise<{ seen: number; twice: string[] }> => {
    const [reply] = await ask({ execute: 'list_flows', arguments: { limit: 1000 } });
    const seen = (reply.return.flows as Flow[])
      .filter((f) => f.state !== 'closed' && f.state !== 'time-wait')
      .map((f) => `${f.proto} ${f.guest_addr} ${f.guest_port} ${f.remote_addr} ${f.remote_port}`);
    return { seen: seen.length, twice: seen.filter((flow, at) => seen.indexOf(flow) !== at) };
  };
  const queues = async (): Promise<string> =>
    (await succeed(guest, ['sh', '-c', 'ip -d -o link show type tun | grep -o "numqueues [0-9]*"'])).trim();

  // The engine goes before iperf3 on a machine with few processors: it has to have a load of three quarters of one.
  describe('by load', () => {
    let iperf: Started;
    beforeAll(async () => {
      iperf = bed.start('peer', ['iperf3', '-s', '--forceflush', '-B', PEER4]);
      await eventually('iperf3 listens', START_MS, () => iperf.printed().stdout.includes('listening'));
    });
    afterAll(() => killTree(iperf.pid));
    afterEach(() => guest?.stop());

    it('opens while streams run, carries new connections, closes in calm, opens again', {
      timeout: 90_000,
    }, async () => {
      await begin('lanes=1-2', SOON_BUSY);
      const before = { descriptors: descriptors(), queues: await queues() };
      expect(before.queues).toBe('numqueues 1');
      const load = (): Started => guest.startInside(['iperf3', '-c', PEER4, '-t', '3', '-P', '4']);
      const first = load();
      await opened();
      expect(await queues()).toBe('numqueues 2');
      confinedAlike(2);
      const grown = descriptors();
      const transfers = await Promise.all(
        Array.from({ length: 8 }, () => curlDownload(guest, `${url}/bytes/${MIB}`, TRANSFER_MS)),
      );
      for (const got of transfers) expect(got).toMatchObject({ bytes: MIB, sha256: patternSha256(MIB) });
      expect(
        JSON.parse(await succeed(guest, crowd(PEER4, PORT.once, 60), { timeoutMs: TRANSFER_MS })),
      ).toMatchObject({
        ok: 60,
        failed: {},
      });
      const [stats] = await ask({ execute: 'stats' });
      for (const { thread, counters } of stats.return.threads)
        expect(counters.tcpOpened, thread).toBeGreaterThan(5);
      expect(await first.exited, first.printed().stderr).toBe(0);

      await eventually(`lane 1 closes: ${said()}`, CLOSE_MS, () => count('lane 1 closed') === 1);
      expect(await queues()).toBe(before.queues);
      const asleep = descriptors();
      expect(asleep).toBeLessThanOrEqual(grown);
      const again = load();
      await opened(2);
      expect(await queues()).toBe('numqueues 2');
      expect(await again.exited, again.printed().stderr).toBe(0);
      // It keeps its thread, and no more than after the first time.
      await eventually('flows have closed', START_MS, () => descriptors() <= asleep);
      expect(packetThreads(guest.enginePid).length).toBe(2);
      console.log(`descriptors: ${before.descriptors} before, ${asleep} with a lane that sleeps`);
    });

    it('16 streams that begin on one lane: after the second one opens both carry some', {
      timeout: 60_000,
    }, async () => {
      await begin('lanes=1-2', SOON_BUSY);
      const load = guest.startInside(['iperf3', '-c', PEER4, '-t', '8', '-P', '16']);
      await opened();
      await eventually('flows have moved', START_MS, async () => (await moved()) > 0);
      const sent = async (): Promise<number[]> =>
        (await stats()).threads.map(({ counters }) => counters.sockSendBytes!);
      const before = await sent();
      await eventually('both lanes send', START_MS, async () => {
        const now = await sent();
        return now.length === 2 && now.every((bytes, i) => bytes > (before[i] ?? 0) + 16 * MIB);
      });
      expect(isAlive(load.pid), load.printed().stderr).toBe(true);
      killTree(load.pid);
    });

    it('a lane that cannot be started: one warning, and traffic goes on', async () => {
      await begin('lanes=1-3', SOON_BUSY);
      // Without memory for a further thread.
      const vm = /^VmSize:\s+(\d+)/m.exec(readFileSync(`/proc/${guest.enginePid}/status`, 'utf8'))![1];
      execFileSync('prlimit', ['--pid', String(guest.enginePid), `--as=${Number(vm) * 1024 + 2 * MIB}`]);
      const load = guest.startInside(['iperf3', '-c', PEER4, '-t', '3', '-P', '4']);
      await eventually(`a warning: ${said()}`, 20_000, () => count('cannot be opened') > 0);
      expect(await load.exited, load.printed().stderr).toBe(0);
      expect(count('cannot be opened'), said()).toBe(1);
      expect(await curlDownload(guest, `${url}/bytes/${MIB}`, TRANSFER_MS)).toMatchObject({
        sha256: patternSha256(MIB),
      });
      expect(await guest.stop()).toBe(143);
    });
  });

  describe.each(['lanes=1-3'])('%s, a lane opens or is given up each 100 ms', (plan) => {
    let upload: string;
    beforeAll(async () => {
      upload = `${bed.ramDir}/upload-lanes.bin`;
      await succeedIn(bed, 'host', [
        'sh',
        '-c',
        `${supportProgram('pattern.ts', BYTES).join(' ')} >${upload}`,
      ]);
      await begin(plan, TURNS);
      await opened();
    });
    afterAll(() => guest?.stop());

    it('TCP both ways, both families, published ports, UDP, DNS, ping: all at the same time', {
      timeout: 60_000,
    }, async () => {
      const echo = await server(supportProgram('clients/tcp-echo.ts', PUBLISHED.guest));
      const inside = async (argv: readonly string[]): Promise<unknown> =>
        JSON.parse(await succeed(guest, argv, { timeoutMs: TRANSFER_MS }));
      const from = async (argv: readonly string[]): Promise<unknown> =>
        JSON.parse(await succeedIn(bed, 'peer', argv, { timeoutMs: TRANSFER_MS }));
      const turns = count(' opened');
      const [down, down6, up, out, published, datagrams, names, ping] = await Promise.all([
        curlDownload(guest, `${url}/bytes/${BYTES}`, TRANSFER_MS),
        curlDownload(guest, `http://[${PEER6}]:${PORT.http}/bytes/${BYTES}`, TRANSFER_MS),
        curlUpload(guest, upload, `${url}/upload`, TRANSFER_MS),
        inside(crowd(PEER4, PORT.once, 300)),
        from(held(HOST4, PUBLISHED.host, 200)),
        inside(supportProgram('clients/udp-burst.ts', PEER4, PORT.echo, 500, 400, 1)),
        succeed(guest, [
          'sh',
          '-c',
          'for i in 1 2 3 4 5 6 7 8; do dig +tries=4 +time=1 +short peer.test. || exit; done',
        ]),
        succeed(guest, ['ping', '-c', '20', '-i', '0.1', '-q', PEER4]),
      ]);
      expect([down, down6, up]).toMatchObject([whole, whole, whole]);
      expect([out, published]).toMatchObject([
        { ok: 300, failed: {} },
        { ok: 200, failed: {} },
      ]);
      // A queue that is detached loses the frames that it has: a datagram of one flow that waits for each answer
      // may be among them, and then the client ends.
      expect((datagrams as { same: number }).same).toBeGreaterThan(0);
      expect(names.length).toBeGreaterThanOrEqual(0);
      expect(Number(/(\d+) received/.exec(ping)?.[1])).toBeGreaterThanOrEqual(18);
      expect(ping).not.toContain('duplicates');
      expect(count(' opened'), said()).toBeGreaterThan(turns);
      killTree(echo.pid);
    });

    it('no flow is there twice', async () => {
      const client = guest.startInside(
        supportProgram('clients/tcp-crowd.ts', PEER4, PORT.echo, 100, 100, 100_000, 1),
      );
      const twice: string[] = [];
      let most = 0;
      for (let i = 0; i < 12; i++) {
        const listed = await listedTwice();
        most = Math.max(most, listed.seen);
        twice.push(...listed.twice);
      }
      expect(twice).toEqual([]);
      expect(most).toBeGreaterThan(0);
      await client.exited;
      expect(JSON.parse(client.printed().stdout)).toMatchObject({ ok: 100, failed: {} });
    });

    it('a UDP flow keeps its order and no datagram comes twice', async () => {
      const script = `import dgram from 'node:dgram';
        const s = dgram.createSocket('udp4'), got = []; let n = 0;
        s.on('message', (m) => got.push(m.readUInt32BE(0)));
        s.connect(${PORT.echo}, '${PEER4}', () => { const t = setInterval(() => {
          for (let i = 0; i < 5; i++) { const b = Buffer.alloc(64); b.writeUInt32BE(n++); s.send(b); }
          if (n >= 1000) { clearInterval(t); setTimeout(() => { s.close(); console.log(JSON.stringify(got)); }, 500); }
        }, 5); });`;
      const got = JSON.parse(
        await succeed(guest, ['sh', `${repoRoot}/scripts/node.sh`, '--input-type=module', '-e', script]),
      ) as number[];
      expect(new Set(got).size, 'none twice').toBe(got.length);
      const late = got.filter((number, i) => i > 0 && number < got[i - 1]!).length;
      console.log(`${plan}: ${got.length} of 1000 datagrams came back, ${late} after a later one`);
      expect(got.length).toBeGreaterThan(900);
    });

    it('ports that are added and removed reach all lanes', { timeout: 60_000 }, async () => {
      const tcp = await server(supportProgram('clients/tcp-echo.ts', ADDED.guest));
      const udp = await server(supportProgram('clients/udp-server.ts', ADDED.guest));
      const forward = (proto: string): object => ({
        execute: 'add_hostfwd',
        arguments: { proto, host_addr: HOST4, host_port: ADDED.host, guest_port: ADDED.guest },
      });
      const replies = await ask(forward('tcp'), forward('udp'));
      expect(replies).toEqual([1, 2].map((id) => ({ return: { id } })));
      const clients = held(HOST4, ADDED.host, 50);
      expect(JSON.parse(await succeedIn(bed, 'peer', clients))).toMatchObject({ ok: 50, failed: {} });
      const hello = supportProgram('clients/udp-ask.ts', HOST4, ADDED.host, 0, 'hello');
      expect(await succeedIn(bed, 'peer', hello)).toMatch(/ hello\n$/);
      await ask(...[1, 2].map((id) => ({ execute: 'remove_hostfwd', arguments: { id } })));
      expect(JSON.parse(await succeedIn(bed, 'peer', clients))).toMatchObject({
        failed: { ECONNREFUSED: 50 },
      });
      for (const { pid } of [tcp, udp]) killTree(pid);
    });

    it('the threads of all lanes are confined as the first one', () => {
      confinedAlike(Number(plan.at(-1)));
    });
  });

  describe(`lanes=1-3, a lane opens or is given up each ${TURN_MS} ms`, () => {
    let uploadFile: string;
    beforeAll(async () => {
      uploadFile = `${bed.ramDir}/upload-turns.bin`;
      const program = supportProgram('pattern.ts', LARGE_BYTES).join(' ');
      await succeedIn(bed, 'host', ['sh', '-c', `${program} >${uploadFile}`]);
      await begin('lanes=1-3', { ...TURNS, lanesTurn: TURN_MS, wrongLane: 0 });
      await opened();
    });
    afterAll(() => guest?.stop());
    const large = { bytes: LARGE_BYTES, sha256: patternSha256(LARGE_BYTES) };

    it.each(FAMILIES)(
      `$name: transfers of ${LARGE_BYTES / MIB} MiB, eight at a time, arrive unchanged; their flows move`,
      { timeout: 2 * LARGE_MS },
      async (family) => {
        const before = { turns: count(' opened'), moved: await moved() };
        const from = `http://${urlHost(family.peer)}:${PORT.http}`;
        let running = true;
        const transfers = Promise.all(
          Array.from({ length: 8 }, (_, i) =>
            i & 1
              ? curlDownload(guest, `${from}/bytes/${LARGE_BYTES}`, LARGE_MS)
              : curlUpload(guest, uploadFile, `${from}/upload`, LARGE_MS),
          ),
        ).finally(() => {
          running = false;
        });
        while (running) {
          const { twice } = await listedTwice();
          expect(twice.length, twice.join()).toBeLessThanOrEqual(8);
          await sleep(100);
        }
        for (const got of await transfers) expect(got).toMatchObject(large);
        expect(count(' opened')).toBeGreaterThan(before.turns);
        expect(await moved()).toBeGreaterThan(before.moved);
      },
    );

    it('downloads whose clients have closed their side move', { timeout: LARGE_MS }, async () => {
      const before = await moved();
      const request = JSON.stringify({ id: 'half', steps: [['recvEof'], ['send', LARGE_BYTES], ['fin']] });
      const steps = JSON.stringify([['fin'], ['recvEof']]);
      const client = supportProgram('clients/tcp-client.ts', PEER4, PORT.script, steps, request);
      const all = await Promise.all(
        Array.from({ length: 8 }, () => succeed(guest, client, { timeoutMs: LARGE_MS })),
      );
      for (const got of all)
        expect(JSON.parse(got)).toMatchObject({
          ...{ receivedBytes: LARGE_BYTES, sha256: patternSha256(LARGE_BYTES), eof: true, error: null },
        });
      expect(await moved()).toBeGreaterThan(before);
    });

    it('lanes with idle connections close: these move, and still work', { timeout: LARGE_MS }, async () => {
      const before = await moved();
      const clients: Started[] = [];
      const answers = (): number =>
        clients.reduce((n, client) => n + client.printed().stdout.split('answered 50\n').length - 1, 0);
      // Those that begin while there is one lane only have no reason to move.
      for (let round = 1; round <= 3 || ((await moved()) < before + 20 && round <= 10); round++) {
        const idle = guest.startInside(supportProgram('clients/tcp-idle.ts', PEER4, PORT.echo, 50));
        clients.push(idle);
        await eventually('they connect', START_MS, () => idle.printed().stdout.includes('ready'));
        const closed = count(' closed');
        await eventually(`lanes close: ${said()}`, 20_000, () => count(' closed') >= closed + 2);
        const answered = answers();
        for (const client of clients) client.process.stdin!.write('go\n');
        const texts = (): string => clients.map((client) => client.printed().stdout).join();
        await eventually(`each answers: ${texts()}`, START_MS, () => answers() === answered + clients.length);
      }
      expect(await moved()).toBeGreaterThanOrEqual(before + 20);
      const { seen, twice } = await listedTwice();
      expect([seen >= 150, twice]).toEqual([true, []]);
      for (const { pid } of clients) killTree(pid);
    });

    it('connections, datagrams and pings go on; no connection is opened twice', {
      timeout: LARGE_MS,
    }, async () => {
      const before = (await stats()).counters;
      const echo = supportProgram('clients/udp-echo.ts', PEER4, PORT.echo, ...SIZES, ...SIZES, ...SIZES);
      const [tcp, udp, pings] = await Promise.all([
        succeed(guest, crowd(PEER4, PORT.once, 3000), { timeoutMs: LARGE_MS }),
        succeed(guest, echo, { timeoutMs: LARGE_MS }),
        succeed(guest, ['ping', '-c30', '-i0.1', '-q', PEER4]),
      ]);
      expect(JSON.parse(tcp)).toMatchObject({ ok: 3000, failed: {} });
      const outcomes = (JSON.parse(udp) as { outcome: string }[]).map(({ outcome }) => outcome);
      expect(new Set(outcomes)).toEqual(new Set(['same']));
      expect(pings).toContain(' 0% packet loss');
      expect((await stats()).counters.tcpOpened! - before.tcpOpened!).toBe(3000);
      expect(said()).not.toMatch(/error|cannot be/);
    });

    it('whatever often: no more threads, descriptors or memory', { timeout: LARGE_MS }, async () => {
      const settled = async (more: number): Promise<void> => {
        const before = count(' opened');
        // Not closed ones: a lane that still has UDP flows does not close, and opens again.
        await eventually(`${more} lanes have opened`, 30_000, () => count(' opened') >= before + more);
      };
      await settled(2);
      const files = openFiles(guest.enginePid).length;
      const kib = anonymousKib(guest.enginePid);
      await settled(20);
      expect(packetThreads(guest.enginePid).length).toBe(3);
      expect(Math.abs(openFiles(guest.enginePid).length - files)).toBeLessThanOrEqual(2);
      expect(anonymousKib(guest.enginePid) - kib).toBeLessThan(16 * 1024);
    });
  });

  describe('the end', () => {
    it('SIGTERM at any moment of opening and closing: status 143, nothing is left', {
      timeout: 60_000,
    }, async () => {
      const took: number[] = [];
      for (let round = 0; round < 8; round++) {
        await begin('lanes=1-3', { ...TURNS, lanesTurn: 60 });
        await sleep(25 * round);
        const pids = guest.enginePids();
        const at = performance.now();
        expect(await guest.stop(), said()).toBe(143);
        took.push(Math.round(performance.now() - at));
        expect(pids.filter(isAlive)).toEqual([]);
        expect(said()).not.toContain('cannot be opened');
      }
      console.log(`ms from SIGTERM to the end: ${took}`);
      expect(Math.max(...took)).toBeLessThan(2000);
    });

    it('SIGTERM while flows move: status 143, nothing is left', { timeout: 60_000 }, async () => {
      for (let round = 0; round < 4; round++) {
        await begin('lanes=1-3', { ...TURNS, lanesTurn: 60 });
        await opened();
        const clients = Array.from({ length: 6 }, () =>
          guest.startInside(['curl', '-sS', '-o', '/dev/null', `${url}/bytes/${100 * LARGE_BYTES}`]),
        );
        await eventually('flows move', START_MS, async () => (await moved()) > 0);
        await sleep(35 * round);
        const pids = guest.enginePids();
        expect(await guest.stop(), said()).toBe(143);
        expect(pids.filter(isAlive)).toEqual([]);
        for (const { pid } of clients) killTree(pid);
      }
    });

    it('COMMAND ends at any moment: its status, nothing is left', { timeout: 60_000 }, async () => {
      for (let round = 0; round < 8; round++) {
        const started = bed.launch({ plan: 'lanes=1-3', impair: { ...TURNS, lanesTurn: 60 } }, [
          ...['sh', '-c', `sleep ${(0.05 * round).toFixed(2)}; exit 7`],
        ]);
        expect(await started.exited, started.printed().stderr).toBe(7);
        expect(started.printed().stderr).not.toContain('warning');
        expect(bed.enginePids(started)).toEqual([]);
      }
    });
  });
});
