/**
 * Descriptors by index (flow, socket, end of a connection): the one representation of "no descriptor" in such
 * tables. A cell holds fd + 1, so that zeroed memory means none and the pages of indexes that were never used
 * stay untouched. Outside of the table no descriptor is NO_DESCRIPTOR, below zero like every -errno.
 */

export const NO_DESCRIPTOR = -1;

export class DescriptorTable {
  readonly #cells: Int32Array;
  readonly length: number;

  /** @param length  number of indexes */
  constructor(length: number) {
    this.#cells = new Int32Array(length);
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
    this.#cells[index] = fd + 1;
  }

  clear(index: number): void {
    this.#cells[index] = 0;
  }
}
