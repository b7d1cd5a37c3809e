/**
 * Native addresses of JavaScript memory. The rest of src/sys builds on this module.
 * @syscalls madvise
 *
 * An address is a plain number: user space ends below 2^47 on x86-64 and 2^52 on AArch64, both exact in a
 * double.
 *
 * Invariants:
 * - An address does not keep its memory alive: code that uses it must hold a reference to the view or
 *   NativeBuffer.
 * - JavaScript engines keep the bytes of small typed arrays made as `new Uint8Array(n)` in their own heaps,
 *   where they may move. `addressOf` asks for `.buffer` first, which moves the bytes out for good.
 */
import { libc, nativeAddress, optionalLibc } from './libc.ts';

/**
 * The address of the first byte of a view. Cold: call it once and add offsets to the result.
 * @throws RangeError for a view of an empty buffer
 */
export function addressOf(view: ArrayBufferView): NativeAddress {
  if (view.buffer.byteLength === 0) throw new RangeError('addressOf: the view has no bytes, so no address');
  return nativeAddress(view) as NativeAddress;
}

declare const brand: unique symbol;
/** A native (virtual memory) address: an exact integer below 2^53. Branded for the type checker only. */
export type NativeAddress = number & { readonly [brand]: 'NativeAddress' };

/**
 * Write a 64-bit little-endian pointer (or size) as two words.
 * @param wordIndex  index of the low word
 */
export function writeAddress(u32: Uint32Array, wordIndex: number, address: number): void {
  u32[wordIndex] = address >>> 0;
  u32[wordIndex + 1] = Math.floor(address / 0x1_0000_0000);
}

/** mallopt(3), <malloc.h>: a function of glibc. musl does not have it and does not need it. */
const M_MMAP_THRESHOLD = -3;
const LARGE_BYTES = 64 * 1024;
const cMallopt = optionalLibc<[number, number]>('mallopt', 'int', ['int', 'int']);

/**
 * Make malloc(3) use mmap(2) for every allocation of 64 KiB or more from now on. glibc raises this threshold
 * at run time; calloc(3) then takes large blocks from the heap and has to clear the parts that were used
 * before, which touches half the pages of every large array for nothing. 150 arrays of 128 KiB take 0.5 ms
 * and 1 MiB with this setting, 4.5 ms and 11 MiB without.
 */
export function mapLargeArrays(): void {
  cMallopt?.(M_MMAP_THRESHOLD, LARGE_BYTES);
}

const cMemcpy = libc<[number, number, number]>('memcpy', 'intptr_t', ['uintptr_t', 'uintptr_t', 'size_t']);

/** memcpy(3), between two memories: TypedArray.set() would need a view of the source for each copy. */
export function copyBytes(to: number, from: number, bytes: number): void {
  cMemcpy(to, from, bytes);
}

export const MADV_DONTNEED = 4; // <asm-generic/mman-common.h>
/** Of any kernel: where pages are smaller, some more than need be are kept. */
const LARGEST_PAGE_BYTES = 65_536;
const cMadvise = libc<[number, number, number]>('madvise', 'int', ['uintptr_t', 'uintptr_t', 'int']);

/**
 * Give the pages of an array back to the kernel, whole ones as far as they hold nothing else: its contents are
 * undefined then, and the pages are taken again as they are used. Cold.
 */
export function discardPages(view: ArrayBufferView): void {
  const begin = addressOf(view);
  const firstPage = Math.ceil(begin / LARGEST_PAGE_BYTES) * LARGEST_PAGE_BYTES;
  const end = Math.floor((begin + view.byteLength) / LARGEST_PAGE_BYTES) * LARGEST_PAGE_BYTES;
  if (end > firstPage) cMadvise(firstPage, end - firstPage, MADV_DONTNEED); // fails for locked memory
}

/**
 * Scratch memory for kernel structures: zeroed, 16-byte aligned, of fixed size, valid as long as this object
 * is reachable.
 */
export class NativeBuffer {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;
  readonly dv: DataView;
  readonly address: NativeAddress;

  /** @param bytes  size, rounded up to a multiple of 8 */
  constructor(bytes: number) {
    const buffer = new ArrayBuffer((bytes + 7) & ~7);
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.dv = new DataView(buffer);
    this.address = addressOf(this.u8);
  }
}
