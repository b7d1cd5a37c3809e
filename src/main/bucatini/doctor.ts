// bundle: rare
/**
 * `bucatini doctor`: tries everything that bucatini needs or uses, and prints one line for each check, with
 * the remedy.
 *
 *   ok     works
 *   note   missing; traffic flows, but the named feature is lost
 *   FAIL   missing; `bucatini run` cannot work, and the exit status is 1
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { availableParallelism, release } from 'node:os';
import { programCommand } from '#runtime/program';
import { kernelAtLeast } from '../../sys/kernel-version.ts';
import type { ThreadsPlan } from '../../workers/engine-plan.ts';
import { multicastPlan } from '../host/group-limit.ts';
import { readResolvConf } from '../host/resolv-conf.ts';
import { ownThreads } from '../host/threads.ts';
import { findProgram } from '../process/command.ts';
import { print } from '../process/output.ts';
import { whyNotSwitched } from '../switching/landlock-support.ts';
import type { ProbeReport } from './doctor-probe.ts';
import { type Finding, fail, note, ok } from './finding.ts';
import { tryFeatures } from './kernel-features.ts';
import { hasIpv6 } from './netns-setup.ts';
import { runtimeChoice } from './runtime-choice.ts';

/**
 * Print the result of each check.
 * @param container  examine this container instead of the host
 * @param env        the caller's
 * @returns the exit status
 */
export async function doctor(container: string | undefined, env: NodeJS.ProcessEnv): Promise<number> {
  const findings =
    container === undefined
      ? examine()
      : (await import('./container-doctor.ts')).examineContainer(container, env);
  let broken = 0;
  for (const { grade, subject, text } of findings) {
    print(`${grade.padEnd(6)}${subject.padEnd(18)}${text}\n`);
    if (grade === 'FAIL') broken++;
  }
  print(`\n${container === undefined ? hostVerdict(broken) : containerVerdict(broken)}\n`);
  return broken === 0 ? 0 : 1;
}

const saying = (broken: number): string =>
  `${broken} of the checks above ${broken === 1 ? 'says' : 'say'} FAIL.`;
const hostVerdict = (broken: number): string =>
  broken === 0
    ? 'bucatini run works on this host.'
    : `bucatini run cannot work on this host: ${saying(broken)}`;
const containerVerdict = (broken: number): string =>
  broken === 0 ? 'No fault found in the network of this container.' : saying(broken);

/** Do the checks in turn. A check may take a while, so each result is yielded at once. */
export function* examine(): Generator<Finding> {
  yield checkKernel();
  yield ok('runtime', `${runtimeChoice()}, ${process.execPath}`);
  const tools = checkTools();
  yield tools;
  yield checkEnv();
  const userns =
    tools.grade === 'FAIL' ? fail('user namespaces', 'not tried: unshare is missing') : checkUserNamespaces();
  yield userns;
  yield checkTunDevice();
  if (userns.grade !== 'FAIL') yield* checkTap(userns.grade === 'ok' ? '-Urn' : '-n');
  yield* checkFeatures();
  yield checkIpv6();
  yield checkResolvers();
  yield checkPorts();
  yield checkMulticast();
  yield checkSwitching(whyNotSwitched() ?? whyNotReached(readTrimmed(PTRACE_SCOPE)));
  yield ok('packet threads', threadsText(ownThreads(), availableParallelism()));
}

/** The plan of `--threads auto`. @param processors  that this process may use */
export function threadsText(threads: ThreadsPlan, processors: number): string {
  const most = threads.kind === 'lanes' ? `, up to ${threads.lanes} under load` : '';
  return `one${most} (${processors} ${processors === 1 ? 'processor' : 'processors'})`;
}

const PORT_START = '/proc/sys/net/ipv4/ip_unprivileged_port_start';

