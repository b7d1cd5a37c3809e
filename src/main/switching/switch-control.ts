// bundle: rare
/**
 * Socket switching of a COMMAND of ours: the front end's side. It starts the supervisor (src/switch/main.ts), a
 * process of its own, and puts COMMAND's first process under it.
 */
import { programCommand } from '#runtime/program';
import type { Outbound } from '../../switch/destinations.ts';
import { switchFilter } from '../../switch/filter.ts';
import type { SwitchedFlow, SwitchedFlows } from '../../switch/flow-records.ts';
import { type Answer, type FromSupervisor, Lines, lineOf, type ToSupervisor } from '../../switch/messages.ts';
import { AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM } from '../../sys/constants.ts';
import { checked } from '../../sys/error.ts';
import { close } from '../../sys/io.ts';
import { tcpDenyingRuleset } from '../../sys/landlock.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import { namespaceOwner } from '../../sys/namespace.ts';
import { openPath } from '../../sys/path.ts';
import { EncodedFilter } from '../../sys/seccomp.ts';
import { socketpair } from '../../sys/socket.ts';
import type { Supervision } from '../../sys/spawn.ts';
import type { AddressPlan } from '../../workers/engine-plan.ts';
import type { Log } from '../host/log.ts';
import { CHANNEL, Child } from '../process/child.ts';
import { START_LIMIT_MS } from '../process/command.ts';
import { within } from '../process/time-limit.ts';
import { whyNoLock } from './landlock-support.ts';
import type { Judge, SwitchCounts, SwitchedConnections } from './switched-connections.ts';

/**
 * Signals that a terminal or a manager of services sends to the whole group: HUP, INT, QUIT, USR1, USR2, TERM, TSTP,
 * TTIN, TTOU. The supervisor ends with us.
 */
const IGNORED = [1, 2, 3, 10, 12, 15, 20, 21, 22];

/** How long an answer of the supervisor may take. */
const ANSWER_LIMIT_MS = 5000;
/** The same for its counters: who asks for metrics does not wait long. */
const REPORT_LIMIT_MS = 1000;
/** Most flows of one answer: a line of some ten kilobytes. */
const FLOWS_OF_A_PAGE = 256;

type Asked = Extract<ToSupervisor, { kind: Answer['kind'] }>;
/** A message that is answered, without its number. */
type Question<Kind extends Answer['kind']> = Omit<Extract<Asked, { kind: Kind }>, 'ask'>;
type AnswerOf<Kind extends Answer['kind']> = Extract<Answer, { kind: Kind }>;

interface BeginSettings {
  readonly noSwitch: readonly string[] | undefined;
  readonly outbound: Outbound;
  readonly explains: boolean;
}

