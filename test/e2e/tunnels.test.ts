/**
 * Tunnels with their device inside (an overlay network of containers): their packets cross the engine as UDP.
 * The guest's kernel leaves the checksum of the inner packet partial, and only the engine can complete it.
 * Offloads inside are the defaults of the kernel.
 */
import { spawnSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Inside, makeBed, succeed, succeedIn, supportProgram } from '../support/bed.ts';
import { engine, ourPasta, repoRoot } from '../support/engines.ts';
import { patternSha256 } from '../support/pattern.ts';
import { HOST4, PEER4, PORT } from '../support/ports.ts';
import { eventually, killTree } from '../support/process.ts';
import { describeE2e, type Need, requireTool } from '../support/require.ts';
import { curlDownload, curlUpload, gbits } from '../support/transfers.ts';

const BYTES = 10_000_000;
const TIMEOUT_MS = 60_000;
const START_MS = 10_000;
const PEER_IN = '10.200.0.2';
const GUEST_IN = '10.200.0.1';
/** On the address of the guest in the tunnel. */
const GUEST_PORT = 7001;

/**
 * A `describe` for a kind of device. No package adds one that the kernel was built without: its tests are
 * skipped with a reason even in CI.
 */
function describeDevice(title: string, device: string, needs: readonly Need[], body: () => void): void {
  const add = ['ip', 'link', 'add', 't0', 'type', ...device.split(' ')];
  const tried = spawnSync('unshare', ['--user', '--map-root-user', '--net', ...add], { encoding: 'utf8' });
  if (tried.status === 0) describeE2e(title, needs, body);
  else describe.skip(`${title} (the kernel makes no such device: ${tried.stderr?.trim()})`, body);
}

/** The end of a tunnel, as a script for its namespace. */
const endOf = (device: string, address: string): string =>
  `ip link add tun0 type ${device} && ip addr add ${address}/24 dev tun0 && ip link set tun0 mtu 1450 up`;

interface Kind {
  readonly name: string;
  readonly port: number;
  device(remote: string): string;
  /** Default: all. */
  readonly frontEnds?: readonly FrontEnd[];
}

const needs = [requireTool('curl', 'apt package curl'), requireTool('ethtool', 'apt package ethtool')];

async function countersOf(bed: Bed, api: string): Promise<Record<string, number>> {
  const ask = supportProgram('clients/api-client.ts', api, JSON.stringify({ execute: 'stats' }));
  const [reply] = JSON.parse(await succeedIn(bed, 'user', ask));
  return reply.return.counters;
}

/**
 * A bed whose peer sends packets with complete checksums, as a network card does: across a veth the inner
 * checksums would stay partial.
 */
async function tunnelBed(): Promise<Bed> {
  const bed = await makeBed();
  await succeedIn(bed, 'peer', ['ethtool', '-K', 'veth0', 'tx', 'off']);
  return bed;
}

interface Served extends Inside {
  /** Counters of the engine, with the option that prints them. */
  counters?(): Promise<Record<string, number>>;
  end(): Promise<unknown>;
}

/** Each front end with the tunnel's port published. */
interface FrontEnd {
  readonly name: string;
  serve(bed: Bed, port: number): Promise<Served>;
}

const withRun = (plan: string, mtu: number): FrontEnd => ({
  name: `run, ${plan}, MTU ${mtu}`,
  async serve(bed, port) {
    const api = `${bed.ramDir}/api-${plan}-${mtu}`;
    const extra = engine.name === 'bucatini' ? ['--api-socket', api] : [];
    const guest = await bed.engine({ plan, mtu, publish: [`${port}:${port}/udp`], extra });
    const counters = () => countersOf(bed, api);
    return { ...guest, end: () => guest.stop(), ...(engine.name === 'bucatini' ? { counters } : {}) };
  },
});

const withPasta: FrontEnd = {
  name: 'pasta',
  async serve(bed, port) {
    const guest = await bed.engine({ engine: ourPasta, publish: [`${port}/udp`] });
    return { ...guest, end: () => guest.stop() };
  },
};

const withSlirp: FrontEnd = {
  name: 'slirp4netns',
  async serve(bed, port) {
    const guest = await bed.emptyGuest();
    const api = `${bed.ramDir}/slirp-api`;
    const argv = [
      `${repoRoot}/bin/slirp4netns`,
      '-c',
      '-a',
      api,
      String(bed.pidSeenInside(guest.pid)),
      'tap0',
    ];
    const slirp = bed.start('user', argv, { env: { HOME: bed.ramDir } });
    const forward = { proto: 'udp', host_addr: HOST4, host_port: port, guest_port: port };
    const request = JSON.stringify({ execute: 'add_hostfwd', arguments: forward });
    await eventually(`slirp4netns listens: ${argv.join(' ')}`, START_MS, async () => {
      const reply = await bed.run('user', supportProgram('clients/api-client.ts', api, request));
      return reply.stdout.includes('"id"');
    });
    return {
      ...guest,
      async end() {
        killTree(slirp.pid); // it does not end with its guest
        await slirp.exited;
        await guest.end();
        await bed.run('host', ['rm', '-f', api]);
      },
    };
  },
};

const FRONT_ENDS: readonly FrontEnd[] = [
  ...engine.plans.flatMap((plan) =>
    plan === 'pipeline=2' ? [] : [withRun(plan, 65520), withRun(plan, 1500)],
  ),
  ...(engine.name === 'pasta' ? [] : [withPasta, withSlirp]),
];