function checkPorts(): Finding {
  const start = Number(readTrimmed(PORT_START) || 1024);
  if (start <= 80 || process.getuid!() === 0)
    return ok('ports', `may be published from ${Math.max(start, 1)} on`);
  return note(
    'ports',
    `may be published from ${start} on; for lower ones, as root: sysctl -w net.ipv4.ip_unprivileged_port_start=80`,
  );
}

/** What --multicast would do: it is the one option that opens the discovery of a network to the namespace. */
function checkMulticast(): Finding {
  const { maxGroups } = multicastPlan({ all: true, groups: [] })!;
  return ok(
    'multicast',
    `dropped unless --multicast is given, which opens the discovery of this host's network to the namespace; then up to ${maxGroups} groups (net.ipv4.igmp_max_memberships)`,
  );
}

/**
 * What --switch-sockets would do.
 * @param why  it would be refused
 */
export function checkSwitching(why: string | undefined): Finding {
  if (why === undefined)
    return ok(
      'socket switching',
      "works, if --switch-sockets is given: TCP to the world at the host's own speed (Landlock)",
    );
  return note('socket switching', `${why}: --switch-sockets is refused, TCP takes the TAP`);
}

const PTRACE_SCOPE = '/proc/sys/kernel/yama/ptrace_scope';

/** Why the supervisor could not reach the descriptors of COMMAND. @param scope  undefined: without Yama */
export const whyNotReached = (scope: string | undefined): string | undefined =>
  scope === '3' ? 'kernel.yama.ptrace_scope is 3, until the next boot' : undefined;

const KERNEL_FLOOR = [5, 3] as const; // pidfd_open(2)

function checkKernel(): Finding {
  if (kernelAtLeast(...KERNEL_FLOOR)) return ok('kernel', release());
  return note(
    'kernel',
    `${release()}: bucatini is not tested on kernels older than ${KERNEL_FLOOR.join('.')}`,
  );
}

/** The env of coreutils 8.31 (2019) has the options; other implementations of env have not. */
function checkEnv(): Finding {
  const works = spawnSync('env', ['--default-signal=INT', '--ignore-signal=HUP', 'true']).status === 0;
  return works
    ? ok('coreutils', 'env sets signals')
    : fail('coreutils', 'env has no option --default-signal; install coreutils 8.31 or later');
}

function checkTools(): Finding {
  const missing = ['unshare', 'nsenter', 'setpriv'].filter((name) => {
    try {
      findProgram(name, `/usr/bin:/bin:/usr/sbin:/sbin:${process.env.PATH ?? ''}`);
      return false;
    } catch {
      return true;
    }
  });
  if (missing.length === 0) return ok('util-linux', 'unshare, nsenter, setpriv');
  const text = `${missing.join(', ')} missing; install the package util-linux`;
  if (missing.includes('unshare')) return fail('util-linux', text);
  // run needs neither; attach and slirp4netns may need nsenter, and pasta as root setpriv.
  return note('util-linux', text);
}

/**
 * Settings that forbid user namespaces, the most certain first: path, forbidding value, remedy for an
 * administrator.
 */
const USERNS_SWITCHES = [
  ['user/max_user_namespaces', '0', 'sysctl -w user.max_user_namespaces=15000'],
  ['kernel/unprivileged_userns_clone', '0', 'sysctl -w kernel.unprivileged_userns_clone=1'],
  [
    'kernel/apparmor_restrict_unprivileged_userns',
    '1',
    'install the profile in docs/install.md, for bucatini alone, or for all programs: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0',
  ],
] as const;

