/**
 * Many peers of one UDP port.
 *
 * usage: udp-hub.ts mirror FIRST COUNT           prints "ready"; each of COUNT ports answers with the sender's port
 *        udp-hub.ts ask OWN ADDRESS FIRST COUNT  one socket on port OWN asks all of them, repeatedly until they answer;
 *                                                prints {"answered": ports, "seen": the different source ports that they saw}
 */
import dgram from 'node:dgram';
import { setTimeout as sleep } from 'node:timers/promises';

const ROUNDS = 4;
/** Datagrams per burst: the answers fit in the receive buffer of a guest socket. */
const BURST = 40;
const BURST_MS = 5;
const ANSWER_MS = 500;

const [role, ...rest] = process.argv.slice(2);
if (role === 'mirror') {
  const [first = 0, count = 0] = rest.map(Number);
  let bound = 0;
  for (let port = first; port < first + count; port++) {
    const socket = dgram.createSocket('udp6');
    socket.on('message', (_, from) => socket.send(`${from.port}`, from.port, from.address));
    socket.bind(port, '::', () => {
      if (++bound === count) console.log('ready');
    });
  }
} else {
  const [own, address = '', firstText, countText] = rest;
  const first = Number(firstText);
  const count = Number(countText);
  const socket = dgram.createSocket(address.includes(':') ? 'udp6' : 'udp4');
  await new Promise<void>((resolve) => socket.bind(Number(own), resolve));
  const answered = new Set<number>();
  const seen = new Set<number>();
  socket.on('message', (data, from) => {
    answered.add(from.port);
    seen.add(Number(data));
  });
  for (let round = 0; round < ROUNDS && answered.size < count; round++) {
    let sent = 0;
    for (let port = first; port < first + count; port++) {
      if (answered.has(port)) continue;
      socket.send('?', port, address);
      if (++sent % BURST === 0) await sleep(BURST_MS);
    }
    for (let ms = 0; ms < ANSWER_MS && answered.size < count; ms += 10) await sleep(10);
  }
  console.log(JSON.stringify({ answered: answered.size, seen: [...seen] }));
  socket.close();
}
