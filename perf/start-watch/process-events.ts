/**
 * What processes do, with the kernel's own times: fork, exec, new names and ends, from the process events
 * connector (<linux/cn_proc.h>, <linux/connector.h>). Nothing is added to the programs that are watched, and
 * none of them is stopped. Needs the initial network namespace, and root on kernels before 6.6.
 */
import {
  AF_NETLINK,
  MSG_DONTWAIT,
  SO_RCVBUF,
  SO_RCVTIMEO,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOL_SOCKET,
} from '../../src/sys/constants.ts';
import { checked } from '../../src/sys/error.ts';
import { close } from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import { bind, recv, sendto, setsockoptBytes, setsockoptInt, socket } from '../../src/sys/socket.ts';

const NETLINK_CONNECTOR = 11;
const CN_IDX_PROC = 1;
const CN_VAL_PROC = 1;
const PROC_CN_MCAST_LISTEN = 1;
const NLMSG_DONE = 3;
/** struct nlmsghdr 16 bytes, struct cn_msg 20; then struct proc_event: what u32, cpu u32, time u64, data. */
const EVENT_AT = 36;
const DATA_AT = EVENT_AT + 16;
const FORK = 1;
const EXEC = 2;
const COMM = 0x200;
const EXIT = 0x8000_0000;
const RECEIVE_BYTES = 4096;
const QUEUE_BYTES = 4 << 20;

/** `tid` and `pid` differ for a thread that is not its process's first. Times are of CLOCK_MONOTONIC. */
export type ProcessEvent = { readonly ms: number; readonly tid: number; readonly pid: number } & (
  | { readonly kind: 'fork'; readonly parentPid: number }
  | { readonly kind: 'exec' }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'exit' }
);

export class ProcessEvents {
  readonly #fd: number;
  readonly #buffer = new NativeBuffer(RECEIVE_BYTES);
  readonly #view = new DataView(this.#buffer.u8.buffer, this.#buffer.u8.byteOffset, RECEIVE_BYTES);

  /** @throws SysError */
  constructor() {
    this.#fd = checked(
      socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR),
      'socket',
      'NETLINK_CONNECTOR',
    );
    setsockoptInt(this.#fd, SOL_SOCKET, SO_RCVBUF, QUEUE_BYTES);
    const timeout = new NativeBuffer(16);
    timeout.u32[2] = 200_000; // µs: a look whether the process still runs, if events were lost
    setsockoptBytes(this.#fd, SOL_SOCKET, SO_RCVTIMEO, timeout.address, 16);
    const local = new NativeBuffer(12);
    local.u16[0] = AF_NETLINK;
    local.u32[2] = CN_IDX_PROC; // nl_groups
    checked(
      bind(this.#fd, local.address, 12),
      'bind',
      'the group of process events',
      'needs root or Linux 6.6',
    );
    const request = new NativeBuffer(40);
    request.u32.set([40, NLMSG_DONE, 0, 0, CN_IDX_PROC, CN_VAL_PROC, 1, 0, 4, PROC_CN_MCAST_LISTEN]);
    const kernel = new NativeBuffer(12);
    kernel.u16[0] = AF_NETLINK;
    checked(
      sendto(this.#fd, request.address, 40, 0, kernel.address, 12),
      'sendto',
      'PROC_CN_MCAST_LISTEN',
      'needs root or Linux 6.6',
    );
  }

  /** Wait for the next event of the machine. @returns undefined if none came in 200 ms */
  next(): ProcessEvent | undefined {
    for (;;) {
      const bytes = recv(this.#fd, this.#buffer.address, RECEIVE_BYTES, 0);
      if (bytes < 0) return undefined;
      const event = this.#parse();
      if (event !== undefined) return event;
    }
  }

  /** Forget the events so far. */
  drain(): void {
    while (recv(this.#fd, this.#buffer.address, RECEIVE_BYTES, MSG_DONTWAIT) > 0);
  }

  #parse(): ProcessEvent | undefined {
    const view = this.#view;
    const word = (i: number): number => view.getUint32(DATA_AT + 4 * i, true);
    const ms = Number(view.getBigUint64(EVENT_AT + 8, true)) / 1e6;
    switch (view.getUint32(EVENT_AT, true)) {
      case FORK:
        return { kind: 'fork', ms, parentPid: word(1), tid: word(2), pid: word(3) };
      case EXEC:
        return { kind: 'exec', ms, tid: word(0), pid: word(1) };
      case COMM: {
        const bytes = this.#buffer.u8.slice(DATA_AT + 8, DATA_AT + 24);
        const name = new TextDecoder().decode(bytes).replace(/\0.*$/s, '');
        return { kind: 'name', ms, tid: word(0), pid: word(1), name };
      }
      case EXIT:
        return { kind: 'exit', ms, tid: word(0), pid: word(1) };
      default:
        return undefined;
    }
  }

  close(): void {
    close(this.#fd);
  }
}
