// @vitest: beside
/**
 * Metrics of real engines with real traffic, from the sandbox and from the outside, and their log in other
 * formats. One thread plan: these run on the main thread.
 */
import { rmSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, succeedIn } from '../support/bed.ts';
import { engine, repoRoot } from '../support/engines.ts';
import { PEER4, PORT } from '../support/ports.ts';
import { eventually, killTree, type Started } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const METRICS_PORT = 9469;
const ALL_PORT = 9470;
const START_MS = 10_000;
const needs = [requireTool('curl', 'apt package curl'), requireTool('socat', 'apt package socat')];

const BUCATINI = `${repoRoot}/bin/bucatini`;
/** conmon, as far as its command line and its child go. */
const CONMON = `#!/bin/sh
unshare --net sleep 60 >/dev/null 2>&1 &
echo $!
wait
`;

describeE2e('metrics', needs, () => {
  if (engine.name !== 'bucatini') return it.skip('other engines have none', () => {});
  let bed: Bed;
  const started: Started[] = [];
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => {
    for (const { pid } of started) killTree(pid);
    return bed?.close();
  });
  /** Where `--api-socket auto` puts sockets. */
  const env = () => ({ XDG_RUNTIME_DIR: bed.ramDir });
  const start = (argv: readonly string[]): Started => {
    const one = bed.start('host', argv, { env: env() });
    started.push(one);
    return one;
  };
  const scrape = async (...where: readonly string[]): Promise<string> =>
    succeedIn(bed, 'host', ['curl', '-sSf', '--noproxy', '*', '-m', '5', ...where]);
  const value = (text: string, series: string): number => {
    const line = text.split('\n').find((one) => one.startsWith(`${series} `));
    return line === undefined ? Number.NaN : Number(line.slice(series.length));
  };

  it('--metrics of run: counters and flows of traffic, in the sandbox', async () => {
    const extra = ['--metrics', String(METRICS_PORT), '--api-socket', `${bed.ramDir}/api`];
    const guest: Guest = await bed.engine({ plan: 'fused', extra });
    const where = `http://127.0.0.1:${METRICS_PORT}/metrics`;
    try {
      const before = await scrape(where);
      expect(value(before, 'bucatini_tcp_opened_total')).toBe(0);
      await succeed(guest, [
        'curl',
        '-sS',
        '--noproxy',
        '*',
        '-o',
        '/dev/null',
        `http://${PEER4}:${PORT.http}/bytes/100000`,
      ]);
      const after = await scrape(where);
      expect(value(after, 'bucatini_tcp_opened_total')).toBe(1);
      expect(value(after, 'bucatini_to_guest_bytes_total')).toBeGreaterThan(100_000);
      expect(value(after, 'bucatini_guest_rtt_seconds_count')).toBeGreaterThan(0);
      expect(value(after, 'bucatini_pool_slots{size="large",state="free"}')).toBeGreaterThan(100);
      expect(value(after, 'bucatini_resident_memory_bytes')).toBeGreaterThan(2 ** 23);
      expect(value(after, 'bucatini_process_cpu_seconds_total')).toBeGreaterThan(0);
      const idle = guest.startInside([
        'curl',
        '-sS',
        '--noproxy',
        '*',
        '-m',
        '20',
        `telnet://${PEER4}:${PORT.echo}`,
      ]);
      await eventually(
        'a flow',
        START_MS,
        async () => value(await scrape(where), 'bucatini_flows{protocol="tcp",state="established"}') === 1,
      );
      killTree(idle.pid);
      // Inside, the port is the guest's own: nobody listens there.
      expect((await guest.inside(['curl', '-s', '-m', '2', where])).status).toBe(7);
      const taken = await bed.run('host', [BUCATINI, 'run', '--metrics', `${METRICS_PORT}`, '--', 'true']);
      expect(taken).toMatchObject({ status: 1, stdout: '' });
      expect(taken.stderr).toBe(
        `bucatini: run: --metrics 127.0.0.1:${METRICS_PORT}: another program listens on this port; choose another one\n`,
      );
      const named = await bed.run('host', [BUCATINI, 'metrics', `${bed.ramDir}/api`, `${bed.ramDir}/none`]);
      expect(named.status).toBe(1);
      expect(named.stderr).toBe(`bucatini: metrics: ${bed.ramDir}/none: nobody listens on this socket\n`);
      const pid = /^bucatini_instance_up\{pid="(\d+)",program="run"\} 1$/m.exec(named.stdout)?.[1];
      expect(value(named.stdout, `bucatini_tcp_opened_total{pid="${pid}",program="run"}`)).toBe(2);
    } finally {
      await guest.stop();
    }
  });

  it('--metrics of pasta and slirp4netns; one scrape for all instances of a user, with names of containers', async () => {
    const paths = { pasta: `${bed.ramDir}/p.sock`, slirp: `${bed.ramDir}/s.sock` };
    bed.write(`${bed.ramDir}/conmon.sh`, CONMON);
    const conmon = start([
      ...['bash', '-c', 'exec -a conmon sh "$@"', 'x'],
      `${bed.ramDir}/conmon.sh`,
      ...['-c', 'c0ffee', '-n', 'web'],
    ]);
    const target = await eventually('a container', START_MS, () =>
      /^\d+\n/.exec(conmon.printed().stdout)?.[0].trim(),
    );
    const common = (path: string): string[] => ['--metrics', `unix:${path}`, '--api-socket', 'auto'];
    start([`${repoRoot}/bin/pasta`, '--config-net', ...common(paths.pasta), '--', 'sleep', '60']);
    start([`${repoRoot}/bin/slirp4netns`, '--configure', ...common(paths.slirp), target, 'tap0']);
    const all = start([BUCATINI, 'metrics', '--all', '--listen', `${ALL_PORT}`]);
    const text = await eventually('two instances', START_MS, async () => {
      const { status, stdout } = await bed.run('host', [
        'curl',
        '-s',
        `http://127.0.0.1:${ALL_PORT}/metrics`,
      ]);
      return (
        status === 0 &&
        value(stdout, 'bucatini_instances') === 2 &&
        /up\{.*"slirp4netns".*\} 1\n/.test(stdout) &&
        stdout
      );
    });
    expect(text).toMatch(/^bucatini_instance_up\{pid="\d+",program="pasta"\} 1$/m);
    expect(text).toMatch(
      /^bucatini_instance_container_info\{pid="\d+",program="slirp4netns",container="web",id="c0ffee"\} 1$/m,
    );
    for (const [program, path] of [
      ['pasta', paths.pasta],
      ['slirp4netns', paths.slirp],
    ] as const) {
      expect(await scrape('--unix-socket', path, 'http://x/metrics')).toContain(
        `bucatini_build_info{program="${program}",`,
      );
      expect(await succeedIn(bed, 'host', ['stat', '-c', '%a', path])).toBe('600\n');
    }
    killTree(all.pid);
    expect(await all.exited).toBeGreaterThan(0);
    for (const { pid } of started.splice(0)) killTree(pid);
    rmSync(`${bed.ramDir}/conmon.sh`, { force: true });
  });

  it('--log-format json and the journal: what run writes from its sandbox', async () => {
    const argv = [BUCATINI, 'run', '--log-level', 'info'];
    const json = await bed.run('host', [...argv, '--log-format', 'json', '--', 'true']);
    expect(JSON.parse(json.stderr)).toMatchObject({
      level: 'info',
      program: 'run',
      msg: expect.stringContaining(': 10.'),
    });
    // A journal that prints what it gets, in a mount namespace of its own.
    const script = `
      mount -t tmpfs journal /run && mkdir -p /run/systemd/journal || exit 9
      socat -u UNIX-RECV:/run/systemd/journal/socket - 2>/dev/null & listener=$!
      until [ -S /run/systemd/journal/socket ]; do sleep 0.05; done
      export JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2)
      "$@" -- sh -c 'echo "$JOURNAL_STREAM" >&2'
      "$@" --log-format text -- true
      "$@" -- true 2>/dev/null
      sleep 0.2; kill $listener`;
    const { stdout, stderr } = await bed.run('host', [
      'unshare',
      '--mount',
      'sh',
      '-c',
      script,
      'x',
      ...argv,
    ]);
    const entries = stdout.split('MESSAGE=').slice(1);
    expect(entries).toHaveLength(1);
    expect(entries[0]).toMatch(
      /^\S+: 10\..*\nPRIORITY=6\nSYSLOG_IDENTIFIER=bucatini\nSYSLOG_PID=\d+\nBUCATINI_PROGRAM=run\nBUCATINI_VERSION=\S+\n$/,
    );
    expect(stderr).toMatch(/^\d+:\d+\nbucatini: \S+: 10\..*\n$/);
  });
});
