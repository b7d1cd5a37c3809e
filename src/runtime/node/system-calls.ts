/**
 * System calls that Node, its JavaScript engine and the C library make by themselves, allowed in the sandbox
 * (main/host/sandbox.ts) with any arguments, grouped by who needs them. No module of src/sys declares them; a
 * call that one comes to declare moves to ENGINE_CALLS.
 */
export const RUNTIME_CALLS = {
  "Node's files and streams: --pcap, the API's socket, standard output": [
    'pwrite64',
    'preadv',
    'pwritev',
    'fsync',
    'fdatasync',
    'fstat',
    'statx',
    'accept',
    'ppoll',
  ],
  "V8's heap, compiled code and collector, malloc's arenas": [
    'pkey_mprotect',
    'pkey_alloc',
    'pkey_free',
    'munmap',
    'mremap',
    'mincore',
    'brk',
    'membarrier',
  ],
  'threads: locks, start and end, where the scheduler puts them': [
    'futex',
    'set_robust_list',
    'rseq',
    'set_tid_address',
    'exit',
    'getcpu',
    'getpriority',
    'sched_getaffinity',
    'sched_getparam',
    'sched_getscheduler',
    'sched_get_priority_max',
    'sched_get_priority_min',
  ],
  "the start of a thread: Node's code asks for the working directory, and ends the thread without an answer":
    ['getcwd'],
  'signal handlers and ends of children': ['sigaltstack', 'rt_sigpending', 'waitid', 'restart_syscall'],
  'clocks, where the vDSO does not answer': [
    'clock_getres',
    'clock_nanosleep',
    'nanosleep',
    'gettimeofday',
    'time',
  ],
  "Node's process and os modules": [
    'getpid',
    'getppid',
    'getuid',
    'geteuid',
    'getgid',
    'getegid',
    'getsid',
    'getrusage',
    'times',
    'sysinfo',
    'uname',
    'getrandom',
    'getrlimit',
  ],
} as const;

/** Calls that fail with ENOSYS instead of ending the process, by who makes them and does without. */
export const REFUSED_CALLS = {
  'the event loop of a thread that is started in the sandbox: a ring to submit epoll_ctl through': [
    'io_uring_setup',
  ],
} as const;
