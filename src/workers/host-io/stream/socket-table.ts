/** What the parts of the stream sockets share about each socket, by the gid of its flow. */
import { DescriptorTable } from '../../thread/descriptor-table.ts';

/** Bits of StreamTable.flags. */
export const StreamFlag = {
  open: 1 << 0,
  connecting: 1 << 1,
  /** More may be readable: no EAGAIN since the last EPOLLIN edge. */
  readable: 1 << 2,
  /** The socket took less than was offered; EPOLLOUT will come. */
  blocked: 1 << 3,
  /** The peer has shut down its side or reset the connection: reading will end in 0 or an error. */
  peerDone: 1 << 4,
  eofSent: 1 << 5,
  /** The guest has sent FIN: shutdown(SHUT_WR) when the queue is empty. */
  finish: 1 << 6,
  finished: 1 << 7,
  /** The shard has closed the flow: close the socket when the queue is empty. */
  close: 1 << 8,
  /** On the list of sockets with something new to send. */
  dirty: 1 << 9,
  sendFailed: 1 << 10,
  errorSent: 1 << 11,
  /** Waiting for a large slot. */
  waitingForSlots: 1 << 12,
  /** The receive queue held, or may hold, more than a small exchange since it was last empty. */
  bulk: 1 << 13,
  /** Provisional bytes were refused: the shard gets `sent` when the socket takes more. */
  refused: 1 << 14,
  /**
   * The peer has sent urgent data: a read may end in front of it, so a short one says nothing about the
   * queue.
   */
  urgent: 1 << 15,
} as const;

/** How sender and receiver end a socket. */
export interface StreamEnding {
  /** The socket has failed. @param errno  above zero, for the shard */
  fail(gid: number, errno: number): void;
  /** Close the socket. @param reset  with RST */
  closeNow(gid: number, reset: boolean): void;
}

export class StreamTable {
  readonly fd: DescriptorTable;
  /** StreamFlag bits. */
  readonly flags: Uint16Array;
  /** Error that ended sending; passed to the shard when reading has come to its end. */
  readonly sendErrno: Uint8Array;

  /** @param gids  flows of all shards */
  constructor(gids: number) {
    this.fd = new DescriptorTable(gids);
    this.flags = new Uint16Array(gids);
    this.sendErrno = new Uint8Array(gids);
  }
}
