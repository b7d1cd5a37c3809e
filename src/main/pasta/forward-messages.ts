/**
 * Messages of the port options, with exactly passt's wording: callers match on them (Podman's tests look for
 * "ddress already in use"). Each entry was copied from what passt 2026-10-02 (0.0~git20261002.cba3570) prints
 * for a command line that causes it.
 */
export const ForwardMessage = {
  /** -t x, -t 80-70, -t 80:90-91: the text after the address part. */
  invalidSpec: (spec: string): string => `Invalid port specifier '${spec}'`,
  /** -t 80 -t none */
  noneConflicts: (option: string): string => `${option} none conflicts with previous options`,
  /** -T 127.0.0.1/80 */
  addressNotAllowed: (option: string, spec: string): string =>
    `Listening address not allowed for ${option} ${spec}`,
  /** -t 0 */
  fromPortZero: 'Forwarding rule attempts to map from port 0',
  /** -t 80:0 */
  toPortZero: 'Forwarding rule attempts to map to port 0',
  /** --no-tcp -t 80 */
  protocolOff: (proto: string): string => `Can't add ${proto} forwarding rule, ${proto} not enabled`,
  /** -4 -t ::1/80 */
  familyOff: (family: number): string => `IPv${family} forward, but IPv${family} not enabled`,
  /** -t 80:192.0.2.7 */
  dualStack: (family: number, target: string): string =>
    `Dual stack forward to IPv${family} address ${target} unsupported\n` +
    `Did you mean ${family === 4 ? '0.0.0.0' : '::'}/... instead?`,
  /** -t ::/80:192.0.2.7 */
  crossFamily: (from: number, address: string, to: number, target: string): string =>
    `Forward from IPv${from} (${address}) to IPv${to} (${target}) unsupported`,
  /** -t 80 -t 127.0.0.1/80 */
  conflict: (rule: string, other: string): string =>
    `Forwarding configuration conflict: ${rule} versus ${other}`,
  /** Last line of every message about a refused rule. */
  unableToAdd: (rule: string): string => `Unable to add rule ${rule}`,
  /** -t 0.0.0.0/80:224.0.0.1 */
  multicastTarget: (target: string): string => `Multicast target address ${target} for forwarding rule`,
  tooManyRules: (most: number): string => `Too many rules (maximum ${most})`,
  tooManyListeners: (most: number): string => `Too many listening sockets (maximum ${most})`,
  /** A port of a rule that is not "best effort" cannot be bound. */
  listenFailed: (table: string, proto: string, where: string, reason: string): string =>
    `Listen failed for ${table} ${proto} port ${where}: ${reason}`,
  /** No port of a "best effort" rule can be bound. */
  allListensFailed: (table: string, proto: string, where: string): string =>
    `All listens failed for ${table} ${proto} ${where}`,
  /** Last line of both. */
  couldNotListen: "Couldn't listen on requested ports",
} as const;
