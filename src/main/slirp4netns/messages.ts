/**
 * Messages of `slirp4netns`. Callers and their tests match on some of them (the test scripts of slirp4netns
 * 1.3, Podman, RootlessKit), so the texts must not change. The others are worded like those of slirp4netns,
 * so that users find them in its documentation.
 */
const MAC_FORM =
  "macaddress has to be a valid MAC address (hex string, 6 bytes, each byte separated by a ':').";

export const Message = {
  mtu: 'MTU must be a positive integer (< 65522)',
  descriptor: (option: string): string => `${option} must be a non-negative integer`,
  pid: 'PID must be a positive integer',
  path: 'existing path expected when --netns-type=path: No such file or directory',
  tapFd: 'TAPFD must a file descriptor',
  tapName: 'TAPNAME must not be empty',
  usernsPath: (path: string): string => `userns path doesn't exist: ${path}`,
  targetType: '--target-type must be either "netns" or "bess"',
  conflictsWithBess: (option: string): string => `--${option} conflicts with --target-type=bess`,
  bessExperimental: 'WARNING: BESS mode is experimental',
  bessPathTooLong: 'the specified BESS socket path is too long (>= 108)',
  bessFailed: (call: string, why: string): string => `child_bess: ${call}: ${why}`,
  bessWaiting: (path: string): string => `Waiting for connection to ${path}`,
  sentBess: (fd: number, path: string): string => `sent "tapfd"=${fd} (not really TAP) for ${path}`,
  macWithoutConfigure: '--macaddr cannot be specified when --configure or -c is not specified',
  mac: (text: string): string => `"${text}" is an invalid MAC address.\n${MAC_FORM}`,
  macTooLong: (text: string): string => `"${text}" is an invalid MAC address.  Is it too long?\n${MAC_FORM}`,
  cidr: (text: string): string => `invalid CIDR: ${text}`,
  cidrAddress: (text: string): string => `invalid network address: ${text}`,
  cidrPrefix: 'prefix length needs to be 1-25',
  /** The examples are fixed text: the original prints the same two for any input. */
  cidrHost: 'CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24',
  outbound4: 'outbound-addr has to be valid ipv4 address or interface name.',
  outbound6: 'outbound-addr has to be valid ipv6 address or interface name.',
  experimental: (what: string): string => `WARNING: Support for ${what} is experimental`,
  deprecated: (old: string, now: string): string =>
    `WARNING: ${old} is deprecated and will be removed in future releases, please use ${now} instead.`,
  tooManyArguments: 'WARNING: too many arguments',
  tooMany: 'too many arguments',
  sentTap: (fd: number, name: string): string => `sent tapfd=${fd} for ${name}`,
  receivedTap: (fd: number): string => `received tapfd=${fd}`,
  /** Last line, after an error inside the namespace. */
  childFailed: 'child failed(1)',
  noNetns: (path: string, why: string): string => `${path}: ${why}`,
  setns: (why: string): string => `setns(CLONE_NEWNET): ${why}`,
  tunsetiff: (why: string): string => `ioctl(TUNSETIFF): ${why}`,
  cannotSet: (what: 'MTU' | 'MAC address' | 'IPv4 address' | 'route', why: string): string =>
    `cannot set ${what}: ${why}`,
  socketPathTooLong: 'the specified API socket path is too long (>= 108)',
  bindFailed: (why: string): string => `api_bindlisten: bind: ${why}`,
  doSlirpFailed: 'do_slirp is exiting\ndo_slirp failed\nparent failed',
  exitFd: 'exitfd event',
  exiting: 'do_slirp is exiting',
  apiEvent: 'apifd event',
  apiTooLarge: 'api_handler: too large message (>= 4096 bytes)\napi_handler: rc=-1',
  apiRequest: (text: string): string => `api_handler: got request: ${text}`,
  hostLoopback: (gateway: string): string =>
    `WARNING: 127.0.0.1:* on the host is accessible as ${gateway} (set --disable-host-loopback to prohibit connecting to 127.0.0.1:*)`,
} as const;

/** A line of the banner; values start in column 20. */
export const bannerLine = (key: string, value: string): string => `* ${`${key}:`.padEnd(16)} ${value}`;
