/**
 * The files of `--json` and `--html`: tried before the first measurement, so that a mistyped folder costs a
 * second and not the run, and each written for itself at the end. What cannot be written after all goes to
 * the directory for temporary files.
 */
import { closeSync, constants, existsSync, openSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type Output, UsageError } from './options.ts';
import { say } from './progress.ts';

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such directory',
  ENOTDIR: 'a part of the path is no directory',
  EISDIR: 'is a directory',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the file system is read-only',
  ENOSPC: 'no space is left on the device',
  EDQUOT: 'the disk quota is used up',
  ENXIO: 'a pipe that nobody reads',
};

function reason(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? `${error.code}` : '';
  return REASONS[code] ?? (error instanceof Error ? error.message : `${error}`);
}

/**
 * Open each for writing, without a change to what a file of an earlier run holds.
 * @returns those that were made by it: empty, until something is written
 * @throws UsageError naming option, file and reason
 */
export function tryOutputs(outputs: readonly Output[]): string[] {
  const made: string[] = [];
  const { O_APPEND, O_CREAT, O_NONBLOCK, O_WRONLY } = constants;
  for (const { flag, file } of outputs) {
    const wasThere = existsSync(file);
    try {
      // Non-blocking: a named pipe would have us wait for its reader.
      closeSync(openSync(file, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK, 0o666));
    } catch (error) {
      removeEmpty(made);
      throw new UsageError(`${flag} ${file}: ${reason(error)}`);
    }
    if (!wasThere) made.push(file);
  }
  return made;
}

/** Nothing is left of a run that wrote nothing. */
export function removeEmpty(files: readonly string[]): void {
  for (const file of files)
    try {
      if (statSync(file).size === 0) unlinkSync(file);
    } catch {
      // Gone already.
    }
}

/** @returns whether it was written where it belongs; else where it is, or that it is lost, has been said */
export function writeOutput({ flag, file }: Output, text: string): boolean {
  try {
    writeFileSync(file, text);
    return true;
  } catch (error) {
    const instead = join(tmpdir(), `harness-${process.pid}-${basename(file)}`);
    const failed = `iperf-harness: ${flag} ${file}: ${reason(error)}`;
    try {
      writeFileSync(instead, text, { flag: 'wx' });
      say(`${failed}; written to ${instead}`);
    } catch (second) {
      say(`${failed}; ${instead}: ${reason(second)}`);
    }
    return false;
  }
}
