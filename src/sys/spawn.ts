/**
 * Start a process: posix_spawn(3). The child shares our memory until it executes its program (vfork), so no
 * page tables are copied. Cold.
 * @syscalls execve wait4
 */
import { Errno, F_DUPFD_CLOEXEC, O_CLOEXEC, O_RDWR } from './constants.ts';
import { close, fcntl } from './io.ts';
import { failed, libc, optionalLibc } from './libc.ts';
import { addressOf, NativeBuffer, writeAddress } from './memory.ts';
import { openPath } from './path.ts';

type N = number;
const S = 'const char *';
const P = 'uintptr_t';
const cSpawn = libc<[N, string, N, N, N, N]>('posix_spawn', 'int', [P, S, P, P, P, P]);
const cActionsInit = libc<[N]>('posix_spawn_file_actions_init', 'int', [P]);
const cActionsDestroy = libc<[N]>('posix_spawn_file_actions_destroy', 'int', [P]);
const cAddDup2 = libc<[N, N, N]>('posix_spawn_file_actions_adddup2', 'int', [P, 'int', 'int']);
const cAddChdir = optionalLibc<[N, string]>('posix_spawn_file_actions_addchdir_np', 'int', [P, S]);
const cAttributesInit = libc<[N]>('posix_spawnattr_init', 'int', [P]);
const cAttributesDestroy = libc<[N]>('posix_spawnattr_destroy', 'int', [P]);
const cSetFlags = libc<[N, N]>('posix_spawnattr_setflags', 'int', [P, 'int']);
const cSetDefault = libc<[N, N]>('posix_spawnattr_setsigdefault', 'int', [P, P]);
const cSetMask = libc<[N, N]>('posix_spawnattr_setsigmask', 'int', [P, P]);
const cExecve = libc<[string, N, N]>('execve', 'int', [S, P, P]);
const cWaitpid = libc<[N, N, N]>('waitpid', 'int', ['int', P, 'int']);

/** <spawn.h> */
const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
/** More than posix_spawnattr_t (336) and posix_spawn_file_actions_t (80) of any C library. */
const ATTRIBUTES_BYTES = 512;
const ACTIONS_BYTES = 256;
/** sigset_t: 64 bits for the kernel, 1024 in the C library. */
const SIGSET_BYTES = 128;
const WNOHANG = 1; // <sys/wait.h>

/** What to start. */
export interface SpawnPlan {
  /** Path of the program. */
  readonly file: string;
  /** Its arguments, argv[0] included. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Working directory; absent: ours. */
  readonly cwd?: string | undefined;
  /**
   * Our descriptor for each number that the child gets; undefined: /dev/null for the numbers 0 to 2, nothing
   * special for others. Besides these the child gets all descriptors that are not close-on-exec.
   */
  readonly descriptors: readonly (number | undefined)[];
}

/**
 * Start a process with all signals at their default actions and none blocked.
 * @returns its process id or -errno
 */
export function spawnProcess(plan: SpawnPlan): number {
  const count = plan.descriptors.length;
  const actions = new NativeBuffer(ACTIONS_BYTES);
  const attributes = new NativeBuffer(ATTRIBUTES_BYTES);
  const pid = new NativeBuffer(8);
  const ours: number[] = [];
  cActionsInit(actions.address);
  cAttributesInit(attributes.address);
  try {
    // Copies above all numbers that are assigned: dup2() must not replace a descriptor that is still needed.
    const nothing = openPath('/dev/null', O_RDWR | O_CLOEXEC);
    if (nothing < 0) return nothing;
    ours.push(nothing);
    for (const [number, fd] of plan.descriptors.entries()) {
      if (fd === undefined && number > 2) continue;
      const copy = fcntl(fd ?? nothing, F_DUPFD_CLOEXEC, count);
      if (copy < 0) return copy;
      ours.push(copy);
      cAddDup2(actions.address, copy, number);
    }
    if (plan.cwd !== undefined) {
      if (cAddChdir === undefined) return -Errno.ENOSYS;
      cAddChdir(actions.address, plan.cwd);
    }
    const all = new NativeBuffer(SIGSET_BYTES);
    all.u32[0] = 0x7fff_ffff; // 32 and 33 are the C library's own
    all.u32[1] = 0xffff_fffe;
    const none = new NativeBuffer(SIGSET_BYTES);
    cSetDefault(attributes.address, all.address);
    cSetMask(attributes.address, none.address);
    cSetFlags(attributes.address, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    const argv = new StringArray(plan.argv);
    const env = environmentOf(plan.env);
    const errno = cSpawn(
      ...([pid.address, plan.file, actions.address] as const),
      ...([attributes.address, argv.address, env.address] as const),
    );
    return errno === 0 ? pid.i32[0]! : -errno;
  } finally {
    for (const fd of ours) close(fd);
    cActionsDestroy(actions.address);
    cAttributesDestroy(attributes.address);
  }
}

/**
 * Execute a program in place of this one. It gets all descriptors that are not close-on-exec: Bun's
 * process.execve() closes all above 2.
 * @returns -errno; nothing if the program was executed
 */
export function executeProgram(file: string, argv: readonly string[], env: SpawnPlan['env']): number {
  const [argvArray, envArray] = [new StringArray(argv), environmentOf(env)];
  cExecve(file, argvArray.address, envArray.address);
  return failed();
}

const environmentOf = (env: SpawnPlan['env']): StringArray =>
  new StringArray(
    Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : `${name}=${value}`)),
  );

/** A NULL-terminated array of NUL-terminated strings, valid as long as this object is reachable. */
export class StringArray {
  readonly #bytes: Uint8Array;
  readonly #pointers: NativeBuffer;
  readonly address: number;

  constructor(texts: readonly string[]) {
    // The final NUL also keeps the buffer from being empty.
    this.#bytes = new Uint8Array(Buffer.from(`${texts.map((text) => `${text}\0`).join('')}\0`));
    this.#pointers = new NativeBuffer((texts.length + 1) * 8);
    let at = addressOf(this.#bytes) as number;
    texts.forEach((text, i) => {
      writeAddress(this.#pointers.u32, i * 2, at);
      at += Buffer.byteLength(text) + 1;
    });
    this.address = this.#pointers.address;
  }
}

const status = new NativeBuffer(8);

/**
 * The status of a child that has ended, and forget the child: waitpid(2).
 * @returns as a shell reports it: the exit status, or 128 + n for signal n; -errno; undefined: it runs
 */
export function exitStatus(pid: number): number | undefined {
  const r = cWaitpid(pid, status.address, WNOHANG);
  if (r < 0) return failed();
  if (r === 0) return undefined;
  const signal = status.u32[0]! & 0x7f;
  return signal === 0 ? (status.u32[0]! >>> 8) & 0xff : 128 + signal;
}
