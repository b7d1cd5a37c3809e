/**
 * The test network: the harness's own network namespace is the host, another one is the outside world (the
 * peer).
 *
 *      guest of each tool                 host (our own)                        peer
 *   +---------------------+       +-------------------------+          +--------------------+
 *   | iperf3 -c  --- tap0 |--tool-| veth0 198.18.0.1/24     |---veth---| 198.18.0.2, .254   |
 *   +---------------------+       |       2001:2::1/64      |          | 2001:2::2, ::fe    |
 *                                 | line0 198.18.1.1/24     |-emulator-| 198.18.1.2         |
 *   (for the line cells only)     |       2001:2:0:1::1/64  |          | 2001:2:0:1::2      |
 *                                 +-------------------------+          +--------------------+
 *
 * The addresses are those reserved for benchmarks (RFC 2544, RFC 6890, RFC 5180). The gateways answer: they
 * are second addresses of the peer. Everything here runs as root of a user namespace. The tools under test
 * run in a nested user namespace as an ordinary user without capabilities, as they do for their usual
 * callers.
 */
import { writeFileSync } from 'node:fs';
import type { Family, Line } from './matrix.ts';
import { type Argv, commandLine, Daemon, must, namespaceOf, run, sleep, until } from './processes.ts';
import { programWords } from './programs.ts';

/**
 * cubic on every link: machines have different defaults, and with BBR even a bare veth carries half as much.
 */
export const CONGESTION_CONTROL = 'cubic';

const HOST_UID = '1000';

/** The host's address, to which the peer connects for a published port. */
export const HOST_ADDRESS = '198.18.0.1';

export interface World {
  /** Address of servers in the peer namespace for a guest; through the emulated line, if there is one. */
  peerAddress(family: Family): string;
  /** Set up an emulated line between host and peer, in place of an existing one. null: remove it. */
  useLine(line: Line | null): Promise<void>;
  /** Prefix a command so that it runs in the host namespace as a user without privileges. */
  asUser(argv: Argv): Argv;
  /** Prefix a command so that it runs in the peer namespace. */
  inPeer(argv: Argv): Argv;
  /** Prefix a command so that it runs as root of the namespaces of a guest process. */
  inGuest(pid: number, argv: Argv): Argv;
}

/** Start a `sleep` that holds new namespaces. @returns its pid, once it is in them */
export async function holdNamespaces(argv: Argv, kind: 'net' | 'user'): Promise<number> {
  const ours = namespaceOf('self', kind);
  const daemon = new Daemon(argv);
  return until(argv.join(' '), 5000, () => {
    if (!daemon.running) throw new Error(`${argv.join(' ')}: ${daemon.output}`);
    const theirs = namespaceOf(daemon.pid, kind);
    return theirs !== '' && theirs !== ours && commandLine(daemon.pid).startsWith('sleep ')
      ? daemon.pid
      : null;
  });
}

