/*
 * Preloaded into all programs of a test under qemu-user (test/arm64/main.ts), so that an engine starts although the emulator has
 * no system call filters. What differs from a machine:
 *
 *   seccomp(2)    The emulator answers ENOSYS. Success is reported here. The call is made nevertheless: in the emulator's log of system
 *                 calls it shows from where on the filter would be in force.
 *   mprotect(2)   For capset(2) the emulator needs a writable header; the kernel does not, as the version is right (cap_validate_magic(),
 *                 kernel/capability.c). src/sys/thread-capabilities.ts has the header in a page that is readable and executable:
 *                 that page stays writable here.
 *   /proc         /proc/self/task has a thread of the emulator's own, which takes no signal of the program. Its status file is empty here:
 *                 src/sys/thread-capabilities.ts finds no capability that the thread would have to lose.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The emulator's is the only thread beside the one that runs this: the program has started none yet. */
__attribute__((constructor)) static void hide_emulators_thread(void) {
  DIR *tasks = opendir("/proc/self/task");
  if (!tasks) return;
  for (struct dirent *task; (task = readdir(tasks));) {
    char status[64];
    snprintf(status, sizeof status, "/proc/self/task/%.15s/status", task->d_name);
    /* Fails without CAP_SYS_ADMIN, and such a process has no capabilities to drop. The kernel unmounts it when the thread ends. */
    if (task->d_name[0] != '.' && atoi(task->d_name) != gettid()) mount("/dev/null", status, NULL, MS_BIND, NULL);
  }
  closedir(tasks);
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
