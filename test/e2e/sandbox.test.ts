/**
 * The sandbox from outside, for each front end: open descriptors, capabilities of each thread, the end after
 * a failure inside, and traffic of every kind. SANDBOX_LOAD_MS: duration of the mixed load in each plan.
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type EmptyGuest, type Guest, makeBed, succeed, supportProgram } from '../support/bed.ts';
import { engine, full, packetThreadsOf, repoRoot } from '../support/engines.ts';
import { PEER4, PEER6, PORT } from '../support/ports.ts';
import {
  countInMemory,
  descendantsOf,
  eventually,
  isAlive,
  killTree,
  openFiles,
  processName,
  runToEnd,
  type Started,
  sleepMs,
  type ThreadStatus,
  threadStatus,
} from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';
import { curlDownload } from '../support/transfers.ts';

const START_MS = 10_000;
const END_MS = 3000;
const LOAD_MS = Number(process.env.SANDBOX_LOAD_MS ?? full(5000, 3000));
const FLOWS = 2100;

const CAP_KILL = 1n << 5n;
const CAP_NET_BIND_SERVICE = 1n << 10n;
const CAP_NET_RAW = 1n << 13n; // where SO_BINDTODEVICE wants it
const CAP_SYS_PTRACE = 1n << 19n;

/** A value in the caller's environment, for COMMAND alone. */
const SECRET = `secret-${process.pid}-0123456789`;

/** Names of packet threads; of shards in a pipeline, on Bun and on Node: "pool thread 0", "WorkerThread". */
const PACKET_THREAD = /^(packet thread|pool thread|WorkerThread)/;
/** Three lanes: some threads are neither the first nor the last. */
const PLANS = engine.plans.map((plan) => (plan === 'lanes=2' ? 'lanes=3' : plan));
const SOFT_LIMIT = 1024;
/**
 * Descriptors that a caller leaves open, with low and high numbers, of files that no other process has open.
 */
const CARELESS = ['exec 5</etc/fstab 7</etc/fstab 23</etc/debian_version', `ulimit -S -n ${SOFT_LIMIT}`].join(
  '; ',
);
const LEFT_OPEN = ['/etc/fstab', '/etc/debian_version'];

interface Form {
  readonly name: string;
  /** Name of the engine's process in ps. */
  readonly process: string;
  /** @param target  a process id in the bed */
  argv(target: string): readonly string[];
  readonly main: bigint;
  /** Statuses after SIGINT, SIGTERM and SIGKILL, as in a shell. */
  readonly ends: readonly [number, number, number];
  readonly command: boolean;
}

const REPORT = 'ls -l /proc/self/fd | tail -n +2 | wc -l; ulimit -S -n; exec sleep 1000';
const FORMS: readonly Form[] = [
  {
    name: 'run',
    process: 'bucatini',
    argv: () => [`${repoRoot}/bin/bucatini`, 'run', '--', 'sh', '-c', REPORT],
    main: CAP_KILL,
    ends: [130, 143, 137],
    command: true,
  },
  {
    name: 'attach',
    process: 'bucatini',
    argv: (target) => [`${repoRoot}/bin/bucatini`, 'attach', target],
    main: 0n,
    ends: [0, 0, 137],
    command: false,
  },
  {
    name: 'pasta COMMAND',
    process: 'pasta',
    argv: () => [`${repoRoot}/bin/pasta`, '--config-net', '--', 'sh', '-c', REPORT],
    main: CAP_KILL,
    ends: [130, 0, 137],
    command: true,
  },
  {
    name: 'pasta PID',
    process: 'pasta',
    argv: (target) => [`${repoRoot}/bin/pasta`, '--config-net', '-f', target],
    main: 0n,
    ends: [130, 0, 137],
    command: false,
  },
  {
    name: 'slirp4netns',
    process: 'slirp4netns',
    argv: (target) => [`${repoRoot}/bin/slirp4netns`, '-c', target, 'tap0'],
    main: CAP_SYS_PTRACE,
    ends: [130, 143, 137],
    command: false,
  },
];

