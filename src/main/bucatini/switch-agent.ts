// bundle: rare
/**
 * `bucatini switch-agent`: switches outgoing TCP of containers that other programs start. Their OCI runtime sends
 * the listener of each container's seccomp filter to our socket (switch/oci-socket.ts); switch/supervisor.ts
 * answers the calls. Everything happens on the main thread, in a loop of its own: the runtime's event loop does
 * not run.
 *
 * The service manager keeps the listeners: a call that no process can answer any more fails with ENOSYS, and a
 * container would never get its network back. So each listener is stored (FDSTORE), and the next agent of the same
 * service takes it back.
 */
import { existsSync, lstatSync, statSync, unlinkSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { Loop } from '../../switch/loop.ts';
import { OciSocket } from '../../switch/oci-socket.ts';
import { DROP_PAGES_MS, enterSupervisorSandbox } from '../../switch/sandbox.ts';
import { type Container, Supervisor } from '../../switch/supervisor.ts';
import { AF_UNIX, EPOLLIN, Errno, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM } from '../../sys/constants.ts';
import { isListening } from '../../sys/descriptor-messages.ts';
import { checked, SysError } from '../../sys/error.ts';
import { FilePages } from '../../sys/file-pages.ts';
import { unixAddress } from '../../sys/frame-socket.ts';
import { close, isOpen, setCloexec, setNonBlocking } from '../../sys/io.ts';
import { errnoText } from '../../sys/libc.ts';
import { RouteSocket } from '../../sys/netlink.ts';
import { exitNow, raiseOpenFiles } from '../../sys/process.ts';
import { isListener } from '../../sys/seccomp-notify.ts';
import { signalEvent } from '../../sys/signal-event.ts';
import { bind, connect, listen, localPath, socket } from '../../sys/socket.ts';
import { quoted, SOCKET_PATH_BYTES, UsageError } from '../cli/values.ts';
import { type Log, makeLog } from '../host/log.ts';
import { type PassedDescriptor, passedDescriptors, ServiceManager } from '../host/service-manager.ts';
import { SocketFile } from '../host/socket-file.ts';
import { closeInherited } from '../process/inherited-descriptors.ts';
import { holdOutputs, print } from '../process/output.ts';
import type { Settings } from './options.ts';
import { switchProfileText } from './switch-profile.ts';

/** Runtimes that wait for us while we serve others. */
const BACKLOG = 128;
const SIGHUP = 1;
const SIGINT = 2;
const SIGTERM = 15;
const ONLY_OWNER = 0o177;
/** Of a stored listener: PROCESS-CONTAINER, and "~N" where two would have one name. */
const STORED_NAME = /^([0-9]{1,10})-([^~]+)(?:~[0-9]+)?$/;
const UNIT = 'a socket unit of systemd';

/**
 * @param operands  with --print-profile: the profile to begin with, instead of the option's value
 * @param env       the caller's environment
 * @returns 0, if the profile was printed; else the process ends here
 * @throws UsageError, SysError
 */
export async function switchAgent(
  settings: Settings,
  operands: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<number> {
  const passed = takePassed(env);
  const path = socketPath(settings.socket, passed);
  if (settings.printProfile !== undefined) {
    print(profileText(settings.printProfile, operands, path));
    return 0;
  }
  if (operands.length > 0)
    throw new UsageError(
      `${quoted(operands[0]!)}: unexpected argument; leave it out, or add --print-profile`,
    );
  if (settings.interface !== undefined) requireInterface(settings.interface);
  const listening = passed.listening ?? listenAt(path);
  const file = passed.listening === undefined ? new SocketFile(path) : undefined;
  raiseOpenFiles();
  await holdOutputs();
  new Agent(settings, env, listening, file).run(passed.stored, path);
  return exitNow(0);
}

/** The service, from its start to its end. */
class Agent {
  readonly #log: Log;
  readonly #manager: ServiceManager;
  readonly #loop = new Loop();
  readonly #supervisor: Supervisor;
  readonly #listening: number;
  readonly #file: SocketFile | undefined;
  /** Names under which listeners are stored. */
  readonly #names = new Map<Container, string>();

  /** @param file  of a socket that we have made */
  constructor(settings: Settings, env: NodeJS.ProcessEnv, listening: number, file: SocketFile | undefined) {
    this.#log = makeLog(settings.logLevel);
    this.#manager = new ServiceManager(env);
    this.#listening = listening;
    this.#file = file;
    const { interface: device, noSwitch = [] } = settings;
    this.#supervisor = new Supervisor(this.#loop, {
      noSwitch,
      isLocked: false,
      explains: settings.logLevel === 'debug',
      ...(device !== undefined && { outbound: { device4: device, device6: device } }),
      log: this.#log,
    });
    this.#supervisor.onEnd = (container) => this.#ended(container);
  }

  /** Serve until a signal. */
  run(stored: readonly PassedDescriptor[], path: string): void {
    const signals = signalEvent([SIGHUP, SIGINT, SIGTERM]);
    this.#loop.watch(signals, EPOLLIN, () => this.#loop.stop());
    for (const { fd, name } of stored) this.#takeBack(fd, name);
    const server = new OciSocket(this.#loop, this.#listening, {
      user: process.geteuid!(),
      take: (fd, { name, processId }) =>
        this.#add(fd, { name, processId: processId || this.#processOf(name) }),
      refuse: (why) => this.#log('warning', why),
    });
    const pages = new FilePages();
    enterSupervisorSandbox(this.#supervisor.procFd, {
      calls: ['accept4'],
      removable: this.#file?.directories ?? [],
    });
    this.#log('info', `switch-agent: listening at ${path}`);
    this.#manager.notify('READY=1', this.#status());
    this.#loop.at(performance.now() + DROP_PAGES_MS, () => pages.drop());
    this.#loop.run();
    this.#manager.notify('STOPPING=1');
    server.close();
    this.#supervisor.interruptAll();
    this.#file?.close(true);
  }

  #status(): string {
    const count = this.#supervisor.listeners;
    return `STATUS=${count === 0 ? 'no container' : count === 1 ? '1 listener' : `${count} listeners`}`;
  }

  /** A listener that a runtime has sent. */
  #add(fd: number, container: Container): void {
    if (this.#supervisor.serves(fd)) {
      this.#log('warning', `refused the message of an OCI runtime: ${container.name}: it is served already`);
      close(fd);
      return;
    }
    const base = `${container.processId}-${container.name.replaceAll('~', '_')}`;
    const taken = new Set(this.#names.values());
    let name = base;
    for (let n = 2; taken.has(name); n++) name = `${base}~${n}`;
    if (!this.#manager.store(name, fd))
      this.#log('warning', `${container.name}: the service manager did not store the listener`);
    this.#serve(fd, container, name);
    this.#log('info', `${container.name}: serving process ${container.processId}`);
  }

  /** A process of a container that has a listener already: an `exec` runs in the same network. 0: not known. */
  #processOf(name: string): number {
    for (const container of this.#names.keys()) if (container.name === name) return container.processId;
    return 0;
  }

  /** A listener of an agent before us. */
  #takeBack(fd: number, name: string): void {
    const [, processId, container] = STORED_NAME.exec(name) ?? [];
    if (this.#supervisor.serves(fd)) {
      close(fd);
      return;
    }
    this.#serve(fd, { name: container ?? name, processId: Number(processId ?? 0) }, name);
    this.#log('info', `${container ?? name}: serving it again`);
  }

  #serve(fd: number, container: Container, name: string): void {
    this.#names.set(container, name);
    this.#supervisor.addListener(fd, container);
    this.#manager.notify(this.#status());
  }

  #ended(container: Container): void {
    this.#manager.remove(this.#names.get(container)!);
    this.#names.delete(container);
    this.#manager.notify(this.#status());
    this.#log('info', `${container.name}: no process is left`);
  }
}

