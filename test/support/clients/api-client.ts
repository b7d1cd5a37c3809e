/**
 * Client of an API socket: `api-client.ts PATH REQUEST...`. Sends the requests on one connection after
 * another, while two further connections send nothing and half a request. Prints the replies as a JSON array.
 */
import { once } from 'node:events';
import net from 'node:net';

const [path = '', ...requests] = process.argv.slice(2);
const connect = (text: string): net.Socket => {
  const socket = net.createConnection({ path, allowHalfOpen: true }, () => socket.write(text));
  socket.on('error', (e: NodeJS.ErrnoException) => {
    console.error(e.code ?? e.message);
    process.exit(1);
  });
  return socket;
};

const idle = [connect(''), connect('{"execute":')];
const replies: unknown[] = [];
for (const request of requests) {
  const socket = connect(request);
  let text = '';
  socket.on('data', (chunk) => {
    text += String(chunk);
  });
  await once(socket, 'end');
  replies.push(JSON.parse(text));
  socket.destroy();
}
for (const socket of idle) socket.destroy();
console.log(JSON.stringify(replies));
