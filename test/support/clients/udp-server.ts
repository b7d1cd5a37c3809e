/**
 * A UDP server for published ports: `udp-server.ts PORT`; prints "ready"; answers "ADDRESS PORT TEXT": the
 * sender's address and port, and its text.
 */
import dgram from 'node:dgram';

const socket = dgram.createSocket('udp6');
socket.on('message', (data, from) => {
  socket.send(`${from.address.replace(/^::ffff:/, '')} ${from.port} ${data}`, from.port, from.address);
});
socket.bind(Number(process.argv[2]), '::', () => console.log('ready'));