const VXLAN: Kind = {
  name: 'vxlan',
  port: 4789,
  device: (remote) => `vxlan id 42 dstport 4789 remote ${remote} udpcsum`,
};
const KINDS: readonly Kind[] = [
  VXLAN,
  {
    ...VXLAN,
    frontEnds: FRONT_ENDS.slice(0, 1),
    name: 'vxlan without outer checksums',
    device: (r) => VXLAN.device(r).replace('udpcsum', 'noudpcsum'),
  },
  { name: 'geneve', port: 6081, device: (remote) => `geneve id 42 remote ${remote}` },
];

for (const kind of KINDS) {
  describeDevice(`${kind.name} inside`, kind.device('127.0.0.1'), needs, () => {
    let bed: Bed;
    const rates: Record<string, string> = {};
    const upload = (): string => `${bed.ramDir}/upload.bin`;
    beforeAll(async () => {
      bed = await tunnelBed();
      await succeedIn(bed, 'peer', ['sh', '-c', endOf(kind.device(HOST4), PEER_IN)]);
      const [sh = '', script = '', program = ''] = supportProgram('pattern.ts');
      await succeedIn(bed, 'host', ['sh', '-c', `${sh} ${script} ${program} ${BYTES} >${upload()}`]);
    });
    afterAll(async () => {
      await bed?.close();
      console.table(rates);
    });

    describe.each(kind.frontEnds ?? FRONT_ENDS)('$name', (frontEnd) => {
      let guest: Served;
      beforeAll(async () => {
        guest = await frontEnd.serve(bed, kind.port);
        await succeed(guest, ['sh', '-c', endOf(kind.device(PEER4), GUEST_IN)]);
        // The peer may still know the last guest's Ethernet address.
        await succeedIn(bed, 'peer', ['ip', 'neigh', 'flush', 'dev', 'tun0']);
      });
      afterAll(() => guest?.end());

      const matches = { bytes: BYTES, sha256: patternSha256(BYTES) };
      const url = `http://${PEER_IN}:${PORT.http}`;

      it('ping, from either end', async () => {
        const ping = (to: string): string[] => ['ping', '-c3', '-i0.2', '-W2', '-s1000', to];
        expect(await succeed(guest, ping(PEER_IN))).toContain(' 0% packet loss');
        expect(await succeedIn(bed, 'peer', ping(GUEST_IN))).toContain(' 0% packet loss');
      });

      it('TCP: a download and an upload arrive complete and unchanged', { timeout: TIMEOUT_MS }, async () => {
        const down = await curlDownload(guest, `${url}/bytes/${BYTES}`, TIMEOUT_MS / 2);
        expect(down).toMatchObject(matches);
        const up = await curlUpload(guest, upload(), `${url}/upload`, TIMEOUT_MS / 2);
        expect(up).toMatchObject(matches);
        const counters = await guest.counters?.();
        if (counters !== undefined) {
          const { datagramsToGuest = 0, framesToGuest = 1 } = counters;
          rates[`${frontEnd.name} datagrams a frame`] = (datagramsToGuest / framesToGuest).toFixed(1);
          expect(counters['drop.vnetCsum'] ?? 0, 'frames that the kernel made and the engine refused').toBe(
            0,
          );
        }
        rates[`${frontEnd.name} download`] = gbits(down);
        rates[`${frontEnd.name} upload`] = gbits(up);
      });

      it('TCP from the peer to a server inside: data arrives unchanged', async () => {
        const server = guest.startInside(supportProgram('clients/tcp-echo.ts', GUEST_PORT));
        await eventually('it listens', START_MS, () => server.printed().stdout.includes('ready'));
        const crowd = supportProgram('clients/tcp-crowd.ts', GUEST_IN, GUEST_PORT, 4, 4, 100_000, 1);
        expect(JSON.parse(await succeedIn(bed, 'peer', crowd))).toMatchObject({ ok: 4, failed: {} });
        server.process.kill();
        await server.exited;
      });

      // The engine joins datagrams of equal size into one frame: the device inside must get single datagrams.
      it.each([
        [60, 1200],
        [60, 100],
        [20, 4000],
      ])(
        'UDP: a burst of %i datagrams of %i bytes, the last one shorter, comes back unchanged',
        async (count, bytes) => {
          const burst = supportProgram('clients/udp-burst.ts', PEER_IN, PORT.echo, count, bytes);
          expect(JSON.parse(await succeed(guest, burst))).toEqual({ same: count, lost: 0 });
        },
      );
    });
  });
}

/** IP protocols that the engine does not carry. */
describe.each(['ipip', 'gre', 'sit'])('%s inside', (type) => {
  const device = (local: string, remote: string): string => `${type} local ${local} remote ${remote}`;
  describeDevice(
    'of a protocol that is not carried',
    device('127.0.0.1', '127.0.0.2'),
    [requireTool('curl', 'apt package curl')],
    () => {
      let bed: Bed;
      beforeAll(async () => {
        bed = await makeBed();
      });
      afterAll(() => bed?.close());

      it.each(engine.plans)('%s: its packets are counted as dropped, other traffic goes on', async (plan) => {
        const api = `${bed.ramDir}/api-${type}-${plan}`;
        const guest = await bed.engine({ plan, extra: ['--api-socket', api] });
        const local = `$(ip -4 route get ${PEER4} | sed -n 's/.* src \\([^ ]*\\).*/\\1/p')`;
        await succeed(guest, ['sh', '-c', endOf(device(local, PEER4), GUEST_IN)]);
        await guest.inside(['ping', '-c2', '-i0.2', '-W1', PEER_IN]);
        await guest.inside(['curl', '-sS', '--noproxy', '*', '-m1', `http://${PEER_IN}:${PORT.http}/`]);
        expect((await countersOf(bed, api))['drop.ipProtocol']).toBeGreaterThan(0);
        expect(await succeed(guest, ['ping', '-c1', '-W2', PEER4])).toContain(' 0% packet loss');
        await guest.stop();
      });
    },
  );
});
