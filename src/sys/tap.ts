/**
 * TAP devices: <linux/if_tun.h>, the kernel's Documentation/networking/tuntap.rst. Cold: functions throw
 * SysError.
 *
 * With IFF_VNET_HDR every frame, in both directions, has struct virtio_net_hdr with num_buffers (12 bytes) in
 * front. With it the kernel passes and accepts frames of up to 64 KiB per call, whatever the MTU.
 *
 * Privilege: TUNSETIFF needs CAP_NET_ADMIN in the user namespace that owns the network namespace in which
 * /dev/net/tun was *opened*. The descriptor belongs to that network namespace, whichever thread or process
 * uses it.
 * @syscalls openat ioctl close
 */
import { fstatSync, statSync } from 'node:fs';
import { release } from 'node:os';
import {
  Errno,
  IFF_MULTI_QUEUE,
  IFF_NO_PI,
  IFF_TAP,
  IFF_VNET_HDR,
  IFNAMSIZ,
  O_NONBLOCK,
  O_RDWR,
  TUN_F_CSUM,
  TUN_F_TSO_ECN,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_USO4,
  TUN_F_USO6,
  TUNGETDEVNETNS,
  TUNGETIFF,
  TUNSETIFF,
  TUNSETOFFLOAD,
  TUNSETPERSIST,
  TUNSETVNETHDRSZ,
} from './constants.ts';
import { SysError } from './error.ts';
import { close, ioctl, ioctlWriteInt, setNonBlocking } from './io.ts';
import { kernelAtLeast } from './kernel-version.ts';
import { NativeBuffer } from './memory.ts';
import { openPath } from './path.ts';

export const TUN_PATH = '/dev/net/tun';
/** struct virtio_net_hdr_mrg_rxbuf: <linux/virtio_net.h>. */
export const VNET_HDR_BYTES = 12;

export interface TapOptions {
  /** Interface name, 1 to 15 bytes; the kernel replaces `%d` by a number. */
  name: string;
  /** Request the virtio header and the offloads that need it; default true. */
  vnetHeader?: boolean;
  /** Open one queue of a multi-queue interface; every further queue is another call with the same name. */
  multiQueue?: boolean;
  /** Keep the interface when the last descriptor is closed. */
  persist?: boolean;
}

export interface Tap {
  /** Non-blocking, close-on-exec; the caller closes it. */
  fd: number;
  /** Interface name. */
  name: string;
  /** Length of the virtio header in front of every frame. */
  vnetHdrBytes: 0 | 12;
  /** Partial checksums and TCP segmentation offload, in both directions and for both families. */
  tso: boolean;
  /** UDP segmentation offload, in both directions and for both families (Linux 6.2). */
  uso: boolean;
  /**
   * The kernel accepts TCP packets that are longer than an IP length field can express (BIG TCP; IPv4 since
   * 6.3).
   */
  bigTcp: boolean;
  multiQueue: boolean;
}

/** struct ifreq, <linux/if.h>: name 16 bytes, ifr_flags i16 at +16, 40 bytes in all. */
const IFREQ_BYTES = 40;
const IFREQ_FLAGS_AT = 16;
const ifreq = new NativeBuffer(IFREQ_BYTES);

const TSO_FEATURES = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
const USO_FEATURES = TUN_F_USO4 | TUN_F_USO6;

/**
 * Open /dev/net/tun in the calling thread's network namespace, and create a TAP interface or attach to an
 * existing one.
 * @throws SysError
 */
export function openTap(options: TapOptions): Tap {
  const fd = openPath(TUN_PATH, O_RDWR | O_NONBLOCK);
  if (fd < 0) throw new SysError('open', TUN_PATH, -fd, openRemedy(-fd));
  try {
    return configureTap(fd, options);
  } catch (error) {
    close(fd);
    throw error;
  }
}

/**
 * Create or attach to a TAP interface on a descriptor of /dev/net/tun that was opened in the target
 * namespace.
 * @param fd  the caller closes it, also on errors
 * @throws SysError
 */
export function configureTap(fd: number, options: TapOptions): Tap {
  const base = IFF_TAP | IFF_NO_PI | (options.multiQueue ? IFF_MULTI_QUEUE : 0);
  let errno = setInterface(fd, options.name, options.vnetHeader === false ? base : base | IFF_VNET_HDR);
  // EINVAL may mean that the kernel does not know IFF_VNET_HDR. If it has another cause, the second call
  // fails too.
  if (errno === Errno.EINVAL && options.vnetHeader !== false) errno = setInterface(fd, options.name, base);
  if (errno !== 0)
    throw new SysError('ioctl', `TUNSETIFF, "${options.name}"`, errno, interfaceRemedy(errno, options));
  if (options.persist) {
    const r = ioctl(fd, TUNSETPERSIST, 1);
    if (r < 0) throw new SysError('ioctl', `TUNSETPERSIST, "${options.name}"`, -r);
  }
  return attachTap(fd);
}

/**
 * Take over a descriptor that is attached to a TAP interface already. Whether frames have a virtio header was
 * decided when it was attached; the offloads are set here.
 * @throws SysError
 */
