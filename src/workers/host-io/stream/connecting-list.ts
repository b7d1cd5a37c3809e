/**
 * Sockets whose connect() has not ended yet, oldest first: a list through two arrays by gid. Neighbours are
 * kept as gid + 1: zeroed memory means none.
 */
export class ConnectingList {
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  #first = 0;
  #last = 0;
  /** Sockets on the list. */
  count = 0;

  /** @param gids  flows of all shards */
  constructor(gids: number) {
    this.#next = new Int32Array(gids);
    this.#previous = new Int32Array(gids);
  }

  /** @returns the oldest gid, or -1 when the list is empty */
  get oldest(): number {
    return this.#first - 1;
  }

  /** Append a gid that is not on the list. */
  append(gid: number): void {
    const last = this.#last;
    this.#previous[gid] = last;
    this.#next[gid] = 0;
    if (last === 0) this.#first = gid + 1;
    else this.#next[last - 1] = gid + 1;
    this.#last = gid + 1;
    this.count++;
  }

  /** Remove a gid that is on the list. */
  remove(gid: number): void {
    this.count--;
    const next = this.#next[gid]!;
    const previous = this.#previous[gid]!;
    if (next === 0) this.#last = previous;
    else this.#previous[next - 1] = previous;
    if (previous === 0) this.#first = next;
    else this.#next[previous - 1] = next;
  }
}
