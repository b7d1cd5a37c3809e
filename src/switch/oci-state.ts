/**
 * The message by which an OCI runtime hands a seccomp listener over: a ContainerProcessState as JSON, with
 * descriptors that its field `fds` names in their order. Pure. Cold.
 *
 *     { "ociVersion": "1.0.2", "fds": ["seccompFd"], "pid": 4422, "metadata": "...",
 *       "state": { "ociVersion": "1.0.2", "id": "c1", "status": "creating", "pid": 4422, "bundle": "/..." } }
 *
 * bypass4netns's metadata is accepted and not used. Unknown fields are ignored, as the specification demands.
 * @source runtime-spec, config-linux.md#containerprocessstate
 */

/** Name of the listener among `fds`. */
const SECCOMP_FD = 'seccompFd';
/** A name is for people: longer ones are cut. */
const MAX_NAME_CHARS = 64;
/** A container id as Podman and Docker make them; their commands show the beginning. */
const LONG_ID = /^[0-9a-f]{64}$/;
const SHORT_ID_CHARS = 12;

/** What is used of the message. */
export interface ProcessState {
  /** Index of the listener among the descriptors. */
  readonly fdIndex: number;
  /** Container id, for messages and lists; printable ASCII only. */
  readonly name: string;
  /**
   * The container's first process; without it the one to which the filter was applied. 0: not known, as in crun's
   * message about an `exec`.
   */
  readonly processId: number;
}

/**
 * Whether bytes can be a complete message: it ends with "}". A message that ends with a blank is complete once
 * its sender closes the connection.
 */
export const mayBeComplete = (bytes: Uint8Array): boolean => bytes.at(-1) === 0x7d;

/**
 * Parse a message.
 * @param fdCount  descriptors that came with it
 * @returns why it is not a valid message, as a text; else what it says
 */
export function parseProcessState(text: string, fdCount: number): ProcessState | string {
  let message: unknown;
  try {
    message = JSON.parse(text);
  } catch {
    return 'is not JSON'; // also when it is nested too deeply
  }
  if (!isObject(message)) return 'is not a JSON object';
  const { fds, pid, state } = message;
  if (!Array.isArray(fds) || !fds.every((name) => typeof name === 'string')) return 'has no list "fds"';
  const fdIndex = fds.indexOf(SECCOMP_FD);
  if (fdIndex < 0) return `has no ${SECCOMP_FD} in "fds"`;
  if (fds.length !== fdCount) return `names ${fds.length} descriptors, but ${fdCount} came with it`;
  if (!isObject(state)) return 'has no "state"';
  const processId = [state.pid, pid].find(isProcessId) ?? 0;
  return { fdIndex, name: nameOf(state.id), processId };
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const isProcessId = (value: unknown): value is number =>
  Number.isSafeInteger(value) && (value as number) > 0 && (value as number) <= 0x7fff_ffff;

function nameOf(id: unknown): string {
  if (typeof id !== 'string' || id === '') return 'unnamed';
  const shown = LONG_ID.test(id) ? id.slice(0, SHORT_ID_CHARS) : id.slice(0, MAX_NAME_CHARS);
  // Also the name in a service manager's store (main/host/service-manager.ts): no colon.
  return shown.replace(/[^!-9;-~]/g, '_');
}
