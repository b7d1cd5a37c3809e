/**
 * Directories that stay accessible after the process has changed its root. Where the kernel and the process's
 * privileges allow it, the descriptor refers to a copy of the mount whose root is that directory (open_tree,
 * Linux 5.2), so that ".." does not lead above it. Cold.
 * @syscalls open_tree mount_setattr openat readlinkat newfstatat getdents64 lseek close
 */
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  Errno,
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
} from './constants.ts';
import { failed, libc } from './libc.ts';
import { NativeBuffer } from './memory.ts';
import { openat, openPath } from './path.ts';
import { syscallNumber } from './syscall-numbers.ts';

// <linux/mount.h>, <linux/fcntl.h>
const OPEN_TREE_CLONE = 1;
const AT_RECURSIVE = 0x8000;
const MOUNT_ATTR_RDONLY = 1;
const MOUNT_ATTR_NOSUID = 2;
const MOUNT_ATTR_NODEV = 4;
const MOUNT_ATTR_NOEXEC = 8;
/** struct mount_attr: attr_set u64, attr_clr u64, propagation u64, userns_fd u64. */
const MOUNT_ATTR_BYTES = 32;
/** struct stat: st_dev u64 +0, st_ino u64 +8 on both architectures; 144 bytes at most. */
const STAT_BYTES = 144;
const PATH_MAX = 4096;
/**
 * struct linux_dirent64: d_ino u64, d_off s64, d_reclen u16 +16, d_type u8 +18, d_name +19, NUL-terminated.
 */
const DIRENT_RECLEN_AT = 16;
const DIRENT_NAME_AT = 19;
const LISTING_BYTES = 32 * 1024;

const cSyscallPath = libc<[number, number, string, number, number, number]>('syscall', 'intptr_t', [
  'int64_t',
  'intptr_t',
  'const char *',
  'uintptr_t',
  'uintptr_t',
  'uintptr_t',
]);

const cSyscall = libc<[number, number, number, number]>('syscall', 'intptr_t', [
  'int64_t',
  'intptr_t',
  'uintptr_t',
  'uintptr_t',
]);

/**
 * Open a directory so that it stays accessible.
 * @param writable  whether names in the directory may be removed through the descriptor
 * @returns a descriptor (close-on-exec) or -errno
 */
export function holdDirectory(path: string, writable = false): number {
  const flags = OPEN_TREE_CLONE | O_CLOEXEC | AT_RECURSIVE;
  const fd = cSyscallPath(syscallNumber('open_tree'), AT_FDCWD, path, flags, 0, 0);
  // Mounts may not be copied or the kernel is too old: a plain descriptor serves. No such directory: openPath
  // fails as well.
  if (fd < 0) return openPath(path, O_PATH | O_DIRECTORY);
  const attributes = new NativeBuffer(MOUNT_ATTR_BYTES);
  attributes.u32[0] =
    MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | (writable ? 0 : MOUNT_ATTR_RDONLY);
  // Before Linux 5.12 this call fails, and the copy keeps the attributes of the original mount.
  cSyscallPath(
    syscallNumber('mount_setattr'),
    fd,
    '',
    AT_EMPTY_PATH | AT_RECURSIVE,
    attributes.address,
    MOUNT_ATTR_BYTES,
  );
  return fd;
}

/**
 * Open a file in a held directory for reading; a symbolic link is refused (-ELOOP).
 * @returns a descriptor or -errno
 */
export const openHeld = (dirFd: number, name: string): number =>
  openat(dirFd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);

/** Target of a symbolic link in a held directory; undefined if there is no such name or it is not a link. */
export function readHeldLink(dirFd: number, name: string): string | undefined {
  const target = new NativeBuffer(PATH_MAX);
  const r = cSyscallPath(syscallNumber('readlinkat'), dirFd, name, target.address, PATH_MAX, 0);
  return r < 0 ? undefined : new TextDecoder().decode(target.u8.subarray(0, r));
}

/**
 * List a directory.
 * @param dirFd  a descriptor opened for reading, without O_PATH
 * @returns the names, "." and ".." included, or -errno
 */
export function heldNames(dirFd: number): readonly string[] | number {
  const rewound = cSyscall(syscallNumber('lseek'), dirFd, 0, 0);
  if (rewound < 0) return failed();
  const entries = new NativeBuffer(LISTING_BYTES);
  const names: string[] = [];
  for (;;) {
    const got = cSyscall(syscallNumber('getdents64'), dirFd, entries.address, LISTING_BYTES);
    if (got < 0) return failed();
    if (got === 0) return names;
    for (let at = 0; at + DIRENT_NAME_AT < got; ) {
      const next = at + entries.dv.getUint16(at + DIRENT_RECLEN_AT, true);
      if (next <= at + DIRENT_NAME_AT || next > got) return -Errno.EBADMSG;
      const name = entries.u8.subarray(at + DIRENT_NAME_AT, next);
      const end = name.indexOf(0);
      names.push(new TextDecoder().decode(end < 0 ? name : name.subarray(0, end)));
      at = next;
    }
  }
}

/** Device and inode of the file that a name refers to, links followed, as "dev:ino"; or -errno. */
export function heldIdentity(dirFd: number, name: string): string | number {
  const stat = new NativeBuffer(STAT_BYTES);
  const r = cSyscallPath(syscallNumber('newfstatat'), dirFd, name, stat.address, 0, 0);
  if (r < 0) return failed();
  return `${stat.dv.getBigUint64(0, true)}:${stat.dv.getBigUint64(8, true)}`;
}
