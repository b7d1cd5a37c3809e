/*
 * Preloaded into the engine under qemu-user (test/arm64/main.ts), so that it starts although the emulator has no system call
 * filters. What differs from a machine:
 *
 *   seccomp(2)    The emulator answers ENOSYS. Success is reported here. The call is made nevertheless: in the emulator's log of system
 *                 calls it shows from where on the filter would be in force.
 *   mprotect(2)   For capset(2) the emulator needs a writable header; the kernel does not, as the version is right (cap_validate_magic(),
 *                 kernel/capability.c). src/sys/thread-capabilities.ts has the header in a page that is readable and executable:
 *                 that page stays writable here.
 *   open(2)       /proc/self/task has a thread of the emulator's own, which takes no signal of the program. Its status file does not exist
 *                 here, as if the thread had ended.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Of the first thread of this process beside the one that runs this; no other thread of the program exists yet. */
static char emulators_status[64];

__attribute__((constructor)) static void find_emulators_thread(void) {
  DIR *tasks = opendir("/proc/self/task");
  if (!tasks) return;
  for (struct dirent *task; (task = readdir(tasks));)
    if (task->d_name[0] != '.' && atoi(task->d_name) != gettid())
      snprintf(emulators_status, sizeof emulators_status, "/proc/self/task/%.15s/status", task->d_name);
  closedir(tasks);
}

static int is_hidden(const char *path) { return path && *emulators_status && strcmp(path, emulators_status) == 0; }

int open(const char *path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  mode_t mode = va_arg(list, mode_t);
  va_end(list);
  if (is_hidden(path)) return errno = ENOENT, -1;
  return NEXT(open)(path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  mode_t mode = va_arg(list, mode_t);
  va_end(list);
  if (is_hidden(path)) return errno = ENOENT, -1;
  return NEXT(openat)(directory, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

long syscall(long number, ...) {
  long a[6];
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
  va_end(list);
  long r = NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  return number == SYS_seccomp ? 0 : r;
}

int mprotect(void *address, size_t bytes, int protection) {
  if (bytes == 4096 && protection == (PROT_READ | PROT_EXEC)) protection |= PROT_WRITE;
  return NEXT(mprotect)(address, bytes, protection);
}
