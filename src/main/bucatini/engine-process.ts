// bundle: rare
/** Finds the processes that run an engine of ours, from outside, by their command lines. */
import { readdirSync, readFileSync } from 'node:fs';

/** A process that runs an engine. */
export interface RunningEngine {
  readonly pid: number;
  readonly name: string;
  /** Arguments of the program. */
  readonly args: readonly string[];
}

/**
 * Programs of ours that run an engine, by the file that Node was given, or the word that follows the
 * executable with Bun.
 */
const ENGINE_PROGRAM = /(?:\/main\/|\/bun\/bucatini\0)(bucatini|pasta|slirp4netns)(?:\/main)?(?:\.js)?$/;

/** The engine that a command line runs. */
export function engineProgram(words: readonly string[]): Omit<RunningEngine, 'pid'> | undefined {
  for (let at = 1; at < words.length; at++) {
    const name = ENGINE_PROGRAM.exec(`${words[at - 1]}\0${words[at]}`)?.[1];
    if (name !== undefined) return { name, args: words.slice(at + 1) };
  }
  return undefined;
}

/** Running engines whose command line this user may read. */
export function runningEngines(): RunningEngine[] {
  const engines: RunningEngine[] = [];
  for (const { pid, words } of otherProcesses()) {
    const program = engineProgram(words);
    if (program === undefined) continue;
    const { name, args } = program;
    if (name === 'bucatini' && args[0] !== 'run' && args[0] !== 'attach') continue;
    engines.push({ pid, name, args });
  }
  return engines;
}

/** All processes but this one, with the words of their command lines, as far as this user may read them. */
export const otherProcesses = (): readonly { readonly pid: number; readonly words: readonly string[] }[] =>
  readdirSync('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid)
    .map((pid) => ({ pid, words: commandLine(pid) }));

/** The command line of a process; empty if it is gone, or may not be read. */
function commandLine(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  } catch {
    return [];
  }
}
