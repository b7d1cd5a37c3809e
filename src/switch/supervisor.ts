/**
 * The supervisor of containers with socket switching. It gets each connect(2), bind(2) and listen(2) of their
 * programs and carries it out for them:
 *
 *   connect, TCP, to a destination beyond the host     on a new socket of the host's, which takes the place of the
 *                                                      program's own
 *   connect, bind, listen, TCP, all others             on the program's own socket, of which we get a duplicate
 *   all other sockets (UDP, UNIX, ...)                 by the kernel, as without us
 *
 * A call that the kernel carries out is read by it again: another thread of the program may have changed the address,
 * or what is open under the number, since we looked. So no decision about a socket of the host's is left to such
 * a call. The address that we connect to is our own copy, and what we connect is our own descriptor. That a program
 * exchanges sockets while the kernel carries out a call for another kind of socket cannot be seen here; COMMAND of
 * ours is therefore in a Landlock domain in which connect and bind of TCP sockets fail (sys/landlock.ts), and each
 * socket of the host's is bound to an interface (SO_BINDTODEVICE), so that it cannot reach the host's loopback.
 *
 * Blocking connects wait here, not in a thread: the socket is watched, and the call is answered when the kernel
 * has connected it. A signal ends the wait of the program at any time; the connection then goes on, and the next
 * connect() of the same socket waits for it again.
 */
import { addressText, isV4Mapped } from '../proto/address.ts';
import { readU16 } from '../proto/be.ts';
import { capget, capset } from '../sys/capability.ts';
import {
  AF_INET,
  AF_INET6,
  CAP_NET_BIND_SERVICE,
  EPOLLERR,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  Errno,
  IPPROTO_TCP,
  O_NONBLOCK,
  SHUT_RDWR,
  SO_BINDTODEVICE,
  SO_COOKIE,
  SO_DOMAIN,
  SO_ERROR,
  SO_NETNS_COOKIE,
  SO_PROTOCOL,
  SO_TYPE,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
  TCP_CLOSE,
  TCP_INFO,
  TCP_SYN_SENT,
} from '../sys/constants.ts';
import { close, fcntlGetFlags, setNonBlocking } from '../sys/io.ts';
import { NativeBuffer } from '../sys/memory.ts';
import { isSameFile, readMemoryOf, Threads } from '../sys/peer-process.ts';
import {
  answer,
  letPass,
  Notification,
  replaceDescriptor,
  stillWaits,
  wakeTogether,
} from '../sys/seccomp-notify.ts';
import {
  bind,
  connect,
  getsockoptBytes,
  getsockoptInt,
  listen,
  localAddress,
  setsockoptBytes,
  shutdown,
  sockaddrRead,
  socket,
} from '../sys/socket.ts';
import { Destinations, type HostRoute, type Outbound } from './destinations.ts';
import { makesEpollSet, type SupervisedCall, supervisedCall } from './filter.ts';
import type { Loop } from './loop.ts';
import { RoutesInside } from './routes-inside.ts';
import { connectTimeout, copyOptions, isBoundToItsNetwork } from './socket-options.ts';

/** sizeof(struct sockaddr_storage): the kernel takes no longer address. */
const LONGEST_ADDRESS = 128;
const AF_UNSPEC = 0;
/** O_ASYNC, <asm-generic/fcntl.h>: signals of a socket, which a copy does not send. */
const O_ASYNC = 0x2000;
const UNPRIVILEGED_PORT = 1024;
/** Calls that wait at the same time, of all containers: more are refused with EAGAIN, as by a full table of ports. */
const MOST_WAITING = 16_384;
/** Results that are kept for threads that repeat an interrupted call. */
const MOST_UNHEARD = 1024;
/** How often calls that wait are looked at: their thread may have been killed. */
const SWEEP_MS = 1000;

/** What happened, since the start. */
export interface SwitchCounters {
  /** Connects that got a socket of the host's. */
  switched: number;
  /** Calls left to the kernel, or carried out on the program's own socket. */
  passed: number;
  /** Calls on a socket of the host's that would have led elsewhere. */
  refused: number;
  /** Connects on sockets of the host's that failed. */
  failed: number;
}

/** A destination that a policy has to judge. */
export interface Destination {
  /** As text. */
  readonly address: string;
  readonly port: number;
}