export async function buildWorld(tcpWmem: string | null): Promise<World> {
  const peer = await holdNamespaces(['unshare', '-n', 'sleep', 'infinity'], 'net');
  const user = await holdNamespaces(
    ['unshare', '-U', `--map-user=${HOST_UID}`, `--map-group=${HOST_UID}`, 'sleep', 'infinity'],
    'user',
  );
  const inPeer = (argv: Argv): Argv => ['nsenter', '-t', `${peer}`, '-n', ...argv];
  // Ping sockets: gid 0 here is the caller's own group, the only one that is mapped in this namespace.
  writeFileSync('/proc/sys/net/ipv4/ping_group_range', '0 0');

  // Short connections use ports faster than TIME-WAIT releases them.
  writeFileSync('/proc/sys/net/ipv4/ip_local_port_range', '10000 65000');
  if (tcpWmem !== null) writeFileSync('/proc/sys/net/ipv4/tcp_wmem', tcpWmem);
  const ip = (text: string) => must(['ip', ...text.split(' ')]);
  const peerIp = (text: string) => must(inPeer(['ip', ...text.split(' ')]));

  await ip('link set lo up');
  await peerIp('link set lo up');
  await ip(`link add veth0 mtu 1500 type veth peer name veth0 netns ${peer}`);
  await ip('addr add 198.18.0.1/24 dev veth0');
  await ip('addr add 2001:2::1/64 dev veth0 nodad');
  await peerIp('addr add 198.18.0.2/24 dev veth0');
  await peerIp('addr add 198.18.0.254/24 dev veth0');
  await peerIp('addr add 2001:2::2/64 dev veth0 nodad');
  await peerIp('addr add 2001:2::fe/64 dev veth0 nodad preferred_lft 0');
  await ip('link set veth0 up');
  await peerIp('link set veth0 up');
  await linkRoutes('veth0', '198.18.0', '2001:2::', ip, peerIp);
  await ip(`route add default via 198.18.0.254 congctl ${CONGESTION_CONTROL}`);
  await ip(`-6 route add default via 2001:2::fe dev veth0 congctl ${CONGESTION_CONTROL}`);
  await noTentative(ip, peerIp);

  let emulator: Daemon | null = null;
  let laid: Line | null = null;
  return {
    peerAddress: (family) =>
      laid === null
        ? family === 6
          ? '2001:2::2'
          : '198.18.0.2'
        : family === 6
          ? '2001:2:0:1::2'
          : '198.18.1.2',
    async useLine(line) {
      if (line === laid) return;
      await emulator?.stop();
      emulator = null;
      laid = null;
      if (line === null) return;
      emulator = await startLine(line, peer, ip, peerIp);
      await linkRoutes('line0', '198.18.1', '2001:2:0:1::', ip, peerIp);
      await noTentative(ip, peerIp);
      laid = line;
    },
    inPeer,
    asUser: (argv) => ['nsenter', '--preserve-credentials', '-U', '-t', `${user}`, ...argv],
    inGuest: (pid, argv) => ['nsenter', '--preserve-credentials', '-U', '-n', '-t', `${pid}`, ...argv],
  };
}

type Ip = (text: string) => Promise<string>;

/**
 * Wait until no IPv6 address is tentative: before duplicate address detection ends, bind and connect may
 * fail.
 */
async function noTentative(ip: Ip, peerIp: Ip): Promise<void> {
  await until('IPv6 addresses', 8000, async () => {
    const tentative = (await ip('-6 addr show tentative')) + (await peerIp('-6 addr show tentative'));
    if (tentative.trim() === '') return true;
    await sleep(80);
    return null;
  });
}

/**
 * Set the congestion control by route. The sysctl of a namespace accepts only algorithms that the
 * administrator has allowed for everybody; routes may name any algorithm that the kernel has.
 */
async function linkRoutes(device: string, four: string, six: string, ip: Ip, peerIp: Ip): Promise<void> {
  await ip(`route replace ${four}.0/24 dev ${device} src ${four}.1 congctl ${CONGESTION_CONTROL}`);
  await peerIp(`route replace ${four}.0/24 dev ${device} src ${four}.2 congctl ${CONGESTION_CONTROL}`);
  await ip(`-6 route replace ${six}/64 dev ${device} metric 256 congctl ${CONGESTION_CONTROL}`);
  await peerIp(`-6 route replace ${six}/64 dev ${device} metric 256 congctl ${CONGESTION_CONTROL}`);
}

async function startLine(line: Line, peer: number, ip: Ip, peerIp: Ip): Promise<Daemon> {
  const { delayMs, rateMbit, queueKib, lossPercent } = line;
  const daemon = new Daemon([
    ...programWords('line-emulator'),
    ...[delayMs, rateMbit, queueKib, lossPercent].map(String),
  ]);
  await until('the line emulator', 5000, () => {
    if (!daemon.running) throw new Error(`line emulator: ${daemon.output}`);
    return daemon.output.includes('line: up') ? true : null;
  });
  await ip(`link set line1 netns ${peer} name line0`);
  for (const [end, at] of [
    [1, ip],
    [2, peerIp],
  ] as const) {
    await at('link set line0 mtu 1500 txqueuelen 10000 up');
    await at(`addr add 198.18.1.${end}/24 dev line0`);
    await at(`addr add 2001:2:0:1::${end}/64 dev line0 nodad`);
  }
  return daemon;
}

/** Why the namespaces that the harness needs cannot be created, or null when they can. */
export async function namespacesForbidden(): Promise<string | null> {
  const { status, stderr } = await run(['unshare', '-Urnm', 'true']);
  if (status === 0) return null;
  return `user namespaces are not available (unshare -Urnm: ${stderr.trim()}); bin/bucatini doctor names the remedy`;
}
