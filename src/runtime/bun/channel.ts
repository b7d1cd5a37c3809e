/**
 * A connected stream socket of our own, read by the event loop: the stream of Bun.file(). node:net takes 5 ms
 * to load, and both it and Bun.connect() wake the thread once a second as long as a socket is connected.
 */
import type { Channel } from '../node/channel.ts';
import { nativeAddress, nativeFunction } from './ffi.ts';

export type { Channel };

interface Reader {
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array }>;
}
const { Bun } = globalThis as unknown as {
  readonly Bun: { file(fd: number): { stream(): { getReader(): Reader } } };
};

const cSend = nativeFunction<[number, number, number, number]>('send', 'intptr_t', [
  ...(['int', 'uintptr_t', 'size_t', 'int'] as const),
]);
const cShutdown = nativeFunction<[number, number]>('shutdown', 'int', ['int', 'int']);
const cClose = nativeFunction<[number]>('close', 'int', ['int']);
const MSG_NOSIGNAL = 0x4000; // <sys/socket.h>
const SHUT_WR = 1;

/**
 * Take over a connected stream socket. An error is not reported: the other end has gone, and the channel
 * closes.
 */
export function openChannel(fd: number): Channel {
  let onData: (chunk: Buffer) => void = () => {};
  let onClose: () => void = () => {};
  let closed = false;
  const read = async (): Promise<void> => {
    const reader = Bun.file(fd).stream().getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        onData(Buffer.from(value!));
      }
    } catch {
      // The same as its end.
    } finally {
      closed = true;
      cClose(fd); // the stream does not own the descriptor
      onClose();
    }
  };
  void read();
  const send = (text: string): void => {
    if (closed) return;
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; ) {
      const sent = cSend(fd, nativeAddress(bytes) + at, bytes.length - at, MSG_NOSIGNAL);
      if (sent <= 0) return; // the other end has gone
      at += sent;
    }
  };
  return {
    send,
    end: (text) => {
      send(text);
      if (!closed) cShutdown(fd, SHUT_WR);
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
