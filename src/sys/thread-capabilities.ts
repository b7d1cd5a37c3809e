/**
 * Capabilities of the threads that run no JavaScript: those of the runtime and its JavaScript engine, most of
 * which start before any code of this program with all capabilities of the process. JavaScriptCore starts and
 * ends such threads at any time; a new one has the capabilities of the thread that started it. capset(2)
 * changes only the calling thread, so each of these threads is made to call it, by a signal whose handler
 * does nothing else. Without this, code that runs in such a thread would keep the capabilities that the main
 * thread has dropped. Cold.
 *
 * The C library changes the user id in all threads in the same way, with a reserved signal that threads
 * cannot block. That signal is used here, and its action restored afterwards. The handler is machine code in
 * a page of its own, because these threads cannot run JavaScript. It changes neither errno nor memory:
 *
 *      +0   capset(header, data); return
 *     +32   rt_sigreturn(): x86-64 only, where the kernel has no return path of its own (SA_RESTORER)
 *     +64   struct __user_cap_header: version u32, pid u32 0 (the calling thread)
 *     +72   struct __user_cap_data[2]: effective, permitted, inheritable, u32 each, all 0
 * @syscalls mmap mprotect rt_sigaction tgkill gettid capset rt_sigreturn
 */
import { closeSync, readSync } from 'node:fs';
import { Errno, LINUX_CAPABILITY_VERSION_3, O_DIRECTORY, O_RDONLY } from './constants.ts';
import { checked, SysError } from './error.ts';
import { heldNames, openHeld } from './held-directory.ts';
import { schedYield } from './io.ts';
import { failed, libc } from './libc.ts';
import { type MachineCode, machineCodePage } from './machine-code.ts';
import { NativeBuffer, writeAddress } from './memory.ts';
import { openPath } from './path.ts';
import { syscallNumber } from './syscall-numbers.ts';

type N = number;
const W = 'uintptr_t';

/** SIGSETXID of glibc, SIGCANCEL of musl. pthread_sigmask(3) does not block it; sigaction(3) refuses it. */
const SIGNAL = 33;
const RETURN_AT = 32;
const HEADER_AT = 64;
// <asm-generic/signal.h>
const SA_RESTORER = 0x0400_0000;
const SA_ONSTACK = 0x0800_0000;
const SA_RESTART = 0x1000_0000;
const SIGSET_BYTES = 8;
/** A thread that is stopped (by a debugger, in a frozen cgroup) never runs the handler. */
const HANDLER_TIMEOUT_MS = 2000;

const CODE: MachineCode = {
  x64: [
    ...[0xf3, 0x0f, 0x1e, 0xfa], // endbr64
    ...[0x48, 0x8d, 0x3d, 0x35, 0, 0, 0], // lea rdi, [rip + 53]: +64
    ...[0x48, 0x8d, 0x35, 0x36, 0, 0, 0], // lea rsi, [rip + 54]: +72
    ...[0xb8, 126, 0, 0, 0], // mov eax, SYS_capset
    ...[0x0f, 0x05], // syscall
    0xc3, // ret
    ...[0, 0, 0, 0, 0, 0],
    ...[0x48, 0xc7, 0xc0, 15, 0, 0, 0], // +32 mov rax, SYS_rt_sigreturn
    ...[0x0f, 0x05], // syscall
  ],
  arm64: [
    ...[0x00, 0x02, 0x00, 0x10], // adr x0, +64: +64 of the page
    ...[0x21, 0x02, 0x00, 0x10], // adr x1, +68: +72 of the page
    ...[0x68, 0x0b, 0x80, 0xd2], // mov x8, SYS_capset
    ...[0x01, 0x00, 0x00, 0xd4], // svc 0
    ...[0xc0, 0x03, 0x5f, 0xd6], // ret
  ],
};

/** Address of CODE in executable memory, which the first use makes; 0 before. */
let handler = 0;

interface Thread {
  readonly tid: number;
  /** Descriptor of its /proc status file, which can be read when /proc is not accessible any more. */
  readonly status: number;
}

const STATUS_BYTES = 4096; // a status file has about 1.5 KiB
const text = Buffer.alloc(STATUS_BYTES);

/** Whether a thread's permitted set has a capability that is not in `allowed`. */
function holdsMoreThan({ status }: Thread, allowed: bigint): boolean {
  try {
    const bytes = readSync(status, text, 0, STATUS_BYTES, 0);
    const permitted = /^CapPrm:\s*([0-9a-f]+)/m.exec(text.toString('latin1', 0, bytes))?.[1] ?? '0';
    return (BigInt(`0x${permitted}`) & ~allowed) !== 0n;
  } catch {
    return false; // ESRCH: the thread has ended
  }
}

