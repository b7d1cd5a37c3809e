// bundle: rare
/**
 * Socket switching of a COMMAND of ours: the front end's side. It starts the supervisor (src/switch/main.ts), a
 * process of its own, and puts COMMAND's first process under it.
 */
import { programCommand } from '#runtime/program';
import type { Outbound } from '../../switch/destinations.ts';
import { switchFilter } from '../../switch/filter.ts';
import { type FromSupervisor, Lines, lineOf, type ToSupervisor } from '../../switch/messages.ts';
import type { SwitchCounters } from '../../switch/supervisor.ts';
import { AF_UNIX, Errno, SOCK_CLOEXEC, SOCK_STREAM } from '../../sys/constants.ts';
import { checked } from '../../sys/error.ts';
import { close } from '../../sys/io.ts';
import { tcpDenyingRuleset } from '../../sys/landlock.ts';
import { errnoText } from '../../sys/libc.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import { EncodedFilter } from '../../sys/seccomp.ts';
import { socketpair } from '../../sys/socket.ts';
import type { Supervision } from '../../sys/spawn.ts';
import type { Log } from '../host/log.ts';
import { CHANNEL, Child } from '../process/child.ts';
import { within } from '../process/time-limit.ts';

export interface SwitchOptions {
  /** Of --no-switch. */
  readonly noSwitch: readonly string[];
  readonly outbound: Outbound;
  readonly log: Log;
}

/** Signals that a terminal or a supervisor of services sends to the whole group: HUP, INT, QUIT, USR1, USR2, TERM, TSTP, TTIN, TTOU. */
const IGNORED = [1, 2, 3, 10, 12, 15, 20, 21, 22];
const START_LIMIT_MS = 60_000;

/** Whether a destination is allowed by a policy that is in force. */
export type Judge = (address: string, port: number) => boolean;

export class SwitchControl {
  readonly #log: Log;
  readonly #child: Child;
  readonly #lines = new Lines();
  readonly #reports = new Map<number, (counters: SwitchCounters) => void>();
  readonly #ready = Promise.withResolvers<void>();
  #listenerTo: number;
  #ruleset: number;
  #asked = 0;
  #failure: string | undefined;
  /** Absent: there is no policy. */
  #judge: Judge | undefined;
  /** Resolves with an error when the supervisor has ended before us. */
  readonly ended: Promise<Error>;

  /**
   * Start the supervisor, in the network namespace of the calling thread: the host's.
   * @throws Error: the kernel lacks something
   */
  constructor({ noSwitch, outbound, log }: SwitchOptions) {
    this.#log = log;
    this.#ruleset = tcpDenyingRuleset();
    if (this.#ruleset < 0) throw new Error(`--switch-sockets: ${whyNoLock(-this.#ruleset)}`);
    const pair = new NativeBuffer(8);
    checked(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.address), 'socketpair', 'AF_UNIX');
    const [theirs, ours] = [pair.i32[0]!, pair.i32[1]!];
    this.#listenerTo = ours;
    const [file = '', ...args] = programCommand('switch-supervisor', 'switch/main');
    this.#child = new Child({
      ...{ file, argv: [file, ...args], env: {}, ignores: IGNORED, endsWithUs: true },
      descriptors: [undefined, undefined, CHANNEL, theirs],
    });
    close(theirs);
    this.#child.channel.onData((chunk) => this.#read(chunk.toString()));
    this.ended = this.#child.closed.then((status) => {
      const error = new Error(
        `--switch-sockets: the supervisor ${this.#failure ?? `ended with status ${status}`}`,
      );
      this.#ready.reject(error);
      return error;
    });
    this.#ready.promise.catch(() => {});
    this.#send({ kind: 'begin', noSwitch, outbound, judging: false });
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
    this.#send({ kind: 'command', processId });
  }

  /** Resolves when the supervisor serves, in its sandbox. @throws Error */
  ready(): Promise<void> {
    return within(this.#ready.promise, START_LIMIT_MS, 'the supervisor has not been started');
  }

  /** Ask `judge` about each destination from now on; undefined: none. */
  setJudge(judge: Judge | undefined): void {
    this.#judge = judge;
    this.#send({ kind: 'judging', judging: judge !== undefined });
  }

  /** What the supervisor has counted. */
  counters(): Promise<SwitchCounters> {
    const ask = ++this.#asked;
    const { promise, resolve } = Promise.withResolvers<SwitchCounters>();
    this.#reports.set(ask, resolve);
    this.#send({ kind: 'report', ask });
    return promise;
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
      case 'report':
        this.#reports.get(message.ask)?.(message.counters);
        this.#reports.delete(message.ask);
    }
  }
}

function whyNoLock(errno: number): string {
  if (errno === Errno.EINVAL || errno === Errno.E2BIG)
    return 'this kernel cannot deny TCP connects to a process (Landlock, Linux 6.7)';
  if (errno === Errno.ENOSYS || errno === Errno.EOPNOTSUPP)
    return 'Landlock is not enabled in this kernel (CONFIG_SECURITY_LANDLOCK, and "landlock" in lsm=)';
  return `landlock_create_ruleset: ${errnoText(errno)}`;
}
