/**
 * A child process with a channel at its descriptor 2: a socket through which both sides send lines.
 */
import { type Channel, openChannel } from '#runtime/channel';
import { AF_UNIX, Errno, SOCK_CLOEXEC, SOCK_STREAM } from '../../sys/constants.ts';
import { checked } from '../../sys/error.ts';
import { close } from '../../sys/io.ts';
import { errnoText } from '../../sys/libc.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import { socketpair } from '../../sys/socket.ts';
import { exitStatus, type SpawnFailure, type SpawnPlan, spawnProcess } from '../../sys/spawn.ts';

/** In the descriptors of a plan: the child's end of the channel. */
export const CHANNEL = 'channel';

/** What to start; CHANNEL stands where the child gets its end of the channel. */
export interface ChildPlan extends Omit<SpawnPlan, 'descriptors'> {
  readonly descriptors: readonly (number | typeof CHANNEL | undefined)[];
}

/** A child could not be started. */
export class ChildError extends Error {
  override readonly name = 'ChildError';
  /** The system call that failed. */
  readonly call: string;
  constructor(file: string, { call, errno }: SpawnFailure) {
    const why =
      call === 'seccomp' && errno === Errno.EBUSY
        ? '; --switch-sockets: this process has a supervisor already, and there can be one only'
        : '';
    super(`${call === 'execve' ? file : call}: ${errnoText(errno)}${why}`);
    this.call = call;
  }
}

/** The children that run, each with what to do when it ends. */
const running = new Map<number, (status: number) => void>();

/**
 * At SIGCHLD: find the children that have ended. All are looked at, as the kernel sends one signal for
 * several that end at the same time.
 */
function reap(): void {
  for (const [pid, ended] of running) {
    const status = exitStatus(pid);
    if (status === undefined) continue;
    running.delete(pid);
    ended(status);
  }
  if (running.size === 0) process.off('SIGCHLD', reap);
}

/** Status of a child whose own is lost: other code of this process has waited for it. */
const UNKNOWN_STATUS = 1;

/** A running child. */
export class Child {
  readonly pid: number;
  /** ChildPlan.hostName could not be set. */
  readonly hostNameRefused: boolean;
  /** Our end. */
  readonly channel: Channel;
  /** Resolves when the child has ended, to its exit status as a shell reports it: 128 + n for signal n. */
  readonly exited: Promise<number>;
  /** The same, after the last data of the channel. */
  readonly closed: Promise<number>;

  /** Start it. @throws ChildError */
  constructor(plan: ChildPlan) {
    const pair = new NativeBuffer(8);
    checked(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.address), 'socketpair', 'AF_UNIX');
    const [ours, theirs] = [pair.i32[0]!, pair.i32[1]!];
    // Before the child starts: it may end at once.
    if (running.size === 0) process.on('SIGCHLD', reap);
    const descriptors = plan.descriptors.map((fd) => (fd === CHANNEL ? theirs : fd));
    const spawned = spawnProcess({ ...plan, descriptors });
    close(theirs);
    if ('errno' in spawned) {
      if (running.size === 0) process.off('SIGCHLD', reap);
      close(ours);
      throw new ChildError(plan.file, spawned);
    }
    this.pid = spawned.pid;
    this.hostNameRefused = spawned.hostNameRefused;
    this.exited = new Promise((resolve) => {
      running.set(this.pid, (status) => resolve(status < 0 ? UNKNOWN_STATUS : status));
    });
    this.channel = openChannel(ours);
    const drained = new Promise<void>((resolve) => this.channel.onClose(resolve));
    this.closed = drained.then(() => this.exited);
  }

  /** Kill it. Does nothing if it has ended. */
  kill(): void {
    // Until it is waited for, its process id is not given to another process.
    if (running.has(this.pid)) process.kill(this.pid, 'SIGKILL');
  }
}
