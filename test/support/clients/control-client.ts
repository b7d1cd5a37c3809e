/**
 * Client of a control socket: `control-client.ts PATH REQUEST_HEX`. Prints the bytes that the server sent
 * before it closed, as hex.
 */
import net from 'node:net';

const [path = '', request = ''] = process.argv.slice(2);
const socket = net.createConnection(path, () => socket.write(Buffer.from(request, 'hex')));
let answer = '';
socket.setEncoding('hex');
socket.on('data', (text) => {
  answer += text;
});
socket.on('error', (e: NodeJS.ErrnoException) => console.error(e.code ?? e.message));
socket.on('close', () => console.log(answer));
