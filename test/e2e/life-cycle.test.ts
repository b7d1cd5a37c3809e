/** Start and end of the engine: no process, mount or file is left, whatever ends it. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Bed, type EmptyGuest, makeBed, succeed, succeedIn } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { watchLeft } from '../support/left.ts';
import { HOST4, PEER4, PORT } from '../support/ports.ts';
import { eventually, isAlive, killTree, type Started, sleepMs, threadStatus } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const WITHIN_MS = 1000;

describeE2e('life cycle', [requireTool('curl', 'apt package curl')], () => {
  let bed: Bed;
  let nothingLeft: () => Promise<void>;
  beforeAll(async () => {
    bed = await makeBed();
    nothingLeft = await watchLeft(bed);
  });
  afterAll(() => bed?.close());

  const endsWithin = async (started: Started, what: string): Promise<number> => {
    const at = performance.now();
    const status = await Promise.race([started.exited, sleepMs(5 * WITHIN_MS).then(() => -1)]);
    const ms = performance.now() - at;
    expect(status, `${what}: still running\n${started.printed().stderr}`).not.toBe(-1);
    expect(ms, `${what}: ms until the engine ended`).toBeLessThan(WITHIN_MS);
    return status;
  };

  describe.each(engine.plans)('run, %s', (plan) => {
    afterEach(() => nothingLeft());

    it('the command ends: the engine ends with its status', async () => {
      const started = bed.launch({ plan }, ['sh', '-c', 'echo running; exit 7']);
      await eventually('the command runs', 10_000, () => started.printed().stdout.includes('running'));
      expect(await endsWithin(started, 'exit 7')).toBe(7);
    });

    it('the command is missing: one line, status 127', async () => {
      const started = bed.launch({ plan }, ['/nonexistent/command']);
      const status = await started.exited;
      expect((await started.output()).stderr.trim().split('\n')).toHaveLength(1);
      expect(status).toBe(127);
    });

    it('standard input and output belong to the command', async () => {
      const started = bed.launch({ plan }, ['sh', '-c', 'read -r line; echo "got $line"; echo err >&2']);
      started.process.stdin?.end('a line\n');
      expect(await started.exited).toBe(0);
      expect(await started.output()).toMatchObject({ stdout: 'got a line\n', stderr: 'err\n' });
    });

    it.skipIf(engine.name !== 'bucatini')(
      'every engine thread is in the sandbox, the command is not',
      async () => {
        const guest = await bed.engine({ plan });
        const threads = threadStatus(guest.enginePid);
        for (const thread of threads) expect(thread).toMatchObject({ noNewPrivs: true, seccomp: 2 });
        expect(threads.find((t) => t.name === 'bucatini')?.capEff).toBe('20'); // CAP_KILL
        const packetThreads = threads.filter((t) => t.name.startsWith('packet thread'));
        expect(packetThreads.length).toBeGreaterThan(0);
        // CAP_NET_BIND_SERVICE; CAP_NET_RAW where the kernel wants it for SO_BINDTODEVICE
        for (const thread of packetThreads) expect(thread.capEff).toMatch(/^2?400$/);
        expect(threadStatus(guest.commandPid)).toMatchObject([{ noNewPrivs: false, seccomp: 0 }]);
        expect(await guest.stop()).toBe(143);
      },
    );

    it('the command is killed from outside: the status is 128 + 9', async () => {
      const guest = await bed.engine({ plan });
      process.kill(guest.commandPid, 'SIGKILL');
      expect(await endsWithin(guest.started, 'kill -9 of the command')).toBe(137);
    });

    it.skipIf(!engine.can.ordinaryCommand)('the command kills itself: the status is 128 + n', async () => {
      for (const [signal, status] of [
        ['TERM', 143],
        ['KILL', 137],
        ['SEGV', 139],
      ] as const) {
        const started = bed.launch({ plan }, ['sh', '-c', `kill -${signal} $$; sleep 5`]);
        expect(await started.exited).toBe(status);
      }
    });

    it('SIGTERM to the engine: it and the command end', async () => {
      const guest = await bed.engine({ plan });
      process.kill(guest.enginePid, 'SIGTERM');
      const status = await endsWithin(guest.started, 'SIGTERM');
      if (engine.can.forwardsSignals) expect(status).toBe(143);
      expect(isAlive(guest.commandPid)).toBe(false);
    });

    it('kill -9 of the engine: no process and no mount is left', async () => {
      const guest = await bed.engine({ plan });
      process.kill(guest.enginePid, 'SIGKILL');
      expect(await endsWithin(guest.started, 'kill -9 of the engine')).not.toBe(0);
    });

    it('kill -9 during a transfer: no process and no mount is left', async () => {
      const guest = await bed.engine({ plan });
      const transfer = guest.startInside([
        'curl',
        '-s',
        '-o',
        '/dev/null',
        `http://${PEER4}:${PORT.http}/bytes/${2 ** 40}`,
      ]);
      await sleepMs(300);
      expect(isAlive(transfer.pid)).toBe(true);
      process.kill(guest.enginePid, 'SIGKILL');
      await endsWithin(guest.started, 'kill -9 of the engine');
      // Its namespace stays after the engine while a process of the test runs in it.
      killTree(transfer.pid);
    });
  });

  describe.each(engine.plans)('attach, %s', (plan) => {
    let target: EmptyGuest;
    let started: Started | undefined;
    beforeEach(async () => {
      target = await bed.emptyGuest();
    });
    afterEach(async () => {
      started?.process.kill('SIGKILL');
      await target.end();
      await nothingLeft();
    });

    const networkUp = (fetch: () => Promise<{ status: number; stdout: string }>): Promise<string> =>
      eventually(`the network is there: ${started?.printed().stderr}`, 10_000, async () => {
        const { status, stdout } = await fetch();
        if (started?.process.exitCode != null)
          throw new Error(`the engine ended: ${started.printed().stderr}`);
        return status === 0 && stdout;
      });
    const curl = ['curl', '-s', '-m', '2', '--noproxy', '*', `http://${PEER4}:${PORT.http}/source`];
    const signal = (name: NodeJS.Signals): void => {
      const pids = started ? bed.enginePids(started) : [];
      expect(pids, `processes called ${engine.processName}`).not.toEqual([]);
      process.kill(pids[0]!, name);
    };

    it('PID in a namespace of the same user: the network works; SIGTERM: status 0', async () => {
      started = bed.attach('user', { plan }, String(bed.pidSeenInside(target.pid)));
      expect(await networkUp(() => target.inside(curl))).toBe(HOST4);
      if (engine.name === 'bucatini') {
        const [pid = 0] = bed.enginePids(started);
        await eventually('every thread is in the sandbox', 5000, () =>
          threadStatus(pid).every((thread) => thread.noNewPrivs && thread.seccomp === 2),
        );
        const main = threadStatus(pid).find((thread) => thread.name === 'bucatini');
        expect(main?.capEff).toBe('0'); // no CAP_KILL: a pidfd reports the end of the process
      }
      signal('SIGTERM');
      expect(await endsWithin(started, 'SIGTERM')).toBe(0);
    });

    it('PID: the namespace ends: the engine ends with status 0', async () => {
      started = bed.attach('user', { plan }, String(bed.pidSeenInside(target.pid)));
      await networkUp(() => target.inside(curl));
      process.kill(target.pid, 'SIGKILL');
      expect(await endsWithin(started, 'the end of the namespace')).toBe(0);
    });

    it('PATH of a namespace: the network works; the file is removed: the engine ends with status 0', async () => {
      const file = `${bed.ramDir}/guest.netns`;
      const inside = ['nsenter', `--net=${file}`];
      await succeedIn(bed, 'host', ['sh', '-c', `touch ${file} && unshare --net=${file} true`]);
      try {
        started = bed.attach('host', { plan }, file);
        expect(await networkUp(() => bed.run('host', [...inside, ...curl]))).toBe(HOST4);
      } finally {
        await succeedIn(bed, 'host', ['sh', '-c', `umount -l ${file} && rm ${file}`]);
      }
      expect(await endsWithin(started, 'the end of the file')).toBe(0);
    });

    it('kill -9 of the engine: only the namespace is left', async () => {
      started = bed.attach('user', { plan }, String(bed.pidSeenInside(target.pid)));
      await networkUp(() => target.inside(curl));
      signal('SIGKILL');
      await endsWithin(started, 'kill -9');
      expect(await succeed(target, ['ip', '-o', 'link'])).toContain('lo');
    });
  });
});
