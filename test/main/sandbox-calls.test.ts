// @vitest: beside
/**
 * Compares the system calls that modules of src/sys declare (`@syscalls` in their head comments) with those
 * that the sandbox allows. A call that was added to one list only fails here, and not by SIGSYS on a user's
 * machine.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ENGINE_CALLS, RUNTIME_CALLS, sandboxFilter } from '../../src/main/host/sandbox.ts';

const SYS = new URL('../../src/sys/', import.meta.url);

/** Calls declared by src/sys but refused in the sandbox: they are made before it, with the reasons. */
const BEFORE_THE_WALL: Record<string, readonly string[]> = {
  'namespaces and mounts: setting up': [
    ...['unshare', 'setns', 'mount', 'umount2', 'pivot_root', 'chroot', 'chdir', 'fchdir', 'setsid'],
    ...['open_tree', 'move_mount', 'mount_setattr'],
  ],
  'files of the host are made': ['mkdirat'],
  'files that are watched: a packet thread waits for their changes': ['inotify_init1', 'inotify_add_watch'],
  'COMMAND is started': ['execve', 'sethostname'],
  'descriptors that are inherited or handed over': ['dup3', 'pidfd_open'],
  'the TAP is left to a pair of sockets': ['socketpair'],
  'the supervisor of --switch-sockets, in a sandbox of its own (src/switch/sandbox.ts)': [
    ...['pidfd_getfd', 'process_vm_readv', 'kcmp'],
  ],
  'the sandbox itself': ['seccomp', 'landlock_create_ruleset', 'landlock_restrict_self', 'capset'],
};
/** Allowed for the runtime, restricted by arguments: to start threads, and to enter libuv's io_uring. */
const RUNTIME_BY_ARGUMENTS = ['clone', 'io_uring_enter'];

/** Library functions whose system call has another name; [] where there is none of interest. */
const CALLS_OF: Record<string, readonly string[]> = {
  pread: ['pread64'],
  eventfd: ['eventfd2'],
  _exit: ['exit_group'],
  raise: ['tgkill'],
  pthread_sigmask: ['rt_sigprocmask'],
  signal: ['rt_sigaction'],
  tcgetpgrp: ['ioctl'],
  tcsetpgrp: ['ioctl'],
  getrlimit: ['prlimit64'],
  setrlimit: ['prlimit64'],
  send: ['sendto'],
  recv: ['recvfrom'],
  syscall: [], // by number: see usedIn
  waitpid: ['wait4'],
  memcpy: [],
  mallopt: [],
};

/** Calls that the head comment of a module declares; `(none)`: an empty list; undefined: no declaration. */
function declaredIn(source: string): readonly string[] | undefined {
  const tag = /@syscalls\s((?:(?!\n \*\s*\n|\*\/|\n \* [@A-Z])[\s\S])*)/.exec(source)?.[1];
  return tag?.split(/[\s*]+/).filter((word) => /^\w+$/.test(word));
}

/** Calls that a module makes: bound functions, and numbers from constants.ts or syscall-numbers.ts. */
function usedIn(source: string): readonly string[] {
  const code = source.replace(/import[^;]*;/g, '');
  const bound = [...code.matchAll(/[lL]ibc(?:<[^(]*>)?\(\s*'(\w+)'/g)].flatMap(
    ([, name]) => CALLS_OF[name!] ?? [name!],
  );
  const numbered = [...code.matchAll(/\bSYS_(?!PTRACE|ADMIN)(\w+)|syscallNumber\('(\w+)'\)/g)];
  return [...new Set([...bound, ...numbered.map(([, constant, name]) => constant ?? name!)])];
}

const modules = readdirSync(SYS, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !/(^|\/)(constants|syscall-numbers)\.ts$/.test(file))
  .map((file) => ({ file, source: readFileSync(new URL(file, SYS), 'utf8') }));
const declared = new Set(modules.flatMap(({ source }) => declaredIn(source) ?? []));
// A plan with all features, so that no call is missing because a feature is off.
const filter = sandboxFilter(
  { readable: [40], listable: [43], removable: [42], signals: [44], watchesProcess: true },
  [30],
  1234,
);
const runtime = Object.values(RUNTIME_CALLS).flat();
const allowed = [...filter].flatMap(([name, rule]) => (rule !== 'allow' && 'errno' in rule ? [] : [name]));

describe('@syscalls', () => {
  it.each(modules)('$file declares the system calls that it makes', ({ source }) => {
    expect(usedIn(source).filter((name) => !declaredIn(source)?.includes(name))).toEqual([]);
  });

  it('the parser of declarations: finds the names', () => {
    expect(declaredIn('/**\n * X.\n * @syscalls read write\n *           close\n */')).toEqual([
      'read',
      'write',
      'close',
    ]);
    expect(declaredIn('/**\n * @syscalls read\n *\n * close it\n */')).toEqual(['read']);
    expect(declaredIn('/**\n * @syscalls (none)\n */')).toEqual([]);
    expect(declaredIn('/** X. */')).toBeUndefined();
    expect(
      usedIn("const r = libc<[N, N]>('pread', 'int');\nf(SYS_capget); g(syscallNumber('statx'))"),
    ).toEqual([...['pread64', 'capget', 'statx']]);
  });

  it('declared calls: allowed in the sandbox, or listed as made before it', () => {
    const refused = [...declared].filter((name) => !(allowed as readonly string[]).includes(name));
    expect(refused.sort()).toEqual(Object.values(BEFORE_THE_WALL).flat().sort());
  });

  it('allowed calls: declared by a module, or listed with the reason why the runtime needs them', () => {
    expect(ENGINE_CALLS.filter((name) => !declared.has(name))).toEqual([]);
    expect(runtime.filter((name) => declared.has(name))).toEqual([]);
    const stated = new Set<string>([...ENGINE_CALLS, ...runtime, ...declared, ...RUNTIME_BY_ARGUMENTS]);
    expect(allowed.filter((name) => !stated.has(name))).toEqual([]);
  });
});
