/**
 * Socket switching: what a hostile program inside cannot do with the sockets of the host that it is given.
 *
 * A canary listens on every address of the host and of the peer. The attacks of
 * test/support/switching/attacks.py aim at those that they must not reach; each attack must have held a socket of the
 * host. In the host's own namespace, without a filter, the same attacks reach the canaries.
 *
 *   the host    127.0.0.1, ::1, 10.77.0.1, fd77::1, link-local   canary on port 7600
 *   the peer    198.18.0.1, 2001:db8:18::1                       canary; --no-switch
 *               10.77.0.66, fd77::66                             canary; the egress policy forbids them
 *
 * By hand: SWITCH_RACES=1000000 tries of the races (default 20,000), SWITCH_CONNECTIONS=100000 connections for lost
 * descriptors (default 3,000).
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, makeBed, succeedIn } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { HOST4, HOST6, PEER4, PEER6, PORT } from '../support/ports.ts';
import { eventually, killTree, openFiles, type Started, sleepMs } from '../support/process.ts';
import { describeE2e } from '../support/require.ts';
import {
  pythonProgram,
  requirePython,
  type SwitchedRun,
  startSwitched,
} from '../support/switching/switched.ts';

const RACES = Number(process.env.SWITCH_RACES ?? 20_000);
const CONNECTIONS = Number(process.env.SWITCH_CONNECTIONS ?? 3000);
const CANARY = 7600;
const SQUAT = 7601;
const LOOPBACK = ['127.0.0.1', '::1'];
const OWN = [HOST4, HOST6];
const NO_SWITCH = ['198.18.0.1', '2001:db8:18::1'];
const FORBIDDEN = ['10.77.0.66', 'fd77::66'];
const LATER = ['10.77.0.9', 'fd77::9'];
/** A connection that an attack has begun is accepted within this time. */
const SETTLED_MS = 60;
const ENDED_MS = 3000;
const BY_HAND_MS = RACES > 20_000 || CONNECTIONS > 3000 ? 3_600_000 : 30_000;

interface Attack {
  readonly attack: string;
  /** Sockets of the host's namespace that the program held. */
  readonly host: number;
  /** How often each outcome was seen. What must never happen begins with an exclamation mark. */
  readonly seen: Readonly<Record<string, number>>;
  readonly ms: number;
}

