/**
 * Sends TEXT by UDP from LOCAL_PORT and prints the answer: `udp-ask.ts ADDRESS PORT LOCAL_PORT TEXT`. Status
 * 1 without an answer.
 */
import dgram from 'node:dgram';

const [address = '', port = '', localPort = '0', text = ''] = process.argv.slice(2);
const socket = dgram.createSocket(address.includes(':') ? 'udp6' : 'udp4');
const timer = setTimeout(() => {
  console.error('no answer within 2 s');
  process.exit(1);
}, 2000);
socket.on('error', (e: NodeJS.ErrnoException) => {
  console.error(e.code ?? e.message);
  process.exit(1);
});
socket.on('message', (data) => {
  console.log(data.toString());
  clearTimeout(timer);
  socket.close();
});
socket.bind(Number(localPort), () => socket.connect(Number(port), address, () => socket.send(text)));