function checkUserNamespaces(): Finding {
  const tried = spawnSync('unshare', ['-Ur', '-m', '--', '/bin/sh', '-c', ':'], { encoding: 'utf8' });
  if (tried.status === 0) return ok('user namespaces', 'created one');
  if (spawnSync('unshare', ['-m', '--', '/bin/sh', '-c', ':']).status === 0) {
    return note(
      'user namespaces',
      'refused, but this user needs none: COMMAND runs with the privileges of this user',
    );
  }
  const why = tried.stderr.trim().replaceAll('\n', ' ') || 'refused';
  for (const [path, off, remedy] of USERNS_SWITCHES) {
    if (readTrimmed(`/proc/sys/${path}`) === off) {
      return fail('user namespaces', `${path.replaceAll('/', '.')} is ${off} (${why}); as root: ${remedy}`);
    }
  }
  return fail(
    'user namespaces',
    `${why}; inside a container its seccomp profile must allow them (podman or docker: --security-opt seccomp=unconfined)`,
  );
}

function checkTunDevice(): Finding {
  const path = '/dev/net/tun';
  if (!existsSync(path))
    return fail(path, 'missing; as root: modprobe tun (in a container: --device /dev/net/tun)');
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return ok(path, 'can be opened');
  } catch {
    return fail(path, 'permission denied; as root: chmod 0666 /dev/net/tun');
  }
}

/**
 * Make a real TAP in a namespace of its own.
 * @param namespaces  options of unshare
 */
function checkTap(namespaces: string): Finding[] {
  const probe = programCommand('bucatini/doctor-probe', 'main/bucatini/doctor-probe');
  const ran = spawnSync('unshare', [namespaces, '-m', '--', ...probe], { encoding: 'utf8' });
  let report: ProbeReport;
  try {
    report = JSON.parse(ran.stdout) as ProbeReport;
  } catch {
    return [fail('TAP', `the probe ended with status ${ran.status}: ${ran.stderr.trim().split('\n')[0]}`)];
  }
  if (report.error !== undefined) return [fail('TAP', report.error)];
  const findings = [ok('TAP', 'created one in a new namespace')];
  findings.push(
    report.vnetHeader && report.tso
      ? ok('offloads', 'vnet header, checksums and TCP segmentation (TSO4, TSO6)')
      : note(
          'offloads',
          'this kernel has no vnet header or no TSO on a TAP: one frame for each TCP segment, much slower',
        ),
    report.uso
      ? ok('UDP offload', 'USO4, USO6')
      : note('UDP offload', 'no USO on a TAP (needs Linux 6.2): one frame for each datagram, slower UDP'),
  );
  if (report.sysctl !== undefined)
    findings.push(note('sysctls inside', `${report.sysctl}: IPv6 may take a second to start`));
  return findings;
}

function checkFeatures(): Finding[] {
  const features = tryFeatures();
  return [
    features.tcpPeekOffset
      ? ok('SO_PEEK_OFF', 'works on TCP')
      : note('SO_PEEK_OFF', 'not on TCP sockets (needs Linux 6.10): downloads are read twice, slower'),
    features.udpSegment && features.udpGro
      ? ok('UDP batching', 'UDP_SEGMENT, UDP_GRO')
      : note(
          'UDP batching',
          'UDP_SEGMENT (Linux 4.18) or UDP_GRO (5.0) is missing: one system call for each datagram',
        ),
    features.ping4
      ? ok(
          'ping sockets',
          `net.ipv4.ping_group_range is ${readTrimmed('/proc/sys/net/ipv4/ping_group_range')?.replace(/\s+/, ' ')}`,
        )
      : note(
          'ping sockets',
          'ping from inside does not leave the host; as root: sysctl -w net.ipv4.ping_group_range="0 2147483647"',
        ),
  ];
}

function checkIpv6(): Finding {
  if (!hasIpv6()) return note('IPv6', 'disabled on this host: only IPv4 inside');
  return ok('IPv6', 'available');
}

function checkResolvers(): Finding {
  const list = readResolvConf()?.nameservers ?? [];
  if (list.length > 0) return ok('DNS', `forwarded to ${list.join(', ')}`);
  return note('DNS', '/etc/resolv.conf names no resolver: names do not resolve inside; write --dns ADDR');
}

function readTrimmed(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}
