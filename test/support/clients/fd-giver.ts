/**
 * Starts a program with a descriptor that frames come by, as the caller of `pasta --fd` does: `fd-giver.ts
 * KIND TAP FD PROGRAM...`. The interface TAP is made in the namespace that this is started in, without virtio
 * header.
 *
 *   tap                    the program gets the TAP itself
 *   seqpacket, datagram    one end of a pair of sockets; frames of the other go to the TAP and back
 *   closed                 the same with seqpacket, but the other end is closed after a second
 *   stream, unconnected    sockets that frames cannot go by
 *
 * Ends with the socket where frames go by it here, else with the program and its status. Prints how long a
 * frame is that is shorter than any before.
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
while (stdio.length < Number(fdText)) stdio.push('ignore'); // /dev/null: what a careless caller leaves open
const child = spawn(program, args, { stdio: [...stdio, given] });
if (given !== tap) close(given);
if (kind === 'seqpacket' || kind === 'datagram') {
  if (kind === 'datagram') write(kept!, 0, 0); // an empty one: no frame, and no end
  // Once the program has started: nothing else runs here any more.
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
