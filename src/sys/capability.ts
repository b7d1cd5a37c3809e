/**
 * Capabilities of the calling thread (man 7 capabilities). Cold. thread-capabilities.ts drops the
 * capabilities of threads that run no JavaScript.
 * @syscalls capget capset
 */
import { LINUX_CAPABILITY_VERSION_3, SYS_capget, SYS_capset } from './constants.ts';
import { SysError } from './error.ts';
import { syscall4 } from './libc.ts';
import { NativeBuffer } from './memory.ts';

/** Capability sets; bit n is capability n (CAP_*). */
export interface Capabilities {
  effective: bigint;
  permitted: bigint;
  inheritable: bigint;
}

/**
 * struct __user_cap_header (8 bytes) and two struct __user_cap_data (12 bytes each): <linux/capability.h>.
 */
const capHeader = new NativeBuffer(8);
const capData = new NativeBuffer(24);

/** Capabilities of the calling thread. @throws SysError */
export function capget(): Capabilities {
  capHeader.u32[0] = LINUX_CAPABILITY_VERSION_3;
  capHeader.u32[1] = 0;
  const r = syscall4(SYS_capget, capHeader.address, capData.address, 0, 0);
  if (r < 0) throw new SysError('capget', 'calling thread', -r);
  const set = (word: number): bigint => BigInt(capData.u32[word]!) | (BigInt(capData.u32[word + 3]!) << 32n);
  return { effective: set(0), permitted: set(1), inheritable: set(2) };
}

/** Set the capabilities of the calling thread. @returns 0 or -errno */
export function capset(capabilities: Capabilities): number {
  capHeader.u32[0] = LINUX_CAPABILITY_VERSION_3;
  capHeader.u32[1] = 0;
  const sets = [capabilities.effective, capabilities.permitted, capabilities.inheritable];
  sets.forEach((set, word) => {
    capData.u32[word] = Number(set & 0xffff_ffffn);
    capData.u32[word + 3] = Number(set >> 32n);
  });
  return syscall4(SYS_capset, capHeader.address, capData.address, 0, 0);
}

/**
 * Drop all capabilities of the calling thread except `kept`. A capability that the thread does not have is
 * not added.
 * @param kept  CAP_*
 * @returns 0 or -errno
 */
export function keepCapabilities(kept: readonly number[]): number {
  const { permitted } = capget();
  const left = permitted & kept.reduce((set, capability) => set | (1n << BigInt(capability)), 0n);
  return capset({ effective: left, permitted: left, inheritable: 0n });
}
