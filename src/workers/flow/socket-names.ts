/**
 * The addresses of flows' host sockets, which a capture mentions (translator/flow-comments.ts). Shared
 * memory: host-io writes an entry when a flow gets its socket, the flow's shard reads it. It exists only
 * while frames are captured, because getsockname(2) and getpeername(2) cost two calls per flow.
 *
 *   entry of a gid:  local address 4 words | remote address 4 words | local port | remote port, or -errno
 *
 * An entry is not removed: the shard reads it only after the socket has answered or taken something, or
 * checks the remote port.
 */
import { localAddress, peerAddress } from '../../sys/socket.ts';

export const SOCKET_NAME_WORDS = 10;
const LOCAL_PORT = 8;
const REMOTE_PORT = 9;

export class SocketNames {
  readonly #words: Uint32Array;
  readonly #base: number;

  /** @param flows  of all shards @returns bytes; pages take memory once they are used */
  static bytes(flows: number): number {
    return flows * SOCKET_NAME_WORDS * 4;
  }

  /** @param base  gids of the caller begin here: the number of its first shard times the flows of a shard */
  constructor(memory: SharedArrayBuffer, base: number) {
    this.#words = new Uint32Array(memory);
    this.#base = base * SOCKET_NAME_WORDS;
  }

  /** A flow has got its socket. */
  note(gid: number, fd: number): void {
    const w = this.#base + gid * SOCKET_NAME_WORDS;
    this.#words[w + REMOTE_PORT] = Math.max(0, peerAddress(fd, this.#words, w + 4));
    // Last: a port of 0 means that the entry is not complete.
    Atomics.store(this.#words, w + LOCAL_PORT, Math.max(0, localAddress(fd, this.#words, w)));
  }

  /**
   * Read the names of a flow's socket.
   * @param addresses  filled: local in words 0..3, remote in 4..7
   * @returns local port << 16 | remote port; remote port 0: the socket is not connected. -1: unknown
   */
  read(gid: number, addresses: Uint32Array): number {
    const w = this.#base + gid * SOCKET_NAME_WORDS;
    const local = Atomics.load(this.#words, w + LOCAL_PORT);
    if (local === 0) return -1;
    for (let i = 0; i < 8; i++) addresses[i] = this.#words[w + i]!;
    return local * 0x1_0000 + this.#words[w + REMOTE_PORT]!;
  }
}
