/**
 * Servers of the arena's guest: `guest-servers.ts ECHO_PORT ONCE_PORT`: echo by TCP and UDP, and a server
 * with one answer per connection. Prints "ready".
 */
import dgram from 'node:dgram';
import net from 'node:net';

const [echoPort = 0, oncePort = 0] = process.argv.slice(2).map(Number);
const tcp = (port: number, serve: (socket: net.Socket) => void): Promise<void> =>
  new Promise((resolve) => {
    const server = net.createServer({ noDelay: true }, (socket) => {
      socket.on('error', () => {});
      serve(socket);
    });
    server.listen({ port, host: '::', backlog: 4096 }, resolve);
  });
const udp = dgram.createSocket({ type: 'udp6', recvBufferSize: 1 << 22 });
udp.on('error', () => {});
udp.on('message', (data, from) => udp.send(data, from.port, from.address));
await Promise.all([
  tcp(echoPort, (socket) => socket.pipe(socket)),
  tcp(oncePort, (socket) => socket.once('data', (chunk) => socket.end(chunk).resume())),
  new Promise<void>((resolve) => udp.bind(echoPort, '::', resolve)),
]);
console.log('ready');
process.stdin.resume().on('end', () => process.exit(0));
