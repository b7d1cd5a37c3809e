/**
 * Port options of the pasta front end in both directions. The expected results are those of passt 2026-10-02
 * with the same options.
 */
import { createConnection } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, makeBed, succeedIn, supportProgram } from '../support/bed.ts';
import { repoRoot } from '../support/engines.ts';
import { HOST4, HOST6, PEER4 } from '../support/ports.ts';
import { eventually, type Finished, killTree, type Started } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const PASTA = `${repoRoot}/bin/pasta`;
const PESTO = `${repoRoot}/bin/pesto`;
/** Two scans, with a margin. */
const SCAN_MS = 4000;

describeE2e('pasta: forwarded ports', [requireTool('socat', 'apt package socat')], () => {
  let bed: Bed;
  let serial = 0;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  const listening = async (started: Started): Promise<Started> => {
    await eventually('it listens', 10_000, () => started.printed().stdout.includes('ready')).catch((late) => {
      throw new Error(`${late.message}: ${started.process.spawnargs.at(-1)} ${started.printed().stderr}`);
    });
    return started;
  };

  /** A namespace served by pasta until its file is removed. */
  const serve = async (...options: string[]) => {
    const netns = `${bed.ramDir}/netns${++serial}`;
    await succeedIn(bed, 'host', ['sh', '-c', `: >${netns}; unshare --net=${netns} true`]);
    const finished = await bed.run('host', [PASTA, '--config-net', '--quiet', ...options, '--netns', netns]);
    const enter = (argv: readonly string[]): string[] => ['nsenter', `--net=${netns}`, '--', ...argv];
    return {
      finished,
      start: (argv: readonly string[]) => listening(bed.start('host', enter(argv))),
      run: (argv: readonly string[]) => bed.run('host', enter(argv)),
      end: () => succeedIn(bed, 'host', ['sh', '-c', `umount ${netns}; rm ${netns}`]),
    };
  };

  const echoed = (address: string, port: number): string[] =>
    supportProgram('clients/tcp-crowd.ts', address, port, 2, 2, 100_000, 1);
  const ask = (address: string, port: number, from: number): string[] =>
    supportProgram('clients/udp-ask.ts', address, port, from, 'hello');
  const OK = { ok: 2, failed: {} };

  describe('explicit ports', () => {
    let ns: Awaited<ReturnType<typeof serve>>;
    beforeAll(async () => {
      ns = await serve(
        ...['-t', '8000-8010:9000-9010,~8005', '-u', '127.0.0.1/5300:53', '-u', `${HOST4}/5300:53`],
        ...['-T', '7000:7001', '-U', '7000:7001', '-t', '0.0.0.0/8050:198.51.100.9/9060'],
      );
      expect(ns.finished).toMatchObject({ status: 0, stdout: '', stderr: '' });
      await ns.start(supportProgram('clients/tcp-echo.ts', 9003));
      await ns.start(supportProgram('clients/udp-server.ts', 53));
      await listening(bed.start('host', supportProgram('clients/tcp-echo.ts', 7001)));
      await listening(bed.start('host', supportProgram('clients/udp-server.ts', 7001)));
    });
    afterAll(() => ns?.end());

    it.each(['127.0.0.1', '::1', HOST4, HOST6])('-t, a range with an offset: %s', async (address) => {
      expect(JSON.parse(await succeedIn(bed, 'host', echoed(address, 8003)))).toMatchObject(OK);
    });

    it('-t, an excluded port is not listened on', async () => {
      const crowd = JSON.parse(await succeedIn(bed, 'host', echoed('127.0.0.1', 8005)));
      expect(crowd).toMatchObject({ ok: 0, failed: { ECONNREFUSED: 2 } });
    });

    it('-t with another guest address as target: reached through the interface', async () => {
      await ns.run(['ip', 'address', 'add', '198.51.100.9/32', 'dev', 'lo']);
      await ns.start(supportProgram('clients/tcp-echo.ts', 9060, '198.51.100.9'));
      expect(JSON.parse(await succeedIn(bed, 'host', echoed('127.0.0.1', 8050)))).toMatchObject(OK);
    });

    it('-u at two addresses: the guest sees its own address for loopback, its gateway for the host; ports are kept', async () => {
      expect(await succeedIn(bed, 'host', ask('127.0.0.1', 5300, 40_001))).toBe(`${HOST4} 40001 hello\n`);
      expect(await succeedIn(bed, 'host', ask(HOST4, 5300, 40_002))).toMatch(/^\S+ 40002 hello\n$/);
    });

    it.each(['127.0.0.1', '::1'])(
      '-T and -U: %s inside leads to the same address on the host',
      async (address) => {
        expect(JSON.parse((await ns.run(echoed(address, 7000))).stdout)).toMatchObject(OK);
        const answer = await ns.run(ask(address, 7000, 40_003));
        expect(answer.stdout).toBe(`${address} 40003 hello\n`);
      },
    );

    it("-T: open on loopback inside, closed on the namespace's own address", async () => {
      const crowd = JSON.parse((await ns.run(echoed(HOST4, 7000))).stdout);
      expect(crowd.ok).toBe(0);
    });
  });

  it("-t and -u at the host's link-local address without a zone: the template interface is its zone", async () => {
    const text = await succeedIn(bed, 'host', [
      'ip',
      '-6',
      '-o',
      'addr',
      'show',
      'dev',
      'veth0',
      'scope',
      'link',
    ]);
    const address = /inet6 (fe80[^/]+)/.exec(text)![1]!;
    const ns = await serve('-t', `${address}/8070:9070`, '-u', `${address}/5370:53`);
    expect(ns.finished).toMatchObject({ status: 0, stdout: '', stderr: '' });
    await ns.start(supportProgram('clients/tcp-echo.ts', 9070));
    await ns.start(supportProgram('clients/udp-server.ts', 53));
    const device = (
      await succeedIn(bed, 'peer', ['sh', '-c', 'ip -o link | grep -o "veth[0-9]*" | head -n 1'])
    ).trim();
    for (const [what, port] of [
      ['TCP6', 8070],
      ['UDP6', 5370],
    ]) {
      const line = `echo hello | socat -t 2 - '${what}:[${address}%${device}]:${port}'`;
      expect(await succeedIn(bed, 'peer', ['sh', '-c', line])).toContain('hello');
    }
    await ns.end();
  });

  it('--splice-only: no interface inside; loopback ports work both ways at the same address; others are closed', async () => {
    const ns = await serve(
      ...['--splice-only', '-t', '8060:9061', '-u', '8060:9061', '-T', '7060:7061', '-U', '7060:7061'],
      ...['-t', '0.0.0.0/8062:198.51.100.9/9061'],
    );
    expect(ns.finished).toMatchObject({ status: 0, stdout: '', stderr: '' });
    const links = (await ns.run(['ip', '-o', 'link'])).stdout.trim().split('\n');
    expect(links).toEqual([expect.stringMatching(/^1: lo: <[^>]*\bUP\b/)]);
    await Promise.all([
      ns.start(supportProgram('clients/tcp-echo.ts', 9061)),
      ns.start(supportProgram('clients/udp-server.ts', 9061)),
      listening(bed.start('host', supportProgram('clients/tcp-echo.ts', 7061))),
      listening(bed.start('host', supportProgram('clients/udp-server.ts', 7061))),
    ]);
    const streams = async (run: Promise<Finished>): Promise<unknown> => JSON.parse((await run).stdout);
    const [in4, in6, out4, outside, target] = await Promise.all([
      streams(bed.run('host', echoed('127.0.0.1', 8060))),
      streams(bed.run('host', echoed('::1', 8060))),
      streams(ns.run(echoed('127.0.0.1', 7060))),
      streams(bed.run('host', echoed(HOST4, 8060))),
      streams(bed.run('host', echoed('127.0.0.1', 8062))),
    ]);
    expect([in4, in6, out4]).toMatchObject([OK, OK, OK]);
    expect([outside, target]).toMatchObject([{ ok: 0 }, { ok: 0 }]);
    const [asked, askedOut] = await Promise.all([
      bed.run('host', ask('127.0.0.1', 8060, 40_004)),
      ns.run(ask('::1', 7060, 40_005)),
    ]);
    expect([asked.stdout, askedOut.stdout]).toEqual(['127.0.0.1 40004 hello\n', '::1 40005 hello\n']);
    await ns.end();
  });

  it('a port that is in use: the error text that callers match on, status 1', async () => {
    await listening(bed.start('host', supportProgram('clients/tcp-echo.ts', 8020)));
    const ns = await serve('-t', '8020', '-u', 'none', '-T', 'none', '-U', 'none');
    expect(ns.finished.status).toBe(1);
    expect(ns.finished.stderr).toContain('Listen failed for HOST TCP port */8020: Address already in use\n');
    expect(ns.finished.stderr).toContain("Couldn't listen on requested ports\n");
    await ns.end();
  });

  it('auto: a listener at the other side opens and closes: its port does too', async () => {
    const ns = await serve();
    expect(ns.finished).toMatchObject({ status: 0, stderr: '' });
    const inside = await ns.start(supportProgram('clients/tcp-echo.ts', 8030));
    const outside = await listening(bed.start('host', supportProgram('clients/tcp-echo.ts', 8031)));
    const reaches = async (run: () => Promise<{ stdout: string }>): Promise<boolean> =>
      JSON.parse((await run()).stdout).ok === 2;
    const fromHost = () => reaches(() => bed.run('host', echoed('127.0.0.1', 8030)));
    const fromInside = () => reaches(() => ns.run(echoed('127.0.0.1', 8031)));
    await eventually('the port inside is there on the host', SCAN_MS, fromHost);
    await eventually('the port of the host is there inside', SCAN_MS, fromInside);
    killTree(inside.pid);
    killTree(outside.pid);
    await eventually('it is gone from the host', SCAN_MS, async () => {
      const { stdout } = await bed.run('host', ['ss', '-tlnH']);
      return !stdout.includes(':8030 ');
    });
    await ns.end();
  });

  it("auto: host sockets of pasta's own flows are not published, however many peers they have", async () => {
    const ports = [7201, 7202, 7203];
    await listening(bed.start('peer', supportProgram('clients/udp-mapping.ts', 'mirror', ...ports)));
    const ns = await serve('-t', 'none', '-u', 'none', '-T', 'none');
    const own = 7210;
    const client = await ns.start(supportProgram('clients/udp-mapping.ts', 'hold', own, PEER4, ...ports));
    killTree(client.pid); // its flows are kept for 30 s
    const filter = ['ss', '-uanH', `sport = :${own}`];
    expect((await bed.run('host', filter)).stdout).toContain(`0.0.0.0:${own}`); // bound, not connected
    await sleep(SCAN_MS);
    expect((await bed.run('host', filter)).stdout).toContain(`0.0.0.0:${own}`);
    expect((await ns.run(filter)).stdout).toBe(''); // the port is free there
    await ns.end();
  });

  it('control socket: lists the rules; new rules replace them, connections go on; malformed requests change nothing', async () => {
    const path = `${bed.ramDir}/control`;
    const ns = await serve('-t', '8040:9040', '-u', 'none', '-T', 'none', '-U', 'none', '-c', path);
    expect(ns.finished).toMatchObject({ status: 0, stderr: '' });
    await ns.start(supportProgram('clients/tcp-echo.ts', 9040));
    const ask = async (request: string): Promise<string> =>
      (await succeedIn(bed, 'host', supportProgram('clients/control-client.ts', path, request))).trim();
    const crowd = async (port: number): Promise<number> =>
      JSON.parse(await succeedIn(bed, 'host', echoed('127.0.0.1', port))).ok;
    const rule = (port: number): string =>
      ['00'.repeat(48), port.toString(16).padStart(4, '0').repeat(2), (9040).toString(16), '06', '01'].join(
        '',
      );

    expect(await crowd(8040)).toBe(2);
    const greeting = await ask(`0100000001${rule(8041)}00`);
    expect(greeting).toMatch(new RegExp(`^626173696c3a7300.*${rule(8040)}.*00$`));
    expect([await crowd(8040), await crowd(8041)]).toEqual([0, 2]);
    // Port 0, then a malformed request.
    for (const nonsense of [`0100000001${rule(0)}00`, 'ff']) {
      expect(await ask(nonsense)).toContain(rule(8041));
      expect(await crowd(8041)).toBe(2);
    }
    await ns.end();
  });

  it('pesto: adds a port; a port that is taken is reported, and all rules stay as they were', async () => {
    const path = `${bed.ramDir}/control-pesto`;
    const ns = await serve('-t', '8070:9070', '-u', 'none', '-T', 'none', '-U', 'none', '-c', path);
    await ns.start(supportProgram('clients/tcp-echo.ts', 9070));
    await listening(bed.start('host', supportProgram('clients/tcp-echo.ts', 8071)));
    const pesto = (...options: string[]) => bed.run('host', [PESTO, ...options, path]);
    expect(await pesto('-A', '-t', '8072:9070')).toMatchObject({ status: 0, stdout: '', stderr: '' });
    expect(JSON.parse(await succeedIn(bed, 'host', echoed('127.0.0.1', 8072)))).toMatchObject(OK);
    expect(await pesto('-t', '8071,8073')).toMatchObject({
      status: 1,
      stderr: 'Listen failed for HOST TCP port */8071: Address already in use\n',
    });
    expect(JSON.parse(await succeedIn(bed, 'host', echoed('127.0.0.1', 8070)))).toMatchObject(OK);
    const shown = await pesto();
    expect([...shown.stdout.matchAll(/TCP \[\*\]:(\d+)/g)].map(([, port]) => port)).toEqual(['8070', '8072']);
    await ns.end();
  });

  it('control socket: silent and gone clients delay no other; the port is open before the answer', async () => {
    const path = `${bed.ramDir}/control-crowd`;
    const ns = await serve('-t', '8060:9060', '-u', 'none', '-T', 'none', '-U', 'none', '-c', path);
    expect(ns.finished).toMatchObject({ status: 0, stderr: '' });
    await ns.start(supportProgram('clients/tcp-echo.ts', 9060));
    const sockets = Array.from({ length: 20 }, () => createConnection(path).on('error', () => {}));
    await sleep(100);
    for (const socket of sockets.slice(0, 10)) socket.destroy();
    const rule = (port: number): string =>
      ['00'.repeat(48), port.toString(16).padStart(4, '0').repeat(2), (9060).toString(16), '06', '01'].join(
        '',
      );
    const request = `0100000001${rule(8061)}00`;
    await succeedIn(bed, 'host', supportProgram('clients/control-client.ts', path, request));
    expect(JSON.parse(await succeedIn(bed, 'host', echoed('127.0.0.1', 8061))).ok).toBe(2);
    for (const socket of sockets) socket.destroy();
    await ns.end();
  });
});
