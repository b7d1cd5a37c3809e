/** A connected stream socket of our own, read by the event loop: node:net. */
import { Socket } from 'node:net';

export interface Channel {
  /** Send `text`, then end our direction. */
  end(text: string): void;
  onData(listener: (chunk: Buffer) => void): void;
  /** Called once, when the other end has been closed and all data has been read. */
  onClose(listener: () => void): void;
}

/** Take over a connected stream socket. Errors are not reported: the other end has gone, so it closes. */
export function openChannel(fd: number): Channel {
  const socket = new Socket({ fd, readable: true, writable: true });
  socket.on('error', () => {});
  socket.resume();
  return {
    end: (text) => void socket.end(text),
    onData: (listener) => void socket.on('data', listener),
    onClose: (listener) => void socket.once('close', listener),
  };
}
