/**
 * Error queues of datagram sockets (man 7 ip, IP_RECVERR). The kernel queues each ICMP error with the
 * datagram that caused it; the error goes to the flow's shard. A queue is drained whenever epoll, a send or a
 * receive reports an error: as long as it holds one, they report it again.
 */
import { ICMP_BYTES, IcmpType, IcmpUnreachable } from '../../../proto/icmp.ts';
import { Icmp6Type } from '../../../proto/icmpv6.ts';
import { HEADROOM_BYTES, NO_SLOT } from '../../../ring/pool.ts';
import {
  CMSG_HEADER_BYTES,
  CMSG_LEVEL_WORD,
  CMSG_TYPE_WORD,
  cmsgDataBytes,
  cmsgNext,
  EE_CODE_AT,
  EE_INFO_AT,
  EE_OFFENDER_AT,
  EE_ORIGIN_AT,
  EE_TYPE_AT,
  SOCK_EXTENDED_ERR_BYTES,
} from '../../../sys/cmsg.ts';
import {
  Errno,
  IP_RECVERR,
  IPV6_RECVERR,
  MSG_DONTWAIT,
  MSG_ERRQUEUE,
  SO_EE_ORIGIN_ICMP,
  SO_EE_ORIGIN_ICMP6,
  SO_EE_ORIGIN_LOCAL,
  SOL_IP,
  SOL_IPV6,
} from '../../../sys/constants.ts';
import { NativeBuffer } from '../../../sys/memory.ts';
import {
  IOVEC_BYTES,
  iovecWrite,
  MSGHDR_BYTES,
  MSGHDR_CONTROLLEN_WORD,
  msghdrControlWrite,
  msghdrWrite,
  NAME_BYTES,
  recvmsg,
  SOCKADDR_BYTES,
  SOCKADDR_IN_BYTES,
  sockaddrRead,
} from '../../../sys/socket.ts';
import { icmpErrorWrite } from '../../link/to-shard.ts';
import type { HostContext, SocketId } from '../context.ts';
import { isIpv4Flow, isListener, isPing, type SocketTable } from './socket-table.ts';

/** Control buffer: room for a struct sock_extended_err and the offender's address. */
const ERROR_CONTROL_BYTES = 256;
/**
 * Bytes of the datagram that are read: the longest quote in an error to the guest (RFC 4443 section 2.4 (c)).
 * A multiple of 8: the control buffer behind stays aligned.
 */
const ERROR_DATA_BYTES = 1280;
/** Most errors that are read from one queue per round. SO_RCVBUF bounds the queue itself. */
const MAX_ERRORS_PER_ROUND = 256;