interface Passed {
  readonly listening: number | undefined;
  readonly stored: readonly PassedDescriptor[];
}

/** What the service manager passed to us; everything else that was inherited is closed. */
function takePassed(env: NodeJS.ProcessEnv): Passed {
  const passed = passedDescriptors(env).filter(({ fd }) => isOpen(fd));
  const stored = passed.filter(({ fd }) => isListener(fd));
  const listening = passed.filter(({ fd }) => isListening(fd));
  if (listening.length > 1)
    throw new UsageError(`${UNIT} passed ${listening.length} sockets; write one ListenStream=`);
  const kept = [...stored, ...listening].map(({ fd }) => fd);
  closeInherited(kept);
  for (const { fd } of passed) if (!kept.includes(fd) && isOpen(fd)) close(fd);
  for (const fd of kept) setCloexec(fd);
  const [socket] = listening;
  if (socket !== undefined) setNonBlocking(socket.fd);
  return { listening: socket?.fd, stored };
}

/**
 * The absolute path of the socket.
 * @throws UsageError
 */
function socketPath(given: string | undefined, { listening }: Passed): string {
  const path = given === undefined ? undefined : resolve(given);
  if (listening !== undefined) {
    const name = localPath(listening);
    if (name === undefined || !name.startsWith('/'))
      throw new UsageError(`${UNIT} passed a socket that is not a UNIX socket with a path`);
    if (path !== undefined && path !== name)
      throw new UsageError(`--socket ${quoted(given!)}: ${UNIT} listens at ${name}; leave out the option`);
    return name;
  }
  if (path === undefined)
    throw new UsageError(
      '--socket is missing; write for example --socket "$XDG_RUNTIME_DIR/bucatini-switch.sock"',
    );
  if (Buffer.byteLength(path) >= SOCKET_PATH_BYTES)
    throw new UsageError(
      `--socket ${quoted(given!)}: ${path} is longer than ${SOCKET_PATH_BYTES - 1} bytes; write a shorter path`,
    );
  return path;
}