export function attachTap(fd: number): Tap {
  ifreq.u8.fill(0);
  const r = ioctl(fd, TUNGETIFF, ifreq.address);
  if (r < 0) {
    const hint = 'the descriptor must be one of /dev/net/tun that is attached to a TAP interface (TUNSETIFF)';
    throw new SysError('ioctl', `TUNGETIFF, fd ${fd}`, -r, hint);
  }
  const name = interfaceName();
  const flags = ifreq.u16[IFREQ_FLAGS_AT >> 1]!;
  if ((flags & IFF_TAP) === 0 || (flags & IFF_NO_PI) === 0) {
    const hint = 'make the interface with IFF_TAP | IFF_NO_PI';
    throw new SysError('ioctl', `TUNGETIFF, fd ${fd} ("${name}")`, Errno.EINVAL, hint);
  }
  const nonBlocking = setNonBlocking(fd);
  if (nonBlocking < 0) throw new SysError('fcntl', `F_SETFL O_NONBLOCK, fd ${fd} ("${name}")`, -nonBlocking);

  const multiQueue = (flags & IFF_MULTI_QUEUE) !== 0;
  if ((flags & IFF_VNET_HDR) === 0) {
    // Offloads may have been enabled before. Without the header nothing would tell how to segment a large
    // frame.
    ioctl(fd, TUNSETOFFLOAD, 0);
    return { fd, name, vnetHdrBytes: 0, tso: false, uso: false, bigTcp: false, multiQueue };
  }
  const size = ioctlWriteInt(fd, TUNSETVNETHDRSZ, VNET_HDR_BYTES);
  if (size < 0) throw new SysError('ioctl', `TUNSETVNETHDRSZ ${VNET_HDR_BYTES}, "${name}"`, -size);
  const uso = ioctl(fd, TUNSETOFFLOAD, TSO_FEATURES | USO_FEATURES) >= 0;
  const tso = uso || ioctl(fd, TUNSETOFFLOAD, TSO_FEATURES) >= 0;
  if (!tso) ioctl(fd, TUNSETOFFLOAD, 0);
  return {
    fd,
    name,
    vnetHdrBytes: VNET_HDR_BYTES,
    tso,
    uso,
    bigTcp: tso && hasBigTcp(release()),
    multiQueue,
  };
}

/**
 * Whether a TAP's interface is in the network namespace of the calling thread. false also where the kernel is
 * too old for TUNGETDEVNETNS.
 */
export function tapIsHere(fd: number): boolean {
  const namespace = ioctl(fd, TUNGETDEVNETNS, 0);
  if (namespace < 0) return false;
  try {
    const tapNamespace = fstatSync(namespace);
    const ownNamespace = statSync('/proc/thread-self/ns/net');
    return tapNamespace.dev === ownNamespace.dev && tapNamespace.ino === ownNamespace.ino;
  } finally {
    close(namespace);
  }
}

/**
 * Whether a kernel accepts BIG TCP packets from a TAP. This is decided by the version, because no call
 * reports it: an older kernel accepts such a frame from the TAP and drops it in ip_rcv.
 * @param kernelRelease  as printed by uname -r, "6.12.41-amd64"
 */
export function hasBigTcp(kernelRelease: string): boolean {
  return kernelAtLeast(6, 3, kernelRelease);
}

/** @returns 0 or a positive errno */
function setInterface(fd: number, name: string, flags: number): number {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length === 0 || bytes.length >= IFNAMSIZ) return Errno.EINVAL;
  ifreq.u8.fill(0);
  ifreq.u8.set(bytes);
  ifreq.u16[IFREQ_FLAGS_AT >> 1] = flags;
  return -ioctl(fd, TUNSETIFF, ifreq.address);
}

function interfaceName(): string {
  const end = ifreq.u8.indexOf(0);
  return new TextDecoder().decode(ifreq.u8.subarray(0, end < 0 || end > IFNAMSIZ ? IFNAMSIZ : end));
}

function openRemedy(errno: number): string | undefined {
  if (errno === Errno.ENOENT)
    return 'the TUN driver has no device node here: modprobe tun, or mount the host /dev/net/tun';
  if (errno === Errno.ENODEV || errno === Errno.ENXIO) return 'load the TUN driver: modprobe tun';
  if (errno === Errno.EACCES || errno === Errno.EPERM) {
    return 'let this user open it: chmod 0666 /dev/net/tun, or allow device 10:200 in the container';
  }
  return undefined;
}

function interfaceRemedy(errno: number, options: TapOptions): string | undefined {
  if (errno === Errno.EPERM) {
    return 'the caller needs CAP_NET_ADMIN in the user namespace that owns the network namespace';
  }
  if (errno === Errno.EBUSY)
    return `"${options.name}" is in use by another process, or is no TAP: choose another name`;
  if (errno === Errno.EINVAL) {
    const names = 'interface names have 1 to 15 bytes, no "/" and no space';
    const queues = options.multiQueue ? 'without' : 'with';
    return `${names}; an interface of this name must be a TAP made ${queues} multi_queue`;
  }
  return undefined;
}
