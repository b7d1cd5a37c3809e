// @vitest: beside
/**
 * `bucatini top`, `flows`, `ports`, `stats` and `policy` beside running instances with traffic: what a person
 * sees on a terminal (tmux), and what scripts get. Instances are found by --api-socket auto.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { engine, repoRoot } from '../support/engines.ts';
import { eventually, killTree, runToEnd, type Started, start } from '../support/process.ts';
import { describeNeeding, requireTool, tapNeeds } from '../support/require.ts';

const needs = [...tapNeeds, requireTool('tmux', 'apt package tmux'), requireTool('bash', 'apt package bash')];
const END_MS = 10_000;
const LOOPBACK = '192.0.2.99';
const PUBLISHED = 18_081;
const bin = (name: string): string => `${repoRoot}/bin/${name}`;

describeNeeding(
  'bucatini top, flows, ports, stats, policy',
  // Other engines (E2E_ENGINE) have none of it.
  engine.name === 'bucatini' ? needs : [() => 'bucatini alone has these commands'],
  () => {
    let directory: string;
    let server: Server;
    const sockets: Socket[] = [];
    let instance: Started;
    let pid: string;
    const instances: Started[] = [];
    const env = () => ({ XDG_RUNTIME_DIR: directory });
    const names = (): string[] =>
      existsSync(`${directory}/bucatini`) ? readdirSync(`${directory}/bucatini`).sort() : [];
    const run = (...args: string[]) => runToEnd([bin('bucatini'), ...args], { env: env() });
    const launch = (...argv: string[]): Started => {
      const started = start(argv, { env: env() });
      instances.push(started);
      return started;
    };
    const listening = (prefix: string): Promise<string> =>
      eventually(`a socket of ${prefix}`, END_MS, () => names().find((name) => name.startsWith(prefix)));

    beforeAll(async () => {
      directory = mkdtempSync(`${tmpdir()}/watch-`);
      // Sends what the guest takes, for ever.
      server = createServer((socket) => {
        sockets.push(socket);
        socket.on('error', () => {});
        const piece = Buffer.alloc(16_384);
        const more = (): void => {
          while (!socket.destroyed && socket.write(piece));
        };
        socket.on('drain', more);
        more();
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { port } = server.address() as AddressInfo;
      // At most 1 MB/s: the machine has other tests to run.
      const traffic = `exec 3<>/dev/tcp/${LOOPBACK}/${port}; while head -c 100000 <&3 >/dev/null; do sleep 0.1; done`;
      const options = ['-4', '--host-loopback', LOOPBACK, '-p', `${PUBLISHED}:80`, '--deny', 'any:25'];
      instance = launch(
        bin('bucatini'),
        ...['run', '--api-socket', 'auto', '--stats=1', '--stats-json', `${directory}/stats.json`],
        ...[...options, '--', 'bash', '-c', traffic],
      );
      pid = (await listening('run-')).slice('run-'.length, -'.sock'.length);
      await eventually('a flow', END_MS, async () => (await run('flows')).stdout.includes('established'));
    });
    afterAll(async () => {
      for (const started of instances) killTree(started.pid);
      for (const socket of sockets) socket.destroy();
      server?.close();
      if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
    });

    it('flows, ports, stats and policy: tables for people; by process id and by socket too', async () => {
      const [flows, ports, stats, policy] = await Promise.all(
        ['flows', 'ports', 'stats', 'policy'].map((command) => run(command)),
      );
      expect(flows).toMatchObject({ status: 0, stderr: '' });
      const [heading, head, row] = flows!.stdout.split('\n');
      expect(heading).toMatch(new RegExp(`^bucatini run, process ${pid}: .*, up `));
      expect(head).toMatch(/^PROTO +STATE +GUEST +REMOTE +FROM GUEST +TO GUEST +RTT +RETRANS +AGE/);
      expect(row).toMatch(
        new RegExp(
          `^tcp +established +\\S+ +${LOOPBACK}:\\d+ +0 B +[\\d.]+ (B|KiB|MiB) +[\\d.]+ (us|ms) +\\d+ `,
        ),
      );
      expect(ports!.stdout).toMatch(new RegExp(`tcp +host \\*:${PUBLISHED} +guest:80 +tap +open`));
      expect(stats!.stdout).toMatch(/^elapsed +[\d.]+ m?s/m);
      expect(stats!.stdout).toMatch(/^to guest +[\d.]+ [KM]iB +[\d.]+ [kMG]bit\/s$/m);
      expect(policy!.stdout).toMatch(/^deny .*any 25$/m);
      const socket = `${directory}/bucatini/run-${pid}.sock`;
      const [bySocket, byPid] = await Promise.all([run('policy', socket), run('policy', pid)]);
      for (const { stdout } of [bySocket, byPid])
        expect(stdout.replace(/up .*/, '')).toBe(policy!.stdout.replace(/up .*/, ''));
      expect(await run('flows', '--filter', ':1 udp')).toMatchObject({ status: 0 });
      expect((await run('flows', '--filter', 'udp')).stdout).toContain('no flows');
    });

    it('--json: flows with all figures, one document in a line; --watch repeats, until nobody reads', async () => {
      const { stdout } = await run('flows', '--json');
      expect(stdout).toMatch(/^[^\n]*\n$/);
      const [one] = JSON.parse(stdout).instances;
      expect(one).toMatchObject({ program: 'bucatini run', pid: Number(pid), more: false });
      expect(one.flows[0]).toMatchObject({
        ...{ proto: 'tcp', state: 'established', remote_addr: LOOPBACK, path: 'tap' },
        ...{ rtt_us: expect.any(Number), retransmits: 0, cwnd: expect.any(Number) },
        ...{ guest_rtt_us: expect.any(Number), guest_retransmits: expect.any(Number) },
      });
      const script = `"$1" stats --json --watch=0.2 | head -n 2`;
      const twice = await runToEnd(['bash', '-c', script, 'sh', bin('bucatini')], { env: env() });
      const [first, second] = twice.stdout
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line).instances[0]);
      expect(first.perSecond).toBeUndefined();
      expect(second.perSecond.bytesToGuest).toBeGreaterThan(0);
    });

    it('top --once, with --json too: rates, threads with processor time', async () => {
      const [text, json] = await Promise.all([
        run('top', '--once', '--interval', '0.6'),
        run('top', '--once', '--json', '--interval', '0.6', pid),
      ]);
      expect(text).toMatchObject({ status: 0, stderr: '' });
      expect(text.stdout).toMatch(/to guest [\d.]+ [kM]bit\/s \([\d.]+ [KMG]iB\)/);
      expect(text.stdout).not.toContain('\x1b');
      const [one] = JSON.parse(json.stdout).instances;
      expect(one.toGuest.bitsPerSecond).toBeGreaterThan(100_000);
      expect(one.flows[0].bits_per_second_to_guest).toBeGreaterThan(100_000);
      expect(one.threads.map(({ name }: { name: string }) => name)).toContain('packet thread 0');
    });

    it('docs/watch.md: each example of these commands works', async () => {
      const page = readFileSync(`${repoRoot}/docs/watch.md`, 'utf8');
      const examples = [
        ...page.matchAll(/^ {4}(bucatini (?:top|flows|ports|stats|policy)\b.*?)(?: +#.*)?$/gm),
      ];
      expect(examples.length).toBeGreaterThan(8);
      const ends = examples.map(async ([, example]) => {
        const line = example!.replaceAll('4711', pid).replace('bucatini', '"$BUCATINI"');
        // Some go on until a signal ends them.
        const script = /--watch|top(?! --once)/.test(line) ? `timeout 1 sh -c '${line}'` : line;
        const more = { ...env(), BUCATINI: bin('bucatini'), TERM: 'dumb' };
        return [example, (await runToEnd(['bash', '-c', script], { env: more })).status] as const;
      });
      const statuses = await Promise.all(ends);
      expect(statuses.filter(([, status]) => status !== 0 && status !== 124)).toEqual([]);
    });

    it('top on a terminal: shows the flow, sorts, filters, pauses, resizes, stops, and gives the terminal back', async () => {
      const tmuxSocket = `${directory}/tmux`;
      const tmux = (...args: string[]): string =>
        spawnSync('tmux', ['-S', tmuxSocket, '-f', '/dev/null', ...args], {
          encoding: 'utf8',
          env: { ...process.env, ...env(), TERM: 'xterm', LC_ALL: 'C.UTF-8' },
        }).stdout;
      const screen = (): string[] => tmux('capture-pane', '-p').split('\n');
      const shows = (what: string, check: (lines: string[]) => boolean): Promise<unknown> =>
        eventually(what, END_MS, () => check(screen())).catch((error: Error) => {
          throw new Error(`${error.message}\n${screen().join('\n')}`);
        });
      const keys = (...names: string[]): string => tmux('send-keys', ...names);
      tmux('new-session', '-d', '-x', '80', '-y', '24', 'env', 'PS1=$ ', 'bash', '--norc', '--noediting');
      try {
        await shows('a prompt', ([line]) => line === '$');
        keys(`stty -g >${directory}/before; '${bin('bucatini')}' top --interval 0.3`, 'Enter');
        await shows('the flow and its rate', (lines) =>
          lines.some((line) => new RegExp(`^tcp +estab +${LOOPBACK}:\\d+ +0 +[\\d.]+[kM] `).test(line)),
        );
        const lines = screen();
        expect(lines[0]).toMatch(new RegExp(`^bucatini top {2}run ${pid} {2}.*\\d\\d:\\d\\d:\\d\\d$`));
        expect(lines[1]).toMatch(/^from guest .* {3}to guest /);
        expect(lines[2]).toMatch(/^flows 1: tcp 1 {3}drops \d/);
        expect(lines[3]).toMatch(/^threads \d+%/);
        expect(lines[4]).toMatch(/^PROTO STATE REMOTE +FROM\* +TO\* +BYTES +RTT RETX +AGE$/);
        expect(lines[23]).toMatch(/^q quit/);
        keys('s');
        await shows('another order', (now) => now[23]!.includes('sort:bytes') && / BYTES\*/.test(now[4]!));
        keys('/', 'udp', 'Enter');
        await shows('no flow', (now) => now.includes('no flow matches the filter'));
        keys('Escape');
        await shows('the flow again', (now) => now.some((line) => line.startsWith('tcp ')));
        keys('p');
        await shows('PAUSED', (now) => now[0]!.endsWith('PAUSED'));
        keys('p', 'h');
        await shows('help', (now) => now.some((line) => line.startsWith('h, ?')));
        keys('h');
        tmux('resize-window', '-x', '40', '-y', '8');
        await shows(
          'a small screen',
          (now) => /^q quit/.test(now[7]!) && now.some((line) => /:\d+ .*[kM] /.test(line)),
        );
        keys('C-z');
        await shows('the shell', (now) => now.some((line) => /Stopped/.test(line)));
        tmux('resize-window', '-x', '80', '-y', '24'); // of which a stopped job is not told
        keys(`stty -g >${directory}/stopped; fg`, 'Enter');
        await shows('the screen again', (now) => /^bucatini top/.test(now[0]!) && /^q quit/.test(now[23]!));
        keys('q');
        await shows('the prompt again', (now) => now.findLast((line) => line !== '') === '$');
        keys(`echo status $?; stty -g >${directory}/after`, 'Enter');
        await shows('status 0', (now) => now.includes('status 0'));
        const stty = (name: string): string => readFileSync(`${directory}/${name}`, 'utf8');
        expect(stty('stopped')).toBe(stty('before'));
        await eventually('stty', END_MS, () => stty('after') === stty('before'));
      } finally {
        tmux('kill-server');
      }
    });

    it('pasta and slirp4netns are found too, and their sockets are removed at their end', async () => {
      // Started as root, pasta would run as nobody.
      const asRoot = process.getuid!() === 0 ? ['--runas', '0'] : [];
      const pasta = launch(
        bin('pasta'),
        ...asRoot,
        '--config-net',
        '--api-socket',
        'auto',
        '--',
        'sleep',
        '60',
      );
      await listening('pasta-');
      const holder = launch('unshare', '-Urn', 'sleep', '60');
      const slirp = launch(
        ...[bin('slirp4netns'), '--userns-path', `/proc/${holder.pid}/ns/user`, '--configure'],
        ...['--api-socket', 'auto', String(holder.pid), 'tap0'],
      );
      await listening('slirp4netns-');
      await eventually('three instances', END_MS, async () => {
        const { instances: all } = JSON.parse((await run('ports', '--json')).stdout);
        return (
          all
            .map(({ program }: { program: string }) => program)
            .sort()
            .join() === 'bucatini pasta,bucatini run,bucatini slirp4netns'
        );
      });
      expect(slirp.printed().stdout).toContain(`* API Socket:      ${directory}/bucatini/slirp4netns-`);
      killTree(holder.pid);
      await slirp.exited;
      process.kill(pasta.pid, 'SIGTERM');
      await pasta.exited;
      expect(names()).toEqual([`run-${pid}.sock`]);
    });

    it('the end of an instance: --stats and --stats-json with time and rates; no instance is an error', async () => {
      process.kill(instance.pid, 'SIGTERM');
      await instance.exited;
      const { stderr } = await instance.output();
      expect(stderr).toMatch(
        /^\d+\.\d s {2}from guest .*bit\/s {2}to guest [\d.]+ Mbit\/s {2}TCP connections 1/m,
      );
      expect(stderr).toMatch(/^elapsed +[\d.]+ s$/m);
      const json = JSON.parse(readFileSync(`${directory}/stats.json`, 'utf8'));
      expect(json).toMatchObject({ program: 'bucatini run', counters: { tcpOpened: 1 } });
      expect(json.toGuest.bitsPerSecond).toBeGreaterThan(0);
      expect(names()).toEqual([]);
      const none = await run('flows');
      expect(none).toMatchObject({ status: 1, stdout: '' });
      expect(none.stderr).toMatch(/^bucatini: no running instance .*\n$/);
      expect(await run('top', '--once', '--interval', '0.1')).toMatchObject({ status: 1 });
    });
  },
);