export interface SupervisorOptions {
  /** Addresses and ranges that stay inside. */
  readonly noSwitch: readonly string[];
  readonly outbound?: Outbound;
  /**
   * The containers' programs cannot connect or bind TCP sockets themselves (sys/landlock.ts), and we are in their user
   * namespace. Else we own it: then we have all capabilities in it and cannot give one up for a moment
   * (user_namespaces(7)), so the kernel carries out a bind() to a port below 1024, with the program's own rights.
   */
  readonly isLocked: boolean;
  /** Log for each connect() what becomes of it, and why. */
  readonly explains?: boolean;
  readonly log: (level: 'debug' | 'info' | 'warning' | 'error', text: string) => void;
  /** Ask whether a destination is allowed; absent: all are. `answer` may be called later. */
  readonly judge?: ((destination: Destination, answer: (allowed: boolean) => void) => void) | undefined;
  /**
   * A socket of the host's has taken the place of a program's.
   * @param socket  our descriptor of it, closed after the call
   */
  readonly onSwitched?: (socket: number, about: Switched) => void;
}

/** What a connection is about that has been switched. */
export interface Switched {
  readonly container: Container;
  /** Interface that its socket is bound to. */
  readonly device: string;
  /** The sockaddr of its destination; valid during the call. */
  readonly address: Uint8Array;
}

/** What a listener is about. */
export interface Container {
  readonly name: string;
  /** A process in the container's network namespace, in our PID namespace. */
  readonly processId: number;
}

/** A listener and its container. */
interface Listener {
  readonly fd: number;
  readonly container: Container;
  /** The container's network namespace, as the link in /proc shows it. */
  readonly namespace: string;
  /** Of that namespace. */
  readonly routes: RoutesInside;
  /**
   * All its calls are left to the kernel. The namespace is the host's: all its sockets are. Or others are served as well
   * and it has /dev/fuse: it could stop us, by memory that it does not deliver.
   */
  readonly isLeftAlone: boolean;
  /** How many epoll sets its programs have made; undefined: the filter does not tell, as far as we have seen. */
  epollSets: number | undefined;
  /** SO_NETNS_COOKIE of its sockets, once one has been seen. */
  cookie: bigint | undefined;
}

/** The call at hand: who made it, and what it is about. */
interface Call {
  readonly listener: Listener;
  readonly idLow: number;
  readonly idHigh: number;
  readonly thread: number;
  /** Number of the socket in the program. */
  readonly descriptor: number;
  readonly name: SupervisedCall | undefined;
  /** Bytes of the address; of listen: 0. */
  readonly length: number;
}

/** A result that a program has not got, as a signal interrupted its call in the meantime. */
interface Unheard {
  readonly name: SupervisedCall | undefined;
  readonly socket: bigint;
  readonly address: Uint8Array;
  readonly result: number;
}

/** A connect() that waits. */
interface Waiting {
  readonly call: Call;
  /** Ours, of the socket that is being connected. */
  readonly socket: number;
  readonly isHosts: boolean;
  readonly address: Uint8Array;
  /** SO_COOKIE of the socket. */
  readonly cookie: bigint | undefined;
  cancelLimit: () => void;
}

export class Supervisor {
  readonly #loop: Loop;
  readonly #options: SupervisorOptions;
  readonly #threads = new Threads();
  readonly #destinations: Destinations;
  readonly #listeners = new Map<number, Listener>();
  readonly #waiting = new Map<number, Waiting>();
  /** The same by thread: a new call of a thread says that its last one was interrupted. */
  readonly #waitingOf = new Map<number, Waiting>();
  /** By thread. */
  readonly #unheard = new Map<number, Unheard>();
  readonly #notification = new Notification();
  /** The address of the call at hand: our copy. */
  readonly #address = new NativeBuffer(LONGEST_ADDRESS);
  readonly #words = new Uint32Array(4);
  readonly #peerWords = new Uint32Array(4);
  readonly #arguments = new NativeBuffer(16);
  readonly #cookie = new NativeBuffer(8);
  readonly #deviceName = new NativeBuffer(16);
  readonly #hostCookie: bigint;
  /** The host's network namespace, as the link in /proc shows it. */
  readonly #hostNamespace: string;
  #asked = 0;
  #sweeps = false;
  readonly counters: SwitchCounters = { switched: 0, passed: 0, refused: 0, failed: 0 };

