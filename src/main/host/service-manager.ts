// bundle: rare
/**
 * systemd as our service manager: messages to it (sd_notify(3)), and descriptors from it (sd_listen_fds(3)), which are
 * those of socket units and those that it has stored for us (FDSTORE). Cold. Without systemd nothing happens.
 */
import { AF_UNIX, SO_SNDTIMEO, SOCK_CLOEXEC, SOCK_DGRAM, SOL_SOCKET } from '../../sys/constants.ts';
import { sendDescriptors } from '../../sys/descriptor-messages.ts';
import { unixAddress } from '../../sys/frame-socket.ts';
import { close } from '../../sys/io.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import { connect, setsockoptBytes, socket } from '../../sys/socket.ts';
import { SOCKET_PATH_BYTES } from '../cli/values.ts';

/** SD_LISTEN_FDS_START, <systemd/sd-daemon.h> */
const FIRST_FD = 3;
/** A manager that does not read for so long gets no message. */
const SEND_LIMIT_S = 2;

type Environment = Readonly<Record<string, string | undefined>>;

/** A descriptor from the service manager. */
export interface PassedDescriptor {
  readonly fd: number;
  /** FileDescriptorName= of a socket unit, or FDNAME= of a stored descriptor. */
  readonly name: string;
}

/**
 * The descriptors that the service manager passed to this process.
 * @source sd_listen_fds_with_names(3)
 */
export function passedDescriptors(env: Environment, pid = process.pid): readonly PassedDescriptor[] {
  if (env.LISTEN_PID !== String(pid) || !/^[1-9][0-9]{0,5}$/.test(env.LISTEN_FDS ?? '')) return [];
  const names = (env.LISTEN_FDNAMES ?? '').split(':');
  return Array.from({ length: Number(env.LISTEN_FDS) }, (_, i) => ({
    fd: FIRST_FD + i,
    name: names[i] || 'unknown',
  }));
}

/** The connection to the service manager; it stays usable in the sandbox. */
export class ServiceManager {
  /** -1: there is no manager that wants messages. */
  readonly #fd: number;

  constructor(env: Environment) {
    this.#fd = connected(env.NOTIFY_SOCKET ?? '');
  }

  /** Whether descriptors can be stored. */
  get isThere(): boolean {
    return this.#fd >= 0;
  }

  /**
   * Send assignments such as READY=1.
   * @returns whether the manager got them; true if there is none
   */
  notify(...assignments: readonly string[]): boolean {
    return this.#send(assignments, []);
  }

  /**
   * Have a descriptor stored: the next process of this service gets it. systemd removes it by itself once it
   * reports POLLHUP or POLLERR.
   * @param name  unique; printable ASCII without ":", at most 255 characters
   * @returns whether the manager got it; true if there is none
   */
  store(name: string, fd: number): boolean {
    return this.#send(['FDSTORE=1', `FDNAME=${name}`], [fd]);
  }

  /** Remove what is stored under a name. */
  remove(name: string): void {
    this.#send(['FDSTOREREMOVE=1', `FDNAME=${name}`], []);
  }

  #send(assignments: readonly string[], fds: readonly number[]): boolean {
    if (this.#fd < 0) return true;
    return sendDescriptors(this.#fd, new TextEncoder().encode(assignments.join('\n')), fds) > 0;
  }
}

/**
 * Connect to NOTIFY_SOCKET: a path, or a name in the abstract namespace behind "@".
 * @returns a descriptor; -1: there is no such socket
 */
function connected(name: string): number {
  const isAbstract = name.startsWith('@');
  if (!(isAbstract || name.startsWith('/')) || Buffer.byteLength(name) >= SOCKET_PATH_BYTES) return -1;
  const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const timeval = new NativeBuffer(16);
  timeval.u32[0] = SEND_LIMIT_S;
  setsockoptBytes(fd, SOL_SOCKET, SO_SNDTIMEO, timeval.address, 16);
  // An abstract name begins with a zero byte and has none at its end.
  const { memory, bytes } = unixAddress(isAbstract ? `\0${name.slice(1)}` : name);
  if (connect(fd, memory.address, isAbstract ? bytes - 1 : bytes) >= 0) return fd;
  close(fd);
  return -1;
}
