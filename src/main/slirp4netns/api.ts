/**
 * What slirp4netns's API socket is asked and answers: JSON each way, one request a connection. Ports of the host that lead inside
 * are added, listed and removed while the engine runs. Changes are made one after the other. Beyond the original: `info` (what is
 * connected how) and `stats` (the engine's counters), read by the main thread from shared memory without asking a packet thread.
 */
import { isIPv4, isIPv6 } from 'node:net';
import type { EngineHandle } from '../../workers/engine.ts';
import type { ListenerPlan } from '../../workers/engine-plan.ts';
import { publishConflict } from '../publish.ts';
import { canonicalIpv6 } from '../values.ts';

export type ApiEngine = Pick<EngineHandle, 'setListeners' | 'counters' | 'threadCounters' | 'histograms'>;

/** Sockets that listen at a time. */
export const MAX_FORWARDS = 4096;

interface Forward {
  readonly id: number;
  readonly listener: ListenerPlan;
  /** As `list_hostfwd` gives it. */
  readonly entry: Readonly<Record<string, string | number>>;
}

/** The reasons of a refusal, word for word: RootlessKit and Podman log them, slirp4netns's tests look for them. */
const Refusal = {
  cannotParse: 'cannot parse JSON',
  notObject: 'json_object() failed',
  noExecute: 'no execute found',
  unknownExecute: 'unknown execute',
  tooLarge: 'too large message',
  argument: (name: string): string => `add_hostfwd: bad arguments.${name}`,
  addFailed: 'add_hostfwd: slirp_add_hostfwd failed',
  badId: 'remove_hostfwd: bad arguments.id',
  removeFailed: 'remove_hostfwd: slirp_remove_hostfwd failed',
} as const;

class RequestError extends Error {}

const errorReply = (why: string): string => JSON.stringify({ error: { desc: `bad request: ${why}` } });

export const TOO_LARGE_REPLY = errorReply(Refusal.tooLarge);

type Json = Readonly<Record<string, unknown>>;

export class SlirpApi {
  readonly #engine: ApiEngine;
  readonly #guestAddress: string;
  #forwards: readonly Forward[] = [];
  readonly #info: Json;
  readonly #startMs = performance.now();
  #lastId = 0;
  #turn: Promise<unknown> = Promise.resolve();

  /**
   * @param guestAddress  where a forward leads that names no address inside
   * @param info          what `info` tells beside threads, forwards and time
   */
  constructor(engine: ApiEngine, guestAddress: string, info: Json) {
    this.#info = info;
    this.#engine = engine;
    this.#guestAddress = guestAddress;
  }

  /** @param text  one request @returns the reply, always in the form that clients expect */
  answer(text: string): Promise<string> {
    const answered = this.#turn.then(async () => {
      try {
        return JSON.stringify(await this.#handle(text));
      } catch (error) {
        if (!(error instanceof RequestError)) throw error;
        return errorReply(error.message);
      }
    });
    this.#turn = answered.catch(() => {});
    return answered;
  }

  async #handle(text: string): Promise<unknown> {
    const request = parseObject(text);
    if (typeof request.execute !== 'string') throw new RequestError(Refusal.noExecute);
    const given = request.arguments;
    const args = typeof given === 'object' && given !== null && !Array.isArray(given) ? (given as Json) : {};
    switch (request.execute) {
      case 'add_hostfwd':
        return this.#add(args);
      case 'list_hostfwd': {
        // The program sends the list bare, its documentation shows it wrapped: both are there.
        const entries = this.#forwards.map((forward) => forward.entry);
        return { return: { entries }, entries };
      }
      case 'remove_hostfwd':
        return this.#remove(args);
      case 'info': {
        const threads = this.#engine.threadCounters().map(({ thread }) => thread);
        const uptimeMs = Math.round(performance.now() - this.#startMs);
        return { return: { ...this.#info, threads, forwards: this.#forwards.length, uptimeMs } };
      }
      case 'stats':
        return {
          return: {
            counters: this.#engine.counters(),
            threads: this.#engine.threadCounters(),
            histograms: this.#engine.histograms(),
          },
        };
      default:
        throw new RequestError(Refusal.unknownExecute);
    }
  }

  async #add(args: Json): Promise<unknown> {
    const { proto } = args;
    if (proto !== 'tcp' && proto !== 'udp') throw new RequestError(Refusal.argument('proto'));
    const hostAddress = address(args, 'host_addr', '0.0.0.0');
    const hostPort = port(args, 'host_port');
    const isV6 = hostAddress.includes(':');
    const guestAddress = address(args, 'guest_addr', isV6 ? '' : this.#guestAddress);
    if (guestAddress !== '' && guestAddress.includes(':') !== isV6)
      throw new RequestError(Refusal.argument('guest_addr'));
    const guestPort = port(args, 'guest_port');
    const listener: ListenerPlan = {
      proto,
      address: hostAddress,
      port: hostPort,
      targetPort: guestPort,
      ...(guestAddress !== '' && { targetAddress: guestAddress }),
      path: 'tap',
    };
    const listeners = [...this.#forwards.map((forward) => forward.listener), listener];
    // The engine takes two alike for one.
    if (listeners.length > MAX_FORWARDS || publishConflict(listeners) !== undefined)
      throw new RequestError(Refusal.addFailed);
    const failures = await this.#engine.setListeners(listeners);
    if (failures.some((failure) => failure.index === listeners.length - 1)) {
      await this.#listen(this.#forwards);
      throw new RequestError(Refusal.addFailed);
    }
    const id = ++this.#lastId;
    const entry = {
      ...{ id, proto, host_addr: hostAddress, host_port: hostPort },
      ...{ guest_addr: guestAddress, guest_port: guestPort },
    };
    this.#forwards = [...this.#forwards, { id, listener, entry }];
    return { return: { id } };
  }

  async #remove(args: Json): Promise<unknown> {
    const id = number(args.id);
    if (id === undefined || id < 0) throw new RequestError(Refusal.badId);
    const left = this.#forwards.filter((forward) => forward.id !== id);
    if (left.length === this.#forwards.length) throw new RequestError(Refusal.removeFailed);
    await this.#listen(left);
    this.#forwards = left;
    return { return: {} };
  }

  async #listen(forwards: readonly Forward[]): Promise<void> {
    await this.#engine.setListeners(forwards.map((forward) => forward.listener));
  }
}

function parseObject(text: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new RequestError(Refusal.cannotParse);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new RequestError(Refusal.notObject);
  return value as Json;
}

function address(args: Json, name: string, fallback: string): string {
  const text = args[name];
  if (text === undefined || text === '') return fallback;
  if (typeof text !== 'string') throw new RequestError(Refusal.argument(name));
  if (isIPv4(text)) return text;
  if (isIPv6(text) && !text.includes('%')) return canonicalIpv6(text);
  throw new RequestError(Refusal.argument(name));
}

function port(args: Json, name: string): number {
  const value = number(args[name]);
  if (value === undefined || value < 1 || value > 65535) throw new RequestError(Refusal.argument(name));
  return value;
}

/** Clients count in floating point (RootlessKit): the fraction is cut off. */
const number = (value: unknown): number | undefined =>
  typeof value === 'number' && Number.isFinite(value) ? Math.trunc(value) : undefined;
