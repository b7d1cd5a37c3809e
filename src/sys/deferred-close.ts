/**
 * A descriptor whose last close is slow, left to the kernel when the process exits. Closing a TAP unregisters
 * its interface, which waits for several RCU grace periods: 15 to 20 ms, and a process that waits for our
 * exit would wait for them too.
 *
 * The descriptor is sent in a message (SCM_RIGHTS) to a socket that, after our exit, only this message keeps
 * open. Such a message is garbage: the kernel's garbage collector for UNIX sockets (net/unix/garbage.c)
 * closes the descriptors in it. Since Linux 6.9 a kernel worker does that; in older kernels the exiting
 * process does it, so nothing is gained there.
 *
 *   [ one ] ── message: other, fd ──▶ [ queue of other ]      after the exit only the message is left
 *
 * The pair is of stream sockets: a datagram socket can send to any address, even when it is connected, and
 * code in the sandbox must not reach the host's abstract UNIX sockets.
 *
 * Use it only for a descriptor whose late close nobody can observe: one of a namespace that ends with this
 * process. Use it only immediately before the exit: while such a message is queued, the collector runs
 * whenever a UNIX socket is closed anywhere on the host.
 * @syscalls socketpair sendmsg
 */

import { CMSG_HEADER_BYTES, cmsgSpace, cmsgWrite } from './cmsg.ts';
import { AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET } from './constants.ts';
import { NativeBuffer } from './memory.ts';
import {
  IOVEC_BYTES,
  iovecWrite,
  MSGHDR_BYTES,
  msghdrControlWrite,
  msghdrWrite,
  sendmsg,
  socketpair,
} from './socket.ts';

const FDS = 2;
const IOV_AT = MSGHDR_BYTES;
const CONTROL_AT = IOV_AT + IOVEC_BYTES;
const CONTROL_BYTES = cmsgSpace(FDS * 4);

/** A socket pair for one deferred close. It is created before the sandbox, which forbids socketpair(2). */
export class DeferredClose {
  /** Descriptors of both ends; negative when the pair could not be created. */
  readonly #ends = new NativeBuffer(8);
  readonly #message = new NativeBuffer(CONTROL_AT + CONTROL_BYTES + 8);

  constructor() {
    const r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, this.#ends.address);
    if (r < 0) this.#ends.i32.fill(-1);
  }

  /**
   * Have the kernel close `fd` after the exit of the process, which has to follow immediately.
   * @returns 0, or -errno: the exit then waits for the close
   */
  leave(fd: number): number {
    const [one = -1, other = -1] = this.#ends.i32;
    const { u32, address } = this.#message;
    const controlWord = CONTROL_AT >> 2;
    cmsgWrite(u32, controlWord, SOL_SOCKET, SCM_RIGHTS, FDS * 4);
    u32[controlWord + CMSG_HEADER_BYTES / 4] = other;
    u32[controlWord + CMSG_HEADER_BYTES / 4 + 1] = fd;
    iovecWrite(u32, IOV_AT >> 2, address, 1);
    msghdrWrite(u32, 0, 0, 0, address + IOV_AT, 1);
    msghdrControlWrite(u32, 0, address + CONTROL_AT, CMSG_HEADER_BYTES + FDS * 4);
    const r = sendmsg(one, address, 0);
    return r < 0 ? r : 0;
  }
}
