/** What the shard of a lane asks of the reader on its thread, which has the links to the other lanes' shards. */
export interface LaneReader {
  /**
   * Another lane's reader has read a fragment: all fragments are reassembled by the first lane's. The slots
   * stay the caller's.
   * @param frameAt  offset in slot A of the Ethernet header
   */
  takeFragment(slotA: number, slotB: number, frameAt: number, frameBytes: number, now: number): void;
  /**
   * Pass a frame on that came to this lane, although another one owns its flow: the bucket was given away while
   * the frame was on its way.
   * @param slotsOf  number of the reader that read the frame
   * @returns false: it was not passed on, and the slots are still the caller's
   */
  forward(slotsOf: number, words: Uint32Array, at: number): boolean;
  /** A frame of this reader's came back to its own lane, from a lane that passed it on. */
  cameBack(slotA: number, slotB: number): void;
  /** Pass a descriptor on to the shard of another lane, as it is. */
  forwardMessage(owner: number, words: Uint32Array, at: number): void;
}
