/**
 * Server for stream-client.ts. Handles one connection at a time with blocking calls; runs until killed.
 *
 * usage: stream-server.ts echo PORT BYTES     answer requests of BYTES until the client closes
 *        stream-server.ts once PORT BYTES     answer one, then close first: TIME-WAIT stays here, not with a tool's ports
 *        stream-server.ts hold PORT BYTES     answer one, then keep the connection; the end of this process resets it
 */
import { Errno, MSG_NOSIGNAL, MSG_WAITALL, SHUT_WR } from '../../../src/sys/constants.ts';
import { close } from '../../../src/sys/io.ts';
import { NativeBuffer } from '../../../src/sys/memory.ts';
import { accept4, recv, send, setLingerZero, shutdown } from '../../../src/sys/socket.ts';
import { listener, numbers, print, setTimeouts } from './socket.ts';

const TIMEOUT_SECONDS = 5;

const mode = process.argv[2];
const [port = 0, bytes = 1] = numbers(process.argv.slice(3));
const buffer = new NativeBuffer(bytes);
const listenFd = listener(port);
print('listening');

/** @returns whether a whole request arrived and was answered */
function answer(fd: number): boolean {
  return (
    recv(fd, buffer.address, bytes, MSG_WAITALL) === bytes &&
    send(fd, buffer.address, bytes, MSG_NOSIGNAL) === bytes
  );
}

for (;;) {
  const fd = accept4(listenFd, 0, 0, 0);
  if (fd === -Errno.EMFILE || fd === -Errno.ENFILE) process.exit(1);
  if (fd < 0) continue;
  setTimeouts(fd, TIMEOUT_SECONDS);
  if (mode === 'hold') {
    setLingerZero(fd);
    if (!answer(fd)) close(fd);
    continue;
  }
  if (mode === 'once') {
    answer(fd);
    shutdown(fd, SHUT_WR);
  } else while (answer(fd));
  close(fd);
}
