// bundle: process switch-supervisor
/**
 * The supervisor of one COMMAND (`run` and `pasta` with --switch-sockets): a child of the front end, in the host's
 * network namespace.
 *
 *   fd 0, 1   /dev/null
 *   fd 2      the dialogue with the front end (messages.ts)
 *   fd 3      a socket to which COMMAND's first process sends the listener of its filter
 *
 * It ends when the front end ends, at the latest by a signal of the kernel, and the front end ends when it ends.
 */
import { startFinished } from '#runtime/program';
import { EPOLLIN, Errno, MSG_NOSIGNAL } from '../sys/constants.ts';
import { receiveDescriptors } from '../sys/descriptor-messages.ts';
import { SysError } from '../sys/error.ts';
import { FilePages } from '../sys/file-pages.ts';
import { close, isOpen, setCloexec } from '../sys/io.ts';
import { strerror } from '../sys/libc.ts';
import { NativeBuffer } from '../sys/memory.ts';
import { exitNow, raiseOpenFiles } from '../sys/process.ts';
import { SockDiag } from '../sys/sock-diag.ts';
import { recv, send } from '../sys/socket.ts';
import { FlowRecords } from './flow-records.ts';
import { Loop } from './loop.ts';
import { type FromSupervisor, Lines, lineOf, type ToSupervisor } from './messages.ts';
import { DROP_PAGES_MS, enterSupervisorSandbox } from './sandbox.ts';
import { type Destination, Supervisor } from './supervisor.ts';

const DIALOGUE = 2;
const LISTENER_FROM = 3;
const CHUNK_BYTES = 65_536;
/** Descriptors that a supervisor may have: waiting connects. */
const MOST_DESCRIPTORS = 65_536;

class SupervisorProgram {
  readonly #loop = new Loop();
  readonly #lines = new Lines();
  readonly #chunk = new NativeBuffer(CHUNK_BYTES);
  readonly #asks = new Map<number, (allowed: boolean) => void>();
  readonly #received = new NativeBuffer(8);
  #supervisor: Supervisor | undefined;
  #records = new FlowRecords(undefined);
  #lastAsk = 0;
  #judging = false;

  run(): void {
    this.#loop.watch(DIALOGUE, EPOLLIN, () => this.#read());
    this.#loop.run();
  }

  #read(): void {
    const bytes = recv(DIALOGUE, this.#chunk.address, CHUNK_BYTES, 0);
    if (bytes === -Errno.EINTR || bytes === -Errno.EAGAIN) return;
    if (bytes <= 0) exitNow(0); // the front end has ended
    for (const line of this.#lines.add(Buffer.from(this.#chunk.u8.subarray(0, bytes)).toString()))
      this.#take(JSON.parse(line) as ToSupervisor);
  }

  #take(message: ToSupervisor): void {
    switch (message.kind) {
      case 'begin':
        this.#judging = message.judging;
        this.#begin(message);
        break;
      case 'judging':
        this.#judging = message.judging;
        tell({ kind: 'judging', ask: message.ask });
        break;
      case 'judged': {
        const answer = this.#asks.get(message.ask);
        this.#asks.delete(message.ask);
        answer?.(message.allowed);
        break;
      }
      case 'report': {
        const { counters } = this.#supervisor!;
        const active = message.active ? { active: this.#records.active() } : {};
        tell({ kind: 'report', ask: message.ask, counters, ...active });
        break;
      }
      case 'flows':
        tell({ kind: 'flows', ask: message.ask, ...this.#records.list(message.after, message.limit) });
        break;
      case 'end': {
        const supervisor = this.#supervisor!;
        const left = this.#records.end(message.ids, (cookies) => supervisor.endConnections(cookies));
        tell({ kind: 'end', ask: message.ask, left });
      }
    }
  }

  #begin({ noSwitch, outbound, explains, processId }: Extract<ToSupervisor, { kind: 'begin' }>): void {
    const records = new FlowRecords(openSockDiag());
    this.#records = records;
    this.#supervisor = new Supervisor(this.#loop, {
      ...{ noSwitch, outbound, explains, isLocked: true },
      onSwitched: (fd, { container, address, ...about }) =>
        records.add({ ...about, fd, peer: address, container: container.name }),
      log: (level, text) => tell({ kind: 'log', level, text }),
      judge: (destination, answer) => this.#judge(destination, answer),
    });
    this.#supervisor.onEnd = ({ name }) =>
      tell({ kind: 'log', level: 'debug', text: `${name}: no process is left` });
    this.#adopt(processId);
    const pages = new FilePages();
    enterSupervisorSandbox(this.#supervisor.procFd);
    tell({ kind: 'ready' });
    startFinished();
    this.#loop.at(performance.now() + DROP_PAGES_MS, () => pages.drop());
  }

  #judge({ address, port }: Destination, answer: (allowed: boolean) => void): void {
    if (!this.#judging) {
      answer(true);
      return;
    }
    const ask = ++this.#lastAsk;
    this.#asks.set(ask, answer);
    tell({ kind: 'judge', ask, address, port });
  }

  /** Take the listener of COMMAND's filter. */
  #adopt(processId: number): void {
    const descriptors: number[] = [];
    receiveDescriptors(LISTENER_FROM, this.#received, descriptors);
    const [listener] = descriptors;
    if (listener === undefined) throw new Error('the filter of COMMAND has no listener');
    close(LISTENER_FROM);
    const rights = this.#supervisor!.rightsOver(processId);
    if (rights < 0)
      throw new Error(
        `the descriptors of COMMAND cannot be reached (${strerror(-rights)}): is kernel.yama.ptrace_scope 3?`,
      );
    this.#supervisor!.addListener(listener, { name: 'COMMAND', processId });
  }
}

/** @returns undefined: the kernel was built without */
function openSockDiag(): SockDiag | undefined {
  try {
    return new SockDiag();
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    return undefined;
  }
}

/** If the front end has gone, the loop sees that next. */
function tell(message: FromSupervisor): void {
  const bytes = Buffer.from(lineOf(message));
  const copy = new NativeBuffer(bytes.length);
  copy.u8.set(bytes);
  for (let at = 0; at < bytes.length; ) {
    const r = send(DIALOGUE, copy.address + at, bytes.length - at, MSG_NOSIGNAL);
    if (r < 0 && r !== -Errno.EINTR) return;
    at += Math.max(r, 0);
  }
}

try {
  setCloexec(DIALOGUE);
  if (!isOpen(LISTENER_FROM)) throw new Error(`descriptor ${LISTENER_FROM}: ${strerror(Errno.EBADF)}`);
  raiseOpenFiles(MOST_DESCRIPTORS);
  new SupervisorProgram().run();
} catch (error) {
  tell({ kind: 'failed', text: (error as Error).message });
  exitNow(1);
}
