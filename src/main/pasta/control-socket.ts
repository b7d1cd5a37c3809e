// bundle: rare
/**
 * The control socket (-c): clients read the forwarding rules and replace them while the engine runs. A table
 * in a request replaces the one in force; a table that is not in the request stays. An invalid request
 * changes nothing and its connection is closed. The connection of a valid request is closed when the rules
 * are in force and their ports are open. Where ports cannot be opened, a client that asked for a report (our
 * pesto) gets the reasons, and the rules are as before; for others the rules stay, as with passt, and the
 * reasons are logged.
 *
 * No client waits for another to get the greeting. When the rules change between a client's greeting and its
 * request, only the rules that this client added and removed are applied, so that concurrent clients keep
 * each other's changes. Requests are applied one after the other. A client without a complete request is
 * closed after REQUEST_MS, or after EVICTABLE_MS when a new client needs its place.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { SocketFile } from '../host/socket-file.ts';
import { decodeRequest, encodeGreeting, encodeRule } from './control-codec.ts';
import { type Direction, type ForwardRule, type RuleFailure, RuleTable } from './forward-rules.ts';

/** A request is two tables of 255 rules at most. */
const MAX_REQUEST_BYTES = 64 * 1024;
/**
 * Clients at a time. One more evicts the oldest client that has been connected for EVICTABLE_MS without a
 * complete request; where there is none, the new client is closed.
 */
const MAX_CLIENTS = 256;
const EVICTABLE_MS = 1000;
/** Time limit from the greeting to the end of the request. */
const REQUEST_MS = 10_000;

/** What the control socket needs from the front end: the tables in force, and how to replace them. */
export interface ControlOptions {
  tables(): readonly RuleTable[];
  /**
   * Put tables in force; a direction without a table stays.
   * @returns the rules whose ports cannot be opened
   * @throws Error when the tables are refused
   */
  replace(tables: ReadonlyMap<Direction, RuleTable>): Promise<readonly RuleFailure[]>;
  log(level: 'warning' | 'info', text: string): void;
}

interface Client {
  readonly sinceMs: number;
  /** Its request is complete and is applied, or waits for others to be applied. */
  isServed: boolean;
}

export class ControlSocket {
  readonly #o: ControlOptions;
  readonly #server: Server;
  /** In order of arrival. */
  readonly #clients = new Map<Socket, Client>();
  #changes: Promise<void> = Promise.resolve();
  #file: SocketFile | undefined;

  constructor(options: ControlOptions) {
    this.#o = options;
    // A client may close its sending half and wait: our close signals that the rules are in force.
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => socket.destroy()); // a broken connection changes nothing else
      if (this.#clients.size >= MAX_CLIENTS && !this.#evictOldest()) {
        socket.destroy();
        return;
      }
      this.#serve(socket);
    });
  }

  /**
   * Make the socket. An abandoned socket file at this path is replaced.
   * @throws Error of the runtime, with `code`
   */
  async listen(path: string): Promise<void> {
    if (await isAbandoned(path)) unlinkSync(path);
    this.#file = new SocketFile(path);
    await this.#file.listen(this.#server);
  }

  #evictOldest(): boolean {
    const before = performance.now() - EVICTABLE_MS;
    for (const [socket, { sinceMs, isServed }] of this.#clients) {
      if (sinceMs > before) return false; // all that follow came later
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
      const { tables, wantsReport } = request;
      this.#changes = this.#changes
        .then(() => this.#apply(tables, shown, wantsReport ?? false))
        .catch((error: Error) => {
          this.#o.log('warning', error.message);
          return [error.message];
        })
        .then((reasons) => {
          if (!wantsReport || reasons.length === 0) socket.destroy();
          else socket.end(`${reasons.join('\n')}\n`, () => socket.destroy());
        });
    });
  }

  /**
   * @param shown     the rules in the client's greeting
   * @param isAtomic  put the rules in force only if all their ports can be opened
   * @returns why ports of rules that were added cannot be opened
   */
  async #apply(
    rules: ReadonlyMap<Direction, readonly ForwardRule[]>,
    shown: readonly RuleTable[],
    isAtomic: boolean,
  ): Promise<readonly string[]> {
    const tables = new Map<Direction, RuleTable>();
    const before = new Map(this.#o.tables().map((table) => [table.direction, table]));
    for (const current of this.#o.tables()) {
      const { direction, limits } = current;
      const wanted = rules.get(direction);
      if (wanted === undefined) continue;
      const seen = shown.find((table) => table.direction === direction) ?? current;
      const table = new RuleTable(direction, limits);
      for (const rule of mergedRules(seen.rules, wanted, current.rules)) table.add(rule);
      tables.set(direction, table);
    }
    const old = new Set([...before.values()].flatMap(({ rules }) => rules.map(ruleKey)));
    const failures = await this.#o.replace(tables);
    const reasons = failures.filter(({ rule }) => !old.has(ruleKey(rule))).map(({ reason }) => reason);
    if (isAtomic && reasons.length > 0) await this.#o.replace(before);
    return reasons;
  }

  /** Descriptors of directories, for SandboxPlan.removable: close() unlinks the socket there. */
  get directories(): readonly number[] {
    return this.#file?.directories ?? [];
  }

  close(): void {
    for (const socket of this.#clients.keys()) socket.destroy();
    const { listening } = this.#server;
    this.#server.close(); // unlinks the file too, unless the sandbox hides its path
    this.#file?.close(listening);
  }
}

/**
 * The rules to put in force for a client's request.
 * @param shown    the rules in the client's greeting
 * @param wanted   the rules in its request
 * @param current  the rules in force now
 * @returns `wanted` where `current` has the rules of `shown`; else `current` with what the client added and
 *   removed
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

/** Whether a path is a socket file that no process listens on any more. */
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
