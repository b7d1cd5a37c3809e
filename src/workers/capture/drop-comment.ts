/** What a capture says about a frame that the engine dropped. */
import { dropName } from '../../proto/drop.ts';
import { COUNTERS } from '../../ring/counters.ts';
import { stageDropName } from '../link/stage-drop.ts';

/**
 * The comment of a dropped frame: the name of the counter that has it.
 * @param cause  a Drop or StageDrop below zero, or the index of a counter plus one
 */
export function dropComment(cause: number): string {
  if (cause > 0) return `dropped: ${COUNTERS[cause - 1]!.name}`;
  const name = dropName(cause);
  return `dropped: drop.${name === 'unknown' ? stageDropName(cause) : name}`;
}

/** The cause of a frame that a counter counts. @param counter  an index, Counter.x */
export const lostBy = (counter: number): number => counter + 1;
