/**
 * Messages of `pasta`. The comment of an entry names the callers that match on it: its text must not change.
 * The other entries are worded like those of passt's pasta, so that users find them in its documentation.
 */
export const Message = {
  /**
   * Podman (container-libs, common/libnetwork/pasta) retries without --map-guest-addr when this message names
   * that option.
   */
  usage: (program: string, error: string): string => `${program}: ${error}`,
  passtOnly: (option: string, mode: string): string => `${option} is for ${mode} mode only`,
  unsupported: (option: string, why: string): string => `${option}: not supported by this pasta (${why})`,
  fdNotOpen: (why: string): string => `Could not move --fd descriptor: ${why}`,
  fdUnusable: (fd: number, why: string): string => `--fd ${fd}: ${why}`,
  notWithFd: (option: string, why: string): string => `${option} does nothing with --fd: ${why}`,
  bothNetnsAndOperand: 'Both --netns and PID or command given',
  invalidPid: (pid: string): string => `Invalid PID ${pid}`,
  noNetns: (path: string, why: string): string => `Couldn't open network namespace ${path}: ${why}`,
  noUserns: (path: string, why: string): string => `Couldn't open user namespace ${path}: ${why}`,
  /** A second instance for the same namespace. Readers of Podman's log look for the text of the errno. */
  tapBusy: 'TUNSETIFF ioctl on /dev/net/tun failed: Device or resource busy',
  netnsGone: (path: string): string => `Namespace ${path} is gone, exiting`,
  cannotExecute: (why: string): string => `Failed to start command or shell: ${why}`,
  startedAsRoot: 'Started as root, will change to nobody.',
  mtuTooLarge: (mtu: bigint, max: number): string => `MTU ${mtu} too large (max ${max})`,
  mtuTooSmall: (mtu: number, family: 4 | 6, min: number): string =>
    `MTU ${mtu} is too small for IPv${family} (minimum ${min})`,
  cannotUseSearch: (domain: string): string => `Cannot use DNS search domain ${domain}`,
  noDomainName: (option: string, name: string): string => `${option} ${name}: no domain name, not offered`,
  hostnameUnusable: 'Unable to set configured hostname',
  controlSocket: (why: string): string => `Failed to bind UNIX domain socket: ${why}`,
  redundantPrefix: 'Redundant prefix length specification',
  localMode: (family: 4 | 6): string => `IPv${family}: no external interface as template, use local mode`,
  severalDefaults: (family: 4 | 6): string => `Multiple default IPv${family} routes, picked the first one`,
  noNameservers: "Couldn't get any nameserver address",
  outboundUnusable: 'External interface not usable',
  noIpv6Kernel: 'IPv6 not supported by kernel: disabled',
  noSuchInterface: (name: string): string => `Invalid interface name ${name}: No such device`,
  deprecated: (option: string): string => `${option} will be dropped soon`,
  needsConfigNet: (option: string): string => `${option} needs --config-net`,
  addressesFailed: (family: 4 | 6, why: string): string =>
    `Couldn't set IPv${family} address(es) in namespace: ${why}`,
  routesFailed: (family: 4 | 6, why: string): string => `Couldn't set IPv${family} route(s) in guest: ${why}`,
  pidFile: (path: string, why: string): string => `Couldn't open PID file ${path}: ${why}`,
  pidFull: (path: string, why: string): string => `--pid ${path}: cannot be written: ${why}`,
  logFull: (path: string, why: string): string => `--log-file ${path}: cannot be written: ${why}`,
  logFile: (path: string, why: string): string => `Couldn't open log file ${path}: ${why}`,
} as const;
