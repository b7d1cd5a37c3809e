// bundle: rare
/**
 * The control socket (-c): shows the forwarding rules and takes others in their place, while the engine runs.
 * A table that a client names replaces the one before, the other stays. What is invalid closes the connection
 * and changes nothing. The connection is closed when the rules are in force: ports are open by then.
 *
 * No client waits for another. Each is shown the rules at once; of a client that answers when the rules have
 * changed meanwhile, what it added and took away counts, so two at once lose nothing of each other. Changes
 * are made one after the other. A client that is silent is closed after a while, and earlier where others
 * want its place.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { SocketFile } from '../host/socket-file.ts';
import { decodeRequest, encodeGreeting, encodeRule } from './control-codec.ts';
import { type Direction, type ForwardRule, RuleTable } from './forward-rules.ts';

/** A request is two tables of 255 rules at most. */
const MAX_REQUEST_BYTES = 64 * 1024;
/**
 * Clients at a time. Beyond it one that has been silent for so long makes room; where there is none, the new
 * one is closed.
 */
const MAX_CLIENTS = 256;
const PATIENCE_MS = 1000;
/** How long a client may take from the greeting to the end of its request. */
const REQUEST_MS = 10_000;

export interface ControlOptions {
  tables(): readonly RuleTable[];
  /** @throws Error when the rules cannot be served */
  replace(tables: ReadonlyMap<Direction, RuleTable>): Promise<void>;
  log(level: 'warning' | 'info', text: string): void;
}

interface Client {
  readonly sinceMs: number;
  /** Its request has come whole and is being carried out. */
  isServed: boolean;
}

export class ControlSocket {
  readonly #o: ControlOptions;
  readonly #server: Server;
  /** In the order in which they came. */
  readonly #clients = new Map<Socket, Client>();
  #turn: Promise<void> = Promise.resolve();
  #file: SocketFile | undefined;

  constructor(options: ControlOptions) {
    this.#o = options;
    // The end of a client's half is not the end of the connection: ours tells that the rules are in force.
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => socket.destroy()); // a client that goes away changes nothing
      if (this.#clients.size >= MAX_CLIENTS && !this.#makeRoom()) {
        socket.destroy();
        return;
      }
      this.#serve(socket);
    });
  }

  /** @throws Error of Node's, with its code */
  async listen(path: string): Promise<void> {
    if (await isAbandoned(path)) unlinkSync(path);
    this.#file = new SocketFile(path);
    await this.#file.listen(this.#server);
  }

  #makeRoom(): boolean {
    const before = performance.now() - PATIENCE_MS;
    for (const [socket, { sinceMs, isServed }] of this.#clients) {
      if (sinceMs > before) return false; // and all behind it came later
      if (isServed) continue;
      socket.destroy();
      this.#clients.delete(socket);
      return true;
    }
    return false;
  }

  #serve(socket: Socket): void {
    const client: Client = { sinceMs: performance.now(), isServed: false };
    const timer = setTimeout(() => socket.destroy(), REQUEST_MS).unref();
    this.#clients.set(socket, client);
    socket.on('close', () => {
      clearTimeout(timer);
      this.#clients.delete(socket);
    });
    const shown = this.#o.tables();
    let data = Buffer.alloc(0);
    socket.write(encodeGreeting(shown));
    socket.on('end', () => {
      if (!client.isServed) socket.destroy();
    });
    socket.on('data', (chunk) => {
      data = Buffer.concat([data, chunk as Buffer]);
      const request = decodeRequest(data);
      if (request.kind === 'more' && data.length <= MAX_REQUEST_BYTES) return;
      if (request.kind !== 'tables') {
        this.#o.log('warning', 'Invalid request on the control socket');
        socket.destroy();
        return;
      }
      client.isServed = true;
      clearTimeout(timer);
      socket.pause();
      this.#turn = this.#turn
        .then(() => this.#apply(request.tables, shown))
        .catch((error: Error) => this.#o.log('warning', error.message))
        .finally(() => socket.destroy());
    });
  }

  /** @param shown  the rules that the client has seen */
  async #apply(
    rules: ReadonlyMap<Direction, readonly ForwardRule[]>,
    shown: readonly RuleTable[],
  ): Promise<void> {
    const tables = new Map<Direction, RuleTable>();
    for (const current of this.#o.tables()) {
      const { direction, limits } = current;
      const wanted = rules.get(direction);
      if (wanted === undefined) continue;
      const seen = shown.find((table) => table.direction === direction) ?? current;
      const table = new RuleTable(direction, limits);
      for (const rule of mergedRules(seen.rules, wanted, current.rules)) table.add(rule);
      tables.set(direction, table);
    }
    await this.#o.replace(tables);
  }

  /** Directories that the socket's name is to be removed from at the end. */
  get directories(): readonly number[] {
    return this.#file?.directories ?? [];
  }

  close(): void {
    for (const socket of this.#clients.keys()) socket.destroy();
    const { listening } = this.#server;
    this.#server.close(); // takes the file away too, where there is a root with that path
    this.#file?.close(listening);
  }
}

/**
 * What a client wants that has seen `shown`, where `current` is in force: its own list, or what it changed
 * applied to the current one.
 */
export function mergedRules(
  shown: readonly ForwardRule[],
  wanted: readonly ForwardRule[],
  current: readonly ForwardRule[],
): readonly ForwardRule[] {
  const keys = (rules: readonly ForwardRule[]): Set<string> => new Set(rules.map(ruleKey));
  const before = keys(shown);
  const now = keys(current);
  if (before.size === now.size && [...before].every((key) => now.has(key))) return wanted;
  const after = keys(wanted);
  return [
    ...current.filter((rule) => after.has(ruleKey(rule)) || !before.has(ruleKey(rule))),
    ...wanted.filter((rule) => !before.has(ruleKey(rule)) && !now.has(ruleKey(rule))),
  ];
}

const ruleKey = (rule: ForwardRule): string => encodeRule(rule).toString('latin1');

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