/** @throws UsageError */
function profileText(value: string, operands: readonly string[], path: string): string {
  const given = value === '' ? operands : [value, ...operands];
  if (given.length > 1)
    throw new UsageError(
      `${quoted(given[1]!)}: --print-profile takes one profile to begin with; leave it out`,
    );
  const [base] = given;
  try {
    return switchProfileText(base, path);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    throw new UsageError(`--print-profile${base === undefined ? ':' : ''} ${error.message}`);
  }
}

function requireInterface(name: string): void {
  const routes = new RouteSocket();
  const link = routes.linkByName(name);
  routes.close();
  if (link === undefined)
    throw new UsageError(`--interface ${quoted(name)}: there is no such interface on this host`);
}

/**
 * Make the socket; one that nobody listens on is replaced.
 * @throws UsageError, SysError
 */
function listenAt(path: string): number {
  const wrong = (why: string): never => {
    throw new UsageError(`--socket ${quoted(path)}: ${why}`);
  };
  const directory = dirname(path);
  if (!existsSync(directory)) wrong(`there is no directory ${directory}`);
  if (!statSync(directory).isDirectory()) wrong(`${directory} is not a directory`);
  const present = lstatSync(path, { throwIfNoEntry: false });
  if (present !== undefined) {
    if (!present.isSocket()) wrong('is there and is not a socket; write another path');
    if (somebodyListens(path)) wrong('another program listens on this socket; end it, or write another path');
    try {
      unlinkSync(path);
    } catch (error) {
      wrong(
        `a socket that nobody listens on is there, and cannot be removed (${(error as NodeJS.ErrnoException).code})`,
      );
    }
  }
  const type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  const fd = checked(socket(AF_UNIX, type, 0), 'socket', 'AF_UNIX');
  const { memory, bytes } = unixAddress(path);
  const mask = process.umask(ONLY_OWNER);
  const bound = bind(fd, memory.address, bytes);
  process.umask(mask);
  if (bound < 0) wrong(`cannot be made: ${errnoText(-bound)}`);
  checked(listen(fd, BACKLOG), 'listen', path);
  return fd;
}

function somebodyListens(path: string): boolean {
  const fd = checked(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), 'socket', 'AF_UNIX');
  const { memory, bytes } = unixAddress(path);
  const r = connect(fd, memory.address, bytes);
  close(fd);
  if (r < 0 && r !== -Errno.ECONNREFUSED && r !== -Errno.EAGAIN && r !== -Errno.ENOENT)
    throw new SysError('connect', path, -r);
  return r >= 0 || r === -Errno.EAGAIN; // EAGAIN: its backlog is full
}
