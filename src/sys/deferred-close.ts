/**
 * Descriptors whose last close is slow, left to the kernel when the process exits. Closing a TAP unregisters
 * its interface, which waits for several RCU grace periods: 15 to 20 ms, and a process that waits for our
 * exit would wait for them too. Closing one of several queues of a TAP waits for one grace period.
 *
 * The descriptors are sent in a message (SCM_RIGHTS) to a socket that, after our exit, only this message keeps
 * open. Such a message is garbage: the kernel's garbage collector for UNIX sockets (net/unix/garbage.c)
 * closes the descriptors in it. Since Linux 6.9 a kernel worker does that; in older kernels the exiting
 * process does it, so nothing is gained there.
 *
 *   [ one ] ── message: other, fds ──▶ [ queue of other ]     after the exit only the message is left
 *
 * The pair is of stream sockets: a datagram socket can send to any address, even when it is connected, and
 * code in the sandbox must not reach the host's abstract UNIX sockets.
 *
 * Use it only for descriptors whose late close nobody can observe: one of a namespace that ends with this
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

const IOV_AT = MSGHDR_BYTES;
const CONTROL_AT = IOV_AT + IOVEC_BYTES;

/** A socket pair for deferred closes. It is created before the sandbox, which forbids socketpair(2). */
export class DeferredClose {
  /** Descriptors of both ends; negative when the pair could not be created. */
  readonly #ends = new NativeBuffer(8);

  constructor() {
    const r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, this.#ends.address);
    if (r < 0) this.#ends.i32.fill(-1);
  }

  /**
   * Have the kernel close `fds` after the exit of the process, which has to follow immediately.
   * @param fds  at most 252
   * @returns 0, or -errno: the exit then waits for the close
   */
  leave(fds: readonly number[]): number {
    const [one = -1, other = -1] = this.#ends.i32;
    const passed = [other, ...fds];
    const { u32, address } = new NativeBuffer(CONTROL_AT + cmsgSpace(passed.length * 4) + 8);
    const controlWord = CONTROL_AT >> 2;
    cmsgWrite(u32, controlWord, SOL_SOCKET, SCM_RIGHTS, passed.length * 4);
    u32.set(passed, controlWord + CMSG_HEADER_BYTES / 4);
    iovecWrite(u32, IOV_AT >> 2, address, 1);
    msghdrWrite(u32, 0, 0, 0, address + IOV_AT, 1);
    msghdrControlWrite(u32, 0, address + CONTROL_AT, CMSG_HEADER_BYTES + passed.length * 4);
    const r = sendmsg(one, address, 0);
    return r < 0 ? r : 0;
  }
}
