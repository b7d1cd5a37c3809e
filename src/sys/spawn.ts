/**
 * Start a process, in namespaces of its own if wanted. The child shares our memory until it executes its
 * program (CLONE_VM, CLONE_VFORK), so no page tables are copied. Between clone(2) and execve(2) it makes the
 * system calls of a list: machine code, because no JavaScript can run there. So one process replaces a chain
 * of setpriv(1), nsenter(1) and unshare(1), each of which takes a millisecond (decision 120).
 *
 * The list, which the parent reads after the child has executed its program or ended:
 *
 *      +0   address of the call whose failure ended the child; 0: none
 *      +8   the result of that call, -errno
 *     +16   calls, eight 64-bit words each: number, six arguments, and what becomes of the result: 0, nothing;
 *           1, the call may fail, and -errno then replaces the 1; else the address of an int that gets it.
 *           The last call is execve(2)
 * @syscalls clone rt_sigaction rt_sigprocmask dup3 chdir prctl setns mount move_mount sethostname execve
 *   landlock_restrict_self seccomp sendmsg exit_group wait4
 */
import { writeBytesOfText } from './byte-text.ts';
import { cmsgLen, cmsgSpace, cmsgWrite } from './cmsg.ts';
import {
  AT_FDCWD,
  CLONE_NEWNET,
  CLONE_NEWNS,
  CLONE_VM,
  Errno,
  F_DUPFD_CLOEXEC,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  MS_REC,
  MS_SLAVE,
  O_CLOEXEC,
  O_RDWR,
  SCM_RIGHTS,
  SIGKILL,
  SOL_SOCKET,
} from './constants.ts';
import { checked } from './error.ts';
import { close, fcntl, setCloexec } from './io.ts';
import { failed, libc, syscall4 } from './libc.ts';
import { type MachineCode, machineCodePage } from './machine-code.ts';
import { NativeBuffer, writeAddress } from './memory.ts';
import { openPath } from './path.ts';
import {
  type EncodedFilter,
  SECCOMP_NEW_LISTENER,
  SECCOMP_SET_MODE_FILTER,
  SECCOMP_SPEC_ALLOW,
} from './seccomp.ts';
import { iovecWrite, msghdrControlWrite, msghdrWrite } from './socket.ts';
import { type SyscallName, syscallNumber } from './syscall-numbers.ts';

type N = number;
const P = 'uintptr_t';
const cClone = libc<[N, N, N, N]>('clone', 'int', [P, P, 'int', P]);
const cExecve = libc<[N, N, N]>('execve', 'int', [P, P, P]);
const cWaitpid = libc<[N, N, N]>('waitpid', 'int', ['int', P, 'int']);

const WNOHANG = 1; // <sys/wait.h>
const CLONE_VFORK = 0x4000; // <linux/sched.h>
const MS_PRIVATE = 0x4_0000; // <linux/mount.h>
const MOVE_MOUNT_F_EMPTY_PATH = 4; // <linux/mount.h>
const PR_SET_PDEATHSIG = 1; // <linux/prctl.h>
// <asm-generic/signal.h>, <asm-generic/signal-defs.h>
const SIGCHLD = 17;
const SIGSTOP = 19;
const SIGNALS = 64;
const SIGSET_BYTES = 8;
const SIG_SETMASK = 2;
const SIG_IGN = 1;

const STACK_BYTES = 4096;
const CALLS_AT = 16;
const CALL_BYTES = 64;

