/**
 * systemd, as far as one service with a socket unit and a store of descriptors goes: `fake-manager.ts SOCKET NOTIFY
 * PROGRAM...` listens at SOCKET, receives messages at NOTIFY, and starts PROGRAM with both. Prints each message on a
 * line, and "exited STATUS".
 *
 * Words on standard input: `restart` (SIGTERM, and start it again with what it has stored), `kill` (the same by
 * SIGKILL), `stored` (print the names). Ends with its standard input.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { AF_UNIX, SOCK_DGRAM, SOCK_STREAM } from '../../../src/sys/constants.ts';
import { receiveDescriptors } from '../../../src/sys/descriptor-messages.ts';
import { checked } from '../../../src/sys/error.ts';
import { unixAddress } from '../../../src/sys/frame-socket.ts';
import { close } from '../../../src/sys/io.ts';
import { NativeBuffer } from '../../../src/sys/memory.ts';
import { bind, listen, socket } from '../../../src/sys/socket.ts';

const [path = '', notify = '', ...program] = process.argv.slice(2);
const POLL_MS = 5;
const message = new NativeBuffer(4096);
/** As systemd: several descriptors may have one name. */
const stored: { name: string; fd: number }[] = [];
let child: ChildProcess;

function bound(type: number, name: string): number {
  const fd = checked(socket(AF_UNIX, type, 0), 'socket', 'AF_UNIX');
  const { memory, bytes } = unixAddress(name);
  checked(bind(fd, memory.address, bytes), 'bind', name);
  return fd;
}

const listening = bound(SOCK_STREAM, path);
checked(listen(listening, 16), 'listen', path);
const messages = bound(SOCK_DGRAM, notify);

function startService(): void {
  const fds = [listening, ...stored.map(({ fd }) => fd)];
  const names = ['x.socket', ...stored.map(({ name }) => name)].join(':');
  child = spawn('/bin/sh', ['-c', 'LISTEN_PID=$$ exec "$@"', 'sh', ...program], {
    stdio: ['inherit', 'inherit', 'inherit', ...fds],
    env: { ...process.env, NOTIFY_SOCKET: notify, LISTEN_FDS: `${fds.length}`, LISTEN_FDNAMES: names },
  });
  const { pid } = child;
  child.on('exit', (status, signal) => console.log(`exited ${pid} ${signal ?? status}`));
}

function readMessages(): void {
  for (;;) {
    const fds: number[] = [];
    const bytes = receiveDescriptors(messages, message, fds);
    if (bytes < 0) return;
    const lines = Buffer.from(message.u8.subarray(0, bytes)).toString().split('\n');
    const name = lines.find((line) => line.startsWith('FDNAME='))?.slice(7) ?? '';
    if (lines.includes('FDSTORE=1')) for (const fd of fds) stored.push({ name, fd });
    if (lines.includes('FDSTOREREMOVE=1'))
      for (const one of stored.filter((each) => each.name === name)) {
        stored.splice(stored.indexOf(one), 1);
        close(one.fd);
      }
    console.log(lines.join(' '));
  }
}

startService();
setInterval(readMessages, POLL_MS);
for await (const word of createInterface(process.stdin)) {
  if (word === 'stored') console.log(`stored ${stored.map(({ name }) => name).join(' ')}`);
  else {
    child!.kill(word === 'kill' ? 'SIGKILL' : 'SIGTERM');
    await once(child!, 'exit');
    readMessages();
    startService();
  }
}
child!.kill();
process.exit();
