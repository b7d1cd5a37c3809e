/** UDP sockets of somebody else's, for tests of host-io's. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Received {
  readonly data: Buffer;
  readonly port: number;
  readonly address: string;
}

/** A UDP socket of somebody else's on loopback. */
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
