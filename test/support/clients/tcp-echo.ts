/** TCP echo server: `tcp-echo.ts PORT [ADDRESS]`. Prints "ready" when it listens. */
import net from 'node:net';

const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  socket.on('error', () => {}); // connections of a test may end in any way
  socket.pipe(socket);
});
server.listen({ port: Number(process.argv[2]), host: process.argv[3] ?? '::', backlog: 512 }, () =>
  console.log('ready'),
);
