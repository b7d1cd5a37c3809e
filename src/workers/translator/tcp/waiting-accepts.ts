/**
 * Connections of published ports whose addresses and ports an older flow still has: a peer that reconnects at
 * once from the same source port is accepted by the host's kernel before host-io has said `closed` of the
 * connection before. They wait for that, a moment.
 *
 * Kept as the messages they came with. Invariant: each waits for a flow that exists; the idle timer of that
 * flow is armed for the end.
 */
import { DESC_WORDS } from '../../../ring/spsc.ts';
import { descriptorCopy } from '../../link/descriptor.ts';

/** More at a time do not wait: they get another source port at once. */
const MAX_WAITING = 64;

export class WaitingAccepts {
  readonly #words = new Uint32Array(MAX_WAITING * DESC_WORDS);
  readonly #flow = new Int32Array(MAX_WAITING);
  /** One message, taken out. */
  readonly taken = new Uint32Array(DESC_WORDS);
  count = 0;

  /** @returns false: no room */
  add(flow: number, words: Uint32Array, at: number): boolean {
    if (this.count === MAX_WAITING) return false;
    const to = this.count * DESC_WORDS;
    descriptorCopy(words, at, this.#words, to);
    this.#flow[this.count++] = flow;
    return true;
  }

  /** Whether one waits for the flow: its idle timer is then not to be put off. */
  has(flow: number): boolean {
    for (let i = 0; i < this.count; i++) if (this.#flow[i] === flow) return true;
    return false;
  }

  /** Take the oldest that waits for the flow into `taken`. @returns false: there is none */
  take(flow: number): boolean {
    let i = 0;
    while (i < this.count && this.#flow[i] !== flow) i++;
    if (i === this.count) return false;
    const at = i * DESC_WORDS;
    descriptorCopy(this.#words, at, this.taken, 0);
    this.count--;
    this.#words.copyWithin(at, at + DESC_WORDS, (this.count + 1) * DESC_WORDS);
    this.#flow.copyWithin(i, i + 1, this.count + 1);
    return true;
  }
}
