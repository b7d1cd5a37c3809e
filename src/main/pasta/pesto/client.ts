/** Talks to a control socket: reads its tables, and sends what the command line makes of them. */
import { readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { strerrorOf } from '../../../sys/error.ts';
import { cleanText } from '../../api/client.ts';
import { print, put } from '../../process/output.ts';
import { CAPABILITY_NAMES, decodeGreeting, encodeRequest, type ShownTable } from '../control-codec.ts';
import { ephemeralPorts } from '../port-spec.ts';
import { changedRules, rulesText } from './changes.ts';
import type { Parsed } from './options.ts';

/** The server applies requests one after the other, so ours may wait for those of others. */
const ANSWER_LIMIT_MS = 30_000;
/** Size of sun_path without the zero byte (unix(7)). */
const MAX_PATH_BYTES = 107;
/** The reasons of 255 rules, and more. */
const MAX_REPORT_BYTES = 256 * 1024;

/**
 * Carry out a command line.
 * @returns the exit status
 * @throws Error with the message for the user
 */
export async function configure(wanted: Extract<Parsed, { kind: 'go' }>): Promise<number> {
  const { path, steps, show, debug } = wanted;
  const bytes = Buffer.byteLength(path);
  if (bytes === 0 || bytes > MAX_PATH_BYTES) throw new Error(`Invalid socket path ${JSON.stringify(path)}`);
  const note = (text: string): boolean => !debug || put(2, `${text}\n`);
  const server = new Server(path);
  const tables = await server.tables();
  note('Connected to passt/pasta control socket');
  for (const table of tables) note(tableText(table));
  const before = new Map(tables.map(({ id, rules }) => [id, rules]));
  if (steps.length === 0) {
    server.close();
    print(cleanText(rulesText('passt/pasta configuration', path, tables, before)));
    return 0;
  }
  if (show) print(cleanText(rulesText('Previous configuration', path, tables, before)));
  const after = changedRules(tables, steps, ephemeralPorts(readRange()));
  const reasons = await server.request(
    encodeRequest(
      after,
      tables.some(({ reports }) => reports),
    ),
  );
  if (reasons !== '') {
    const text = cleanText(reasons);
    put(2, text.endsWith('\n') ? text : `${text}\n`);
    return 1;
  }
  if (show) print(cleanText(rulesText('Updated configuration', path, tables, after)));
  return 0;
}

/** What --debug prints of a table. */
function tableText({ id, name, capabilities, rules }: ShownTable): string {
  const names = CAPABILITY_NAMES.filter((_, bit) => (capabilities >> bit) & 1).join(' ');
  return `PIF ${id}: ${name}, ${rules.length} rules, capabilities 0x${capabilities.toString(16)}: ${names}`;
}

function readRange(): string | undefined {
  try {
    return readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'latin1');
  } catch {
    return undefined;
  }
}

/** One connection. */
class Server {
  readonly #socket;
  #timer: NodeJS.Timeout | undefined;
  #received = Buffer.alloc(0);
  /** Called for all that happens to the connection. */
  #wake: () => void = () => {};
  #isEnded = false;
  #error: Error | undefined;

  constructor(path: string) {
    let isConnected = false;
    // Our half stays open: passt's server takes its end for the client's.
    this.#socket = createConnection({ path, allowHalfOpen: true }, () => {
      isConnected = true;
    });
    this.#limitTime();
    this.#socket.on('data', (chunk) => {
      this.#received = Buffer.concat([this.#received, chunk as Buffer]);
      this.#wake();
    });
    const ended = (): void => {
      this.#isEnded = true;
      this.#wake();
    };
    this.#socket.on('end', ended).on('close', ended);
    this.#socket.on('error', (error: NodeJS.ErrnoException) => {
      const reason = error.code === undefined ? error.message : strerrorOf(error);
      this.#error = new Error(isConnected ? `${path}: ${reason}` : `Failed to connect to ${path}: ${reason}`);
      ended();
    });
  }

  /** The next answer has to be whole in time, also where single bytes of it come. */
  #limitTime(): void {
    clearTimeout(this.#timer);
    const late = (): Error => new Error(`no answer within ${ANSWER_LIMIT_MS / 1000} s`);
    this.#timer = setTimeout(() => this.#socket.destroy(late()), ANSWER_LIMIT_MS);
  }

  /** Wait until the next event of the connection. */
  #next(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  /** Read the greeting. @throws Error with the message for the user */
  async tables(): Promise<readonly ShownTable[]> {
    for (;;) {
      const greeting = decodeGreeting(this.#received);
      if (greeting.kind === 'tables') return greeting.tables;
      if (greeting.kind === 'invalid') throw new Error(greeting.reason);
      if (this.#error !== undefined) throw this.#error;
      if (this.#isEnded) throw new Error("Couldn't read server greeting: connection closed");
      await this.#next();
    }
  }

  /**
   * Send a request and wait for the end of the connection.
   * @returns what the server answered: reasons of failures; empty: all is in force
   * @throws Error with the message for the user
   */
  async request(bytes: Buffer): Promise<string> {
    this.#received = Buffer.alloc(0);
    this.#limitTime();
    this.#socket.write(bytes);
    while (!this.#isEnded && this.#received.length < MAX_REPORT_BYTES) await this.#next();
    if (this.#error !== undefined) throw this.#error;
    this.close();
    return this.#received.toString();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#socket.destroy();
  }
}