export class SwitchControl implements SwitchedConnections {
  readonly #log: Log;
  readonly #child: Child;
  readonly #lines = new Lines();
  /** By the number of the question. */
  readonly #answers = new Map<number, (answer: Answer | undefined) => void>();
  #counts: SwitchCounts = {
    ...{ switchedConnections: 0, switchPassedOn: 0, switchRefused: 0, switchFailed: 0 },
  };
  readonly #ready = Promise.withResolvers<void>();
  readonly #lost = Promise.withResolvers<never>();
  readonly #listenerTo: number;
  readonly #ruleset: number;
  #processId = 0;
  #begun = false;
  #asked = 0;
  #failure: string | undefined;
  #hasEnded = false;
  /** Absent: there is no policy. */
  #judge: Judge | undefined;
  /** Rejects when the supervisor has ended. */
  readonly lost: Promise<never>;

  /**
   * Start the supervisor, in the network namespace of the calling thread: the host's.
   * @throws Error: the kernel lacks something
   */
  constructor(log: Log) {
    this.#log = log;
    refuseOwnersOfTheNetwork();
    this.#ruleset = tcpDenyingRuleset();
    if (this.#ruleset < 0) throw new Error(`--switch-sockets: ${whyNoLock(-this.#ruleset)}`);
    const pair = new NativeBuffer(8);
    checked(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.address), 'socketpair', 'AF_UNIX');
    const [theirs, ours] = [pair.i32[0]!, pair.i32[1]!];
    this.#listenerTo = ours;
    const [file = '', ...args] = programCommand('switch-supervisor', 'switch/main');
    this.#child = new Child({
      ...{ file, argv: [file, ...args], env: ofTheRuntime(), ignores: IGNORED, endsWithUs: true },
      descriptors: [undefined, undefined, CHANNEL, theirs],
    });
    close(theirs);
    this.#child.channel.onData((chunk) => this.#read(chunk.toString()));
    this.lost = this.#lost.promise;
    this.lost.catch(() => {});
    void this.#child.closed.then((status) => this.#end(this.#failure ?? `ended with status ${status}`));
    this.#ready.promise.catch(() => {});
  }

  /** For the start of COMMAND's first process: once. */
  get supervision(): Supervision {
    return {
      ruleset: this.#ruleset,
      filter: new EncodedFilter(switchFilter()),
      listenerTo: this.#listenerTo,
    };
  }

  /** COMMAND's first process has been started. */
  started(processId: number): void {
    close(this.#ruleset);
    close(this.#listenerTo);
    this.#processId = processId;
  }

  /**
   * Let the supervisor serve: to be called before COMMAND's chain is waited for, which may need it.
   * @param settings.noSwitch  of --no-switch
   * @param settings.outbound  interfaces that sockets are bound to
   * @param settings.explains  log for each connection whether it is switched, and why not
   * @param addresses  of the engine: those that stand for something stay inside, and so does a family without any
   */
  begin({ noSwitch = [], outbound, explains }: BeginSettings, { ipv4, ipv6 }: AddressPlan): void {
    const own = [ipv4, ipv6].flatMap((plan) =>
      plan === undefined
        ? []
        : [plan.guest, plan.gateway, plan.hostLoopback, plan.mapGuestAddr, plan.dns].filter(
            (address) => address !== undefined,
          ),
    );
    const without = ipv4 === undefined ? 4 : ipv6 === undefined ? 6 : undefined;
    this.#send({
      ...{ kind: 'begin', noSwitch: [...noSwitch, ...own], judging: this.#judge !== undefined },
      outbound: { ...outbound, without },
      explains,
      processId: this.#processId,
    });
    this.#begun = true;
  }

  /** Resolves when the supervisor serves, in its sandbox. @throws Error */
  ready(): Promise<void> {
    return within(this.#ready.promise, START_LIMIT_MS, 'the supervisor has not been started');
  }

  async setJudge(judge: Judge | undefined): Promise<void> {
    // Without a policy the supervisor still asks until it has read this: everything may be reached.
    this.#judge = judge;
    await this.#ask({ kind: 'judging', judging: judge !== undefined });
  }

  counts(): SwitchCounts {
    return this.#counts;
  }

  async refresh(): Promise<void> {
    await this.#report(false);
  }

  async active(): Promise<number | undefined> {
    return (await this.#report(true))?.active;
  }

  async #report(active: boolean): Promise<AnswerOf<'report'> | undefined> {
    const report = await this.#ask({ kind: 'report', active }, REPORT_LIMIT_MS);
    if (report === undefined) return undefined;
    const { switched, passed, refused, failed } = report.counters;
    this.#counts = {
      ...{ switchedConnections: switched, switchPassedOn: passed },
      ...{ switchRefused: refused, switchFailed: failed },
    };
    return report;
  }

  async flows(after: number, limit: number): Promise<SwitchedFlows> {
    const flows: SwitchedFlow[] = [];
    for (let at = after; flows.length < limit; ) {
      const most = Math.min(FLOWS_OF_A_PAGE, limit - flows.length);
      const page = await this.#ask({ kind: 'flows', after: at, limit: most });
      flows.push(...(page?.flows ?? []));
      at = page?.flows.at(-1)?.id ?? at;
      if (page === undefined || !page.more || page.flows.length === 0) return { flows, more: false };
    }
    return { flows, more: true };
  }

  async end(ids: readonly number[]): Promise<number> {
    return (await this.#ask({ kind: 'end', ids }))?.left ?? ids.length;
  }

  /** @param why  in words that follow "the supervisor" */
  #end(why: string): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    const error = new Error(`--switch-sockets: the supervisor ${why}`);
    this.#ready.reject(error);
    this.#lost.reject(error);
    for (const resolve of this.#answers.values()) resolve(undefined);
  }

  /**
   * Without an answer to what a policy needs, the policy would not hold: COMMAND ends. A program inside can stop the
   * supervisor, for example by memory of a file system (FUSE) that does not deliver it.
   * @returns undefined: the supervisor does not answer
   */
  async #ask<Kind extends Answer['kind']>(
    question: { readonly kind: Kind } & Question<Kind>,
    limitMs = ANSWER_LIMIT_MS,
  ): Promise<AnswerOf<Kind> | undefined> {
    if (!this.#begun || this.#hasEnded) return undefined;
    const ask = ++this.#asked;
    const { promise, resolve } = Promise.withResolvers<Answer | undefined>();
    this.#answers.set(ask, resolve);
    const limit = setTimeout(() => resolve(undefined), limitMs);
    this.#send({ ...question, ask } as unknown as ToSupervisor);
    const answer = await promise;
    clearTimeout(limit);
    this.#answers.delete(ask);
    const needed = question.kind === 'judging' || question.kind === 'end';
    if (answer === undefined && needed) this.#end(`has not answered for ${ANSWER_LIMIT_MS / 1000} s`);
    return answer as AnswerOf<Kind> | undefined;
  }

  /** Process id, for the sandbox. */
  get pid(): number {
    return this.#child.pid;
  }

  kill(): void {
    this.#child.kill();
  }

  #send(message: ToSupervisor): void {
    this.#child.channel.send(lineOf(message));
  }

  #read(chunk: string): void {
    for (const line of this.#lines.add(chunk)) {
      let message: FromSupervisor;
      try {
        message = JSON.parse(line) as FromSupervisor;
      } catch {
        this.#log('warning', `supervisor: ${line}`); // of the runtime
        continue;
      }
      this.#take(message);
    }
  }

  #take(message: FromSupervisor): void {
    switch (message.kind) {
      case 'ready':
        this.#ready.resolve();
        break;
      case 'failed':
        this.#failure = `failed: ${message.text}`;
        break;
      case 'log':
        this.#log(message.level, message.text);
        break;
      case 'judge': {
        const { ask, address, port } = message;
        this.#send({ kind: 'judged', ask, allowed: this.#judge?.(address, port) ?? true });
        break;
      }
      default:
        this.#answers.get(message.ask)?.(message);
    }
  }
}

/** Settings of the runtime, which the launcher has made in place of the caller's (bin/launch.sh). */
const ofTheRuntime = (): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => /^(BUN|MIMALLOC|NODE)_/.test(name)));

/**
 * COMMAND must not have capabilities over the host's network, as sockets of the host's could then be taken off their
 * interface.
 * @throws Error
 */
function refuseOwnersOfTheNetwork(): void {
  const network = openPath('/proc/thread-self/ns/net', 0);
  const owner = namespaceOwner(network);
  close(network);
  // A failure: its owner is neither our user namespace nor one below.
  if (owner < 0) return;
  close(owner);
  throw new Error(
    "--switch-sockets: COMMAND would have capabilities over the host's network, as it gets no user namespace of its own; run this as an ordinary user",
  );
}