  /** Opens sockets in the network namespace of the calling thread: the host's. @throws SysError */
  constructor(loop: Loop, options: SupervisorOptions) {
    this.#loop = loop;
    this.#options = options;
    this.#destinations = new Destinations(options.noSwitch, options.outbound ?? {});
    loop.watch(this.#destinations.monitorFd, EPOLLIN, () => this.#destinations.changed());
    const probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    this.#hostCookie = this.#cookieOf(probe, SO_NETNS_COOKIE) ?? 0n;
    close(probe);
    this.#hostNamespace = this.#threads.networkNamespace(process.pid);
    if (this.#hostCookie === 0n)
      throw new Error('socket switching needs SO_NETNS_COOKIE, which Linux has from 5.14 on');
  }

  /** Descriptor of /proc, which has to stay usable in a sandbox. */
  get procFd(): number {
    return this.#threads.directory;
  }

  /** How many listeners there are. */
  get listeners(): number {
    return this.#listeners.size;
  }

  /**
   * Whether a listener is served already, under another number. To wait for a call of one that two events have been
   * seen of would block this process, and all containers with it.
   */
  serves(fd: number): boolean {
    return [...this.#listeners.keys()].some((one) => isSameFile(one, fd));
  }

  /**
   * Answer the calls that a filter notifies of.
   * @param fd  the listener, ours from now on: closed when no process has the filter any more
   */
  addListener(fd: number, container: Container): void {
    wakeTogether(fd);
    const { processId } = container;
    const namespace = this.#threads.networkNamespace(processId);
    const routes = new RoutesInside(
      this.#threads.hold(`${processId}/net/route`),
      this.#threads.hold(`${processId}/net/ipv6_route`),
    );
    const isOnHostNetwork = namespace !== '' && namespace === this.#hostNamespace;
    const hasFuse = !this.#options.isLocked && this.#threads.hasFuse(processId);
    if (hasFuse)
      this.#options.log(
        'info',
        `${container.name}: has /dev/fuse, so it is not switched (docs/switching.md)`,
      );
    const listener: Listener = {
      ...{ fd, container, namespace, routes, isLeftAlone: isOnHostNetwork || hasFuse },
      epollSets: this.#options.isLocked ? 0 : undefined,
      cookie: undefined,
    };
    this.#listeners.set(fd, listener);
    this.#loop.watch(fd, EPOLLIN, (events) => this.#ready(listener, events));
  }

  /**
   * End switched connections, wherever a program of a container has their sockets: it reads the end, and cannot
   * write any more.
   * @param cookies  SO_COOKIE of each socket, by its inode
   * @returns inodes of those that were ended. A socket that is just being passed to another process is not found
   */
  endConnections(cookies: ReadonlyMap<number, bigint>): ReadonlySet<number> {
    const ended = new Set<number>();
    this.#threads.findSockets(new Set(cookies.keys()), (process, descriptor, inode) => {
      if (ended.has(inode)) return;
      const socket = this.#threads.duplicate(process, descriptor);
      if (socket < 0) return;
      const isIt = this.#cookieOf(socket, SO_COOKIE) === cookies.get(inode);
      if (isIt && shutdown(socket, SHUT_RDWR) === 0) ended.add(inode);
      close(socket);
    });
    return ended;
  }

  /**
   * Whether we may do with a process of a container what we have to.
   * @returns 0 or -errno; -EPERM: the kernel forbids it (Yama), or it has more rights than we have
   */
  rightsOver(processId: number): number {
    const r = this.#threads.duplicate(processId, 2);
    if (r < 0) return r === -Errno.EBADF ? 0 : r;
    close(r);
    return 0;
  }

  /** Called when the last process of a listener has ended. */
  onEnd: ((container: Container) => void) | undefined;

  #ready(listener: Listener, events: number): void {
    // A failure: the call was interrupted before it was read. One call a turn, so that no container waits for another.
    if ((events & EPOLLIN) !== 0) {
      if (this.#notification.receive(listener.fd) === 0) this.#serve(listener);
    } else if ((events & (EPOLLHUP | EPOLLERR)) !== 0) this.#end(listener);
  }

  /**
   * Answer the calls that wait, before this process ends and another takes the listeners: as if a signal had come.
   * The connections go on, and who calls connect() again waits again.
   */
  interruptAll(): void {
    for (const waiting of this.#waiting.values()) {
      this.#answer(waiting.call, -Errno.EINTR);
      this.#forget(waiting);
    }
  }

