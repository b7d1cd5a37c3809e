/*
 * Preloaded into the engine under qemu-user (test/arm64/main.ts), so that it starts although the emulator has no system call
 * filters. What differs from a machine:
 *
 *   seccomp(2)    The emulator answers ENOSYS. Success is reported here. The call is made nevertheless: in the emulator's log of system
 *                 calls it shows from where on the filter would be in force.
 *   mprotect(2)   For capset(2) the emulator needs a writable header; the kernel does not, as the version is right (cap_validate_magic(),
 *                 kernel/capability.c). src/sys/thread-capabilities.ts has the header in a page that is readable and executable:
 *                 that page stays writable here.
 *   scandir(3)    /proc/self/task has a thread of the emulator's own, which takes no signal of the program: it is left out here.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* The first thread of this process beside the one that runs this; no other thread of the program exists yet. */
static char emulators_thread[16];

__attribute__((constructor)) static void find_emulators_thread(void) {
  DIR *tasks = opendir("/proc/self/task");
  if (!tasks) return;
  for (struct dirent *task; (task = readdir(tasks));)
    if (task->d_name[0] != '.' && atoi(task->d_name) != gettid()) strncpy(emulators_thread, task->d_name, sizeof emulators_thread - 1);
  closedir(tasks);
}

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

int scandir64(const char *path, struct dirent64 ***names, int (*filter)(const struct dirent64 *),
              int (*compare)(const struct dirent64 **, const struct dirent64 **)) {
  int count = NEXT(scandir64)(path, names, filter, compare);
  if (strcmp(path, "/proc/self/task") != 0) return count;
  for (int i = 0; i < count; i++) {
    if (strcmp((*names)[i]->d_name, emulators_thread) != 0) continue;
    free((*names)[i]);
    memmove(*names + i, *names + i + 1, (--count - i) * sizeof **names);
    break;
  }
  return count;
}

int scandir(const char *path, struct dirent ***names, int (*filter)(const struct dirent *),
            int (*compare)(const struct dirent **, const struct dirent **)) {
  return scandir64(path, (void *)names, (void *)filter, (void *)compare); /* the same layout on arm64 */
}
