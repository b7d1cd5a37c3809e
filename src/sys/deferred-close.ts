/**
 * Descriptors whose last close takes long, left to the kernel at the end of the process. To close a TAP is to
 * unregister its interface, which waits for several RCU grace periods: 15 to 20 ms that whoever waits for the
 * process waits too.
 *
 * A message in the queue of a socket that only this message keeps open is garbage, and the kernel's collector
 * for UNIX sockets (net/unix/garbage.c) closes what it carries. Since Linux 6.9 a worker of the kernel's does
 * that, before it was the closing process, as without all this.
 *
 *   [ one ] ── message: other, fd ──▶ [ queue of other ]      at exit: nothing is left but the message
 *
 * A stream pair: a datagram socket, connected or not, sends to whatever address it is told, and in the
 * sandbox there is to be no way to the host's abstract UNIX sockets.
 *
 * Only for what nobody can notice: of a namespace that ends with us. Not before the end: a message on its way
 * has the collector look whenever a UNIX socket is closed anywhere on the host.
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

/** Made at the start: in the sandbox no such pair can be had. */
export class DeferredClose {
  /** Both ends; negative: there is none. */
  readonly #ends = new NativeBuffer(8);
  readonly #message = new NativeBuffer(CONTROL_AT + CONTROL_BYTES + 8);

  constructor() {
    const r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, this.#ends.address);
    if (r < 0) this.#ends.i32.fill(-1);
  }

  /**
   * The process exits next: see to it that fd is closed after it.
   * @returns 0, or -errno: the process will wait for the close, as ever
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
