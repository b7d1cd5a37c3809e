// @vitest: beside
/**
 * What knows of switched connections (--switch-sockets): list_flows, counters, metrics, the egress policy and
 * its changes. COMMAND is a shell that gets its lines from the test: programs have to be its children.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, makeBed, succeedIn, supportProgram } from '../support/bed.ts';
import { engine, repoRoot } from '../support/engines.ts';
import { HOST4, PEER4, PEER6, PORT } from '../support/ports.ts';
import { commandLine, descendantsOf, eventually, type Started } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const needs = [requireTool('curl', 'apt package curl'), requireTool('bash', 'apt package bash')];
const POLICY = `deny tcp any ${PORT.http}\ndefault allow\n`;
/** The thread plan does not matter. */
const [PLAN] = engine.name === 'bucatini' ? engine.plans : [];

describeE2e('switched connections', needs, () => {
  let bed: Bed;
  let shell: Started;
  let lines = 0;
  /** Connections that were switched so far. */
  let switched = 0;
  const socket = (): string => `${bed.ramDir}/api`;
  const metrics = (): string => `${bed.ramDir}/metrics`;

  /** Run one line of bash as COMMAND. @returns what it has printed on both outputs */
  const run = async (line: string): Promise<string> => {
    const end = `end ${++lines}\n`;
    const before = shell.printed().stdout.length;
    shell.process.stdin!.write(`{ ${line}\n} 2>&1; echo end ${lines}\n`);
    await eventually(`${line}: ${shell.printed().stderr}`, 5000, () => shell.printed().stdout.endsWith(end));
    return shell.printed().stdout.slice(before, -end.length);
  };
  // biome-ignore lint/suspicious/noExplicitAny: the tests check the replies
  const ask = async (...requests: object[]): Promise<any[]> => {
    const texts = requests.map((request) => JSON.stringify(request));
    return JSON.parse(
      await succeedIn(bed, 'host', supportProgram('clients/api-client.ts', socket(), ...texts)),
    );
  };
  // biome-ignore lint/suspicious/noExplicitAny: the tests check the replies
  const one = async (execute: string, more: object = {}): Promise<any> => {
    const [reply] = await ask({ execute, arguments: more });
    return reply.return;
  };
  /** Connect descriptor `fd` of the shell to the echo server, and exchange a line. */
  const connect = (fd: number, peer: string): Promise<string> =>
    run(`exec ${fd}<>/dev/tcp/${peer}/${PORT.echo}; echo hello >&${fd}; read -r -t 5 -u${fd} a; echo $a`);
  const read = (fd: number): Promise<string> =>
    run(`echo again >&${fd} && read -r -t 5 -u${fd} a && echo $a || echo ended`);

  beforeAll(async () => {
    bed = await makeBed();
    if (PLAN === undefined) return;
    const file = `${bed.ramDir}/policy`;
    bed.write(file, POLICY);
    const extra = [
      ...['--switch-sockets', '--no-switch', `${PEER6},192.0.2.0/24`, '--policy', file],
      ...['--api-socket', socket(), '--metrics', `unix:${metrics()}`, '--stats'],
    ];
    shell = bed.launch({ plan: PLAN, extra }, ['bash']);
    await run("trap '' PIPE");
  });
  afterAll(() => bed?.close());

  describe.runIf(PLAN !== undefined)('of bucatini run', () => {
    it('list_flows has them beside those of the TAP, and bucatini flows shows both', async () => {
      expect(await connect(3, PEER4)).toBe('hello\n');
      expect(await connect(4, PEER6)).toBe('hello\n'); // --no-switch
      const { flows } = await one('list_flows');
      const tcp = flows.filter(({ proto }: { proto: string }) => proto === 'tcp');
      expect(tcp).toEqual([
        expect.objectContaining({ path: 'tap', remote_addr: PEER6, bytes_from_guest: 6 }),
        expect.objectContaining({
          ...{ path: 'switched', device: 'veth0', state: 'established', guest_addr: HOST4 },
          ...{ remote_addr: PEER4, remote_port: PORT.echo, bytes_from_guest: 6, bytes_to_guest: 6 },
        }),
      ]);
      const table = await succeedIn(bed, 'host', [`${repoRoot}/bin/bucatini`, 'flows', socket()]);
      expect(table).toMatch(new RegExp(`tcp +established .*${PEER4}:${PORT.echo} .* switched veth0`));
    });

    it('counters and metrics', async () => {
      expect((await one('info')).switching).toMatchObject({
        ...{ switched: 1, refused: 0, failed: 0, active: 1 },
      });
      await run(`exec 5<>/dev/tcp/${PEER4}/${PORT.closed}`);
      const { counters } = await one('stats');
      expect(counters).toMatchObject({ switchFailed: 1 });
      // One that is refused at once leaves the program its own socket.
      switched = counters.switchedConnections;
      expect([1, 2]).toContain(switched);
      const curl = ['curl', '-sS', '--unix-socket', metrics(), 'http://localhost/metrics'];
      const text = await succeedIn(bed, 'host', curl);
      expect(text).toContain(`\nbucatini_switched_connections_total ${switched}\n`);
      expect(text).toContain('\nbucatini_switched_connections_open 1\n');
    });

    it('captures and emulated lines are refused', async () => {
      for (const execute of ['start_capture', 'set_impairment']) {
        const [{ error }] = await ask({ execute, arguments: { delay: '5ms' } });
        expect(error.desc).toMatch(/not with --switch-sockets/);
      }
    });

    it('what the policy denies takes the TAP, and is refused and counted there', async () => {
      expect(await run(`exec 5<>/dev/tcp/${PEER4}/${PORT.http}`)).toContain('refused');
      const { counters } = await one('stats');
      expect(counters).toMatchObject({ switchedConnections: switched, 'drop.egressPolicy': 1 });
    });

    it('another policy ends connections that it denies, on both ways and whichever process has them', async () => {
      // A child has a socket that the shell has closed.
      await run(`exec 6<>/dev/tcp/${PEER4}/${PORT.echo}; cat <&6 & exec 6<&-`);
      const denied = `deny tcp ${PEER4} ${PORT.echo}\ndeny tcp ${PEER6} ${PORT.closed}\ndefault allow`;
      expect(await one('set_policy', { policy: denied })).toEqual({ flows_ended: 2, switched_flows_left: 0 });
      expect(await run('wait $! && echo ended')).toBe('ended\n');
      expect(await read(3)).toContain('ended');
      expect(await read(4)).toBe('again\n');
      expect(await run(`exec 7<>/dev/tcp/${PEER4}/${PORT.echo}`)).toContain('refused');
      // Permitted again, and with no policy at all.
      for (const policy of [`deny tcp ${PEER6} ${PORT.closed}\ndefault allow`, null]) {
        expect(await one('set_policy', { policy })).toEqual({ flows_ended: 0, switched_flows_left: 0 });
        expect(await connect(8, PEER4)).toBe('hello\n');
      }
      expect((await one('stats')).counters).toMatchObject({ switchedConnections: switched + 3 });
    });

    it('--stats at the end has the counters', async () => {
      shell.process.stdin!.end('exit 7\n');
      expect(await shell.exited).toBe(7);
      expect(shell.printed().stderr).toMatch(new RegExp(`^switchedConnections +${switched + 3}$`, 'm'));
    });
  });

  it.runIf(PLAN !== undefined)('--log-level debug says what is switched, and why not', async () => {
    const connects = [PEER4, PEER6, '127.0.0.1'].map((to) => `: <>/dev/tcp/${to}/${PORT.echo}`);
    const debug = bed.launch(
      { plan: PLAN!, extra: ['--switch-sockets', '--no-switch', PEER6, '--log-level', 'debug'] },
      ['bash', '-c', connects.join('; ')],
    );
    await debug.exited;
    const { stderr } = debug.printed();
    expect(stderr).toContain(`connect to ${PEER4}, port ${PORT.echo}: switched, by veth0\n`);
    expect(stderr).toContain(`connect to ${PEER6}, port ${PORT.echo}: stays inside: excluded`);
    expect(stderr).toContain(`connect to 127.0.0.1, port ${PORT.echo}: stays inside: not a unicast`);
  });

  it.runIf(PLAN !== undefined)(
    'a supervisor that is stopped: a new policy ends COMMAND, rather than not hold',
    async () => {
      const path = `${bed.ramDir}/stopped`;
      const stopped = bed.launch({ plan: PLAN!, extra: ['--switch-sockets', '--api-socket', path] }, [
        ...['sh', '-c', 'echo up; exec sleep 1000'],
      ]);
      await eventually('COMMAND runs', 10_000, () => stopped.printed().stdout.includes('up'));
      const isSupervisor = (pid: number): boolean => /switch-supervisor/.test(commandLine(pid).join(' '));
      const pid = descendantsOf(stopped.pid).find(isSupervisor);
      expect(pid).toBeDefined();
      process.kill(pid!, 'SIGSTOP');
      const request = JSON.stringify({ execute: 'set_policy', arguments: { policy: 'deny any' } });
      void succeedIn(bed, 'host', supportProgram('clients/api-client.ts', path, request)).catch(() => {});
      expect(await stopped.exited).toBe(1);
      expect(stopped.printed().stderr).toContain('--switch-sockets: the supervisor has not answered for 5 s');
    },
  );

  it.runIf(PLAN !== undefined)('pasta: the same', async () => {
    const command = `exec 3<>/dev/tcp/${PEER4}/${PORT.echo}; echo hello >&3; read -r -u3 a; echo $a; read -r b
      exec 4<>/dev/tcp/${PEER4}/${PORT.echo} || exit 9`;
    const pasta = bed.start('user', [
      ...[`${repoRoot}/bin/pasta`, '--config-net', '--switch-sockets'],
      ...['--api-socket', socket(), 'bash', '-c', command],
    ]);
    await eventually(`connected: ${pasta.printed().stderr}`, 5000, () =>
      pasta.printed().stdout.includes('hello\n'),
    );
    const { flows } = await one('list_flows');
    expect(flows).toContainEqual(
      expect.objectContaining({ path: 'switched', remote_addr: PEER4, bytes_from_guest: 6 }),
    );
    expect(await one('set_policy', { policy: 'deny any' })).toEqual({
      ...{ flows_ended: 1, switched_flows_left: 0 },
    });
    pasta.process.stdin!.end('\n');
    expect(await pasta.exited).toBe(9);
  });
});