/** void run(list): the loop that the child runs. It needs no stack and does not return. */
const CODE: MachineCode = {
  x64: [
    ...[0xf3, 0x0f, 0x1e, 0xfa], // endbr64
    ...[0x48, 0x89, 0xfb], // mov rbx, rdi
    ...[0x4c, 0x8d, 0x67, 0x10], // lea r12, [rdi + 16]
    ...[0x49, 0x8b, 0x04, 0x24], // next: mov rax, [r12]
    ...[0x49, 0x8b, 0x7c, 0x24, 0x08], // mov rdi, [r12 + 8]
    ...[0x49, 0x8b, 0x74, 0x24, 0x10], // mov rsi, [r12 + 16]
    ...[0x49, 0x8b, 0x54, 0x24, 0x18], // mov rdx, [r12 + 24]
    ...[0x4d, 0x8b, 0x54, 0x24, 0x20], // mov r10, [r12 + 32]
    ...[0x4d, 0x8b, 0x44, 0x24, 0x28], // mov r8, [r12 + 40]
    ...[0x4d, 0x8b, 0x4c, 0x24, 0x30], // mov r9, [r12 + 48]
    ...[0x0f, 0x05], // syscall
    ...[0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff], // cmp rax, -4095
    ...[0x73, 0x13], // jae failed
    ...[0x49, 0x8b, 0x4c, 0x24, 0x38], // mov rcx, [r12 + 56]
    ...[0x48, 0x83, 0xf9, 0x01], // cmp rcx, 1
    ...[0x76, 0x02], // jbe done
    ...[0x89, 0x01], // mov [rcx], eax
    ...[0x49, 0x83, 0xc4, 0x40], // done: add r12, 64
    ...[0xeb, 0xc1], // jmp next
    ...[0x49, 0x83, 0x7c, 0x24, 0x38, 0x01], // failed: cmp qword [r12 + 56], 1
    ...[0x74, 0x13], // je soft
    ...[0x4c, 0x89, 0x23], // mov [rbx], r12
    ...[0x48, 0x89, 0x43, 0x08], // mov [rbx + 8], rax
    ...[0xbf, 127, 0, 0, 0], // mov edi, 127
    ...[0xb8, 231, 0, 0, 0], // mov eax, SYS_exit_group
    ...[0x0f, 0x05], // syscall
    ...[0x49, 0x89, 0x44, 0x24, 0x38], // soft: mov [r12 + 56], rax
    ...[0xeb, 0xd8], // jmp done
  ],
  arm64: [
    ...[0xf3, 0x03, 0x00, 0xaa], // mov x19, x0
    ...[0x14, 0x40, 0x00, 0x91], // add x20, x0, #16
    ...[0x88, 0x02, 0x40, 0xa9], // next: ldp x8, x0, [x20]
    ...[0x81, 0x0a, 0x41, 0xa9], // ldp x1, x2, [x20, #16]
    ...[0x83, 0x12, 0x42, 0xa9], // ldp x3, x4, [x20, #32]
    ...[0x85, 0x1a, 0x43, 0xa9], // ldp x5, x6, [x20, #48]
    ...[0x01, 0x00, 0x00, 0xd4], // svc 0
    ...[0x1f, 0xfc, 0x3f, 0xb1], // cmn x0, #4095
    ...[0xc2, 0x00, 0x00, 0x54], // b.hs failed
    ...[0xdf, 0x04, 0x00, 0xf1], // cmp x6, #1
    ...[0x49, 0x00, 0x00, 0x54], // b.ls done
    ...[0xc0, 0x00, 0x00, 0xb9], // str w0, [x6]
    ...[0x94, 0x02, 0x01, 0x91], // done: add x20, x20, #64
    ...[0xf5, 0xff, 0xff, 0x17], // b next
    ...[0xdf, 0x04, 0x00, 0xf1], // failed: cmp x6, #1
    ...[0xc0, 0x00, 0x00, 0x54], // b.eq soft
    ...[0x74, 0x02, 0x00, 0xf9], // str x20, [x19]
    ...[0x60, 0x06, 0x00, 0xf9], // str x0, [x19, #8]
    ...[0xe0, 0x0f, 0x80, 0xd2], // mov x0, #127
    ...[0xc8, 0x0b, 0x80, 0xd2], // mov x8, SYS_exit_group
    ...[0x01, 0x00, 0x00, 0xd4], // svc 0
    ...[0x80, 0x1e, 0x00, 0xf9], // soft: str x0, [x20, #56]
    ...[0xf6, 0xff, 0xff, 0x17], // b done
  ],
};

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
   * Our descriptor for each number that the child gets; undefined: /dev/null for 0 to 2, nothing for others.
   * Besides these the child gets all descriptors that are not close-on-exec.
   */
  readonly descriptors: readonly (number | undefined)[];
  /** Numbers of signals that it ignores. All others have their default actions. */
  readonly ignores?: readonly number[];
  /** The kernel kills it when the calling thread ends. */
  readonly endsWithUs?: boolean;
  /** Descriptor of a network namespace that it enters. */
  readonly networkNamespace?: number | undefined;
  /**
   * CLONE_NEW* of namespaces that are made for it. With CLONE_NEWPID it is process 1 there. In a new mount
   * namespace mounts come from ours, and none go back.
   */
  readonly namespaces?: number;
  /** Mount a new /proc. Needs CLONE_NEWNS and CLONE_NEWPID. */
  readonly mountsProc?: boolean;
  /**
   * Mount a new /sys, which shows the interfaces of the child's network namespace. Where the kernel does not
   * permit that, ours stays. Needs CLONE_NEWNS.
   */
  readonly sys?: SysMount | undefined;
  /** Host name to set if that is permitted. Needs CLONE_NEWUTS. */
  readonly hostName?: string | undefined;
  /** Some of its system calls are answered by another process. */
  readonly supervised?: Supervision | undefined;
}

