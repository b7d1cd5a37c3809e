/** A connected stream socket of our own, read by the event loop: Bun.connect(). node:net takes 5 ms to load. */
import type { Channel } from '../node/channel.ts';

export type { Channel };

interface BunSocket {
  write(text: string): number;
  end(): void;
  shutdown(): void;
}
interface Handler {
  open(socket: BunSocket): void;
  data(socket: BunSocket, chunk: Uint8Array): void;
  drain(): void;
  end(): void;
  close(): void;
  error(): void;
}
const { Bun } = globalThis as unknown as {
  readonly Bun: {
    connect(options: { fd: number; allowHalfOpen: boolean; socket: Handler }): Promise<unknown>;
  };
};

/** Take over a connected stream socket. Errors are not reported: the other end has gone, so it closes. */
export function openChannel(fd: number): Channel {
  let socket: BunSocket | undefined;
  let onData: (chunk: Buffer) => void = () => {};
  let onClose: () => void = () => {};
  let text = '';
  let ending = false;
  let closed = false;
  const flush = (): void => {
    if (socket === undefined || closed) return;
    if (text !== '') text = text.slice(socket.write(text)); // ASCII: bytes are characters
    if (ending && text === '') socket.shutdown();
  };
  const close = (): void => {
    if (closed) return;
    closed = true;
    onClose();
  };
  Bun.connect({
    fd,
    allowHalfOpen: true,
    socket: {
      open: (made) => {
        socket = made;
        flush();
      },
      data: (_socket, chunk) => onData(Buffer.from(chunk)),
      drain: flush,
      end: () => {
        socket?.end();
      },
      close,
      error: close,
    },
  }).catch(close);
  return {
    end: (more) => {
      text += more;
      ending = true;
      flush();
    },
    onData: (listener) => {
      onData = listener;
    },
    onClose: (listener) => {
      onClose = listener;
      if (closed) listener();
    },
  };
}
