/** A connected stream socket of our own, read by the event loop: node:net. */
import { Socket } from 'node:net';

/** What a program does with the socket. */
export interface Channel {
  /** Send `text`. On Bun it is sent at once, and waits for room. */
  send(text: string): void;
  /** Send `text`, of a few KiB at most, then end our direction. To be called once. */
  end(text: string): void;
  /** `listener` is called with what has arrived, as it arrives. */
  onData(listener: (chunk: Buffer) => void): void;
  /**
   * `listener` is called once, when the other end is closed or has ended its direction, and all data has been
   * read: our end is then closed. It is called at once if our end is closed already.
   */
  onClose(listener: () => void): void;
}

/**
 * Take over a connected stream socket. An error is not reported: the other end has gone, and the channel
 * closes.
 */
export function openChannel(fd: number): Channel {
  const socket = new Socket({ fd, readable: true, writable: true });
  socket.on('error', () => {});
  socket.resume();
  return {
    send: (text) => void socket.write(text),
    end: (text) => void socket.end(text),
    onData: (listener) => void socket.on('data', listener),
    onClose: (listener) => {
      if (socket.closed) listener();
      else socket.once('close', listener);
    },
  };
}
