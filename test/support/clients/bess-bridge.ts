/**
 * The other end of `slirp4netns --target-type=bess`: creates a TAP in its namespace and copies frames between
 * the TAP and a SOCK_SEQPACKET socket, one per message. `bess-bridge.ts PATH TAP`; prints "ready", ends with
 * the socket.
 */
import { AF_UNIX, SOCK_SEQPACKET } from '../../../src/sys/constants.ts';
import { checked } from '../../../src/sys/error.ts';
import { unixAddress } from '../../../src/sys/frame-socket.ts';
import { connect, socket } from '../../../src/sys/socket.ts';
import { openTap } from '../../../src/sys/tap.ts';
import { pumpFrames } from '../frame-pump.ts';

const [path = '', name = ''] = process.argv.slice(2);
const tap = openTap({ name, vnetHeader: false }).fd;
const peer = checked(socket(AF_UNIX, SOCK_SEQPACKET, 0), 'socket', 'SOCK_SEQPACKET');
const address = unixAddress(path);
checked(connect(peer, address.memory.address, address.bytes), 'connect', path);

console.log('ready');
pumpFrames(tap, peer);
process.exit(0);
