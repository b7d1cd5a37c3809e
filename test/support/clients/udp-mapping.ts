/**
 * Finds the NAT mapping and filtering of one UDP socket, as a STUN client does (RFC 5780 section 4).
 *
 * usage: udp-mapping.ts mirror PORT...       prints "ready"; each port answers with the sender's port, and so does a socket of another port
 *        udp-mapping.ts ask ADDRESS PORT...  one socket asks all of them; prints {"own": port, "seen": ports in order, "strangers": n}
 *        udp-mapping.ts hold OWN ADDRESS PORT...  the same from a port; prints "ready" and stays
 */
import dgram from 'node:dgram';
import { setTimeout as sleep } from 'node:timers/promises';

const TIMEOUT_MS = 3000;
/** Wait after the last answer: datagrams of other peers follow it directly. */
const STRANGERS_MS = 300;

const [role, ...rest] = process.argv.slice(2);
if (role === 'mirror') {
  const other = dgram.createSocket('udp6');
  let bound = 0;
  for (const port of rest.map(Number)) {
    const socket = dgram.createSocket('udp6');
    socket.on('message', (_, from) => {
      socket.send(`${from.port}`, from.port, from.address);
      other.send(`${from.port}`, from.port, from.address);
    });
    socket.bind(port, '::', () => {
      if (++bound === rest.length) console.log('ready');
    });
  }
} else {
  const wanted = role === 'hold' ? Number(rest.shift()) : 0;
  const [address = '', ...ports] = rest;
  const socket = dgram.createSocket(address.includes(':') ? 'udp6' : 'udp4');
  const seen = new Map<number, number>();
  let strangers = 0;
  socket.bind(wanted);
  socket.on('message', (data, from) => {
    if (ports.includes(`${from.port}`)) seen.set(from.port, Number(data));
    else strangers++;
  });
  for (const port of ports) socket.send('?', Number(port), address);
  for (let ms = 0; ms < TIMEOUT_MS && seen.size < ports.length; ms += 10) await sleep(10);
  const own = socket.address().port;
  if (role === 'hold') console.log('ready');
  else {
    await sleep(STRANGERS_MS);
    console.log(JSON.stringify({ own, seen: ports.map((port) => seen.get(Number(port)) ?? 0), strangers }));
    socket.close();
  }
}
