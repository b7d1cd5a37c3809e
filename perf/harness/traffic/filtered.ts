/**
 * Puts this process under the seccomp filter of bypass4netns's profile and executes a program, as crun does
 * with a profile that has a listenerPath: the agent gets the listener and the state of the container (OCI
 * runtime specification, "The Container Process State").
 */
import { AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM } from '../../../src/sys/constants.ts';
import { sendDescriptors } from '../../../src/sys/descriptor-messages.ts';
import { checked } from '../../../src/sys/error.ts';
import { unixAddress } from '../../../src/sys/frame-socket.ts';
import { syscall4 } from '../../../src/sys/libc.ts';
import {
  ARCH_AT,
  AUDIT_ARCH,
  BPF,
  EncodedFilter,
  type Instruction,
  NR_AT,
  RET_ALLOW,
  RET_USER_NOTIF,
  SECCOMP_NEW_LISTENER,
  SECCOMP_SET_MODE_FILTER,
  SECCOMP_SPEC_ALLOW,
} from '../../../src/sys/seccomp.ts';
import { connect, socket } from '../../../src/sys/socket.ts';
import { executeProgram } from '../../../src/sys/spawn.ts';
import { syscallNumber } from '../../../src/sys/syscall-numbers.ts';

/** What bypass4netns 0.4 has in its profile (pkg/oci/oci.go). */
const NOTIFIED = [
  ...(['bind', 'close', 'connect', 'setsockopt'] as const),
  ...(['fcntl', 'exit', 'exit_group', 'getpeername'] as const),
];

function filter(): EncodedFilter {
  const notify = NOTIFIED.map(
    (call, i): Instruction => [BPF.JEQ, NOTIFIED.length - i, 0, syscallNumber(call)],
  );
  return new EncodedFilter([
    [BPF.LD, 0, 0, ARCH_AT],
    [BPF.JEQ, 0, NOTIFIED.length + 1, AUDIT_ARCH],
    [BPF.LD, 0, 0, NR_AT],
    ...notify,
    [BPF.RET, 0, 0, RET_ALLOW],
    [BPF.RET, 0, 0, RET_USER_NOTIF],
  ]);
}

/**
 * @param agent  path of the agent's socket
 * @param argv   the program, as a path, and its arguments
 * @throws SysError when a call fails; otherwise it does not return
 */
export function executeFiltered(agent: string, argv: readonly string[]): never {
  const fd = checked(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), 'socket', 'AF_UNIX');
  const to = unixAddress(agent);
  checked(connect(fd, to.memory.address, to.bytes), 'connect', agent);

  const { pid } = process;
  const ociVersion = '1.0.2';
  const container = { ociVersion, id: `harness-${pid}`, status: 'creating', pid, bundle: '/' };
  const text = new TextEncoder().encode(
    JSON.stringify({ ociVersion, fds: ['seccompFd'], pid, state: container }),
  );
  // From here to sendmsg() no call that is notified: nobody would answer it.
  const program = filter();
  const flags = SECCOMP_NEW_LISTENER | SECCOMP_SPEC_ALLOW;
  const listener = checked(
    syscall4(syscallNumber('seccomp'), SECCOMP_SET_MODE_FILTER, flags, program.address, 0),
    'seccomp',
    'SECCOMP_SET_MODE_FILTER',
  );
  checked(sendDescriptors(fd, text, [listener]), 'sendmsg', agent);
  throw new Error(`execve ${argv[0]}: ${executeProgram(argv[0] ?? '', argv, process.env)}`);
}
