/**
 * System calls that Bun, its JavaScript engine and the C library make by themselves, allowed in the sandbox
 * (main/host/sandbox.ts) with any arguments, grouped by who needs them. No module of src/sys declares them; a
 * call that one comes to declare moves to ENGINE_CALLS. Derived from the functions that Bun 1.4.5 imports and
 * the numbers of its own system calls (docs/decisions/118-sandbox-of-bun.md).
 */
export const RUNTIME_CALLS = {
  "Bun's files and streams: --pcap, the API's socket, COMMAND's chain": [
    'pwrite64',
    'fstat',
    'statx',
    'ppoll',
  ],
  "JavaScriptCore's heap, compiled code and collector, the memory of malloc": [
    'munmap',
    'mremap',
    'brk',
    'getcpu',
    'sysinfo',
    'getrusage',
  ],
  'threads: locks, start and end, their number': [
    'futex',
    'set_robust_list',
    'rseq',
    'exit',
    'sched_getaffinity',
    'getpriority',
  ],
  'signal handlers': ['sigaltstack', 'restart_syscall'],
  'a thread stopped by another one, whose collector scans all stacks: it waits for a signal': [
    'rt_sigsuspend',
  ],
  'clocks, where the vDSO does not answer': ['clock_nanosleep', 'nanosleep', 'gettimeofday', 'time'],
  "Bun's process and os modules, random numbers of its tables": [
    'getpid',
    'getppid',
    'getuid',
    'geteuid',
    'getgid',
    'getegid',
    'uname',
    'getrandom',
  ],
} as const;

/** Calls that fail with ENOSYS instead of ending the process, by who makes them and does without: none. */
export const REFUSED_CALLS = {} as const;
