/**
 * Sends equal datagrams to an echo server, a shorter one last: `udp-burst.ts ADDRESS PORT COUNT BYTES
 * [WINDOW]`; all at once, or at most WINDOW of them unanswered. Prints {same, lost}: the number of datagrams
 * that returned unchanged, and of those that did not return within 2 s after the last answer. Each datagram
 * contains its number, so that two are not mistaken for each other.
 */
import dgram from 'node:dgram';
import { patternSlice } from '../pattern.ts';

const [address = '', port = '', countText = '', bytesText = '', windowText = countText] =
  process.argv.slice(2);
const count = Number(countText);
const bytes = Number(bytesText);
const window = Number(windowText);
const REPLY_WAIT_MS = 2000;

const wanted = new Map<number, Buffer>();
for (let i = 0; i < count; i++) {
  const payload = Buffer.from(patternSlice(i, i === count - 1 ? bytes >> 1 : bytes));
  payload.writeUInt32BE(i, 0);
  wanted.set(i, payload);
}
const all = [...wanted.values()];
const socket = dgram.createSocket({
  type: address.includes(':') ? 'udp6' : 'udp4',
  recvBufferSize: 1 << 18,
  sendBufferSize: 1 << 18,
});
let same = 0;
let sentCount = 0;
const sendSome = (): void => {
  while (sentCount < count && sentCount - (count - wanted.size) < window) socket.send(all[sentCount++]!);
};
const end = (): void => {
  clearTimeout(timer);
  socket.close();
  console.log(JSON.stringify({ same, lost: wanted.size }));
};
const timer = setTimeout(end, REPLY_WAIT_MS);
socket.on('message', (got) => {
  const number = got.length >= 4 ? got.readUInt32BE(0) : -1;
  if (wanted.get(number)?.equals(got)) same++;
  wanted.delete(number);
  if (wanted.size === 0) return end();
  timer.refresh();
  sendSome();
});
socket.connect(Number(port), address, sendSome);
