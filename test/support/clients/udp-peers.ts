/**
 * Sends one datagram for each of many flows: `udp-peers.ts to ADDRESS FIRST_PORT COUNT` from one socket to as
 * many ports of ADDRESS;
 * `udp-peers.ts from LOCAL_ADDRESS,... FIRST_PORT COUNT ADDRESS PORT` from as many ports of each LOCAL_ADDRESS to one. Prints "done".
 */
import dgram from 'node:dgram';

const [mode = '', addresses = '', firstText = '', countText = '', target = '', targetPort = ''] =
  process.argv.slice(2);
const first = Number(firstText);
const count = Number(countText);

function sendOne(socket: dgram.Socket, port: number, address: string): Promise<void> {
  // Ignore ICMP errors of earlier datagrams.
  return new Promise((resolve) => socket.send('x', port, address, () => resolve()));
}

if (mode === 'to') {
  const socket = dgram.createSocket('udp4');
  for (let i = 0; i < count; i++) await sendOne(socket, first + i, addresses);
  socket.close();
} else {
  for (const local of addresses.split(',')) {
    for (let i = 0; i < count; i++) {
      const socket = dgram.createSocket('udp4');
      await new Promise<void>((resolve) => {
        socket.once('error', () => resolve()); // a port in use is left out
        socket.bind(first + i, local, () => resolve());
      });
      await sendOne(socket, Number(targetPort), target).catch(() => {});
      socket.close();
    }
  }
}
console.log('done');
