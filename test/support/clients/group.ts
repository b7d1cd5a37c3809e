/**
 * A program that uses multicast: `group.ts udp4|udp6 PORT [INTERFACE]`, where INTERFACE is an address of the
 * interface (IPv4) or "::%NAME" (IPv6). It prints "ready PORT", then "heard ADDRESS PORT BYTES SEED" for each
 * datagram, with "spoilt" in place of SEED if the payload is not the pattern that begins with SEED.
 * Commands on standard input, one a line, each answered by "done":
 *
 *   join GROUP [SOURCE]              leave GROUP [SOURCE]
 *   send ADDRESS PORT BYTES SEED     with TTL 9
 *   answer                           from now on, answer each datagram from another socket, with SEED + 1
 *   churn GROUP TIMES                join and leave
 */
import dgram from 'node:dgram';
import { createInterface } from 'node:readline';

const [type, port, device] = process.argv.slice(2) as ['udp4' | 'udp6', string, string | undefined];
const pattern = (bytes: number, seed: number): Buffer =>
  Buffer.from(Uint8Array.from({ length: bytes }, (_, i) => (seed + i * 31) & 255));

const socket = dgram.createSocket({ type, reuseAddr: true, ipv6Only: type === 'udp6' });
let answers = false;
socket.on('message', (data, from) => {
  const seed = data[0] ?? 0;
  const isRight = data.equals(pattern(data.length, seed));
  console.log(`heard ${from.address} ${from.port} ${data.length} ${isRight ? seed : 'spoilt'}`);
  if (!answers) return;
  const other = dgram.createSocket(type);
  other.send(pattern(data.length, (seed + 1) & 255), from.port, from.address, () => other.close());
});

async function run(line: string): Promise<void> {
  const [verb, a = '', b = '', c = '', d = ''] = line.split(' ');
  if (verb === 'answer') answers = true;
  else if (verb === 'join' && b !== '') socket.addSourceSpecificMembership(b, a, device);
  else if (verb === 'join') socket.addMembership(a, device);
  else if (verb === 'leave' && b !== '') socket.dropSourceSpecificMembership(b, a, device);
  else if (verb === 'leave') socket.dropMembership(a, device);
  else if (verb === 'churn') {
    for (let i = 0; i < Number(b); i++) {
      socket.addMembership(a, device);
      socket.dropMembership(a, device);
      // Reports are frames: let the kernel send them.
      if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
  } else if (verb === 'send') {
    await new Promise<void>((resolve, reject) =>
      socket.send(pattern(Number(c), Number(d)), Number(b), a, (error) =>
        error ? reject(error) : resolve(),
      ),
    );
  } else throw new Error(`unknown command: ${line}`);
}

socket.bind(Number(port), type === 'udp4' ? '0.0.0.0' : '::', async () => {
  socket.setBroadcast(type === 'udp4');
  socket.setMulticastTTL(9);
  if (device !== undefined) socket.setMulticastInterface(device);
  console.log(`ready ${socket.address().port}`);
  for await (const line of createInterface({ input: process.stdin })) {
    await run(line);
    console.log('done');
  }
  process.exit(0);
});