describeE2e('socket switching: safety', [requirePython], () => {
  if (engine.name !== 'bucatini') return it.skip('other engines have none', () => {});
  let bed: Bed;
  let canaries: Started[];
  let linkLocal: string[];
  /** "LOCAL-ADDRESS from SOURCE" of each connection to a canary. */
  const config = (targets: readonly string[], more: object = {}): string =>
    JSON.stringify({
      ...{ peers: [PEER4, PEER6], own: OWN, targets, port: CANARY, squat: SQUAT, directory: bed.ramDir },
      ...{ echo: PORT.echo, closed: PORT.closed, reset: PORT.reset, races: RACES, linkLocal, ...more },
    });
  const attack = (targets: readonly string[], names: readonly string[], more: object = {}): string[] =>
    pythonProgram('attacks.py', config(targets, more), ...names);
  const told = (stdout: string): Attack[] =>
    stdout
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line));
  /** New connections to canaries since the last call, each address once. */
  const readUpTo = new Map<Started, number>();
  const newlyReached = async (): Promise<string[]> => {
    await sleepMs(SETTLED_MS);
    const fresh = canaries.flatMap((one) => {
      const { stdout } = one.printed();
      const from = readUpTo.get(one) ?? 0;
      readUpTo.set(one, stdout.length);
      return stdout.slice(from).trim().split('\n');
    });
    const addresses = fresh.filter((line) => line.includes(' from ')).map((line) => line.split(' ')[0]!);
    // An address of one destination with the port of another may come of a race; the peer itself may be reached.
    return [...new Set(addresses)].filter((address) => address !== PEER4 && address !== PEER6).sort();
  };

  beforeAll(async () => {
    bed = await makeBed();
    await succeedIn(bed, 'peer', [
      ...['sh', '-ec'],
      `ip addr add ${NO_SWITCH[0]}/32 dev lo; ip -6 addr add ${NO_SWITCH[1]}/128 dev lo nodad
       ip addr add ${FORBIDDEN[0]}/24 dev veth0; ip -6 addr add ${FORBIDDEN[1]}/64 dev veth0 nodad`,
    ]);
    canaries = (['host', 'peer'] as const).map((where) =>
      bed.start(where, pythonProgram('canary.py', CANARY)),
    );
    await eventually('the canaries listen', 5000, () =>
      canaries.every((one) => one.printed().stdout.includes('ready')),
    );
    const addresses = await succeedIn(bed, 'host', [
      'ip',
      '-6',
      'addr',
      'show',
      'dev',
      'veth0',
      'scope',
      'link',
    ]);
    linkLocal = [/inet6 (fe80:[0-9a-f:]+)/.exec(addresses)![1]!];
  });
  afterAll(() => bed?.close());

  /** The attacks that reach every target of the list where nothing holds them off. */
  const REACHING = [
    ...['table', 'reaim', 'reaim_blocking', 'unspec', 'lengths', 'families', 'int80', 'fastopen'],
    ...['memory_race', 'processes', 'options'],
  ];
  const OTHERS = ['x32', 'io_uring', 'dup_race', 'namespaces', 'ioctls', 'own_listener'];

  /** @throws Error unless the attack was carried out, with sockets of the host, and saw nothing forbidden */
  const check = (results: readonly Attack[], names: readonly string[]): void => {
    if (process.env.SWITCH_SHOW) for (const one of results) console.log(JSON.stringify(one));
    expect(results.map((one) => one.attack)).toEqual(names);
    for (const { attack: name, host, seen } of results) {
      if (!['table', 'io_uring', 'own_listener'].includes(name))
        expect(host, `${name}: sockets of the host`).toBeGreaterThan(0);
      const forbidden = Object.keys(seen).filter((what) => /^!|(^|: )connected$/.test(what));
      expect(forbidden, `${name}: ${JSON.stringify(seen)}`).toEqual([]);
    }
  };

  it('control: in the namespace of the host, the attacks reach what they aim at', async () => {
    const targets = [...LOOPBACK, ...OWN, ...NO_SWITCH, ...FORBIDDEN];
    for (const name of REACHING) {
      const done = await bed.run('user', attack(targets, [name], { control: true, races: 2000 }));
      expect(done.status, done.stderr).toBe(0);
      expect(await newlyReached(), `${name}: ${done.stdout}`).toEqual(
        expect.arrayContaining([...targets].sort()),
      );
    }
  });

  describe.each([
    {
      name: 'no policy',
      extra: ['--switch-sockets', '--no-switch', '198.18.0.0/24,2001:db8:18::/64'],
      targets: [...LOOPBACK, ...OWN],
    },
    {
      name: 'egress policy',
      extra: [
        ...['--switch-sockets', '--no-switch', NO_SWITCH[0]!, '--no-switch', NO_SWITCH[1]!],
        ...[...NO_SWITCH, ...FORBIDDEN].flatMap((address) => ['--deny', address]),
      ],
      targets: [...LOOPBACK, ...OWN, ...NO_SWITCH, ...FORBIDDEN],
    },
  ])('$name', ({ name: setup, extra, targets }) => {
    let run: SwitchedRun;
    const carriedOut = async (names: readonly string[], aims = targets, more = {}): Promise<Attack[]> => {
      const done = await run.run(attack(aims, names, more), { timeoutMs: BY_HAND_MS });
      expect(done.status, done.stdout + done.stderr).toBe(0);
      const results = told(done.stdout);
      check(results, names);
      return results;
    };
    beforeAll(async () => {
      run = await startSwitched(bed, { extra });
      await newlyReached();
    });
    afterAll(() => run?.stop());

    it.each([...REACHING, ...OTHERS])(
      '%s: no canary is reached',
      async (name) => {
        // The races have been run by the first of the two already.
        await carriedOut([name], targets, setup === 'no policy' ? {} : { races: RACES / 4 });
        const isByTap = (address: string): boolean => name === 'table' && linkLocal.includes(address);
        expect((await newlyReached()).filter((address) => !isByTap(address))).toEqual([]);
      },
      BY_HAND_MS,
    );

    if (setup === 'no policy') {
      it('sockets of the host are not aimed at a subnet of --no-switch', async () => {
        const names = REACHING.filter((one) => one !== 'table' && one !== 'memory_race');
        await carriedOut(names, NO_SWITCH, { hostOnly: true });
        expect(await newlyReached()).toEqual([]);
      });

      it('a socket of the host in the hands of a process outside the filter: not to loopback', async () => {
        const pid = bed.pidSeenInside(run.commandPid());
        const enter = ['nsenter', '-t', String(pid), '-U', '-n', '--preserve-credentials', '--'];
        const taker = bed.start('host', [...enter, ...attack(targets, ['take'])]);
        await eventually('it listens', 5000, () => taker.printed().stdout.includes('listening'));
        await run.run(attack(targets, ['give']));
        expect(await taker.exited, taker.printed().stderr).toBe(0);
        const [result] = told(taker.printed().stdout);
        expect(result!.host, JSON.stringify(result)).toBe(targets.length);
        // Services on the host's own addresses can be reached so, as those of the network can.
        expect((await newlyReached()).filter((address) => LOOPBACK.includes(address))).toEqual([]);
      });

      it('addresses that become the host’s while connections live', async () => {
        const later = run.start(attack(LATER, ['later'], { hostOnly: true }));
        await eventually('sockets are held', 5000, () => later.printed().stdout.includes('ready'));
        await succeedIn(bed, 'host', [
          ...['sh', '-ec'],
          `ip addr add ${LATER[0]}/24 dev veth0; ip -6 addr add ${LATER[1]}/64 dev veth0 nodad`,
        ]);
        bed.write(`${bed.ramDir}/addresses`, '');
        const { stdout } = await later.finished;
        check(told(stdout), ['later']);
        expect(await newlyReached()).toEqual([]);
        // By the TAP they are reached, as other addresses of the host are.
        const [result] = told((await run.run(attack(LATER, ['fresh']))).stdout);
        expect(result!.seen).not.toHaveProperty('! SWITCHED');
        await newlyReached();
        await succeedIn(bed, 'host', [
          ...['sh', '-ec'],
          `ip addr del ${LATER[0]}/24 dev veth0; ip -6 addr del ${LATER[1]}/64 dev veth0`,
        ]);
      });

      it('ports of the host stay free', async () => {
        const listening = (): Promise<string> => succeedIn(bed, 'host', ['ss', '-Hltn']);
        const at = await listening();
        const squatter = run.start(attack(targets, ['squat']));
        await eventually('it holds sockets', 10_000, () => squatter.printed().stdout.includes('ready'));
        expect(await listening()).toBe(at);
        await succeedIn(bed, 'user', [
          ...[pythonProgram('')[0]!, '-c'],
          `import socket
for f, a in ((2, "0.0.0.0"), (10, "::")):
    s = socket.socket(f)
    if f == 10: s.setsockopt(41, 26, 1)
    s.bind((a, ${SQUAT}))
    s.listen()`,
        ]);
        bed.write(`${bed.ramDir}/looked`, '');
        check(told((await squatter.finished).stdout), ['squat']);
      });
    }

    it(
      'no descriptor is lost: answered, refused, interrupted, timed out, killed',
      async () => {
        const storm = (count: number): Promise<{ status: number; stdout: string; stderr: string }> =>
          run.run(pythonProgram('storm.py', PEER4, PEER6, '198.18.7.7', count), { timeoutMs: BY_HAND_MS });
        await storm(200); // what is opened once
        const supervisor = run.supervisorPid();
        // It keeps those of the last threads, 64 at most.
        const isOfThread = (name: string): boolean => name.includes('pidfd');
        const open = (): number => openFiles(supervisor).filter((name) => !isOfThread(name)).length;
        const at = open();
        expect(at).toBeGreaterThan(0);
        const done = await storm(setup === 'no policy' ? CONNECTIONS : CONNECTIONS / 10);
        const fates = JSON.parse(done.stdout);
        expect(fates.WRONG, done.stdout).toBeUndefined();
        for (const fate of ['answered', 'ECONNREFUSED', 'interrupted', 'killed'])
          expect(fates[fate], `${fate}: ${done.stdout}`).toBeGreaterThan(0);
        expect(openFiles(supervisor).filter(isOfThread).length).toBeLessThanOrEqual(64);
        await eventually(`${at} descriptors as before, not more`, 5000, () => open() <= at).catch(
          (e: Error) => {
            throw new Error(`${e.message}: ${open()}: ${openFiles(supervisor).sort().join(' ')}`);
          },
        );
      },
      BY_HAND_MS,
    );
  });

  describe('the end', () => {
    const tree = async (
      end: (run: SwitchedRun) => number,
    ): Promise<{ status: number; stderr: string; ms: number }> => {
      const processes = bed.processes();
      const run = await startSwitched(bed, { extra: ['--switch-sockets'] });
      run.start(['sleep', '1000']);
      const pid = end(run);
      const at = performance.now();
      process.kill(pid, 'SIGKILL');
      const late = setTimeout(() => killTree(run.started.pid), 10_000);
      const status = await run.started.exited;
      clearTimeout(late);
      const ms = performance.now() - at;
      await eventually('nothing is left', ENDED_MS, () =>
        bed.processes().every((line) => processes.includes(line)),
      ).catch((e: Error) => {
        throw new Error(
          `${e.message}: ${bed
            .processes()
            .filter((line) => !processes.includes(line))
            .join('\n')}`,
        );
      });
      return { status, stderr: run.started.printed().stderr, ms };
    };

    it('the supervisor is killed: COMMAND and the front end end, with a line that says so', async () => {
      const { status, stderr, ms } = await tree((run) => run.supervisorPid());
      expect(status).toBe(1);
      expect(ms).toBeLessThan(ENDED_MS);
      expect(stderr.trim().split('\n')).toHaveLength(1);
      expect(stderr).toMatch(/supervisor|switch/);
    });

    it('the front end is killed: COMMAND and the supervisor end', async () => {
      const { ms } = await tree(
        (run) => bed.enginePids(run.started).find((pid) => openFiles(pid).includes('/dev/net/tun'))!,
      );
      expect(ms).toBeLessThan(ENDED_MS);
    });
  });
});