/**
 * How a process is put under a supervisor: in its last steps before execve(2), so that all its programs and
 * children are. Needs CAP_SYS_ADMIN in the user namespace.
 */
export interface Supervision {
  /** Descriptor of a Landlock ruleset (landlock.ts): what the kernel itself forbids. */
  readonly ruleset: number;
  /** A seccomp filter (seccomp.ts) that notifies of system calls. */
  readonly filter: EncodedFilter;
  /** Our descriptor of a UNIX socket: the filter's listener is sent to it, with one byte. */
  readonly listenerTo: number;
}

/** A new /sys. */
export interface SysMount {
  readonly isReadOnly: boolean;
  /** What is mounted below ours, which the new one gets too: path and a descriptor of cloneMount(). */
  readonly below: readonly { readonly path: string; readonly fd: number }[];
}

/** A process that has been started. */
export interface Spawned {
  readonly pid: number;
  /** SpawnPlan.hostName could not be set. */
  readonly hostNameRefused: boolean;
}

/** A process could not be started. */
export interface SpawnFailure {
  readonly errno: number;
  /** The system call that failed: `execve` for a program that cannot be executed. */
  readonly call: string;
}

/** Address of CODE in executable memory, which the first start makes; 0 before. */
let code = 0;

/**
 * Start a process with no signals blocked. Blocks until the child has executed its program or failed. A text
 * with a NUL character is refused: EINVAL.
 */