describeE2e(
  'the sandbox',
  [requireTool('curl', 'apt package curl'), requireTool('bash', 'apt package bash')],
  () => {
    let bed: Bed;
    beforeAll(async () => {
      bed = await makeBed();
    });
    afterAll(() => bed?.close());

    const isSandboxed = (pid: number): boolean =>
      threadStatus(pid).every(({ noNewPrivs, seccomp }) => noNewPrivs && seccomp === 2);
    /**
     * Capabilities that a thread of the runtime may have beside a main thread with `main`. JavaScriptCore starts
     * and ends threads at any time: a new one has those of the thread that started it. Node's have none.
     */
    const inherited = (pid: number, main: bigint): bigint =>
      readlinkSync(`/proc/${pid}/exe`).includes('bun') ? main | CAP_NET_BIND_SERVICE | CAP_NET_RAW : 0n;
    /** The engine of a form, once its sandbox is closed. */
    const enginePid = (started: Started, name: string): Promise<number> =>
      eventually('an engine in its sandbox', START_MS, () => {
        const { stderr } = started.printed();
        if (started.process.exitCode !== null) throw new Error(`it ended: ${stderr}`);
        return descendantsOf(started.pid).find(
          (pid) => processName(pid) === name && isAlive(pid) && isSandboxed(pid),
        );
      });

    describe.each(FORMS)('$name', (form) => {
      let target: EmptyGuest;
      let started: Started;
      let pid: number;
      const start = async (): Promise<void> => {
        started = bed.start(
          'user',
          [
            ...['bash', '-c', `${CARELESS}; exec "$@"`, 'bash'],
            ...form.argv(String(bed.pidSeenInside(target.pid))),
          ],
          { env: { API_TOKEN: SECRET } },
        );
        pid = await enginePid(started, form.process);
      };
      beforeAll(async () => {
        target = await bed.emptyGuest();
        await start();
      });
      afterAll(async () => {
        killTree(started.pid);
        await started.exited;
        await target.end();
      });

      it('every thread has the capabilities that it needs and no others', () => {
        const threads = threadStatus(pid);
        // Those of the JavaScript engine come and go beside these.
        const names = threads.map(({ name }) => name);
        expect(names).toContain(form.process);
        expect(names.filter((name) => PACKET_THREAD.test(name))).not.toEqual([]);
        const more = inherited(pid, form.main);
        for (const { name, capPrm, capEff } of threads) {
          const permitted = BigInt(`0x${capPrm}`);
          expect([name, capEff]).toEqual([name, capPrm]);
          if (name === form.process) expect([name, permitted]).toEqual([name, form.main]);
          else if (name.startsWith('packet thread'))
            expect([name, permitted & ~(CAP_NET_BIND_SERVICE | CAP_NET_RAW)]).toEqual([name, 0n]);
          else expect([name, permitted & ~more]).toEqual([name, 0n]);
        }
      });

      it("the caller's descriptors are closed, and no descriptor of a namespace is open", () => {
        const open = openFiles(pid);
        expect(open.length).toBeGreaterThan(10);
        expect(open.filter((file) => LEFT_OPEN.includes(file) || /^(net|user|mnt):\[/.test(file))).toEqual(
          [],
        );
      });

      it('whatever is watched: one inotify instance', () => {
        expect(openFiles(pid).filter((file) => file.includes('inotify'))).toEqual(['anon_inode:inotify']);
      });

      it("the caller's environment is erased from memory, our own variables are kept", () => {
        const entries = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').filter(Boolean);
        expect(
          entries.filter((entry) => !/^(BUCATINI|PASTA|SLIRP4NETNS)_|^(NODE_COMPILE_CACHE|TZ)=/.test(entry)),
        ).toEqual([]);
        expect(entries).toContain('BUCATINI_OWN_MOUNTS=1');
      });

      if (!form.command)
        it("the caller's environment was never in memory", () => {
          expect(countInMemory(pid, form.process)).toBeGreaterThan(0); // the search finds what is there
          expect(countInMemory(pid, SECRET)).toBe(0);
        });

      if (form.command)
        it("COMMAND has the caller's descriptors (run) or three (pasta), and the descriptor limit that belongs to it", async () => {
          const told = await eventually('COMMAND has printed its descriptors', START_MS, () => {
            const lines = started.printed().stdout.trim().split('\n');
            return lines.length >= 2 && lines;
          });
          // One descriptor is the directory that ls reads. Descriptors of the test runner are inherited
          // through `run`, as those of CARELESS are. passt's pasta raises the limit for itself and its
          // command.
          const hard = /^Max open files\s+\d+\s+(\d+)/m;
          const raised = hard.exec(
            (await bed.run('host', ['cat', `/proc/${bed.pidSeenInside(pid)}/limits`])).stdout,
          );
          const { stdout } = await bed.run('user', ['bash', '-c', `${CARELESS}; ls /proc/self/fd | wc -l`]);
          expect(told).toEqual([
            form.process === 'pasta' ? '4' : stdout.trim(),
            form.process === 'pasta' ? raised?.[1] : String(SOFT_LIMIT),
          ]);
        });

      it.each(['SIGINT', 'SIGTERM', 'SIGKILL'] as const)(
        '%s: it ends, and nothing is left',
        async (signal) => {
          if (!isAlive(pid)) await start();
          // The command of passt's pasta goes on after pasta has ended.
          const family = form.process === 'pasta' ? [pid] : [pid, ...descendantsOf(pid)];
          process.kill(pid, signal);
          const status = await Promise.race([started.exited, sleepMs(END_MS).then(() => 'still there')]);
          expect(status).toBe(form.ends[['SIGINT', 'SIGTERM', 'SIGKILL'].indexOf(signal)]);
          await eventually('all have ended', END_MS, () => family.every((p) => !isAlive(p)));
        },
      );
    });

    describe.skipIf(engine.name !== 'bucatini').each(PLANS)('run, %s', (plan) => {
      it(`a soft limit of ${SOFT_LIMIT} descriptors: ${FLOWS} connections at once succeed`, {
        timeout: 120_000,
      }, async () => {
        const crowd = supportProgram('clients/tcp-crowd.ts', PEER4, PORT.echo, FLOWS, FLOWS, 100, 1);
        const argv = [`${repoRoot}/bin/bucatini`, 'run', '--threads', plan, '--', ...crowd];
        const { stdout, stderr } = await bed.run(
          'user',
          ['bash', '-c', `ulimit -S -n ${SOFT_LIMIT}; exec "$@"`, 'bash', ...argv],
          { timeoutMs: 110_000 },
        );
        expect(stdout, stderr).not.toBe('');
        expect(JSON.parse(stdout)).toMatchObject({ ok: FLOWS, failed: {}, peakOpen: FLOWS });
      });

      it('its packet threads: as many as planned, with the same capabilities and filter, in the network namespace of the host', async () => {
        const guest = await bed.engine({ plan });
        try {
          const threads = threadStatus(guest.enginePid).filter(({ name }) => PACKET_THREAD.test(name));
          expect(threads.length).toBe(packetThreadsOf(plan));
          const hosts = (await bed.run('user', ['readlink', '/proc/self/ns/net'])).stdout.trim();
          const [{ capEff, capPrm }] = threads as [ThreadStatus];
          for (const { name, ...state } of threads)
            expect([name, state]).toMatchObject([
              name,
              { capEff, capPrm, seccomp: 2, noNewPrivs: true, namespaces: { net: hosts } },
            ]);
          expect(BigInt(`0x${capPrm}`) & ~(CAP_NET_BIND_SERVICE | CAP_NET_RAW)).toBe(0n);
        } finally {
          await guest.stop();
        }
      });

      // JavaScript that both runtimes share.
      it.skipIf(process.env.BUCATINI_RUNTIME === 'node')(
        'no descriptors are left: connections wait, one line gives the reason, none fails',
        async () => {
          const guest = await bed.engine({ plan });
          try {
            const limit = openFiles(guest.enginePid).length + 20;
            const crowd = supportProgram('clients/tcp-crowd.ts', PEER4, PORT.once, 100, 100, 100, 0);
            const prlimit = ['prlimit', '--pid', String(guest.enginePid), `--nofile=${limit}:`];
            expect(await runToEnd(prlimit)).toMatchObject({ status: 0 });
            const { ok, failed } = JSON.parse(await succeed(guest, crowd, { timeoutMs: 70_000 }));
            expect({ ok, failed }).toEqual({ ok: 100, failed: {} });
            const { stderr } = guest.started.printed();
            expect(
              stderr.match(/no descriptors left for new connections/g)?.length ?? 0,
              stderr,
            ).toBeLessThan(2);
            expect(stderr, stderr).toMatch(/no descriptors left|descriptors are short/);
            const later = await curlDownload(guest, `http://${PEER4}:${PORT.http}/bytes/70000`, 10_000);
            expect(later.bytes).toBe(70_000);
          } finally {
            await guest.stop();
          }
        },
      );

      it('a packet thread fails: its message, status 1, and nothing is left', async () => {
        const crash = { BUCATINI_TEST_IMPAIR: 'crashAfter=40' };
        const argv = [`${repoRoot}/bin/bucatini`, 'run', '--threads', plan, '--'];
        const client = [
          'curl',
          '-sS',
          '-m',
          '20',
          '-o',
          '/dev/null',
          `http://${PEER4}:${PORT.http}/bytes/100000000`,
        ];
        const started = bed.start('user', [...argv, ...client], { env: crash });
        const pid = await enginePid(started, 'bucatini');
        const family = [pid, ...descendantsOf(pid)];
        const status = await Promise.race([started.exited, sleepMs(START_MS).then(() => 'still there')]);
        const { stderr } = await started.output();
        expect(stderr).toMatch(/^bucatini: run: the engine failed: .*test door: crash/m);
        expect(status).toBe(1);
        await eventually('all have ended', END_MS, () => family.every((p) => !isAlive(p)));
      });

      it('the TAP is removed: a message and status 1', async () => {
        const guest = await bed.engine({ plan });
        const links = JSON.parse(await succeed(guest, ['ip', '-j', 'link'])) as { ifname: string }[];
        const tap = links.map(({ ifname }) => ifname).find((name) => name !== 'lo');
        await guest.inside(['ip', 'link', 'del', tap ?? 'no TAP']); // may be killed with the guest before it ends
        const status = await Promise.race([
          guest.started.exited,
          sleepMs(START_MS).then(() => 'still there'),
        ]);
        const { stderr } = await guest.started.output();
        expect(stderr).toMatch(/^bucatini: run: the engine failed: the TAP device is gone: read: EBADFD$/m);
        expect(status).toBe(1);
      });

      it(`${LOAD_MS / 1000} s of mixed load: no process is ended by the filter, no error is logged`, {
        timeout: LOAD_MS + 60_000,
      }, async () => {
        const guest = await bed.engine({ plan });
        try {
          const rounds = await mixedLoad(guest, performance.now() + LOAD_MS);
          for (const [kind, count] of Object.entries(rounds)) expect([kind, count > 0]).toEqual([kind, true]);
          expect(isSandboxed(guest.enginePid)).toBe(true);
          const most = CAP_KILL | CAP_NET_BIND_SERVICE | CAP_NET_RAW;
          for (const { name, capPrm, capEff } of threadStatus(guest.enginePid))
            expect([name, capEff, BigInt(`0x${capPrm}`) & ~most]).toEqual([name, capPrm, 0n]);
          expect(guest.started.printed().stderr).not.toMatch(/error|warning/);
        } finally {
          expect(await guest.stop()).toBe(143);
        }
      });
    });
  },
);

/**
 * Run every kind of traffic concurrently until `endAt`; a failure throws.
 * @returns the number of completed rounds of each kind
 */
async function mixedLoad(guest: Guest, endAt: number): Promise<Record<string, number>> {
  const url = (host: string, bytes: number): string => `http://${host}:${PORT.http}/bytes/${bytes}`;
  const kinds: Record<string, () => Promise<unknown>> = {
    download: async () => {
      const { bytes } = await curlDownload(guest, url(PEER4, 20_000_000), 30_000);
      expect(bytes).toBe(20_000_000);
    },
    download6: async () => {
      const { bytes } = await curlDownload(guest, url(`[${PEER6}]`, 5_000_000), 30_000);
      expect(bytes).toBe(5_000_000);
    },
    crowd: async () => {
      const argv = supportProgram('clients/tcp-crowd.ts', PEER4, PORT.once, 200, 20, 3000, 0);
      expect(JSON.parse(await succeed(guest, argv, { timeoutMs: 60_000 }))).toMatchObject({
        ok: 200,
        failed: {},
      });
    },
    datagrams: async () => {
      const argv = supportProgram('clients/udp-echo.ts', PEER4, PORT.echo, 1, 100, 1400, 9000, 60_000);
      const outcomes = JSON.parse(await succeed(guest, argv)) as { outcome: string }[];
      expect(outcomes.map(({ outcome }) => outcome)).toEqual(['same', 'same', 'same', 'same', 'same']);
    },
    refused: async () => {
      const { status } = await guest.inside(['curl', '-s', '-m', '5', `http://${PEER4}:${PORT.closed}/`]);
      expect(status).toBe(7);
    },
  };
  const counts: Record<string, number> = {};
  await Promise.all(
    Object.entries(kinds).map(async ([kind, once]) => {
      counts[kind] = 0;
      do {
        await once();
        counts[kind]++;
      } while (performance.now() < endAt);
    }),
  );
  return counts;
}
