/**
 * Starts a program with an inherited descriptor for frames, as the caller of `pasta --fd` does: `fd-giver.ts
 * KIND TAP FD PROGRAM...`. The interface TAP is created in the namespace of this process, without virtio
 * header.
 *
 *   tap                    the program gets the TAP itself
 *   seqpacket, datagram    one end of a socket pair; frames are copied between the other end and the TAP
 *   closed                 as seqpacket, but the other end is closed after a second
 *   stream, unconnected    sockets that cannot carry frames
 *
 * Ends with the socket if it copies frames, else with the program and its status. Prints the length of each
 * frame that is shorter than all before.
 */
import { spawn } from 'node:child_process';
import { AF_UNIX, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM } from '../../../src/sys/constants.ts';
import { checked } from '../../../src/sys/error.ts';
import { close, write } from '../../../src/sys/io.ts';
import { NativeBuffer } from '../../../src/sys/memory.ts';
import { socket, socketpair } from '../../../src/sys/socket.ts';
import { openTap } from '../../../src/sys/tap.ts';
import { pumpFrames } from '../frame-pump.ts';

const TYPES: Readonly<Record<string, number>> = {
  ...{ seqpacket: SOCK_SEQPACKET, closed: SOCK_SEQPACKET, datagram: SOCK_DGRAM, stream: SOCK_STREAM },
};
const [kind = '', name = '', fdText = '', program = '', ...args] = process.argv.slice(2);
const tap = openTap({ name, vnetHeader: false }).fd;
let given = tap;
let kept: number | undefined;
if (kind === 'unconnected') given = checked(socket(AF_UNIX, SOCK_DGRAM, 0), 'socket', 'SOCK_DGRAM');
else if (kind !== 'tap') {
  const pair = new NativeBuffer(8);
  checked(socketpair(AF_UNIX, TYPES[kind]!, 0, pair.address), 'socketpair', kind);
  given = pair.i32[0]!;
  kept = pair.i32[1]!;
}
const stdio: ('inherit' | 'ignore' | number)[] = ['inherit', 'inherit', 'inherit'];
while (stdio.length < Number(fdText)) stdio.push('ignore'); // /dev/null, as a caller may leave descriptors open
const child = spawn(program, args, { stdio: [...stdio, given] });
if (given !== tap) close(given);
if (kind === 'seqpacket' || kind === 'datagram') {
  if (kind === 'datagram') write(kept!, 0, 0); // an empty datagram: neither a frame nor the end
  // After the program has started, for this call blocks the event loop.
  child.on('spawn', () =>
    setImmediate(() => {
      let shortest = Number.POSITIVE_INFINITY;
      pumpFrames(tap, kept!, (bytes) => {
        if (bytes >= shortest) return;
        shortest = bytes;
        console.log(`frame of ${bytes}`);
      });
      process.exit(0);
    }),
  );
} else child.on('exit', (status) => process.exit(status ?? 1));
if (kind === 'closed') setTimeout(() => close(kept!), 1000);