export function spawnProcess(plan: SpawnPlan): Spawned | SpawnFailure {
  const entries = environmentOf(plan.env);
  const { file, cwd = '', hostName = '' } = plan;
  if (hasNul([file, cwd, hostName, ...plan.argv, ...entries])) return { errno: Errno.EINVAL, call: 'execve' };
  const count = plan.descriptors.length;
  const ours: number[] = [];
  const calls = new CallList();
  try {
    for (let signal = 1; signal <= SIGNALS; signal++) {
      if (signal === SIGKILL || signal === SIGSTOP) continue;
      calls.action(signal, plan.ignores?.includes(signal) === true);
    }
    // These two name descriptors of ours, the directory as /proc/self/fd/N: before other ones get their
    // numbers.
    if (plan.networkNamespace !== undefined) calls.add('setns', [plan.networkNamespace, CLONE_NEWNET]);
    if (plan.cwd !== undefined) calls.add('chdir', [calls.text(plan.cwd)]);
    // Copies above all numbers that are assigned: dup3() must not replace a descriptor that is still needed.
    const nothing = openPath('/dev/null', O_RDWR | O_CLOEXEC);
    if (nothing < 0) return { errno: -nothing, call: 'open' };
    ours.push(nothing);
    for (const [number, fd] of plan.descriptors.entries()) {
      if (fd === undefined && number > 2) continue;
      const copy = fcntl(fd ?? nothing, F_DUPFD_CLOEXEC, count);
      if (copy < 0) return { errno: -copy, call: 'fcntl' };
      ours.push(copy);
      calls.add('dup3', [copy, number]);
    }
    if (plan.endsWithUs) calls.add('prctl', [PR_SET_PDEATHSIG, SIGKILL]);
    const namespaces = plan.namespaces ?? 0;
    addMounts(calls, namespaces, plan.mountsProc === true);
    if (plan.sys !== undefined) addSysMounts(calls, plan.sys);
    if (plan.hostName !== undefined)
      calls.add('sethostname', [calls.text(plan.hostName), Buffer.byteLength(plan.hostName)], true);
    if (plan.supervised !== undefined) addSupervision(calls, plan.supervised, ours, count);
    calls.add('rt_sigprocmask', [SIG_SETMASK, calls.zeros, 0, SIGSET_BYTES]);
    const [argv, env] = [calls.texts(plan.argv), calls.texts(entries)];
    calls.add('execve', [calls.text(plan.file), argv, env]);
    return start(calls, namespaces);
  } finally {
    for (const fd of ours) close(fd);
    calls.erase();
  }
}

/** As unshare(1) does with --propagation slave and --mount-proc. */
function addMounts(calls: CallList, namespaces: number, mountsProc: boolean): void {
  if ((namespaces & CLONE_NEWNS) === 0) return;
  calls.add('mount', [0, calls.text('/'), 0, MS_REC | MS_SLAVE, 0]);
  if (!mountsProc) return;
  const proc = calls.text('/proc');
  calls.add('mount', [0, proc, 0, MS_REC | MS_PRIVATE, 0]);
  const type = calls.text('proc');
  calls.add('mount', [type, proc, type, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0]);
}

/** After the child has entered its network namespace: a sysfs shows that of the process that mounts it. */
function addSysMounts(calls: CallList, { isReadOnly, below }: SysMount): void {
  const type = calls.text('sysfs');
  const flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | (isReadOnly ? MS_RDONLY : 0);
  calls.add('mount', [type, calls.text('/sys'), type, flags, 0], true);
  const none = calls.text('');
  // Without a new /sys these cover what is there with copies of the same.
  for (const { path, fd } of below)
    calls.add('move_mount', [fd, none, AT_FDCWD, calls.text(path), MOVE_MOUNT_F_EMPTY_PATH], true);
}

/**
 * The listener's number is known only when the filter is installed: seccomp(2) writes it into the control
 * message that sends it. It is close-on-exec, and so is the copy of the socket.
 * @param ours   gets descriptors to close after the start
 * @param above  the lowest number for them
 * @throws SysError
 */
function addSupervision(calls: CallList, plan: Supervision, ours: number[], above: number): void {
  const [ruleset, to] = [plan.ruleset, plan.listenerTo].map((fd) => {
    const copy = checked(fcntl(fd, F_DUPFD_CLOEXEC, above), 'fcntl', 'F_DUPFD_CLOEXEC');
    ours.push(copy);
    return copy;
  }) as [number, number];
  // One byte of data at 0, an iovec at 8, a msghdr at 24, a control message with one int at 80.
  const message = new NativeBuffer(80 + cmsgSpace(4));
  const { u32, address } = message;
  iovecWrite(u32, 2, address, 1);
  msghdrWrite(u32, 6, 0, 0, address + 8, 1);
  msghdrControlWrite(u32, 6, address + 80, cmsgLen(4));
  cmsgWrite(u32, 20, SOL_SOCKET, SCM_RIGHTS, 4);
  calls.hold(message, plan.filter);
  calls.add('landlock_restrict_self', [ruleset, 0]);
  const flags = SECCOMP_NEW_LISTENER | SECCOMP_SPEC_ALLOW;
  calls.addStoring('seccomp', [SECCOMP_SET_MODE_FILTER, flags, plan.filter.address], address + 96);
  calls.add('sendmsg', [to, address + 24, 0]);
}

