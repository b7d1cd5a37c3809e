/**
 * Accepted connections of published ports that wait because an older flow has the same addresses and ports. A
 * peer may reconnect at once from the same source port: the host's kernel accepts the new connection before
 * host-io has sent `closed` for the old one.
 *
 * They are kept as their messages (ToShard.accepted). Invariant: each waits for a flow that exists, and that
 * flow's idle timer is armed for the end of the wait.
 */
import { DESC_WORDS } from '../../../ring/spsc.ts';
import { descriptorCopy } from '../../link/descriptor.ts';

/** Most connections that wait at a time. Further ones get a substitute source port at once. */
const MAX_WAITING = 64;

/** The accepted connections of one shard that wait. */
export class WaitingAccepts {
  readonly #words = new Uint32Array(MAX_WAITING * DESC_WORDS);
  readonly #flow = new Int32Array(MAX_WAITING);
  /** The message that take() took out. */
  readonly taken = new Uint32Array(DESC_WORDS);
  count = 0;

  /**
   * Let a connection wait.
   * @param flow  the older flow
   * @param words,at  the message, which is copied
   * @returns false: too many wait
   */
  add(flow: number, words: Uint32Array, at: number): boolean {
    if (this.count === MAX_WAITING) return false;
    const to = this.count * DESC_WORDS;
    descriptorCopy(words, at, this.#words, to);
    this.#flow[this.count++] = flow;
    return true;
  }

  /** Whether a connection waits for the flow, whose idle timer must then not be postponed. */
  has(flow: number): boolean {
    for (let i = 0; i < this.count; i++) if (this.#flow[i] === flow) return true;
    return false;
  }

  /**
   * Move the message of the oldest connection that waits for the flow into `taken`.
   * @returns false: none waits
   */
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
