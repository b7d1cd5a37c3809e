/**
 * The hostile side of the arena, one program for all roles. Prints "set" when the attack is in place; ends
 * with its standard input.
 *
 *   attacker.ts firehose PORT                   server: writes without end to every client, reads nothing
 *   attacker.ts sink PORT                       server: accepts, never reads
 *   attacker.ts idle-readers HOST PORT COUNT    COUNT connections that never read
 *   attacker.ts uploads HOST PORT COUNT         COUNT connections that write as much as is accepted
 *   attacker.ts resets HOST PORT COUNT          connects and resets without a pause, COUNT at a time
 *   attacker.ts half-open HOST COUNT            SYNs to COUNT ports of an address that does not answer
 *   attacker.ts udp-peers HOST COUNT            one socket, a datagram to each of COUNT ports, over and over
 *   attacker.ts udp-sources HOST PORT COUNT     a datagram from each of COUNT ports, over and over
 *   attacker.ts dns SERVER COUNT                COUNT queries at a time that no resolver answers
 */
import dgram from 'node:dgram';
import net from 'node:net';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { addressParse } from '../../../src/proto/address.ts';
import { AF_INET, AF_INET6, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM } from '../../../src/sys/constants.ts';
import { close } from '../../../src/sys/io.ts';
import { NativeBuffer } from '../../../src/sys/memory.ts';
import { bind, connect, SOCKADDR_BYTES, sendto, sockaddrWrite, socket } from '../../../src/sys/socket.ts';

/** Limit of concurrent connection attempts, for the backlog of a listener is limited. */
const AT_ONCE = 200;
const PIECE = Buffer.alloc(65536, 'x');
const FIRST_PORT = 10_000;

const [role = '', ...args] = process.argv.slice(2);
const number = (i: number): number => Number(args[i]);
const told = (): void => console.log('set');

process.stdin.resume().on('end', () => process.exit(0));

/** Write to a connection as much as it accepts. */
function flood(peer: net.Socket): void {
  const more = (): void => {
    while (peer.write(PIECE));
  };
  peer.on('drain', more);
  more();
}

function serve(port: number, onConnection: (peer: net.Socket) => void): void {
  net
    .createServer({ pauseOnConnect: true, highWaterMark: 1024 }, (peer) => {
      peer.on('error', () => peer.destroy());
      onConnection(peer);
    })
    .listen({ port, host: '::', backlog: 4096 }, told);
}

/** Open COUNT connections; a failed one is tried again later. */
async function crowd(onConnected: (peer: net.Socket) => void): Promise<void> {
  const [host = ''] = args;
  const count = number(2);
  let standing = 0;
  const one = (): Promise<void> =>
    new Promise((resolve) => {
      const peer = net.connect({ host, port: number(1) });
      peer.pause();
      peer.on('connect', () => {
        standing++;
        onConnected(peer);
        resolve();
      });
      peer.on('error', () => resolve());
    });
  let begun = 0;
  const lane = async (): Promise<void> => {
    while (begun++ < count) await one();
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, lane));
  console.error(`${standing} of ${count} connections stand`);
  told();
}

/** A socket address in native memory. */
function target(host: string): {
  at: (port: number) => number;
  readonly memory: NativeBuffer;
  readonly domain: number;
} {
  const words = new Uint32Array(4);
  if (!addressParse(host, words, 0)) throw new Error(`${host} is no address`);
  const memory = new NativeBuffer(SOCKADDR_BYTES);
  const domain = host.includes(':') ? AF_INET6 : AF_INET;
  return { memory, domain, at: (port) => sockaddrWrite(memory.u8, 0, words, 0, port) };
}

/** Repeat without end; pauses let the end of standard input end the process. */
async function overAndOver(count: number, step: (i: number) => void): Promise<never> {
  for (let round = 0; ; round++) {
    for (let i = 0; i < count; i++) {
      step(i);
      if (i % 512 === 511) await setImmediate();
    }
    if (round === 0) told();
    await sleep(500);
  }
}

switch (role) {
  case 'firehose':
    serve(number(0), flood);
    break;
  case 'sink':
    serve(number(0), () => {});
    break;
  case 'idle-readers':
    await crowd(() => {});
    break;
  case 'uploads':
    await crowd(flood);
    break;
  case 'resets': {
    const [host = ''] = args;
    const lane = async (): Promise<never> => {
      for (;;) {
        await new Promise<void>((resolve) => {
          const peer = net.connect({ host, port: number(1) });
          peer.on('connect', () => peer.resetAndDestroy());
          peer.on('error', () => {});
          peer.on('close', () => resolve());
        });
      }
    };
    for (let i = 0; i < number(2); i++) void lane();
    told();
    break;
  }
  case 'half-open': {
    const { at, memory, domain } = target(args[0] ?? '');
    await overAndOver(number(1), (i) => {
      const fd = socket(domain, SOCK_STREAM | SOCK_NONBLOCK, 0);
      connect(fd, memory.address, at(FIRST_PORT + (i % 50_000)));
      close(fd);
    });
    break;
  }
  case 'udp-peers': {
    const { at, memory, domain } = target(args[0] ?? '');
    const payload = new NativeBuffer(16);
    const fd = socket(domain, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    await overAndOver(number(1), (i) => {
      sendto(fd, payload.address, 16, 0, memory.address, at(FIRST_PORT + (i % 50_000)));
    });
    break;
  }
  case 'udp-sources': {
    const to = target(args[0] ?? '');
    const toBytes = to.at(number(1));
    const own = target(to.domain === AF_INET6 ? '::' : '0.0.0.0');
    const payload = new NativeBuffer(16);
    await overAndOver(number(2), (i) => {
      const fd = socket(to.domain, SOCK_DGRAM | SOCK_NONBLOCK, 0);
      if (bind(fd, own.memory.address, own.at(FIRST_PORT + (i % 50_000))) >= 0)
        sendto(fd, payload.address, 16, 0, to.memory.address, toBytes);
      close(fd);
    });
    break;
  }
  case 'dns': {
    const [server = ''] = args;
    const asker = dgram.createSocket(server.includes(':') ? 'udp6' : 'udp4');
    asker.on('error', () => {});
    let serial = 0;
    await overAndOver(number(1), () => {
      const name = `n${serial++}`;
      const head = Buffer.from([serial >>> 8, serial, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
      const labels = [name, 'silent', 'test'].flatMap((label) => [label.length, ...Buffer.from(label)]);
      asker.send(Buffer.concat([head, Buffer.from([...labels, 0, 0, 1, 0, 1])]), 53, server);
    });
    break;
  }
  default:
    throw new Error(`no role "${role}"`);
}
