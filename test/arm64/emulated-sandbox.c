/*
 * Preloaded into all programs of a test under qemu-user (test/arm64/main.ts), so that an engine starts although the emulator has
 * no system call filters. What differs from a machine:
 *
 *   seccomp(2)    The emulator answers ENOSYS. Success is reported here. The call is made nevertheless: in the emulator's log of system
 *                 calls it shows from where on the filter would be in force.
 *   mprotect(2)   For capset(2) the emulator needs a writable header; the kernel does not, as the version is right (cap_validate_magic(),
 *                 kernel/capability.c). src/sys/thread-capabilities.ts has the header in a page that is readable and executable:
 *                 that page stays writable here.
 *   clone(2)      For a child that shares memory until it executes a program the emulator makes one that does not, and refuses new
 *                 namespaces. src/sys/spawn.ts needs both: here the child is made by fork(2) and the namespaces by unshare(2). What the
 *                 child writes into the shared memory, the call that failed, is lost.
 *   openat(2)     /proc/self/task has a thread of the emulator's own, which takes no signal of the program. Its status file does not exist
 *                 here, as if the thread had ended: src/sys/thread-capabilities.ts cannot take its capabilities. There is no
 *                 /proc/self/smaps either: the emulator's says of all mappings that they have no private pages, and
 *                 src/sys/file-pages.ts would drop relocated pages.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* "TID/status" of the emulator's thread: the only one beside this one, as the program has started none yet. */
static char emulators_status[32];

__attribute__((constructor)) static void find_emulators_thread(void) {
  DIR *tasks = opendir("/proc/self/task");
  if (!tasks) return;
  for (struct dirent *task; (task = readdir(tasks));)
    if (task->d_name[0] != '.' && atoi(task->d_name) != gettid())
      snprintf(emulators_status, sizeof emulators_status, "%.15s/status", task->d_name);
  closedir(tasks);
}

int openat(int directory, const char *path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  mode_t mode = va_arg(list, mode_t);
  va_end(list);
  int emulated = *emulators_status && strcmp(path, emulators_status) == 0;
  if (emulated || strcmp(path, "/proc/self/smaps") == 0) return errno = ENOENT, -1;
  int (*real)(int, const char *, int, ...) = dlsym(RTLD_NEXT, "openat");
  return real(directory, path, flags, mode);
}

long syscall(long number, ...) {
  long a[6];
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
  va_end(list);
  long (*real)(long, ...) = dlsym(RTLD_NEXT, "syscall");
  long r = real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  return number == SYS_seccomp ? 0 : r;
}

int mprotect(void *address, size_t bytes, int protection) {
  int (*real)(void *, size_t, int) = dlsym(RTLD_NEXT, "mprotect");
  if (bytes == 4096 && protection == (PROT_READ | PROT_EXEC)) protection |= PROT_WRITE;
  return real(address, bytes, protection);
}

struct start {
  int (*run)(void *);
  void *argument;
  int namespaces;
  int executed[2]; /* a pipe: its writing end is closed when the child has executed its program */
  int child;
};

/* unshare(CLONE_NEWPID) is for children of the calling thread, which must not go back: so it is a thread of its own. The thread stays,
 * because PR_SET_PDEATHSIG kills the child when it ends. */
static void *start_child(void *given) {
  struct start *start = given;
  int child = -1;
  if (unshare(start->namespaces & CLONE_NEWPID) == 0) child = fork();
  if (child == 0) {
    if (unshare(start->namespaces & ~CLONE_NEWPID) == 0) start->run(start->argument);
    _exit(126);
  }
  start->child = child;
  close(start->executed[1]);
  sigset_t all; /* but the signal by which threads lose their capabilities, which the C library leaves out */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, NULL);
  for (;;) pause();
}

int clone(int (*run)(void *), void *stack, int flags, void *argument, ...) {
  int (*real)(int (*)(void *), void *, int, void *, ...) = dlsym(RTLD_NEXT, "clone");
  if (!(flags & CLONE_VFORK)) {
    void *more[3];
    va_list list;
    va_start(list, argument);
    for (int i = 0; i < 3; i++) more[i] = va_arg(list, void *);
    va_end(list);
    return real(run, stack, flags, argument, more[0], more[1], more[2]);
  }
  struct start start = {.run = run, .argument = argument};
  start.namespaces = flags & (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET);
  pthread_t thread;
  if (pipe2(start.executed, O_CLOEXEC) < 0) return -1;
  if (pthread_create(&thread, NULL, start_child, &start) != 0) return -1;
  char none;
  while (read(start.executed[0], &none, 1) > 0) continue;
  close(start.executed[0]);
  return start.child;
}