/**
 * Make the child, and look at what its calls returned.
 * @param namespaces  CLONE_NEW*
 */
function start(calls: CallList, namespaces: number): Spawned | SpawnFailure {
  code ||= machineCodePage(CODE, 'clone');
  const list = calls.encode();
  const stack = new NativeBuffer(STACK_BYTES);
  // No handler of ours may run in the child, which has our memory: it starts with all signals blocked.
  const all = new NativeBuffer(SIGSET_BYTES);
  const before = new NativeBuffer(SIGSET_BYTES);
  all.u32.fill(0xffff_ffff);
  const mask = syscallNumber('rt_sigprocmask');
  syscall4(mask, SIG_SETMASK, all.address, before.address, SIGSET_BYTES);
  // The stack grows downwards and has to begin at a multiple of 16.
  const top = stack.address + STACK_BYTES - (stack.address % 16);
  const pid = cClone(code, top, CLONE_VM | CLONE_VFORK | SIGCHLD | namespaces, list.address);
  const errno = pid < 0 ? -failed() : 0;
  syscall4(mask, SIG_SETMASK, before.address, 0, SIGSET_BYTES);
  if (pid < 0) return { errno, call: 'clone' };
  const failure = calls.failure(list);
  if (failure === undefined) return { pid, hostNameRefused: calls.hasFailed('sethostname', list) };
  while (cWaitpid(pid, status.address, 0) < 0 && failed() === -Errno.EINTR);
  return failure;
}

/** The system calls of a child, and the memory that their arguments point to. */
class CallList {
  readonly #calls: { readonly call: SyscallName; readonly words: readonly number[] }[] = [];
  /** Keeps memory reachable. */
  readonly #held: unknown[] = [];
  /** Zeroed: no signals, the action SIG_DFL. */
  readonly zeros: number;
  readonly #ignore: number;

  constructor() {
    // The kernel's struct sigaction: handler u64, flags u64, restorer u64, mask u64.
    const zeros = new NativeBuffer(32);
    const ignore = new NativeBuffer(32);
    ignore.u32[0] = SIG_IGN;
    this.#held.push(zeros, ignore);
    this.zeros = zeros.address;
    this.#ignore = ignore.address;
  }

  /** @param args  at most six; those that are missing are 0 */
  add(call: SyscallName, args: readonly number[], mayFail = false): void {
    this.addStoring(call, args, mayFail ? 1 : 0);
  }

  /** @param result  address of an int that gets the result; or as in the head comment */
  addStoring(call: SyscallName, args: readonly number[], result: number): void {
    const words = [syscallNumber(call), ...args, ...new Array<number>(6 - args.length).fill(0)];
    this.#calls.push({ call, words: [...words, result] });
  }

  /** Keep memory that arguments point to. */
  hold(...memory: readonly unknown[]): void {
    this.#held.push(...memory);
  }