/** All threads but `self` that hold a capability not in `allowed`. Their status files are open. */
function threadsHoldingMore(tasks: number, allowed: bigint, self: number): readonly Thread[] {
  const found: Thread[] = [];
  const names = heldNames(tasks);
  if (typeof names === 'number') throw new SysError('getdents64', '/proc/self/task', -names);
  for (const name of names) {
    const tid = Number(name);
    if (Number.isNaN(tid) || tid === self) continue; // "." and ".."
    const status = openHeld(tasks, `${name}/status`);
    if (status < 0) continue; // the thread has ended
    const thread = { tid, status };
    if (holdsMoreThan(thread, allowed)) found.push(thread);
    else closeSync(thread.status);
  }
  return found;
}

/**
 * Open the list of the threads of this process. It can be read when /proc is not accessible any more.
 * @returns a descriptor. @throws SysError
 */
export const openTasks = (): number =>
  checked(openPath('/proc/self/task', O_RDONLY | O_DIRECTORY), 'open', '/proc/self/task');

/**
 * Drop all capabilities of every other thread that holds one outside `allowed`. A thread that holds only
 * capabilities of `allowed` keeps them, and the calling thread keeps its own. From the return of this
 * function on, a signalled thread runs no code of its own before it has lost its capabilities.
 * @param tasks    of openTasks()
 * @param allowed  CAP_* that other threads have chosen to keep
 * @returns undefined if there is no such thread; else a function that waits until every thread has dropped
 *   its capabilities. Call it before a filter forbids capset; it does not need /proc.
 * @throws SysError; the returned function throws it too, ETIMEDOUT when a thread did not run the handler
 */
export function dropCapabilitiesElsewhere(
  tasks: number,
  allowed: readonly number[],
): (() => void) | undefined {
  const set = allowed.reduce((bits, capability) => bits | (1n << BigInt(capability)), 0n);
  const syscall = libc<[N, N, N, N, N]>('syscall', 'intptr_t', ['int64_t', W, W, W, W]);
  const self = syscall(syscallNumber('gettid'), 0, 0, 0, 0);
  const threads = threadsHoldingMore(tasks, set, self);
  if (threads.length === 0) return undefined;
  handler ||= machineCodePage(CODE, 'capset', (content) => {
    content.u32[HEADER_AT >> 2] = LINUX_CAPABILITY_VERSION_3;
  });

  // The kernel's struct sigaction: handler u64, flags u64, restorer u64, mask u64.
  const action = new NativeBuffer(32);
  const before = new NativeBuffer(32);
  const restores = process.arch === 'x64';
  writeAddress(action.u32, 0, handler);
  action.u32[2] = SA_RESTART | SA_ONSTACK | (restores ? SA_RESTORER : 0);
  if (restores) writeAddress(action.u32, 4, handler + RETURN_AT);
  action.u32.fill(0xffff_ffff, 6);
  const sigaction = (next: number, old: number): number => {
    const r = syscall(syscallNumber('rt_sigaction'), SIGNAL, next, old, SIGSET_BYTES);
    return r < 0 ? failed() : r;
  };
  checked(sigaction(action.address, before.address), 'rt_sigaction', `signal ${SIGNAL}`);
  // The result is ignored: ESRCH means that the thread has ended.
  for (const { tid } of threads) syscall(syscallNumber('tgkill'), process.pid, tid, SIGNAL, 0);
  return () => {
    const endAt = performance.now() + HANDLER_TIMEOUT_MS;
    let left = threads;
    for (;;) {
      left = left.filter((thread) => holdsMoreThan(thread, set));
      // The handler stays installed on this error: with the signal's old action restored, a thread that has
      // not yet received the signal would end the process.
      if (left.length > 0 && performance.now() > endAt)
        throw new SysError(
          'capset',
          `threads ${left.map(({ tid }) => tid).join()} did not run the signal handler`,
          Errno.ETIMEDOUT,
        );
      if (left.length === 0) break;
      schedYield();
    }
    for (const { status } of threads) closeSync(status);
    checked(sigaction(before.address, 0), 'rt_sigaction', `signal ${SIGNAL}, as before`);
    // The page stays mapped: a thread that has dropped its capabilities may still run the end of the handler.
  };
}

/**
 * The same, until there is no such thread: the JavaScript engine may start one from a thread that still has its
 * capabilities. Once the calling thread has no others than `allowed`, no new thread gets more.
 */
export function dropUntilNoThreadHasMore(tasks: number, allowed: readonly number[]): void {
  for (;;) {
    const waitForDrop = dropCapabilitiesElsewhere(tasks, allowed);
    if (waitForDrop === undefined) return;
    waitForDrop();
  }
}