  #end(listener: Listener): void {
    this.#loop.unwatch(listener.fd);
    for (const waiting of this.#waiting.values())
      if (waiting.call.listener === listener) this.#forget(waiting);
    this.#listeners.delete(listener.fd);
    listener.routes.close();
    close(listener.fd);
    this.onEnd?.(listener.container);
  }

  /** Answer the call in #notification. */
  #serve(listener: Listener): void {
    const n = this.#notification;
    const { idLow, idHigh, thread } = n;
    if (listener.isLeftAlone) {
      this.counters.passed++;
      letPass(listener.fd, idLow, idHigh);
      return;
    }
    const found = supervisedCall(n.architecture, n.call, n.int(0));
    let descriptor = n.int(0);
    let second = n.address(1);
    let third = n.int(2);
    if (found?.inMemory === true) {
      const read = readMemoryOf(thread, this.#arguments.address, n.address(1), 12);
      if (read < 12) {
        answer(listener.fd, idLow, idHigh, -Errno.EFAULT);
        return;
      }
      [descriptor, second, third] = [
        this.#arguments.i32[0]!,
        this.#arguments.u32[1]!,
        this.#arguments.i32[2]!,
      ];
    }
    const name = found?.call;
    const call: Call = {
      ...{ listener, idLow, idHigh, thread, descriptor, name },
      length: name === 'listen' ? 0 : third,
    };
    if (found === undefined && makesEpollSet(n.architecture, n.call)) {
      listener.epollSets = (listener.epollSets ?? 0) + 1;
      letPass(listener.fd, idLow, idHigh);
      return;
    }
    if (found === undefined || thread === 0) {
      this.#pass(call);
      return;
    }
    const interrupted = this.#waitingOf.get(thread);
    if (interrupted !== undefined) this.#forget(interrupted);
    const theirs = this.#threads.duplicate(thread, descriptor);
    if (theirs < 0) {
      this.#withoutSocket(call, theirs);
      return;
    }
    if (!isTcp(theirs)) {
      // The kernel would look again what is open under the number. A UNIX socket's path and credentials are the
      // program's; listen() has neither, but its clients then see the process id of its maker: ours.
      // One of the host's has become another kind since (TCP_ULP).
      if (this.#cookieOf(theirs, SO_NETNS_COOKIE) === this.#hostCookie)
        this.#answer(call, this.#refuse(-Errno.EPERM));
      else if (found.call === 'listen' && this.#options.isLocked)
        this.#answer(call, listen(theirs, second | 0));
      else this.#pass(call);
      close(theirs);
      return;
    }
    let kept = false;
    try {
      kept = this.#serveTcp(call, theirs, second);
    } finally {
      if (!kept) close(theirs);
    }
  }

  /** @param error  why there is no duplicate of the program's socket */
  #withoutSocket(call: Call, error: number): void {
    const isOurs = error === -Errno.EMFILE || error === -Errno.ENFILE || error === -Errno.ENOMEM;
    if (isOurs) this.#answer(call, -Errno.EAGAIN);
    else if (error === -Errno.EBADF || (call.name === 'listen' && this.#options.isLocked))
      this.#answer(call, error);
    else this.#pass(call);
  }

  /**
   * @param theirs  a duplicate of the program's socket
   * @returns whether `theirs` is kept
   */
  #serveTcp(call: Call, theirs: number, second: number): boolean {
    const { name, length } = call;
    const namespace = this.#cookieOf(theirs, SO_NETNS_COOKIE);
    const isHosts = namespace === this.#hostCookie;
    if (length < 0 || length > LONGEST_ADDRESS) {
      this.#answer(call, -Errno.EINVAL);
      return false;
    }
    this.#address.u8.fill(0);
    if (length > 0 && readMemoryOf(call.thread, this.#address.address, second, length) < length) {
      this.#answer(call, -Errno.EFAULT);
      return false;
    }
    if (!this.#isCurrent(call)) return false;
    const unheard = this.#unheardOf(call, theirs);
    if (unheard !== undefined) {
      this.#answer(call, unheard);
      return false;
    }
    if (name === 'connect')
      return isHosts
        ? this.#connectAgain(call, theirs, length)
        : this.#connectFirst(call, theirs, length, namespace);
    if (isHosts) this.#answer(call, this.#refuse(-Errno.EPERM));
    else if (name === 'listen') this.#answer(call, listen(theirs, second | 0));
    else if (!this.#options.isLocked && this.#needsRights()) this.#pass(call);
    else this.#answer(call, this.#bindInside(call, theirs, length));
    return false;
  }

  /** A bind() inside, with the rights of the program for ports below 1024. */
  #bindInside(call: Call, theirs: number, length: number): number {
    this.counters.passed++;
    if (!this.#needsRights() || this.#threads.hasCapability(call.thread, CAP_NET_BIND_SERVICE))
      return bind(theirs, this.#address.address, length);
    const ours = capget();
    capset({ ...ours, effective: ours.effective & ~(1n << BigInt(CAP_NET_BIND_SERVICE)) });
    const r = bind(theirs, this.#address.address, length);
    capset(ours);
    return r;
  }

  /** Whether the port in #address is below 1024. */
  #needsRights(): boolean {
    const port = sockaddrRead(this.#address.u8, 0, this.#words, 0);
    return port > 0 && port < UNPRIVILEGED_PORT;
  }

  /**
   * A connect() on a socket of the container's network.
   * @returns whether `theirs` is kept
   */
  #connectFirst(call: Call, theirs: number, length: number, namespace: bigint | undefined): boolean {
    const isContainers = namespace !== undefined && this.#isContainers(call, namespace);
    const route = isContainers ? this.#wayOut(call, theirs, length) : 'a socket of a namespace inside';
    this.#explain(route);
    if (typeof route === 'string') return this.#connectInside(call, theirs, length);
    return this.#judged(call, theirs, length, (allowed) =>
      allowed ? this.#switch(call, theirs, length, route) : this.#connectInside(call, theirs, length),
    );
  }

  /**
   * Ask the policy about the destination in #address and #words.
   * @param then  carries the call out, with #address as it was; returns whether `theirs` is kept
   * @returns whether `theirs` is kept
   */
  #judged(call: Call, theirs: number, length: number, then: (allowed: boolean) => boolean): boolean {
    const { judge } = this.#options;
    if (judge === undefined) return then(true);
    if (this.#asked >= MOST_WAITING) {
      this.#answer(call, -Errno.EAGAIN);
      return false;
    }
    this.#asked++;
    const address = this.#address.u8.slice(0, length);
    judge({ address: addressText(this.#words, 0), port: readU16(address, 2) }, (allowed) => {
      this.#asked--;
      let kept = false;
      if (this.#isCurrent(call)) {
        this.#address.u8.set(address);
        kept = then(allowed);
      }
      if (!kept) close(theirs);
    });
    return true;
  }

  /** The way of a connect() through a socket of the host's; or why it stays inside, in words. */
  #wayOut(call: Call, theirs: number, length: number): HostRoute | string {
    const { u8 } = this.#address;
    const family = u8[0]! | (u8[1]! << 8);
    if (family !== getsockoptInt(theirs, SOL_SOCKET, SO_DOMAIN)) return 'an address of another family';
    if (family === AF_INET ? length < 16 : family !== AF_INET6 || length < 24)
      return 'an address that is too short';
    sockaddrRead(u8, 0, this.#words, 0);
    // A bound socket has its address and its port inside; a connected one is not connected again.
    const port = localAddress(theirs, this.#peerWords, 0);
    if (port !== 0 || !isZero(this.#peerWords)) return 'the socket is bound or connected';
    const flags = fcntlGetFlags(theirs);
    if (flags < 0 || (flags & O_ASYNC) !== 0 || isBoundToItsNetwork(theirs))
      return 'the socket has options that belong to the network inside';
    const route = this.#destinations.routeTo(this.#words, call.listener.routes);
    if (typeof route === 'string') return route;
    const { thread, descriptor } = call;
    return this.#threads.isInEpollSet(thread, descriptor, call.listener.epollSets)
      ? 'the socket is in an epoll set, or the program has very many descriptors'
      : route;
  }

  /** Log what becomes of a connect() to the address in #words. */
  #explain(route: HostRoute | string): void {
    if (this.#options.explains !== true) return;
    const to = `connect to ${addressText(this.#words, 0)}, port ${readU16(this.#address.u8, 2)}`;
    const outcome = typeof route === 'string' ? `stays inside: ${route}` : `switched, by ${route.device}`;
    this.#options.log('debug', `${to}: ${outcome}`);
  }

  /**
   * Whether a socket belongs to the container's own network namespace, not to one inside it: by the cookie of the first
   * socket that a thread in the container's namespace has connected.
   */
  #isContainers({ listener, thread }: Call, namespace: bigint): boolean {
    if (listener.cookie === undefined) {
      if (listener.namespace === '' || this.#threads.networkNamespace(thread) !== listener.namespace)
        return false;
      listener.cookie = namespace;
    }
    return namespace === listener.cookie;
  }

  /**
   * Connect a socket of the host's and put it in place of the program's.
   * @returns whether `theirs` is kept: never
   */
  #switch(call: Call, theirs: number, length: number, { device }: HostRoute): boolean {
    const family = this.#address.u8[0]!;
    const bytes = family === AF_INET ? 16 : Math.min(length, 28);
    const ours = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (ours < 0) return this.#connectInside(call, theirs, length);
    const isBlocking = (fcntlGetFlags(theirs) & O_NONBLOCK) === 0;
    this.#deviceName.u8.fill(0);
    this.#deviceName.u8.set(Buffer.from(device).subarray(0, 15));
    const bound = setsockoptBytes(ours, SOL_SOCKET, SO_BINDTODEVICE, this.#deviceName.address, 16);
    if (bound < 0) {
      // Without it the socket could be aimed at the host's loopback.
      close(ours);
      return this.#connectInside(call, theirs, length);
    }
    copyOptions(theirs, ours, family);
    let r = connect(ours, this.#address.address, bytes);
    if ((r === 0 || r === -Errno.EINPROGRESS) && this.#isOwnAddress(ours)) {
      // The host got the address since its routes were looked at.
      close(ours);
      return this.#connectInside(call, theirs, length);
    }
    const { listener, idLow, idHigh, thread, descriptor } = call;
    const cloexec = this.#threads.closeOnExec(thread, descriptor);
    // A near peer has answered by now: its refusal leaves the program's socket in place.
    if (r === -Errno.EINPROGRESS && isBlocking) r = connect(ours, this.#address.address, bytes);
    if (r === -Errno.EALREADY) r = -Errno.EINPROGRESS;
    if (r < 0 && r !== -Errno.EINPROGRESS) {
      close(ours);
      this.counters.failed++;
      this.#answer(call, r);
      return false;
    }
    if (isBlocking) setNonBlocking(ours, false);
    if (replaceDescriptor(listener.fd, idLow, idHigh, ours, descriptor, cloexec) < 0) {
      close(ours); // the program was interrupted, or has closed the socket
      this.#pass(call);
      return false;
    }
    this.counters.switched++;
    const { container } = listener;
    const { u8 } = this.#address;
    this.#options.onSwitched?.(ours, { container, device, address: u8 });
    if (r === 0 || !isBlocking) {
      this.#answer(call, r);
      close(ours);
    } else this.#wait(call, ours, true, bytes, r);
    return false;
  }

  /** Whether a socket that connects to #address has the same address itself. */
  #isOwnAddress(ours: number): boolean {
    if (localAddress(ours, this.#peerWords, 0) < 0) return false;
    sockaddrRead(this.#address.u8, 0, this.#words, 0);
    return this.#words.every((word, i) => word === this.#peerWords[i]);
  }

  /**
   * A connect() on a socket of the host's that has been put in place before: after an interrupted or a failed one,
   * or to ask for its outcome.
   * @returns whether `theirs` is kept
   */
  #connectAgain(call: Call, theirs: number, length: number): boolean {
    const { u8 } = this.#address;
    const family = u8[0]! | (u8[1]! << 8);
    if (family === AF_UNSPEC) {
      this.#answer(call, connect(theirs, this.#address.address, length)); // dissolves the connection
      return false;
    }
    const isIp = family === AF_INET || family === AF_INET6;
    sockaddrRead(u8, 0, this.#words, 0);
    if (!isIp || length < (family === AF_INET ? 16 : 24)) {
      this.#answer(call, -Errno.EINVAL);
      return false;
    }
    const bytes = family === AF_INET ? 16 : Math.min(length, 28);
    // Of a connection that is there or on its way, the kernel does not look at the address. It must not become one to
    // another place if it fails at this moment, so only the same device will do.
    const route = this.#destinations.routeTo(this.#words, call.listener.routes);
    if (typeof route === 'string' || this.#deviceOf(theirs) !== route.device) {
      this.#answer(call, this.#refuse(refusalOf(theirs)));
      return false;
    }
    return this.#judged(call, theirs, bytes, (allowed) => {
      if (allowed) return this.#connectKept(call, theirs, true, bytes);
      this.#answer(call, this.#refuse(-Errno.ECONNABORTED));
      return false;
    });
  }

  #deviceOf(ours: number): string {
    const bytes = getsockoptBytes(ours, SOL_SOCKET, SO_BINDTODEVICE, this.#deviceName.address, 16);
    return bytes <= 0
      ? ''
      : Buffer.from(this.#deviceName.u8.subarray(0, bytes)).toString().replace(/\0.*$/, '');
  }

  #connectInside(call: Call, theirs: number, length: number): boolean {
    this.counters.passed++;
    return this.#connectKept(call, theirs, false, length);
  }

  /**
   * Connect the program's socket itself, to the address in #address.
   * @returns whether the socket is kept: the call waits
   */
  #connectKept(call: Call, theirs: number, isHosts: boolean, length: number): boolean {
    const isBlocking = (fcntlGetFlags(theirs) & O_NONBLOCK) === 0;
    const r = connectWithoutWaiting(theirs, isBlocking, this.#address.address, length);
    const waits = r === -Errno.EINPROGRESS || r === -Errno.EALREADY;
    if (!isBlocking || !waits) {
      this.#answer(call, r);
      return false;
    }
    return this.#wait(call, theirs, isHosts, length, r);
  }

  /**
   * Answer a blocking connect() when the socket is connected.
   * @param late  the answer if SO_SNDTIMEO passes first
   * @returns true: `socket` is kept
   */
  #wait(call: Call, socket: number, isHosts: boolean, length: number, late: number): boolean {
    const waiting: Waiting = {
      ...{ call, socket, isHosts, address: this.#address.u8.slice(0, length) },
      cookie: this.#cookieOf(socket, SO_COOKIE),
      cancelLimit: () => {},
    };
    const watched =
      this.#waiting.size < MOST_WAITING
        ? this.#loop.watch(socket, EPOLLOUT, () => this.#finish(waiting))
        : -Errno.EAGAIN;
    if (watched < 0) {
      this.#answer(call, -Errno.EAGAIN);
      close(socket);
      return true;
    }
    this.#waiting.set(socket, waiting);
    this.#waitingOf.set(call.thread, waiting);
    const limit = connectTimeout(socket);
    if (limit > 0)
      waiting.cancelLimit = this.#loop.at(performance.now() + limit, () => {
        this.#answer(call, late);
        this.#forget(waiting);
      });
    if (!this.#sweeps) {
      this.#sweeps = true;
      this.#loop.at(performance.now() + SWEEP_MS, () => this.#sweep());
    }
    return true;
  }

  /** The kernel has connected the socket, or has given up: connect() tells which, and does not wait. */
  #finish(waiting: Waiting): void {
    const { call, socket, address, cookie } = waiting;
    // Without this, connect() would take a failure that the program has not been told, or begin anew after it.
    if (!this.#isCurrent(call)) {
      this.#forget(waiting);
      return;
    }
    this.#address.u8.set(address);
    const isBlocking = (fcntlGetFlags(socket) & O_NONBLOCK) === 0;
    const r =
      failureOf(socket) ?? connectWithoutWaiting(socket, isBlocking, this.#address.address, address.length);
    if (r === -Errno.EALREADY || r === -Errno.EINPROGRESS) return;
    if (r < 0 && r !== -Errno.EISCONN && waiting.isHosts) this.counters.failed++;
    this.#answer(call, r === -Errno.EISCONN ? 0 : r);
    this.#forget(waiting);
    if (r === 0 || r === -Errno.EISCONN) return;
    // Other threads that wait for the same socket: the kernel tells the failure to one of them.
    for (const other of this.#waiting.values()) {
      if (other.cookie !== cookie || cookie === undefined) continue;
      this.#answer(other.call, -Errno.ECONNABORTED);
      this.#forget(other);
    }
  }

  #forget(waiting: Waiting): void {
    waiting.cancelLimit();
    this.#loop.unwatch(waiting.socket);
    this.#waiting.delete(waiting.socket);
    if (this.#waitingOf.get(waiting.call.thread) === waiting) this.#waitingOf.delete(waiting.call.thread);
    close(waiting.socket);
  }

  /** Forget the calls that do not wait any more, of threads that were interrupted or killed. */
  #sweep(): void {
    for (const waiting of this.#waiting.values()) if (!this.#isCurrent(waiting.call)) this.#forget(waiting);
    this.#sweeps = this.#waiting.size > 0;
    if (this.#sweeps) this.#loop.at(performance.now() + SWEEP_MS, () => this.#sweep());
  }

  /** @param name  SO_NETNS_COOKIE or SO_COOKIE */
  #cookieOf(socket: number, name: number): bigint | undefined {
    const { address, dv } = this.#cookie;
    return getsockoptBytes(socket, SOL_SOCKET, name, address, 8) === 8 ? dv.getBigUint64(0, true) : undefined;
  }

  /**
   * The result of the same call of the same thread, which was carried out but interrupted before it was answered. A
   * program that repeats it, or a kernel that restarts it, must not find that it is done already.
   */
  #unheardOf({ thread, name, length }: Call, theirs: number): number | undefined {
    if (this.#unheard.size === 0) return undefined;
    const unheard = this.#unheard.get(thread);
    this.#unheard.delete(thread);
    if (unheard === undefined || unheard.name !== name || unheard.address.length !== length) return undefined;
    if (unheard.socket !== this.#cookieOf(theirs, SO_COOKIE)) return undefined;
    return unheard.address.every((byte, i) => byte === this.#address.u8[i]) ? unheard.result : undefined;
  }

  #isCurrent({ listener, idLow, idHigh }: Call): boolean {
    return stillWaits(listener.fd, idLow, idHigh);
  }

  #refuse(error: number): number {
    this.counters.refused++;
    return error;
  }

  /** @param result  0 or -errno of a call that was carried out on the socket at its number */
  #answer(call: Call, result: number): void {
    const { listener, idLow, idHigh, thread, descriptor, name, length } = call;
    if (answer(listener.fd, idLow, idHigh, result) !== -Errno.ENOENT) return;
    // Where the socket is another one by now, or the thread has been killed, nothing is kept, or not for long.
    const socket = this.#threads.duplicate(thread, descriptor);
    if (socket < 0) return;
    const cookie = this.#cookieOf(socket, SO_COOKIE);
    close(socket);
    if (cookie === undefined) return;
    if (this.#unheard.size >= MOST_UNHEARD) this.#unheard.clear();
    this.#unheard.set(thread, { name, socket: cookie, address: this.#address.u8.slice(0, length), result });
  }

  #pass({ listener, idLow, idHigh }: Call): void {
    this.counters.passed++;
    letPass(listener.fd, idLow, idHigh);
  }
}

/** Not a raw socket for TCP's number, nor MPTCP. */
const isTcp = (socket: number): boolean =>
  getsockoptInt(socket, SOL_SOCKET, SO_PROTOCOL) === IPPROTO_TCP &&
  getsockoptInt(socket, SOL_SOCKET, SO_TYPE) === SOCK_STREAM;

const isZero = (words: Uint32Array): boolean =>
  words[3] === 0 && (isV4Mapped(words, 0) || (words[0] === 0 && words[1] === 0 && words[2] === 0));

/** What connect() says of a socket that is not to be connected (again): the same as the kernel, if it says something. */
function refusalOf(socket: number): number {
  const state = getsockoptInt(socket, IPPROTO_TCP, TCP_INFO) & 0xff;
  if (state === TCP_SYN_SENT) return -Errno.EALREADY;
  return state === TCP_CLOSE ? -Errno.ECONNABORTED : -Errno.EISCONN;
}

/** A struct sockaddr of AF_UNSPEC: connect() to it dissolves a connection. */
const nowhere = new NativeBuffer(16);

/**
 * Why a connection on its way has ended. connect() would tell the same of one that the peer has refused, but begins
 * anew after a shutdown() or connect(AF_UNSPEC) of another thread, which natively end the wait as well.
 * @returns -errno; undefined: it has not ended
 */
function failureOf(socket: number): number | undefined {
  // The state is the first byte of struct tcp_info.
  if ((getsockoptInt(socket, IPPROTO_TCP, TCP_INFO) & 0xff) !== TCP_CLOSE) return undefined;
  const error = getsockoptInt(socket, SOL_SOCKET, SO_ERROR);
  connect(socket, nowhere.address, 16); // as the kernel does after a failure
  return -(error > 0 ? error : Errno.ECONNABORTED);
}

/**
 * connect(2) that does not wait. The flag belongs to the socket, which the program has too: it is set for the moment of
 * this call.
 */
function connectWithoutWaiting(socket: number, isBlocking: boolean, address: number, length: number): number {
  if (isBlocking) setNonBlocking(socket);
  const r = connect(socket, address, length);
  if (isBlocking) setNonBlocking(socket, false);
  return r;
}