  /** Ignore a signal, or give it its default action. */
  action(signal: number, ignored: boolean): void {
    this.add('rt_sigaction', [signal, ignored ? this.#ignore : this.zeros, 0, SIGSET_BYTES]);
  }

  /** @returns the address of a NUL-terminated string */
  text(text: string): number {
    return this.#strings([text]).first;
  }

  /** @returns the address of an array of strings */
  texts(list: readonly string[]): number {
    return this.#strings(list).address;
  }

  #strings(list: readonly string[]): StringArray {
    const array = new StringArray(list);
    this.#held.push(array);
    return array;
  }

  /** Erase all strings: an environment has secrets of its owner. */
  erase(): void {
    for (const held of this.#held) if (held instanceof StringArray) held.erase();
  }

  /** @returns the list as the head comment draws it */
  encode(): NativeBuffer {
    const list = new NativeBuffer(CALLS_AT + this.#calls.length * CALL_BYTES);
    for (const [i, { words }] of this.#calls.entries()) {
      const at = (CALLS_AT + i * CALL_BYTES) >> 2;
      for (const [w, word] of words.entries()) writeAddress(list.u32, at + w * 2, word);
    }
    return list;
  }

  /** Whether a call that may fail has failed. @param list  what encode() returned, after the child has run */
  hasFailed(call: SyscallName, list: NativeBuffer): boolean {
    const i = this.#calls.findIndex((each) => each.call === call);
    return i >= 0 && list.dv.getBigInt64(CALLS_AT + (i + 1) * CALL_BYTES - 8, true) < 0n;
  }

  /**
   * @param list  as for hasFailed()
   * @returns which call ended the child; undefined: it executed its program
   */
  failure(list: NativeBuffer): SpawnFailure | undefined {
    const at = Number(list.dv.getBigUint64(0, true));
    if (at === 0) return undefined;
    const { call } = this.#calls[(at - list.address - CALLS_AT) / CALL_BYTES]!;
    return { call, errno: -Number(list.dv.getBigInt64(8, true)) };
  }
}

/**
 * Execute a program in place of this one. It gets the standard streams, which Node marks close-on-exec when
 * it starts, and all other descriptors that are not: Bun's process.execve() closes all above 2.
 * @returns -errno, -EINVAL for a text with a NUL character; nothing if the program was executed
 */
export function executeProgram(file: string, argv: readonly string[], env: SpawnPlan['env']): number {
  const entries = environmentOf(env);
  if (hasNul([file, ...argv, ...entries])) return -Errno.EINVAL;
  for (const fd of [0, 1, 2]) setCloexec(fd, false);
  const arrays = [new StringArray([file]), new StringArray(argv), new StringArray(entries)] as const;
  cExecve(arrays[0].first, arrays[1].address, arrays[2].address);
  return failed();
}

/** C would take such a character for the end of the text, and what follows in a list for another text. */
const hasNul = (texts: readonly string[]): boolean => texts.some((text) => text.includes('\0'));

/** As execve(2) takes it: NAME=VALUE. A variable without a value is left out. */
const environmentOf = (env: SpawnPlan['env']): readonly string[] =>
  Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : `${name}=${value}`));

/**
 * A NULL-terminated array of NUL-terminated strings, valid as long as this object is reachable. A string must
 * not contain NUL.
 */
class StringArray {
  readonly #bytes: NativeBuffer;
  readonly #pointers: NativeBuffer;
  readonly address: number;

  constructor(texts: readonly string[]) {
    const sizes = texts.map((text) => Buffer.byteLength(text) + 1);
    this.#bytes = new NativeBuffer(sizes.reduce((sum, size) => sum + size, 1)); // not empty
    this.#pointers = new NativeBuffer((texts.length + 1) * 8);
    let at = 0;
    texts.forEach((text, i) => {
      writeBytesOfText(text, this.#bytes.u8.subarray(at));
      writeAddress(this.#pointers.u32, i * 2, this.#bytes.address + at);
      at += sizes[i]!;
    });
    this.address = this.#pointers.address;
  }

  /** Address of the first string. */
  get first(): number {
    return this.#bytes.address;
  }

  /** Fill the strings with zeros. */
  erase(): void {
    this.#bytes.u8.fill(0);
  }
}

/** For waitpid(2): an int. */
const status = new NativeBuffer(8);

/**
 * Get the status of a child that has ended, and let the kernel forget the child: waitpid(2) with WNOHANG.
 * @returns as a shell reports it: the exit status, or 128 + n for signal n; -errno; undefined: the child runs
 */
export function exitStatus(pid: number): number | undefined {
  const r = cWaitpid(pid, status.address, WNOHANG);
  if (r < 0) return failed();
  if (r === 0) return undefined;
  const signal = status.u32[0]! & 0x7f;
  return signal === 0 ? (status.u32[0]! >>> 8) & 0xff : 128 + signal;
}
