/** UDP sockets that play the peers of host-io's datagram sockets. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Received {
  readonly data: Buffer;
  readonly port: number;
  readonly address: string;
}

/** A peer's UDP socket on loopback. */
export class Peer {
  readonly socket: Socket;
  readonly got: Received[] = [];
  port = 0;

  constructor(family: 4 | 6) {
    this.socket = createSocket(family === 4 ? 'udp4' : 'udp6');
    this.socket.on('message', (data, from) =>
      this.got.push({ data, port: from.port, address: from.address }),
    );
  }

  async bind(address: string, port = 0): Promise<this> {
    this.socket.bind(port, address);
    await once(this.socket, 'listening');
    this.port = this.socket.address().port;
    return this;
  }

  /** Send a datagram. It is in the queue of a receiver on loopback when the promise is fulfilled. */
  send(data: Uint8Array, port: number, address: string): Promise<void> {
    return new Promise((done, fail) => {
      this.socket.send(data, port, address, (error) => (error === null ? done() : fail(error)));
    });
  }

  /** The next `count` datagrams; fails when they have not arrived after a second. */
  async received(count: number): Promise<Received[]> {
    for (let i = 0; i < 200 && this.got.length < count; i++) await sleep(5);
    if (this.got.length < count) throw new Error(`peer got ${this.got.length} of ${count} datagrams`);
    return this.got.splice(0);
  }
}

/** A port that nobody listens on. */
export async function freePort(): Promise<number> {
  const p = await new Peer(4).bind('127.0.0.1');
  p.socket.close();
  return p.port;
}