export class ErrorQueues {
  readonly #ctx: HostContext;
  readonly #table: SocketTable;
  /** By sid: 1: the error queue held more than MAX_ERRORS_PER_ROUND. */
  readonly more: Uint8Array;
  /** The last drain() found EMSGSIZE of this host: a datagram with DF is longer than the path MTU. */
  tooLong = false;
  readonly #error = new NativeBuffer(
    MSGHDR_BYTES + IOVEC_BYTES + ERROR_DATA_BYTES + ERROR_CONTROL_BYTES + NAME_BYTES,
  );
  /** Where the quoted datagram of the current error is in #error. */
  #quotedAt = 0;
  #quotedBytes = 0;
  readonly #words = new Uint32Array(4);

  constructor(ctx: HostContext, table: SocketTable) {
    this.#ctx = ctx;
    this.#table = table;
    this.more = new Uint8Array(table.fd.length);
  }

  /** Read all errors of the socket's queue and pass them to the shards. @returns how many there were */
  drain(sid: SocketId): number {
    const table = this.#table;
    const fd = table.fd.get(sid);
    if (fd < 0 || isListener(table.kind[sid]!)) return 0;
    this.more[sid] = 0;
    this.tooLong = false;
    const e = this.#error;
    const iovAt = MSGHDR_BYTES;
    const dataAt = iovAt + IOVEC_BYTES;
    const controlAt = dataAt + ERROR_DATA_BYTES;
    const nameAt = controlAt + ERROR_CONTROL_BYTES;
    const name = e.address + nameAt;
    const only = table.onlyFlow(sid);
    for (let count = 0; ; count++) {
      if (count === MAX_ERRORS_PER_ROUND) {
        this.more[sid] = 1;
        this.#ctx.markReady(sid);
        return count;
      }
      iovecWrite(e.u32, iovAt >> 2, e.address + dataAt, ERROR_DATA_BYTES);
      const control = e.address + controlAt;
      msghdrWrite(e.u32, 0, name, SOCKADDR_BYTES, e.address + iovAt, 1);
      msghdrControlWrite(e.u32, 0, control, ERROR_CONTROL_BYTES);
      const n = recvmsg(fd, e.address, MSG_ERRQUEUE | MSG_DONTWAIT);
      if (n < 0) return count;
      // msg_name is the destination of the datagram (man 7 ip, IP_RECVERR). Its flow may have ended.
      const gid = only >= 0 ? only : this.#flowOfName(sid, nameAt);
      if (gid >= 0) this.#onError(gid, controlAt, e.u32[MSGHDR_CONTROLLEN_WORD]!, dataAt, n);
    }
  }

  /** @param nameAt  sockaddr in #error @returns gid of the endpoint's flow with that peer, or -1 */
  #flowOfName(sid: SocketId, nameAt: number): number {
    const table = this.#table;
    const port = sockaddrRead(this.#error.u8, nameAt, this.#words, 0);
    return port < 0 ? -1 : table.endpoints!.flowOf(table.endpointOf(sid), this.#words, 0, port);
  }

  /** One message of the error queue. @param controlAt,dataAt  byte offsets in #error */
  #onError(gid: number, controlAt: number, controlBytes: number, dataAt: number, dataBytes: number): void {
    const table = this.#table;
    const { u8, u32 } = this.#error;
    let at = controlAt >> 2;
    const end = at + (controlBytes >> 2);
    for (let n = cmsgDataBytes(u32, at, end); n >= 0; n = cmsgDataBytes(u32, at, end)) {
      const level = u32[at + CMSG_LEVEL_WORD];
      const type = u32[at + CMSG_TYPE_WORD];
      const isError =
        (level === SOL_IP && type === IP_RECVERR) || (level === SOL_IPV6 && type === IPV6_RECVERR);
      if (isError && n >= SOCK_EXTENDED_ERR_BYTES) {
        const errorAt = at * 4 + CMSG_HEADER_BYTES;
        const offender = n >= EE_OFFENDER_AT + SOCKADDR_IN_BYTES ? errorAt + EE_OFFENDER_AT : -1;
        // A ping socket's queue holds the echo request: by its sequence number the guest knows which one.
        const sequence = dataBytes >= 8 ? (u8[dataAt + 6]! << 8) | u8[dataAt + 7]! : 0;
        const headerBytes = isPing(table.kind[gid]!) ? ICMP_BYTES : 0;
        this.#quotedAt = dataAt + headerBytes;
        this.#quotedBytes = Math.max(0, dataBytes - headerBytes);
        this.#onExtendedError(gid, errorAt, offender, sequence);
        return;
      }
      at = cmsgNext(at, n);
    }
  }

  /**
   * @param errorAt  byte offset of the struct sock_extended_err in #error
   * @param offenderAt  byte offset of its SO_EE_OFFENDER, -1: none
   * @param sequence  of an echo request, else meaningless
   */
  #onExtendedError(gid: number, errorAt: number, offenderAt: number, sequence: number): void {
    const table = this.#table;
    const { u8, u32 } = this.#error;
    const errno = u32[errorAt >> 2]!;
    const origin = u8[errorAt + EE_ORIGIN_AT];
    const info = u32[(errorAt + EE_INFO_AT) >> 2]!;
    const isV4 = isIpv4Flow(table.kind[gid]!);
    let typeCode = 0;
    if (origin === SO_EE_ORIGIN_ICMP || origin === SO_EE_ORIGIN_ICMP6) {
      typeCode = (u8[errorAt + EE_TYPE_AT]! << 8) | u8[errorAt + EE_CODE_AT]!;
    } else if (origin === SO_EE_ORIGIN_LOCAL && errno === Errno.EMSGSIZE) {
      this.tooLong = true;
      typeCode = isV4
        ? (IcmpType.unreachable << 8) | IcmpUnreachable.fragmentationNeeded
        : Icmp6Type.packetTooBig << 8;
    }
    const words = this.#words;
    words.fill(0, 0, 4);
    if (offenderAt >= 0 && origin !== SO_EE_ORIGIN_LOCAL) sockaddrRead(u8, offenderAt, words, 0);
    this.#pass(gid, typeCode, info, errno, sequence);
  }

  /** Pass the errno of a failed send for which the error queue has no entry. @param errno  above zero */
  passErrno(gid: number, errno: number): void {
    this.#words.fill(0, 0, 4);
    this.#quotedBytes = 0;
    this.#pass(gid, 0, 0, errno, 0);
  }

  /** Send ToShard.icmpError. The sender of the ICMP message is in this.#words[0..3]; zeros: none. */
  #pass(gid: number, typeCode: number, info: number, errno: number, sequence: number): void {
    const ctx = this.#ctx;
    const bytes = this.#quotedBytes;
    const slot = bytes > 0 ? ctx.smallSlots.pop() : NO_SLOT;
    if (slot !== NO_SLOT) {
      // Not the hot path: at most one error per datagram.
      const quoted = this.#error.u8.subarray(this.#quotedAt, this.#quotedAt + bytes);
      ctx.u8.set(quoted, ctx.pool.slotAt(slot) + HEADROOM_BYTES);
    }
    icmpErrorWrite(
      ctx.toShard(gid),
      gid % ctx.flowsPerShard,
      typeCode,
      info,
      errno,
      sequence,
      this.#words,
      slot,
      HEADROOM_BYTES,
      bytes,
    );
  }
}
