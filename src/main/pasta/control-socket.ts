/**
 * The control socket (-c): shows the forwarding rules and takes others in their place, while the engine runs. One client at a time;
 * a table that a client names replaces the one before, the other stays. What is invalid closes the connection and changes nothing.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { SocketFile } from '../socket-file.ts';
import { decodeRequest, encodeGreeting } from './control-codec.ts';
import { type Direction, type ForwardRule, RuleTable } from './forward-rules.ts';

/** A request is two tables of 255 rules at most. */
const MAX_REQUEST_BYTES = 64 * 1024;

export interface ControlOptions {
  tables(): readonly RuleTable[];
  /** @throws Error when the rules cannot be served */
  replace(tables: ReadonlyMap<Direction, RuleTable>): Promise<void>;
  log(level: 'warning' | 'info', text: string): void;
}

export class ControlSocket {
  readonly #o: ControlOptions;
  readonly #server: Server;
  readonly #queue: Socket[] = [];
  #busy = false;
  #file: SocketFile | undefined;

  constructor(options: ControlOptions) {
    this.#o = options;
    this.#server = createServer((socket) => {
      socket.on('error', () => {}); // a client that goes away changes nothing
      this.#queue.push(socket);
      this.#next();
    });
  }

  /** @throws Error of Node's, with its code */
  async listen(path: string): Promise<void> {
    if (await isAbandoned(path)) unlinkSync(path);
    this.#file = new SocketFile(path);
    await this.#file.listen(this.#server);
  }

  #next(): void {
    const socket = this.#busy ? undefined : this.#queue.shift();
    if (socket === undefined) return;
    this.#busy = true;
    socket.once('close', () => {
      this.#busy = false;
      this.#next();
    });
    let data = Buffer.alloc(0);
    socket.write(encodeGreeting(this.#o.tables()));
    socket.on('data', (chunk) => {
      data = Buffer.concat([data, chunk as Buffer]);
      const request = decodeRequest(data);
      if (request.kind === 'more' && data.length <= MAX_REQUEST_BYTES) return;
      if (request.kind !== 'tables') {
        this.#o.log('warning', 'Invalid request on the control socket');
        socket.destroy();
        return;
      }
      socket.pause();
      this.#apply(request.tables)
        .catch((error: Error) => this.#o.log('warning', error.message))
        .finally(() => socket.destroy());
    });
  }

  async #apply(rules: ReadonlyMap<Direction, readonly ForwardRule[]>): Promise<void> {
    const tables = new Map<Direction, RuleTable>();
    for (const { direction, limits } of this.#o.tables()) {
      const list = rules.get(direction);
      if (list === undefined) continue;
      const table = new RuleTable(direction, limits);
      for (const rule of list) table.add(rule);
      tables.set(direction, table);
    }
    await this.#o.replace(tables);
  }

  /** Directories that the socket's name is to be removed from at the end. */
  get directories(): readonly number[] {
    return this.#file?.directories ?? [];
  }

  close(): void {
    for (const socket of this.#queue) socket.destroy();
    const { listening } = this.#server;
    this.#server.close(); // takes the file away too, where there is a root with that path
    this.#file?.close(listening);
  }
}

/** A socket file that a server left behind: nobody answers there. */
async function isAbandoned(path: string): Promise<boolean> {
  try {
    if (!lstatSync(path).isSocket()) return false;
  } catch {
    return false;
  }
  return new Promise((resolve) => {
    const probe = createConnection(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
}
