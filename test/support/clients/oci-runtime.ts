/**
 * An OCI runtime, as far as its seccomp listener goes: `oci-runtime.ts SOCKET ID PID COMMAND...` loads the filter of
 * `run --switch-sockets`, sends its listener to the agent, and executes COMMAND in its own process. Run
 * it inside the container's namespaces. PID is the container's first process, as the agent sees it. With TWICE in the environment it sends the listener two times.
 */

import { switchFilter } from '../../../src/switch/filter.ts';
import { AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, SYS_seccomp } from '../../../src/sys/constants.ts';
import { sendDescriptors } from '../../../src/sys/descriptor-messages.ts';
import { checked } from '../../../src/sys/error.ts';
import { unixAddress } from '../../../src/sys/frame-socket.ts';
import { close } from '../../../src/sys/io.ts';
import { syscall4 } from '../../../src/sys/libc.ts';
import { EncodedFilter, SECCOMP_NEW_LISTENER, SECCOMP_SET_MODE_FILTER } from '../../../src/sys/seccomp.ts';
import { connect, socket } from '../../../src/sys/socket.ts';
import { executeProgram } from '../../../src/sys/spawn.ts';

const [path = '', id = '', processId = '', ...command] = process.argv.slice(2);

/** @param listener  -1: it is made */
function handOver(listener = -1): number {
  const fd = checked(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), 'socket', 'AF_UNIX');
  const { memory, bytes } = unixAddress(path);
  checked(connect(fd, memory.address, bytes), 'connect', path);
  const filter = new EncodedFilter(switchFilter());
  const made =
    listener >= 0
      ? listener
      : checked(
          syscall4(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_NEW_LISTENER, filter.address, 0),
          'seccomp',
          'SECCOMP_FILTER_FLAG_NEW_LISTENER',
        );
  const pid = Number(processId);
  const state = { ociVersion: '1.2.0', id, status: 'creating', pid, bundle: '/', annotations: {} };
  const message = { ociVersion: '1.2.0', fds: ['seccompFd'], pid, metadata: '', state };
  checked(sendDescriptors(fd, Buffer.from(JSON.stringify(message)), [made]), 'sendmsg', path);
  close(fd);
  return made;
}

const listener = handOver();
if (process.env.TWICE !== undefined) handOver(listener);
close(listener);
const errno = -executeProgram('/usr/bin/env', ['env', ...command], process.env); // env looks for it in PATH
throw new Error(`/usr/bin/env: errno ${errno}`);
