/**
 * Puts this process under the seccomp filter of bypass4netns's profile and executes a program, as crun does
 * with a profile that has a listenerPath: the agent gets the listener and the state of the container (OCI
 * runtime specification, "The Container Process State").
 */
import { cmsgLen, cmsgSpace, cmsgWrite } from '../../../src/sys/cmsg.ts';
import { AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET } from '../../../src/sys/constants.ts';
import { checked } from '../../../src/sys/error.ts';
import { unixAddress } from '../../../src/sys/frame-socket.ts';
import { syscall4 } from '../../../src/sys/libc.ts';
import { NativeBuffer } from '../../../src/sys/memory.ts';
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
import {
  connect,
  IOVEC_BYTES,
  iovecWrite,
  MSGHDR_BYTES,
  msghdrControlWrite,
  msghdrWrite,
  sendmsg,
  socket,
} from '../../../src/sys/socket.ts';
import { executeProgram } from '../../../src/sys/spawn.ts';
import { syscallNumber } from '../../../src/sys/syscall-numbers.ts';

const FD_BYTES = 4;
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
  const data = new NativeBuffer(text.length);
  data.u8.set(text);
  const iovec = new NativeBuffer(IOVEC_BYTES);
  iovecWrite(iovec.u32, 0, data.address, text.length);
  const control = new NativeBuffer(cmsgSpace(FD_BYTES));
  cmsgWrite(control.u32, 0, SOL_SOCKET, SCM_RIGHTS, FD_BYTES);
  const message = new NativeBuffer(MSGHDR_BYTES);
  msghdrWrite(message.u32, 0, 0, 0, iovec.address, 1);
  msghdrControlWrite(message.u32, 0, control.address, cmsgLen(FD_BYTES));

  // From here to sendmsg() no call that is notified: nobody would answer it.
  const program = filter();
  const flags = SECCOMP_NEW_LISTENER | SECCOMP_SPEC_ALLOW;
  control.u32[4] = checked(
    syscall4(syscallNumber('seccomp'), SECCOMP_SET_MODE_FILTER, flags, program.address, 0),
    'seccomp',
    'SECCOMP_SET_MODE_FILTER',
  );
  checked(sendmsg(fd, message.address, 0), 'sendmsg', agent);
  throw new Error(`execve ${argv[0]}: ${executeProgram(argv[0] ?? '', argv, process.env)}`);
}
