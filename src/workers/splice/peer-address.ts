/** Where a connected socket leads, asked of the kernel: for reports, so that nothing is kept for them. */
import { Errno } from '../../sys/constants.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import { getpeername, SOCKADDR_BYTES, sockaddrRead } from '../../sys/socket.ts';

let room: { readonly address: NativeBuffer; readonly bytes: NativeBuffer } | undefined;

/**
 * @param words  out: the address, IPv4 as v4-mapped
 * @returns the port, or -errno (-EBADF below 0, -ENOTCONN: it is gone)
 */
export function peerAddress(fd: number, words: Uint32Array): number {
  if (fd < 0) return -Errno.EBADF;
  room ??= { address: new NativeBuffer(SOCKADDR_BYTES), bytes: new NativeBuffer(8) };
  room.bytes.u32[0] = SOCKADDR_BYTES;
  const r = getpeername(fd, room.address.address, room.bytes.address);
  return r < 0 ? r : sockaddrRead(room.address.u8, 0, words, 0);
}
