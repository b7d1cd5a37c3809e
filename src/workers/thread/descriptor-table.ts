/**
 * Descriptors by index (flow, socket, end of a connection): the one representation of "no descriptor" in such
 * tables. A cell holds fd + 1, so that zeroed memory means none and the pages of indexes that were never used
 * stay untouched. Outside of the table no descriptor is NO_DESCRIPTOR, below zero like every -errno.
 */

export const NO_DESCRIPTOR = -1;

/** Indexes of one group, as a power of two. */
const GROUP_BITS = 10;

export class DescriptorTable {
  readonly #cells: Int32Array;
  /** By group of indexes: how many have a descriptor. each() skips groups without any. */
  readonly #inGroup: Uint16Array;
  readonly length: number;

  /** @param length  number of indexes */
  constructor(length: number) {
    this.#cells = new Int32Array(length);
    this.#inGroup = new Uint16Array((length + (1 << GROUP_BITS) - 1) >> GROUP_BITS);
    this.length = length;
  }

  /** @returns the descriptor at an index, or NO_DESCRIPTOR */
  get(index: number): number {
    return this.#cells[index]! - 1;
  }

  has(index: number): boolean {
    return this.#cells[index] !== 0;
  }

  set(index: number, fd: number): void {
    if (this.#cells[index] === 0) this.#inGroup[index >> GROUP_BITS]!++;
    this.#cells[index] = fd + 1;
  }

  clear(index: number): void {
    if (this.#cells[index] !== 0) this.#inGroup[index >> GROUP_BITS]!--;
    this.#cells[index] = 0;
  }

  /**
   * Call a function for each index that has a descriptor, in ascending order. It may clear that index. Cold.
   */
  each(visit: (index: number) => void): void {
    for (let group = 0; group < this.#inGroup.length; group++) {
      if (this.#inGroup[group] === 0) continue;
      const end = Math.min((group + 1) << GROUP_BITS, this.length);
      for (let i = group << GROUP_BITS; i < end; i++) if (this.has(i)) visit(i);
    }
  }
}
