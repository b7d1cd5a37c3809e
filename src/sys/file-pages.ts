/**
 * Pages of programs and libraries that this process has mapped and does not need now. A start runs through
 * tens of megabytes of a runtime's code, most of which an engine never uses again. Such pages stay in the
 * kernel's page cache: one that is used again is mapped again by a minor fault.
 * @syscalls madvise openat read close
 *
 * Only mappings without a private page are touched. MADV_DONTNEED discards private pages of a file mapping,
 * for example those that the dynamic linker has relocated, and the next access would read the file's bytes.
 * /proc/self/smaps shows which mappings have private pages; it is opened early, as the sandbox has no /proc.
 */
import { O_RDONLY } from './constants.ts';
import { close, read } from './io.ts';
import { libc } from './libc.ts';
import { MADV_DONTNEED, NativeBuffer } from './memory.ts';
import { openPath } from './path.ts';

const cMadvise = libc<[number, number, number]>('madvise', 'int', ['uintptr_t', 'uintptr_t', 'int']);

/** Part of the address space, in bytes. */
export interface Mapping {
  readonly address: number;
  readonly bytes: number;
}

/** Where the next mapping begins. */
const BEFORE_MAPPING = /^(?=[0-9a-f]+-)/m;
/** First line of a mapping, proc_pid_maps(5): private, not writable, of a file. */
const READ_ONLY_FILE = /^([0-9a-f]+)-([0-9a-f]+) r-[x-]p [0-9a-f]+ \S+ [1-9]\d* +\//;
/** A mapping's counts of private pages, in memory and in swap. */
const NO_PRIVATE_PAGE = /^Anonymous: +0 kB$[\s\S]*^Swap: +0 kB$/m;
/** Smaller mappings are left alone. */
const LEAST_BYTES = 64 * 1024;
/** The kernel gives at most a page at a time, and one mapping takes some 700 bytes. */
const READ_BYTES = 16 * 1024;

/**
 * The mappings of which every page can be dropped without loss: read-only, private, of a file, and without a
 * private page. Pure.
 * @param smaps  text of a smaps file, proc_pid_smaps(5)
 */
export function droppableMappings(smaps: string): Mapping[] {
  const found: Mapping[] = [];
  for (const text of smaps.split(BEFORE_MAPPING)) {
    const [, start = '', end = ''] = READ_ONLY_FILE.exec(text) ?? [];
    if (start === '' || !NO_PRIVATE_PAGE.test(text)) continue;
    const address = Number.parseInt(start, 16);
    const bytes = Number.parseInt(end, 16) - address;
    if (bytes >= LEAST_BYTES) found.push({ address, bytes });
  }
  return found;
}

/** The file pages of this process. */
export class FilePages {
  #smaps: number;

  /**
   * Opens /proc/self/smaps: to be called while there is a /proc. Where that fails (a kernel without
   * CONFIG_PROC_PAGE_MONITOR), drop() does nothing.
   */
  constructor() {
    this.#smaps = openPath('/proc/self/smaps', O_RDONLY);
  }

  /**
   * Unmap the pages of all droppable mappings. Works once, also in the sandbox. Takes some 4 ms, half of them
   * to read smaps.
   */
  drop(): void {
    for (const { address, bytes } of droppableMappings(this.#read())) {
      cMadvise(address, bytes, MADV_DONTNEED); // fails for a mapping that is locked in memory, or that has gone
    }
    this.close();
  }

  close(): void {
    if (this.#smaps >= 0) close(this.#smaps);
    this.#smaps = -1;
  }

  /** @returns the text of smaps; empty if it cannot be read to its end */
  #read(): string {
    if (this.#smaps < 0) return '';
    const buffer = new NativeBuffer(READ_BYTES);
    let text = '';
    for (;;) {
      const n = read(this.#smaps, buffer.address, READ_BYTES);
      if (n === 0) return text;
      if (n < 0) return '';
      text += Buffer.from(buffer.u8.buffer, 0, n).toString('latin1');
    }
  }
}
